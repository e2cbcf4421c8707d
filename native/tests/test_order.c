/* test_order.c -- the order of keys: numbers exactly, texts by bytes, tuples, kinds, separators. */
#include <math.h>

#include "containers.h"
#include "order.h"

#define WORDS_MAX 64u

typedef struct {
    dh_heap *heap;
    dh_word words[WORDS_MAX];
    size_t count;
} row;

static void add(row *r, dh_word w)
{
    CHECK(r->count < WORDS_MAX);
    r->words[r->count++] = w;
}

static void add_float(row *r, double d)
{
    dh_word w;
    CHECK_EQ(dh_float_new(r->heap, d, &w), 0);
    add(r, w);
}

/* sign * (high * 2^64 + low) */
static void add_big(row *r, bool is_negative, uint64_t high, uint64_t low)
{
    uint64_t magnitude[2] = {low, high};
    dh_word w;
    CHECK_EQ(dh_bigint_new(r->heap, is_negative, (uint8_t *)magnitude, sizeof magnitude, &w), 0);
    add(r, w);
}

static void add_text(row *r, const char *text, size_t size, bool is_bytes)
{
    dh_word w;
    const uint8_t *data = (const uint8_t *)text;
    CHECK_EQ(is_bytes ? dh_bytes_new(r->heap, data, size, &w) : dh_str_new(r->heap, data, size, &w),
             0);
    add(r, w);
}

static void add_tuple(row *r, const dh_word *words, size_t count)
{
    dh_word w;
    CHECK_EQ(dh_tuple_new(r->heap, words, count, &w), 0);
    add(r, w);
}

/* All pairs, both ways; is_mixed: pairs of different words are of different kinds. */
static void check_rising(const row *r, bool is_mixed)
{
    for (size_t i = 0; i < r->count; i++)
        for (size_t j = 0; j < r->count; j++) {
            dh_ordering ordering;
            CHECK_EQ(dh_order_words(r->heap, r->words[i], r->words[j], &ordering), 0);
            CHECK_EQ((ordering.sign > 0) - (ordering.sign < 0), (i > j) - (i < j));
            CHECK_EQ(ordering.is_mixed, is_mixed && i != j);
        }
}

static void test_numbers(dh_heap *heap)
{
    row r = {.heap = heap};
    add_float(&r, -INFINITY);
    add_float(&r, -1e300);
    add_big(&r, true, 1u << 6, 1); /* -2^70 - 1 */
    add_float(&r, -0x1p70);
    add_big(&r, true, 0, ((uint64_t)1 << 63) + 1);
    add_float(&r, -0x1p63);
    add_big(&r, true, 0, ((uint64_t)1 << 62) + 1);
    add(&r, dh_int(DH_INT_MIN));
    add(&r, dh_int(-((int64_t)1 << 53) - 1));
    add_float(&r, -0x1p53);
    add(&r, dh_int(-2));
    add_float(&r, -1.5);
    add(&r, dh_int(-1));
    add_float(&r, -0.5);
    add_float(&r, -5e-324);
    add(&r, DH_FALSE);
    add_float(&r, 5e-324);
    add_float(&r, 0.1);
    add(&r, DH_TRUE);
    add_float(&r, 1.0000000000000002);
    add(&r, dh_int(2));
    add_float(&r, 0x1p53);
    add(&r, dh_int(((int64_t)1 << 53) + 1));
    add(&r, dh_int(DH_INT_MAX));
    add_float(&r, 0x1p62);
    add_big(&r, false, 0, ((uint64_t)1 << 62) + 1);
    add_big(&r, false, 0, ((uint64_t)1 << 63) - 1);
    add_float(&r, 0x1p63);
    add_big(&r, false, 0, ((uint64_t)1 << 63) + 1);
    add_big(&r, false, 1u << 6, 0);
    add_big(&r, false, 1u << 6, 1);
    add_float(&r, 0x1.0000000000001p70);
    add_float(&r, 1e300);
    add_float(&r, INFINITY);
    check_rising(&r, false);
}

static void test_equal_numbers(dh_heap *heap)
{
    row r = {.heap = heap};
    dh_ordering ordering;
    add(&r, dh_int(0));
    add_float(&r, -0.0);
    add_float(&r, 0.0);
    add(&r, DH_FALSE);
    for (size_t i = 0; i < r.count; i++) {
        CHECK_EQ(dh_order_words(heap, r.words[0], r.words[i], &ordering), 0);
        CHECK_EQ(ordering.sign, 0);
    }
    r.count = 0;
    add_big(&r, false, 1u << 6, 0);
    add_float(&r, 0x1p70);
    CHECK_EQ(dh_order_words(heap, r.words[1], r.words[0], &ordering), 0);
    CHECK_EQ(ordering.sign, 0);
}

static void test_texts(dh_heap *heap, bool is_bytes)
{
    static const struct {
        const char *text;
        size_t size;
    } texts[] = {{"", 0},
                 {"\0", 1},
                 {"\0\0", 2},
                 {"\0\0\0\0\0\0\0", 7},
                 {"\0\0\0\0\0\0\0\0", 8},
                 {"\0\0\0\0\0\0\0\0\0", 9},
                 {"\0a", 2},
                 {"a", 1},
                 {"a\0", 2},
                 {"a\0\0\0\0\0\0\0\0b", 10},
                 {"aaaaaaa", 7},
                 {"aaaaaaaa", 8},
                 {"aaaaaaaa\0", 9},
                 {"aaaaaaaaa", 9},
                 {"aaaaaaaab", 9},
                 {"aaaaaaab", 8},
                 {"aaaaaab", 7},
                 {"b", 1},
                 {"\xc3\xa9", 2},
                 {"\xed\xb3\xbf", 3},      /* U+DCFF, a lone surrogate      */
                 {"\xef\xbf\xbd", 3},      /* U+FFFD                        */
                 {"\xf0\x9f\x98\x80", 4}}; /* U+1F600, behind it, unlike in UTF-16 */
    row r = {.heap = heap};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_text(&r, texts[i].text, texts[i].size, is_bytes);
    check_rising(&r, false);
    /* A separator of any two is between them and no longer than the second. */
    for (size_t i = 0; i < r.count; i++)
        for (size_t j = i + 1; j < r.count; j++) {
            dh_word separator;
            dh_ordering ordering;
            CHECK_EQ(dh_order_separator(heap, r.words[i], r.words[j], &separator), 0);
            CHECK_EQ(dh_order_words(heap, r.words[i], separator, &ordering), 0);
            CHECK(ordering.sign < 0);
            CHECK_EQ(dh_order_words(heap, separator, r.words[j], &ordering), 0);
            CHECK(ordering.sign <= 0);
            dh_value_drop(heap, separator);
        }
}

static void test_tuples(dh_heap *heap)
{
    row r = {.heap = heap};
    dh_word half, pair[3];
    CHECK_EQ(dh_float_new(heap, 0.5, &half), 0);
    add_tuple(&r, NULL, 0);
    add_tuple(&r, (dh_word[]){DH_NONE}, 1);
    add_tuple(&r, (dh_word[]){DH_NONE, dh_int(1)}, 2);
    check_rising(&r, false);
    r.count = 0;
    add_tuple(&r, NULL, 0);
    add_tuple(&r, (dh_word[]){DH_FALSE}, 1);
    add_tuple(&r, (dh_word[]){dh_int(0), dh_short((const uint8_t *)"a", 1, false)}, 2);
    add_tuple(&r, (dh_word[]){half}, 1);
    add_tuple(&r, (dh_word[]){dh_int(1), DH_NONE, dh_int(7)}, 3);
    add_tuple(&r, (dh_word[]){dh_int(1), DH_NONE, dh_int(8)}, 3);
    add_tuple(&r, (dh_word[]){dh_int(1), DH_NONE, dh_int(8), dh_int(0)}, 4);
    CHECK_EQ(dh_tuple_new(heap, (dh_word[]){dh_int(5)}, 1, &pair[1]), 0);
    pair[0] = dh_int(2);
    add_tuple(&r, pair, 2);
    CHECK_EQ(dh_tuple_new(heap, (dh_word[]){dh_int(5), dh_int(0)}, 2, &pair[1]), 0);
    add_tuple(&r, pair, 2);
    for (size_t i = 0; i < r.count; i++)
        for (size_t j = i + 1; j < r.count; j++) {
            dh_ordering ordering;
            CHECK_EQ(dh_order_words(heap, r.words[i], r.words[j], &ordering), 0);
            CHECK(ordering.sign < 0);
        }
}

/* Kinds that Python does not compare still have an order, and say that they have none in Python. */
static void test_kinds(dh_heap *heap)
{
    static const char *const left_right[] = {"'NoneType' and 'int'", "'int' and 'str'",
                                             "'str' and 'bytes'", "'bytes' and 'tuple'"};
    row r = {.heap = heap};
    dh_ordering ordering;
    add(&r, DH_NONE);
    add(&r, dh_int(1));
    add_text(&r, "text", 4, false);
    add_text(&r, "a text of some length", 21, true);
    add_tuple(&r, NULL, 0);
    check_rising(&r, true);
    for (size_t i = 0; i + 1 < r.count; i++) {
        CHECK_EQ(dh_order_words(heap, r.words[i], r.words[i + 1], &ordering), 0);
        CHECK_EQ(dh_order_refuse(heap, &ordering), DH_E_UNORDERED);
        CHECK(strstr(dh_heap_error_text(heap), left_right[i]) != NULL);
    }
}

static void test_admits(dh_heap *heap)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_word nan_word, tuple;
    dh_key key;
    dh_key_from_float(heap, NAN, scratch, &key);
    CHECK_EQ(dh_order_admits(&key), DH_ORDER_NAN);
    dh_key_from_float(heap, INFINITY, scratch, &key);
    CHECK_EQ(dh_order_admits(&key), DH_ORDER_OK);
    CHECK_EQ(dh_float_new(heap, NAN, &nan_word), 0);
    CHECK_EQ(dh_tuple_new(heap, (dh_word[]){dh_int(1), nan_word}, 2, &tuple), 0);
    CHECK_EQ(dh_tuple_new(heap, (dh_word[]){tuple, DH_NONE}, 2, &tuple), 0);
    CHECK_EQ(dh_key_from_word(heap, tuple, scratch, &key, &buffer), 0);
    CHECK_EQ(dh_order_admits(&key), DH_ORDER_NAN);
    free(buffer);
    key.tag = '?';
    CHECK_EQ(dh_order_admits(&key), DH_ORDER_UNKNOWN);
}

/* Random words are compared or refused, never followed astray. */
static void test_damage(dh_heap *heap)
{
    dh_word words[4], good[4];
    dh_ordering ordering;
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)"a text of some length", 21, &good[0]), 0);
    CHECK_EQ(dh_tuple_new(heap, good, 1, &good[1]), 0);
    CHECK_EQ(dh_bigint_new(heap, true, (const uint8_t *)"0123456789abcdef", 16, &good[2]), 0);
    good[3] = dh_int(3);
    containers_fence(heap);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t far = check_random_below(heap->arena.capacity_pages * DH_PAGE_BYTES);
        words[0] = check_random();
        words[1] = dh_ref((dh_type)(1 + check_random_below(5)), far & ~(uint64_t)7);
        words[2] = good[i % 4] ^ (uint64_t)1 << check_random_below(64);
        words[3] = dh_ref((dh_type)(1 + check_random_below(5)), dh_ref_off(good[i % 3]));
        int rc = dh_order_words(heap, good[i % 4], words[i / 4 % 4], &ordering);
        CHECK(rc == 0 || rc == DH_E_CORRUPT);
    }
    containers_unfence();
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap(16u << 20);
    test_numbers(heap);
    test_equal_numbers(heap);
    test_texts(heap, false);
    test_texts(heap, true);
    test_tuples(heap);
    test_kinds(heap);
    test_admits(heap);
    test_damage(heap);
    dh_heap_close(heap);
    return 0;
}

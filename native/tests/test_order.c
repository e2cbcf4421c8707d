/* test_order.c -- the order of keys: numbers exactly, packed values, texts by bytes, tuples, kinds,
 * separators. */
#include <math.h>

#include "containers.h"
#include "ext.h"
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

/* A packed value: its key's tag and bytes, payload of its own. */
static void add_packed(row *r, uint8_t tag, const void *key, size_t size)
{
    dh_ext_view ext = {tag, key, size, (const uint8_t *)"payload", 7};
    dh_word w;
    CHECK_EQ(dh_ext_new(r->heap, &ext, &w), 0);
    add(r, w);
}

/* top / bottom in lowest terms, as canonical.py writes it with spare sign bytes. */
static void add_ratio(row *r, int64_t top, uint64_t bottom)
{
    uint8_t key[4 + 8 + 9] = {8};
    memcpy(key + 4, &top, 8);
    memcpy(key + 12, &bottom, 8);
    add_packed(r, 'q', key, sizeof key);
}

/* (top_high * 2^(8 * (size - 1)) + top_low) / bottom */
static void add_long_ratio(row *r, size_t size, uint8_t top_high, uint8_t top_low, uint8_t bottom)
{
    uint8_t key[4 + 600 + 1] = {0};
    uint32_t size32 = (uint32_t)size;
    memcpy(key, &size32, 4);
    key[4 + size - 1] = top_high;
    key[4] |= top_low;
    key[4 + size] = bottom;
    add_packed(r, 'q', key, 4 + size + 1);
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

/* Between the floats, beside ints of any size, and beside one another. */
static void test_ratios(dh_heap *heap)
{
    row r = {.heap = heap};
    add_float(&r, -INFINITY);
    add_float(&r, -1e300);
    add_ratio(&r, INT64_MIN, 3);
    add(&r, dh_int(-1));
    add_ratio(&r, -2, 3);
    add_float(&r, -0.5);
    add_ratio(&r, -((int64_t)1 << 32), ((uint64_t)1 << 33) + 1); /* a low digit of zero */
    add_ratio(&r, -1, 3);
    add_float(&r, -5e-324);
    add(&r, dh_int(0));
    add_float(&r, 5e-324);
    add_float(&r, 2.2250738585072014e-308);
    add_float(&r, 0x1p-64);
    add_ratio(&r, 1, UINT64_MAX);
    add_float(&r, 0x1.5555555555555p-2); /* the float next to 1/3 is smaller */
    add_ratio(&r, 1, 3);
    add_float(&r, 0x1.5555555555556p-2);
    add_ratio(&r, INT64_MAX, (uint64_t)INT64_MAX + 2);
    add(&r, dh_int(1));
    add_ratio(&r, INT64_MAX, INT64_MAX - 1);
    add_float(&r, 1.0000000000000002);
    add_ratio(&r, INT64_MAX, 3);
    add_big(&r, false, 0, ((uint64_t)1 << 62) + 1);
    add_long_ratio(&r, 9, 3, 1, 3); /* 2^64 + 1/3 */
    add_big(&r, false, 1, 1);
    add_float(&r, 0x1.0000000000001p64);
    add_long_ratio(&r, 100, 1, 0, 7);
    add_long_ratio(&r, 100, 1, 1, 7);
    add_long_ratio(&r, 100, 1, 0, 5);
    add_long_ratio(&r, 600, 1, 0, 3);
    add_float(&r, INFINITY);
    check_rising(&r, false);
}

/* a / b against c / d, drawn so that all are near one another; 128 bits hold the products. */
static void test_random_ratios(dh_heap *heap)
{
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t bottoms[2];
        int64_t tops[2];
        row r = {.heap = heap};
        unsigned bits = 2 + (unsigned)check_random_below(61);
        int sign = check_random_below(2) ? 1 : -1;
        for (unsigned j = 0; j < 2; j++) {
            bottoms[j] = 2 + (check_random() >> (64 - bits));
            tops[j] = sign * (int64_t)(1 + (check_random() >> (65 - bits)));
            if (j == 1 && i % 2 == 0) {
                bottoms[1] = bottoms[0] + check_random_below(2);
                tops[1] = tops[0] + (int64_t)check_random_below(2) * sign;
            }
            add_ratio(&r, tops[j], bottoms[j]);
        }
        __int128 left = (__int128)tops[0] * bottoms[1], right = (__int128)tops[1] * bottoms[0];
        dh_ordering ordering;
        CHECK_EQ(dh_order_words(heap, r.words[0], r.words[1], &ordering), 0);
        CHECK_EQ(ordering.sign, (left > right) - (left < right));
        dh_value_drop(heap, r.words[0]);
        dh_value_drop(heap, r.words[1]);
    }
}

/* Forms of fixed size, each row from first to last. */
static void test_packed(dh_heap *heap)
{
    static const struct {
        size_t size;
        const char *keys[5];
    } rows[] = {
        {5, {"\3\7\xe8\1\1", "\3\7\xe8\1\2", "\3\7\xe8\2\1", "\3\7\xe9\1\1"}},
        {11, {"\2\7\xe8\1\1\0\0\0\0\0\0", "\2\7\xe8\1\1\0\0\0\0\0\1", "\2\7\xe8\1\1\0\0\1\0\0\0"}},
        {11,
         {"\2u\xfe\xff\xff\xff\xff\xff\xff\xff\xff", "\2u\xff\xff\xff\xff\xff\xff\xff\xff\xff",
          "\2u\0\0\0\0\0\0\0\0\0", "\2u\0\1\0\0\0\0\0\0\0", "\2u\1\1\0\0\0\0\0\0\0"}},
        {22,
         {"\2f\xff\xff\xff\xff\xff\xff\xff\xff\xff\7\xe8\1\1\0\0\0\0\0\0z",
          "\2f\0\0\0\0\0\0\0\0\0\7\xe8\1\1\0\0\0\0\0\0y",
          "\2f\0\0\0\0\0\0\0\0\0\7\xe8\1\1\0\0\0\0\0\0z"}},
        {7, {"\4\0\0\0\0\0\1", "\4\0\0\0\0\1\0", "\4\27\0\0\0\0\0"}},
        {10, {"\4u\xff\xff\xff\xff\xff\xff\xff\xff", "\4u\1\0\0\0\0\0\0\0", "\4u\0\1\0\0\0\0\0\0"}},
        {10,
         {"\5\xff\xff\xff\xff\1\0\0\0\0", "\5\xff\xff\xff\xff\0\0\0\0\1", "\5\0\0\0\0\0\0\0\0\0",
          "\5\1\0\0\0\0\0\0\0\0", "\5\0\1\0\0\0\0\0\0\0"}},
        {17, {"\10\0aaaaaaaaaaaaaaa", "\10\1aaaaaaaaaaaaaaa", "\10\1aaaaaaaaaaaaaab"}},
    };
    row kinds = {.heap = heap};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        row r = {.heap = heap};
        for (size_t j = 0; j < 5 && rows[i].keys[j] != NULL; j++)
            add_packed(&r, 'x', rows[i].keys[j], rows[i].size);
        check_rising(&r, false);
        if (rows[i].size != 22) /* as the row before */
            add(&kinds, r.words[0]);
    }
    static const char *const paths[] = {"\12/",   "\12/a",    "\12-",   "\12a",
                                        "\12a/b", "\12a/b/c", "\12a\1", "\12a.b"};
    row r = {.heap = heap};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        add_packed(&r, 'x', paths[i], strlen(paths[i]));
    check_rising(&r, false);
    add(&kinds, r.words[0]);
    check_rising(&kinds, true);
}

static void check_refused(dh_heap *heap, const char *a, size_t a_size, const char *b, size_t b_size,
                          const char *text)
{
    row r = {.heap = heap};
    dh_ordering ordering;
    add_packed(&r, 'x', a, a_size);
    add_packed(&r, 'x', b, b_size);
    CHECK_EQ(dh_order_words(heap, r.words[0], r.words[1], &ordering), 0);
    CHECK(ordering.is_mixed);
    CHECK_EQ(dh_order_refuse(heap, &ordering), DH_E_UNORDERED);
    CHECK(strstr(dh_heap_error_text(heap), text) != NULL);
}

static void test_refused_packed(dh_heap *heap)
{
    check_refused(heap, "\2\7\xe8\1\1\0\0\0\0\0\0", 11, "\2u\0\0\0\0\0\0\0\0\0", 11,
                  "can't compare offset-naive and offset-aware datetimes");
    check_refused(heap, "\4u\0\1\0\0\0\0\0\0", 10, "\4\0\0\0\0\0\1", 7,
                  "can't compare offset-naive and offset-aware times");
    check_refused(heap, "\3\7\xe8\1\1", 5, "\12a", 2, "'datetime.date' and 'PurePosixPath'");
}

static dh_order_verdict admits(dh_heap *heap, uint8_t tag, const void *data, size_t size)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    dh_key key;
    CHECK_EQ(dh_key_from_canonical(heap, tag, data, size, scratch, &key), 0);
    return dh_order_admits(&key);
}

/* What no packer makes, and what has too many digits. */
static void test_admits_packed(dh_heap *heap)
{
    static uint8_t ratio[4 + 8193 + 1];
    uint32_t size = 8193;
    CHECK_EQ(admits(heap, 'x', "\3\7\xe8\1\1", 5), DH_ORDER_OK);
    CHECK_EQ(admits(heap, 'x', "\3\7\xe8\1", 4), DH_ORDER_UNKNOWN);
    CHECK_EQ(admits(heap, 'x', "\2u\0", 3), DH_ORDER_UNKNOWN);
    CHECK_EQ(admits(heap, 'x', "", 0), DH_ORDER_UNKNOWN);
    CHECK_EQ(admits(heap, 'x', "\100abc", 4), DH_ORDER_UNKNOWN);
    CHECK_EQ(admits(heap, 'x', "\6nan", 4), DH_ORDER_NAN);
    CHECK_EQ(admits(heap, 'x', "\0060:9000:\1", 10), DH_ORDER_LONG);
    CHECK_EQ(admits(heap, 'q', "\1\0\0\0\1\3", 6), DH_ORDER_OK);
    CHECK_EQ(admits(heap, 'q', "\1\0\0\0\1\0", 6), DH_ORDER_LONG);   /* over 0  */
    CHECK_EQ(admits(heap, 'q', "\1\0\0\0\1\xff", 6), DH_ORDER_LONG); /* over -1 */
    CHECK_EQ(admits(heap, 'q', "\1\0\0\0\0\3", 6), DH_ORDER_LONG);
    CHECK_EQ(admits(heap, 'q', "\1\0\0\0\1", 5), DH_ORDER_LONG);
    CHECK_EQ(admits(heap, 'q', "\377\377\377\377\1\3", 6), DH_ORDER_LONG);
    CHECK_EQ(admits(heap, 'q', "\1", 1), DH_ORDER_LONG);
    memcpy(ratio, &size, sizeof size);
    ratio[4 + 8192] = 1;
    ratio[4 + 8193] = 3;
    CHECK_EQ(admits(heap, 'q', ratio, sizeof ratio), DH_ORDER_LONG);
}

/* EXT cells with any bytes in them: compared with good ones, or refused. */
static void test_damaged_packed(dh_heap *heap)
{
    row good = {.heap = heap};
    dh_ordering ordering;
    add_ratio(&good, 1, 3);
    add_packed(&good, 'x', "\2\7\xe8\1\1\0\0\0\0\0\0", 11);
    add_packed(&good, 'x', "\2u\0\0\0\0\0\0\0\0\0", 11);
    add_packed(&good, 'x', "\4u\0\0\0\0\0\0\0\0", 10);
    add_packed(&good, 'x', "\5\0\0\0\0\0\0\0\0\0", 10);
    add_packed(&good, 'x', "\12a/b", 4);
    add(&good, dh_int(5));
    for (unsigned i = 0; i < 20000; i++) {
        row bad = {.heap = heap};
        uint8_t key[32];
        size_t size = check_random_below(sizeof key);
        for (size_t j = 0; j < sizeof key; j++)
            key[j] = (uint8_t)check_random();
        bool is_ratio = check_random_below(2) != 0;
        if (is_ratio)
            memcpy(key, (uint32_t[]){(uint32_t)check_random_below(24)}, 4);
        else
            key[0] = (uint8_t)check_random_below(13);
        if (check_random_below(2))
            key[1] = is_ratio ? 0 : 'u';
        add_packed(&bad, is_ratio ? 'q' : 'x', key, size);
        /* And a cell whose own sizes are damaged. */
        if (i % 4 == 0)
            ((uint8_t *)dh_at(heap, dh_ref_off(bad.words[0])))[check_random_below(9)] ^=
                (uint8_t)(1 + check_random_below(255));
        dh_word other = good.words[check_random_below(good.count)];
        int rc = dh_order_words(heap, bad.words[0], other, &ordering);
        CHECK(rc == 0 || rc == DH_E_CORRUPT || rc == DH_E_UNHASHABLE);
        rc = dh_order_words(heap, other, bad.words[0], &ordering);
        CHECK(rc == 0 || rc == DH_E_CORRUPT);
        dh_value_drop(heap, bad.words[0]);
    }
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
    test_ratios(heap);
    test_random_ratios(heap);
    test_packed(heap);
    test_refused_packed(heap);
    test_admits_packed(heap);
    test_damaged_packed(heap);
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

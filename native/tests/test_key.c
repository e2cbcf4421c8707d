/* test_key.c -- keys: what Python calls equal has one key, made from a value or from a word. */
#include "containers.h"

#include <math.h>

/* A key and the storage it borrows, if not the arena's. */
typedef struct {
    dh_key key;
    uint8_t *buffer;
} held;

static held hold_word(const dh_heap *heap, dh_word word)
{
    held h = {.buffer = NULL};
    uint8_t *scratch = malloc(DH_KEY_SCRATCH_BYTES);
    CHECK(scratch != NULL);
    CHECK_EQ(dh_key_from_word(heap, word, scratch, &h.key, &h.buffer), 0);
    if (h.buffer == NULL)
        h.buffer = scratch;
    else
        free(scratch);
    return h;
}

static bool same_key(const dh_key *a, const dh_key *b)
{
    if (a->hash != b->hash || a->tag != b->tag || a->number != b->number || a->word != b->word)
        return false;
    return a->tag == 'i' || a->tag == 'n' ||
           (a->size == b->size && memcmp(a->data, b->data, a->size) == 0);
}

/* key is what the word's own key is, and matches it. */
static void check_is(const dh_heap *heap, const dh_key *key, dh_word word)
{
    held h = hold_word(heap, word);
    CHECK(same_key(key, &h.key));
    CHECK_EQ(dh_key_matches(heap, key, word), 1);
    free(h.buffer);
}

static void check_is_not(const dh_heap *heap, const dh_key *key, dh_word word)
{
    held h = hold_word(heap, word);
    CHECK(!same_key(key, &h.key));
    CHECK_EQ(dh_key_matches(heap, key, word), 0);
    free(h.buffer);
}

static dh_word float_word(dh_heap *heap, double d)
{
    dh_word word;
    CHECK_EQ(dh_float_new(heap, d, &word), 0);
    return word;
}

static dh_word int_word(dh_heap *heap, int64_t v)
{
    dh_word word;
    uint64_t magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    CHECK_EQ(dh_bigint_new(heap, v < 0, (const uint8_t *)&magnitude, 8, &word), 0);
    return word;
}

static void test_small_numbers(dh_heap *heap)
{
    dh_key key, other;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    for (int64_t v = -3; v <= 3; v++) {
        dh_key_from_int(heap, v, &key);
        check_is(heap, &key, dh_int(v));
        check_is(heap, &key, float_word(heap, (double)v));
        dh_key_from_float(heap, (double)v, scratch, &other);
        CHECK(same_key(&key, &other));
        check_is_not(heap, &key, float_word(heap, (double)v + 0.5));
        check_is_not(heap, &key, dh_int(v + 1));
        check_is_not(heap, &key, DH_NONE);
        if (v == 0 || v == 1)
            check_is(heap, &key, v == 1 ? DH_TRUE : DH_FALSE);
        else
            check_is_not(heap, &key, DH_TRUE);
    }
    dh_key_from_float(heap, -0.0, scratch, &key);
    check_is(heap, &key, dh_int(0));
    check_is(heap, &key, DH_ZERO_FLOAT);
    check_is(heap, &key, float_word(heap, -0.0));
}

/* Around 2^62, 2^63 and 2^53 the forms change. */
static void test_large_numbers(dh_heap *heap)
{
    dh_key key, other;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], data[9];
    static const int64_t middles[] = {DH_INT_MAX,    DH_INT_MIN,       INT64_MAX - 2,
                                      INT64_MIN + 2, (int64_t)1 << 53, -((int64_t)1 << 53)};
    for (size_t i = 0; i < sizeof middles / sizeof middles[0]; i++)
        for (int64_t v = middles[i] - 2;; v++) {
            uint64_t magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
            dh_key_from_int(heap, v, &key);
            check_is(heap, &key, int_word(heap, v));
            data[0] = v < 0;
            memcpy(data + 1, &magnitude, 8);
            dh_key_from_bigint(heap, data, 9, &other);
            CHECK(same_key(&key, &other));
            if (v != INT64_MAX)
                check_is_not(heap, &key, int_word(heap, v + 1));
            double d = (double)v;
            bool is_exact = d < 0x1p63 && (int64_t)d == v;
            if (is_exact)
                check_is(heap, &key, float_word(heap, d));
            else
                check_is_not(heap, &key, float_word(heap, d));
            if (v == middles[i] + 2 || v == INT64_MAX)
                break;
        }
    /* 2^63 .. 2^1023: float and big integer */
    for (unsigned exponent = 63; exponent < 1024; exponent++)
        for (unsigned sign = 0; sign < 2; sign++) {
            uint8_t magnitude[129] = {0};
            double d = sign ? -1.5 : 1.5;
            dh_word word;
            for (unsigned i = 0; i < exponent; i++)
                d *= 2;
            magnitude[exponent / 8] |= (uint8_t)(1u << exponent % 8);
            magnitude[(exponent - 1) / 8] |= (uint8_t)(1u << (exponent - 1) % 8);
            CHECK_EQ(dh_bigint_new(heap, sign != 0, magnitude, sizeof magnitude, &word), 0);
            dh_key_from_float(heap, d, scratch, &key);
            check_is(heap, &key, word);
            check_is(heap, &key, float_word(heap, d));
            magnitude[0] ^= 1;
            CHECK_EQ(dh_bigint_new(heap, sign != 0, magnitude, sizeof magnitude, &word), 0);
            check_is_not(heap, &key, word);
            CHECK_EQ(dh_bigint_new(heap, sign == 0, magnitude, sizeof magnitude, &word), 0);
            check_is_not(heap, &key, word);
        }
}

static void test_other_floats(dh_heap *heap)
{
    dh_key key, other;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], scratch2[DH_KEY_SCRATCH_BYTES];
    static const double ones[] = {0.5, -0.1, 1e-300, 5e-324, INFINITY, -INFINITY, 1e22 + 0.5};
    for (size_t i = 0; i < sizeof ones / sizeof ones[0]; i++) {
        dh_key_from_float(heap, ones[i], scratch, &key);
        check_is(heap, &key, float_word(heap, ones[i]));
        check_is_not(heap, &key, float_word(heap, 0.25));
        check_is_not(heap, &key, dh_int(1));
    }
    /* All NaNs are one key. */
    uint64_t bits = 0xfff8000000001234u;
    double odd;
    memcpy(&odd, &bits, 8);
    dh_key_from_float(heap, NAN, scratch, &key);
    dh_key_from_float(heap, odd, scratch2, &other);
    CHECK(same_key(&key, &other));
    check_is(heap, &key, float_word(heap, odd));
}

static void test_texts(dh_heap *heap)
{
    uint8_t text[40] = "an example of a text, long enough";
    dh_key as_str, as_bytes;
    dh_word str, bytes, shorter;
    for (size_t size = 0; size < 33; size++) {
        dh_key_from_str(heap, text, size, &as_str);
        dh_key_from_bytes(heap, text, size, &as_bytes);
        CHECK_EQ(dh_str_new(heap, text, size, &str), 0);
        CHECK_EQ(dh_bytes_new(heap, text, size, &bytes), 0);
        check_is(heap, &as_str, str);
        check_is(heap, &as_bytes, bytes);
        check_is_not(heap, &as_str, bytes);
        check_is_not(heap, &as_bytes, str);
        if (size > 0) {
            CHECK_EQ(dh_str_new(heap, text, size - 1, &shorter), 0);
            check_is_not(heap, &as_str, shorter);
            text[size - 1] ^= 1;
            CHECK_EQ(dh_str_new(heap, text, size, &shorter), 0);
            text[size - 1] ^= 1;
            check_is_not(heap, &as_str, shorter);
        }
    }
    dh_key none;
    dh_key_from_none(heap, &none);
    check_is(heap, &none, DH_NONE);
    check_is_not(heap, &none, DH_FALSE);
}

/* (1, "text", (2.5, None, b"..."), 2^70, True) from parts and from the stored tuple. */
static size_t encode_example(const dh_heap *heap, uint8_t *out, size_t room, bool with_floats)
{
    static const uint8_t big[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 64};
    static const uint8_t text[] = "a text in a tuple", few[] = "abc";
    uint8_t inner[200], scratch[DH_KEY_SCRATCH_BYTES];
    size_t size = 0, at = 0;
    dh_key key;
#define PUT(buffer, used, limit) used += dh_key_encode(&key, buffer + used, (limit) - used)
    dh_key_from_float(heap, 2.5, scratch, &key);
    PUT(inner, size, sizeof inner);
    dh_key_from_none(heap, &key);
    PUT(inner, size, sizeof inner);
    dh_key_from_bytes(heap, few, 3, &key);
    PUT(inner, size, sizeof inner);
    if (with_floats)
        dh_key_from_float(heap, 1.0, scratch, &key);
    else
        dh_key_from_int(heap, 1, &key);
    PUT(out, at, room);
    dh_key_from_str(heap, text, sizeof text - 1, &key);
    PUT(out, at, room);
    dh_key_from_tuple(heap, inner, size, &key);
    PUT(out, at, room);
    dh_key_from_bigint(heap, big, sizeof big, &key);
    PUT(out, at, room);
    dh_key_from_int(heap, 1, &key);
    PUT(out, at, room);
#undef PUT
    return at;
}

static void test_tuples(dh_heap *heap)
{
    static const uint8_t magnitude[] = {0, 0, 0, 0, 0, 0, 0, 0, 64};
    static const uint8_t text[] = "a text in a tuple";
    uint8_t canonical[400], other[400];
    dh_word inner[3] = {float_word(heap, 2.5), DH_NONE, dh_short((const uint8_t *)"abc", 3, true)};
    dh_word outer[5] = {dh_int(1), 0, 0, 0, DH_TRUE}, tuple, longer;
    dh_key key;
    CHECK_EQ(dh_str_new(heap, text, sizeof text - 1, &outer[1]), 0);
    CHECK_EQ(dh_tuple_new(heap, inner, 3, &outer[2]), 0);
    CHECK_EQ(dh_bigint_new(heap, false, magnitude, sizeof magnitude, &outer[3]), 0);
    CHECK_EQ(dh_tuple_new(heap, outer, 5, &tuple), 0);
    size_t size = encode_example(heap, canonical, sizeof canonical, false);
    CHECK_EQ(encode_example(heap, other, sizeof other, true), size);
    CHECK(memcmp(canonical, other, size) == 0);
    dh_key_from_tuple(heap, canonical, size, &key);
    check_is(heap, &key, tuple);
    CHECK_EQ(dh_tuple_new(heap, outer, 4, &longer), 0);
    check_is_not(heap, &key, longer);
    check_is_not(heap, &key, dh_int(1));
    /* Cut off in the middle it equals nothing and reads nothing behind its end. */
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut + 1);
        CHECK(part != NULL);
        memcpy(part, canonical, cut);
        dh_key_from_tuple(heap, part, cut, &key);
        CHECK_EQ(dh_key_matches(heap, &key, tuple), 0);
        free(part);
    }
    CHECK(dh_key_encode(&key, NULL, 0) > 0);
    dh_word empty;
    CHECK_EQ(dh_tuple_new(heap, NULL, 0, &empty), 0);
    dh_key_from_tuple(heap, canonical, 0, &key);
    check_is(heap, &key, empty);
}

static void shuffle(dh_word *words, unsigned count)
{
    for (unsigned i = count - 1; i > 0; i--) {
        unsigned j = (unsigned)check_random_below(i + 1);
        dh_word word = words[i];
        words[i] = words[j];
        words[j] = word;
    }
}

/* {1, 2.5, None, a text, {None, -7, 2.5}}: the elements in any order, numbers in any form. */
static dh_word some_frozenset(dh_heap *heap, size_t less)
{
    static const uint8_t text[] = "a text in a frozenset";
    dh_word inner[3] = {DH_NONE, check_random_below(2) ? dh_int(-7) : float_word(heap, -7.0),
                        float_word(heap, 2.5)};
    dh_word words[5] = {check_random_below(2) ? DH_TRUE : float_word(heap, 1.0),
                        float_word(heap, 2.5), DH_NONE, 0, 0};
    dh_word made;
    shuffle(inner, 3);
    CHECK_EQ(dh_str_new(heap, text, sizeof text - 1, &words[3]), 0);
    CHECK_EQ(dh_frozenset_new(heap, inner, 3, &words[4]), 0);
    shuffle(words, 5);
    CHECK_EQ(dh_frozenset_new(heap, words, 5 - less, &made), 0);
    return made;
}

static void test_frozensets(dh_heap *heap)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    const dh_word *words;
    dh_word tuple, empty;
    dh_key key;
    size_t count;
    dh_word first = some_frozenset(heap, 0);
    CHECK_EQ(dh_key_from_word(heap, first, scratch, &key, &buffer), 0);
    CHECK_EQ(key.tag, 'z');
    for (unsigned round = 0; round < 100; round++) {
        check_is(heap, &key, some_frozenset(heap, 0));
        check_is_not(heap, &key, some_frozenset(heap, 1));
    }
    CHECK_EQ(dh_tuple_read(heap, first, &words, &count), 0);
    CHECK_EQ(dh_tuple_new(heap, words, count, &tuple), 0);
    check_is_not(heap, &key, tuple);
    check_is_not(heap, &key, dh_int(1));
    free(buffer);
    CHECK_EQ(dh_frozenset_new(heap, NULL, 0, &empty), 0);
    dh_key_from_tuple(heap, scratch, 0, &key);
    CHECK_EQ(dh_key_matches(heap, &key, empty), 0);
    dh_key_from_frozenset(heap, scratch, 0, &key);
    check_is(heap, &key, empty);
}

/* A frozenset that holds itself is found out, not followed for ever. */
static void test_rings_of_frozensets(dh_heap *heap)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer, data[64] = {'z'};
    dh_word two[2] = {dh_int(1), dh_int(2)}, ring;
    dh_key key;
    CHECK_EQ(dh_frozenset_new(heap, two, 2, &ring), 0);
    dh_word *cell = dh_at(heap, dh_ref_off(ring));
    cell[1] = cell[2] = ring;
    CHECK_EQ(dh_key_from_word(heap, ring, scratch, &key, &buffer), DH_E_CORRUPT);
    dh_key_from_frozenset(heap, data, sizeof data, &key);
    CHECK_EQ(dh_key_matches(heap, &key, ring), DH_E_CORRUPT);
}

static void test_containers_are_no_keys(dh_heap *heap)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_word list, tuple;
    dh_key key;
    CHECK_EQ(dh_list_new(heap, &list), 0);
    CHECK_EQ(dh_tuple_new(heap, &list, 1, &tuple), 0);
    CHECK_EQ(dh_key_from_word(heap, list, scratch, &key, &buffer), DH_E_UNHASHABLE);
    CHECK_EQ(dh_key_from_word(heap, tuple, scratch, &key, &buffer), DH_E_UNHASHABLE);
    CHECK(buffer == NULL);
    CHECK_EQ(dh_key_from_word(heap, DH_DELETED, scratch, &key, &buffer), DH_E_CORRUPT);
    CHECK_EQ(dh_key_from_word(heap, DH_EMPTY, scratch, &key, &buffer), DH_E_CORRUPT);
    dh_key_from_int(heap, 5, &key);
    CHECK_EQ(dh_key_matches(heap, &key, list), 0);
    CHECK_EQ(dh_key_matches(heap, &key, DH_EMPTY), 0);
    CHECK_EQ(dh_key_matches(heap, &key, DH_DELETED), 0);
}

/* In a dict: one entry for all forms of a number. */
static void test_equal_keys_share_an_entry(dh_heap *heap)
{
    dh_word dict, value;
    dh_key key;
    bool was_new;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    dh_key_from_float(heap, 1.0, scratch, &key);
    CHECK_EQ(dh_dict_set(heap, dict, &key, DH_TRUE, dh_int(10), &was_new), 0);
    CHECK(was_new);
    dh_key_from_int(heap, 1, &key);
    CHECK_EQ(dh_dict_set(heap, dict, &key, dh_int(1), dh_int(20), &was_new), 0);
    CHECK(!was_new);
    dh_dict_pos pos = {0, 0};
    dh_word stored;
    CHECK_EQ(dh_dict_next(heap, dict, &pos, &stored, &value), 1);
    CHECK(stored == DH_TRUE && value == dh_int(20));
    CHECK_EQ(dh_dict_next(heap, dict, &pos, &stored, &value), 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap(64u << 20);
    test_small_numbers(heap);
    test_large_numbers(heap);
    test_other_floats(heap);
    test_texts(heap);
    test_tuples(heap);
    test_frozensets(heap);
    test_rings_of_frozensets(heap);
    test_containers_are_no_keys(heap);
    test_equal_keys_share_an_entry(heap);
    dh_heap_close(heap);
    return 0;
}

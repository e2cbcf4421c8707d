/* test_ext.c -- packed values: cells, their keys, dicts of them, and damage. */
#include "containers.h"
#include "ext.h"

#include <math.h>

static dh_ext_view ext_view(const char *key, size_t key_size, const char *payload, size_t size)
{
    dh_ext_view ext = {.payload = (const uint8_t *)payload, .payload_size = size};
    if (key != NULL) {
        ext.key_tag = (uint8_t)key[0];
        ext.key = (const uint8_t *)key + 1;
        ext.key_size = key_size - 1;
    }
    return ext;
}

static dh_word ext_word(dh_heap *heap, const dh_ext_view *ext)
{
    dh_word word;
    CHECK_EQ(dh_ext_new(heap, ext, &word), 0);
    CHECK(dh_is_ref_to(word, DH_T_EXT) && dh_is_value(word) && !dh_is_container(word));
    return word;
}

static bool same_bytes(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    return a_size == b_size && (a_size == 0 || memcmp(a, b, a_size) == 0);
}

static void check_is(const dh_heap *heap, dh_word word, const dh_ext_view *ext)
{
    dh_ext_view found;
    CHECK_EQ(dh_ext_read(heap, word, &found), 0);
    CHECK_EQ(found.key_tag, ext->key_tag);
    CHECK(same_bytes(found.key, found.key_size, ext->key, ext->key_size));
    CHECK(same_bytes(found.payload, found.payload_size, ext->payload, ext->payload_size));
    CHECK_EQ(dh_ext_check(heap, word), 0);
}

/* Random sizes, with a key of its own, the payload for a key, or none. */
static void test_round_trips(dh_heap *heap)
{
    static char bytes[9000];
    uint64_t before = containers_allocated(heap);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)check_random();
    for (unsigned round = 0; round < 3000; round++) {
        size_t limit = round % 100 == 0 ? 8000 : 60;
        size_t size = 1 + check_random_below(limit), key_size = check_random_below(limit);
        dh_ext_view ext = ext_view(NULL, 0, bytes + check_random_below(900), size);
        if (round % 3 != 0)
            ext.key_tag = 'x';
        if (round % 3 == 1) {
            ext.key = ext.payload;
            ext.key_size = size;
        } else if (round % 3 == 2) {
            ext.key = (const uint8_t *)bytes + 1000 - key_size % 1000;
            ext.key_size = key_size;
        }
        dh_word copy, word = ext_word(heap, &ext);
        check_is(heap, word, &ext);
        CHECK_EQ(dh_ext_is_opaque(heap, word), ext.payload[0] >= DH_EXT_OPAQUE_FIRST);
        CHECK_EQ(dh_value_clone(heap, word, &copy), 0);
        CHECK(copy != word);
        dh_value_drop(heap, word);
        check_is(heap, copy, &ext);
        dh_value_drop(heap, copy);
    }
    CHECK_EQ(containers_allocated(heap), before);
    CHECK(!dh_ext_is_opaque(heap, dh_int(1)));
    dh_word word;
    dh_ext_view none = ext_view(NULL, 0, "", 0);
    CHECK_EQ(dh_ext_new(heap, &none, &word), DH_E_LIMIT);
}

/* A small payload and its key share 16 bytes. */
static void test_small_cells(dh_heap *heap)
{
    const char payload[] = "\2eleven byte";
    dh_ext_view ext = ext_view(NULL, 0, payload, 12);
    ext.key_tag = 'x';
    ext.key = ext.payload;
    ext.key_size = ext.payload_size;
    dh_word word = ext_word(heap, &ext);
    CHECK_EQ(dh_cell_bytes(heap, dh_ref_off(word)), 16);
    dh_value_drop(heap, word);
}

/* --- keys ------------------------------------------------------------------------------------- */

static dh_word number_word(dh_heap *heap, char tag, const void *data, size_t size)
{
    char key[64] = {tag};
    memcpy(key + 1, data, size);
    dh_ext_view ext = ext_view(key, size + 1, "\6number", 7);
    return ext_word(heap, &ext);
}

static void check_equal(const dh_heap *heap, dh_word a, dh_word b, int expected)
{
    uint8_t scratch_a[DH_KEY_SCRATCH_BYTES], scratch_b[DH_KEY_SCRATCH_BYTES], *buffer_a, *buffer_b;
    dh_key key_a, key_b;
    CHECK_EQ(dh_key_from_word(heap, a, scratch_a, &key_a, &buffer_a), 0);
    CHECK_EQ(dh_key_from_word(heap, b, scratch_b, &key_b, &buffer_b), 0);
    CHECK_EQ(dh_key_matches(heap, &key_a, b), expected);
    CHECK_EQ(dh_key_matches(heap, &key_b, a), expected);
    CHECK(!expected || key_a.hash == key_b.hash);
    free(buffer_a);
    free(buffer_b);
}

static dh_word pair_of(dh_heap *heap, dh_word first)
{
    dh_word words[2] = {first, dh_int(7)}, tuple;
    CHECK_EQ(dh_tuple_new(heap, words, 2, &tuple), 0);
    return tuple;
}

/* Alone and inside tuples. */
static void check_pair(dh_heap *heap, dh_word a, dh_word b, int expected)
{
    check_equal(heap, a, b, expected);
    dh_word one = pair_of(heap, a), other = pair_of(heap, b);
    check_equal(heap, one, other, expected);
    dh_value_drop(heap, one);
    dh_value_drop(heap, other);
}

static void test_keys_of_numbers(dh_heap *heap)
{
    int64_t five = 5, large = INT64_MAX;
    double half = 0.5, five_float = 5.0;
    const uint8_t big[] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}; /* -2^72 */
    dh_word word;

    check_pair(heap, number_word(heap, 'i', &five, 8), dh_int(5), 1);
    check_pair(heap, number_word(heap, 'f', &five_float, 8), dh_int(5), 1);
    check_pair(heap, number_word(heap, 'i', &five, 8), dh_int(6), 0);
    CHECK_EQ(dh_float_new(heap, 0.5, &word), 0);
    check_pair(heap, number_word(heap, 'f', &half, 8), word, 1);
    CHECK_EQ(dh_bigint_new(heap, true, big + 1, sizeof big - 1, &word), 0);
    check_pair(heap, number_word(heap, 'I', big, sizeof big), word, 1);
    CHECK_EQ(dh_float_new(heap, -0x1p72, &word), 0);
    check_pair(heap, number_word(heap, 'I', big, sizeof big), word, 1);
    CHECK_EQ(dh_bigint_new(heap, false, (const uint8_t *)&large, 8, &word), 0);
    check_pair(heap, number_word(heap, 'i', &large, 8), word, 1);
    check_pair(heap, number_word(heap, 'q', "1/3", 3), number_word(heap, 'q', "1/3", 3), 1);
    check_pair(heap, number_word(heap, 'q', "1/3", 3), number_word(heap, 'x', "1/3", 3), 0);
}

static void test_keys_of_texts(dh_heap *heap)
{
    dh_word text;
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)"a member's text", 15, &text), 0);
    check_pair(heap, number_word(heap, 's', "a member's text", 15), text, 1);
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)"short", 5, &text), 0);
    check_pair(heap, number_word(heap, 's', "short", 5), text, 1);
}

static void test_no_key(dh_heap *heap)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_key key, five;
    dh_ext_view ext = ext_view(NULL, 0, "\102pickle", 7);
    dh_word word = ext_word(heap, &ext), tuple = pair_of(heap, word);
    CHECK_EQ(dh_key_from_word(heap, word, scratch, &key, &buffer), DH_E_UNHASHABLE);
    CHECK_EQ(dh_key_from_word(heap, tuple, scratch, &key, &buffer), DH_E_UNHASHABLE);
    dh_key_from_int(heap, 5, &five);
    CHECK_EQ(dh_key_matches(heap, &five, word), 0);
    dh_value_drop(heap, tuple);
}

/* --- in a dict -------------------------------------------------------------------------------- */

#define ENTRIES_COUNT 3000

static void test_in_a_dict(dh_heap *heap)
{
    static bool present[ENTRIES_COUNT];
    dh_word dict, value;
    uint64_t length, count = 0;
    bool was_new;
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    for (unsigned step = 0; step < 20000; step++) {
        unsigned k = (unsigned)check_random_below(ENTRIES_COUNT);
        uint8_t payload[40] = {2}, scratch[DH_KEY_SCRATCH_BYTES];
        size_t size = 5 + k % 30;
        dh_key key;
        memcpy(payload + 1, &k, sizeof k);
        dh_ext_view ext = {'x', payload, size, payload, size};
        CHECK_EQ(dh_key_from_canonical(heap, 'x', payload, size, scratch, &key), 0);
        CHECK_EQ(dh_dict_get(heap, dict, &key, &value), present[k] ? 0 : DH_E_ABSENT);
        if (present[k]) {
            CHECK_EQ(value, dh_int(k));
            CHECK_EQ(dh_dict_delete(heap, dict, &key, NULL), 0);
        } else {
            CHECK_EQ(dh_dict_set(heap, dict, &key, ext_word(heap, &ext), dh_int(k), &was_new), 0);
            CHECK(was_new);
        }
        present[k] = !present[k];
        count += present[k] ? 1 : (uint64_t)-1;
    }
    CHECK_EQ(dh_dict_length(heap, dict, &length), 0);
    CHECK_EQ(length, count);
    containers_verify(heap);
    containers_root(heap, DH_NONE);
}

/* --- damage ----------------------------------------------------------------------------------- */

/* Any byte may be anything: a value or an error, never a step outside. */
static void test_bad_cells(dh_heap *heap)
{
    const char key[] = "x some key of its own", payload[] = "\2the payload, of a few words";
    unsigned errors = 0;
    for (unsigned round = 0; round < 4000; round++) {
        uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
        size_t key_size = 1 + check_random_below(sizeof key - 1);
        dh_ext_view view, ext = ext_view(round % 2 ? key : NULL, key_size, payload,
                                         1 + check_random_below(sizeof payload - 1));
        dh_word copy, word = ext_word(heap, &ext);
        dh_key found;
        uint8_t *cell = dh_at(heap, dh_ref_off(word));
        for (unsigned i = 0; i <= round % 3; i++)
            cell[check_random_below(round % 5 ? 12 : 16)] = (uint8_t)check_random();
        errors += dh_ext_read(heap, word, &view) == DH_E_CORRUPT;
        (void)dh_ext_is_opaque(heap, word);
        (void)!dh_ext_check(heap, word);
        if (dh_key_from_word(heap, word, scratch, &found, &buffer) == 0)
            (void)!dh_key_matches(heap, &found, word);
        free(buffer);
        if (dh_value_clone(heap, word, &copy) == 0)
            dh_value_drop(heap, copy);
        dh_value_drop(heap, word);
    }
    CHECK(errors > 500);
}

/* Forms of keys that no packer makes. */
static void test_bad_keys(dh_heap *heap)
{
    static const struct {
        const char *key;
        size_t size;
    } bad[] = {{"i1234567", 8}, {"i123456789", 10}, {"f1234", 5}, {"I", 1},  {"I\0", 2},
               {"I\2\1", 3},    {"I\0\1\0", 4},     {"n", 1},     {"z?", 2}, {"\1", 1},
               {"I\0", 1},      {"f", 1},           {"i", 1},     {"T1", 2}, {"I\0\0", 3}};
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_key key, five;
    dh_key_from_int(heap, 5, &five);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dh_ext_view ext = ext_view(bad[i].key, bad[i].size, "\1?", 2);
        dh_word word = ext_word(heap, &ext);
        CHECK_EQ(dh_ext_check(heap, word), DH_E_CORRUPT);
        CHECK_EQ(dh_key_from_word(heap, word, scratch, &key, &buffer), DH_E_CORRUPT);
        CHECK_EQ(dh_key_matches(heap, &five, word), DH_E_CORRUPT);
        dh_value_drop(heap, word);
    }
    /* Elements of a tuple's form that break off, or claim what they are not. */
    static const char *const tuples[] = {"t",          "ti\10\0\0\0abc",    "ti\1\0\0\0a",
                                         "tI\0\0\0\0", "tt\5\0\0\0i\1\0\0", "tx\377\377\377\377"};
    for (size_t i = 0; i < sizeof tuples / sizeof tuples[0]; i++) {
        char form[16] = {0};
        size_t size = 1 + check_random_below(sizeof form - 1);
        memcpy(form, tuples[i], 1);
        memcpy(form + 1, tuples[i] + 1, strlen(tuples[i]) - 1);
        dh_ext_view ext = ext_view(form, size, "\101?", 2);
        dh_word words[1] = {dh_int(5)}, word = ext_word(heap, &ext), tuple;
        CHECK_EQ(dh_tuple_new(heap, words, 1, &tuple), 0);
        CHECK_EQ(dh_key_from_word(heap, word, scratch, &key, &buffer), 0);
        CHECK_EQ(dh_key_matches(heap, &key, tuple), 0);
        CHECK_EQ(dh_key_matches(heap, &key, word), 1);
        dh_value_drop(heap, word);
        dh_value_drop(heap, tuple);
    }
}

static void test_no_memory(dh_heap *heap)
{
    dh_ext_view ext = ext_view(NULL, 0, "\1?", 2);
    dh_word copy, word = ext_word(heap, &ext);
    CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
    CHECK_EQ(dh_value_clone(heap, word, &copy), DH_E_FULL);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    dh_value_drop(heap, word);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap(64u << 20);
    test_round_trips(heap);
    test_small_cells(heap);
    test_keys_of_numbers(heap);
    test_keys_of_texts(heap);
    test_no_key(heap);
    test_in_a_dict(heap);
    test_bad_cells(heap);
    test_bad_keys(heap);
    test_no_memory(heap);
    dh_heap_close(heap);
    return 0;
}

/* test_value.c -- strings, numbers, tuples: what goes in comes out, copies are apart, cells go
 * back, damaged cells are reported.
 */
#include "containers.h"

#include <math.h>

static void check_text(dh_heap *heap, const uint8_t *text, size_t size, bool is_bytes)
{
    dh_word word, copy;
    dh_bytes_view view;
    uint8_t content[8];
    uint64_t before = containers_allocated(heap);
    CHECK_EQ(is_bytes ? dh_bytes_new(heap, text, size, &word) : dh_str_new(heap, text, size, &word),
             0);
    if (size <= DH_SHORT_BYTES_MAX) {
        CHECK(dh_is_short(word));
        CHECK_EQ(dh_short_is_bytes(word), is_bytes);
        CHECK_EQ(dh_short_size(word), size);
        dh_short_copy(word, content);
        CHECK(memcmp(content, text, size) == 0);
    } else {
        CHECK_EQ(dh_ref_type(word), is_bytes ? DH_T_BYTES : DH_T_STR);
        CHECK_EQ(dh_bytes_read(heap, word, &view), 0);
        CHECK_EQ(view.size, size);
        CHECK(memcmp(view.data, text, size) == 0);
        CHECK_EQ(dh_value_clone(heap, word, &copy), 0);
        CHECK(copy != word);
        dh_value_drop(heap, word);
        CHECK_EQ(dh_bytes_read(heap, copy, &view), 0);
        CHECK(view.size == size && memcmp(view.data, text, size) == 0);
        word = copy;
    }
    dh_value_drop(heap, word);
    CHECK_EQ(containers_allocated(heap), before);
}

static void test_texts(dh_heap *heap)
{
    static uint8_t text[70000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)check_random();
    for (size_t size = 0; size < 300; size++)
        check_text(heap, text + size, size, size % 2 == 0);
    static const size_t sizes[] = {2043, 2044, 2045, 4091, 4092, 4093, 65536, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_text(heap, text, sizes[i], i % 2 == 0);
}

static void check_float(dh_heap *heap, double d)
{
    dh_word word;
    double back = 0;
    uint64_t before = containers_allocated(heap);
    CHECK_EQ(dh_float_new(heap, d, &word), 0);
    CHECK_EQ(dh_float_read(heap, word, &back), 0);
    CHECK(memcmp(&back, &d, sizeof d) == 0);
    dh_value_drop(heap, word);
    CHECK_EQ(containers_allocated(heap), before);
}

static void test_floats(dh_heap *heap)
{
    static const double ones[] = {0.0, -0.0, 1.5, -1e300, 1e-300, 5e-324, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < sizeof ones / sizeof ones[0]; i++)
        check_float(heap, ones[i]);
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t bits = check_random();
        double d;
        memcpy(&d, &bits, sizeof d);
        check_float(heap, d);
    }
}

static void check_integer(dh_heap *heap, bool is_negative, const uint8_t *magnitude, size_t size,
                          bool is_inline)
{
    dh_word word;
    bool sign;
    dh_bytes_view view;
    uint64_t before = containers_allocated(heap);
    CHECK_EQ(dh_bigint_new(heap, is_negative, magnitude, size, &word), 0);
    CHECK_EQ(dh_is_int(word), is_inline);
    if (!is_inline) {
        CHECK_EQ(dh_bigint_read(heap, word, &sign, &view), 0);
        while (size > 0 && magnitude[size - 1] == 0)
            size--;
        CHECK_EQ(sign, is_negative);
        CHECK_EQ(view.size, size);
        CHECK(memcmp(view.data, magnitude, size) == 0);
    }
    dh_value_drop(heap, word);
    CHECK_EQ(containers_allocated(heap), before);
}

static void test_integers(dh_heap *heap)
{
    uint8_t bytes[64] = {0};
    check_integer(heap, false, bytes, 0, true);
    check_integer(heap, true, bytes, 8, true);
    bytes[7] = 0x40; /* 2^62: one more than fits, but -2^62 does */
    check_integer(heap, false, bytes, 8, false);
    check_integer(heap, true, bytes, 8, true);
    bytes[0] = 1;
    check_integer(heap, true, bytes, 8, false);
    bytes[7] = 0x3f;
    check_integer(heap, false, bytes, 8, true);
    bytes[63] = 9;
    check_integer(heap, true, bytes, 64, false);
    bytes[63] = 0;
    bytes[20] = 1; /* leading zero bytes are not kept */
    check_integer(heap, false, bytes, 64, false);
}

/* --- tuples ----------------------------------------------------------------------------------- */

/* A random value; depth bounds the nesting of tuples and frozensets. */
static dh_word random_value(dh_heap *heap, unsigned depth)
{
    uint8_t text[64], magnitude[20];
    dh_word word = DH_NONE, words[6];
    size_t count;
    switch (check_random_below(depth > 0 ? 8 : 6)) {
    case 0:
        return dh_int((int64_t)check_random_below(1000));
    case 1:
        CHECK_EQ(dh_str_new(heap, text, containers_text(check_random_below(1000), text), &word), 0);
        return word;
    case 2:
        CHECK_EQ(dh_bytes_new(heap, text, containers_text(check_random_below(9), text), &word), 0);
        return word;
    case 3:
        CHECK_EQ(dh_float_new(heap, check_random_below(2) ? 1e300 : 2.5, &word), 0);
        return word;
    case 4:
        memset(magnitude, 7, sizeof magnitude);
        count = check_random_below(2);
        CHECK_EQ(dh_bigint_new(heap, count == 0, magnitude, sizeof magnitude, &word), 0);
        return word;
    case 5:
        return check_random_below(2) ? DH_TRUE : DH_NONE;
    default:
        count = check_random_below(6);
        for (size_t i = 0; i < count; i++)
            words[i] = random_value(heap, depth - 1);
        CHECK_EQ(check_random_below(2) ? dh_tuple_new(heap, words, count, &word)
                                       : dh_frozenset_new(heap, words, count, &word),
                 0);
        return word;
    }
}

static void check_same(const dh_heap *heap, dh_word a, dh_word b)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_key key;
    CHECK_EQ(dh_key_from_word(heap, a, scratch, &key, &buffer), 0);
    CHECK_EQ(dh_key_matches(heap, &key, b), 1);
    free(buffer);
}

static void test_tuples(dh_heap *heap)
{
    uint64_t before = containers_allocated(heap);
    for (unsigned i = 0; i < 2000; i++) {
        dh_word copy, value = random_value(heap, 5);
        CHECK_EQ(dh_value_clone(heap, value, &copy), 0);
        check_same(heap, value, copy);
        dh_value_drop(heap, value);
        check_same(heap, copy, copy);
        dh_value_drop(heap, copy);
        CHECK_EQ(containers_allocated(heap), before);
    }
}

static void test_containers_are_linked(dh_heap *heap)
{
    dh_word list, tuple, copy;
    const dh_word *words;
    size_t count;
    CHECK_EQ(dh_list_new(heap, &list), 0);
    CHECK_EQ(dh_tuple_new(heap, &list, 1, &tuple), 0);
    CHECK_EQ(dh_value_clone(heap, tuple, &copy), 0);
    CHECK_EQ(dh_tuple_read(heap, copy, &words, &count), 0);
    CHECK(count == 1 && words[0] == list);
    dh_value_drop(heap, tuple);
    dh_value_drop(heap, copy);
    CHECK(dh_cell_is_allocated(heap, dh_ref_off(list)));
    dh_value_drop(heap, list);
    CHECK(dh_cell_is_allocated(heap, dh_ref_off(list)));
}

static void test_depth_is_bounded(dh_heap *heap)
{
    uint64_t before = containers_allocated(heap);
    dh_word word = dh_int(1), deeper, copy;
    for (unsigned i = 0; i < 1000; i++)
        CHECK_EQ(i % 2 ? dh_tuple_new(heap, &word, 1, &word)
                       : dh_frozenset_new(heap, &word, 1, &word),
                 0);
    CHECK_EQ(dh_tuple_new(heap, &word, 1, &deeper), DH_E_LIMIT);
    CHECK_EQ(dh_frozenset_new(heap, &word, 1, &deeper), DH_E_LIMIT);
    CHECK_EQ(dh_value_clone(heap, word, &copy), 0);
    check_same(heap, word, copy);
    dh_value_drop(heap, word);
    dh_value_drop(heap, copy);
    CHECK_EQ(containers_allocated(heap), before);
}

static void test_no_memory(dh_heap *heap)
{
    for (unsigned round = 0; round < 50; round++) {
        dh_word copy, value = random_value(heap, 4);
        uint64_t before = containers_allocated(heap);
        for (uint64_t n = 0;; n++) {
            CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
            int rc = dh_value_clone(heap, value, &copy);
            CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
            if (rc == 0)
                break;
            CHECK_EQ(rc, DH_E_FULL);
            CHECK_EQ(containers_allocated(heap), before);
        }
        check_same(heap, value, copy);
        dh_value_drop(heap, copy);
        CHECK_EQ(containers_allocated(heap), before);
        dh_value_drop(heap, value);
    }
}

/* --- damage ----------------------------------------------------------------------------------- */

static void expect_corrupt(dh_heap *heap, dh_word word)
{
    dh_bytes_view view;
    const dh_word *words;
    size_t count;
    bool sign;
    double d;
    dh_word copy;
    CHECK_EQ(dh_bytes_read(heap, word, &view), DH_E_CORRUPT);
    CHECK_EQ(dh_bigint_read(heap, word, &sign, &view), DH_E_CORRUPT);
    CHECK_EQ(dh_tuple_read(heap, word, &words, &count), DH_E_CORRUPT);
    CHECK_EQ(dh_float_read(heap, word, &d), DH_E_CORRUPT);
    if (dh_is_ref(word) && !dh_is_container(word))
        CHECK_EQ(dh_value_clone(heap, word, &copy), DH_E_CORRUPT);
    dh_value_drop(heap, word);
}

static void test_bad_refs(dh_heap *heap)
{
    uint64_t end = heap->arena.hwm_pages * DH_PAGE_BYTES;
    const dh_off offs[] = {0, 16, DH_PAGE_BYTES, end, end + 16, (dh_off)1 << 58, end - 8};
    for (unsigned type = 0; type < 32; type++)
        for (size_t i = 0; i < sizeof offs / sizeof offs[0]; i++) {
            if (offs[i] == DH_PAGE_BYTES)
                continue;
            expect_corrupt(heap, dh_ref((dh_type)type, offs[i]));
        }
    expect_corrupt(heap, DH_EMPTY);
    expect_corrupt(heap, dh_int(5));
}

/* Every byte of a cell, set to something else, is a value or an error, never a fault. */
static void test_bad_cells(dh_heap *heap)
{
    for (unsigned round = 0; round < 3000; round++) {
        uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
        dh_key key;
        dh_word copy, value = random_value(heap, 3);
        if (!dh_is_ref(value))
            continue;
        uint8_t *cell = dh_at(heap, dh_ref_off(value));
        size_t bytes = dh_cell_bytes(heap, dh_ref_off(value));
        cell[check_random_below(bytes < 16 ? bytes : 16)] = (uint8_t)check_random();
        if (dh_key_from_word(heap, value, scratch, &key, &buffer) == 0)
            (void)!dh_key_matches(heap, &key, value);
        free(buffer);
        if (dh_value_clone(heap, value, &copy) == 0)
            dh_value_drop(heap, copy);
        dh_value_drop(heap, value);
    }
}

/* Tuples that hold themselves, or one another twice on every level. */
static void test_rings_of_tuples(dh_heap *heap)
{
    dh_word tuples[40], copy;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
    dh_key key;
    for (unsigned i = 0; i < 40; i++) {
        dh_word two[2] = {dh_int(1), dh_int(2)};
        CHECK_EQ(i % 3 ? dh_tuple_new(heap, two, 2, &tuples[i])
                       : dh_frozenset_new(heap, two, 2, &tuples[i]),
                 0);
    }
    for (unsigned i = 0; i < 40; i++) {
        dh_word *cell = dh_at(heap, dh_ref_off(tuples[i]));
        cell[1] = cell[2] = tuples[(i + 1) % 40];
    }
    CHECK_EQ(dh_value_clone(heap, tuples[0], &copy), DH_E_CORRUPT);
    CHECK_EQ(dh_key_from_word(heap, tuples[0], scratch, &key, &buffer), DH_E_CORRUPT);
    dh_word *last = dh_at(heap, dh_ref_off(tuples[39]));
    last[1] = last[2] = dh_int(3); /* no ring any more, but 2^39 paths */
    CHECK_EQ(dh_value_clone(heap, tuples[0], &copy), DH_E_CORRUPT);
    CHECK_EQ(dh_key_from_word(heap, tuples[0], scratch, &key, &buffer), DH_E_CORRUPT);
    dh_value_drop(heap, tuples[0]);
    for (unsigned i = 0; i < 40; i++)
        CHECK(!dh_cell_is_allocated(heap, dh_ref_off(tuples[i])));
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap(64u << 20);
    test_texts(heap);
    test_floats(heap);
    test_integers(heap);
    test_tuples(heap);
    test_containers_are_linked(heap);
    test_depth_is_bounded(heap);
    test_no_memory(heap);
    test_rings_of_tuples(heap);
    test_bad_refs(heap);
    test_bad_cells(heap);
    dh_heap_close(heap);
    return 0;
}

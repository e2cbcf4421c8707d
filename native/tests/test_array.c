/* test_array.c -- descriptions of Arrays: what is sound is found so, what is not never gets through.
 *
 * The bounds are held against a naive model: the smallest and largest byte over all elements.
 */
#include "array.h"

#include "buffer.h"
#include "containers.h"
#include "value.h"

#ifndef __SANITIZE_ADDRESS__
#define SCALE 1u
#else
#define SCALE 10u
#endif

static dh_word text(dh_heap *heap, const char *s)
{
    dh_word w;
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)s, strlen(s), &w), 0);
    return w;
}

static dh_word tuple(dh_heap *heap, const dh_word *words, size_t count)
{
    dh_word w;
    CHECK_EQ(dh_tuple_new(heap, words, count, &w), 0);
    return w;
}

static dh_word ints(dh_heap *heap, const int64_t *numbers, size_t count)
{
    dh_word words[DH_ARRAY_DIMS_MAX + 1];
    for (size_t i = 0; i < count; i++)
        words[i] = dh_int(numbers[i]);
    return tuple(heap, words, count);
}

static dh_word describe(dh_heap *heap, dh_word dtype, const int64_t *shape, const int64_t *strides,
                        size_t dims, int64_t offset)
{
    dh_word parts[4] = {dtype, ints(heap, shape, dims), ints(heap, strides, dims), dh_int(offset)};
    return tuple(heap, parts, 4);
}

static dh_word buffer_of(dh_heap *heap, uint64_t bytes)
{
    dh_word buffer;
    CHECK_EQ(dh_buffer_new(heap, bytes, &buffer), 0);
    return buffer;
}

static int try_plain(dh_heap *heap, const char *dtype)
{
    dh_word array, description = describe(heap, text(heap, dtype), NULL, NULL, 0, 0);
    int rc = dh_array_new(heap, buffer_of(heap, 64), description, &array);
    CHECK(rc == 0 || rc == DH_E_CORRUPT);
    CHECK_EQ(rc == 0 ? dh_array_check(heap, array) : 0, 0);
    return rc;
}

static void test_plain_types(dh_heap *heap)
{
    static const char *const good[] = {"|b1",      "|i1",    "|u1",  "<i2",     ">i4",
                                       "<u8",      "<f2",    ">f4",  "<f8",     "<f16",
                                       "<c8",      ">c16",   "<c32", "<M8",     "<m8[ns]",
                                       ">M8[25s]", "<m8[Y]", "|S0",  "|S64",    "<U0",
                                       ">U16",     "|V0",    "|V7",  "<M8[as]", "<m8[999999999us]"};
    static const char *const bad[] = {"",
                                      "f8",
                                      "<",
                                      "<f",
                                      "<f3",
                                      "<f08",
                                      "|O8",
                                      "<q8",
                                      "=f8",
                                      "<f8 ",
                                      "<f8,i4",
                                      "<M8[",
                                      "<M8[xs]",
                                      "<M8[0s]",
                                      "<M8[]",
                                      "<M8[ns",
                                      "<M8[ns]]",
                                      "<f8[s]",
                                      "|S65",
                                      "<U17",
                                      "|b2",
                                      "<i16",
                                      "<c4",
                                      "<M4",
                                      "|S-1",
                                      "|T16",
                                      "<M8[1234567890s]",
                                      "|V99999999999999999999",
                                      "|S 4",
                                      "os.system",
                                      "|S999999999999999999"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_EQ(try_plain(heap, good[i]), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_EQ(try_plain(heap, bad[i]), DH_E_CORRUPT);
}

/* What a dtype of 8 bytes at offset 0 of 8 bytes is; DH_E_CORRUPT for any other. */
static int try_dtype(dh_heap *heap, dh_word dtype)
{
    dh_word array, description = describe(heap, dtype, NULL, NULL, 0, 0);
    return dh_array_new(heap, buffer_of(heap, 8), description, &array);
}

static dh_word field(dh_heap *heap, const char *name, int64_t offset, dh_word dtype, dh_word title)
{
    dh_word parts[4] = {text(heap, name), dh_int(offset), dtype, title};
    return tuple(heap, parts, 4);
}

static dh_word structure(dh_heap *heap, int64_t bytes, int64_t flags, const dh_word *fields,
                         size_t count)
{
    dh_word parts[3] = {dh_int(bytes), dh_int(flags), tuple(heap, fields, count)};
    return tuple(heap, parts, 3);
}

static dh_word subarray(dh_heap *heap, dh_word base, const int64_t *shape, size_t dims)
{
    dh_word parts[2] = {base, ints(heap, shape, dims)};
    return tuple(heap, parts, 2);
}

static int try_subarray(dh_heap *heap, dh_word base, const int64_t *shape, size_t dims)
{
    dh_word only = field(heap, "a", 0, subarray(heap, base, shape, dims), DH_NONE);
    CHECK_EQ(try_dtype(heap, subarray(heap, base, shape, dims)), DH_E_CORRUPT); /* not alone */
    return try_dtype(heap, structure(heap, 8, 0, &only, 1));
}

static void test_nested_types(dh_heap *heap)
{
    int64_t two[] = {2}, huge[] = {(int64_t)1 << 40, (int64_t)1 << 40}, negative[] = {-1};
    dh_word f4 = text(heap, "<f4"), inner, fields[3];

    CHECK_EQ(try_subarray(heap, f4, two, 1), 0);
    CHECK_EQ(try_subarray(heap, text(heap, "<f8"), two, 1), DH_E_CORRUPT);
    CHECK_EQ(try_subarray(heap, f4, huge, 2), DH_E_CORRUPT);
    CHECK_EQ(try_subarray(heap, f4, negative, 1), DH_E_CORRUPT);
    CHECK_EQ(try_subarray(heap, f4, NULL, 0), DH_E_CORRUPT);

    fields[0] = field(heap, "a", 0, f4, DH_NONE);
    fields[1] = field(heap, "a longer name", 6, text(heap, ">u2"), text(heap, "and a title"));
    fields[2] = field(heap, "overlaps", 0, subarray(heap, f4, two, 1), DH_NONE);
    inner = structure(heap, 8, DH_DTYPE_ALIGNED, fields, 3);
    CHECK_EQ(try_dtype(heap, inner), 0);
    CHECK_EQ(try_dtype(heap, structure(heap, 0, 0, NULL, 0)), 0);
    CHECK_EQ(try_dtype(heap, structure(heap, 9, 0, fields, 3)),
             DH_E_CORRUPT); /* beyond the buffer */
    CHECK_EQ(try_dtype(heap, structure(heap, 7, 0, fields, 3)), DH_E_CORRUPT); /* a field outside */
    CHECK_EQ(try_dtype(heap, structure(heap, 8, 4, fields, 3)), DH_E_CORRUPT); /* an unknown flag */
    CHECK_EQ(try_dtype(heap, structure(heap, -1, 0, NULL, 0)), DH_E_CORRUPT);
    fields[0] = field(heap, "a", -4, f4, DH_NONE);
    CHECK_EQ(try_dtype(heap, structure(heap, 8, 0, fields, 1)), DH_E_CORRUPT);
    fields[0] = field(heap, "a", 0, f4, dh_int(1));
    CHECK_EQ(try_dtype(heap, structure(heap, 8, 0, fields, 1)), DH_E_CORRUPT);
    fields[0] = f4;
    CHECK_EQ(try_dtype(heap, structure(heap, 8, 0, fields, 1)), DH_E_CORRUPT);
}

/* Each level holds the level below twice: 2^n parts for who believes it. */
static void test_types_that_explode(dh_heap *heap)
{
    dh_word dtype = text(heap, "|V0"), fields[2];
    for (int level = 0; level < 30; level++) {
        fields[0] = field(heap, "a", 0, dtype, DH_NONE);
        fields[1] = field(heap, "b", 0, dtype, DH_NONE);
        dtype = structure(heap, 0, 0, fields, 2);
    }
    CHECK_EQ(try_dtype(heap, dtype), DH_E_CORRUPT);
    dtype = text(heap, "|V0");
    for (int level = 0; level < 100; level++) {
        fields[0] = field(heap, "a", 0, dtype, DH_NONE);
        dtype = structure(heap, 0, 0, fields, 1);
    }
    CHECK_EQ(try_dtype(heap, dtype), DH_E_CORRUPT);
}

/* --- windows ---------------------------------------------------------------------------------- */

static bool model_fits(const int64_t *shape, const int64_t *strides, size_t dims, int64_t offset,
                       int64_t bytes)
{
    int64_t low = offset, high = offset + 8;
    for (size_t i = 0; i < dims; i++) {
        if (shape[i] == 0)
            return offset >= 0 && offset <= bytes;
        int64_t far = (shape[i] - 1) * strides[i];
        low += far < 0 ? far : 0;
        high += far > 0 ? far : 0;
    }
    return offset >= 0 && low >= 0 && high <= bytes;
}

static void test_windows(dh_heap *heap, unsigned rounds)
{
    const int64_t bytes = 1000;
    dh_word buffer = buffer_of(heap, (uint64_t)bytes), f8 = text(heap, "<f8"), array;
    dh_collect_stats stats;
    unsigned sound = 0;

    for (unsigned round = 0; round < rounds; round++) {
        int64_t shape[4], strides[4];
        size_t dims = check_random_below(5);
        int64_t offset = (int64_t)check_random_below(1050) - 20;
        for (size_t i = 0; i < dims; i++) {
            shape[i] = (int64_t)check_random_below(7);
            strides[i] = (int64_t)check_random_below(160) - 80;
        }
        bool fits = model_fits(shape, strides, dims, offset, bytes);
        dh_word description = describe(heap, f8, shape, strides, dims, offset);
        CHECK_EQ(dh_array_new(heap, buffer, description, &array), fits ? 0 : DH_E_CORRUPT);
        CHECK_EQ(fits ? dh_array_check(heap, array) : 0, 0);
        sound += fits;
    }
    CHECK(sound > rounds / 20 && sound < rounds);
    CHECK_EQ(dh_collect(heap, &stats), 0);
}

static void test_numbers_that_overflow(dh_heap *heap)
{
    dh_word buffer = buffer_of(heap, 64), f8 = text(heap, "<f8"), array;
    int64_t huge[] = {DH_INT_MAX, DH_INT_MAX, DH_INT_MAX},
            low[] = {DH_INT_MIN, DH_INT_MIN, DH_INT_MIN};
    int64_t none[] = {0, 0, 0}, two[] = {2, 2, 2}, many[DH_ARRAY_DIMS_MAX + 1] = {0};
    struct {
        int64_t *shape, *strides;
        size_t dims;
        int64_t offset;
    } cases[] = {{huge, none, 1, 0},        {huge, huge, 3, 0},
                 {two, huge, 3, 0},         {two, low, 3, 0},
                 {low, none, 1, 0},         {none, none, 1, DH_INT_MAX},
                 {two, low, 1, DH_INT_MAX}, {many, many, DH_ARRAY_DIMS_MAX + 1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dh_word description =
            describe(heap, f8, cases[i].shape, cases[i].strides, cases[i].dims, cases[i].offset);
        CHECK_EQ(dh_array_new(heap, buffer, description, &array), DH_E_CORRUPT);
    }
    CHECK_EQ(dh_array_new(heap, buffer, f8, &array), DH_E_CORRUPT);
    CHECK_EQ(dh_array_new(heap, f8, describe(heap, f8, NULL, NULL, 0, 0), &array), DH_E_CORRUPT);
}

/* --- life ------------------------------------------------------------------------------------- */

/* Two Arrays keep one Buffer; the last one gone, all of it goes. */
static void test_sharing(dh_heap *heap)
{
    int64_t shape[] = {8}, strides[] = {8}, backwards[] = {-8};
    dh_word buffer = buffer_of(heap, 64), found, description, arrays[2], pair;
    dh_collect_stats stats;

    CHECK_EQ(dh_array_new(heap, buffer, describe(heap, text(heap, "<f8"), shape, strides, 1, 0),
                          &arrays[0]),
             0);
    CHECK_EQ(dh_array_new(heap, buffer, describe(heap, text(heap, ">i8"), shape, backwards, 1, 56),
                          &arrays[1]),
             0);
    pair = tuple(heap, arrays, 2);
    containers_root(heap, pair);
    containers_verify(heap);
    for (size_t i = 0; i < 2; i++) {
        CHECK_EQ(dh_array_read(heap, arrays[i], &found, &description), 0);
        CHECK(found == buffer);
        CHECK_EQ(dh_array_buffer(heap, arrays[i], &found), 0);
    }
    containers_root(heap, arrays[1]);
    CHECK(dh_cell_is_allocated(heap, dh_ref_off(buffer)));
    containers_verify(heap);
    containers_root(heap, DH_NONE);
    CHECK(!dh_cell_is_allocated(heap, dh_ref_off(buffer)));
    CHECK_EQ(dh_collect(heap, &stats), 0);
}

static void test_no_memory(dh_heap *heap)
{
    dh_word buffer = buffer_of(heap, 8), array = 0;
    dh_word description = describe(heap, text(heap, "<f8"), NULL, NULL, 0, 0);
    CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
    CHECK_EQ(dh_array_new(heap, buffer, description, &array), DH_E_FULL);
    containers_unfence();
    CHECK_EQ(dh_array_new(heap, buffer, description, &array), 0);
}

/* Any word of head, description and its parts may be anything: found, or harmless; never a step
 * outside the arena. */
static void test_damage(unsigned rounds)
{
    int64_t shape[] = {2, 3}, strides[] = {24, 8}, two[] = {2};
    unsigned noticed = 0;
    dh_heap *heap = containers_heap(16u << 20);
    dh_word array, fields[2], *slots[64];
    size_t slots_count = 0;

    fields[0] = field(heap, "x", 0, text(heap, "<f4"), DH_NONE);
    fields[1] = field(heap, "position", 4, subarray(heap, text(heap, "<i2"), two, 1), DH_NONE);
    dh_word dtype = structure(heap, 8, 0, fields, 2);
    dh_word description = describe(heap, dtype, shape, strides, 2, 16);
    CHECK_EQ(dh_array_new(heap, buffer_of(heap, 64), description, &array), 0);
    containers_root(heap, array);
    dh_word *head = dh_deref(heap, array, DH_T_ARRAY, DH_HEAD_BYTES);
    for (unsigned i = 0; i < 3; i++)
        slots[slots_count++] = &head[i];
    for (dh_word parts[] = {description, dtype, fields[0], fields[1], 0}, *w = parts; *w != 0;
         w++) {
        dh_word *cell = dh_at(heap, dh_ref_off(*w));
        for (size_t i = 0; i < dh_cell_bytes(heap, dh_ref_off(*w)) / 8 && i < 5; i++)
            slots[slots_count++] = &cell[i];
    }
    containers_fence(heap);
    for (unsigned round = 0; round < rounds; round++) {
        dh_word *slot = slots[check_random_below(slots_count)], was = *slot, found, parts;
        uint64_t cells, problems;
        switch (check_random_below(4)) {
        case 0:
            *slot = check_random();
            break;
        case 1:
            *slot ^= (dh_word)1 << check_random_below(64);
            break;
        case 2:
            *slot = *slots[check_random_below(slots_count)];
            break;
        default:
            *slot = dh_int((int64_t)check_random_below(100) - 50);
        }
        int rc = dh_array_check(heap, array);
        CHECK(rc == 0 || rc == DH_E_CORRUPT);
        CHECK_EQ(dh_array_read(heap, array, &found, &parts), rc);
        CHECK_EQ(dh_check(heap, &cells, &problems), 0);
        CHECK(rc == 0 || problems > 0);
        noticed += rc != 0;
        *slot = was;
    }
    CHECK(noticed > rounds / 3);
    CHECK_EQ(dh_array_check(heap, array), 0);
    containers_unfence();
    dh_heap_close(heap);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 28);
    test_plain_types(heap);
    test_nested_types(heap);
    test_types_that_explode(heap);
    test_windows(heap, 20000 / SCALE);
    test_numbers_that_overflow(heap);
    test_sharing(heap);
    test_no_memory(heap);
    dh_heap_close(heap);
    test_damage(20000 / SCALE);
    return 0;
}

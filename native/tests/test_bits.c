/* test_bits.c -- sets of page numbers against an array of bytes. */
#include "bits.h"

#include "check.h"

#define BITS_COUNT 1000u

static bool model[BITS_COUNT];
static bool other_model[BITS_COUNT];

static uint64_t model_next(const bool *m, uint64_t from, uint64_t limit)
{
    while (from < limit && !m[from])
        from++;
    return from < limit ? from : limit;
}

static void check_same(const dh_bits *set, const bool *m)
{
    for (uint64_t limit = 0; limit <= BITS_COUNT; limit += 1 + check_random_below(80)) {
        uint64_t count = 0;
        uint64_t from = check_random_below(BITS_COUNT);

        for (uint64_t i = 0; i < limit; i++)
            count += m[i];
        CHECK_EQ(dh_bits_count(set, limit), count);
        CHECK_EQ(dh_bits_next(set, from, limit), model_next(m, from, limit));
    }
    for (uint64_t i = 0; i < BITS_COUNT; i++)
        CHECK_EQ(dh_bits_test(set, i), m[i]);
}

static void set_some(dh_bits *set, bool *m)
{
    uint64_t first = check_random_below(BITS_COUNT + 1);
    uint64_t most = check_random_below(2) == 0 ? 70 : BITS_COUNT; /* within a word, or not */
    uint64_t left = BITS_COUNT - first;
    uint64_t count = check_random_below((left < most ? left : most) + 1);
    uint64_t one = check_random_below(BITS_COUNT);

    if (check_random_below(4) == 0) {
        dh_bits_set_run(set, first, count);
        memset(m + first, true, count);
    }
    dh_bits_set(set, one);
    m[one] = true;
    one = check_random_below(BITS_COUNT);
    dh_bits_clear(set, one);
    m[one] = false;
}

/* [first, limit) only, which may be empty. */
static void change_a_part(dh_bits *set, const dh_bits *other)
{
    uint64_t first = 64 * check_random_below(BITS_COUNT / 64);
    uint64_t limit = check_random_below(BITS_COUNT + 1), count = 0;

    if (check_random_below(3) == 0) {
        dh_bits_or_part(set, other, first, limit);
        for (uint64_t i = first; i < limit; i++)
            model[i] |= other_model[i];
    }
    if (check_random_below(5) == 0) {
        dh_bits_clear_part(set, first, limit);
        for (uint64_t i = first; i < limit; i++)
            model[i] = false;
    }
    for (uint64_t i = first; i < limit; i++)
        count += model[i];
    CHECK_EQ(dh_bits_count_part(set, first, limit), count);
}

static void change_a_run(dh_bits *set)
{
    uint64_t first = check_random_below(BITS_COUNT + 1);
    uint64_t count = check_random_below(BITS_COUNT + 1 - first);
    uint64_t clear = first;

    while (clear < first + count && model[clear])
        clear++;
    CHECK_EQ(dh_bits_next_clear(set, first, first + count), clear);
    if (check_random_below(3) == 0) {
        dh_bits_clear_run(set, first, count);
        memset(model + first, false, count);
        CHECK_EQ(dh_bits_next_clear(set, first, first + count), first);
    }
}

static void random_operations_agree_with_the_model(void)
{
    dh_bits set, other;

    CHECK_EQ(dh_bits_init(&set, BITS_COUNT), 0);
    CHECK_EQ(dh_bits_init(&other, BITS_COUNT), 0);
    for (int round = 0; round < 500; round++) {
        uint64_t limit = check_random_below(BITS_COUNT + 1);

        set_some(&set, model);
        set_some(&other, other_model);
        if (check_random_below(3) == 0) {
            dh_bits_or(&set, &other, limit);
            for (uint64_t i = 0; i < limit; i++)
                model[i] |= other_model[i];
        }
        if (check_random_below(5) == 0) {
            limit = check_random_below(BITS_COUNT + 1);
            dh_bits_clear_all(&set, limit);
            memset(model, false, limit);
        }
        change_a_part(&set, &other);
        change_a_run(&set);
        check_same(&set, model);
        check_same(&other, other_model);
    }
    dh_bits_finish(&set);
    dh_bits_finish(&other);
}

static void a_large_set_is_lazy_and_empty(void)
{
    dh_bits set;
    uint64_t bits_count = (uint64_t)1 << 36; /* 8 GiB of bitmap */

    CHECK_EQ(dh_bits_init(&set, bits_count), 0);
    dh_bits_set(&set, bits_count - 1);
    CHECK_EQ(dh_bits_next(&set, bits_count - 100, bits_count), bits_count - 1);
    CHECK_EQ(dh_bits_next(&set, 0, 1000000), 1000000);
    dh_bits_finish(&set);
}

static void no_address_space_is_an_error_not_a_crash(void)
{
    dh_bits set;

    CHECK_EQ(dh_fault_set("arena.reserve", 0, ENOMEM), 0);
    CHECK_EQ(dh_bits_init(&set, 10), ENOMEM);
    CHECK_EQ(dh_fault_hits("arena.reserve"), 1);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    CHECK_EQ(dh_bits_init(&set, 10), 0);
    dh_bits_finish(&set);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    random_operations_agree_with_the_model();
    a_large_set_is_lazy_and_empty();
    no_address_space_is_an_error_not_a_crash();
    return 0;
}

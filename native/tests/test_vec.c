/* test_vec.c -- vectors against an array: every length around the thresholds, moves, memory. */
#include "containers.h"

#define LEAF DH_VEC_LEAF_WORDS

/* A vec needs three words inside the arena: they stand in a cell of their own. */
static dh_word *vec_new(dh_heap *heap)
{
    dh_off off;
    CHECK_EQ(dh_cell_new(heap, DH_HEAD_BYTES, DH_REFS, &off), 0);
    dh_word *head = dh_at(heap, off);
    head[0] = head[1 + DH_VEC_LENGTH] = head[1 + DH_VEC_DEPTH] = dh_int(0);
    return head + 1;
}

static void vec_drop(dh_heap *heap, dh_word *vec)
{
    dh_vec_clear(heap, vec);
    dh_cell_free(heap, (dh_off)((uint8_t *)(vec - 1) - heap->arena.base));
}

static dh_word word_at(uint64_t i) { return dh_int((int64_t)(i * 3 + 1)); }

static void check_words(const dh_heap *heap, const dh_word *vec, uint64_t length)
{
    uint64_t span;
    CHECK_EQ(dh_vec_length(vec), length);
    for (uint64_t i = 0; i < length; i++) {
        const dh_word *slot = dh_vec_slot(heap, vec, i, &span);
        CHECK(slot != NULL && span > 0);
        CHECK_EQ(*slot, word_at(i));
    }
    /* Reserved slots behind the length are EMPTY. */
    for (uint64_t i = length; i < length + 2 * LEAF; i++) {
        const dh_word *slot = dh_vec_slot(heap, vec, i, &span);
        if (slot == NULL)
            break;
        CHECK_EQ(*slot, DH_EMPTY);
    }
}

static void test_push_and_cut(dh_heap *heap, uint64_t length, uint64_t step)
{
    uint64_t before = containers_allocated(heap);
    dh_word *vec = vec_new(heap);
    for (uint64_t i = 0; i < length; i++)
        CHECK_EQ(dh_vec_push(heap, vec, word_at(i)), 0);
    check_words(heap, vec, length);
    for (uint64_t at = length; at > 0;) {
        at = at > step ? at - step : 0;
        CHECK_EQ(dh_vec_set_length(heap, vec, at), 0);
        if (length < 3000 || at % 97 == 0)
            check_words(heap, vec, at);
        /* A vec gives back what it does not need, but for a leaf and a quarter. */
        CHECK(containers_allocated(heap) - before <= at * 40 + 3 * DH_PAGE_BYTES + at / 8 + 4096);
    }
    CHECK_EQ(vec[DH_VEC_ROOT], DH_EMPTY);
    CHECK_EQ(containers_allocated(heap), before + DH_HEAD_BYTES);
    vec_drop(heap, vec);
    CHECK_EQ(containers_allocated(heap), before);
}

/* The first reservation is exact; a swing around the end of a leaf allocates nothing. */
static void test_storage(dh_heap *heap)
{
    dh_word *vec = vec_new(heap);
    uint64_t before = containers_allocated(heap);
    CHECK_EQ(dh_vec_reserve(heap, vec, 10), 0);
    CHECK_EQ(containers_allocated(heap) - before, 80);
    for (uint64_t i = 0; i < 4 * LEAF; i++)
        CHECK_EQ(dh_vec_push(heap, vec, word_at(i)), 0);
    CHECK_EQ(containers_allocated(heap) - before, 5 * DH_PAGE_BYTES);
    CHECK_EQ(dh_vec_push(heap, vec, word_at(4 * LEAF)), 0);
    CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(dh_vec_set_length(heap, vec, 4 * LEAF), 0);
        CHECK_EQ(dh_vec_push(heap, vec, word_at(4 * LEAF)), 0);
    }
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    check_words(heap, vec, 4 * LEAF + 1);
    vec_drop(heap, vec);
}

static void test_moves(dh_heap *heap, uint64_t length)
{
    uint64_t span;
    dh_word *vec = vec_new(heap), *model = malloc(length * sizeof *model);
    CHECK(model != NULL);
    for (uint64_t i = 0; i < length; i++) {
        model[i] = word_at(i);
        CHECK_EQ(dh_vec_push(heap, vec, model[i]), 0);
    }
    for (unsigned round = 0; round < 300; round++) {
        uint64_t to = check_random_below(length), from = check_random_below(length);
        uint64_t most = length - (to > from ? to : from), count = check_random_below(most + 1);
        CHECK_EQ(dh_vec_move(heap, vec, to, from, count), 0);
        memmove(model + to, model + from, count * sizeof *model);
    }
    for (uint64_t i = 0; i < length; i++)
        CHECK_EQ(*dh_vec_slot(heap, vec, i, &span), model[i]);
    free(model);
    vec_drop(heap, vec);
}

static void test_no_memory(dh_heap *heap, uint64_t length, uint64_t more)
{
    for (uint64_t n = 0;; n++) {
        uint64_t before = containers_allocated(heap), span;
        dh_word *vec = vec_new(heap);
        for (uint64_t i = 0; i < length; i++)
            CHECK_EQ(dh_vec_push(heap, vec, word_at(i)), 0);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = dh_vec_reserve(heap, vec, length + more);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        check_words(heap, vec, length);
        if (rc == 0)
            for (uint64_t i = 0; i < length + more; i++)
                CHECK(dh_vec_slot(heap, vec, i, &span) != NULL);
        vec_drop(heap, vec);
        CHECK_EQ(containers_allocated(heap), before);
        if (rc == 0)
            return;
        CHECK_EQ(rc, DH_E_FULL);
    }
}

static void test_limits(dh_heap *heap)
{
    uint64_t span;
    dh_word *vec = vec_new(heap);
    CHECK(dh_vec_slot(heap, vec, 0, &span) == NULL);
    CHECK_EQ(dh_vec_reserve(heap, vec, (uint64_t)1 << 60), DH_E_LIMIT);
    CHECK_EQ(dh_vec_push(heap, vec, dh_int(1)), 0);
    CHECK(dh_vec_slot(heap, vec, UINT64_MAX, &span) == NULL);
    vec[DH_VEC_DEPTH] = dh_int(77);
    CHECK(dh_vec_slot(heap, vec, 0, &span) == NULL);
    CHECK_EQ(dh_vec_push(heap, vec, dh_int(1)), DH_E_CORRUPT);
    vec[DH_VEC_DEPTH] = dh_int(0);
    vec_drop(heap, vec);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 28);
    for (uint64_t length = 0; length < 40; length++)
        test_push_and_cut(heap, length, 1);
    static const uint64_t lengths[] = {LEAF - 1, LEAF, LEAF + 1, 2 * LEAF, 2 * LEAF + 1, 2000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        test_push_and_cut(heap, lengths[i], 1);
        test_push_and_cut(heap, lengths[i], 37);
        test_moves(heap, lengths[i]);
    }
    for (uint64_t length = LEAF * LEAF - 1; length <= LEAF * LEAF + 1; length++)
        test_push_and_cut(heap, length, 1000);
    test_moves(heap, LEAF * LEAF + 1000);
    test_storage(heap);
    test_limits(heap);
    test_no_memory(heap, 0, 5);
    test_no_memory(heap, 0, 5000);
    test_no_memory(heap, 20, 600);
    test_no_memory(heap, LEAF, 1);
    test_no_memory(heap, 3 * LEAF + 5, 4 * LEAF);
    test_no_memory(heap, LEAF * LEAF, 1);
    dh_heap_close(heap);
    return 0;
}

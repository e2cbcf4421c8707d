/* test_collect.c -- the collector against a naive trace, and what it must leave alone. */
#include "check.h"
#include "dict.h"
#include "list.h"
#include "mark.h"
#include "value.h"

#define NODES 4000u
#define EDGES_MAX 6u

/* A random graph of cells of words, and the same graph as plain numbers. */
typedef struct {
    dh_off off;
    size_t edges[EDGES_MAX];
    size_t edges_count;
    bool is_reachable;
} node;

static node nodes[NODES];
static dh_handle handles[8];

static dh_heap *heap_new(void)
{
    dh_options options = {64u << 20, DH_TRACKER_AUTO, {1, 2}};
    dh_heap *heap;
    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    return heap;
}

static void reach(size_t i)
{
    static size_t stack[NODES * EDGES_MAX + 1];
    size_t count = 0;
    stack[count++] = i;
    while (count > 0) {
        node *at = &nodes[stack[--count]];
        if (at->is_reachable)
            continue;
        at->is_reachable = true;
        for (size_t e = 0; e < at->edges_count; e++)
            stack[count++] = at->edges[e];
    }
}

static void build(dh_heap *heap)
{
    memset(nodes, 0, sizeof nodes);
    for (size_t i = 0; i < NODES; i++)
        CHECK_EQ(dh_cell_new(heap, i % 50 == 0 ? 40000 : 64, DH_REFS, &nodes[i].off), 0);
    for (size_t i = 0; i < NODES; i++) {
        dh_word *words = dh_at(heap, nodes[i].off);
        nodes[i].edges_count = check_random_below(EDGES_MAX);
        for (size_t e = 0; e < nodes[i].edges_count; e++) {
            nodes[i].edges[e] = check_random_below(NODES);
            words[e + 1] = dh_ref(DH_T_LEAF, nodes[nodes[i].edges[e]].off);
        }
        words[0] = dh_int((int64_t)i);
        words[7] = (dh_word)check_random() & ~(dh_word)7; /* may look like a ref to anywhere */
        if (words[7] != 0 && dh_cell_is_allocated(heap, dh_ref_off(words[7])))
            words[7] = DH_EMPTY;
    }
}

static void only_what_is_reachable_stays(size_t stack_room)
{
    dh_heap *heap = heap_new();
    uint64_t bits_bytes = heap->arena.capacity_pages * sizeof(dh_page_bits);
    dh_page_bits *bits;
    dh_mark mark;

    build(heap);
    for (size_t h = 0; h < 8; h++) {
        size_t i = check_random_below(NODES);
        handles[h] = (dh_handle){dh_ref(DH_T_LEAF, nodes[i].off), 0};
        if (dh_handles_find(&heap->handles, handles[h].word) == NULL)
            CHECK_EQ(dh_handles_add(&heap->handles, &handles[h]), 0);
        reach(i);
    }
    CHECK_EQ(dh_reserve(bits_bytes, (void **)&bits), 0);
    CHECK_EQ(dh_mark_init(&mark, heap, bits, stack_room), 0);
    dh_mark_roots(&mark);
    while (!dh_mark_drain(&mark, 100))
        ;
    for (size_t i = 0; i < NODES; i++)
        CHECK_EQ(dh_mark_has(bits, nodes[i].off), nodes[i].is_reachable);
    CHECK(stack_room > DHI_MARK_STACK_MIN || mark.overflow_rounds_count > 0);
    dh_mark_finish(&mark);
    dh_unreserve(bits, bits_bytes);

    dh_collect_stats stats;
    CHECK_EQ(dh_collect(heap, &stats), 0);
    for (size_t i = 0; i < NODES; i++)
        CHECK_EQ(dh_cell_is_allocated(heap, nodes[i].off), nodes[i].is_reachable);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK_EQ(stats.freed_cells_count, 0);
    dh_heap_close(heap);
}

static void a_collection_dirties_nothing(void)
{
    dh_heap *heap = heap_new();
    dh_capture *capture;
    dh_collect_stats stats;
    uint64_t scanned;

    build(heap);
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 0, 1, 1 << 20), 0);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
    CHECK_EQ(dh_watch_scan(heap->watch, heap->arena.hwm_pages, &scanned), 0);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK(stats.freed_cells_count >= NODES);
    CHECK_EQ(dh_watch_scan(heap->watch, heap->arena.hwm_pages, &scanned), 0);
    CHECK(scanned <= stats.released_pages_count); /* dropped pages may be reported, no other */
    dh_heap_close(heap);
}

/* Older kernels do not report dropped pages: the collection enters them itself, without a scan. */
static void released_pages_count_as_written(void)
{
    enum { PAGES = 64 };
    dh_heap *heap = heap_new();
    dh_collect_stats stats;
    dh_capture *capture;
    dh_bits written;
    dh_off off;

    CHECK_EQ(dh_cell_new(heap, PAGES * DH_PAGE_BYTES, DH_RAW, &off), 0);
    memset(dh_at(heap, off), 1, PAGES * DH_PAGE_BYTES);
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 0, 1, 1 << 20), 0);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK(stats.released_pages_count >= PAGES);
    CHECK_EQ(dh_bits_init(&written, heap->arena.capacity_pages), 0);
    dh_watch_copy(heap->watch, heap->commit_cursor, &written, heap->arena.hwm_pages);
    for (uint64_t p = 0; p < PAGES; p++)
        CHECK(dh_bits_test(&written, (off >> DH_PAGE_SHIFT) + p));
    dh_bits_finish(&written);
    dh_heap_close(heap);
}

static void freed_memory_is_used_again(void)
{
    dh_heap *heap = heap_new();
    dh_collect_stats stats;
    uint64_t hwm_after_first = 0;

    for (int round = 0; round < 20; round++) {
        build(heap);
        CHECK_EQ(dh_collect(heap, &stats), 0);
        if (round == 0)
            hwm_after_first = heap->arena.hwm_pages;
    }
    CHECK_EQ(heap->arena.hwm_pages, hwm_after_first);
    dh_heap_close(heap);
}

static void live_cells_survive_reuse(void)
{
    dh_heap *heap = heap_new();
    dh_collect_stats stats;
    dh_word list, copy;

    CHECK_EQ(dh_list_new(heap, &list), 0);
    handles[0] = (dh_handle){list, 0};
    CHECK_EQ(dh_handles_add(&heap->handles, &handles[0]), 0);
    for (int64_t i = 0; i < 5000; i++) {
        char text[32];
        dh_word w;
        int n = snprintf(text, sizeof text, "element %lld", (long long)i);
        CHECK_EQ(dh_str_new(heap, (const uint8_t *)text, (size_t)n, &w), 0);
        CHECK_EQ(dh_list_append(heap, list, w), 0);
        if (i % 500 == 0) {
            for (int garbage = 0; garbage < 1000; garbage++)
                CHECK_EQ(dh_str_new(heap, (const uint8_t *)"garbage, garbage", 16, &copy), 0);
            CHECK_EQ(dh_collect(heap, &stats), 0);
        }
    }
    CHECK_EQ(dh_collect(heap, &stats), 0);
    for (int64_t i = 0; i < 5000; i++) {
        char text[32];
        dh_bytes_view view;
        dh_word w;
        int n = snprintf(text, sizeof text, "element %lld", (long long)i);
        CHECK_EQ(dh_list_get(heap, list, (uint64_t)i, &w), 0);
        CHECK_EQ(dh_bytes_read(heap, w, &view), 0);
        CHECK(view.size == (size_t)n && memcmp(view.data, text, view.size) == 0);
    }
    dh_heap_close(heap);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    for (int i = 0; i < 5; i++) {
        only_what_is_reachable_stays(65536);
        only_what_is_reachable_stays(DHI_MARK_STACK_MIN);
    }
    a_collection_dirties_nothing();
    released_pages_count_as_written();
    freed_memory_is_used_again();
    live_cells_survive_reuse();
    return 0;
}

/* gc_graph.h -- a graph of cells that is changed at random, and a naive trace to hold collectors
 * against. Shares no code with the tracer: recursion and marks are its own.
 *
 * Everything hangs on one array, held by a handle. A node begins with a meta word (its identity, as a
 * container has); other cells belong to exactly one slot and are freed by whoever overwrites it.
 */
#ifndef DH_GC_GRAPH_H
#define DH_GC_GRAPH_H

#include "check.h"
#include "heap.h"
#include "mark.h"

#define GRAPH_SLOTS 1200u /* of the array: three pages */
#define GRAPH_HANDLES 24u

typedef struct {
    dh_heap *heap;
    dh_handle array;
    dh_handle held[GRAPH_HANDLES];
    /* the naive trace */
    uint64_t reached_count, lost_count, hash;
    uint8_t *seen; /* a byte per granule */
    dh_off *todo;
    size_t todo_room;
} graph;

static inline dh_word *graph_words(const graph *g, dh_off off, size_t *count_out)
{
    *count_out = dh_cell_bytes(g->heap, off) / sizeof(dh_word);
    return dh_at(g->heap, off);
}

static inline bool graph_is_owned(dh_word w)
{
    return dh_is_ref_to(w, DH_T_STR) || dh_is_ref_to(w, DH_T_ENTRIES);
}

static inline size_t graph_size(void)
{
    static const size_t sizes[] = {32, 48, 64, 64, 64, 128, 128, 512, 2048, 9000};
    return sizes[check_random_below(sizeof sizes / sizeof sizes[0])];
}

/* A node that refers to nothing; 0: the arena is full. */
static inline dh_word graph_node_new(graph *g)
{
    dh_off off;

    if (dh_cell_new(g->heap, graph_size(), DH_REFS, &off) != 0)
        return 0;
    dh_store(dh_at(g->heap, off), dh_meta(dhi_serial_next(g->heap), 0));
    return dh_ref(DH_T_LIST, off);
}

static inline dh_word graph_owned_new(graph *g)
{
    bool is_raw = check_random_below(2) != 0;
    dh_off off;

    if (dh_cell_new(g->heap, graph_size(), is_raw ? DH_RAW : DH_REFS, &off) != 0)
        return 0;
    size_t count;
    dh_word *words = graph_words(g, off, &count);
    if (!is_raw) {
        dh_store(words, dh_int(1));
        return dh_ref(DH_T_ENTRIES, off);
    }
    for (size_t i = 0; i < count; i++) /* what looks like refs to anywhere */
        words[i] = dh_ref(DH_T_LIST, check_random_below(g->heap->arena.hwm_pages << 12) & ~15ull);
    return dh_ref(DH_T_STR, off);
}

typedef struct {
    dh_off off;
    dh_word *slot; /* NULL: none */
} graph_place;

/* A slot somewhere: the end of a short random way from the array. */
static inline graph_place graph_walk(graph *g, bool wants_ref)
{
    graph_place at = {dh_ref_off(g->array.word), NULL};

    for (unsigned depth = (unsigned)check_random_below(6); depth > 0; depth--) {
        size_t count;
        dh_word *words = graph_words(g, at.off, &count);
        dh_word w = dh_load(&words[1 + check_random_below(count - 1)]);
        if (dh_is_ref(w) && !dh_is_ref_to(w, DH_T_STR))
            at.off = dh_ref_off(w);
    }
    size_t count;
    dh_word *words = graph_words(g, at.off, &count);
    for (unsigned tries = 0; tries < 8; tries++) {
        dh_word *slot = &words[1 + check_random_below(count - 1)];
        if (!wants_ref || dh_is_ref(dh_load(slot)))
            at.slot = slot;
    }
    return at;
}

static inline void graph_put(graph *g, dh_word *slot, dh_word w)
{
    dh_word before = dh_load(slot);

    dh_store(slot, w);
    if (graph_is_owned(before))
        dh_cell_free(g->heap, dh_ref_off(before));
}

/* A node that a walk comes to, or one that a handle holds; 0: none. */
static inline dh_word graph_pick(graph *g)
{
    graph_place from = graph_walk(g, true);
    dh_word w = from.slot != NULL ? dh_load(from.slot) : 0;

    if (check_random_below(4) == 0)
        w = g->held[check_random_below(GRAPH_HANDLES)].word;
    return dh_is_ref_to(w, DH_T_LIST) ? w : 0;
}

static inline void graph_hold(graph *g, dh_word node)
{
    dh_handle *handle = &g->held[check_random_below(GRAPH_HANDLES)];

    dh_handles_remove(&g->heap->handles, handle);
    if (node == 0 || dh_handles_find(&g->heap->handles, node) != NULL)
        return;
    handle->word = node;
    handle->serial = dh_meta_serial(dh_load(dh_at(g->heap, dh_ref_off(node))));
    CHECK_EQ(dh_handles_add(&g->heap->handles, handle), 0);
}

/* A table grows: its words move to another cell, and it is freed. */
static inline void graph_replace(graph *g, dh_word *slot)
{
    dh_word before = dh_load(slot);
    size_t count, room;
    dh_off off;

    if (!dh_is_ref_to(before, DH_T_ENTRIES) ||
        dh_cell_new(g->heap, graph_size(), DH_REFS, &off) != 0)
        return;
    dh_word *from = graph_words(g, dh_ref_off(before), &count), *to = graph_words(g, off, &room);
    for (size_t i = 0; i < count && i < room; i++)
        dh_store(&to[i], dh_load(&from[i]));
    dh_store(slot, dh_ref(DH_T_ENTRIES, off));
    dh_cell_free(g->heap, dh_ref_off(before));
}

/* Subtrees change their place: what was seen there is here now. */
static inline void graph_move(graph *g)
{
    graph_place from = graph_walk(g, true), to = graph_walk(g, false);

    if (from.slot == NULL || to.slot == NULL || from.slot == to.slot)
        return;
    dh_word w = dh_load(from.slot);
    if (graph_is_owned(w))
        return;
    dh_store(from.slot, DH_EMPTY);
    graph_put(g, to.slot, w);
}

static inline void graph_step(graph *g)
{
    graph_place at = graph_walk(g, false);
    dh_word w;

    switch (check_random_below(10)) {
    case 0:
    case 1:
    case 2:
        w = graph_node_new(g);
        if (w != 0 && check_random_below(4) == 0)
            graph_hold(g, w);
        else if (w != 0)
            graph_put(g, at.slot, w);
        break;
    case 3:
        w = graph_owned_new(g);
        if (w != 0)
            graph_put(g, at.slot, w);
        break;
    case 4:
        graph_put(g, at.slot, DH_EMPTY);
        break;
    case 5:
        graph_put(g, at.slot, dh_int((int64_t)check_random_below(1000)));
        break;
    case 6:
        w = graph_pick(g); /* a walk passes no slot that this one overwrites: pick first */
        at = graph_walk(g, false);
        if (w != 0)
            graph_put(g, at.slot, w);
        break;
    case 7:
        graph_hold(g, graph_pick(g));
        break;
    case 8:
        graph_replace(g, at.slot);
        break;
    default:
        graph_move(g);
    }
}

static inline void graph_begin(graph *g, dh_heap *heap)
{
    dh_off off;

    memset(g, 0, sizeof *g);
    g->heap = heap;
    CHECK_EQ(dh_cell_new(heap, GRAPH_SLOTS * 8, DH_REFS, &off), 0);
    dh_store(dh_at(heap, off), dh_meta(dhi_serial_next(heap), 0));
    g->array = (dh_handle){dh_ref(DH_T_LIST, off), dh_meta_serial(dh_load(dh_at(heap, off)))};
    CHECK_EQ(dh_handles_add(&heap->handles, &g->array), 0);
    g->seen = calloc(heap->arena.capacity_pages, DH_GRANULES_PER_PAGE);
    CHECK(g->seen != NULL);
}

static inline void graph_end(graph *g)
{
    free(g->seen);
    free(g->todo);
}

/* --- the naive trace ------------------------------------------------------------------------------ */

static inline void graph_reach(graph *g, dh_word w, size_t *todo_count)
{
    dh_off off = dh_ref_off(w);

    if (!dh_is_ref(w) || g->seen[off / DH_GRANULE_BYTES])
        return;
    g->seen[off / DH_GRANULE_BYTES] = 1;
    g->reached_count++;
    if (!dh_cell_is_allocated(g->heap, off)) {
        g->lost_count++;
        return;
    }
    if (*todo_count == g->todo_room) {
        g->todo_room = g->todo_room ? g->todo_room * 2 : 1024;
        g->todo = realloc(g->todo, g->todo_room * sizeof *g->todo);
        CHECK(g->todo != NULL);
    }
    g->todo[(*todo_count)++] = off;
}

/* Counts what is reached, and of this what is not allocated; hashes shape and identities, of what
 * hangs on the array first. */
static inline void graph_trace(graph *g)
{
    size_t todo_count = 0, index = 0;
    dh_handle *handle;
    bool is_hashed = true;

    memset(g->seen, 0, g->heap->arena.hwm_pages * DH_GRANULES_PER_PAGE);
    g->reached_count = g->lost_count = 0;
    g->hash = 14695981039346656037u;
    graph_reach(g, g->array.word, &todo_count);
    for (;;) {
        while (todo_count > 0) {
            dh_off off = g->todo[--todo_count];
            size_t count;
            const dh_word *words = graph_words(g, off, &count);
            bool is_raw = (g->heap->alloc.kind[off >> DH_PAGE_SHIFT] & 1u) != 0; /* RAW: odd */
            for (size_t i = 0; i < count && is_hashed; i++)
                g->hash = (g->hash ^ words[i]) * 1099511628211u;
            for (size_t i = 0; i < count && !is_raw; i++)
                graph_reach(g, words[i], &todo_count);
        }
        is_hashed = false;
        handle = dh_handles_next(&g->heap->handles, &index);
        if (handle == NULL)
            break;
        graph_reach(g, handle->word, &todo_count);
    }
    graph_reach(g, g->heap->root, &todo_count);
    while (todo_count > 0) {
        dh_off off = g->todo[--todo_count];
        size_t count;
        const dh_word *words = graph_words(g, off, &count);
        bool is_raw = (g->heap->alloc.kind[off >> DH_PAGE_SHIFT] & 1u) != 0;
        for (size_t i = 0; i < count && !is_raw; i++)
            graph_reach(g, words[i], &todo_count);
    }
}

/* Cells and runs that the allocator holds. */
static inline uint64_t graph_allocated(const graph *g)
{
    const dh_alloc *alloc = &g->heap->alloc;
    uint64_t n = 0;

    for (uint64_t p = 1; p < g->heap->arena.hwm_pages; p++)
        for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
            n += (uint64_t)__builtin_popcountll(alloc->old[p].bits[i] | alloc->fresh[p].bits[i]);
    return n;
}

#endif

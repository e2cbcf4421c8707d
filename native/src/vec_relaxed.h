/* vec_relaxed.h -- what vec_relax.c, vec_merge.c and vec_relaxed.c share: relaxed nodes under change,
 * and ways down to them.
 *
 * Counts and beginnings may come from a damaged file: who steps down checks where he is.
 */
#ifndef DH_VEC_RELAXED_H
#define DH_VEC_RELAXED_H

#include "vec_private.h"

/* Cells of a page taken beforehand: what needs many gets all or none. They are noted outside the
 * arena, where no damaged tree can reach. */
typedef struct {
    dh_off *cells;
    uint64_t count; /* that are left */
} vec_pool;

/* A subtree and the relaxed node above it. */
typedef struct {
    vec_rnode parent; /* words NULL: the subtree is the whole tree    */
    unsigned at;      /* which child                                  */
    int depth;        /* of the subtree                               */
    uint64_t start;   /* slots of the subtree                         */
    uint64_t limit;
    uint64_t base; /* slots of the parent */
    uint64_t base_limit;
} vec_place;

/* From the root to one leaf, relaxed nodes all the way. */
typedef struct {
    int depth;
    vec_rnode nodes[DH_VEC_DEPTH_MAX]; /* the root first */
    unsigned at[DH_VEC_DEPTH_MAX];
    dh_word *leaf;
    uint64_t start; /* slots of the leaf */
    unsigned count;
} vec_path;

/* --- one relaxed node ------------------------------------------------------------------------- */

static inline void rnode_set(const vec_rnode *node, unsigned i, dh_word ref, uint64_t start)
{
    dh_store(&node->words[RNODE_REFS + i], ref);
    dh_store(&node->words[RNODE_STARTS + i], dh_int((int64_t)start));
}

static inline void rnode_set_count(vec_rnode *node, unsigned count)
{
    node->count = count;
    dh_store(&node->words[RNODE_COUNT], dh_int(count));
}

/* All children of a new node, or of one that was changed much, are in place. */
static inline void rnode_settle(vec_rnode *node, unsigned count)
{
    rnode_set_count(node, count);
    rnode_set_density(node);
}

/* Children from i on begin that much later. */
static inline void rnode_shift_starts(const vec_rnode *node, unsigned i, int64_t by)
{
    for (dh_word *start = &node->words[RNODE_STARTS + i];
         start < &node->words[RNODE_STARTS + node->count]; start++)
        dh_store(start, dh_int(dh_int_value(*start) + by));
}

/* Room for more children before number i; the caller fills it. */
static inline void rnode_open_gap(vec_rnode *node, unsigned i, unsigned more)
{
    dh_word *refs = node->words + RNODE_REFS, *starts = node->words + RNODE_STARTS;
    memmove(refs + i + more, refs + i, (node->count - i) * sizeof *refs);
    memmove(starts + i + more, starts + i, (node->count - i) * sizeof *starts);
    rnode_set_count(node, node->count + more);
}

static inline void rnode_close_gap(vec_rnode *node, unsigned i, unsigned less)
{
    dh_word *refs = node->words + RNODE_REFS, *starts = node->words + RNODE_STARTS;
    unsigned behind = node->count - i - less;
    memmove(refs + i, refs + i + less, behind * sizeof *refs);
    memmove(starts + i, starts + i + less, behind * sizeof *starts);
    memset(refs + i + behind, 0, less * sizeof *refs);
    memset(starts + i + behind, 0, less * sizeof *starts);
    rnode_set_count(node, node->count - less);
}

/* Copy children of one node to free places of another, counted from slot `less` before. */
static inline void rnode_copy(const vec_rnode *to, unsigned to_at, const vec_rnode *from,
                              unsigned from_at, unsigned count, int64_t shift)
{
    for (unsigned i = 0; i < count; i++)
        rnode_set(to, to_at + i, rnode_ref(from, from_at + i),
                  (uint64_t)((int64_t)rnode_start(from, from_at + i) + shift));
}

/* --- places ----------------------------------------------------------------------------------- */

/* Depth -1: more slots than such a tree can hold. */
static inline vec_place place_root(const dh_word *vec)
{
    uint64_t length = dh_vec_length(vec);
    int depth = vec_depth(vec);
    if (depth >= 0 && length > vec_limit(depth))
        depth = -1;
    return (vec_place){.depth = depth, .limit = length, .base_limit = length};
}

static inline dh_word place_word(const vec_place *place, const dh_word *vec)
{
    return place->parent.words != NULL ? rnode_ref(&place->parent, place->at) : vec[DH_VEC_ROOT];
}

/* The child of the parent that holds index, or the last one where index is the end of the parent's
 * slots. It lies within the parent, and index within it. */
static inline int place_seek(const dh_heap *heap, vec_place *place, uint64_t index)
{
    const vec_rnode *parent = &place->parent;
    if (parent->words == NULL)
        return 0;
    unsigned at = rnode_find(parent, index - place->base);
    place->at = at;
    place->start = place->base + rnode_start(parent, at);
    place->limit =
        at + 1 < parent->count ? place->base + rnode_start(parent, at + 1) : place->base_limit;
    bool is_end = place->limit == place->base_limit && index == place->limit;
    if (place->start > index || (index >= place->limit && !is_end) ||
        place->limit > place->base_limit)
        return vec_corrupt(heap);
    return 0;
}

/* One level down: into the child that holds index. */
static inline int place_enter(const dh_heap *heap, vec_place *place, const dh_word *vec,
                              uint64_t index)
{
    vec_rnode node;
    if (place->depth < 1 || !rnode_open(heap, place_word(place, vec), &node))
        return vec_corrupt(heap);
    place->parent = node;
    place->base = place->start;
    place->base_limit = place->limit;
    place->depth--;
    return place_seek(heap, place, index);
}

/* --- vec_relax.c ------------------------------------------------------------------------------ */
/* A cell from the pool (may be NULL, or empty), all EMPTY, else a new one. */
int dhi_vec_cell_new(dh_heap *heap, vec_pool *pool, size_t bytes, dh_off *off_out) DH_MUST_USE;
/* Relax every node above the leaf of index (the length: the last leaf), and see to it that the
 * lowest takes two more children. The content stays, also when this fails. */
int dhi_vec_relax(dh_heap *heap, dh_word *vec, vec_pool *pool, uint64_t index) DH_MUST_USE;

/* --- vec_merge.c ------------------------------------------------------------------------------ */
/* See to the leaf of slot index and the nodes above it. Needs no memory. */
void dhi_vec_mend(dh_heap *heap, dh_word *vec, uint64_t index);

#endif

/* vec_relaxed.c -- inserting into and removing from the middle of a vector of more than one leaf.
 *
 * Contract: vec.h; nodes: vec_private.h. Every change begins on the way down (vec_relax.c), which
 * leaves the content as it was and alone needs memory. What comes after cannot fail but for damage,
 * and writes only what is on the path. It ends with small leaves being merged (vec_merge.c).
 */
#include "vec_relaxed.h"

#include <stdlib.h>

/* --- memory ----------------------------------------------------------------------------------- */

static void pool_finish(dh_heap *heap, vec_pool *pool)
{
    while (pool->count > 0)
        dh_cell_free(heap, pool->cells[--pool->count]);
    free(pool->cells);
    pool->cells = NULL;
}

/* What was taken before a failure is in the pool. */
static int pool_fill(dh_heap *heap, vec_pool *pool, uint64_t count)
{
    pool->cells = malloc(count * sizeof *pool->cells);
    if (pool->cells == NULL)
        return ENOMEM;
    for (; pool->count < count; pool->count++) {
        int rc = dh_cell_new(heap, DH_PAGE_BYTES, DH_REFS, &pool->cells[pool->count]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool path_is_relaxed(const dh_heap *heap, const dh_word *vec, uint64_t index)
{
    vec_place place = place_root(vec);
    while (place.depth > 0 && dh_is_ref_to(place_word(&place, vec), DH_T_RNODE))
        if (place_enter(heap, &place, vec, index) != 0)
            return false;
    return place.depth == 0;
}

/* The same where no room is needed. */
static int vec_relax_plain(dh_heap *heap, dh_word *vec, uint64_t index)
{
    return path_is_relaxed(heap, vec, index) ? 0 : dhi_vec_relax(heap, vec, NULL, index);
}

/* --- paths ------------------------------------------------------------------------------------ */

static int path_to(const dh_heap *heap, const dh_word *vec, uint64_t index, vec_path *path_out)
{
    vec_place place = place_root(vec);
    path_out->depth = place.depth;
    if (place.depth < 1)
        return vec_corrupt(heap);
    for (int level = 0; place.depth > 0; level++) {
        int rc = place_enter(heap, &place, vec, index);
        if (rc != 0)
            return rc;
        path_out->nodes[level] = place.parent;
        path_out->at[level] = place.at;
    }
    path_out->leaf = dh_deref(heap, place_word(&place, vec), DH_T_LEAF, VEC_LEAF_BYTES);
    path_out->start = place.start;
    if (path_out->leaf == NULL || place.limit - place.start > VEC_LEAF_WORDS)
        return vec_corrupt(heap);
    path_out->count = (unsigned)(place.limit - place.start);
    return 0;
}

/* The leaf of a path has that many slots more. */
static void path_resize(const vec_path *path, dh_word *vec, int64_t by)
{
    for (int level = 0; level < path->depth; level++) {
        if (path->at[level] + 1 == path->nodes[level].count)
            continue; /* where the last ends is not written */
        rnode_shift_starts(&path->nodes[level], path->at[level] + 1, by);
        rnode_set_density(&path->nodes[level]);
    }
    vec_set_length(vec, (uint64_t)((int64_t)dh_vec_length(vec) + by));
}

/* --- inserting -------------------------------------------------------------------------------- */

/* A new leaf, of which count slots are in use, before slot index, where a leaf begins or the vector
 * ends. */
static int link_leaf(dh_heap *heap, dh_word *vec, uint64_t index, dh_off off, unsigned count)
{
    vec_path path;
    int rc = path_to(heap, vec, index, &path);
    if (rc != 0)
        return rc;
    vec_rnode *lowest = &path.nodes[path.depth - 1];
    unsigned at = path.at[path.depth - 1];
    bool is_behind = index > path.start;
    if (lowest->count == VEC_CHILDREN_MAX || (is_behind && index != path.start + path.count))
        return vec_corrupt(heap);
    uint64_t start = rnode_start(lowest, at) + (index - path.start);
    path_resize(&path, vec, count); /* as if the leaf there grew */
    at += is_behind;
    rnode_open_gap(lowest, at, 1);
    rnode_set(lowest, at, dh_ref(DH_T_LEAF, off), start);
    if (!is_behind)
        dh_store(&lowest->words[RNODE_STARTS + at + 1], dh_int((int64_t)(start + count)));
    return 0;
}

/* Let a leaf begin at slot index. The way there is relaxed. */
static int split_leaf(dh_heap *heap, const dh_word *vec, uint64_t index)
{
    vec_path path;
    dh_off off;
    int rc = path_to(heap, vec, index, &path);
    uint64_t kept = rc == 0 ? index - path.start : 0;
    if (rc != 0 || kept == 0 || kept >= path.count)
        return rc;
    vec_rnode *lowest = &path.nodes[path.depth - 1];
    unsigned at = path.at[path.depth - 1];
    if (lowest->count == VEC_CHILDREN_MAX)
        return vec_corrupt(heap);
    rc = dh_cell_new(heap, VEC_LEAF_BYTES, DH_REFS, &off);
    if (rc != 0)
        return rc;
    size_t moved_bytes = (path.count - kept) * sizeof *path.leaf;
    memmove(dh_at(heap, off), path.leaf + kept, moved_bytes);
    memset(path.leaf + kept, 0, moved_bytes);
    rnode_open_gap(lowest, at + 1, 1);
    rnode_set(lowest, at + 1, dh_ref(DH_T_LEAF, off), rnode_start(lowest, at) + kept);
    return 0;
}

static void copy_words(dh_word *to, const dh_word *words, size_t count)
{
    if (words != NULL)
        memcpy(to, words, count * sizeof *to);
    else
        memset(to, 0, count * sizeof *to);
}

static int insert_new_leaf(dh_heap *heap, dh_word *vec, vec_pool *pool, uint64_t index,
                           const dh_word *words, unsigned count)
{
    dh_off off;
    int rc = dhi_vec_cell_new(heap, pool, VEC_LEAF_BYTES, &off);
    if (rc != 0)
        return rc;
    copy_words(dh_at(heap, off), words, count);
    rc = link_leaf(heap, vec, index, off, count);
    if (rc != 0)
        dh_cell_free(heap, off);
    return rc;
}

/* There is room, but for damage. */
static int insert_in_leaf(const dh_heap *heap, dh_word *vec, const vec_path *path, uint64_t index,
                          const dh_word *words, unsigned count)
{
    if (index - path->start > path->count || path->count + count > VEC_LEAF_WORDS)
        return vec_corrupt(heap);
    dh_word *at = path->leaf + (index - path->start);
    memmove(at + count, at, (path->start + path->count - index) * sizeof *at);
    copy_words(at, words, count);
    path_resize(path, vec, count);
    return 0;
}

/* No more than half a leaf. A leaf without room is halved; at the border of two leaves, the one
 * before it grows, or there is a new one: what is inserted in order fills its leaves. */
static int insert_few(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                      unsigned count)
{
    vec_path path;
    uint64_t before = index > 0 ? index - 1 : 0;
    int rc = vec_relax_plain(heap, vec, before);
    if (rc == 0)
        rc = path_to(heap, vec, before, &path);
    if (rc == 0 && path.count + count > VEC_LEAF_WORDS) {
        if (index == 0 || index == path.start + path.count) {
            rc = dhi_vec_relax(heap, vec, NULL, index);
            return rc != 0 ? rc : insert_new_leaf(heap, vec, NULL, index, words, count);
        }
        rc = dhi_vec_relax(heap, vec, NULL, before);
        if (rc == 0)
            rc = split_leaf(heap, vec, path.start + path.count / 2);
        if (rc == 0)
            rc = path_to(heap, vec, before, &path);
    }
    return rc != 0 ? rc : insert_in_leaf(heap, vec, &path, index, words, count);
}

/* Cells that linking so many leaves at one place takes at most, the leaves included: a node is
 * split once in so many children, and so are those above it. */
static uint64_t many_cells(const dh_word *vec, uint64_t leaves_count)
{
    uint64_t cells = leaves_count, children = leaves_count;
    if (leaves_count == 1) /* vec_relax left room */
        return 1;
    for (int depth = vec_depth(vec) + 2; depth > 0; depth--) {
        children = children / ((VEC_CHILDREN_MAX - 3u) / 2u) + 1;
        cells += children;
    }
    return cells;
}

/* Whole leaves, between two or at an end. */
static int insert_many(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                       uint64_t count)
{
    uint64_t at = index, left = count, leaves = (count + VEC_LEAF_WORDS - 1) / VEC_LEAF_WORDS;
    vec_pool pool = {NULL, 0};
    bool is_at_end = index == dh_vec_length(vec);
    int rc = dhi_vec_relax(heap, vec, NULL, index);
    if (rc == 0)
        rc = split_leaf(heap, vec, index);
    if (rc == 0)
        rc = pool_fill(heap, &pool, many_cells(vec, leaves));
    while (rc == 0 && left > 0) {
        unsigned some = left < VEC_LEAF_WORDS ? (unsigned)left : VEC_LEAF_WORDS;
        if (leaves > 1)
            rc = dhi_vec_relax(heap, vec, &pool, at);
        if (rc == 0)
            rc = insert_new_leaf(heap, vec, &pool, at, words, some);
        if (rc != 0)
            break;
        words = words == NULL ? NULL : words + some;
        left -= some;
        at += some;
    }
    pool_finish(heap, &pool);
    if (rc != 0) { /* the tree cannot get deeper */
        int undone = dh_vec_remove(heap, vec, index, at - index);
        return undone != 0 ? undone : rc;
    }
    if (!is_at_end) {
        dhi_vec_mend(heap, vec, at - 1);
        dhi_vec_mend(heap, vec, at);
        if (index > 0)
            dhi_vec_mend(heap, vec, index - 1);
    }
    return rc;
}

/* What the last leaf has room for stands there already when this fails; it is taken back. */
static int insert_at_end(dh_heap *heap, dh_word *vec, const dh_word *words, uint64_t count)
{
    uint64_t length = dh_vec_length(vec), room = 0;
    if (dh_vec_slot(heap, vec, length, &room) == NULL)
        room = 0;
    uint64_t first = room < count ? room : count;
    vec_set_length(vec, length + first);
    int rc = first == count ? 0
                            : insert_many(heap, vec, length + first,
                                          words == NULL ? NULL : words + first, count - first);
    if (rc == 0)
        return dh_vec_fill(heap, vec, length, words, first);
    vec_set_length(vec, length);
    return rc;
}

int dhi_relaxed_insert(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                       uint64_t count)
{
    if (index == dh_vec_length(vec))
        return insert_at_end(heap, vec, words, count);
    if (count <= VEC_LEAF_WORDS / 2)
        return insert_few(heap, vec, index, words, (unsigned)count);
    return insert_many(heap, vec, index, words, count);
}

int dhi_relaxed_add_leaf(dh_heap *heap, dh_word *vec)
{
    uint64_t length = dh_vec_length(vec);
    int rc = dhi_vec_relax(heap, vec, NULL, length);
    return rc != 0 ? rc : insert_new_leaf(heap, vec, NULL, length, NULL, 0);
}

/* Take relaxed nodes of one child off the top. */
static void lower_root(dh_heap *heap, dh_word *vec)
{
    vec_rnode node;
    for (int depth = vec_depth(vec);
         depth > 0 && rnode_open(heap, vec[DH_VEC_ROOT], &node) && node.count == 1; depth--) {
        dh_off off = dh_ref_off(vec[DH_VEC_ROOT]);
        dh_store(&vec[DH_VEC_ROOT], rnode_ref(&node, 0));
        dh_store(&vec[DH_VEC_DEPTH], dh_int(depth - 1));
        dh_cell_free(heap, off);
    }
}

/* --- removing --------------------------------------------------------------------------------- */

/* The child at a place goes, with all its slots. Nodes above it: path_to's. */
static void unlink_child(dh_heap *heap, dh_word *vec, vec_place *place, vec_rnode *const nodes,
                         const unsigned *at, int level)
{
    int64_t slots = (int64_t)(place->limit - place->start);
    dh_word gone = place_word(place, vec);
    for (int i = 0; i < level; i++)
        rnode_shift_starts(&nodes[i], at[i] + 1, -slots);
    rnode_shift_starts(&place->parent, place->at + 1, -slots);
    rnode_close_gap(&place->parent, place->at, 1);
    vec_set_length(vec, dh_vec_length(vec) - (uint64_t)slots);
    dhi_vec_free_tree(heap, gone, place->depth);
}

static void remove_in_leaf(dh_word *vec, const vec_path *path, uint64_t index, unsigned count)
{
    dh_word *at = path->leaf + (index - path->start);
    size_t behind = path->count - (index - path->start) - count;
    memmove(at, at + count, behind * sizeof *at);
    memset(at + behind, 0, count * sizeof *at);
    path_resize(path, vec, -(int64_t)count);
}

/* The largest subtree that begins at index and has no more than count slots, or what a leaf has of
 * them. Returns how many slots went; 0: damage. */
static uint64_t remove_some(dh_heap *heap, dh_word *vec, uint64_t index, uint64_t count)
{
    vec_place place = place_root(vec);
    vec_path path = {.depth = place.depth};
    for (int level = 0; place.depth > 0; level++) {
        if (place_enter(heap, &place, vec, index) != 0)
            return 0;
        path.nodes[level] = place.parent;
        path.at[level] = place.at;
        uint64_t slots = place.limit - place.start;
        if (place.start == index && slots <= count && place.parent.count > 1) {
            unlink_child(heap, vec, &place, path.nodes, path.at, level);
            return slots;
        }
    }
    path.leaf = dh_deref(heap, place_word(&place, vec), DH_T_LEAF, VEC_LEAF_BYTES);
    path.start = place.start;
    path.count = (unsigned)(place.limit - place.start);
    if (path.leaf == NULL || place.limit - place.start > VEC_LEAF_WORDS || place.limit <= index)
        return 0;
    uint64_t some = place.limit - index < count ? place.limit - index : count;
    remove_in_leaf(vec, &path, index, (unsigned)some);
    return some;
}

int dhi_relaxed_remove(dh_heap *heap, dh_word *vec, uint64_t index, uint64_t count)
{
    int rc = vec_relax_plain(heap, vec, index);
    if (rc == 0)
        rc = vec_relax_plain(heap, vec, index + count);
    while (rc == 0 && count > 0) {
        uint64_t some = remove_some(heap, vec, index, count);
        if (some == 0)
            return vec_corrupt(heap);
        count -= some;
    }
    if (rc != 0)
        return rc;
    dhi_vec_mend(heap, vec, index);
    if (index > 0)
        dhi_vec_mend(heap, vec, index - 1);
    lower_root(heap, vec);
    return 0;
}

int dhi_relaxed_cut(dh_heap *heap, dh_word *vec, uint64_t length)
{
    uint64_t used = dh_vec_length(vec);
    vec_place place = place_root(vec);
    while (place.depth > 0 && dh_is_ref_to(place_word(&place, vec), DH_T_RNODE)) {
        int rc = place_enter(heap, &place, vec, length - 1);
        if (rc != 0)
            return rc;
        for (unsigned i = place.parent.count; i > place.at + 1; i--) {
            dh_word gone = rnode_ref(&place.parent, i - 1);
            rnode_close_gap(&place.parent, i - 1, 1);
            dhi_vec_free_tree(heap, gone, place.depth);
        }
    }
    dhi_vec_cut_behind(heap, place_word(&place, vec), place.depth, length - 1 - place.start);
    dh_vec_run run;
    if (!dh_vec_run_at(heap, vec, length - 1, &run))
        return vec_corrupt(heap);
    if (run.limit > used)
        run.limit = used;
    memset(run.first + (length - run.start), 0, (run.limit - length) * sizeof *run.first);
    lower_root(heap, vec);
    return 0;
}

/* vec_relaxed.c -- inserting into and removing from the middle of a vector of more than one leaf.
 *
 * Contract: vec.h; nodes: vec_private.h. Every change begins on the way down from the root: nodes on
 * the path are relaxed, and those with no room for two more children are split. That leaves the
 * content as it was, so a failure there (the only ones that need memory) needs no undoing. What
 * comes after cannot fail but for damage. Only what is on the path is written.
 *
 * Leaves of less than a quarter are merged with, or filled from, a neighbour under the same node;
 * nodes likewise if both are relaxed. A plain node is full, or the last, and is left alone.
 */
#include "vec_private.h"

/* A plain node becomes as many relaxed ones as leave each of them room. */
#define VEC_PIECES_MAX 3u
#define VEC_PIECE_CHILDREN ((VEC_NODE_REFS + VEC_PIECES_MAX - 1u) / VEC_PIECES_MAX)
/* With more children a node is split on the way down: what happens below adds two at most. */
#define VEC_CHILDREN_ROOMY (VEC_CHILDREN_MAX - 2u)
_Static_assert(VEC_PIECE_CHILDREN <= VEC_CHILDREN_ROOMY, "a relaxed piece is not split at once");

#define VEC_LEAF_SMALL (VEC_LEAF_WORDS / 4u)
#define VEC_LEAF_MERGED_MAX (VEC_LEAF_WORDS / 4u * 3u)
#define VEC_NODE_SMALL ((VEC_CHILDREN_MAX + 3u) / 4u)
#define VEC_NODE_MERGED_MAX (VEC_CHILDREN_MAX / 4u * 3u)

/* Cells taken beforehand, chained by their first words: what needs many gets all or none. */
typedef struct {
    dh_word first; /* ref to a LEAF, or EMPTY */
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

/* --- memory ----------------------------------------------------------------------------------- */

static int vec_cell_new(dh_heap *heap, vec_pool *pool, size_t bytes, dh_off *off_out)
{
    if (pool == NULL || pool->first == DH_EMPTY)
        return dh_cell_new(heap, bytes, DH_REFS, off_out);
    dh_word *words = dh_at(heap, dh_ref_off(pool->first));
    *off_out = dh_ref_off(pool->first);
    pool->first = words[0];
    words[0] = DH_EMPTY;
    return 0;
}

static void pool_finish(dh_heap *heap, vec_pool *pool)
{
    while (pool->first != DH_EMPTY) {
        dh_off off = dh_ref_off(pool->first);
        pool->first = *(const dh_word *)dh_at(heap, off);
        dh_cell_free(heap, off);
    }
}

static int pool_fill(dh_heap *heap, vec_pool *pool, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        dh_off off;
        int rc = dh_cell_new(heap, DH_PAGE_BYTES, DH_REFS, &off);
        if (rc != 0) {
            pool_finish(heap, pool);
            return rc;
        }
        *(dh_word *)dh_at(heap, off) = pool->first;
        pool->first = dh_ref(DH_T_LEAF, off);
    }
    return 0;
}

/* --- one relaxed node ------------------------------------------------------------------------- */

static void rnode_set(const vec_rnode *node, unsigned i, dh_word ref, uint64_t start)
{
    dh_store(&node->words[RNODE_REFS + i], ref);
    dh_store(&node->words[RNODE_STARTS + i], dh_int((int64_t)start));
}

static void rnode_set_count(vec_rnode *node, unsigned count)
{
    node->count = count;
    dh_store(&node->words[RNODE_COUNT], dh_int(count));
}

/* All children of a new node, or of one that was changed much, are in place. */
static void rnode_settle(vec_rnode *node, unsigned count)
{
    rnode_set_count(node, count);
    rnode_set_density(node);
}

/* Children from i on begin that much later. */
static void rnode_shift_starts(const vec_rnode *node, unsigned i, int64_t by)
{
    for (dh_word *start = &node->words[RNODE_STARTS + i];
         start < &node->words[RNODE_STARTS + node->count]; start++)
        dh_store(start, dh_int(dh_int_value(*start) + by));
}

/* Room for more children before number i; the caller fills it. */
static void rnode_open_gap(vec_rnode *node, unsigned i, unsigned more)
{
    dh_word *refs = node->words + RNODE_REFS, *starts = node->words + RNODE_STARTS;
    memmove(refs + i + more, refs + i, (node->count - i) * sizeof *refs);
    memmove(starts + i + more, starts + i, (node->count - i) * sizeof *starts);
    rnode_set_count(node, node->count + more);
}

static void rnode_close_gap(vec_rnode *node, unsigned i, unsigned less)
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
static void rnode_copy(const vec_rnode *to, unsigned to_at, const vec_rnode *from, unsigned from_at,
                       unsigned count, int64_t shift)
{
    for (unsigned i = 0; i < count; i++)
        rnode_set(to, to_at + i, rnode_ref(from, from_at + i),
                  (uint64_t)((int64_t)rnode_start(from, from_at + i) + shift));
}

/* --- places ----------------------------------------------------------------------------------- */

static vec_place place_root(const dh_word *vec)
{
    uint64_t length = dh_vec_length(vec);
    return (vec_place){.depth = vec_depth(vec), .limit = length, .base_limit = length};
}

static dh_word place_word(const vec_place *place, const dh_word *vec)
{
    return place->parent.words != NULL ? rnode_ref(&place->parent, place->at) : vec[DH_VEC_ROOT];
}

/* The child of the parent that holds index. */
static int place_seek(const dh_heap *heap, vec_place *place, uint64_t index)
{
    const vec_rnode *parent = &place->parent;
    if (parent->words == NULL)
        return 0;
    unsigned at = rnode_find(parent, index - place->base);
    place->at = at;
    place->start = place->base + rnode_start(parent, at);
    place->limit =
        at + 1 < parent->count ? place->base + rnode_start(parent, at + 1) : place->base_limit;
    if (place->start > index || place->limit < place->start || place->limit > place->base_limit)
        return vec_corrupt(heap);
    return 0;
}

/* One level down: into the child that holds index. */
static int place_enter(const dh_heap *heap, vec_place *place, const dh_word *vec, uint64_t index)
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

/* A relaxed root above the root. */
static int place_raise(dh_heap *heap, dh_word *vec, vec_pool *pool, vec_place *place)
{
    dh_off off;
    if (place->depth >= DH_VEC_DEPTH_MAX)
        return vec_too_long(heap);
    int rc = vec_cell_new(heap, pool, DH_PAGE_BYTES, &off);
    if (rc != 0)
        return rc;
    place->parent.words = dh_at(heap, off);
    rnode_set(&place->parent, 0, vec[DH_VEC_ROOT], 0);
    rnode_settle(&place->parent, 1);
    dh_store(&vec[DH_VEC_ROOT], dh_ref(DH_T_RNODE, off));
    dh_store(&vec[DH_VEC_DEPTH], dh_int(place->depth + 1));
    return 0;
}

/* --- relaxing and splitting: the content stays ------------------------------------------------- */

/* The children of a plain node, a share of them to each piece. */
static void relax_fill(const dh_heap *heap, const dh_word *refs, unsigned used, int depth,
                       const dh_off *pieces, unsigned pieces_count)
{
    for (unsigned p = 0, i = 0; p < pieces_count; p++) {
        vec_rnode node = {dh_at(heap, pieces[p]), 0};
        unsigned until = used * (p + 1) / pieces_count;
        for (; i < until; i++, node.count++)
            rnode_set(&node, node.count, refs[i], node.count * vec_limit(depth - 1));
        rnode_settle(&node, node.count);
    }
}

/* Put the pieces where the plain node was. */
static void relax_install(dh_word *vec, vec_place *place, unsigned used, const dh_off *pieces,
                          unsigned pieces_count)
{
    if (place->parent.words == NULL) {
        dh_store(&vec[DH_VEC_ROOT], dh_ref(DH_T_RNODE, pieces[0]));
        return;
    }
    rnode_open_gap(&place->parent, place->at + 1, pieces_count - 1);
    for (unsigned p = 0; p < pieces_count; p++)
        rnode_set(&place->parent, place->at + p, dh_ref(DH_T_RNODE, pieces[p]),
                  place->start - place->base +
                      used * p / pieces_count * vec_limit(place->depth - 1));
    rnode_set_density(&place->parent);
}

/* Make relaxed nodes of the plain one at a place. */
static int relax_node(dh_heap *heap, dh_word *vec, vec_pool *pool, vec_place *place)
{
    dh_word plain = place_word(place, vec);
    const dh_word *refs = dh_deref(heap, plain, DH_T_NODE, VEC_NODE_BYTES);
    uint64_t share = vec_limit(place->depth - 1), slots = place->limit - place->start;
    if (refs == NULL || slots == 0 || slots > VEC_NODE_REFS * share)
        return vec_corrupt(heap);
    unsigned used = (unsigned)((slots + share - 1) / share), count = 1;
    dh_off pieces[VEC_PIECES_MAX];
    if (used > VEC_CHILDREN_ROOMY)
        count = (used + VEC_PIECE_CHILDREN - 1) / VEC_PIECE_CHILDREN;
    if (count > 1 && place->parent.words == NULL) {
        int rc = place_raise(heap, vec, pool, place);
        if (rc != 0)
            return rc;
    }
    if (place->parent.words != NULL && place->parent.count + count - 1 > VEC_CHILDREN_MAX)
        return vec_corrupt(heap);
    for (unsigned p = 0; p < count; p++) {
        int rc = vec_cell_new(heap, pool, DH_PAGE_BYTES, &pieces[p]);
        if (rc != 0) {
            while (p > 0)
                dh_cell_free(heap, pieces[--p]);
            return rc;
        }
    }
    relax_fill(heap, refs, used, place->depth, pieces, count);
    relax_install(vec, place, used, pieces, count);
    for (unsigned i = used; i < VEC_NODE_REFS; i++) /* reserved ones */
        if (refs[i] != DH_EMPTY)
            dhi_vec_free_tree(heap, refs[i], place->depth - 1);
    dh_cell_free(heap, dh_ref_off(plain));
    return 0;
}

/* How many children stay when a node is split: at the ends of the vector nearly all stay together,
 * so that what grows there fills its nodes. */
static unsigned split_kept(const vec_rnode *node, const dh_word *vec, uint64_t index)
{
    if (index >= dh_vec_length(vec))
        return node->count - 1;
    return index == 0 ? 1 : node->count / 2;
}

static int split_node(dh_heap *heap, dh_word *vec, vec_pool *pool, vec_place *place,
                      vec_rnode *node, uint64_t index)
{
    dh_off off;
    unsigned kept = split_kept(node, vec, index);
    if (place->parent.words == NULL) {
        int rc = place_raise(heap, vec, pool, place);
        if (rc != 0)
            return rc;
    }
    if (place->parent.count == VEC_CHILDREN_MAX)
        return vec_corrupt(heap);
    int rc = vec_cell_new(heap, pool, DH_PAGE_BYTES, &off);
    if (rc != 0)
        return rc;
    vec_rnode right = {dh_at(heap, off), 0};
    uint64_t start = rnode_start(node, kept);
    rnode_copy(&right, 0, node, kept, node->count - kept, -(int64_t)start);
    rnode_settle(&right, node->count - kept);
    rnode_open_gap(&place->parent, place->at + 1, 1);
    rnode_set(&place->parent, place->at + 1, dh_ref(DH_T_RNODE, off),
              place->start - place->base + start);
    rnode_close_gap(node, kept, node->count - kept);
    rnode_set_density(node);
    rnode_set_density(&place->parent);
    return 0;
}

/* Relax every node above the leaf of index (the length: the last leaf), and see to it that the
 * lowest takes two more children. */
static int vec_relax(dh_heap *heap, dh_word *vec, vec_pool *pool, uint64_t index)
{
    vec_place place = place_root(vec);
    if (place.depth < 1)
        return vec_corrupt(heap);
    while (place.depth > 0) {
        vec_rnode node;
        int rc = 0;
        if (dh_is_ref_to(place_word(&place, vec), DH_T_NODE))
            rc = relax_node(heap, vec, pool, &place);
        else if (rnode_open(heap, place_word(&place, vec), &node) &&
                 node.count > VEC_CHILDREN_ROOMY)
            rc = split_node(heap, vec, pool, &place, &node, index);
        if (rc == 0)
            rc = place_seek(heap, &place, index);
        if (rc == 0)
            rc = place_enter(heap, &place, vec, index);
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
    return path_is_relaxed(heap, vec, index) ? 0 : vec_relax(heap, vec, NULL, index);
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
    memcpy(dh_at(heap, off), path.leaf + kept, moved_bytes);
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
    int rc = vec_cell_new(heap, pool, VEC_LEAF_BYTES, &off);
    if (rc != 0)
        return rc;
    copy_words(dh_at(heap, off), words, count);
    rc = link_leaf(heap, vec, index, off, count);
    if (rc != 0)
        dh_cell_free(heap, off);
    return rc;
}

/* There is room. */
static void insert_in_leaf(dh_word *vec, const vec_path *path, uint64_t index, const dh_word *words,
                           unsigned count)
{
    dh_word *at = path->leaf + (index - path->start);
    memmove(at + count, at, (path->start + path->count - index) * sizeof *at);
    copy_words(at, words, count);
    path_resize(path, vec, count);
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
            rc = vec_relax(heap, vec, NULL, index);
            return rc != 0 ? rc : insert_new_leaf(heap, vec, NULL, index, words, count);
        }
        rc = vec_relax(heap, vec, NULL, before);
        if (rc == 0)
            rc = split_leaf(heap, vec, path.start + path.count / 2);
        if (rc == 0)
            rc = path_to(heap, vec, before, &path);
    }
    if (rc == 0)
        insert_in_leaf(vec, &path, index, words, count);
    return rc;
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

static void vec_mend(dh_heap *heap, dh_word *vec, uint64_t index);

/* Whole leaves, between two or at an end. */
static int insert_many(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                       uint64_t count)
{
    uint64_t at = index, left = count, leaves = (count + VEC_LEAF_WORDS - 1) / VEC_LEAF_WORDS;
    vec_pool pool = {DH_EMPTY};
    bool is_at_end = index == dh_vec_length(vec);
    int rc = vec_relax(heap, vec, NULL, index);
    if (rc == 0)
        rc = split_leaf(heap, vec, index);
    if (rc == 0)
        rc = pool_fill(heap, &pool, many_cells(vec, leaves));
    while (rc == 0 && left > 0) {
        unsigned some = left < VEC_LEAF_WORDS ? (unsigned)left : VEC_LEAF_WORDS;
        if (leaves > 1)
            rc = vec_relax(heap, vec, &pool, at);
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
        vec_mend(heap, vec, at - 1);
        vec_mend(heap, vec, at);
        if (index > 0)
            vec_mend(heap, vec, index - 1);
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
    int rc = vec_relax(heap, vec, NULL, length);
    return rc != 0 ? rc : insert_new_leaf(heap, vec, NULL, length, NULL, 0);
}

/* --- merging ---------------------------------------------------------------------------------- */

/* Move words between two leaves side by side so that the left one holds `wanted`. */
static void shift_words(dh_word *left, unsigned left_count, dh_word *right, unsigned right_count,
                        unsigned wanted)
{
    if (wanted > left_count) {
        unsigned moved = wanted - left_count;
        memcpy(left + left_count, right, moved * sizeof *left);
        memmove(right, right + moved, (right_count - moved) * sizeof *left);
        memset(right + right_count - moved, 0, moved * sizeof *left);
    } else {
        unsigned moved = left_count - wanted;
        memmove(right + moved, right, right_count * sizeof *left);
        memcpy(right, left + wanted, moved * sizeof *left);
        memset(left + wanted, 0, moved * sizeof *left);
    }
}

/* Leaves number i and i + 1 of a node become one, or alike in size. */
static void merge_leaves(dh_heap *heap, vec_rnode *node, unsigned i, unsigned left_count,
                         unsigned right_count)
{
    dh_word gone = rnode_ref(node, i + 1);
    dh_word *left = dh_deref(heap, rnode_ref(node, i), DH_T_LEAF, VEC_LEAF_BYTES);
    dh_word *right = dh_deref(heap, gone, DH_T_LEAF, VEC_LEAF_BYTES);
    unsigned total = left_count + right_count;
    if (left == NULL || right == NULL || left == right)
        return;
    if (total <= VEC_LEAF_MERGED_MAX) {
        memcpy(left + left_count, right, right_count * sizeof *left);
        rnode_close_gap(node, i + 1, 1);
        dh_cell_free(heap, dh_ref_off(gone));
        return;
    }
    shift_words(left, left_count, right, right_count, total / 2);
    dh_store(&node->words[RNODE_STARTS + i + 1],
             dh_int((int64_t)(rnode_start(node, i) + total / 2)));
}

/* The same for relaxed nodes number i and i + 1; left_slots: what the left one holds. */
static void merge_nodes(dh_heap *heap, vec_rnode *node, unsigned i)
{
    vec_rnode left, right;
    dh_word gone = rnode_ref(node, i + 1);
    if (!rnode_open(heap, rnode_ref(node, i), &left) || !rnode_open(heap, gone, &right) ||
        left.words == right.words)
        return;
    unsigned total = left.count + right.count, wanted = total / 2;
    int64_t left_slots = (int64_t)(rnode_start(node, i + 1) - rnode_start(node, i));
    if (total <= VEC_NODE_MERGED_MAX) {
        rnode_copy(&left, left.count, &right, 0, right.count, left_slots);
        rnode_settle(&left, total);
        rnode_close_gap(node, i + 1, 1);
        dh_cell_free(heap, dh_ref_off(gone));
        return;
    }
    uint64_t moved_slots;
    if (wanted > left.count) {
        unsigned moved = wanted - left.count;
        moved_slots = rnode_start(&right, moved);
        rnode_copy(&left, left.count, &right, 0, moved, left_slots);
        rnode_set_count(&left, wanted);
        rnode_close_gap(&right, 0, moved);
        rnode_shift_starts(&right, 0, -(int64_t)moved_slots);
        left_slots += (int64_t)moved_slots;
    } else {
        unsigned moved = left.count - wanted;
        uint64_t kept_slots = rnode_start(&left, wanted);
        moved_slots = (uint64_t)left_slots - kept_slots;
        rnode_open_gap(&right, 0, moved);
        rnode_shift_starts(&right, moved, (int64_t)moved_slots);
        rnode_copy(&right, 0, &left, wanted, moved, -(int64_t)kept_slots);
        rnode_close_gap(&left, wanted, moved);
        left_slots = (int64_t)kept_slots;
    }
    dh_store(&node->words[RNODE_STARTS + i + 1],
             dh_int((int64_t)rnode_start(node, i) + left_slots));
    rnode_set_density(&left);
    rnode_set_density(&right);
}

/* Where the child of a place ends, counted from the parent's first slot. */
static uint64_t place_child_end(const vec_place *place, unsigned i)
{
    return i + 1 < place->parent.count ? rnode_start(&place->parent, i + 1)
                                       : place->base_limit - place->base;
}

/* Merge the small child at a place with a neighbour. */
static void mend_child(dh_heap *heap, const dh_word *vec, vec_place *place)
{
    vec_rnode *parent = &place->parent, node;
    unsigned left = place->at + 1 < parent->count ? place->at : place->at - 1u;
    if (parent->count < 2)
        return;
    if (place->depth > 0) {
        if (rnode_open(heap, place_word(place, vec), &node) && node.count < VEC_NODE_SMALL)
            merge_nodes(heap, parent, left);
        return;
    }
    uint64_t left_count = rnode_start(parent, left + 1) - rnode_start(parent, left);
    uint64_t right_count = place_child_end(place, left + 1) - rnode_start(parent, left + 1);
    /* The last leaf of all may be small: it grows at the end. */
    if (place->limit - place->start < VEC_LEAF_SMALL && place->limit < dh_vec_length(vec) &&
        left_count <= VEC_LEAF_WORDS && right_count <= VEC_LEAF_WORDS)
        merge_leaves(heap, parent, left, (unsigned)left_count, (unsigned)right_count);
}

/* See to the leaf of slot index and the nodes above it. Needs no memory. */
static void vec_mend(dh_heap *heap, dh_word *vec, uint64_t index)
{
    vec_place place = place_root(vec);
    while (place.depth > 0 && dh_is_ref_to(place_word(&place, vec), DH_T_RNODE)) {
        if (place_enter(heap, &place, vec, index) != 0)
            return;
        mend_child(heap, vec, &place);
        if (place_seek(heap, &place, index) != 0)
            return;
    }
}

void dhi_relaxed_lower(dh_heap *heap, dh_word *vec)
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
    vec_mend(heap, vec, index);
    if (index > 0)
        vec_mend(heap, vec, index - 1);
    dhi_relaxed_lower(heap, vec);
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
    dhi_relaxed_lower(heap, vec);
    return 0;
}

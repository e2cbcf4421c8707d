/* vec.c -- a vector of words: one cell, then a radix tree of one-page leaves.
 *
 * Contract: vec.h; nodes: vec_private.h. Here is what needs no relaxed node: finding slots, the end,
 * and changes so near to it that what lies behind is moved. The rest goes to vec_relaxed.c.
 *
 * In a plain tree a leaf or node exists for every slot below the length and for a stretch of
 * reserved ones behind it. Nothing but depth 0 is ever copied to grow. The three words may come
 * from a damaged file: every step down is a dh_deref, every loop is bounded by the tree's shape,
 * never by the length alone.
 */
#include "vec_private.h"

/* As many slots behind a change are moved rather than the tree relaxed. */
#define VEC_SHIFT_MAX (8u * VEC_LEAF_WORDS)

/* --- finding ---------------------------------------------------------------------------------- */

/* What is known of a subtree on the way down. */
typedef struct {
    dh_word word;
    int depth;
    uint64_t start; /* slot number of its first                                        */
    uint64_t limit; /* slots below it have lower numbers; UINT64_MAX at the right edge */
} vec_subtree;

/* Step down through relaxed nodes: below them, if anything, stand plain ones. */
static inline bool vec_descend(const dh_heap *heap, const dh_word *vec, uint64_t index,
                               vec_subtree *tree_out)
{
    vec_subtree tree = {vec[DH_VEC_ROOT], vec_depth(vec), 0, UINT64_MAX};
    for (; tree.depth > 0 && dh_is_ref_to(tree.word, DH_T_RNODE); tree.depth--) {
        vec_rnode node;
        if (DH_UNLIKELY(!rnode_open(heap, tree.word, &node)))
            return false;
        unsigned at = rnode_find(&node, index - tree.start);
        if (at + 1 < node.count && tree.start + rnode_start(&node, at + 1) < tree.limit)
            tree.limit = tree.start + rnode_start(&node, at + 1);
        tree.start += rnode_start(&node, at);
        tree.word = rnode_ref(&node, at);
        if (DH_UNLIKELY(tree.start > index))
            return false;
    }
    *tree_out = tree;
    return tree.depth >= 0 && index - tree.start < vec_limit(tree.depth);
}

/* From there through plain nodes. */
static inline bool vec_descend_plain(const dh_heap *heap, vec_subtree *tree, uint64_t index)
{
    for (; tree->depth > 0; tree->depth--) {
        const dh_word *node = dh_deref(heap, tree->word, DH_T_NODE, VEC_NODE_BYTES);
        if (DH_UNLIKELY(node == NULL))
            return false;
        tree->word = dh_load(&node[vec_digit(index - tree->start, tree->depth)]);
    }
    return true;
}

bool dh_vec_run_at(const dh_heap *heap, const dh_word *vec, uint64_t index, dh_vec_run *run_out)
{
    vec_subtree tree;
    size_t bytes = 0;
    if (!vec_descend(heap, vec, index, &tree) || !vec_descend_plain(heap, &tree, index))
        return false;
    run_out->first = dhi_span(heap, tree.word, DH_T_LEAF, &bytes);
    run_out->start = index - vec_digit(index - tree.start, 0);
    run_out->limit = run_out->start + (bytes / 8 < VEC_LEAF_WORDS ? bytes / 8 : VEC_LEAF_WORDS);
    if (run_out->limit > tree.limit)
        run_out->limit = tree.limit;
    return run_out->first != NULL && index < run_out->limit;
}

/* In one cell, or below relaxed nodes. */
static dh_word *vec_slot_unusual(const dh_heap *heap, const dh_word *vec, uint64_t index,
                                 uint64_t *span_out)
{
    vec_subtree tree;
    dh_vec_run run;
    if (DH_LIKELY(vec_is_relaxed(vec))) {
        if (!vec_descend(heap, vec, index, &tree) || !vec_descend_plain(heap, &tree, index))
            return NULL;
        dh_word *leaf = dh_deref(heap, tree.word, DH_T_LEAF, VEC_LEAF_BYTES);
        unsigned at = vec_digit(index - tree.start, 0);
        uint64_t span = VEC_LEAF_WORDS - at;
        *span_out = span < tree.limit - index ? span : tree.limit - index;
        return leaf == NULL || index >= tree.limit ? NULL : leaf + at;
    }
    if (!dh_vec_run_at(heap, vec, index, &run))
        return NULL;
    *span_out = run.limit - index;
    return run.first + (index - run.start);
}

dh_word *dh_vec_slot(const dh_heap *heap, const dh_word *vec, uint64_t index, uint64_t *span_out)
{
    int depth = vec_depth(vec);
    dh_word w = vec[DH_VEC_ROOT];
    /* The usual way by hand: a plain tree of whole leaves. */
    if (DH_UNLIKELY(depth <= 0 || !dh_is_ref_to(w, DH_T_NODE)))
        return vec_slot_unusual(heap, vec, index, span_out);
    if (index >= vec_limit(depth))
        return NULL;
    for (; depth > 0; depth--) {
        const dh_word *node = dh_deref(heap, w, DH_T_NODE, VEC_NODE_BYTES);
        if (DH_UNLIKELY(node == NULL))
            return NULL;
        w = dh_load(&node[vec_digit(index, depth)]);
    }
    dh_word *leaf = dh_deref(heap, w, DH_T_LEAF, VEC_LEAF_BYTES);
    unsigned at = vec_digit(index, 0);
    *span_out = VEC_LEAF_WORDS - at;
    return leaf == NULL ? NULL : leaf + at;
}

/* --- growing ---------------------------------------------------------------------------------- */

/* Replace the one cell of depth 0 by another of at least that many words. */
static int vec_resize_leaf(dh_heap *heap, dh_word *vec, uint64_t words, uint64_t length)
{
    size_t bytes = 0;
    dh_off off;
    dh_word old = vec[DH_VEC_ROOT];
    const dh_word *from = NULL;
    if (old != DH_EMPTY) {
        from = dhi_span(heap, old, DH_T_LEAF, &bytes);
        if (from == NULL || length > bytes / 8)
            return vec_corrupt(heap);
    }
    int rc = dh_cell_new(heap, (size_t)words * 8, DH_REFS, &off);
    if (rc != 0)
        return rc;
    if (from != NULL && length > 0)
        memmove(dh_at(heap, off), from, (size_t)length * 8);
    dh_store(&vec[DH_VEC_ROOT], dh_ref(DH_T_LEAF, off));
    if (from != NULL)
        dh_cell_free(heap, dh_ref_off(old));
    return 0;
}

static int vec_reserve_leaf(dh_heap *heap, dh_word *vec, uint64_t length)
{
    size_t bytes = 0;
    uint64_t used = dh_vec_length(vec);
    if (vec[DH_VEC_ROOT] != DH_EMPTY && dhi_span(heap, vec[DH_VEC_ROOT], DH_T_LEAF, &bytes) == NULL)
        return vec_corrupt(heap);
    uint64_t room = bytes / 8;
    if (length <= room)
        return used <= room ? 0 : vec_corrupt(heap);
    /* The first storage is exact, so that what is built at once carries no slack. */
    uint64_t words = room + room / 2;
    if (words < length)
        words = length;
    if (words > VEC_LEAF_WORDS)
        words = VEC_LEAF_WORDS;
    return vec_resize_leaf(heap, vec, words, used);
}

/* Put a node above the root. */
static int vec_deepen(dh_heap *heap, dh_word *vec)
{
    dh_off off;
    int depth = vec_depth(vec);
    if (depth == 0) {
        int rc = vec_reserve_leaf(heap, vec, VEC_LEAF_WORDS);
        if (rc != 0)
            return rc;
    }
    if (depth == DH_VEC_DEPTH_MAX)
        return vec_too_long(heap);
    int rc = dh_cell_new(heap, VEC_NODE_BYTES, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *node = dh_at(heap, off);
    node[0] = vec[DH_VEC_ROOT];
    dh_store(&vec[DH_VEC_ROOT], dh_ref(DH_T_NODE, off));
    dh_store(&vec[DH_VEC_DEPTH], dh_int(depth + 1));
    return 0;
}

/* Make the leaf that holds index, and the nodes above it. */
static int vec_make_leaf(dh_heap *heap, dh_word *vec, uint64_t index)
{
    dh_word *at = &vec[DH_VEC_ROOT];
    for (int depth = vec_depth(vec); depth >= 0; depth--) {
        dh_type type = depth > 0 ? DH_T_NODE : DH_T_LEAF;
        if (*at == DH_EMPTY) {
            dh_off off;
            int rc = dh_cell_new(heap, VEC_NODE_BYTES, DH_REFS, &off);
            if (rc != 0)
                return rc;
            dh_store(at, dh_ref(type, off));
        }
        dh_word *cell = dh_deref(heap, *at, type, VEC_NODE_BYTES);
        if (cell == NULL)
            return vec_corrupt(heap);
        if (depth > 0)
            at = &cell[vec_digit(index, depth)];
    }
    return 0;
}

int dh_vec_reserve(dh_heap *heap, dh_word *vec, uint64_t length)
{
    int depth = vec_depth(vec);
    uint64_t used = dh_vec_length(vec);
    if (depth < 0 || used > vec_limit(depth) || vec_is_relaxed(vec))
        return vec_corrupt(heap);
    if (length > vec_limit(DH_VEC_DEPTH_MAX))
        return vec_too_long(heap);
    if (depth == 0 && length <= VEC_LEAF_WORDS)
        return vec_reserve_leaf(heap, vec, length);
    /* Leaves made before a failure stay as reserved room: the vector is what it was. */
    while (length > vec_limit(vec_depth(vec))) {
        int rc = vec_deepen(heap, vec);
        if (rc != 0)
            return rc;
    }
    uint64_t first = used == 0 ? 0 : (used - 1) & ~(uint64_t)(VEC_LEAF_WORDS - 1u);
    for (uint64_t index = first; index < length; index += VEC_LEAF_WORDS) {
        int rc = vec_make_leaf(heap, vec, index);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int dh_vec_push(dh_heap *heap, dh_word *vec, dh_word w)
{
    uint64_t span, length = dh_vec_length(vec);
    dh_word *slot = dh_vec_slot(heap, vec, length, &span);
    if (DH_UNLIKELY(slot == NULL)) {
        int rc = vec_is_relaxed(vec) ? dhi_relaxed_add_leaf(heap, vec)
                                     : dh_vec_reserve(heap, vec, length + 1);
        if (rc != 0)
            return rc;
        slot = dh_vec_slot(heap, vec, length, &span);
        if (slot == NULL)
            return vec_corrupt(heap);
    }
    dh_store(slot, w);
    vec_set_length(vec, length + 1);
    return 0;
}

/* --- shrinking -------------------------------------------------------------------------------- */

/* The cell goes first: a ref met twice in a damaged tree is then no longer allocated and not
 * followed. Freeing leaves the bytes readable (alloc.h). */
void dhi_vec_free_tree(dh_heap *heap, dh_word w, int depth)
{
    dh_off off = dh_ref_off(w);
    bool is_relaxed = dh_is_ref_to(w, DH_T_RNODE);
    if (depth == 0) {
        if (dh_is_ref_to(w, DH_T_LEAF))
            dh_cell_free(heap, off);
        return;
    }
    const dh_word *refs = dh_deref(heap, w, is_relaxed ? DH_T_RNODE : DH_T_NODE, VEC_NODE_BYTES);
    if (refs == NULL || !dh_cell_is_allocated(heap, off))
        return;
    dh_cell_free(heap, off);
    unsigned count = is_relaxed ? VEC_CHILDREN_MAX : VEC_NODE_REFS;
    for (unsigned i = 0; i < count; i++) {
        dh_word child = refs[is_relaxed ? RNODE_REFS + i : i];
        if (child != DH_EMPTY)
            dhi_vec_free_tree(heap, child, depth - 1);
    }
}

void dh_vec_clear(dh_heap *heap, dh_word *vec)
{
    dh_word root = vec[DH_VEC_ROOT];
    int depth = vec_depth(vec);
    dh_store(&vec[DH_VEC_LENGTH], dh_int(0));
    dh_store(&vec[DH_VEC_ROOT], DH_EMPTY);
    dh_store(&vec[DH_VEC_DEPTH], dh_int(0));
    if (root != DH_EMPTY && depth >= 0)
        dhi_vec_free_tree(heap, root, depth);
}

void dhi_vec_cut_behind(dh_heap *heap, dh_word w, int depth, uint64_t index)
{
    for (; depth > 0; depth--) {
        dh_word *node = dh_deref(heap, w, DH_T_NODE, VEC_NODE_BYTES);
        if (node == NULL)
            return;
        unsigned digit = vec_digit(index, depth);
        for (unsigned i = digit + 1; i < VEC_NODE_REFS; i++) {
            dh_word cut = node[i];
            if (cut == DH_EMPTY)
                continue;
            dh_store(&node[i], DH_EMPTY);
            dhi_vec_free_tree(heap, cut, depth - 1);
        }
        w = node[digit];
    }
}

/* Take nodes off the top while the first subtree holds all of the first `words` slots. */
static void vec_flatten(dh_heap *heap, dh_word *vec, uint64_t words)
{
    for (int depth = vec_depth(vec); depth > 0 && words <= vec_limit(depth - 1); depth--) {
        dh_word root = vec[DH_VEC_ROOT];
        const dh_word *node = dh_deref(heap, root, DH_T_NODE, VEC_NODE_BYTES);
        if (node == NULL)
            return;
        dh_word first = node[0];
        dh_store(&vec[DH_VEC_ROOT], first);
        dh_store(&vec[DH_VEC_DEPTH], dh_int(depth - 1));
        dh_cell_free(heap, dh_ref_off(root));
    }
}

/* How many leaves a length needs; none while it fits into half of the first one. */
static uint64_t vec_leaves(uint64_t length)
{
    return length <= VEC_LEAF_WORDS / 2 ? 0 : (length + VEC_LEAF_WORDS - 1) / VEC_LEAF_WORDS;
}

/* Give storage back. One spare leaf stays in a plain tree, so that a length that swings around the
 * end of a leaf does not allocate each time. used: the length before. */
static void vec_trim(dh_heap *heap, dh_word *vec, uint64_t used)
{
    size_t bytes;
    uint64_t length = dh_vec_length(vec);
    if (vec_depth(vec) > 0 && !vec_is_relaxed(vec) && vec_leaves(length) != vec_leaves(used)) {
        uint64_t last = length - 1 + VEC_LEAF_WORDS;
        if (last >= vec_limit(vec_depth(vec)))
            last = vec_limit(vec_depth(vec)) - 1;
        if (length <= VEC_LEAF_WORDS / 2)
            last = 0;
        dhi_vec_cut_behind(heap, vec[DH_VEC_ROOT], vec_depth(vec), last);
        vec_flatten(heap, vec, last + 1);
    }
    if (vec_depth(vec) == 0 && dhi_span(heap, vec[DH_VEC_ROOT], DH_T_LEAF, &bytes) != NULL &&
        bytes / 8 > 16 && length < bytes / 32) {
        /* Failing to get smaller is no failure. */
        int rc = vec_resize_leaf(heap, vec, length + length / 2, length);
        (void)rc;
    }
}

/* 0 < length < dh_vec_length(vec) */
static int vec_cut(dh_heap *heap, dh_word *vec, uint64_t length)
{
    uint64_t used = dh_vec_length(vec);
    int rc;
    if (vec_is_relaxed(vec)) {
        rc = dhi_relaxed_cut(heap, vec, length);
    } else {
        /* Leaves that go away altogether need no clearing. */
        uint64_t kept = (length + 2 * VEC_LEAF_WORDS - 1) & ~(uint64_t)(VEC_LEAF_WORDS - 1u);
        rc = dh_vec_fill(heap, vec, length, NULL, (kept < used ? kept : used) - length);
    }
    if (rc != 0)
        return rc;
    vec_set_length(vec, length);
    vec_trim(heap, vec, used);
    return 0;
}

int dh_vec_set_length(dh_heap *heap, dh_word *vec, uint64_t length)
{
    uint64_t span, used = dh_vec_length(vec);
    if (length == 0) {
        dh_vec_clear(heap, vec);
        return 0;
    }
    if (used > vec_limit(DH_VEC_DEPTH_MAX))
        return vec_corrupt(heap);
    if (length < used)
        return vec_cut(heap, vec, length);
    if (length > used && dh_vec_slot(heap, vec, length - 1, &span) == NULL)
        return vec_corrupt(heap);
    vec_set_length(vec, length);
    return 0;
}

/* --- filling and moving ----------------------------------------------------------------------- */

int dh_vec_fill(const dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                uint64_t count)
{
    while (count > 0) {
        uint64_t span;
        dh_word *slot = dh_vec_slot(heap, vec, index, &span);
        if (slot == NULL)
            return vec_corrupt(heap);
        if (span > count)
            span = count;
        if (words != NULL) {
            memcpy(slot, words, (size_t)span * 8);
            words += span;
        } else {
            memset(slot, 0, (size_t)span * 8);
        }
        index += span;
        count -= span;
    }
    return 0;
}

static int vec_move_down(const dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from,
                         uint64_t count)
{
    while (count > 0) {
        uint64_t to_span, from_span;
        dh_word *into = dh_vec_slot(heap, vec, to, &to_span);
        const dh_word *out = dh_vec_slot(heap, vec, from, &from_span);
        if (into == NULL || out == NULL)
            return vec_corrupt(heap);
        uint64_t step = to_span < from_span ? to_span : from_span;
        if (step > count)
            step = count;
        memmove(into, out, (size_t)step * 8);
        to += step;
        from += step;
        count -= step;
    }
    return 0;
}

static int vec_move_up(const dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from,
                       uint64_t count)
{
    while (count > 0) {
        dh_vec_run into, out;
        if (!dh_vec_run_at(heap, vec, to + count - 1, &into) ||
            !dh_vec_run_at(heap, vec, from + count - 1, &out))
            return vec_corrupt(heap);
        uint64_t step = to + count - into.start;
        if (step > from + count - out.start)
            step = from + count - out.start;
        if (step > count)
            step = count;
        count -= step;
        memmove(into.first + (to + count - into.start), out.first + (from + count - out.start),
                (size_t)step * 8);
    }
    return 0;
}

int dh_vec_move(const dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from, uint64_t count)
{
    if (to == from)
        return 0;
    return to < from ? vec_move_down(heap, vec, to, from, count)
                     : vec_move_up(heap, vec, to, from, count);
}

/* --- in the middle ---------------------------------------------------------------------------- */

/* Move what lies behind index. */
static int vec_insert_shifting(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                               uint64_t count)
{
    uint64_t length = dh_vec_length(vec);
    int rc = dh_vec_reserve(heap, vec, length + count);
    if (rc == 0)
        rc = dh_vec_set_length(heap, vec, length + count);
    if (rc == 0)
        rc = dh_vec_move(heap, vec, index + count, index, length - index);
    if (rc != 0 || (words == NULL && index == length)) /* new slots are EMPTY */
        return rc;
    return dh_vec_fill(heap, vec, index, words, count);
}

int dh_vec_insert(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words, uint64_t count)
{
    uint64_t length = dh_vec_length(vec);
    if (index > length || length > vec_limit(DH_VEC_DEPTH_MAX))
        return vec_corrupt(heap);
    if (count > vec_limit(DH_VEC_DEPTH_MAX) - length)
        return vec_too_long(heap);
    if (count == 0)
        return 0;
    if (!vec_is_relaxed(vec) && length - index <= VEC_SHIFT_MAX)
        return vec_insert_shifting(heap, vec, index, words, count);
    return dhi_relaxed_insert(heap, vec, index, words, count);
}

static int vec_remove_shifting(dh_heap *heap, dh_word *vec, uint64_t index, uint64_t count)
{
    uint64_t length = dh_vec_length(vec);
    int rc = dh_vec_move(heap, vec, index, index + count, length - index - count);
    return rc != 0 ? rc : dh_vec_set_length(heap, vec, length - count);
}

int dh_vec_remove(dh_heap *heap, dh_word *vec, uint64_t index, uint64_t count)
{
    uint64_t length = dh_vec_length(vec);
    if (index > length || count > length - index || length > vec_limit(DH_VEC_DEPTH_MAX))
        return vec_corrupt(heap);
    uint64_t behind = length - index - count;
    if (count == 0)
        return 0;
    if (behind == 0)
        return dh_vec_set_length(heap, vec, index);
    if (!vec_is_relaxed(vec) && behind <= VEC_SHIFT_MAX)
        return vec_remove_shifting(heap, vec, index, count);
    int rc = dhi_relaxed_remove(heap, vec, index, count);
    if (rc == DH_E_FULL || rc == ENOMEM || rc == DH_E_LIMIT)
        return vec_remove_shifting(heap, vec, index, count);
    if (rc == 0)
        vec_trim(heap, vec, length);
    return rc;
}

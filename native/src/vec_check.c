/* vec_check.c -- is a vector's tree what vec.h says?
 *
 * Contract: vec.h. Visits no more nodes than the vector has slots, whatever the nodes say, because
 * every child but the last leaf must hold a slot. Must change nothing.
 */
#include "vec_private.h"

static bool all_empty(const dh_word *words, size_t count)
{
    while (count > 0 && words[count - 1] == DH_EMPTY)
        count--;
    return count == 0;
}

static bool leaf_is_sound(const dh_heap *heap, dh_word w, uint64_t slots)
{
    const dh_word *leaf = dh_deref(heap, w, DH_T_LEAF, VEC_LEAF_BYTES);
    return leaf != NULL && slots <= VEC_LEAF_WORDS &&
           all_empty(leaf + slots, VEC_LEAF_WORDS - slots);
}

static bool tree_is_sound(const dh_heap *heap, dh_word w, int depth, uint64_t slots, bool is_last);

/* Children of a plain node hold what they can, the last the rest. Behind the last of the vector there
 * may be reserved ones. */
static bool node_is_sound(const dh_heap *heap, const dh_word *refs, int depth, uint64_t slots,
                          bool is_last)
{
    uint64_t share = vec_limit(depth - 1);
    unsigned used = 0;
    if (slots > VEC_NODE_REFS * share)
        return false;
    for (uint64_t left = slots; left > 0; used++) {
        uint64_t some = left < share ? left : share;
        left -= some;
        if (!tree_is_sound(heap, refs[used], depth - 1, some, is_last && left == 0))
            return false;
    }
    return is_last || all_empty(refs + used, VEC_NODE_REFS - used);
}

static bool rnode_is_sound(const dh_heap *heap, const vec_rnode *node, int depth, uint64_t slots,
                           bool is_last)
{
    const dh_word *refs = node->words + RNODE_REFS, *starts = node->words + RNODE_STARTS;
    if (rnode_start(node, 0) != 0 || node->words[RNODE_COUNT] != dh_int(node->count) ||
        !all_empty(refs + node->count, RNODE_STARTS - RNODE_REFS - node->count) ||
        !all_empty(starts + node->count, RNODE_DENSITY - RNODE_STARTS - node->count) ||
        !dh_is_int(node->words[RNODE_DENSITY]))
        return false;
    for (unsigned i = 0; i < node->count; i++) {
        bool is_end = i + 1 == node->count;
        uint64_t start = rnode_start(node, i), end = is_end ? slots : rnode_start(node, i + 1);
        bool may_be_empty = is_end && is_last && depth == 1;
        if (starts[i] != dh_int((int64_t)start) || end < start || (end == start && !may_be_empty) ||
            end > slots || !tree_is_sound(heap, refs[i], depth - 1, end - start, is_end && is_last))
            return false;
    }
    return true;
}

static bool tree_is_sound(const dh_heap *heap, dh_word w, int depth, uint64_t slots, bool is_last)
{
    vec_rnode node;
    if (depth == 0)
        return leaf_is_sound(heap, w, slots);
    if (dh_is_ref_to(w, DH_T_RNODE))
        return rnode_open(heap, w, &node) && rnode_is_sound(heap, &node, depth, slots, is_last);
    const dh_word *refs = dh_deref(heap, w, DH_T_NODE, VEC_NODE_BYTES);
    return refs != NULL && node_is_sound(heap, refs, depth, slots, is_last);
}

int dh_vec_check(const dh_heap *heap, const dh_word *vec)
{
    int depth = vec_depth(vec);
    uint64_t length = dh_vec_length(vec);
    dh_word root = vec[DH_VEC_ROOT];
    size_t bytes;
    bool is_sound;
    if (root == DH_EMPTY) {
        is_sound = depth == 0 && length == 0;
    } else if (depth == 0) {
        const dh_word *leaf = dhi_span(heap, root, DH_T_LEAF, &bytes);
        is_sound = leaf != NULL && length <= bytes / 8 && length <= VEC_LEAF_WORDS &&
                   all_empty(leaf + length, bytes / 8 - length);
    } else {
        is_sound = depth > 0 && length <= vec_limit(depth) &&
                   tree_is_sound(heap, root, depth, length, true);
    }
    return is_sound ? 0 : vec_corrupt(heap);
}

/* vec_merge.c -- small leaves and nodes of a vector are merged with, or filled from, a neighbour.
 *
 * Contract: vec_relaxed.h. Of less than a quarter, and under the same node; two nodes only if both are
 * relaxed: a plain node is full, or the last, and is left alone. Never allocates, never fails: what
 * looks damaged is left for others to report.
 */
#include "vec_relaxed.h"

#define VEC_LEAF_SMALL (VEC_LEAF_WORDS / 4u)
#define VEC_LEAF_MERGED_MAX (VEC_LEAF_WORDS / 4u * 3u)
#define VEC_NODE_SMALL ((VEC_CHILDREN_MAX + 3u) / 4u)
#define VEC_NODE_MERGED_MAX (VEC_CHILDREN_MAX / 4u * 3u)

/* Move words between two leaves side by side so that the left one holds `wanted`. In a damaged tree
 * leaves may overlap: hence memmove, here and elsewhere. */
static void shift_words(dh_word *left, unsigned left_count, dh_word *right, unsigned right_count,
                        unsigned wanted)
{
    if (wanted > left_count) {
        unsigned moved = wanted - left_count;
        memmove(left + left_count, right, moved * sizeof *left);
        memmove(right, right + moved, (right_count - moved) * sizeof *left);
        memset(right + right_count - moved, 0, moved * sizeof *left);
    } else {
        unsigned moved = left_count - wanted;
        memmove(right + moved, right, right_count * sizeof *left);
        memmove(right, left + wanted, moved * sizeof *left);
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
        memmove(left + left_count, right, right_count * sizeof *left);
        rnode_close_gap(node, i + 1, 1);
        dh_cell_free(heap, dh_ref_off(gone));
        return;
    }
    shift_words(left, left_count, right, right_count, total / 2);
    dh_store(&node->words[RNODE_STARTS + i + 1],
             dh_int((int64_t)(rnode_start(node, i) + total / 2)));
}

/* The same for relaxed nodes number i and i + 1. */
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

void dhi_vec_mend(dh_heap *heap, dh_word *vec, uint64_t index)
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

/* vec_relax.c -- plain nodes become relaxed ones, and full ones are split: the way down to a change.
 *
 * Contract: vec_relaxed.h. Nothing here changes what stands in which slot, so a failure needs no
 * undoing. A node is left with room for what may happen below it.
 */
#include "vec_relaxed.h"

/* A plain node becomes as many relaxed ones as leave each of them room. */
#define VEC_PIECES_MAX 3u
#define VEC_PIECE_CHILDREN ((VEC_NODE_REFS + VEC_PIECES_MAX - 1u) / VEC_PIECES_MAX)
/* With more children a node is split on the way down: what happens below adds two at most. */
#define VEC_CHILDREN_ROOMY (VEC_CHILDREN_MAX - 2u)
_Static_assert(VEC_PIECE_CHILDREN <= VEC_CHILDREN_ROOMY, "a relaxed piece is not split at once");

int dhi_vec_cell_new(dh_heap *heap, vec_pool *pool, size_t bytes, dh_off *off_out)
{
    if (pool == NULL || pool->count == 0)
        return dh_cell_new(heap, bytes, DH_REFS, off_out);
    *off_out = pool->cells[--pool->count];
    return 0;
}

/* A relaxed root above the root. */
static int place_raise(dh_heap *heap, dh_word *vec, vec_pool *pool, vec_place *place)
{
    dh_off off;
    if (place->depth >= DH_VEC_DEPTH_MAX)
        return vec_too_long(heap);
    int rc = dhi_vec_cell_new(heap, pool, DH_PAGE_BYTES, &off);
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
        int rc = dhi_vec_cell_new(heap, pool, DH_PAGE_BYTES, &pieces[p]);
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
    int rc = dhi_vec_cell_new(heap, pool, DH_PAGE_BYTES, &off);
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

int dhi_vec_relax(dh_heap *heap, dh_word *vec, vec_pool *pool, uint64_t index)
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

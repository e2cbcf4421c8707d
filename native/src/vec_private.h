/* vec_private.h -- what vec.c, vec_relaxed.c and vec_check.c share: the two kinds of node.
 *
 *   NODE   512 refs; child i begins at slot i * (slots of a full child)
 *   RNODE  [0]         int: children, 1..255
 *          [1..255]    refs
 *          [256..510]  int: the slot, counted from the node's first, where each child begins
 *          [511]       int: (children - 1) << 40 / where the last begins, about; a hint
 *
 * One page with 255 children and not two with 512: an insertion dirties one page per level instead
 * of two, and a fragmented arena need not have two free pages in a row. Where the last child ends is
 * not written: the parent knows, and above all the vector's length. So appending touches no node.
 *
 * Below an RNODE every child that is no leaf is an RNODE, or a NODE of which the RNODE knows how
 * many slots are in use. Children hold at least one slot, but for the last leaf of all, which may
 * be empty.
 */
#ifndef DH_VEC_PRIVATE_H
#define DH_VEC_PRIVATE_H

#include "span.h"
#include "vec.h"

#define VEC_BITS DH_VEC_BITS
#define VEC_LEAF_WORDS DH_VEC_LEAF_WORDS
#define VEC_LEAF_BYTES (VEC_LEAF_WORDS * 8u)
#define VEC_NODE_REFS (1u << VEC_BITS)
#define VEC_NODE_BYTES (VEC_NODE_REFS * 8u)
#define VEC_CHILDREN_MAX DH_VEC_RELAXED_CHILDREN_MAX

enum {
    RNODE_COUNT = 0,
    RNODE_REFS = 1,
    RNODE_STARTS = DH_PAGE_WORDS / 2,
    RNODE_DENSITY = DH_PAGE_WORDS - 1
};
#define RNODE_DENSITY_BITS 40u
_Static_assert(VEC_LEAF_WORDS <= DH_PAGE_WORDS, "a leaf is one page");
_Static_assert(VEC_CHILDREN_MAX <= VEC_NODE_REFS, "a relaxed tree holds no more than a plain one");
_Static_assert(RNODE_REFS + VEC_CHILDREN_MAX <= RNODE_STARTS, "refs and starts share a page");
_Static_assert(RNODE_STARTS + VEC_CHILDREN_MAX <= RNODE_DENSITY, "refs and starts share a page");

/* A relaxed node that was looked at: count is in bounds. */
typedef struct {
    dh_word *words;
    unsigned count;
} vec_rnode;

/* The tree's depth, or -1 when damaged. */
static inline int vec_depth(const dh_word *vec)
{
    int64_t depth = dh_int_value(vec[DH_VEC_DEPTH]);
    return depth >= 0 && depth <= DH_VEC_DEPTH_MAX ? (int)depth : -1;
}

static inline bool vec_is_relaxed(const dh_word *vec)
{
    return dh_is_ref_to(vec[DH_VEC_ROOT], DH_T_RNODE);
}

static inline void vec_set_length(dh_word *vec, uint64_t length)
{
    dh_store(&vec[DH_VEC_LENGTH], dh_int((int64_t)length));
}

/* Leaves "a vector's storage is damaged" as the error text. */
static inline int vec_corrupt(const dh_heap *heap)
{
    (void)dhi_fail(heap, DH_E_CORRUPT, "a vector's storage is damaged");
    return DH_E_CORRUPT;
}

static inline int vec_too_long(const dh_heap *heap)
{
    return dhi_fail(heap, DH_E_LIMIT, "a vector cannot be that long");
}

/* Slots a tree of that depth can hold; depth 0 counted as a full leaf. */
static inline uint64_t vec_limit(int depth)
{
    return (uint64_t)1 << VEC_BITS * ((unsigned)depth + 1u);
}

static inline unsigned vec_digit(uint64_t index, int depth)
{
    return (unsigned)(index >> VEC_BITS * (unsigned)depth) & (VEC_NODE_REFS - 1u);
}

/* --- relaxed nodes ---------------------------------------------------------------------------- */

static inline bool rnode_open(const dh_heap *heap, dh_word w, vec_rnode *node_out)
{
    dh_word *words = dh_deref(heap, w, DH_T_RNODE, DH_PAGE_BYTES);
    uint64_t count = words == NULL ? 0 : (uint64_t)dh_int_value(words[RNODE_COUNT]);
    *node_out = (vec_rnode){words, (unsigned)count};
    return count >= 1 && count <= VEC_CHILDREN_MAX;
}

static inline dh_word rnode_ref(const vec_rnode *node, unsigned i)
{
    return dh_load(&node->words[RNODE_REFS + i]);
}

/* Never so large that sums overflow, whatever stands there. */
static inline uint64_t rnode_start(const vec_rnode *node, unsigned i)
{
    return (node->words[RNODE_STARTS + i] >> 1) & (((uint64_t)1 << 60) - 1);
}

/* Children per slot, so that finding one needs no division. May be out of date: a hint. */
static inline void rnode_set_density(const vec_rnode *node)
{
    uint64_t reach = rnode_start(node, node->count - 1);
    uint64_t density = reach == 0 ? 0 : ((uint64_t)(node->count - 1) << RNODE_DENSITY_BITS) / reach;
    dh_store(&node->words[RNODE_DENSITY], dh_int((int64_t)density));
}

/* The child that holds slot index (counted from the node's first), or the last one. Children are
 * much alike in size, so a guess by proportion is near: beginnings up to index are counted in a
 * window around it, without branches that could be mispredicted. */
#define RNODE_WINDOW 8u
static inline unsigned rnode_find(const vec_rnode *node, uint64_t index)
{
    const dh_word *starts = node->words + RNODE_STARTS;
    dh_word needle = dh_int((int64_t)(index & (((uint64_t)1 << 60) - 1)));
    unsigned last = node->count - 1, at = 0;
    if (needle >= starts[last])
        return last;
    if (last >= RNODE_WINDOW) {
        uint64_t density = node->words[RNODE_DENSITY] >> 1;
        uint64_t from = index * density >> RNODE_DENSITY_BITS;
        from = from > RNODE_WINDOW / 2 - 1 ? from - (RNODE_WINDOW / 2 - 1) : 0;
        if (from > node->count - RNODE_WINDOW)
            from = node->count - RNODE_WINDOW;
        unsigned even = 0, odd = 0;
        for (unsigned i = 0; i < RNODE_WINDOW; i += 2) {
            even += starts[from + i] <= needle;
            odd += starts[from + i + 1] <= needle;
        }
        at = (unsigned)from + even + odd;
        at -= at > 0;
    }
    while (at > 0 && starts[at] > needle)
        at--;
    while (at < last && starts[at + 1] <= needle)
        at++;
    return at;
}

/* --- vec.c ------------------------------------------------------------------------------------ */
/* Free what hangs below w, w included. */
void dhi_vec_free_tree(dh_heap *heap, dh_word w, int depth);
/* Free everything behind slot index in the tree of plain nodes below w. */
void dhi_vec_cut_behind(dh_heap *heap, dh_word w, int depth, uint64_t index);

/* --- vec_relaxed.c: vectors of depth > 0, plain or relaxed ------------------------------------- */
int dhi_relaxed_insert(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                       uint64_t count) DH_MUST_USE;
/* DH_E_FULL and ENOMEM: the content is as it was. */
int dhi_relaxed_remove(dh_heap *heap, dh_word *vec, uint64_t index, uint64_t count) DH_MUST_USE;
/* An empty leaf behind the last one. */
int dhi_relaxed_add_leaf(dh_heap *heap, dh_word *vec) DH_MUST_USE;
/* 0 < length < dh_vec_length(vec); clears and frees what lies behind. */
int dhi_relaxed_cut(dh_heap *heap, dh_word *vec, uint64_t length) DH_MUST_USE;

#endif

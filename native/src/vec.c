/* vec.c -- a vector of words: one cell, then a radix tree of one-page leaves.
 *
 * Contract: vec.h. A leaf or node exists for every slot below the length and for a stretch of
 * reserved ones behind it. Nothing but depth 0 is ever copied to grow. The three words may come
 * from a damaged file: every step down is a dh_deref, every loop is bounded by the tree's shape,
 * never by the length alone.
 */
#include "vec.h"

#include "span.h"

#define VEC_BITS 9u
#define VEC_LEAF_WORDS DH_VEC_LEAF_WORDS

/* The tree's depth, or -1 when damaged. */
static int vec_depth(const dh_word *vec)
{
    int64_t depth = dh_int_value(vec[DH_VEC_DEPTH]);
    return depth >= 0 && depth <= DH_VEC_DEPTH_MAX ? (int)depth : -1;
}

static int vec_corrupt(const dh_heap *heap)
{
    (void)dhi_fail(heap, DH_E_CORRUPT, "a vector's storage is damaged");
    return DH_E_CORRUPT;
}

/* Slots a tree of that depth can hold; depth 0 counted as a full leaf. */
static uint64_t vec_limit(int depth) { return (uint64_t)1 << VEC_BITS * ((unsigned)depth + 1u); }

static unsigned vec_digit(uint64_t index, int depth)
{
    return (unsigned)(index >> VEC_BITS * (unsigned)depth) & (VEC_LEAF_WORDS - 1u);
}

dh_word *dh_vec_slot(const dh_heap *heap, const dh_word *vec, uint64_t index, uint64_t *span_out)
{
    int depth = vec_depth(vec);
    dh_word w = vec[DH_VEC_ROOT];
    if (DH_LIKELY(depth > 0)) {
        if (index >= vec_limit(depth))
            return NULL;
        for (; depth > 0; depth--) {
            const dh_word *node = dh_deref(heap, w, DH_T_NODE, DH_PAGE_BYTES);
            if (DH_UNLIKELY(node == NULL))
                return NULL;
            w = dh_load(&node[vec_digit(index, depth)]);
        }
        dh_word *leaf = dh_deref(heap, w, DH_T_LEAF, DH_PAGE_BYTES);
        unsigned at = vec_digit(index, 0);
        *span_out = VEC_LEAF_WORDS - at;
        return leaf == NULL ? NULL : leaf + at;
    }
    size_t bytes;
    dh_word *leaf = depth == 0 ? dhi_span(heap, w, DH_T_LEAF, &bytes) : NULL;
    if (leaf == NULL || index >= bytes / 8 || index >= VEC_LEAF_WORDS)
        return NULL;
    *span_out = (bytes > DH_PAGE_BYTES ? DH_PAGE_BYTES : bytes) / 8 - index;
    return leaf + index;
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
        memcpy(dh_at(heap, off), from, (size_t)length * 8);
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
        return dhi_fail(heap, DH_E_LIMIT, "a vector cannot be that long");
    int rc = dh_cell_new(heap, DH_PAGE_BYTES, DH_REFS, &off);
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
            int rc = dh_cell_new(heap, DH_PAGE_BYTES, DH_REFS, &off);
            if (rc != 0)
                return rc;
            dh_store(at, dh_ref(type, off));
        }
        dh_word *cell = dh_deref(heap, *at, type, DH_PAGE_BYTES);
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
    if (depth < 0 || used > vec_limit(depth))
        return vec_corrupt(heap);
    if (length > vec_limit(DH_VEC_DEPTH_MAX))
        return dhi_fail(heap, DH_E_LIMIT, "a vector cannot be that long");
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
        int rc = dh_vec_reserve(heap, vec, length + 1);
        if (rc != 0)
            return rc;
        slot = dh_vec_slot(heap, vec, length, &span);
        if (slot == NULL)
            return vec_corrupt(heap);
    }
    dh_store(slot, w);
    dh_store(&vec[DH_VEC_LENGTH], dh_int((int64_t)(length + 1)));
    return 0;
}

/* --- shrinking -------------------------------------------------------------------------------- */

/* Free what hangs below w, w included. The cell goes first: a ref met twice in a damaged tree is
 * then no longer allocated and not followed. Freeing leaves the bytes readable (alloc.h). */
static void vec_free_tree(dh_heap *heap, dh_word w, int depth)
{
    dh_off off = dh_ref_off(w);
    if (depth > 0) {
        const dh_word *node = dh_deref(heap, w, DH_T_NODE, DH_PAGE_BYTES);
        if (node == NULL || !dh_cell_is_allocated(heap, off))
            return;
        dh_cell_free(heap, off);
        for (unsigned i = 0; i < VEC_LEAF_WORDS; i++)
            if (node[i] != DH_EMPTY)
                vec_free_tree(heap, node[i], depth - 1);
    } else if (dh_is_ref_to(w, DH_T_LEAF)) {
        dh_cell_free(heap, off);
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
        vec_free_tree(heap, root, depth);
}

/* Free everything behind the leaf of index, along the path to it. */
static void vec_cut_behind(dh_heap *heap, dh_word *vec, uint64_t index)
{
    dh_word w = vec[DH_VEC_ROOT];
    for (int depth = vec_depth(vec); depth > 0; depth--) {
        dh_word *node = dh_deref(heap, w, DH_T_NODE, DH_PAGE_BYTES);
        if (node == NULL)
            return;
        unsigned digit = vec_digit(index, depth);
        for (unsigned i = digit + 1; i < VEC_LEAF_WORDS; i++) {
            dh_word cut = node[i];
            if (cut == DH_EMPTY)
                continue;
            dh_store(&node[i], DH_EMPTY);
            vec_free_tree(heap, cut, depth - 1);
        }
        w = node[digit];
    }
}

/* Take nodes off the top while the first subtree holds all of the first `words` slots. */
static void vec_flatten(dh_heap *heap, dh_word *vec, uint64_t words)
{
    for (int depth = vec_depth(vec); depth > 0 && words <= vec_limit(depth - 1); depth--) {
        dh_word root = vec[DH_VEC_ROOT];
        const dh_word *node = dh_deref(heap, root, DH_T_NODE, DH_PAGE_BYTES);
        if (node == NULL)
            return;
        dh_word first = node[0];
        dh_store(&vec[DH_VEC_ROOT], first);
        dh_store(&vec[DH_VEC_DEPTH], dh_int(depth - 1));
        dh_cell_free(heap, dh_ref_off(root));
    }
}

static int vec_empty_slots(dh_heap *heap, dh_word *vec, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t span;
        dh_word *slot = dh_vec_slot(heap, vec, from, &span);
        if (slot == NULL)
            return vec_corrupt(heap);
        if (span > to - from)
            span = to - from;
        memset(slot, 0, (size_t)span * 8);
        from += span;
    }
    return 0;
}

/* Give storage back. One spare leaf stays, so that a length that swings around the end of a leaf
 * does not allocate each time. */
static void vec_trim(dh_heap *heap, dh_word *vec, uint64_t length)
{
    size_t bytes;
    if (vec_depth(vec) > 0) {
        uint64_t last = length - 1 + VEC_LEAF_WORDS;
        if (last >= vec_limit(vec_depth(vec)))
            last = vec_limit(vec_depth(vec)) - 1;
        if (length <= VEC_LEAF_WORDS / 2)
            last = 0;
        vec_cut_behind(heap, vec, last);
        vec_flatten(heap, vec, last + 1);
    }
    if (vec_depth(vec) == 0 && dhi_span(heap, vec[DH_VEC_ROOT], DH_T_LEAF, &bytes) != NULL &&
        bytes / 8 > 16 && length < bytes / 32) {
        /* Failing to get smaller is no failure. */
        int rc = vec_resize_leaf(heap, vec, length + length / 2, length);
        (void)rc;
    }
}

int dh_vec_set_length(dh_heap *heap, dh_word *vec, uint64_t length)
{
    uint64_t span, used = dh_vec_length(vec);
    if (length == 0) {
        dh_vec_clear(heap, vec);
        return 0;
    }
    if (length < used) {
        /* Leaves that go away altogether need no clearing. */
        uint64_t kept = (length + 2 * VEC_LEAF_WORDS - 1) & ~(uint64_t)(VEC_LEAF_WORDS - 1u);
        int rc = vec_empty_slots(heap, vec, length, kept < used ? kept : used);
        if (rc != 0)
            return rc;
        dh_store(&vec[DH_VEC_LENGTH], dh_int((int64_t)length));
        vec_trim(heap, vec, length);
        return 0;
    }
    if (length > used && dh_vec_slot(heap, vec, length - 1, &span) == NULL)
        return vec_corrupt(heap);
    dh_store(&vec[DH_VEC_LENGTH], dh_int((int64_t)length));
    return 0;
}

/* --- leaves before the first one -------------------------------------------------------------- */

/* Where the ref to leaf number `leaf` stands; depth > 0. */
static dh_word *vec_leaf_ref(const dh_heap *heap, const dh_word *vec, uint64_t leaf)
{
    uint64_t index = leaf << VEC_BITS;
    dh_word w = vec[DH_VEC_ROOT];
    int depth = vec_depth(vec);
    if (depth < 1 || index >= vec_limit(depth))
        return NULL;
    for (;; depth--) {
        dh_word *node = dh_deref(heap, w, DH_T_NODE, DH_PAGE_BYTES);
        if (node == NULL)
            return NULL;
        dh_word *at = &node[vec_digit(index, depth)];
        if (depth == 1)
            return at;
        w = *at;
    }
}

static int vec_reverse_refs(dh_heap *heap, dh_word *vec, uint64_t first, uint64_t limit)
{
    while (first + 1 < limit) {
        dh_word *low = vec_leaf_ref(heap, vec, first++);
        dh_word *high = vec_leaf_ref(heap, vec, --limit);
        if (low == NULL || high == NULL)
            return vec_corrupt(heap);
        dh_word kept = *low;
        dh_store(low, *high);
        dh_store(high, kept);
    }
    return 0;
}

/* Exchange leaves [0, middle) with [middle, count): three reversals, no memory (Bentley,
 * Programming Pearls, column 2). */
static int vec_rotate(dh_heap *heap, dh_word *vec, uint64_t middle, uint64_t count)
{
    int rc = vec_reverse_refs(heap, vec, 0, middle);
    if (rc == 0)
        rc = vec_reverse_refs(heap, vec, middle, count);
    return rc != 0 ? rc : vec_reverse_refs(heap, vec, 0, count);
}

static uint64_t vec_leaves_count(const dh_word *vec)
{
    return (dh_vec_length(vec) + VEC_LEAF_WORDS - 1) >> VEC_BITS;
}

int dh_vec_open_front(dh_heap *heap, dh_word *vec, uint64_t leaves_count)
{
    uint64_t old = vec_leaves_count(vec), more = leaves_count << VEC_BITS;
    int rc = dh_vec_reserve(heap, vec, (old << VEC_BITS) + more);
    if (rc == 0)
        rc = vec_rotate(heap, vec, old, old + leaves_count);
    if (rc == 0)
        dh_store(&vec[DH_VEC_LENGTH], dh_int((int64_t)(dh_vec_length(vec) + more)));
    return rc;
}

int dh_vec_close_front(dh_heap *heap, dh_word *vec, uint64_t leaves_count)
{
    uint64_t count = vec_leaves_count(vec), less = leaves_count << VEC_BITS;
    if (less >= dh_vec_length(vec))
        return vec_corrupt(heap);
    int rc = vec_rotate(heap, vec, leaves_count, count);
    if (rc != 0)
        return rc;
    /* The slots behind the new length are EMPTY already: they are those of the moved leaves. */
    dh_store(&vec[DH_VEC_LENGTH], dh_int((int64_t)(dh_vec_length(vec) - less)));
    vec_trim(heap, vec, dh_vec_length(vec));
    return 0;
}

/* --- moving ----------------------------------------------------------------------------------- */

static int vec_move_down(dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from, uint64_t count)
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

/* How many slots end at index (exclusive) in its leaf. */
static uint64_t vec_span_before(uint64_t index)
{
    return ((index - 1) & (VEC_LEAF_WORDS - 1u)) + 1;
}

static int vec_move_up(dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from, uint64_t count)
{
    while (count > 0) {
        uint64_t span, step = vec_span_before(to + count);
        if (step > vec_span_before(from + count))
            step = vec_span_before(from + count);
        if (step > count)
            step = count;
        count -= step;
        dh_word *into = dh_vec_slot(heap, vec, to + count, &span);
        if (into == NULL || span < step)
            return vec_corrupt(heap);
        const dh_word *out = dh_vec_slot(heap, vec, from + count, &span);
        if (out == NULL || span < step)
            return vec_corrupt(heap);
        memmove(into, out, (size_t)step * 8);
    }
    return 0;
}

int dh_vec_move(dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from, uint64_t count)
{
    if (to == from)
        return 0;
    return to < from ? vec_move_down(heap, vec, to, from, count)
                     : vec_move_up(heap, vec, to, from, count);
}

/* sorted_check.c -- a whole SortedDict held against its rules.
 *
 * Changes nothing. Counts are added up before anything below them is visited, and no child may be
 * empty: so the walk is no longer than the entries that the heap has room for, whatever it meets.
 */
#include <stdlib.h>

#include "sorted_private.h"

typedef struct {
    const dh_heap *heap;
    bool has_last;
    dh_word last; /* key before the one that is checked */
} sorted_check;

/* low and high: separators that bound the keys, or EMPTY. */
typedef struct {
    dh_word low;
    dh_word high;
} sorted_bounds;

/* left < right (or equal, if allowed) and comparable if both are keys; else a code. */
static int check_order(const dh_heap *heap, dh_word left, dh_word right, bool may_be_equal,
                       bool are_keys)
{
    dh_ordering ordering;
    int rc = dh_order_words(heap, left, right, &ordering);
    if (rc == DH_E_UNHASHABLE)
        return dhi_sorted_corrupt(heap, "a key is no key");
    if (rc != 0)
        return rc;
    if (ordering.sign > 0 || (ordering.sign == 0 && !may_be_equal) ||
        (are_keys && ordering.is_mixed))
        return dhi_sorted_corrupt(heap, "order");
    return 0;
}

static bool are_empty(const dh_word *words, const dh_word *end)
{
    for (; words < end; words++)
        if (*words != DH_EMPTY)
            return false;
    return true;
}

static bool is_head_sound(const dh_word *words)
{
    return dh_is_int(words[SORTED_CELL_COUNT]) && words[SORTED_CELL_ZERO] == dh_int(0);
}

/* Values without an order must not be there; texts and ints have one. */
static int check_admitted(const dh_heap *heap, dh_word w)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_key key;
    if (!dh_is_value(w) || dh_is_container(w))
        return dhi_sorted_corrupt(heap, "a key is no key");
    if (dh_is_int(w) || dh_is_short(w) || dh_is_ref_to(w, DH_T_STR))
        return 0;
    int rc = dh_key_from_word(heap, w, scratch, &key, &buffer);
    if (rc != 0)
        return rc == DH_E_UNHASHABLE ? dhi_sorted_corrupt(heap, "a key is no key") : rc;
    bool is_admitted = dh_order_admits(&key) == DH_ORDER_OK;
    free(buffer);
    return is_admitted ? 0 : dhi_sorted_corrupt(heap, "a key without an order");
}

static int check_leaf(sorted_check *check, dh_word w, uint64_t count, bool is_root,
                      sorted_bounds bounds)
{
    const dh_heap *heap = check->heap;
    sorted_leaf leaf;
    if (!sorted_leaf_open(heap, w, &leaf) || leaf.count != count || !is_head_sound(leaf.words) ||
        (!is_root && leaf.room != SORTED_LEAF_MAX))
        return dhi_sorted_corrupt(heap, "leaf");
    size_t bytes = dh_cell_bytes(heap, dh_ref_off(w));
    if (bytes > DH_PAGE_BYTES || !are_empty(leaf.keys + leaf.count, leaf.values) ||
        !are_empty(leaf.values + leaf.count, leaf.words + bytes / sizeof(dh_word)))
        return dhi_sorted_corrupt(heap, "unused slots");
    for (unsigned i = 0; i < leaf.count; i++) {
        int rc = check_admitted(heap, leaf.keys[i]);
        if (rc == 0 && !dh_is_value(leaf.values[i]))
            rc = dhi_sorted_corrupt(heap, "a value is none");
        if (rc == 0 && check->has_last)
            rc = check_order(heap, check->last, leaf.keys[i], false, true);
        if (rc != 0)
            return rc;
        check->last = leaf.keys[i];
        check->has_last = true;
    }
    int rc = 0;
    if (bounds.low != DH_EMPTY)
        rc = check_order(heap, bounds.low, leaf.keys[0], true, false);
    if (rc == 0 && bounds.high != DH_EMPTY)
        rc = check_order(heap, leaf.keys[leaf.count - 1], bounds.high, false, false);
    return rc;
}

/* All children have entries, and together as many as the node above says. */
static int check_counts(const dh_heap *heap, const sorted_node *node, uint64_t count)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < node->count; i++) {
        uint64_t below = sorted_child_count(node, i);
        if (!dh_is_int(node->counts[i]) || below == 0 || below > count - total)
            return dhi_sorted_corrupt(heap, "counts");
        total += below;
    }
    return total == count ? 0 : dhi_sorted_corrupt(heap, "counts");
}

static int check_separators(const dh_heap *heap, const sorted_node *node)
{
    if (node->separators[0] != DH_EMPTY)
        return dhi_sorted_corrupt(heap, "separators");
    for (unsigned i = 1; i < node->count; i++) {
        int rc = check_admitted(heap, node->separators[i]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int check_node(const dh_heap *heap, dh_word w, uint64_t count, bool is_root,
                      sorted_node *node)
{
    if (!sorted_node_open(heap, w, node) || !is_head_sound(node->words) ||
        (is_root && node->count == 1))
        return dhi_sorted_corrupt(heap, "node");
    if (!are_empty(node->refs + node->count, node->counts) ||
        !are_empty(node->counts + node->count, node->separators) ||
        !are_empty(node->separators + node->count, node->words + DH_PAGE_WORDS))
        return dhi_sorted_corrupt(heap, "unused slots");
    int rc = check_counts(heap, node, count);
    return rc != 0 ? rc : check_separators(heap, node);
}

static int check_tree(sorted_check *check, dh_word w, unsigned depth, uint64_t count, bool is_root,
                      sorted_bounds bounds)
{
    sorted_node node;
    if (depth == 0)
        return check_leaf(check, w, count, is_root, bounds);
    int rc = check_node(check->heap, w, count, is_root, &node);
    for (unsigned i = 0; rc == 0 && i < node.count; i++) {
        sorted_bounds inner = {i == 0 ? bounds.low : node.separators[i],
                               i + 1 == node.count ? bounds.high : node.separators[i + 1]};
        rc = check_tree(check, node.refs[i], depth - 1, sorted_child_count(&node, i), false, inner);
    }
    return rc;
}

int dh_sorted_check(const dh_heap *heap, dh_word sorted)
{
    sorted_check check = {.heap = heap};
    sorted_view view;
    int rc = sorted_open(heap, sorted, &view);
    if (rc != 0)
        return rc;
    if (!dh_is_int(view.head[SORTED_LENGTH]) || !dh_is_int(view.head[SORTED_VERSION]))
        return dhi_sorted_corrupt(heap, "head");
    if (view.length == 0)
        return 0;
    return check_tree(&check, view.root, view.depth, view.length, true,
                      (sorted_bounds){DH_EMPTY, DH_EMPTY});
}

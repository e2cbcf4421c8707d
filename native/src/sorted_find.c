/* sorted_find.c -- from a key or a position to a place in a leaf.
 *
 * Contract: sorted_private.h. Reads only. In nodes the kinds of keys are ordered too, because a
 * separator may outlive the last key of its kind; that a key cannot be compared is decided against
 * the keys themselves, the two it would stand between.
 */
#include "sorted_private.h"

/* --- among words ------------------------------------------------------------------------------ */

/* How many of the words are below the int (is_right: or equal); false when not all that were looked
 * at are ints. No branch depends on a key: a wrong guess costs more than a comparison. */
static inline bool count_below_int(const dh_word *words, unsigned count, dh_word key, bool is_right,
                                   unsigned *below_out)
{
    const dh_word *base = words;
    dh_word all = 1;
    int64_t limit = (int64_t)key - (is_right ? 0 : 1);
    while (count > 1) {
        unsigned half = count / 2;
        dh_word probe = base[half - 1];
        all &= probe;
        base += (int64_t)probe <= limit ? half : 0;
        count -= half;
    }
    if (count == 1) {
        all &= *base;
        base += (int64_t)*base <= limit;
    }
    *below_out = (unsigned)(base - words);
    return (all & 1u) != 0;
}

/* The same for any key. */
static int count_below(const dh_heap *heap, const dh_order_probe *probe, const dh_word *words,
                       unsigned count, bool is_right, unsigned *below_out)
{
    unsigned low = 0, high = count;
    if (dh_is_int(probe->key->word) &&
        count_below_int(words, count, probe->key->word, is_right, below_out))
        return 0;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        dh_ordering ordering;
        int rc = dh_order_compare(heap, probe, dh_load(&words[middle]), &ordering);
        if (DH_UNLIKELY(rc != 0))
            return rc;
        if (ordering.sign > 0 || (is_right && ordering.sign == 0))
            low = middle + 1;
        else
            high = middle;
    }
    *below_out = low;
    return 0;
}

/* --- by key ----------------------------------------------------------------------------------- */

static int check_neighbour(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                           bool *is_equal_out)
{
    dh_ordering ordering;
    int rc = dh_order_compare(heap, probe, stored, &ordering);
    if (rc != 0)
        return rc;
    *is_equal_out = ordering.sign == 0;
    return ordering.is_mixed ? dh_order_refuse(heap, &ordering) : 0;
}

/* The last entry of the leaf before, or the first of the leaf behind; absent at the ends. */
static int neighbour_beyond(const dh_heap *heap, dh_word sorted, const sorted_path *path,
                            bool is_before, dh_word *key_out)
{
    sorted_path other;
    uint64_t at = dhi_sorted_position(path);
    if (is_before && at == 0)
        return DH_E_ABSENT;
    int rc = dhi_sorted_seek(heap, sorted, at - is_before, &other);
    if (rc == 0)
        *key_out = dh_load(&other.leaf.keys[other.slot]);
    return rc;
}

/* Can the key stand between the entries on both sides of the path? Two scalars in one tree are
 * comparable if any two are, so one neighbour says all; tuples differ in that from place to place,
 * and the neighbour in the next leaf counts. */
static int check_between(const dh_heap *heap, dh_word sorted, const dh_order_probe *probe,
                         sorted_path *path)
{
    bool is_equal = false;
    bool has_left = path->slot > 0, has_right = path->slot < path->leaf.count;
    dh_word word;
    int rc;
    if (has_right) {
        rc = check_neighbour(heap, probe, path->leaf.keys[path->slot], &is_equal);
        path->is_found = is_equal;
        if (rc != 0 || is_equal)
            return rc;
    }
    if (has_left && (!has_right || probe->key->tag == 't')) {
        rc = check_neighbour(heap, probe, path->leaf.keys[path->slot - 1], &is_equal);
        if (rc != 0)
            return rc;
    }
    if (probe->key->tag != 't' || (has_left && has_right))
        return 0;
    rc = neighbour_beyond(heap, sorted, path, !has_left, &word);
    if (rc == 0)
        rc = check_neighbour(heap, probe, word, &is_equal);
    return rc == DH_E_ABSENT ? 0 : rc;
}

int dhi_sorted_find(const dh_heap *heap, dh_word sorted, const dh_key *key, sorted_path *path)
{
    dh_order_probe probe;
    int rc = sorted_open(heap, sorted, &path->view);
    if (DH_UNLIKELY(rc != 0))
        return rc;
    dh_word at = path->view.root;
    path->slot = path->leaf.count = path->leaf.room = 0;
    path->leaf_word = DH_EMPTY;
    path->is_found = false;
    if (at == DH_EMPTY)
        return 0;
    dh_order_probe_init(&probe, key);
    for (unsigned level = 0; level < path->view.depth; level++) {
        sorted_node *node = &path->nodes[level];
        if (DH_UNLIKELY(!sorted_node_open(heap, at, node)))
            return dhi_sorted_corrupt(heap, "node");
        rc = count_below(heap, &probe, node->separators + 1, node->count - 1, true,
                         &path->children[level]);
        if (DH_UNLIKELY(rc != 0))
            return rc;
        at = dh_load(&node->refs[path->children[level]]);
    }
    if (DH_UNLIKELY(!sorted_leaf_open(heap, at, &path->leaf)))
        return dhi_sorted_corrupt(heap, "leaf");
    path->leaf_word = at;
    rc = count_below(heap, &probe, path->leaf.keys, path->leaf.count, false, &path->slot);
    if (DH_UNLIKELY(rc != 0))
        return rc;
    /* Ints in an order of ints: no more to ask. */
    if (DH_LIKELY(dh_is_int(key->word) && path->slot < path->leaf.count &&
                  dh_is_int(path->leaf.keys[path->slot]))) {
        path->is_found = path->leaf.keys[path->slot] == key->word;
        return 0;
    }
    return check_between(heap, sorted, &probe, path);
}

/* --- by position ------------------------------------------------------------------------------ */

int dhi_sorted_seek(const dh_heap *heap, dh_word sorted, uint64_t index, sorted_path *path)
{
    int rc = sorted_open(heap, sorted, &path->view);
    if (rc != 0)
        return rc;
    if (index >= path->view.length)
        return DH_E_ABSENT;
    dh_word at = path->view.root;
    for (unsigned level = 0; level < path->view.depth; level++) {
        sorted_node *node = &path->nodes[level];
        unsigned child = 0;
        if (!sorted_node_open(heap, at, node))
            return dhi_sorted_corrupt(heap, "node");
        for (uint64_t below; index >= (below = sorted_child_count(node, child)); index -= below)
            if (++child == node->count)
                return dhi_sorted_corrupt(heap, "counts");
        path->children[level] = child;
        at = dh_load(&node->refs[child]);
    }
    if (!sorted_leaf_open(heap, at, &path->leaf) || index >= path->leaf.count)
        return dhi_sorted_corrupt(heap, "leaf");
    path->leaf_word = at;
    path->slot = (unsigned)index;
    path->is_found = true;
    return 0;
}

uint64_t dhi_sorted_position(const sorted_path *path)
{
    uint64_t position = path->slot;
    for (unsigned level = 0; level < path->view.depth && path->leaf.room > 0; level++)
        for (unsigned child = 0; child < path->children[level]; child++)
            position += sorted_child_count(&path->nodes[level], child);
    return position;
}

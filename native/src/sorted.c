/* sorted.c -- SortedDict: its operations, each as one search and one step on the tree.
 *
 * Contract: sorted.h. What an insertion needs is allocated before its first store.
 */
#include "sorted_private.h"

int dh_sorted_new(dh_heap *heap, dh_word *sorted_out)
{
    dh_off off;
    int rc = dh_cell_new(heap, DH_HEAD_BYTES, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, off);
    head[SORTED_META] = dh_meta(dhi_serial_next(heap), 0);
    head[SORTED_LENGTH] = dh_int(0);
    head[SORTED_ROOT] = DH_EMPTY;
    head[SORTED_VERSION] = dh_int(0);
    *sorted_out = dh_ref(DH_T_SORTED, off);
    return 0;
}

int dh_sorted_length(const dh_heap *heap, dh_word sorted, uint64_t *length_out)
{
    sorted_view view;
    int rc = sorted_open(heap, sorted, &view);
    if (rc == 0)
        *length_out = view.length;
    return rc;
}

int dh_sorted_version_at(const dh_heap *heap, dh_word sorted, const dh_word **version_out)
{
    const dh_word *head = dh_deref(heap, sorted, DH_T_SORTED, DH_HEAD_BYTES);
    if (DH_UNLIKELY(head == NULL))
        return dhi_sorted_corrupt(heap, "head");
    *version_out = &head[SORTED_VERSION];
    return 0;
}

/* --- one entry -------------------------------------------------------------------------------- */

int dh_sorted_get(const dh_heap *heap, dh_word sorted, const dh_key *key, dh_word *value_out)
{
    sorted_path path;
    int rc = dhi_sorted_find(heap, sorted, key, &path);
    if (DH_UNLIKELY(rc != 0))
        return rc;
    if (!path.is_found)
        return DH_E_ABSENT;
    *value_out = dh_load(&path.leaf.values[path.slot]);
    return 0;
}

/* The word of an absent key. */
static int key_word_make(dh_heap *heap, const dh_key *key, dh_word *word_out)
{
    if (key->tag == 's')
        return dh_str_new(heap, key->data, key->size, word_out);
    if (key->tag == 'b')
        return dh_bytes_new(heap, key->data, key->size, word_out);
    return DH_E_ABSENT;
}

int dh_sorted_set(dh_heap *heap, dh_word sorted, const dh_key *key, dh_word key_word, dh_word value,
                  bool *was_new_out)
{
    sorted_path path;
    dh_word word = key_word;
    int rc = dhi_sorted_find(heap, sorted, key, &path);
    if (DH_UNLIKELY(rc != 0))
        return rc;
    if (path.is_found) {
        dh_word *slot = &path.leaf.values[path.slot], old = *slot;
        *was_new_out = false;
        dh_store(slot, value);
        if (old != value)
            dh_value_drop(heap, old);
        return 0;
    }
    if (word == DH_EMPTY && (rc = key_word_make(heap, key, &word)) != 0)
        return rc;
    rc = dhi_sorted_insert(heap, &path, word, value);
    if (rc != 0 && key_word == DH_EMPTY)
        dh_value_drop(heap, word);
    *was_new_out = rc == 0;
    return rc;
}

static int path_delete(dh_heap *heap, sorted_path *path, dh_word *value_out)
{
    dh_word key = path->leaf.keys[path->slot], value = path->leaf.values[path->slot];
    int rc = dhi_sorted_remove(heap, path);
    if (rc != 0)
        return rc;
    dh_value_drop(heap, key);
    if (value_out != NULL)
        *value_out = value;
    else
        dh_value_drop(heap, value);
    return 0;
}

int dh_sorted_delete(dh_heap *heap, dh_word sorted, const dh_key *key, dh_word *value_out)
{
    sorted_path path;
    int rc = dhi_sorted_find(heap, sorted, key, &path);
    if (rc == 0 && !path.is_found)
        rc = DH_E_ABSENT;
    return rc != 0 ? rc : path_delete(heap, &path, value_out);
}

int dh_sorted_delete_at(dh_heap *heap, dh_word sorted, uint64_t index)
{
    sorted_path path;
    int rc = dhi_sorted_seek(heap, sorted, index, &path);
    return rc != 0 ? rc : path_delete(heap, &path, NULL);
}

/* --- positions -------------------------------------------------------------------------------- */

int dh_sorted_rank(const dh_heap *heap, dh_word sorted, const dh_key *key, bool is_right,
                   uint64_t *rank_out, bool *is_found_out)
{
    sorted_path path;
    int rc = dhi_sorted_find(heap, sorted, key, &path);
    if (rc != 0)
        return rc;
    *is_found_out = path.is_found;
    *rank_out = dhi_sorted_position(&path) + (is_right && path.is_found);
    return 0;
}

int dh_sorted_span_at(const dh_heap *heap, dh_word sorted, uint64_t index, dh_sorted_span *span_out)
{
    sorted_path path;
    int rc = dhi_sorted_seek(heap, sorted, index, &path);
    if (rc != 0)
        return rc;
    uint64_t first = index - path.slot, rest = path.view.length - first;
    *span_out = (dh_sorted_span){path.leaf.keys, path.leaf.values, first,
                                 path.leaf.count < rest ? path.leaf.count : rest};
    return 0;
}

/* --- whole ------------------------------------------------------------------------------------ */

int dh_sorted_clear(dh_heap *heap, dh_word sorted)
{
    sorted_view view;
    int rc = sorted_open(heap, sorted, &view);
    if (rc != 0 || view.length == 0)
        return rc;
    dh_word root = view.root;
    unsigned depth = view.depth;
    sorted_set_root(&view, DH_EMPTY, 0);
    sorted_set_length(&view, 0);
    dhi_sorted_free_tree(heap, root, depth);
    return 0;
}

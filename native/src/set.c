/* set.c -- Set: the dict engine (dict_private.h) with entries of one word.
 *
 * Contract: set.h. From the ref of a set to its head, then one function of the engine. Nothing here
 * looks into an entry.
 */
#include "set.h"

#include "dict_private.h"

static inline dh_word *set_head(const dh_heap *heap, dh_word set)
{
    return dh_deref(heap, set, DH_T_SET, DH_HEAD_BYTES);
}

static int set_damaged(const dh_heap *heap) { return dict_corrupt(heap, "head"); }

/* --- reading ---------------------------------------------------------------------------------- */

int dh_set_length(const dh_heap *heap, dh_word set, uint64_t *length_out)
{
    const dh_word *head = set_head(heap, set);
    if (head == NULL)
        return set_damaged(heap);
    *length_out = dict_live(head);
    return 0;
}

int dh_set_version(const dh_heap *heap, dh_word set, uint64_t *version_out)
{
    const dh_word *head = set_head(heap, set);
    if (head == NULL)
        return set_damaged(heap);
    *version_out = dict_version(head);
    return 0;
}

int dh_set_find(const dh_heap *heap, dh_word set, const dh_key *key, dh_word *word_out)
{
    const dh_word *head = set_head(heap, set);
    return DH_UNLIKELY(head == NULL) ? set_damaged(heap) : dhi_keys_find(heap, head, key, word_out);
}

int dh_set_next(const dh_heap *heap, dh_word set, dh_dict_pos *pos, dh_word *word_out)
{
    dh_word ignored;
    const dh_word *head = set_head(heap, set);
    return head == NULL ? set_damaged(heap) : dhi_entries_next(heap, head, pos, word_out, &ignored);
}

int dh_set_prev(const dh_heap *heap, dh_word set, dh_dict_pos *pos, dh_word *word_out)
{
    dh_word ignored;
    const dh_word *head = set_head(heap, set);
    return head == NULL ? set_damaged(heap) : dhi_entries_prev(heap, head, pos, word_out, &ignored);
}

int dh_set_check(dh_heap *heap, dh_word set)
{
    return set_head(heap, set) == NULL ? set_damaged(heap) : dhi_dict_check(heap, set, true);
}

/* --- writing ---------------------------------------------------------------------------------- */

int dh_set_new(dh_heap *heap, dh_word *set_out) { return dhi_dict_new(heap, DH_T_SET, set_out); }

int dh_set_add(dh_heap *heap, dh_word set, const dh_key *key, dh_word key_word, bool *was_new_out)
{
    dh_word *head = set_head(heap, set);
    return DH_UNLIKELY(head == NULL) ? set_damaged(heap)
                                     : dhi_keys_add(heap, head, key, key_word, was_new_out);
}

int dh_set_remove(dh_heap *heap, dh_word set, const dh_key *key)
{
    dh_word *head = set_head(heap, set);
    return DH_UNLIKELY(head == NULL) ? set_damaged(heap) : dhi_keys_remove(heap, head, key);
}

int dh_set_clear(dh_heap *heap, dh_word set)
{
    dh_word *head = set_head(heap, set);
    if (head == NULL)
        return set_damaged(heap);
    dhi_entries_clear(heap, head);
    return 0;
}

int dh_set_reserve(dh_heap *heap, dh_word set, uint64_t count)
{
    dh_word *head = set_head(heap, set);
    return head == NULL ? set_damaged(heap) : dhi_entries_reserve(heap, head, count);
}

/* set_algebra.c -- operations on two sets of one heap, element by element, without leaving the core.
 *
 * Contract: set.h. First everything that can fail (look up, copy, add, which is undone), then what
 * cannot: removing. Which elements go is collected before the first one goes, because a place in a
 * set's order is good only until it changes.
 */
#include "set.h"

#include "span.h"

#include <stdlib.h>

/* --- one element ------------------------------------------------------------------------------ */

/* A stored word as key; release with free(buffer). */
typedef struct {
    dh_key key;
    uint8_t *buffer;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
} element_key;

static int element_key_init(const dh_heap *heap, dh_word word, element_key *element)
{
    int rc = dh_key_from_word(heap, word, element->scratch, &element->key, &element->buffer);
    if (rc == DH_E_UNHASHABLE)
        return dhi_fail(heap, DH_E_CORRUPT, "a set's element %#llx cannot be one",
                        (unsigned long long)word);
    return rc;
}

int dh_set_find_word(const dh_heap *heap, dh_word set, dh_word element, dh_word *word_out)
{
    element_key key;
    int rc = element_key_init(heap, element, &key);
    if (rc != 0)
        return rc;
    rc = dh_set_find(heap, set, &key.key, word_out);
    free(key.buffer);
    return rc;
}

int dh_set_remove_word(dh_heap *heap, dh_word set, dh_word element)
{
    element_key key;
    int rc = element_key_init(heap, element, &key);
    if (rc != 0)
        return rc;
    rc = dh_set_remove(heap, set, &key.key);
    free(key.buffer);
    return rc;
}

/* 1, 0 or a negative code. */
static int has_word(const dh_heap *heap, dh_word set, dh_word element)
{
    dh_word ignored;
    int rc = dh_set_find_word(heap, set, element, &ignored);
    if (rc == ENOMEM)
        return dhi_fail(heap, DH_E_LIMIT, "no memory is left to compare elements of sets");
    return rc == 0 ? 1 : rc == DH_E_ABSENT ? 0 : rc;
}

/* --- questions -------------------------------------------------------------------------------- */

/* Walk `walked` until an element's presence in set is not `expected`. 1: none, 0: there is one. */
static int all_are(const dh_heap *heap, dh_word walked, dh_word set, int expected)
{
    dh_dict_pos pos = {0, 0};
    dh_word word;
    int rc, present = expected;
    while (present == expected && (rc = dh_set_next(heap, walked, &pos, &word)) != 0)
        present = rc < 0 ? rc : has_word(heap, set, word);
    return present < 0 ? present : present == expected;
}

static int is_longer(const dh_heap *heap, dh_word set, dh_word other, bool *is_longer_out)
{
    uint64_t length, other_length;
    int rc = dh_set_length(heap, set, &length);
    if (rc == 0)
        rc = dh_set_length(heap, other, &other_length);
    if (rc == 0)
        *is_longer_out = length > other_length;
    return rc;
}

int dh_set_has_any(const dh_heap *heap, dh_word set, dh_word other)
{
    bool walk_other;
    int rc = is_longer(heap, set, other, &walk_other);
    if (rc != 0)
        return rc;
    rc = walk_other ? all_are(heap, other, set, 0) : all_are(heap, set, other, 0);
    return rc < 0 ? rc : !rc;
}

int dh_set_has_all(const dh_heap *heap, dh_word set, dh_word other)
{
    bool is_impossible;
    int rc = is_longer(heap, other, set, &is_impossible);
    if (rc != 0 || is_impossible)
        return rc;
    return all_are(heap, other, set, 1);
}

/* --- adding ----------------------------------------------------------------------------------- */

void dh_set_undo_adds(dh_heap *heap, dh_word set, uint64_t count)
{
    for (; count > 0; count--) {
        dh_dict_pos pos = {0, 0};
        dh_word newest;
        if (dh_set_prev(heap, set, &pos, &newest) != 1 ||
            dh_set_remove_word(heap, set, newest) != 0)
            return;
    }
}

/* Copy one element in unless it is there. */
static int merge_word(dh_heap *heap, dh_word set, dh_word element, bool *was_new_out)
{
    element_key key;
    dh_word copy;
    *was_new_out = false;
    int rc = element_key_init(heap, element, &key);
    if (rc != 0)
        return rc;
    rc = dh_set_add(heap, set, &key.key, dh_is_ref(element) ? DH_EMPTY : element, was_new_out);
    if (rc == DH_E_ABSENT) {
        rc = dh_value_clone(heap, element, &copy);
        if (rc == 0) {
            rc = dh_set_add(heap, set, &key.key, copy, was_new_out);
            if (rc != 0)
                dh_value_drop(heap, copy);
        }
    }
    free(key.buffer);
    return rc;
}

int dh_set_merge(dh_heap *heap, dh_word set, dh_word other)
{
    dh_dict_pos pos = {0, 0};
    dh_word element;
    uint64_t added_count = 0;
    int rc = 0, step;
    if (set == other)
        return 0;
    while (rc == 0 && (step = dh_set_next(heap, other, &pos, &element)) != 0) {
        bool was_new = false;
        rc = step < 0 ? step : merge_word(heap, set, element, &was_new);
        added_count += was_new;
    }
    if (rc != 0)
        dh_set_undo_adds(heap, set, added_count);
    return rc;
}

/* --- removing --------------------------------------------------------------------------------- */

typedef struct {
    dh_word *words;
    uint64_t count;
} word_list;

/* The elements of set that are in other, or that are not. */
static int list_elements(const dh_heap *heap, dh_word set, dh_word other, bool wanted,
                         word_list *list)
{
    dh_dict_pos pos = {0, 0};
    uint64_t length;
    dh_word element;
    int step, rc = dh_set_length(heap, set, &length);
    list->count = 0;
    list->words = rc == 0 ? malloc((length + 1) * sizeof *list->words) : NULL;
    if (list->words == NULL)
        return rc != 0 ? rc : ENOMEM;
    while (rc == 0 && (step = dh_set_next(heap, set, &pos, &element)) != 0) {
        int present = step < 0 ? step : has_word(heap, other, element);
        rc = present < 0 ? present : 0;
        if (rc == 0 && list->count == length)
            rc = dhi_fail(heap, DH_E_CORRUPT, "a set's count is damaged");
        if (rc == 0 && (present != 0) == wanted)
            list->words[list->count++] = element;
    }
    if (rc != 0)
        free(list->words);
    return rc;
}

/* A word is that of the set's own cell: its key is made before the cell goes. */
static int remove_list(dh_heap *heap, dh_word set, word_list *list)
{
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < list->count; i++)
        rc = dh_set_remove_word(heap, set, list->words[i]);
    free(list->words);
    return rc;
}

/* Few elements of a large set: no need to walk it. */
static int remove_each(dh_heap *heap, dh_word set, dh_word other)
{
    dh_dict_pos pos = {0, 0};
    dh_word element;
    int rc = 0, step;
    while (rc == 0 && (step = dh_set_next(heap, other, &pos, &element)) != 0) {
        rc = step < 0 ? step : dh_set_remove_word(heap, set, element);
        if (rc == DH_E_ABSENT)
            rc = 0;
    }
    return rc;
}

int dh_set_subtract(dh_heap *heap, dh_word set, dh_word other, bool wanted)
{
    word_list list;
    bool walk_other;
    if (set == other)
        return wanted ? dh_set_clear(heap, set) : 0;
    int rc = is_longer(heap, set, other, &walk_other);
    if (rc == 0 && wanted && walk_other)
        return remove_each(heap, set, other);
    if (rc == 0)
        rc = list_elements(heap, set, other, wanted, &list);
    return rc != 0 ? rc : remove_list(heap, set, &list);
}

int dh_set_toggle(dh_heap *heap, dh_word set, dh_word other)
{
    word_list list;
    if (set == other)
        return dh_set_clear(heap, set);
    int rc = list_elements(heap, set, other, true, &list);
    if (rc != 0)
        return rc;
    rc = dh_set_merge(heap, set, other);
    if (rc == 0)
        return remove_list(heap, set, &list);
    free(list.words);
    return rc;
}

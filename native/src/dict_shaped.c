/* dict_shaped.c -- dicts that have a shape: values in a cell of their own, keys in the shape.
 *
 * Contract: dict_shape.h. Taking an entry out leaves DELETED in its place: that needs no memory, and
 * the keys are not the dict's to change. As long as such places are at the end only, the dict grows
 * along its shape again; otherwise the next new key makes it a dict with keys of its own. Never
 * frees a key.
 */
#include "dict_private.h"

#include <stdlib.h>

#define SHAPED_SMALL_FIRST 12u

typedef struct {
    const dh_word *shape;
    dh_word *values;
    uint64_t used;
    size_t room; /* words of the cell of values */
} shaped;

/* Both cells, with room for what the head says; false when damaged. */
static bool shaped_at(const dh_heap *heap, const dh_word *head, shaped *out)
{
    size_t bytes = 0;
    out->used = dict_used(head);
    out->shape = dhi_shape_at(heap, head[DICT_INDEX], out->used);
    out->values = dhi_page_span(heap, head[DICT_ENTRIES], DH_T_VALUES, &bytes);
    out->room = bytes / 8;
    return out->shape != NULL && out->values != NULL && out->used <= out->room;
}

static int values_new(dh_heap *heap, unsigned count, dh_off *off_out)
{
    return dh_cell_new(heap, count * 8u, DH_REFS, off_out);
}

static void shaped_set(dh_word *head, dh_word shape, dh_word values, uint64_t count)
{
    dh_store(&head[DICT_ENTRIES], values);
    dh_store(&head[DICT_INDEX], shape);
    dict_set_counts(head, count, count);
    dict_set_form(head, DICT_SHAPED);
}

/* --- whole dicts ------------------------------------------------------------------------------ */

dh_word dh_dict_shape(const dh_heap *heap, dh_word dict)
{
    const dh_word *head = dh_deref(heap, dict, DH_T_DICT, DH_HEAD_BYTES);
    bool is_whole =
        head != NULL && dict_form(head) == DICT_SHAPED && dict_live(head) == dict_used(head);
    const dh_word *shape = is_whole ? dhi_shape_at(heap, head[DICT_INDEX], dict_used(head)) : NULL;
    return shape != NULL && shape_count(shape) == dict_used(head) ? head[DICT_INDEX] : DH_EMPTY;
}

int dh_dict_new_shaped(dh_heap *heap, dh_word shape_word, dh_word *dict_out, dh_word **values_out)
{
    dh_off off;
    const dh_word *shape = dhi_shape_at(heap, shape_word, 1);
    if (shape == NULL || dhi_shape_at(heap, shape_word, shape_count(shape)) == NULL)
        return dict_corrupt(heap, "shape");
    int rc = dh_dict_new(heap, dict_out);
    if (rc != 0)
        return rc;
    rc = values_new(heap, shape_count(shape), &off);
    if (rc != 0) {
        dh_cell_free(heap, dh_ref_off(*dict_out));
        return rc;
    }
    shaped_set(dh_at(heap, dh_ref_off(*dict_out)), shape_word, dh_ref(DH_T_VALUES, off),
               shape_count(shape));
    *values_out = dh_at(heap, off);
    return 0;
}

int dh_dict_fill_shaped(dh_heap *heap, dh_word dict, dh_word shape_word, const dh_word *words,
                        unsigned count)
{
    dh_off off;
    dh_word *head = dh_deref(heap, dict, DH_T_DICT, DH_HEAD_BYTES);
    const dh_word *shape = dhi_shape_at(heap, shape_word, count);
    if (head == NULL || shape == NULL || count == 0 || shape_count(shape) != count)
        return dict_corrupt(heap, "shape");
    DH_ASSERT(dict_live(head) == 0);
    int rc = values_new(heap, count, &off);
    if (rc != 0)
        return rc;
    memcpy(dh_at(heap, off), words, count * sizeof *words);
    dhi_entries_clear(heap, head); /* an empty dict may have cells that were reserved */
    shaped_set(head, shape_word, dh_ref(DH_T_VALUES, off), count);
    return 0;
}

/* --- one more key ----------------------------------------------------------------------------- */

/* The first key of a dict that has nothing. */
static int shaped_begin(dh_heap *heap, dh_word *head, const dh_key *key, dh_word value,
                        bool *done_out)
{
    dh_off off;
    dh_word shape = dh_shape_of_keys(heap, key, 1);
    if (shape == DH_EMPTY)
        return 0;
    int rc = values_new(heap, 1, &off);
    if (rc != 0)
        return rc;
    *(dh_word *)dh_at(heap, off) = value;
    shaped_set(head, shape, dh_ref(DH_T_VALUES, off), 1);
    *done_out = true;
    return 0;
}

/* Entries were taken out: the key has its old place back if that is the end now. The counts have
 * been these before, so the epoch must change. */
static int shaped_refill(dh_heap *heap, dh_word *head, const shaped *at, const dh_key *key,
                         dh_word value, bool *done_out)
{
    uint64_t live = dict_live(head);
    for (uint64_t i = 0; i < live; i++)
        if (at->values[i] == DH_DELETED)
            return 0;
    int is_next = dh_key_matches(heap, key, at->shape[SHAPE_KEYS + live]);
    if (is_next != 1)
        return is_next; /* 0, or a code; no errno */
    dh_store(&at->values[live], value);
    dict_set_counts(head, at->used, live + 1);
    dict_new_epoch(head);
    *done_out = true;
    return 0;
}

/* The dict takes the shape that has this key behind its own. */
static int shaped_extend(dh_heap *heap, dh_word *head, const shaped *at, const dh_key *key,
                         dh_word value, bool *done_out)
{
    uint64_t sequence = (uint64_t)dh_int_value(at->shape[SHAPE_SEQUENCE]);
    dhi_key_sequence wanted = {dhi_sequence_next(sequence, key->hash),
                               dh_meta_serial(at->shape[SHAPE_META]),
                               at->shape + SHAPE_KEYS,
                               (unsigned)at->used,
                               key,
                               1};
    dh_word shape = dhi_shape_get(heap, &wanted), values = head[DICT_ENTRIES];
    dh_word *words = at->values;
    if (shape == DH_EMPTY)
        return 0;
    if (at->used == at->room) {
        dh_off off;
        int rc = values_new(heap, (unsigned)at->used + 1u, &off);
        if (rc != 0)
            return rc;
        words = dh_at(heap, off);
        memcpy(words, at->values, at->used * 8u);
        values = dh_ref(DH_T_VALUES, off);
    }
    dh_store(&words[at->used], value);
    dh_store(&head[DICT_INDEX], shape);
    if (values != head[DICT_ENTRIES]) {
        dh_off old = dh_ref_off(head[DICT_ENTRIES]);
        dh_store(&head[DICT_ENTRIES], values);
        dh_cell_free(heap, old);
    }
    dict_set_counts(head, at->used + 1, at->used + 1);
    *done_out = true;
    return 0;
}

int dhi_shaped_insert(dh_heap *heap, dh_word *head, const dh_key *key, dh_word key_word,
                      dh_word value, bool *done_out)
{
    shaped at;
    int rc;
    *done_out = false;
    /* A key may equal a str and be stored as something else: what it is must come back. */
    bool is_text =
        key_word == DH_EMPTY || dh_is_short(key_word) || dh_is_ref_to(key_word, DH_T_STR);
    if (key->tag != 's' || !is_text)
        return 0;
    if (dict_form(head) == DICT_TINY && dict_used(head) == 0)
        rc = shaped_begin(heap, head, key, value, done_out);
    else if (dict_form(head) != DICT_SHAPED)
        return 0;
    else if (!shaped_at(heap, head, &at) || shape_count(at.shape) != at.used ||
             dict_live(head) > at.used)
        return dict_corrupt(heap, "shape");
    else if (dict_live(head) < at.used)
        rc = shaped_refill(heap, head, &at, key, value, done_out);
    else
        rc = shaped_extend(heap, head, &at, key, value, done_out);
    if (*done_out)
        dh_value_drop(heap, key_word); /* the shape has one */
    return rc;
}

/* --- keys of its own -------------------------------------------------------------------------- */

/* What the dict becomes, before anything is stored in it. */
typedef struct {
    dh_word entries[2 * (SHAPE_KEYS_MAX + 1)];
    uint64_t hashes[SHAPE_KEYS_MAX];
    unsigned count;
} unshared;

static void unshared_drop(dh_heap *heap, const unshared *own)
{
    for (unsigned i = 0; i < own->count; i++)
        dh_value_drop(heap, own->entries[2 * i]);
}

/* Copies of the keys of all live entries, and the values as they are. */
static int unshared_init(dh_heap *heap, const shaped *at, unshared *own)
{
    own->count = 0;
    for (unsigned i = 0; i < at->used; i++) {
        uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
        dh_word word = at->shape[SHAPE_KEYS + i];
        dh_key key = {.hash = 0};
        if (at->values[i] == DH_DELETED)
            continue;
        int rc = dh_key_from_word(heap, word, scratch, &key, &buffer);
        free(buffer);
        if (rc == 0)
            rc = dh_value_clone(heap, word, &own->entries[2 * own->count]);
        if (rc != 0) {
            unshared_drop(heap, own);
            return rc == DH_E_UNHASHABLE ? dict_corrupt(heap, "shape") : rc;
        }
        own->entries[2 * own->count + 1] = at->values[i];
        own->hashes[own->count++] = key.hash;
    }
    return 0;
}

/* The word for head[DICT_INDEX]. */
static int unshared_index(dh_heap *heap, const unshared *own, bool is_tiny, dh_word *index_out)
{
    if (is_tiny) {
        *index_out = dh_int(0);
        for (unsigned i = 0; i < own->count; i++)
            *index_out = dict_fingerprint_set(*index_out, i, own->hashes[i]);
        return 0;
    }
    int rc = dhi_index_new(heap, dhi_index_groups_for(own->count + 1), index_out);
    for (unsigned i = 0; i < own->count && rc == 0; i++) {
        dict_group *group = NULL;
        unsigned slot = 0;
        uint32_t hash = (uint32_t)(own->hashes[i] >> 32);
        rc = dhi_index_reserve(heap, index_out, hash, &group, &slot);
        if (rc != 0) {
            dhi_index_free(heap, *index_out);
            break;
        }
        group->hash[slot] = hash;
        group->entry[slot] = i + 1;
    }
    return rc;
}

int dhi_shaped_unshare(dh_heap *heap, dh_word *head)
{
    shaped at;
    unshared own;
    dh_word index = DH_EMPTY;
    dh_off off;
    if (!shaped_at(heap, head, &at))
        return dict_corrupt(heap, "shape");
    int rc = unshared_init(heap, &at, &own);
    if (rc != 0)
        return rc;
    bool is_tiny = own.count < DICT_TINY_ENTRIES;
    unsigned room = is_tiny ? (own.count + 2) & ~1u : own.count + SHAPED_SMALL_FIRST;
    rc = unshared_index(heap, &own, is_tiny, &index);
    if (rc == 0) {
        rc = dh_cell_new(heap, room * dict_entry_bytes(DICT_WIDTH), DH_REFS, &off);
        if (rc != 0 && !is_tiny)
            dhi_index_free(heap, index);
    }
    if (rc != 0) {
        unshared_drop(heap, &own);
        return rc;
    }
    memcpy(dh_at(heap, off), own.entries, own.count * dict_entry_bytes(DICT_WIDTH));
    dh_off values = dh_ref_off(head[DICT_ENTRIES]);
    dh_store(&head[DICT_ENTRIES], dh_ref(DH_T_ENTRIES, off));
    dh_store(&head[DICT_INDEX], index);
    dict_set_counts(head, own.count, own.count);
    dict_set_form(head, is_tiny ? DICT_TINY : DICT_SMALL);
    dh_cell_free(heap, values);
    return 0;
}

/* --- entries ---------------------------------------------------------------------------------- */

int dhi_shaped_remove(const dh_heap *heap, dh_word *head, uint32_t number)
{
    shaped at;
    uint64_t live = dict_live(head);
    if (!shaped_at(heap, head, &at) || number >= at.used || live == 0)
        return dict_corrupt(heap, "shape");
    dh_store(&at.values[number], DH_DELETED);
    dict_set_counts(head, at.used, live - 1);
    return 0;
}

static int shaped_step(const shaped *at, uint64_t slot, uint64_t next, dh_dict_pos *pos,
                       dh_word *key_out, dh_word *value_out)
{
    pos->chunk = 1;
    pos->slot = next;
    *key_out = at->shape[SHAPE_KEYS + slot];
    *value_out = at->values[slot];
    return 1;
}

int dhi_shaped_next(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                    dh_word *value_out)
{
    shaped at;
    if (!shaped_at(heap, head, &at))
        return dict_corrupt(heap, "shape");
    for (uint64_t slot = pos->chunk == 0 ? 0 : pos->slot; slot < at.used; slot++)
        if (at.values[slot] != DH_DELETED)
            return shaped_step(&at, slot, slot + 1, pos, key_out, value_out);
    pos->chunk = 1;
    pos->slot = at.used;
    return 0;
}

int dhi_shaped_prev(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                    dh_word *value_out)
{
    shaped at;
    if (!shaped_at(heap, head, &at))
        return dict_corrupt(heap, "shape");
    uint64_t slot = pos->chunk == 0 || pos->slot > at.used ? at.used : pos->slot;
    while (slot-- > 0)
        if (at.values[slot] != DH_DELETED)
            return shaped_step(&at, slot, slot, pos, key_out, value_out);
    pos->chunk = 1;
    pos->slot = 0;
    return 0;
}

int dhi_shaped_check(const dh_heap *heap, const dh_word *head)
{
    shaped at;
    uint64_t live = 0;
    if (!shaped_at(heap, head, &at) || shape_count(at.shape) != at.used)
        return dict_corrupt(heap, "shape");
    for (uint64_t i = 0; i < at.room; i++) {
        bool is_live = i < at.used && at.values[i] != DH_DELETED;
        live += is_live;
        if ((is_live && !dh_is_value(at.values[i])) || (i >= at.used && at.values[i] != DH_EMPTY))
            return dict_corrupt(heap, "values");
    }
    if (live == 0 || live != dict_live(head))
        return dict_corrupt(heap, "count");
    return dhi_shape_check(heap, head[DICT_INDEX]);
}

/* dict.c -- Dict, and the keys of Set: find, set, delete, in terms of entries and index.
 *
 * Contract: dict.h, and dict_private.h for set.c. Layout: dict_private.h. Order of a store: room in the entries, then a slot in
 * the index (both may fail and leave the dict as it was), then the stores, which cannot. Lookups
 * of small dicts are what users feel, so the way from the head to the key is inline and straight.
 */
#include "dict_private.h"

/* A lookup is one piece of code in each of get, set and delete; as a function with a result in
 * memory it costs 2 ns of 10. */
#define DICT_INLINE static inline __attribute__((always_inline))

/* Where a key was found; or, value NULL, the slot at which the search for it ended. */
typedef struct {
    dh_word *value; /* the key stands before it, but for a shaped dict; in a set it is the key */
    uint32_t number;
    dict_bucket bucket; /* not of a tiny dict                        */
    dict_group *group;  /* NULL: there is no empty slot on the way   */
    unsigned slot;
    unsigned probe; /* groups from home                          */
} dict_found;
#define DICT_NOT_FOUND {NULL, 0, {NULL, 0}, NULL, 0, 0}

/* --- find ------------------------------------------------------------------------------------- */

/* 1: equal, 0: not, negative: damaged. */
DICT_INLINE int dict_key_is(const dh_heap *heap, const dh_key *key, dh_word stored)
{
    dh_bytes_view view;
    if (DH_LIKELY(stored == key->word))
        return stored != DH_EMPTY;
    if (key->tag == 's' && key->size > DH_SHORT_BYTES_MAX &&
        dhi_text_view(heap, stored, DH_T_STR, &view))
        return view.size == key->size && dhi_text_same(view.data, key->data, view.size);
    return dh_key_matches(heap, key, stored);
}

DICT_INLINE int dict_find_tiny(const dh_heap *heap, const dh_word *head, const dh_key *key,
                               unsigned width, dict_found *found)
{
    size_t bytes;
    uint64_t used = dict_used(head);
    unsigned hits = dict_match_tiny(head[DICT_INDEX], key->hash);
    if (used > DICT_TINY_ENTRIES)
        return dict_corrupt(heap, "count");
    hits &= (1u << used) - 1u;
    if (hits == 0)
        return DH_E_ABSENT;
    dh_word *entries = dhi_span(heap, head[DICT_ENTRIES], DH_T_ENTRIES, &bytes);
    if (DH_UNLIKELY(entries == NULL || used > dict_entries_in(bytes, width)))
        return dict_corrupt(heap, "entries");
    for (; hits != 0; hits &= hits - 1u) {
        unsigned number = (unsigned)__builtin_ctz(hits);
        int is_match = dict_key_is(heap, key, entries[width * number]);
        if (DH_UNLIKELY(is_match < 0))
            return is_match;
        if (DH_LIKELY(is_match != 0)) {
            found->value = entries + width * number + width - 1;
            found->number = number;
            return 0;
        }
    }
    return DH_E_ABSENT;
}

/* Bit i: key i of the shape may be that of hash. */
DICT_INLINE uint32_t dict_match_shape(const dh_word *shape, uint64_t used, uint64_t hash)
{
    uint32_t hits = dict_match_tiny(shape[SHAPE_PRINTS], hash);
    for (unsigned i = 1; i < SHAPE_PRINT_WORDS && i * 8u < used; i++)
        hits |= (uint32_t)dict_match_tiny(shape[SHAPE_PRINTS + i], hash) << 8 * i;
    return hits & (uint32_t)(((uint64_t)1 << used) - 1u);
}

DICT_INLINE int dict_find_shaped(const dh_heap *heap, const dh_word *head, const dh_key *key,
                                 dict_found *found)
{
    size_t bytes;
    uint64_t used = dict_used(head);
    const dh_word *shape = dhi_shape_at(heap, head[DICT_INDEX], used);
    if (DH_UNLIKELY(shape == NULL))
        return dict_corrupt(heap, "shape");
    uint32_t hits = dict_match_shape(shape, used, key->hash);
    for (; hits != 0; hits &= hits - 1u) {
        unsigned number = (unsigned)__builtin_ctz(hits);
        int is_match = dict_key_is(heap, key, shape[SHAPE_KEYS + number]);
        if (DH_UNLIKELY(is_match < 0))
            return is_match;
        if (DH_UNLIKELY(is_match == 0))
            continue;
        dh_word *values = dhi_page_span(heap, head[DICT_ENTRIES], DH_T_VALUES, &bytes);
        if (DH_UNLIKELY(values == NULL || used > bytes / 8))
            return dict_corrupt(heap, "values");
        if (DH_UNLIKELY(values[number] == DH_DELETED))
            return DH_E_ABSENT;
        found->value = values + number;
        found->number = number;
        return 0;
    }
    return DH_E_ABSENT;
}

/* Compare the candidates of one group; DH_E_ABSENT when none of them is the key. */
DICT_INLINE int dict_find_group(const dh_heap *heap, const dh_word *head, const dh_key *key,
                                dict_group *group, unsigned form, unsigned width, dict_found *found)
{
    unsigned hits = dict_match8(group->hash, dict_hash(key));
    for (; hits != 0; hits &= hits - 1u) {
        unsigned slot = (unsigned)__builtin_ctz(hits);
        uint32_t entry_no = group->entry[slot];
        if (entry_no == 0 || entry_no == DICT_SLOT_DELETED)
            continue;
        dh_word *entry = form == DICT_BIG ? dict_big_entry(heap, head, entry_no - 1u, width)
                                          : dict_small_entry_hot(heap, head, entry_no - 1u, width);
        if (DH_UNLIKELY(entry == NULL))
            return dict_corrupt(heap, "index");
        int is_match = dict_key_is(heap, key, entry[0]);
        if (DH_UNLIKELY(is_match < 0))
            return is_match;
        if (DH_LIKELY(is_match != 0)) {
            found->value = entry + width - 1;
            found->number = entry_no - 1u;
            found->group = group;
            found->slot = slot;
            return 0;
        }
    }
    return DH_E_ABSENT;
}

DICT_INLINE int dict_find_indexed(const dh_heap *heap, const dh_word *head, const dh_key *key,
                                  unsigned form, unsigned width, dict_found *found)
{
    uint32_t hash = dict_hash(key);
    dict_bucket bucket = dict_bucket_find(heap, head[DICT_INDEX], hash);
    if (DH_UNLIKELY(bucket.groups_count == 0))
        return dict_corrupt(heap, "index");
    unsigned home = hash & (bucket.groups_count - 1u), probes = dict_probes(&bucket);
    for (unsigned i = 0; i < probes; i++) {
        dict_group *group = &bucket.groups[home ^ i];
        int rc = dict_find_group(heap, head, key, group, form, width, found);
        if (rc != DH_E_ABSENT) {
            found->bucket = bucket;
            return rc;
        }
        unsigned empty = dict_match8(group->entry, 0);
        if (empty != 0) {
            found->bucket = bucket;
            found->group = group;
            found->slot = (unsigned)__builtin_ctz(empty);
            found->probe = i;
            break;
        }
    }
    return DH_E_ABSENT;
}

DICT_INLINE int dict_find(const dh_heap *heap, const dh_word *head, const dh_key *key,
                          unsigned width, dict_found *found)
{
    unsigned form = dict_form(head);
    if (form == DICT_TINY)
        return dict_find_tiny(heap, head, key, width, found);
    if (form == DICT_SHAPED)
        return width == DICT_WIDTH ? dict_find_shaped(heap, head, key, found)
                                   : dict_corrupt(heap, "form");
    return dict_find_indexed(heap, head, key, form, width, found);
}

static inline dh_word *dict_head(const dh_heap *heap, dh_word dict)
{
    return dh_deref(heap, dict, DH_T_DICT, DH_HEAD_BYTES);
}

/* --- reading ---------------------------------------------------------------------------------- */

int dh_dict_get(const dh_heap *heap, dh_word dict, const dh_key *key, dh_word *value_out)
{
    dict_found found = DICT_NOT_FOUND;
    const dh_word *head = dict_head(heap, dict);
    if (DH_UNLIKELY(head == NULL))
        return dict_corrupt(heap, "head");
    int rc = dict_find(heap, head, key, DICT_WIDTH, &found);
    if (rc == 0)
        *value_out = dh_load(found.value);
    return rc;
}

int dh_dict_length(const dh_heap *heap, dh_word dict, uint64_t *length_out)
{
    const dh_word *head = dict_head(heap, dict);
    if (head == NULL)
        return dict_corrupt(heap, "head");
    *length_out = dict_live(head);
    return 0;
}

int dh_dict_version(const dh_heap *heap, dh_word dict, uint64_t *version_out)
{
    const dh_word *head = dict_head(heap, dict);
    if (head == NULL)
        return dict_corrupt(heap, "head");
    *version_out = dict_version(head);
    return 0;
}

int dh_dict_next(const dh_heap *heap, dh_word dict, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out)
{
    const dh_word *head = dict_head(heap, dict);
    return head == NULL ? dict_corrupt(heap, "head")
                        : dhi_entries_next(heap, head, pos, key_out, value_out);
}

int dh_dict_step(const dh_heap *heap, dh_word dict, uint64_t version, dh_dict_pos *pos,
                 dh_word *key_out, dh_word *value_out)
{
    const dh_word *head = dict_head(heap, dict);
    if (DH_UNLIKELY(head == NULL))
        return dict_corrupt(heap, "head");
    return dict_version(head) != version ? 2
                                         : dhi_entries_next(heap, head, pos, key_out, value_out);
}

int dh_dict_step_back(const dh_heap *heap, dh_word dict, uint64_t version, dh_dict_pos *pos,
                      dh_word *key_out, dh_word *value_out)
{
    const dh_word *head = dict_head(heap, dict);
    if (DH_UNLIKELY(head == NULL))
        return dict_corrupt(heap, "head");
    return dict_version(head) != version ? 2
                                         : dhi_entries_prev(heap, head, pos, key_out, value_out);
}

int dh_dict_prev(const dh_heap *heap, dh_word dict, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out)
{
    const dh_word *head = dict_head(heap, dict);
    return head == NULL ? dict_corrupt(heap, "head")
                        : dhi_entries_prev(heap, head, pos, key_out, value_out);
}

/* --- writing ---------------------------------------------------------------------------------- */

static int dict_new(dh_heap *heap, dh_type type, size_t bytes, dh_word *dict_out)
{
    dh_off off;
    int rc = dh_cell_new(heap, bytes, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, off);
    head[DICT_META] =
        dh_meta(dhi_serial_next(heap), DICT_TINY | (type == DH_T_SET ? DICT_KEYS_ONLY : 0u));
    head[DICT_COUNTS] = dh_int(0);
    head[DICT_ENTRIES] = DH_EMPTY;
    head[DICT_INDEX] = dh_int(0);
    *dict_out = dh_ref(type, off);
    return 0;
}

int dh_dict_new(dh_heap *heap, dh_word *dict_out)
{
    return dict_new(heap, DH_T_DICT, DH_HEAD_BYTES, dict_out);
}

int dhi_dict_new(dh_heap *heap, dh_type type, dh_word *dict_out)
{
    return dict_new(heap, type, DH_HEAD_BYTES, dict_out);
}

int dh_dict_new_root(dh_heap *heap, dh_word *dict_out)
{
    return dict_new(heap, DH_T_DICT, DH_ROOT_BYTES, dict_out);
}

/* The slot where the search ended can be used unless making room moved the index or the entries,
 * or the bucket should rather grow. */
static bool dict_slot_is_good(const dict_found *found, const dh_word *head, dh_word index,
                              uint64_t used)
{
    return found->group != NULL && head[DICT_INDEX] == index && dict_used(head) == used &&
           (found->probe < DICT_PROBES_SMALL || found->bucket.groups_count == DICT_BUCKET_GROUPS);
}

/* A dict that has a shape, or nothing yet. *done_out: the key led to another shape; else the dict has
 * keys of its own now and takes this one like others. */
static int dict_insert_shaped(dh_heap *heap, dh_word *head, const dh_key *key, dh_word key_word,
                              dh_word value, bool *done_out)
{
    int rc = dhi_shaped_insert(heap, head, key, key_word, value, done_out);
    if (rc == 0 && !*done_out && dict_form(head) == DICT_SHAPED)
        rc = dhi_shaped_unshare(heap, head);
    return rc;
}

/* Append to a dict that has keys of its own. */
static int dict_append(dh_heap *heap, dh_word *head, const dh_key *key, dict_found *found,
                       dh_word key_word, dh_word value)
{
    dh_word index = head[DICT_INDEX];
    uint64_t used = dict_used(head);
    uint32_t number;
    int rc = dhi_entries_room(heap, head);
    if (rc != 0)
        return rc;
    bool is_tiny = dict_form(head) == DICT_TINY;
    if (!is_tiny && !dict_slot_is_good(found, head, index, used)) {
        rc =
            dhi_index_reserve(heap, &head[DICT_INDEX], dict_hash(key), &found->group, &found->slot);
        if (rc != 0)
            return rc;
    }
    rc = dhi_entries_append(heap, head, key_word, value, &number);
    if (rc != 0)
        return rc;
    if (is_tiny) {
        dh_store(&head[DICT_INDEX], dict_fingerprint_set(head[DICT_INDEX], number, key->hash));
        return 0;
    }
    found->group->hash[found->slot] = dict_hash(key);
    found->group->entry[found->slot] = number + 1u;
    if (dict_form(head) == DICT_BIG)
        dhi_big_compact(heap, head);
    return 0;
}

/* The key is not there. key_word EMPTY: the key is a str, and its word is made when it is needed. */
static int dict_insert(dh_heap *heap, dh_word *head, const dh_key *key, dict_found *found,
                       dh_word key_word, dh_word value)
{
    bool can_share = dict_form(head) == DICT_SHAPED || head[DICT_ENTRIES] == DH_EMPTY;
    if (can_share && dict_width(head) == DICT_WIDTH) {
        bool is_done;
        int shaped = dict_insert_shaped(heap, head, key, key_word, value, &is_done);
        if (shaped != 0 || is_done)
            return shaped;
    }
    if (key_word != DH_EMPTY)
        return dict_append(heap, head, key, found, key_word, value);
    int rc = dh_str_new(heap, key->data, key->size, &key_word);
    if (rc != 0)
        return rc;
    rc = dict_append(heap, head, key, found, key_word, value);
    if (rc != 0)
        dh_value_drop(heap, key_word);
    return rc;
}

static inline void dict_overwrite(dh_heap *heap, const dict_found *found, dh_word value)
{
    dh_word old = *found->value;
    dh_store(found->value, value);
    if (dh_is_ref(old) && old != value)
        dh_value_drop(heap, old);
}

int dh_dict_set_str(dh_heap *heap, dh_word dict, const dh_key *key, dh_word value)
{
    dict_found found = DICT_NOT_FOUND;
    dh_word *head = dict_head(heap, dict);
    if (DH_UNLIKELY(head == NULL))
        return dict_corrupt(heap, "head");
    DH_ASSERT(key->tag == 's');
    int rc = dict_find(heap, head, key, DICT_WIDTH, &found);
    if (rc == DH_E_ABSENT)
        return dict_insert(heap, head, key, &found, DH_EMPTY, value);
    if (DH_LIKELY(rc == 0))
        dict_overwrite(heap, &found, value);
    return rc;
}

int dh_dict_set(dh_heap *heap, dh_word dict, const dh_key *key, dh_word key_word, dh_word value,
                bool *was_new_out)
{
    dict_found found = DICT_NOT_FOUND;
    dh_word *head = dict_head(heap, dict);
    if (DH_UNLIKELY(head == NULL))
        return dict_corrupt(heap, "head");
    int rc = dict_find(heap, head, key, DICT_WIDTH, &found);
    if (DH_LIKELY(rc == 0)) {
        dict_overwrite(heap, &found, value);
        *was_new_out = false;
        return 0;
    }
    if (rc != DH_E_ABSENT || key_word == DH_EMPTY)
        return rc;
    rc = dict_insert(heap, head, key, &found, key_word, value);
    if (rc == 0)
        *was_new_out = true;
    return rc;
}

/* One in so many deletions looks whether buckets can be joined; chosen by the hash, so that every
 * part of the index gets its turn. */
#define DICT_SHRINK_MASK 15u

/* Take an entry out and drop its key; the value is the caller's. */
static int dict_remove(dh_heap *heap, dh_word *head, const dh_key *key, const dict_found *found)
{
    unsigned form = dict_form(head);
    dh_word key_word =
        form == DICT_SHAPED ? DH_EMPTY : found->value[1 - (ptrdiff_t)dict_width(head)];
    int rc = dhi_entries_remove(heap, head, found->number);
    if (rc != 0)
        return rc;
    if (form == DICT_SMALL || form == DICT_BIG) {
        dhi_index_remove(found->bucket, found->group, found->slot);
        if ((key->hash & DICT_SHRINK_MASK) == 0)
            dhi_index_shrink(heap, &head[DICT_INDEX], dict_hash(key));
    }
    if (dict_form(head) == DICT_BIG)
        dhi_big_compact(heap, head);
    dhi_entries_settle(heap, head);
    dh_value_drop(heap, key_word);
    return 0;
}

int dh_dict_delete(dh_heap *heap, dh_word dict, const dh_key *key, dh_word *value_out)
{
    dict_found found = DICT_NOT_FOUND;
    dh_word *head = dict_head(heap, dict);
    if (head == NULL)
        return dict_corrupt(heap, "head");
    int rc = dict_find(heap, head, key, DICT_WIDTH, &found);
    if (rc != 0)
        return rc;
    dh_word value = *found.value;
    rc = dict_remove(heap, head, key, &found);
    if (rc != 0)
        return rc;
    if (value_out != NULL)
        *value_out = value;
    else
        dh_value_drop(heap, value);
    return 0;
}

int dh_dict_clear(dh_heap *heap, dh_word dict)
{
    dh_word *head = dict_head(heap, dict);
    if (head == NULL)
        return dict_corrupt(heap, "head");
    dhi_entries_clear(heap, head);
    return 0;
}

int dh_dict_reserve(dh_heap *heap, dh_word dict, uint64_t count)
{
    dh_word *head = dict_head(heap, dict);
    return head == NULL ? dict_corrupt(heap, "head") : dhi_entries_reserve(heap, head, count);
}

/* --- keys without values, for set.c ----------------------------------------------------------- */

int dhi_keys_find(const dh_heap *heap, const dh_word *head, const dh_key *key, dh_word *word_out)
{
    dict_found found = DICT_NOT_FOUND;
    int rc = dict_find(heap, head, key, SET_WIDTH, &found);
    if (rc == 0)
        *word_out = dh_load(found.value);
    return rc;
}

int dhi_keys_add(dh_heap *heap, dh_word *head, const dh_key *key, dh_word key_word,
                 bool *was_new_out)
{
    dict_found found = DICT_NOT_FOUND;
    int rc = dict_find(heap, head, key, SET_WIDTH, &found);
    *was_new_out = false;
    if (rc != DH_E_ABSENT || key_word == DH_EMPTY)
        return rc;
    rc = dict_insert(heap, head, key, &found, key_word, key_word);
    *was_new_out = rc == 0;
    return rc;
}

int dhi_keys_remove(dh_heap *heap, dh_word *head, const dh_key *key)
{
    dict_found found = DICT_NOT_FOUND;
    int rc = dict_find(heap, head, key, SET_WIDTH, &found);
    return rc != 0 ? rc : dict_remove(heap, head, key, &found);
}

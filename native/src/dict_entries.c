/* dict_entries.c -- the entries of tiny and small dicts: one cell in insertion order.
 *
 * Contract: dict_private.h. Growing moves the entries to a larger cell, at most 64 KiB; what is
 * larger has chunks (dict_big.c). Room is made before anything is stored, and making room keeps
 * the contents, so that a failure leaves the dict as it was.
 */
#include "dict_private.h"

#include <stdlib.h>

#define ENTRIES_GONE 0xffffu
/* A small dict this long is packed when only an eighth of its entries is left. */
#define ENTRIES_PACK_MIN 64u
#define ENTRIES_SMALL_FIRST 12u

int dhi_word_hash(const dh_heap *heap, dh_word key, uint32_t *hash_out)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_key canonical;
    int rc = dh_key_from_word(heap, key, scratch, &canonical, &buffer);
    if (rc != 0)
        return rc == DH_E_UNHASHABLE ? dict_corrupt(heap, "key") : rc;
    *hash_out = dict_hash(&canonical);
    free(buffer);
    return 0;
}

/* --- one cell --------------------------------------------------------------------------------- */

/* The cell of a tiny or small dict that holds `used` entries for certain. */
static inline dh_word *entries_at(const dh_heap *heap, const dh_word *head, uint64_t *room_out)
{
    size_t bytes = 0;
    dh_word *entries = NULL;
    if (head[DICT_ENTRIES] != DH_EMPTY)
        entries = dhi_span(heap, head[DICT_ENTRIES], DH_T_ENTRIES, &bytes);
    uint64_t room = dict_entries_in(bytes, dict_width(head));
    *room_out = room < DICT_CHUNK_ENTRIES ? room : DICT_CHUNK_ENTRIES;
    return dict_used(head) <= *room_out ? entries : NULL;
}

/* Move the used entries to a cell for so many. */
static int entries_resize(dh_heap *heap, dh_word *head, uint64_t entries_count)
{
    uint64_t room;
    dh_off off;
    dh_word old = head[DICT_ENTRIES];
    size_t entry_bytes = dict_entry_bytes(dict_width(head));
    const dh_word *entries = entries_at(heap, head, &room);
    if (entries == NULL && (old != DH_EMPTY || dict_used(head) > 0))
        return dict_corrupt(heap, "entries");
    int rc = dh_cell_new(heap, (size_t)entries_count * entry_bytes, DH_REFS, &off);
    if (rc != 0)
        return rc;
    if (entries != NULL)
        memcpy(dh_at(heap, off), entries, (size_t)dict_used(head) * entry_bytes);
    dh_store(&head[DICT_ENTRIES], dh_ref(DH_T_ENTRIES, off));
    if (old != DH_EMPTY)
        dh_cell_free(heap, dh_ref_off(old));
    return 0;
}

/* An entry without a value. */
static void entry_set(dh_word *entries, uint64_t slot, unsigned width, dh_word key)
{
    for (unsigned i = 1; i < width; i++)
        dh_store(&entries[slot * width + i], DH_EMPTY);
    dh_store(&entries[slot * width], key);
}

void dhi_entry_delete(dh_word *entries, uint64_t slot, uint64_t used, unsigned width)
{
    uint64_t front = dict_front(entries, used);
    bool is_front = slot == 0 || (dict_key_is_deleted(entries[0]) && slot == front);
    entry_set(entries, slot, width, DH_DELETED);
    if (!is_front)
        return;
    for (front = slot + 1; front < used && dict_key_is_deleted(entries[width * front]); front++)
        ;
    dh_store(&entries[0], DH_DELETED | front << 8);
}

/* --- tiny ------------------------------------------------------------------------------------- */

/* Fingerprints keep 8 bits of a hash, so growing out of them hashes up to eight keys anew. */
static int tiny_to_small(dh_heap *heap, dh_word *head)
{
    uint32_t hashes[DICT_TINY_ENTRIES];
    uint64_t used = dict_used(head), room;
    unsigned width = dict_width(head);
    dh_word index;
    const dh_word *entries = entries_at(heap, head, &room);
    if (entries == NULL || used > DICT_TINY_ENTRIES)
        return dict_corrupt(heap, "entries");
    for (uint64_t i = 0; i < used; i++) {
        int rc = dhi_word_hash(heap, entries[width * i], &hashes[i]);
        if (rc != 0)
            return rc;
    }
    int rc = dhi_index_new(heap, dhi_index_groups_for(used + 1), &index);
    if (rc != 0)
        return rc;
    rc = entries_resize(heap, head, ENTRIES_SMALL_FIRST);
    if (rc != 0) {
        dhi_index_free(heap, index);
        return rc;
    }
    dict_bucket bucket = dict_bucket_at(heap, index);
    for (uint32_t i = 0; i < used; i++)
        (void)dhi_bucket_put(&bucket, hashes[i], i + 1);
    dh_store(&head[DICT_INDEX], index);
    dict_set_form(head, DICT_SMALL);
    return 0;
}

static int tiny_room(dh_heap *heap, dh_word *head)
{
    uint64_t used = dict_used(head), room;
    const dh_word *entries = entries_at(heap, head, &room);
    if (used > DICT_TINY_ENTRIES || (used > 0 && entries == NULL))
        return dict_corrupt(heap, "entries");
    if (used == DICT_TINY_ENTRIES)
        return tiny_to_small(heap, head);
    return used < room ? 0 : entries_resize(heap, head, (used + 2) & ~(uint64_t)1);
}

static int tiny_remove(dh_heap *heap, dh_word *head, uint32_t number)
{
    uint64_t used = dict_used(head), room;
    unsigned width = dict_width(head);
    dh_word *entries = entries_at(heap, head, &room);
    if (entries == NULL || number >= used || used > DICT_TINY_ENTRIES)
        return dict_corrupt(heap, "entries");
    memmove(entries + width * number, entries + width * (number + 1),
            (size_t)(used - number - 1) * dict_entry_bytes(width));
    entry_set(entries, used - 1, width, DH_EMPTY);

    uint64_t prints = head[DICT_INDEX], low = ((uint64_t)1 << 8 * number) - 1u;
    prints = (prints & low) | (prints >> 8 & ~low);
    dh_store(&head[DICT_INDEX], prints | 1u);
    dict_set_counts(head, used - 1, used - 1);
    dict_new_epoch(head);
    return 0;
}

/* --- small ------------------------------------------------------------------------------------ */

/* Old number -> new number, for the pairs in the index. */
typedef struct {
    const dh_heap *heap;
    uint64_t used;
    const uint16_t *map;
    dict_bucket into; /* groups_count 0: renumber where they are */
} entries_remap;

static int remap_bucket(void *context, dict_bucket bucket, uint32_t prefix, unsigned prefix_bits)
{
    const entries_remap *remap = context;
    (void)prefix;
    (void)prefix_bits;
    for (unsigned g = 0; g < bucket.groups_count; g++)
        for (unsigned s = 0; s < DICT_GROUP_SLOTS; s++) {
            uint32_t entry = bucket.groups[g].entry[s];
            if (entry == 0 || entry == DICT_SLOT_DELETED)
                continue;
            if (entry > remap->used || remap->map[entry - 1] == ENTRIES_GONE)
                return dict_corrupt(remap->heap, "index");
            entry = remap->map[entry - 1] + 1u;
            if (remap->into.groups_count == 0)
                bucket.groups[g].entry[s] = entry;
            else if (!dhi_bucket_put(&remap->into, bucket.groups[g].hash[s], entry))
                return DH_E_LIMIT;
        }
    return 0;
}

/* Try to have the whole index in one smaller bucket; what does not work out changes nothing. */
static bool remap_into_bucket(dh_heap *heap, dh_word *head, entries_remap *remap)
{
    dh_word index, old = head[DICT_INDEX];
    dict_bucket bucket = dict_bucket_at(heap, old);
    unsigned groups = dhi_index_groups_for(dict_live(head) * 2);
    bool is_worth = dh_is_ref_to(old, DH_T_DIR) || bucket.groups_count > groups;
    if (!is_worth || groups == DICT_BUCKET_GROUPS || dhi_index_new(heap, groups, &index) != 0)
        return false;
    remap->into = dict_bucket_at(heap, index);
    int rc = dhi_index_walk(heap, old, remap_bucket, remap);
    remap->into.groups_count = 0;
    dhi_index_free(heap, rc == 0 ? old : index);
    if (rc == 0)
        dh_store(&head[DICT_INDEX], index);
    return rc == 0;
}

/* Close the holes in a small dict: in place and without memory, so that it works in a full arena;
 * then give back what the rest does not need. */
static int small_pack(dh_heap *heap, dh_word *head)
{
    uint16_t map[DICT_CHUNK_ENTRIES];
    uint64_t used = dict_used(head), room, kept = 0;
    unsigned width = dict_width(head);
    dh_word *entries = entries_at(heap, head, &room);
    if (entries == NULL)
        return dict_corrupt(heap, "entries");
    for (uint64_t i = 0; i < used; i++)
        map[i] = dict_key_is_live(entries[width * i]) ? (uint16_t)kept++ : (uint16_t)ENTRIES_GONE;
    if (kept != dict_live(head))
        return dict_corrupt(heap, "count");
    entries_remap remap = {heap, used, map, {NULL, 0}};
    if (!remap_into_bucket(heap, head, &remap)) {
        int rc = dhi_index_walk(heap, head[DICT_INDEX], remap_bucket, &remap);
        if (rc != 0)
            return rc;
    }
    for (uint64_t i = 0; i < used; i++)
        if (map[i] != ENTRIES_GONE)
            memmove(entries + width * map[i], entries + width * i, dict_entry_bytes(width));
    memset(entries + width * kept, 0, (size_t)(used - kept) * dict_entry_bytes(width));
    dict_set_counts(head, kept, kept);
    dict_new_epoch(head);
    if (room > 4 * ENTRIES_SMALL_FIRST && kept < room / 4) {
        int rc = entries_resize(heap, head, kept + kept / 2 + ENTRIES_SMALL_FIRST);
        (void)rc; /* the larger cell does as well */
    }
    return 0;
}

static int small_room(dh_heap *heap, dh_word *head)
{
    uint64_t used = dict_used(head), room;
    if (entries_at(heap, head, &room) == NULL)
        return dict_corrupt(heap, "entries");
    if (used < room)
        return 0;
    if (dict_live(head) * 2 < used)
        return small_pack(heap, head);
    if (room == DICT_CHUNK_ENTRIES)
        return dhi_big_from_small(heap, head);
    uint64_t grown = room + room / 2;
    return entries_resize(heap, head, grown < DICT_CHUNK_ENTRIES ? grown : DICT_CHUNK_ENTRIES);
}

/* Deleted entries at the end go at once: popping from the end then leaves no holes to skip. */
static int small_remove(dh_heap *heap, dh_word *head, uint32_t number)
{
    uint64_t used = dict_used(head), live = dict_live(head), room;
    unsigned width = dict_width(head);
    dh_word *entries = entries_at(heap, head, &room);
    if (entries == NULL || number >= used || live == 0)
        return dict_corrupt(heap, "entries");
    dhi_entry_delete(entries, number, used, width);
    bool is_last = number == used - 1;
    for (; used > 0 && is_last && dict_key_is_deleted(entries[width * (used - 1)]); used--)
        entry_set(entries, used - 1, width, DH_EMPTY);
    dict_set_counts(head, used, live - 1);
    if (is_last)
        dict_new_epoch(head);
    return 0;
}

/* --- all forms -------------------------------------------------------------------------------- */

int dhi_entries_room(dh_heap *heap, dh_word *head)
{
    int rc;
    switch (dict_form(head)) {
    case DICT_TINY:
        return tiny_room(heap, head);
    case DICT_SMALL:
        rc = small_room(heap, head);
        return rc == 0 && dict_form(head) == DICT_BIG ? dhi_big_room(heap, head) : rc;
    case DICT_BIG:
        return dhi_big_room(heap, head);
    default:
        return dict_corrupt(heap, "form");
    }
}

int dhi_entries_append(dh_heap *heap, dh_word *head, dh_word key, dh_word value,
                       uint32_t *number_out)
{
    uint64_t used = dict_used(head);
    if (dict_form(head) == DICT_BIG)
        return dhi_big_append(heap, head, key, value, number_out);
    dh_word *entry = dict_small_entry(heap, head, used);
    if (entry == NULL || used >= DICT_CHUNK_ENTRIES)
        return dict_corrupt(heap, "entries");
    dh_store(&entry[dict_width(head) - 1], value);
    dh_store(&entry[0], key);
    dict_set_counts(head, used + 1, dict_live(head) + 1);
    *number_out = (uint32_t)used;
    return 0;
}

int dhi_entries_remove(dh_heap *heap, dh_word *head, uint32_t number)
{
    switch (dict_form(head)) {
    case DICT_TINY:
        return tiny_remove(heap, head, number);
    case DICT_SMALL:
        return small_remove(heap, head, number);
    case DICT_SHAPED:
        return dhi_shaped_remove(heap, head, number);
    default:
        return dhi_big_remove(heap, head, number);
    }
}

static void entries_free(dh_heap *heap, dh_word *head)
{
    unsigned form = dict_form(head);
    if (form == DICT_SMALL || form == DICT_BIG)
        dhi_index_free(heap, head[DICT_INDEX]);
    if (form == DICT_BIG)
        dhi_big_free(heap, head);
    else if (dh_is_ref_to(head[DICT_ENTRIES], form == DICT_SHAPED ? DH_T_VALUES : DH_T_ENTRIES))
        dh_cell_free(heap, dh_ref_off(head[DICT_ENTRIES]));
    dh_store(&head[DICT_ENTRIES], DH_EMPTY);
    dh_store(&head[DICT_INDEX], dh_int(0));
    dict_set_counts(head, 0, 0);
    dict_set_form(head, DICT_TINY);
}

void dhi_entries_clear(dh_heap *heap, dh_word *head)
{
    dh_dict_pos pos = {0, 0};
    dh_word key, value;
    bool owns_keys = dict_form(head) != DICT_SHAPED;
    while (dict_live(head) > 0 && dhi_entries_next(heap, head, &pos, &key, &value) == 1) {
        if (owns_keys)
            dh_value_drop(heap, key);
        if (dict_width(head) == DICT_WIDTH)
            dh_value_drop(heap, value);
    }
    entries_free(heap, head);
}

void dhi_entries_settle(dh_heap *heap, dh_word *head)
{
    uint64_t live = dict_live(head), used = dict_used(head);
    if (live == 0)
        entries_free(heap, head);
    else if (dict_form(head) == DICT_BIG)
        dhi_big_to_small(heap, head);
    else if (dict_form(head) == DICT_SMALL && used >= ENTRIES_PACK_MIN && live * 8 <= used) {
        int rc = small_pack(heap, head);
        (void)rc; /* nothing was lost; damage will be met again */
    }
}

int dhi_entries_reserve(dh_heap *heap, dh_word *head, uint64_t count)
{
    dh_word index;
    uint64_t used = dict_used(head);
    if (count > DICT_CHUNK_ENTRIES)
        count = DICT_CHUNK_ENTRIES;
    if (dict_form(head) != DICT_TINY || count == 0)
        return 0;
    if (used + count <= DICT_TINY_ENTRIES) {
        uint64_t room;
        if (entries_at(heap, head, &room) != NULL && used + count <= room)
            return 0;
        return entries_resize(heap, head, used + count);
    }
    if (used > 0)
        return 0;
    int rc = dhi_index_new(heap, dhi_index_groups_for(count), &index);
    if (rc != 0)
        return rc;
    rc = entries_resize(heap, head, count);
    if (rc != 0) {
        dhi_index_free(heap, index);
        return rc;
    }
    dh_store(&head[DICT_INDEX], index);
    dict_set_form(head, DICT_SMALL);
    return 0;
}

/* --- order ------------------------------------------------------------------------------------ */

int dhi_entries_next(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                     dh_word *value_out)
{
    uint64_t used = dict_used(head), room;
    if (dict_form(head) == DICT_BIG)
        return dhi_big_next(heap, head, pos, key_out, value_out);
    if (dict_form(head) == DICT_SHAPED)
        return dhi_shaped_next(heap, head, pos, key_out, value_out);
    if (used == 0)
        return 0;
    const dh_word *entries = entries_at(heap, head, &room);
    if (entries == NULL)
        return dict_corrupt(heap, "entries");
    unsigned width = dict_width(head);
    uint64_t slot = pos->chunk == 0 ? dict_front(entries, used) : pos->slot;
    for (; slot < used; slot++) {
        const dh_word *entry = entries + width * slot;
        if (dict_key_is_live(entry[0])) {
            pos->chunk = 1;
            pos->slot = slot + 1;
            *key_out = entry[0];
            *value_out = entry[width - 1];
            return 1;
        }
    }
    pos->chunk = 1;
    pos->slot = used;
    return 0;
}

int dhi_entries_prev(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                     dh_word *value_out)
{
    uint64_t used = dict_used(head), room;
    if (dict_form(head) == DICT_BIG)
        return dhi_big_prev(heap, head, pos, key_out, value_out);
    if (dict_form(head) == DICT_SHAPED)
        return dhi_shaped_prev(heap, head, pos, key_out, value_out);
    if (used == 0)
        return 0;
    const dh_word *entries = entries_at(heap, head, &room);
    if (entries == NULL)
        return dict_corrupt(heap, "entries");
    uint64_t slot = pos->chunk == 0 || pos->slot > used ? used : pos->slot;
    uint64_t front = dict_front(entries, used);
    unsigned width = dict_width(head);
    while (slot > front) {
        const dh_word *entry = entries + width * --slot;
        if (dict_key_is_live(entry[0])) {
            pos->chunk = 1;
            pos->slot = slot;
            *key_out = entry[0];
            *value_out = entry[width - 1];
            return 1;
        }
    }
    pos->chunk = 1;
    pos->slot = 0;
    return 0;
}

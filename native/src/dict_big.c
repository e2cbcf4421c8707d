/* dict_big.c -- the entries of a dict of more than 4096 slots: chunks in a linked order.
 *
 * Contract: dict_private.h. An entry's number is row << 12 | slot and stays until the entry is
 * moved; a row's number is used again when its chunk has nothing live, so numbers do not run out
 * in a dict that is used as a queue. Compaction moves a few entries per insertion or deletion into
 * a chunk linked before theirs: order and lookups are right after every single move.
 *
 * Rows and links may come from a damaged file: walks along links count their steps.
 */
#include "dict_private.h"

/* Compact when there are more slots than this, plus two for each live entry. */
#define BIG_SLACK_SLOTS 16384u
#define BIG_MOVES_MAX 4u
#define BIG_STEPS_MAX 4u
/* Pages of the smallest chunk. */
#define CHUNK_PAGES (DICT_CHUNK_ENTRIES * 8u / DH_PAGE_BYTES)
/* Back to one cell when no more than this many entries are left; tried four times on the way. */
#define BIG_SMALL_LIVE 1024u
#define BIG_SMALL_STEP 256u

/* --- rows ------------------------------------------------------------------------------------- */

/* A chunk before the row at link `next`, 0: at the end. Everything is there before anything is
 * linked. */
static int big_chunk_new(dh_heap *heap, dh_word *big, uint64_t next, unsigned width,
                         uint64_t *link_out)
{
    uint64_t link = big_int(big, BIG_FREE), count = big_rows_count(big);
    dh_off off;
    if (link == 0) {
        if (count >= DICT_ROWS_MAX)
            return dhi_fail(heap, DH_E_LIMIT, "a dict cannot be that large");
        int rc = dh_vec_reserve(heap, big + BIG_ROWS, (count + 1) * ROW_WORDS);
        if (rc != 0)
            return rc;
        link = count + 1;
    }
    dh_word *row = big_row(heap, big, link), *after = big_row(heap, big, next);
    uint64_t prev = after == NULL ? big_int(big, BIG_LAST) : row_prev(after);
    dh_word *before = big_row(heap, big, prev);
    if (row == NULL || (next != 0 && after == NULL) || (prev != 0 && before == NULL) ||
        row[ROW_CHUNK] != DH_EMPTY)
        return dict_corrupt(heap, "chunk table");
    int rc = dh_cell_new(heap, DICT_CHUNK_ENTRIES * dict_entry_bytes(width), DH_REFS, &off);
    if (rc != 0)
        return rc;
    if (big_int(big, BIG_FREE) != 0) {
        big_set(big, BIG_FREE, row_next(row));
    } else {
        rc = dh_vec_set_length(heap, big + BIG_ROWS, (count + 1) * ROW_WORDS);
        if (rc != 0)
            return rc;
    }
    dh_store(&row[ROW_CHUNK], dh_ref(DH_T_ENTRIES, off));
    row_set_counts(row, 0, 0);
    row_set_links(row, prev, next);
    dh_store(&row[ROW_SPARE], dh_int(0));
    if (before != NULL)
        row_set_links(before, row_prev(before), link);
    else
        big_set(big, BIG_FIRST, link);
    if (after != NULL)
        row_set_links(after, link, row_next(after));
    else
        big_set(big, BIG_LAST, link);
    big_set(big, BIG_CHUNKS, big_int(big, BIG_CHUNKS) + 1);
    *link_out = link;
    return 0;
}

/* Unlink a chunk with nothing live and free it. */
static void big_chunk_free(dh_heap *heap, dh_word *big, dh_word *row, uint64_t link)
{
    uint64_t prev = row_prev(row), next = row_next(row);
    dh_word *before = big_row(heap, big, prev), *after = big_row(heap, big, next);
    dh_word chunk = row[ROW_CHUNK];

    big_set(big, BIG_SLOTS, big_int(big, BIG_SLOTS) - row_used(row));
    if (before != NULL)
        row_set_links(before, row_prev(before), next);
    else
        big_set(big, BIG_FIRST, next);
    if (after != NULL)
        row_set_links(after, prev, row_next(after));
    else
        big_set(big, BIG_LAST, prev);
    if (big_int(big, BIG_CURSOR) == link)
        big_set(big, BIG_CURSOR, next);
    if (big_int(big, BIG_TARGET) == link)
        big_set(big, BIG_TARGET, 0);
    dh_store(&row[ROW_CHUNK], DH_EMPTY);
    row_set_counts(row, 0, 0);
    row_set_links(row, 0, big_int(big, BIG_FREE));
    big_set(big, BIG_FREE, link);
    big_set(big, BIG_CHUNKS, big_int(big, BIG_CHUNKS) - 1);
    dh_cell_free(heap, dh_ref_off(chunk));
}

/* --- changes of form -------------------------------------------------------------------------- */

int dhi_big_from_small(dh_heap *heap, dh_word *head)
{
    dh_off off;
    uint64_t used = dict_used(head), live = dict_live(head);
    int rc = dh_cell_new(heap, BIG_BYTES, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *big = dh_at(heap, off);
    for (unsigned i = 0; i < BIG_WORDS; i++)
        big[i] = i == DH_VEC_ROOT ? DH_EMPTY : dh_int(0);
    rc = dh_vec_reserve(heap, big + BIG_ROWS, 4 * ROW_WORDS);
    if (rc == 0)
        rc = dh_vec_set_length(heap, big + BIG_ROWS, ROW_WORDS);
    if (rc != 0) {
        dh_vec_clear(heap, big + BIG_ROWS);
        dh_cell_free(heap, off);
        return rc;
    }
    dh_word *row = big_row(heap, big, 1);
    row[ROW_CHUNK] = head[DICT_ENTRIES];
    row_set_counts(row, used, live);
    row_set_links(row, 0, 0);
    row[ROW_SPARE] = dh_int(0);
    big_set(big, BIG_FIRST, 1);
    big_set(big, BIG_LAST, 1);
    big_set(big, BIG_SLOTS, used);
    big_set(big, BIG_CHUNKS, 1);
    dh_store(&head[DICT_ENTRIES], dh_ref(DH_T_BIG, off));
    dict_set_form(head, DICT_BIG);
    return 0;
}

void dhi_big_free(dh_heap *heap, dh_word *head)
{
    dh_word *big = dict_big_at(heap, head);
    if (big == NULL || !dh_cell_is_allocated(heap, dh_ref_off(head[DICT_ENTRIES])))
        return;
    uint64_t count = big_rows_count(big);
    for (uint64_t i = 0; i < count; i++) {
        const dh_word *row = dict_row_at(heap, big, i);
        if (row == NULL)
            break;
        if (dh_is_ref_to(row[ROW_CHUNK], DH_T_ENTRIES))
            dh_cell_free(heap, dh_ref_off(row[ROW_CHUNK]));
    }
    dh_vec_clear(heap, big + BIG_ROWS);
    dh_cell_free(heap, dh_ref_off(head[DICT_ENTRIES]));
}

/* Copy the live entries, in order, and hash their keys into a new index. */
static int big_copy(dh_heap *heap, const dh_word *head, dh_word *entries, dh_word *index)
{
    dh_dict_pos pos = {0, 0};
    uint64_t count = 0, live = dict_live(head);
    unsigned width = dict_width(head);
    dh_word key, value;
    int rc;
    while ((rc = dhi_big_next(heap, head, &pos, &key, &value)) == 1) {
        uint32_t hash;
        dict_group *group;
        unsigned slot;
        if (count == live)
            return dict_corrupt(heap, "count");
        rc = dhi_word_hash(heap, key, &hash);
        if (rc == 0)
            rc = dhi_index_reserve(heap, index, hash, &group, &slot);
        if (rc != 0)
            return rc;
        entries[width * count + width - 1] = value;
        entries[width * count] = key;
        group->hash[slot] = hash;
        group->entry[slot] = (uint32_t)++count;
    }
    return rc != 0 ? rc : count == live ? 0 : dict_corrupt(heap, "count");
}

void dhi_big_to_small(dh_heap *heap, dh_word *head)
{
    uint64_t live = dict_live(head);
    dh_off off;
    dh_word index;
    if (live > BIG_SMALL_LIVE || live % BIG_SMALL_STEP != 0 || live == 0)
        return;
    if (dhi_index_new(heap, dhi_index_groups_for(live), &index) != 0)
        return;
    size_t bytes = (size_t)(live + live / 2) * dict_entry_bytes(dict_width(head));
    if (dh_cell_new(heap, bytes, DH_REFS, &off) != 0) {
        dhi_index_free(heap, index);
        return;
    }
    if (big_copy(heap, head, dh_at(heap, off), &index) != 0) {
        dhi_index_free(heap, index);
        dh_cell_free(heap, off);
        return;
    }
    dhi_index_free(heap, head[DICT_INDEX]);
    dhi_big_free(heap, head);
    dh_store(&head[DICT_ENTRIES], dh_ref(DH_T_ENTRIES, off));
    dh_store(&head[DICT_INDEX], index);
    dict_set_counts(head, live, live);
    dict_set_form(head, DICT_SMALL);
}

/* --- entries ---------------------------------------------------------------------------------- */

int dhi_big_room(dh_heap *heap, dh_word *head)
{
    uint64_t link;
    dh_word *big = dict_big_at(heap, head);
    const dh_word *row = big == NULL ? NULL : big_row(heap, big, big_int(big, BIG_LAST));
    unsigned width = dict_width(head);
    if (row == NULL || row_entries(heap, row, width) == NULL)
        return dict_corrupt(heap, "chunk table");
    if (dict_live(head) == DICT_COUNT_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a dict cannot be that large");
    return row_used(row) < DICT_CHUNK_ENTRIES ? 0 : big_chunk_new(heap, big, 0, width, &link);
}

/* Append to one chunk that has room; the counts of the row and of all slots. */
static int row_append(const dh_heap *heap, dh_word *big, dh_word *row, unsigned width, dh_word key,
                      dh_word value)
{
    uint64_t used = row_used(row);
    dh_word *entry = used < DICT_CHUNK_ENTRIES ? dict_row_entry(heap, row, used, width) : NULL;
    if (entry == NULL)
        return dict_corrupt(heap, "chunk");
    dh_store(&entry[width - 1], value);
    dh_store(&entry[0], key);
    row_set_counts(row, used + 1, row_live(row) + 1);
    big_set(big, BIG_SLOTS, big_int(big, BIG_SLOTS) + 1);
    return 0;
}

int dhi_big_append(dh_heap *heap, dh_word *head, dh_word key, dh_word value, uint32_t *number_out)
{
    dh_word *big = dict_big_at(heap, head);
    uint64_t link = big == NULL ? 0 : big_int(big, BIG_LAST);
    dh_word *row = big == NULL ? NULL : big_row(heap, big, link);
    if (row == NULL || link > DICT_ROWS_MAX)
        return dict_corrupt(heap, "chunk table");
    uint32_t number = (uint32_t)((link - 1) << DICT_CHUNK_BITS | row_used(row));
    int rc = row_append(heap, big, row, dict_width(head), key, value);
    if (rc != 0)
        return rc;
    /* Not a count of slots here, only a number that never repeats soon: dh_dict_version. */
    dict_set_counts(head, dict_used(head) + 1, dict_live(head) + 1);
    *number_out = number;
    return 0;
}

/* Delete a slot; trailing deleted slots are free again. */
static int row_remove(dh_heap *heap, dh_word *big, dh_word *row, unsigned width, uint64_t slot)
{
    uint64_t used = row_used(row), live = row_live(row), kept = used;
    dh_word *entries = row_entries(heap, row, width);
    if (entries == NULL || slot >= used || live == 0)
        return dict_corrupt(heap, "chunk");
    dhi_entry_delete(entries, slot, used, width);
    while (slot == used - 1 && kept > 0 && dict_key_is_deleted(entries[width * (kept - 1)]))
        kept--;
    memset(entries + width * kept, 0, (size_t)(used - kept) * dict_entry_bytes(width));
    row_set_counts(row, kept, live - 1);
    big_set(big, BIG_SLOTS, big_int(big, BIG_SLOTS) - (used - kept));
    return 0;
}

/* The last chunk stays even when empty: a dict that grows and shrinks around the end of a chunk
 * would take 64 KiB each time. */
static void row_free_if_empty(dh_heap *heap, dh_word *big, dh_word *row, uint64_t link)
{
    if (row_live(row) == 0 && link != big_int(big, BIG_LAST))
        big_chunk_free(heap, big, row, link);
}

int dhi_big_remove(dh_heap *heap, dh_word *head, uint32_t number)
{
    uint64_t link = (number >> DICT_CHUNK_BITS) + 1u, live = dict_live(head);
    dh_word *big = dict_big_at(heap, head);
    dh_word *row = big == NULL ? NULL : big_row(heap, big, link);
    if (row == NULL || live == 0)
        return dict_corrupt(heap, "chunk table");
    int rc = row_remove(heap, big, row, dict_width(head), number & (DICT_CHUNK_ENTRIES - 1u));
    if (rc != 0)
        return rc;
    dict_set_counts(head, dict_used(head), live - 1);
    row_free_if_empty(heap, big, row, link);
    return 0;
}

/* --- compaction ------------------------------------------------------------------------------- */

/* Move the first live entry of one chunk to the end of another and tell the index. */
static int big_move_entry(dh_heap *heap, const dh_word *head, dh_word *big, uint64_t from,
                          uint64_t to)
{
    dh_word *source = big_row(heap, big, from), *target = big_row(heap, big, to);
    unsigned width = dict_width(head);
    dh_word *entries = row_entries(heap, source, width);
    uint64_t used = row_used(source), slot;
    uint32_t hash;
    unsigned at;
    if (entries == NULL)
        return dict_corrupt(heap, "chunk");
    slot = dict_front(entries, used);
    while (slot < used && !dict_key_is_live(entries[width * slot]))
        slot++;
    if (slot == used)
        return dict_corrupt(heap, "chunk");
    const dh_word *entry = entries + width * slot;
    int rc = dhi_word_hash(heap, entry[0], &hash);
    if (rc != 0)
        return rc;
    dict_group *group = dhi_index_locate(
        heap, head[DICT_INDEX], hash, (uint32_t)((from - 1) << DICT_CHUNK_BITS | slot) + 1u, &at);
    if (group == NULL)
        return dict_corrupt(heap, "index");
    uint32_t number = (uint32_t)((to - 1) << DICT_CHUNK_BITS | row_used(target));
    rc = row_append(heap, big, target, width, entry[0], entry[width - 1]);
    if (rc != 0)
        return rc;
    group->entry[at] = number + 1u;
    return row_remove(heap, big, source, width, slot);
}

/* The chunk that takes entries from the one at `from`: it stands just before. 0: none. */
static uint64_t big_target(dh_heap *heap, dh_word *big, uint64_t from, unsigned width)
{
    uint64_t target = big_int(big, BIG_TARGET);
    const dh_word *row = big_row(heap, big, target);
    if (row != NULL && row_next(row) == from && row_used(row) < DICT_CHUNK_ENTRIES)
        return target;
    if (big_chunk_new(heap, big, from, width, &target) != 0)
        return 0;
    big_set(big, BIG_TARGET, target);
    return target;
}

static void big_move_some(dh_heap *heap, dh_word *head, dh_word *big, uint64_t from)
{
    for (unsigned moves = 0; moves < BIG_MOVES_MAX; moves++) {
        uint64_t to = big_target(heap, big, from, dict_width(head));
        dh_word *source = big_row(heap, big, from);
        if (to == 0 || source == NULL || big_move_entry(heap, head, big, from, to) != 0)
            return;
        if (row_live(source) == 0) {
            row_free_if_empty(heap, big, source, from);
            return;
        }
    }
}

/* Sparse: a quarter of the slots is dead. The last chunk still grows and is left alone. */
static bool row_is_sparse(const dh_word *row)
{
    return row_next(row) != 0 && row_live(row) > 0 && row_live(row) * 4 < row_used(row) * 3;
}

void dhi_big_compact(dh_heap *heap, dh_word *head)
{
    dh_word *big = dict_form(head) == DICT_BIG ? dict_big_at(heap, head) : NULL;
    if (big == NULL || big_int(big, BIG_SLOTS) <= 2 * dict_live(head) + BIG_SLACK_SLOTS)
        return;
    for (unsigned steps = 0; steps < BIG_STEPS_MAX; steps++) {
        uint64_t link = big_int(big, BIG_CURSOR);
        if (link == 0)
            link = big_int(big, BIG_FIRST);
        const dh_word *row = big_row(heap, big, link);
        if (row == NULL)
            return;
        if (row_is_sparse(row)) {
            big_set(big, BIG_CURSOR, link);
            big_move_some(heap, head, big, link);
            return;
        }
        big_set(big, BIG_CURSOR, row_next(row));
    }
}

/* --- order ------------------------------------------------------------------------------------ */

/* pos->chunk: link of the row, and above it how many links were followed, which ends a walk along
 * links that form a ring. */
#define POS_LINK(pos) ((pos)->chunk & 0xffffffffu)

static int big_hop(const dh_heap *heap, const dh_word *big, dh_dict_pos *pos, uint64_t link)
{
    uint64_t hops = (pos->chunk >> 32) + 1;
    if (hops > big_rows_count(big) || hops > heap->arena.hwm_pages / CHUNK_PAGES + 1 ||
        link > DICT_ROWS_MAX)
        return dict_corrupt(heap, "chunk order");
    pos->chunk = hops << 32 | link;
    return 0;
}

int dhi_big_next(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out)
{
    const dh_word *big = dict_big_at(heap, head);
    if (big == NULL)
        return dict_corrupt(heap, "chunk table");
    bool is_fresh = POS_LINK(pos) == 0;
    unsigned width = dict_width(head);
    if (is_fresh && big_hop(heap, big, pos, big_int(big, BIG_FIRST)) != 0)
        return DH_E_CORRUPT;
    for (;;) {
        const dh_word *row = big_row(heap, big, POS_LINK(pos));
        const dh_word *entries = row == NULL ? NULL : row_entries(heap, row, width);
        if (entries == NULL)
            return dict_corrupt(heap, "chunk");
        uint64_t used = row_used(row), slot = is_fresh ? dict_front(entries, used) : pos->slot;
        for (; slot < used; slot++) {
            const dh_word *entry = entries + width * slot;
            if (dict_key_is_live(entry[0])) {
                pos->slot = slot + 1;
                *key_out = entry[0];
                *value_out = entry[width - 1];
                return 1;
            }
        }
        pos->slot = used;
        if (row_next(row) == 0)
            return 0;
        if (big_hop(heap, big, pos, row_next(row)) != 0)
            return DH_E_CORRUPT;
        is_fresh = true;
    }
}

int dhi_big_prev(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out)
{
    const dh_word *big = dict_big_at(heap, head);
    if (big == NULL)
        return dict_corrupt(heap, "chunk table");
    bool is_fresh = POS_LINK(pos) == 0;
    unsigned width = dict_width(head);
    if (is_fresh && big_hop(heap, big, pos, big_int(big, BIG_LAST)) != 0)
        return DH_E_CORRUPT;
    for (;;) {
        const dh_word *row = big_row(heap, big, POS_LINK(pos));
        const dh_word *entries = row == NULL ? NULL : row_entries(heap, row, width);
        if (entries == NULL)
            return dict_corrupt(heap, "chunk");
        uint64_t used = row_used(row), front = dict_front(entries, used);
        uint64_t slot = is_fresh || pos->slot > used ? used : pos->slot;
        while (slot > front) {
            const dh_word *entry = entries + width * --slot;
            if (dict_key_is_live(entry[0])) {
                pos->slot = slot;
                *key_out = entry[0];
                *value_out = entry[width - 1];
                return 1;
            }
        }
        pos->slot = 0;
        if (row_prev(row) == 0)
            return 0;
        if (big_hop(heap, big, pos, row_prev(row)) != 0)
            return DH_E_CORRUPT;
        is_fresh = true;
    }
}

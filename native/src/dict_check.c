/* dict_check.c -- the self-check of a dict: entries against index, both ways.
 *
 * Contract: dict.h. For tests and dh_check. It trusts nothing: a damaged dict gives DH_E_CORRUPT
 * and the name of the first thing that is wrong.
 */
#include "dict_private.h"

#include <stdlib.h>

int dhi_dict_corrupt(const dh_heap *heap, const char *what)
{
    return dhi_fail(heap, DH_E_CORRUPT, "a dict's %s is damaged", what);
}

/* --- big -------------------------------------------------------------------------------------- */

static bool entry_is_valid(const dh_word *entry, unsigned width)
{
    return dh_is_value(entry[0]) && dh_is_value(entry[width - 1]);
}

static int row_check(const dh_heap *heap, const dh_word *row, unsigned width)
{
    size_t bytes;
    const dh_word *entries = dhi_span(heap, row[ROW_CHUNK], DH_T_ENTRIES, &bytes);
    uint64_t used = row_used(row), live = 0;
    if (entries == NULL || used > dict_entries_in(bytes, width) || used > DICT_CHUNK_ENTRIES)
        return dict_corrupt(heap, "chunk");
    for (uint64_t i = 0; i < dict_entries_in(bytes, width); i++) {
        bool is_live = dict_key_is_live(entries[width * i]);
        live += is_live;
        if ((i >= used && entries[width * i] != DH_EMPTY) ||
            (i < used && entries[width * i] == DH_EMPTY) ||
            (is_live &&
             (i < dict_front(entries, used) || !entry_is_valid(entries + width * i, width))))
            return dict_corrupt(heap, "chunk's order");
    }
    return live == row_live(row) ? 0 : dict_corrupt(heap, "chunk's count");
}

int dhi_big_check(const dh_heap *heap, const dh_word *head)
{
    const dh_word *big = dict_big_at(heap, head);
    if (big == NULL)
        return dict_corrupt(heap, "chunk table");
    uint64_t slots = 0, live = 0, chunks = 0, unused = 0, prev = 0;
    uint64_t count = big_rows_count(big);
    for (uint64_t link = big_int(big, BIG_FIRST); link != 0; chunks++) {
        const dh_word *row = big_row(heap, big, link);
        if (row == NULL || chunks >= count || row_prev(row) != prev)
            return dict_corrupt(heap, "chunk order");
        int rc = row_check(heap, row, dict_width(head));
        if (rc != 0)
            return rc;
        slots += row_used(row);
        live += row_live(row);
        prev = link;
        link = row_next(row);
    }
    for (uint64_t link = big_int(big, BIG_FREE); link != 0; unused++) {
        const dh_word *row = big_row(heap, big, link);
        if (row == NULL || unused >= count || row[ROW_CHUNK] != DH_EMPTY)
            return dict_corrupt(heap, "list of free rows");
        link = row_next(row);
    }
    if (prev != big_int(big, BIG_LAST) || slots != big_int(big, BIG_SLOTS) ||
        live != dict_live(head) || chunks != big_int(big, BIG_CHUNKS) || chunks + unused != count)
        return dict_corrupt(heap, "chunk count");
    return 0;
}

/* --- small and tiny --------------------------------------------------------------------------- */

static int small_check(const dh_heap *heap, const dh_word *head)
{
    uint64_t used = dict_used(head), live = 0;
    unsigned width = dict_width(head);
    size_t bytes;
    if (head[DICT_ENTRIES] == DH_EMPTY)
        return used == 0 && dict_live(head) == 0 ? 0 : dict_corrupt(heap, "count");
    const dh_word *entries = dhi_span(heap, head[DICT_ENTRIES], DH_T_ENTRIES, &bytes);
    if (entries == NULL || used > dict_entries_in(bytes, width))
        return dict_corrupt(heap, "entries");
    for (uint64_t i = 0; i < dict_entries_in(bytes, width); i++) {
        bool is_live = dict_key_is_live(entries[width * i]);
        live += is_live;
        if ((i >= used && (entries[width * i] | entries[width * i + width - 1]) != 0) ||
            (i < used && entries[width * i] == DH_EMPTY) ||
            (is_live &&
             (i < dict_front(entries, used) || !entry_is_valid(entries + width * i, width))) ||
            (i < used && !is_live && dict_form(head) == DICT_TINY))
            return dict_corrupt(heap, "order");
    }
    return live == dict_live(head) ? 0 : dict_corrupt(heap, "count");
}

static int tiny_check(const dh_heap *heap, const dh_word *head, bool with_hashes)
{
    uint64_t used = dict_used(head);
    if (used > DICT_TINY_ENTRIES || (head[DICT_INDEX] & 1u) == 0)
        return dict_corrupt(heap, "fingerprints");
    for (uint32_t i = 0; i < used && with_hashes; i++) {
        uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
        dh_key key;
        int rc = dh_key_from_word(heap, dict_small_entry(heap, head, i)[0], scratch, &key, &buffer);
        if (rc != 0)
            return rc;
        free(buffer);
        if ((dict_match_tiny(head[DICT_INDEX], key.hash) >> i & 1u) == 0)
            return dict_corrupt(heap, "fingerprints");
    }
    return 0;
}

/* --- index ------------------------------------------------------------------------------------ */

typedef struct {
    const dh_heap *heap;
    const dh_word *head;
    bool with_hashes;
    uint8_t *seen; /* a bit per entry number */
    uint64_t numbers_count;
    uint64_t pairs_count;
} index_check;

static int pair_check(index_check *check, dict_bucket bucket, unsigned at, uint32_t hash,
                      uint32_t entry_no)
{
    uint32_t number = entry_no - 1u, real;
    unsigned home = hash & (bucket.groups_count - 1u);
    const dh_word *entry = dict_entry(check->heap, check->head, number);
    if (number >= check->numbers_count || entry == NULL || !dict_key_is_live(entry[0]) ||
        ((unsigned)check->seen[number >> 3] >> (number & 7u) & 1u) != 0 ||
        (at ^ home) >= dict_probes(&bucket))
        return dict_corrupt(check->heap, "index");
    check->seen[number >> 3] |= (uint8_t)(1u << (number & 7u));
    check->pairs_count++;
    for (unsigned i = 0; i < (at ^ home); i++)
        if (dict_match8(bucket.groups[home ^ i].entry, 0) != 0)
            return dict_corrupt(check->heap, "probing");
    if (!check->with_hashes)
        return 0;
    int rc = dhi_word_hash(check->heap, entry[0], &real);
    if (rc != 0)
        return rc;
    return real == hash ? 0 : dict_corrupt(check->heap, "hash");
}

static int bucket_check(void *context, dict_bucket bucket, uint32_t prefix, unsigned prefix_bits)
{
    index_check *check = context;
    for (unsigned g = 0; g < bucket.groups_count; g++)
        for (unsigned s = 0; s < DICT_GROUP_SLOTS; s++) {
            uint32_t hash = bucket.groups[g].hash[s], entry_no = bucket.groups[g].entry[s];
            if (entry_no == 0 || entry_no == DICT_SLOT_DELETED)
                continue;
            if (prefix_bits > 0 && ((hash ^ prefix) >> (32u - prefix_bits)) != 0)
                return dict_corrupt(check->heap, "directory");
            int rc = pair_check(check, bucket, g, hash, entry_no);
            if (rc != 0)
                return rc;
        }
    return 0;
}

static int dict_check_index(const dh_heap *heap, const dh_word *head, bool with_hashes)
{
    index_check check = {heap, head, with_hashes, NULL, DICT_CHUNK_ENTRIES, 0};
    if (dict_form(head) == DICT_BIG)
        check.numbers_count = big_rows_count(dict_big_at(heap, head)) << DICT_CHUNK_BITS;
    check.seen = calloc((size_t)(check.numbers_count / 8 + 1), 1);
    if (check.seen == NULL)
        return ENOMEM;
    int rc = dhi_index_walk(heap, head[DICT_INDEX], bucket_check, &check);
    free(check.seen);
    if (rc == 0 && check.pairs_count != dict_live(head))
        rc = dict_corrupt(heap, "index");
    return rc;
}

/* The word is that of a dict or of a set, and says what the head says. */
int dhi_dict_check(dh_heap *heap, dh_word dict, bool with_hashes)
{
    bool is_set = dh_is_ref_to(dict, DH_T_SET);
    const dh_word *head = dh_deref(heap, dict, is_set ? DH_T_SET : DH_T_DICT, DH_HEAD_BYTES);
    if (head == NULL || dict_width(head) != (is_set ? SET_WIDTH : DICT_WIDTH) ||
        (is_set && dict_form(head) == DICT_SHAPED))
        return dict_corrupt(heap, "head");
    if (dict_form(head) == DICT_SHAPED)
        return dhi_shaped_check(heap, head);
    int rc = dict_form(head) == DICT_BIG ? dhi_big_check(heap, head) : small_check(heap, head);
    if (rc != 0)
        return rc;
    return dict_form(head) == DICT_TINY ? tiny_check(heap, head, with_hashes)
                                        : dict_check_index(heap, head, with_hashes);
}

int dh_dict_check(dh_heap *heap, dh_word dict) { return dhi_dict_check(heap, dict, true); }

/* --- counted work ----------------------------------------------------------------------------- */

static int bucket_work(void *context, dict_bucket bucket, uint32_t prefix, unsigned prefix_bits)
{
    dict_work *work = context;
    (void)prefix;
    (void)prefix_bits;
    for (unsigned g = 0; g < bucket.groups_count; g++)
        for (unsigned s = 0; s < DICT_GROUP_SLOTS; s++) {
            uint32_t hash = bucket.groups[g].hash[s], entry_no = bucket.groups[g].entry[s];
            unsigned home = hash & (bucket.groups_count - 1u);
            uint64_t compares = 1;
            if (entry_no == 0 || entry_no == DICT_SLOT_DELETED)
                continue;
            for (unsigned i = 0; i <= (g ^ home); i++) {
                unsigned hits = dict_match8(bucket.groups[home ^ i].hash, hash);
                hits &= (home ^ i) == g ? (1u << s) - 1u : 0xffu;
                compares += (unsigned)__builtin_popcount(hits);
            }
            work->lookups_count++;
            work->groups_count += (g ^ home) + 1u;
            work->compares_count += compares;
            if (compares > work->compares_max)
                work->compares_max = compares;
        }
    return 0;
}

int dhi_dict_work(const dh_heap *heap, dh_word dict, dict_work *work_out)
{
    const dh_word *head = dh_deref(heap, dict, dh_ref_type(dict), DH_HEAD_BYTES);
    memset(work_out, 0, sizeof *work_out);
    if (head == NULL || dict_form(head) == DICT_TINY)
        return dict_corrupt(heap, "index");
    return dhi_index_walk(heap, head[DICT_INDEX], bucket_work, work_out);
}

/* dict_private.h -- the layout of a dict, for dict.c, dict_index.c, dict_entries.c, dict_big.c,
 * set.c.
 *
 *   head    [0] meta: flags = epoch << 3 | keys only << 2 | form
 *           [1] int: used << 31 | live        used: entry slots taken (tiny, small), keys of the
 *                                             shape (shaped), in a big dict a running number of
 *                                             insertions
 *           [2] tiny, small: ENTRIES or EMPTY          big: BIG         shaped: VALUES
 *           [3] tiny: int, a fingerprint byte per entry, bit 0 forced to 1
 *               shaped: SHAPE                          else: BUCKET or DIR
 *   entry   key word, value word; of a set (keys only) the key word alone. A deleted one has the key
 *           DELETED. When entry 0 is deleted, the bits of that word above the lowest 8 are a slot not
 *           above the first live one: deleting from the front in a loop and asking for the first key
 *           each time stays linear.
 *   index   hash and entry number + 1 of every live entry; hash = upper half of the SipHash.
 *           The directory takes bits from its top, the group in a bucket from its bottom.
 *   probing home ^ 0, home ^ 1 .. home ^ 7: inside the aligned block of eight groups. So whether an
 *           entry fits depends on its block alone, in whatever order entries come, and neither a
 *           split nor a rebuild can fail half-way for want of room.
 *
 * Every function takes what it follows as possibly damaged: NULL or DH_E_CORRUPT, bounded loops.
 */
#ifndef DH_DICT_PRIVATE_H
#define DH_DICT_PRIVATE_H

#include "dict.h"
#include "dict_shape.h"
#include "span.h"
#include "value_private.h"
#include "vec.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { DICT_META = 0, DICT_COUNTS = 1, DICT_ENTRIES = 2, DICT_INDEX = 3 };
enum { DICT_TINY = 0, DICT_SMALL = 1, DICT_BIG = 2, DICT_SHAPED = 3 };

#define DICT_FORM_BITS 2u
#define DICT_KEYS_ONLY (1u << DICT_FORM_BITS)
#define DICT_EPOCH_SHIFT (DICT_FORM_BITS + 1u)
#define DICT_EPOCH_MAX ((1u << (DH_META_FLAGS_BITS - DICT_EPOCH_SHIFT)) - 1u)
#define DICT_COUNT_BITS 31u
#define DICT_COUNT_MAX (((uint64_t)1 << DICT_COUNT_BITS) - 1u)
/* Words of an entry. */
#define DICT_WIDTH 2u
#define SET_WIDTH 1u
#define DICT_TINY_ENTRIES 8u
#define DICT_CHUNK_BITS 12u
#define DICT_CHUNK_ENTRIES (1u << DICT_CHUNK_BITS)

#define DICT_GROUP_SLOTS 8u
#define DICT_BLOCK_GROUPS 8u
#define DICT_BUCKET_GROUPS 64u
#define DICT_SLOT_DELETED 0xffffffffu
/* Buckets below the full size double when a pair would stand this many groups from home: lookups
 * stay short where memory is no concern. Full-size ones use their whole block. */
#define DICT_PROBES_SMALL 3u
/* Top bits of the hash that can tell two buckets apart: the other six choose the group. */
#define DICT_DIR_BITS_MAX 26u

/* --- counts and flags ------------------------------------------------------------------------- */

static inline unsigned dict_form(const dh_word *head)
{
    return dh_meta_flags(head[DICT_META]) & ((1u << DICT_FORM_BITS) - 1u);
}
/* Where speed counts the width is a constant of the caller, who knows whether it is a dict. */
static inline unsigned dict_width(const dh_word *head)
{
    return dh_meta_flags(head[DICT_META]) & DICT_KEYS_ONLY ? SET_WIDTH : DICT_WIDTH;
}
static inline size_t dict_entry_bytes(unsigned width) { return width * sizeof(dh_word); }
/* How many entries fit: 8 or 16 bytes each, and no division. */
static inline uint64_t dict_entries_in(size_t bytes, unsigned width)
{
    return bytes >> (2u + width);
}
static inline uint64_t dict_live(const dh_word *head)
{
    return (head[DICT_COUNTS] >> 1) & DICT_COUNT_MAX;
}
static inline uint64_t dict_used(const dh_word *head)
{
    return (head[DICT_COUNTS] >> (1 + DICT_COUNT_BITS)) & DICT_COUNT_MAX;
}
static inline void dict_set_counts(dh_word *head, uint64_t used, uint64_t live)
{
    dh_store(&head[DICT_COUNTS],
             dh_int((int64_t)((used & DICT_COUNT_MAX) << DICT_COUNT_BITS | live)));
}
static inline void dict_set_form(dh_word *head, unsigned form)
{
    unsigned flags = dh_meta_flags(head[DICT_META]), epoch = flags >> DICT_EPOCH_SHIFT;
    epoch = (epoch + 1) & DICT_EPOCH_MAX;
    dh_store(&head[DICT_META],
             dh_meta(dh_meta_serial(head[DICT_META]),
                     epoch << DICT_EPOCH_SHIFT | (flags & DICT_KEYS_ONLY) | form));
}
/* `used` goes down: without a new epoch the version could come back. */
static inline void dict_new_epoch(dh_word *head) { dict_set_form(head, dict_form(head)); }

/* Inside one epoch `used` rises and `live` falls between insertions, so the counts never come
 * back; where they could, the epoch changes. */
static inline uint64_t dict_version(const dh_word *head)
{
    uint64_t epoch = dh_meta_flags(head[DICT_META]) >> DICT_EPOCH_SHIFT;
    return (head[DICT_COUNTS] >> 1) + epoch * 0x9e3779b97f4a7c15u;
}

/* Leaves "a dict's <what> is damaged" as the error text; always DH_E_CORRUPT. */
int dhi_dict_corrupt(const dh_heap *heap, const char *what) __attribute__((cold));
/* The constant is visible to the compiler, the sentence is out of the way. */
static inline int dict_corrupt(const dh_heap *heap, const char *what)
{
    (void)dhi_dict_corrupt(heap, what);
    return DH_E_CORRUPT;
}

/* --- index ------------------------------------------------------------------------------------ */

typedef struct {
    uint32_t hash[DICT_GROUP_SLOTS];
    uint32_t entry[DICT_GROUP_SLOTS]; /* 0: empty, DICT_SLOT_DELETED, else number + 1 */
} dict_group;

typedef struct {
    dict_group *groups;
    unsigned groups_count; /* power of two, 2..64; 0 when damaged */
} dict_bucket;

static inline uint32_t dict_hash(const dh_key *key) { return (uint32_t)(key->hash >> 32); }

static inline unsigned dict_log2(size_t n) { return 63u - (unsigned)__builtin_clzll(n); }

/* Bit i: word[i] == needle. */
static inline unsigned dict_match8(const uint32_t word[8], uint32_t needle)
{
#if defined(__SSE2__)
    __m128i n = _mm_set1_epi32((int)needle);
    __m128i a = _mm_cmpeq_epi32(_mm_loadu_si128((const __m128i *)(const void *)word), n);
    __m128i b = _mm_cmpeq_epi32(_mm_loadu_si128((const __m128i *)(const void *)(word + 4)), n);
    __m128i both = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_setzero_si128());
    return (unsigned)_mm_movemask_epi8(both);
#else
    unsigned bits = 0;
    for (unsigned i = 0; i < 8; i++)
        bits |= (unsigned)(word[i] == needle) << i;
    return bits;
#endif
}

/* Bit i: byte i of the fingerprints may be that of hash. */
static inline unsigned dict_match_tiny(dh_word fingerprints, uint64_t hash)
{
    uint64_t pattern = ((hash & 0xffu) * 0x0101010101010101u) | 1u;
#if defined(__SSE2__)
    __m128i a = _mm_cvtsi64_si128((long long)fingerprints);
    __m128i b = _mm_cvtsi64_si128((long long)pattern);
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) & 0xffu;
#else
    unsigned bits = 0;
    for (unsigned i = 0; i < 8; i++)
        bits |= (unsigned)((((fingerprints ^ pattern) >> (8 * i)) & 0xffu) == 0) << i;
    return bits;
#endif
}

/* The fingerprint byte of entry `number` (below 8) becomes that of hash; bit 0 of the word is 1. */
static inline dh_word dict_fingerprint_set(dh_word fingerprints, unsigned number, uint64_t hash)
{
    fingerprints &= ~((uint64_t)0xff << 8 * number);
    return fingerprints | (hash & 0xffu) << 8 * number | 1u;
}

/* Probing never leaves a block: this many groups at most. */
static inline unsigned dict_probes(const dict_bucket *bucket)
{
    return bucket->groups_count < DICT_BLOCK_GROUPS ? bucket->groups_count : DICT_BLOCK_GROUPS;
}

static inline dict_bucket dict_bucket_at(const dh_heap *heap, dh_word w)
{
    dict_bucket bucket = {NULL, 0};
    size_t bytes;
    dict_group *groups = dhi_page_span(heap, w, DH_T_BUCKET, &bytes);
    if (DH_UNLIKELY(groups == NULL || bytes < 2 * sizeof(dict_group)))
        return bucket;
    bucket.groups = groups;
    bucket.groups_count = 1u << dict_log2(bytes / sizeof(dict_group));
    return bucket;
}

/* The refs of a DIR and the log2 of their number; NULL when damaged. */
static inline dh_word *dict_dir_at(const dh_heap *heap, dh_word w, unsigned *bits_out)
{
    size_t bytes;
    dh_word *slots = dhi_page_span(heap, w, DH_T_DIR, &bytes);
    if (DH_UNLIKELY(slots == NULL))
        return NULL;
    *bits_out = dict_log2(bytes / 8);
    return slots;
}

/* A bucket under a DIR owns a page: what lies there is memory of the arena, whatever it holds. */
static inline dict_bucket dict_bucket_page(const dh_heap *heap, dh_word w)
{
    dh_off off = dh_ref_off(w);
    if (DH_UNLIKELY(heap->lazy != NULL)) /* it may not have been brought in (L1) */
        return dict_bucket_at(heap, w);
    if (DH_UNLIKELY(!dh_is_ref_to(w, DH_T_BUCKET) || (off & (DH_PAGE_BYTES - 1)) != 0 ||
                    off >> DH_PAGE_SHIFT >= heap->arena.hwm_pages))
        return (dict_bucket){NULL, 0};
    return (dict_bucket){dh_at(heap, off), DICT_BUCKET_GROUPS};
}

/* The bucket for a hash; groups_count 0 when damaged. */
static inline dict_bucket dict_bucket_find(const dh_heap *heap, dh_word index, uint32_t hash)
{
    unsigned taken = 0;
    if (!dh_is_ref_to(index, DH_T_DIR))
        return dict_bucket_at(heap, index);
    do {
        unsigned bits;
        const dh_word *slots = dict_dir_at(heap, index, &bits);
        if (DH_UNLIKELY(slots == NULL || taken + bits > 32u))
            break;
        index = slots[(hash << taken) >> (32u - bits)];
        taken += bits;
    } while (DH_UNLIKELY(dh_is_ref_to(index, DH_T_DIR)));
    return dict_bucket_page(heap, index);
}

/* dict_index.c. The index is the word at *index (the head's, or one in a test). */
int dhi_index_new(dh_heap *heap, unsigned groups_count, dh_word *index_out) DH_MUST_USE;
/* Put a pair into a bucket whose block has room (else false). */
bool dhi_bucket_put(const dict_bucket *bucket, uint32_t hash, uint32_t entry);
/* Where the next pair with that hash goes: splits and doubles until there is a slot. */
int dhi_index_reserve(dh_heap *heap, dh_word *index, uint32_t hash, dict_group **group_out,
                      unsigned *slot_out) DH_MUST_USE;
/* Take the pair out of its slot. */
void dhi_index_remove(dict_bucket bucket, dict_group *group, unsigned slot);
/* Join half-empty neighbours where a pair with that hash was; gives pages back. */
void dhi_index_shrink(dh_heap *heap, dh_word *index, uint32_t hash);
/* The slot that holds this pair, NULL when there is none. */
dict_group *dhi_index_locate(const dh_heap *heap, dh_word index, uint32_t hash, uint32_t entry,
                             unsigned *slot_out);
void dhi_index_free(dh_heap *heap, dh_word index);

/* Called once per bucket with the hash bits that lead to it. Nonzero ends the walk. */
typedef int (*dhi_bucket_visit)(void *context, dict_bucket bucket, uint32_t prefix,
                                unsigned prefix_bits);
int dhi_index_walk(const dh_heap *heap, dh_word index, dhi_bucket_visit visit, void *context);

/* --- entries ---------------------------------------------------------------------------------- */

/* Entry of a small or tiny dict; NULL outside the cell. */
static inline dh_word *dict_small_entry(const dh_heap *heap, const dh_word *head, uint64_t number)
{
    size_t bytes;
    unsigned width = dict_width(head);
    dh_word *entries = dhi_span(heap, head[DICT_ENTRIES], DH_T_ENTRIES, &bytes);
    if (DH_UNLIKELY(entries == NULL || number >= dict_entries_in(bytes, width)))
        return NULL;
    return entries + number * width;
}

/* The same for a lookup: of a number that leads out of the cell it only sees that the entry lies in
 * the arena, where nothing but a wrong key can be met. */
static inline dh_word *dict_small_entry_hot(const dh_heap *heap, const dh_word *head,
                                            uint32_t number, unsigned width)
{
    dh_word w = head[DICT_ENTRIES];
    dh_off off = dh_ref_off(w) + number * (dh_off)dict_entry_bytes(width);
    if (DH_UNLIKELY(heap->lazy != NULL)) /* it may not have been brought in (L1) */
        return dict_small_entry(heap, head, number);
    if (DH_UNLIKELY(!dh_is_ref_to(w, DH_T_ENTRIES) || (off & (dict_entry_bytes(width) - 1)) != 0 ||
                    off >> DH_PAGE_SHIFT >= heap->arena.hwm_pages))
        return NULL;
    return dh_at(heap, off);
}

/* Words of a BIG cell; all but the vec are ints, rows count from 1, 0 is none. */
enum {
    BIG_ROWS = 0, /* vec of rows                                             */
    BIG_FIRST = DH_VEC_WORDS,
    BIG_LAST,
    BIG_FREE,   /* unused rows, linked by next                               */
    BIG_SLOTS,  /* sum of used over all chunks                               */
    BIG_CURSOR, /* row that the search for a sparse chunk has come to        */
    BIG_TARGET, /* row that compaction moves entries into                    */
    BIG_CHUNKS, /* chunks there are                                          */
    BIG_WORDS
};
#define BIG_BYTES (BIG_WORDS * 8u)
/* A row of the chunk table. */
enum {
    ROW_CHUNK = 0,  /* ref ENTRIES, EMPTY in an unused row                  */
    ROW_COUNTS = 1, /* int: live << 16 | used                               */
    ROW_LINKS = 2,  /* int: previous << 31 | next                           */
    ROW_SPARE = 3,
    ROW_WORDS = 4
};
#define DICT_ROWS_MAX ((1u << (32u - DICT_CHUNK_BITS)) - 1u)

static inline dh_word *dict_big_at(const dh_heap *heap, const dh_word *head)
{
    return dh_deref(heap, head[DICT_ENTRIES], DH_T_BIG, BIG_BYTES);
}

/* Row counted from 0; NULL beyond the table. */
static inline dh_word *dict_row_at(const dh_heap *heap, const dh_word *big, uint64_t row)
{
    uint64_t span;
    dh_word *words = dh_vec_slot(heap, big + BIG_ROWS, row * ROW_WORDS, &span);
    return DH_LIKELY(words != NULL && span >= ROW_WORDS) ? words : NULL;
}

/* Fields of BIG and of rows. */
#define BIG_LINK_BITS 31u
#define BIG_LINK_MASK (((uint64_t)1 << BIG_LINK_BITS) - 1u)

static inline uint64_t big_int(const dh_word *big, unsigned at)
{
    return (uint64_t)dh_int_value(big[at]);
}
static inline void big_set(dh_word *big, unsigned at, uint64_t v)
{
    dh_store(&big[at], dh_int((int64_t)v));
}

static inline uint64_t row_used(const dh_word *row) { return (row[ROW_COUNTS] >> 1) & 0xffffu; }
static inline uint64_t row_live(const dh_word *row) { return (row[ROW_COUNTS] >> 17) & 0xffffu; }
static inline void row_set_counts(dh_word *row, uint64_t used, uint64_t live)
{
    dh_store(&row[ROW_COUNTS], dh_int((int64_t)(live << 16 | used)));
}
static inline uint64_t row_next(const dh_word *row)
{
    return (row[ROW_LINKS] >> 1) & BIG_LINK_MASK;
}
static inline uint64_t row_prev(const dh_word *row)
{
    return (row[ROW_LINKS] >> (1 + BIG_LINK_BITS)) & BIG_LINK_MASK;
}
static inline void row_set_links(dh_word *row, uint64_t prev, uint64_t next)
{
    dh_store(&row[ROW_LINKS], dh_int((int64_t)(prev << BIG_LINK_BITS | next)));
}

/* Row by its link, which counts from 1. */
static inline dh_word *big_row(const dh_heap *heap, const dh_word *big, uint64_t link)
{
    return link == 0 ? NULL : dict_row_at(heap, big, link - 1);
}

static inline uint64_t big_rows_count(const dh_word *big)
{
    uint64_t count = dh_vec_length(big + BIG_ROWS) / ROW_WORDS;
    return count < DICT_ROWS_MAX ? count : DICT_ROWS_MAX;
}

/* The chunk's entries, all `used` of them inside the cell. */
static inline dh_word *row_entries(const dh_heap *heap, const dh_word *row, unsigned width)
{
    size_t bytes;
    dh_word *entries = dhi_span(heap, row[ROW_CHUNK], DH_T_ENTRIES, &bytes);
    return entries != NULL && row_used(row) <= dict_entries_in(bytes, width) ? entries : NULL;
}

static inline dh_word *dict_row_entry(const dh_heap *heap, const dh_word *row, uint64_t slot,
                                      unsigned width)
{
    size_t bytes;
    dh_word *chunk = dhi_span(heap, row[ROW_CHUNK], DH_T_ENTRIES, &bytes);
    return DH_LIKELY(chunk != NULL && slot < dict_entries_in(bytes, width)) ? chunk + slot * width
                                                                            : NULL;
}

static inline dh_word *dict_big_entry(const dh_heap *heap, const dh_word *head, uint32_t number,
                                      unsigned width)
{
    const dh_word *big = dict_big_at(heap, head);
    const dh_word *row = big == NULL ? NULL : dict_row_at(heap, big, number >> DICT_CHUNK_BITS);
    return row == NULL ? NULL
                       : dict_row_entry(heap, row, number & (DICT_CHUNK_ENTRIES - 1u), width);
}

static inline dh_word *dict_entry(const dh_heap *heap, const dh_word *head, uint32_t number)
{
    return dict_form(head) == DICT_BIG ? dict_big_entry(heap, head, number, dict_width(head))
                                       : dict_small_entry(heap, head, number);
}

/* DELETED, or DELETED with a slot above its lowest 8 bits. */
static inline bool dict_key_is_deleted(dh_word key) { return (key & 0xffu) == DH_DELETED; }
static inline bool dict_key_is_live(dh_word key)
{
    return key != DH_EMPTY && !dict_key_is_deleted(key);
}

/* First slot that may be live, from what entry 0 tells. */
static inline uint64_t dict_front(const dh_word *entries, uint64_t used)
{
    uint64_t front = 0;
    if (used > 0 && dict_key_is_deleted(entries[0]))
        front = entries[0] >> 8;
    return front < used ? front : 0;
}
/* Mark a slot as deleted and keep the front up to date. */
void dhi_entry_delete(dh_word *entries, uint64_t slot, uint64_t used, unsigned width);

/* dict_entries.c: tiny and small; they hand big dicts on. */
/* Make room for one more entry: may change the form, never the contents. */
int dhi_entries_room(dh_heap *heap, dh_word *head) DH_MUST_USE;
/* The room is there: store, count, return the entry's number. A set's value is its key. */
int dhi_entries_append(dh_heap *heap, dh_word *head, dh_word key, dh_word value,
                       uint32_t *number_out) DH_MUST_USE;
/* Take the entry out; its words are the caller's. Index slots are not touched. */
int dhi_entries_remove(dh_heap *heap, dh_word *head, uint32_t number) DH_MUST_USE;
int dhi_entries_next(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                     dh_word *value_out) DH_MUST_USE;
int dhi_entries_prev(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                     dh_word *value_out) DH_MUST_USE;
/* Free all storage and drop what it holds when asked: an empty tiny dict is left. */
void dhi_entries_clear(dh_heap *heap, dh_word *head);
int dhi_entries_reserve(dh_heap *heap, dh_word *head, uint64_t count) DH_MUST_USE;
/* After removals: give memory back when little is left. */
void dhi_entries_settle(dh_heap *heap, dh_word *head);
/* Upper half of the key's hash. */
int dhi_word_hash(const dh_heap *heap, dh_word key, uint32_t *hash_out) DH_MUST_USE;
/* An index cell for about that many entries. */
unsigned dhi_index_groups_for(uint64_t count);

/* dict_big.c */
int dhi_big_from_small(dh_heap *heap, dh_word *head) DH_MUST_USE;
int dhi_big_room(dh_heap *heap, dh_word *head) DH_MUST_USE;
int dhi_big_append(dh_heap *heap, dh_word *head, dh_word key, dh_word value, uint32_t *number_out)
    DH_MUST_USE;
int dhi_big_remove(dh_heap *heap, dh_word *head, uint32_t number) DH_MUST_USE;
int dhi_big_next(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out) DH_MUST_USE;
int dhi_big_prev(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out) DH_MUST_USE;
/* Free the chunks and their table; what the entries refer to is left alone. */
void dhi_big_free(dh_heap *heap, dh_word *head);
/* Few entries are left: back to one cell. Failing is harmless. */
void dhi_big_to_small(dh_heap *heap, dh_word *head);
/* Move a few entries of a sparse chunk when there are too many dead slots; failing is harmless. */
void dhi_big_compact(dh_heap *heap, dh_word *head);
int dhi_big_check(const dh_heap *heap, const dh_word *head) DH_MUST_USE;

/* dict.c, for set.c: a new head of that type; and what sets do with one, as dh_dict_get, _set and
 * _delete do it. */
int dhi_dict_new(dh_heap *heap, dh_type type, dh_word *dict_out) DH_MUST_USE;
int dhi_keys_find(const dh_heap *heap, const dh_word *head, const dh_key *key, dh_word *word_out)
    DH_MUST_USE;
int dhi_keys_add(dh_heap *heap, dh_word *head, const dh_key *key, dh_word key_word,
                 bool *was_new_out) DH_MUST_USE;
int dhi_keys_remove(dh_heap *heap, dh_word *head, const dh_key *key) DH_MUST_USE;

/* dict_check.c: dh_dict_check, the hashes in the index compared with the keys or not (tests
 * inject hashes). */
int dhi_dict_check(dh_heap *heap, dh_word dict, bool with_hashes) DH_MUST_USE;

/* What looking up each key once takes, counted in the index: for tests with keys that are chosen to
 * collide. Of a dict or set that has an index. */
typedef struct {
    uint64_t lookups_count;
    uint64_t groups_count;   /* looked at, of 8 slots each                           */
    uint64_t compares_count; /* keys compared: whose 32 bits of hash are the same    */
    uint64_t compares_max;   /* by one lookup                                        */
} dict_work;
int dhi_dict_work(const dh_heap *heap, dh_word dict, dict_work *work_out) DH_MUST_USE;

#endif

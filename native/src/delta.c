/* delta.c -- encode and decode chunks, entries and word diffs.
 *
 * Must never read or write outside the buffers it is given, whatever they hold: this is the code
 * that meets a damaged or hostile file first.
 */
#include "delta.h"

#include "crc32c.h"

#define CHUNK_MAGIC 0x314b4e4843594844u /* "DHYCHNK1" */

/* Runs are mostly a word or two long: a call, or the string instruction that compilers put in place
 * of a memcpy of unknown length, costs several times the copy. */
static inline void copy_words(uint8_t *to, const uint8_t *from, unsigned words_count)
{
    for (unsigned i = 0; i < words_count; i++)
        __builtin_memcpy(to + i * (size_t)8, from + i * (size_t)8, 8);
}

static void put_u16(uint8_t *at, uint16_t v) { memcpy(at, &v, 2); }
static void put_u32(uint8_t *at, uint32_t v) { memcpy(at, &v, 4); }
static void put_u64(uint8_t *at, uint64_t v) { memcpy(at, &v, 8); }
static uint16_t get_u16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, 2);
    return v;
}
static uint32_t get_u32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, 4);
    return v;
}
static uint64_t get_u64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, 8);
    return v;
}

/* 0 magic, 8 parent, 16 commit, 24 chunk index, 28 entries, 32 payload bytes, 36 reserved (0),
 * 40 crc of bytes 0..39, 44 crc of the body. */
void dh_chunk_header_encode(uint8_t *out, const dh_chunk_header *header, const uint8_t *body,
                            size_t body_bytes)
{
    put_u64(out, CHUNK_MAGIC);
    put_u64(out + 8, header->parent_id);
    put_u64(out + 16, header->commit_id);
    put_u32(out + 24, header->chunk_index);
    put_u32(out + 28, header->entries_count);
    put_u32(out + 32, header->payload_bytes);
    put_u32(out + 36, 0);
    put_u32(out + 40, dh_crc32c(0, out, 40));
    put_u32(out + 44, dh_crc32c(0, body, body_bytes));
}

int dh_chunk_header_decode(const uint8_t *bytes, size_t size, dh_chunk_header *header_out)
{
    if (size < DH_CHUNK_HEADER_BYTES || get_u64(bytes) != CHUNK_MAGIC ||
        get_u32(bytes + 40) != dh_crc32c(0, bytes, 40))
        return DH_E_FORMAT;
    header_out->parent_id = get_u64(bytes + 8);
    header_out->commit_id = get_u64(bytes + 16);
    header_out->chunk_index = get_u32(bytes + 24);
    header_out->entries_count = get_u32(bytes + 28);
    header_out->payload_bytes = get_u32(bytes + 32);
    uint64_t body =
        (uint64_t)header_out->entries_count * DH_ENTRY_BYTES + header_out->payload_bytes;
    if (body != size - DH_CHUNK_HEADER_BYTES ||
        get_u32(bytes + 44) != dh_crc32c(0, bytes + DH_CHUNK_HEADER_BYTES, (size_t)body))
        return DH_E_FORMAT;
    return 0;
}

void dh_entry_encode(uint8_t *out, const dh_delta_entry *entry)
{
    put_u32(out, entry->pgno);
    put_u32(out + 4, entry->checksum);
    put_u16(out + 8, entry->size);
    out[10] = entry->form;
    out[11] = 0;
}

int dh_entry_decode(const uint8_t *at, dh_delta_entry *entry_out)
{
    entry_out->pgno = get_u32(at);
    entry_out->checksum = get_u32(at + 4);
    entry_out->size = get_u16(at + 8);
    entry_out->form = at[10];
    switch (entry_out->form) {
    case DH_PAGE_DIFF:
    case DH_PAGE_FRESH:
        return entry_out->size <= DH_PAGE_BYTES ? 0 : DH_E_FORMAT;
    case DH_PAGE_WHOLE:
        return entry_out->size == DH_PAGE_BYTES ? 0 : DH_E_FORMAT;
    case DH_PAGE_FREED:
        return entry_out->size == 0 ? 0 : DH_E_FORMAT;
    default:
        return DH_E_FORMAT;
    }
}

/* Bit i set: word i of the eight differs. Blocks of 64 bytes: one cache line. */
static unsigned block_differs(const uint8_t *from, const uint8_t *to)
{
    uint64_t a[8], b[8], any = 0;
    unsigned mask = 0;

    memcpy(b, to, sizeof b);
    if (from != NULL)
        memcpy(a, from, sizeof a);
    else
        memset(a, 0, sizeof a);
    for (unsigned i = 0; i < 8; i++)
        any |= a[i] ^ b[i];
    if (any == 0)
        return 0;
    for (unsigned i = 0; i < 8; i++)
        mask |= (unsigned)(a[i] != b[i]) << i;
    return mask;
}

/* Most of a page that was written is as it was: what is equal is passed over in steps of this. */
#define SEGMENT_BYTES 512u

/* Differing words of a page as 8 x 64 bits; returns how many. */
static uint32_t page_differs(const uint8_t *from, const uint8_t *to, uint64_t mask_out[8])
{
    uint32_t words = 0;
    for (unsigned segment = 0; segment < DH_PAGE_BYTES / SEGMENT_BYTES; segment++) {
        size_t at = segment * (size_t)SEGMENT_BYTES;
        uint64_t mask = 0;
        if (from == NULL || memcmp(from + at, to + at, SEGMENT_BYTES) != 0) {
            for (unsigned block = 0; block < 8; block++, at += 64)
                mask |= (uint64_t)block_differs(from ? from + at : NULL, to + at) << (block * 8);
        }
        mask_out[segment] = mask;
        words += (uint32_t)__builtin_popcountll(mask);
    }
    return words;
}

static bool mask_test(const uint64_t mask[8], unsigned i)
{
    return (mask[i / 64] >> (i % 64)) & 1u;
}

static void mask_set_run(uint64_t mask[8], unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++)
        mask[i / 64] |= (uint64_t)1 << (i % 64);
}

static unsigned mask_next(const uint64_t mask[8], unsigned from)
{
    while (from < DH_PAGE_BYTES / 8) {
        uint64_t rest = mask[from / 64] >> (from % 64);
        if (rest != 0)
            return from + (unsigned)__builtin_ctzll(rest);
        from = (from / 64 + 1) * 64;
    }
    return DH_PAGE_BYTES / 8;
}

/* The words of `page` that the mask names, as runs. */
static size_t put_runs(const uint64_t mask[8], const uint8_t *page, uint8_t *out, size_t room)
{
    const unsigned page_words = DH_PAGE_BYTES / 8;
    size_t used = 0;

    for (unsigned first = mask_next(mask, 0); first < page_words;) {
        unsigned count = 1;
        while (first + count < page_words && count < DH_DIFF_RUN_WORDS_MAX &&
               mask_test(mask, first + count))
            count++;
        if (used + 2 + count * (size_t)8 > room)
            return DH_DIFF_TOO_LARGE;
        put_u16(out + used, (uint16_t)(first | (count - 1) << 9));
        copy_words(out + used + 2, page + first * (size_t)8, count);
        used += 2 + count * (size_t)8;
        first = mask_next(mask, first + count);
    }
    return used;
}

size_t dh_diff_encode(const uint8_t *from, const uint8_t *to, uint8_t *out, size_t room,
                      uint32_t *words_out)
{
    uint64_t mask[8];

    *words_out = page_differs(from, to, mask);
    if (*words_out * (size_t)8 > room)
        return DH_DIFF_TOO_LARGE;
    return put_runs(mask, to, out, room);
}

/* Write a diff's words to their places and note them in the mask. */
static void spread(const uint8_t *diff, size_t size, uint8_t *page, uint64_t mask[8])
{
    for (size_t at = 0; at < size;) {
        unsigned head = get_u16(diff + at), first = head & 511u, count = (head >> 9) + 1;
        copy_words(page + first * (size_t)8, diff + at + 2, count);
        mask_set_run(mask, first, count);
        at += 2 + count * (size_t)8;
    }
}

size_t dh_diff_merge(const uint8_t *first, size_t first_size, const uint8_t *second,
                     size_t second_size, uint8_t *out, size_t room)
{
    uint8_t page[DH_PAGE_BYTES]; /* only the words that the mask names are ever written or read */
    uint64_t mask[8] = {0};

    spread(first, first_size, page, mask);
    spread(second, second_size, page, mask);
    return put_runs(mask, page, out, room);
}

int dh_diff_apply(uint8_t *page, const uint8_t *diff, size_t size)
{
    size_t at = 0;
    while (at < size) {
        if (size - at < 2)
            return DH_E_FORMAT;
        unsigned head = get_u16(diff + at), first = head & 511u, count = (head >> 9) + 1;
        at += 2;
        if (first + count > DH_PAGE_BYTES / 8 || size - at < count * (size_t)8)
            return DH_E_FORMAT;
        copy_words(page + first * (size_t)8, diff + at, count);
        at += count * (size_t)8;
    }
    return 0;
}

/* encode.c -- compare captured pages with their committed image and write delta chunks.
 *
 * Runs without the world lock, from copies only. Must never look into the arena.
 * Pages are handled extent by extent: when what changed in one comes near the size of the extent,
 * the extent is listed as rebased (a new base file is written instead) and its entries are taken
 * back, so that bulk data is written once and not once more by the next fold.
 */
#include "encode.h"

#include <stdlib.h>

#include "crc32c.h"
#include "delta.h"

/* A rebase costs a file and two syncs: not worth it for less. */
#define REBASE_BYTES_MIN (1024u * 1024u)

/* A growing byte array. */
typedef struct {
    uint8_t *bytes;
    size_t size, room;
} byte_array;

typedef struct {
    dh_heap *heap;
    dh_capture *capture;
    byte_array entries, payload; /* of the chunk being filled */
    uint64_t parent_id, commit_id;
    size_t chunk_bytes;
    size_t freed_next;
    uint32_t entries_count;
} encoder;

uint32_t dh_page_changed_words(const dh_heap *heap, dh_pgno pgno, const uint8_t *bytes)
{
    uint8_t scratch[DH_PAGE_BYTES], none[8];
    uint32_t words;
    (void)dh_diff_encode(dh_image_read(heap, pgno, scratch), bytes, none, 0, &words);
    return words;
}

static int array_room(byte_array *array, size_t more)
{
    if (array->size + more <= array->room)
        return 0;
    size_t room = array->room ? array->room * 2 : 65536;
    while (room < array->size + more)
        room *= 2;
    uint8_t *bytes = realloc(array->bytes, room);
    if (bytes == NULL)
        return ENOMEM;
    array->bytes = bytes;
    array->room = room;
    return 0;
}

static int add_entry(encoder *enc, const dh_delta_entry *entry)
{
    int rc = array_room(&enc->entries, DH_ENTRY_BYTES);
    if (rc != 0)
        return rc;
    dh_entry_encode(enc->entries.bytes + enc->entries.size, entry);
    enc->entries.size += DH_ENTRY_BYTES;
    enc->entries_count++;
    return 0;
}

static int encode_page(encoder *enc, dh_pgno pgno, const uint8_t *bytes)
{
    uint8_t scratch[DH_PAGE_BYTES];
    const uint8_t *image = dh_image_read(enc->heap, pgno, scratch);
    dh_commit_stats *stats = &enc->capture->stats;
    uint32_t words;
    int rc = array_room(&enc->payload, DH_PAGE_BYTES);

    if (rc != 0)
        return rc;
    uint8_t *out = enc->payload.bytes + enc->payload.size;
    size_t size = dh_diff_encode(image, bytes, out, DH_DIFF_BYTES_MAX, &words);
    bool is_new = image == dh_zero_page;
    if (words == 0)
        return 0; /* written, but with what was there before; a new page of zeros is its image too */
    dh_delta_entry entry = {pgno, dh_page_checksum(bytes), (uint16_t)size,
                            is_new ? DH_PAGE_FRESH : DH_PAGE_DIFF};
    if (size == DH_DIFF_TOO_LARGE) {
        memcpy(out, bytes, DH_PAGE_BYTES);
        entry.size = DH_PAGE_BYTES;
        entry.form = DH_PAGE_WHOLE;
        stats->whole_pages_count++;
    }
    enc->payload.size += entry.size;
    stats->changed_bytes += words * (uint64_t)8;
    stats->pages_count++;
    stats->data_pages_count += !(pgno & DH_PGNO_TABLE);
    return add_entry(enc, &entry);
}

/* Freed pages of extents up to this one. */
static int encode_freed(encoder *enc, uint32_t extent_no)
{
    const dh_capture *capture = enc->capture;
    int rc = 0;
    while (rc == 0 && enc->freed_next < capture->freed_count &&
           dh_extent_of(capture->freed[enc->freed_next]) <= extent_no) {
        dh_delta_entry entry = {capture->freed[enc->freed_next++], 0, 0, DH_PAGE_FREED};
        rc = add_entry(enc, &entry);
        enc->capture->stats.pages_count++;
        enc->capture->stats.data_pages_count++;
    }
    return rc;
}

static int close_chunk(encoder *enc)
{
    dh_capture *capture = enc->capture;
    size_t size = DH_CHUNK_HEADER_BYTES + enc->entries.size + enc->payload.size;

    if (enc->entries_count == 0)
        return 0;
    dh_chunk *chunks = realloc(capture->chunks, (capture->chunks_count + 1) * sizeof *chunks);
    if (chunks == NULL)
        return ENOMEM;
    capture->chunks = chunks;
    uint8_t *bytes = malloc(size);
    if (bytes == NULL)
        return ENOMEM;
    memcpy(bytes + DH_CHUNK_HEADER_BYTES, enc->entries.bytes, enc->entries.size);
    memcpy(bytes + DH_CHUNK_HEADER_BYTES + enc->entries.size, enc->payload.bytes,
           enc->payload.size);
    dh_chunk_header header = {enc->parent_id, enc->commit_id, (uint32_t)capture->chunks_count,
                              enc->entries_count, (uint32_t)enc->payload.size};
    dh_chunk_header_encode(bytes, &header, bytes + DH_CHUNK_HEADER_BYTES,
                           size - DH_CHUNK_HEADER_BYTES);
    capture->chunks[capture->chunks_count++] = (dh_chunk){bytes, size};
    capture->stats.delta_bytes += size;
    enc->entries.size = enc->payload.size = 0;
    enc->entries_count = 0;
    return 0;
}

static uint64_t extent_used_bytes(const dh_capture *capture, uint32_t extent_no)
{
    uint64_t pages = capture->state.hwm_pages, first = (uint64_t)extent_no * DH_EXTENT_PAGES;
    if (extent_no >= DH_EXTENT_TABLE) {
        pages = dh_table_pages_for(pages);
        first -= (uint64_t)DH_EXTENT_TABLE * DH_EXTENT_PAGES;
    }
    uint64_t used = pages > first ? pages - first : 0;
    return (used < DH_EXTENT_PAGES ? used : DH_EXTENT_PAGES) * DH_PAGE_BYTES;
}

static int add_rebased(dh_capture *capture, uint32_t extent_no)
{
    uint32_t *rebased = realloc(capture->rebased, (capture->rebased_count + 1) * sizeof *rebased);
    if (rebased == NULL)
        return ENOMEM;
    capture->rebased = rebased;
    capture->rebased[capture->rebased_count++] = extent_no;
    return 0;
}

/* Captured pages [from, to) lie in one extent. */
static int encode_extent(encoder *enc, size_t from, size_t to)
{
    dh_capture *capture = enc->capture;
    uint32_t extent_no = dh_extent_of(capture->pages[from]);
    int rc = extent_no > 0 ? encode_freed(enc, extent_no - 1) : 0;
    size_t entries_size = enc->entries.size, payload_size = enc->payload.size;
    uint32_t entries_count = enc->entries_count;
    uint64_t changed_before = capture->stats.changed_bytes;

    if (rc == 0)
        rc = encode_freed(enc, extent_no);
    for (size_t i = from; rc == 0 && i < to; i++)
        rc = encode_page(enc, capture->pages[i], capture->bytes + i * DH_PAGE_BYTES);
    if (rc != 0)
        return rc;
    uint64_t changed = capture->stats.changed_bytes - changed_before;
    if (changed >= REBASE_BYTES_MIN && changed * 2 > extent_used_bytes(capture, extent_no)) {
        enc->entries.size = entries_size;
        enc->payload.size = payload_size;
        enc->entries_count = entries_count;
        return add_rebased(capture, extent_no);
    }
    if (enc->entries.size + enc->payload.size >= enc->chunk_bytes)
        return close_chunk(enc);
    return 0;
}

static int encode_all(encoder *enc)
{
    const dh_capture *capture = enc->capture;
    size_t from = 0;
    int rc = 0;

    while (rc == 0 && from < capture->pages_count) {
        size_t to = from + 1;
        while (to < capture->pages_count &&
               dh_extent_of(capture->pages[to]) == dh_extent_of(capture->pages[from]))
            to++;
        rc = encode_extent(enc, from, to);
        from = to;
    }
    if (rc == 0)
        rc = encode_freed(enc, UINT32_MAX);
    return rc == 0 ? close_chunk(enc) : rc;
}

int dh_commit_encode(dh_heap *heap, dh_capture *capture, uint64_t parent_id, uint64_t commit_id,
                     size_t chunk_bytes)
{
    encoder enc = {.heap = heap,
                   .capture = capture,
                   .parent_id = parent_id,
                   .commit_id = commit_id,
                   .chunk_bytes = chunk_bytes};
    uint64_t began_ns = dhi_clock_ns();
    int rc = dhi_fault("commit.encode");

    DH_ASSERT(capture->is_commit && capture->chunks_count == 0);
    if (rc == 0)
        rc = encode_all(&enc);
    free(enc.entries.bytes);
    free(enc.payload.bytes);
    capture->stats.encode_ns = dhi_clock_ns() - began_ns;
    return rc;
}

size_t dh_commit_chunks_count(const dh_capture *capture) { return capture->chunks_count; }

const uint8_t *dh_commit_chunk(const dh_capture *capture, size_t index, size_t *size_out)
{
    DH_ASSERT(index < capture->chunks_count);
    *size_out = capture->chunks[index].size;
    return capture->chunks[index].bytes;
}

size_t dh_commit_rebased_count(const dh_capture *capture) { return capture->rebased_count; }

uint32_t dh_commit_rebased_extent(const dh_capture *capture, size_t index)
{
    DH_ASSERT(index < capture->rebased_count);
    return capture->rebased[index];
}

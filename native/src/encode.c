/* encode.c -- compare captured pages with their committed image and write delta chunks.
 *
 * Runs without the world lock, from copies only. Must never look into the arena.
 * Pages are handled extent by extent: when what changed in one comes near the size of the extent,
 * the extent is listed as rebased (a new base file is written instead) and its entries are taken
 * back, so that bulk data is written once and not once more by the next fold.
 *
 * Many pages are shared between two threads, split between extents; each makes chunks of its own,
 * which are numbered and sealed when both are done. Threads only read the heap.
 */
#include "encode.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "crc32c.h"
#include "delta.h"
#include "precopy.h"

/* A rebase costs a file and two syncs: not worth it for less. */
#define REBASE_BYTES_MIN (1024u * 1024u)

/* The engine gives a value of more than about half a page whole pages of its own, with a head of 16
 * bytes in the first; a smaller one stands beside its key, on a page that is written anyway. */
#define ENGINE_HEAD_BYTES 16u
#define BESIDE_KEY_BYTES_MAX 1024u

/* A growing byte array. */
typedef struct {
    uint8_t *bytes;
    size_t size, room;
} byte_array;

/* Fewer pages are encoded in less time than a thread needs to come to them. */
#define TWO_THREADS_PAGES_MIN 1024u

/* One thread's share: captured pages [from, to) and freed ones [freed_next, freed_end). */
typedef struct {
    const dh_heap *heap;
    const dh_capture *capture;
    size_t from, to, freed_next, freed_end;
    size_t chunk_bytes;
    byte_array entries, payload; /* of the chunk being filled */
    uint32_t entries_count;
    dh_chunk *chunks; /* closed, but for their headers */
    size_t chunks_count;
    uint32_t *rebased;
    size_t rebased_count;
    dh_commit_stats stats; /* only what is counted here */
    int rc;
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
    dh_commit_stats *stats = &enc->stats;
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

/* A freed page of a staged extent: its file will be patched. */
static void count_freed_staged(encoder *enc, dh_pgno pgno)
{
    dh_table_entry committed;
    dh_table_read(&enc->heap->table, pgno, &committed);
    dhi_stats_unstage(enc->heap, enc->capture, pgno, &enc->stats);
    enc->stats.pages_count += committed.kind != DH_KIND_FREE;
    enc->stats.data_pages_count += committed.kind != DH_KIND_FREE;
}

/* Freed pages of extents up to this one. */
static int encode_freed(encoder *enc, uint32_t extent_no)
{
    const dh_capture *capture = enc->capture;
    int rc = 0;
    while (rc == 0 && enc->freed_next < enc->freed_end &&
           dh_extent_of(capture->freed[enc->freed_next]) <= extent_no) {
        dh_delta_entry entry = {capture->freed[enc->freed_next++], 0, 0, DH_PAGE_FREED};
        if (dhi_is_staged(capture, dh_extent_of(entry.pgno))) {
            count_freed_staged(enc, entry.pgno);
            continue;
        }
        rc = add_entry(enc, &entry);
        enc->stats.pages_count++;
        enc->stats.data_pages_count++;
    }
    return rc;
}

static int close_chunk(encoder *enc)
{
    size_t size = DH_CHUNK_HEADER_BYTES + enc->entries.size + enc->payload.size;

    if (enc->entries_count == 0)
        return 0;
    dh_chunk *chunks = realloc(enc->chunks, (enc->chunks_count + 1) * sizeof *chunks);
    if (chunks == NULL)
        return ENOMEM;
    enc->chunks = chunks;
    uint8_t *bytes = malloc(size);
    if (bytes == NULL)
        return ENOMEM;
    memcpy(bytes + DH_CHUNK_HEADER_BYTES, enc->entries.bytes, enc->entries.size);
    memcpy(bytes + DH_CHUNK_HEADER_BYTES + enc->entries.size, enc->payload.bytes,
           enc->payload.size);
    enc->chunks[enc->chunks_count++] =
        (dh_chunk){bytes, size, enc->entries_count, (uint32_t)enc->payload.size};
    enc->stats.delta_bytes += size;
    enc->entries.size = enc->payload.size = 0;
    enc->entries_count = 0;
    return 0;
}

/* The first entries of the chunk being filled become a chunk; the others stay. */
static int close_first(encoder *enc, uint32_t count, size_t payload_size)
{
    size_t entries_left = enc->entries.size - count * (size_t)DH_ENTRY_BYTES;
    size_t payload_left = enc->payload.size - payload_size;
    uint32_t count_left = enc->entries_count - count;

    enc->entries.size -= entries_left;
    enc->payload.size -= payload_left;
    enc->entries_count = count;
    int rc = close_chunk(enc);
    if (rc != 0)
        return rc;
    memmove(enc->entries.bytes, enc->entries.bytes + count * (size_t)DH_ENTRY_BYTES, entries_left);
    memmove(enc->payload.bytes, enc->payload.bytes + payload_size, payload_left);
    enc->entries.size = entries_left;
    enc->payload.size = payload_left;
    enc->entries_count = count_left;
    return 0;
}

/* What little of the last chunk lies beyond a whole page of the engine becomes a chunk of its own:
 * most commits are of one chunk, and this is one page less of some eight to write. */
static int close_last(encoder *enc)
{
    size_t size = DH_CHUNK_HEADER_BYTES + enc->entries.size + enc->payload.size;
    size_t pages = (size + ENGINE_HEAD_BYTES) / DH_PAGE_BYTES, first = DH_CHUNK_HEADER_BYTES;
    size_t payload_size = 0;
    uint32_t count = 0;

    if (pages == 0)
        return close_chunk(enc);
    while (count < enc->entries_count) {
        dh_delta_entry entry;
        int rc = dh_entry_decode(enc->entries.bytes + count * (size_t)DH_ENTRY_BYTES, &entry);
        DH_ASSERT(rc == 0); /* our own */
        if (first + DH_ENTRY_BYTES + entry.size > pages * DH_PAGE_BYTES - ENGINE_HEAD_BYTES)
            break;
        first += DH_ENTRY_BYTES + entry.size;
        payload_size += entry.size;
        count++;
    }
    bool is_rest_small = size - first + DH_CHUNK_HEADER_BYTES <= BESIDE_KEY_BYTES_MAX;
    if (count > 0 && count < enc->entries_count && is_rest_small) {
        int rc = close_first(enc, count, payload_size);
        if (rc != 0)
            return rc;
    }
    return close_chunk(enc);
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

static int add_rebased(encoder *enc, uint32_t extent_no)
{
    uint32_t *rebased = realloc(enc->rebased, (enc->rebased_count + 1) * sizeof *rebased);
    if (rebased == NULL)
        return ENOMEM;
    enc->rebased = rebased;
    enc->rebased[enc->rebased_count++] = extent_no;
    return 0;
}

bool dh_rebase_is_cheaper(const dh_capture *capture, uint32_t extent_no, uint64_t changed_bytes)
{
    return changed_bytes >= REBASE_BYTES_MIN &&
           changed_bytes * 2 > extent_used_bytes(capture, extent_no);
}

static int count_staged(encoder *enc, size_t from, size_t to)
{
    const dh_capture *capture = enc->capture;
    for (size_t i = from; i < to; i++)
        dhi_stats_restage(enc->heap, capture, capture->pages[i],
                          capture->bytes + i * (size_t)DH_PAGE_BYTES, &enc->stats);
    return 0;
}

/* Captured pages [from, to) lie in one extent. */
static int encode_extent(encoder *enc, size_t from, size_t to)
{
    const dh_capture *capture = enc->capture;
    uint32_t extent_no = dh_extent_of(capture->pages[from]);
    int rc = extent_no > 0 ? encode_freed(enc, extent_no - 1) : 0;
    size_t entries_size = enc->entries.size, payload_size = enc->payload.size;
    uint32_t entries_count = enc->entries_count;
    uint64_t changed_before = enc->stats.changed_bytes;

    if (rc == 0)
        rc = encode_freed(enc, extent_no);
    if (rc == 0 && dhi_is_staged(capture, extent_no))
        return count_staged(enc, from, to); /* the file is patched instead */
    for (size_t i = from; rc == 0 && i < to; i++)
        rc = encode_page(enc, capture->pages[i], capture->bytes + i * DH_PAGE_BYTES);
    if (rc != 0)
        return rc;
    uint64_t changed = enc->stats.changed_bytes - changed_before;
    if (dh_rebase_is_cheaper(capture, extent_no, changed)) {
        enc->entries.size = entries_size;
        enc->payload.size = payload_size;
        enc->entries_count = entries_count;
        return add_rebased(enc, extent_no);
    }
    if (enc->entries.size + enc->payload.size >= enc->chunk_bytes)
        return close_chunk(enc);
    return 0;
}

static void *encode_share(void *context)
{
    encoder *enc = context;
    const dh_pgno *pages = enc->capture->pages;
    size_t from = enc->from;

    while (enc->rc == 0 && from < enc->to) {
        size_t to = from + 1;
        while (to < enc->to && dh_extent_of(pages[to]) == dh_extent_of(pages[from]))
            to++;
        enc->rc = encode_extent(enc, from, to);
        from = to;
    }
    if (enc->rc == 0)
        enc->rc = encode_freed(enc, UINT32_MAX);
    if (enc->rc == 0)
        enc->rc = close_last(enc);
    return NULL;
}

/* --- two threads ------------------------------------------------------------------------------ */

/* The first page of the extent that begins nearest behind the middle; pages_count: there is none. */
static size_t split_place(const dh_capture *capture)
{
    size_t at = capture->pages_count / 2;
    while (at > 0 && at < capture->pages_count &&
           dh_extent_of(capture->pages[at]) == dh_extent_of(capture->pages[at - 1]))
        at++;
    return at;
}

/* Give what lies from the split on to the second encoder. */
static void split_work(encoder *first, encoder *second, size_t at)
{
    const dh_capture *capture = first->capture;
    uint32_t extent_no = dh_extent_of(capture->pages[at]);
    size_t freed = 0;

    while (freed < capture->freed_count && dh_extent_of(capture->freed[freed]) < extent_no)
        freed++;
    first->to = second->from = at;
    first->freed_end = second->freed_next = freed;
}

/* Signals are for the threads of the application. Without a thread one does both. */
static void encode_both(encoder *first, encoder *second)
{
    sigset_t all, before;
    pthread_t thread;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, NULL, encode_share, second);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    encode_share(first);
    if (rc != 0)
        encode_share(second);
    else
        pthread_join(thread, NULL);
}

/* --- putting together ------------------------------------------------------------------------- */

static void add_stats(dh_commit_stats *sum, const dh_commit_stats *part)
{
    sum->pages_count += part->pages_count;
    sum->data_pages_count += part->data_pages_count;
    sum->whole_pages_count += part->whole_pages_count;
    sum->changed_bytes += part->changed_bytes;
    sum->delta_bytes += part->delta_bytes;
}

static void seal_chunk(dh_capture *capture, dh_chunk *chunk, uint64_t parent_id, uint64_t commit_id)
{
    dh_chunk_header header = {parent_id, commit_id, (uint32_t)capture->chunks_count,
                              chunk->entries_count, chunk->payload_bytes};
    dh_chunk_header_encode(chunk->bytes, &header, chunk->bytes + DH_CHUNK_HEADER_BYTES,
                           chunk->size - DH_CHUNK_HEADER_BYTES);
    capture->chunks[capture->chunks_count++] = *chunk;
    chunk->bytes = NULL; /* the capture's now */
}

/* Everything of both shares, in the order of pages; all or nothing. */
static int put_together(dh_capture *capture, encoder shares[2], uint64_t parent_id,
                        uint64_t commit_id)
{
    if (shares[0].rc != 0 || shares[1].rc != 0)
        return shares[0].rc != 0 ? shares[0].rc : shares[1].rc;
    capture->chunks =
        malloc((shares[0].chunks_count + shares[1].chunks_count + 1) * sizeof *capture->chunks);
    capture->rebased =
        malloc((shares[0].rebased_count + shares[1].rebased_count + 1) * sizeof *capture->rebased);
    if (capture->chunks == NULL || capture->rebased == NULL)
        return ENOMEM;
    for (int i = 0; i < 2; i++) {
        for (size_t c = 0; c < shares[i].chunks_count; c++)
            seal_chunk(capture, &shares[i].chunks[c], parent_id, commit_id);
        for (size_t r = 0; r < shares[i].rebased_count; r++)
            capture->rebased[capture->rebased_count++] = shares[i].rebased[r];
        add_stats(&capture->stats, &shares[i].stats);
    }
    return 0;
}

static void encoder_finish(encoder *enc)
{
    for (size_t i = 0; i < enc->chunks_count; i++)
        free(enc->chunks[i].bytes);
    free(enc->chunks);
    free(enc->rebased);
    free(enc->entries.bytes);
    free(enc->payload.bytes);
}

int dh_commit_encode(dh_heap *heap, dh_capture *capture, uint64_t parent_id, uint64_t commit_id,
                     size_t chunk_bytes)
{
    encoder whole = {.heap = heap,
                     .capture = capture,
                     .to = capture->pages_count,
                     .freed_end = capture->freed_count,
                     .chunk_bytes = chunk_bytes};
    encoder shares[2] = {whole, {.heap = heap, .capture = capture, .chunk_bytes = chunk_bytes}};
    uint64_t began_ns = dhi_clock_ns();
    int rc = dhi_fault("commit.encode");

    DH_ASSERT(capture->is_commit && capture->chunks_count == 0);
    if (rc == 0) {
        size_t at = split_place(capture);
        if (capture->pages_count < TWO_THREADS_PAGES_MIN || at == capture->pages_count) {
            encode_share(&shares[0]);
        } else {
            shares[1] = whole;
            split_work(&shares[0], &shares[1], at);
            encode_both(&shares[0], &shares[1]);
        }
        rc = put_together(capture, shares, parent_id, commit_id);
    }
    encoder_finish(&shares[0]);
    encoder_finish(&shares[1]);
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

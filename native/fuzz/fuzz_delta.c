/* fuzz_delta.c -- hostile bytes for what meets a file first: chunk, entry and diff decoding.
 *
 *   fuzz_delta [seed [rounds]]   deterministic: the same seed gives the same run
 *   libFuzzer                    compile with -DDH_LIBFUZZER -fsanitize=fuzzer,address
 *   DH_FUZZ_NO_MAIN              a test includes this file for a short run
 *
 * A chunk carries checksums of header and body, so that plain mutants die at the door. Every input is
 * therefore tried twice: as it is, and resealed (magic, sizes and checksums made right), which lets
 * damage reach the entries, the diffs and the loading heap. Each input lies in memory of exactly its
 * size: run it under AddressSanitizer. It must never depend on anything but its input and seed.
 */
#include "crc32c.h"
#include "delta.h"
#include "heap.h"
#include "lazy.h"

#include "../tests/check.h"

#define FUZZ_CHUNK_BYTES_MAX 65536u
#define FUZZ_PAGES_MAX 6u
#define FUZZ_MERGE_ROOM (DH_PAGE_BYTES + 2u * 512u) /* more than any diff of a page needs */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* How deep the inputs went. */
static struct {
    uint64_t chunks_read;
    uint64_t chunks_refused;
    uint64_t entries_refused;
    uint64_t diffs_applied;
    uint64_t diffs_refused;
    uint64_t heaps_loaded;
    uint64_t heaps_refused;
} fuzz_met;

static void fuzz_put(uint8_t *at, uint64_t value, size_t size) { memcpy(at, &value, size); }

static uint64_t fuzz_get(const uint8_t *at, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, at, size);
    return value;
}

/* --- one input ---------------------------------------------------------------------------------- */

/* Magic, sizes that add up and checksums; the rest stays as it is. */
static void fuzz_reseal(uint8_t *chunk, size_t size)
{
    static const char magic[8] = "DHYCHNK1";
    size_t body = size - DH_CHUNK_HEADER_BYTES;
    uint64_t entries = fuzz_get(chunk + 28, 4);

    memcpy(chunk, magic, sizeof(magic));
    if (entries * DH_ENTRY_BYTES > body)
        entries = body / DH_ENTRY_BYTES;
    fuzz_put(chunk + 28, entries, 4);
    fuzz_put(chunk + 32, body - entries * DH_ENTRY_BYTES, 4);
    fuzz_put(chunk + 40, dh_crc32c(0, chunk, 40), 4);
    fuzz_put(chunk + 44, dh_crc32c(0, chunk + DH_CHUNK_HEADER_BYTES, body), 4);
}

/* Two diffs merged have the effect of both. */
static void fuzz_merge(const uint8_t *first, size_t first_size, const uint8_t *second,
                       size_t second_size)
{
    static uint8_t both[DH_PAGE_BYTES], merged[DH_PAGE_BYTES], diff[FUZZ_MERGE_ROOM];
    size_t size = dh_diff_merge(first, first_size, second, second_size, diff, sizeof(diff));

    CHECK(size != DH_DIFF_TOO_LARGE);
    memset(both, 0xa5, sizeof(both));
    memset(merged, 0xa5, sizeof(merged));
    CHECK_EQ(dh_diff_apply(both, first, first_size), 0);
    CHECK_EQ(dh_diff_apply(both, second, second_size), 0);
    CHECK_EQ(dh_diff_apply(merged, diff, size), 0);
    CHECK_EQ(memcmp(both, merged, DH_PAGE_BYTES), 0);
}

/* Apply a payload, alone in memory of its size, to a page alone in its own; then merge with the
 * last one that was good. */
static void fuzz_payload(const uint8_t *payload, size_t size, uint8_t *last, size_t *last_size)
{
    uint8_t *copy = malloc(size + 1), *page = calloc(1, DH_PAGE_BYTES);
    int rc;

    CHECK(copy != NULL && page != NULL);
    copy = realloc(copy, size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, payload, size);
    rc = dh_diff_apply(page, copy, size);
    CHECK(rc == 0 || rc == DH_E_FORMAT);
    if (rc == 0) {
        fuzz_met.diffs_applied++;
        fuzz_merge(last, *last_size, copy, size);
        memcpy(last, copy, size);
        *last_size = size;
    } else {
        fuzz_met.diffs_refused++;
    }
    free(copy);
    free(page);
}

static void fuzz_entries(const uint8_t *chunk, const dh_chunk_header *header)
{
    static uint8_t last[DH_PAGE_BYTES];
    const uint8_t *entries = chunk + DH_CHUNK_HEADER_BYTES;
    const uint8_t *payload = entries + header->entries_count * (size_t)DH_ENTRY_BYTES;
    size_t left = header->payload_bytes, last_size = 0;

    for (uint32_t i = 0; i < header->entries_count; i++) {
        dh_delta_entry entry;
        int rc = dh_entry_decode(entries + i * (size_t)DH_ENTRY_BYTES, &entry);
        CHECK(rc == 0 || rc == DH_E_FORMAT);
        if (rc != 0 || entry.size > left) {
            fuzz_met.entries_refused++;
            return;
        }
        CHECK(entry.size <= DH_PAGE_BYTES);
        if (entry.form == DH_PAGE_DIFF || entry.form == DH_PAGE_FRESH)
            fuzz_payload(payload, entry.size, last, &last_size);
        payload += entry.size;
        left -= entry.size;
    }
}

/* Every page that the chunk speaks of, and every entry of the table that it makes. */
static void fuzz_apply(dh_heap *heap)
{
    heap->arena.hwm_pages = heap->arena.capacity_pages;
    for (uint32_t p = 0; p < heap->arena.capacity_pages; p++) {
        dh_backlog_slot *slot = dh_backlog_find(&heap->lazy->backlog, p);
        int rc = slot != NULL ? dh_backlog_apply(heap, slot, dh_arena_page(&heap->arena, p)) : 0;
        if (rc == 0)
            rc = dhi_lazy_admit(heap, p);
        CHECK(rc == 0 || rc == DH_E_CORRUPT);
    }
}

/* A heap takes the chunk or refuses it; either way it can be closed. */
static void fuzz_load(const uint8_t *chunk, size_t size)
{
    dh_options options = {.capacity_bytes = 1u << 20, .tracker = DH_TRACKER_COMPARE};
    dh_heap *heap;
    int rc;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    rc = dh_load_delta(heap, chunk, size);
    CHECK(rc == 0 || rc == DH_E_CORRUPT || rc == DH_E_FULL); /* a page beyond the capacity */
    if (rc == 0)
        fuzz_met.heaps_loaded++;
    else
        fuzz_met.heaps_refused++;
    if (rc == 0)
        fuzz_apply(heap);
    dh_heap_close(heap);
}

static void fuzz_chunk(const uint8_t *chunk, size_t size)
{
    dh_chunk_header header;
    int rc = dh_chunk_header_decode(chunk, size, &header);

    CHECK(rc == 0 || rc == DH_E_FORMAT);
    if (rc != 0) {
        fuzz_met.chunks_refused++;
        return;
    }
    fuzz_met.chunks_read++;
    fuzz_entries(chunk, &header);
    fuzz_load(chunk, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    uint8_t *chunk = malloc(size > 0 ? size : 1);

    CHECK(chunk != NULL);
    memcpy(chunk, bytes, size);
    fuzz_chunk(chunk, size);
    if (size >= DH_CHUNK_HEADER_BYTES) {
        fuzz_reseal(chunk, size);
        fuzz_chunk(chunk, size);
    }
    free(chunk);
    return 0;
}

/* --- inputs: sound chunks, then damaged ----------------------------------------------------------- */

/* `to` becomes `from` with some words, bytes or a stretch changed. */
static void fuzz_change_page(const uint8_t *from, uint8_t *to)
{
    uint64_t changes = check_random_below(40);

    memcpy(to, from, DH_PAGE_BYTES);
    for (uint64_t i = 0; i < changes; i++)
        to[check_random_below(DH_PAGE_BYTES)] = (uint8_t)check_random();
    if (check_random_below(4) == 0) {
        uint64_t first = check_random_below(DH_PAGE_BYTES);
        uint64_t count = check_random_below(DH_PAGE_BYTES - first + 1);
        memset(to + first, (int)check_random_below(256), (size_t)count);
    }
}

/* One entry and its payload, as a commit writes them. Returns the payload's size. */
static size_t fuzz_make_entry(uint8_t *entry_out, uint8_t *payload_out)
{
    uint8_t from[DH_PAGE_BYTES] = {0}, to[DH_PAGE_BYTES];
    uint32_t words;
    dh_delta_entry entry = {.pgno = (dh_pgno)(1 + check_random_below(200)), .form = DH_PAGE_DIFF};
    size_t size;

    fuzz_change_page(from, to);
    if (check_random_below(3) == 0)
        entry.form = DH_PAGE_FRESH;
    if (check_random_below(8) == 0)
        entry.pgno |= DH_PGNO_TABLE;
    size = dh_diff_encode(from, to, payload_out, DH_DIFF_BYTES_MAX, &words);
    if (size == DH_DIFF_TOO_LARGE) {
        memcpy(payload_out, to, DH_PAGE_BYTES);
        size = DH_PAGE_BYTES;
        entry.form = DH_PAGE_WHOLE;
    }
    entry.checksum = dh_page_checksum(to);
    if (check_random_below(10) == 0) {
        entry.form = DH_PAGE_FREED;
        size = 0;
    }
    entry.size = (uint16_t)size;
    dh_entry_encode(entry_out, &entry);
    return size;
}

/* A sound chunk; returns its size. */
static size_t fuzz_make_chunk(uint8_t *out)
{
    uint8_t *entries = out + DH_CHUNK_HEADER_BYTES, *payload;
    dh_chunk_header header = {.parent_id = check_random_below(9), .commit_id = 9};
    size_t used = 0;

    header.entries_count = (uint32_t)check_random_below(FUZZ_PAGES_MAX + 1);
    payload = entries + header.entries_count * (size_t)DH_ENTRY_BYTES;
    for (uint32_t i = 0; i < header.entries_count; i++)
        used += fuzz_make_entry(entries + i * (size_t)DH_ENTRY_BYTES, payload + used);
    header.payload_bytes = (uint32_t)used;
    dh_chunk_header_encode(out, &header, entries, (size_t)(payload - entries) + used);
    return (size_t)(payload - out) + used;
}

/* Numbers that are likely to hurt. */
static uint64_t fuzz_number(uint64_t old)
{
    static const uint64_t numbers[] = {
        0,    1,    2,      4,      127,    511,        512,        3072,       4095,
        4096, 4097, 0x7fff, 0xfe00, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX};
    uint64_t which = check_random_below(sizeof(numbers) / sizeof(numbers[0]) + 4);

    switch (which) {
    case 0:
        return old + 1;
    case 1:
        return old - 1;
    case 2:
        return check_random();
    case 3:
        return old ^ (uint64_t)1 << check_random_below(64);
    default:
        return numbers[which - 4];
    }
}

/* Where a number begins that means something: in the header, in an entry, at the head of a run. */
static size_t fuzz_field(const uint8_t *chunk, size_t size, size_t *bytes_out)
{
    static const uint8_t places[][2] = {{0, 8},  {8, 8},  {16, 8}, {24, 4},
                                        {28, 4}, {32, 4}, {36, 4}};
    static const uint8_t parts[][2] = {{0, 4}, {4, 4}, {8, 2}, {10, 1}, {11, 1}};
    uint64_t entries = fuzz_get(chunk + 28, 4), kind = check_random_below(4);
    size_t first = DH_CHUNK_HEADER_BYTES + (size_t)entries * DH_ENTRY_BYTES;
    const uint8_t *part = parts[check_random_below(sizeof(parts) / sizeof(parts[0]))];

    if (kind == 0 || entries == 0 || entries > FUZZ_PAGES_MAX || first >= size) {
        part = places[check_random_below(sizeof(places) / sizeof(places[0]))];
        *bytes_out = part[1];
        return part[0];
    }
    if (kind < 3) {
        *bytes_out = part[1];
        return DH_CHUNK_HEADER_BYTES + check_random_below(entries) * DH_ENTRY_BYTES + part[0];
    }
    *bytes_out = 2; /* the first payload's first run, or anywhere */
    return check_random_below(2) == 0 ? first : first + check_random_below(size - first);
}

static size_t fuzz_damage_size(uint8_t *chunk, size_t size)
{
    size_t more = check_random_below(64);

    if (check_random_below(2) == 0)
        return check_random_below(size + 1);
    if (size + more > FUZZ_CHUNK_BYTES_MAX)
        return size;
    for (size_t i = 0; i < more; i++)
        chunk[size + i] = (uint8_t)check_random();
    return size + more;
}

/* One mutation; returns the new size. */
static size_t fuzz_damage(uint8_t *chunk, size_t size)
{
    size_t bytes, at;

    if (size < DH_CHUNK_HEADER_BYTES)
        return size;
    switch (check_random_below(4)) {
    case 0:
        chunk[check_random_below(size)] ^= (uint8_t)(1u << check_random_below(8));
        return size;
    case 1:
        return fuzz_damage_size(chunk, size);
    default:
        at = fuzz_field(chunk, size, &bytes);
        if (at + bytes <= size)
            fuzz_put(chunk + at, fuzz_number(fuzz_get(chunk + at, bytes)), bytes);
        return size;
    }
}

static uint8_t fuzz_buffer[FUZZ_CHUNK_BYTES_MAX];

#ifdef DH_LIBFUZZER

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t size_max, unsigned seed);

/* A step from one input to the next: damage that knows the structure, or a new sound chunk. */
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t size_max, unsigned seed)
{
    check_random_state = seed;
    if (size < DH_CHUNK_HEADER_BYTES || size > sizeof(fuzz_buffer) || check_random_below(16) == 0) {
        size = fuzz_make_chunk(fuzz_buffer);
    } else {
        memcpy(fuzz_buffer, bytes, size);
        size = fuzz_damage(fuzz_buffer, size);
    }
    if (size > size_max)
        size = size_max;
    memcpy(bytes, fuzz_buffer, size);
    return size;
}

#else

/* Rounds of: a sound chunk, some mutations, both tries. */
static void fuzz_rounds(uint64_t rounds)
{
    for (uint64_t round = 0; round < rounds; round++) {
        size_t size = fuzz_make_chunk(fuzz_buffer);
        uint64_t mutations = check_random_below(5);
        for (uint64_t i = 0; i < mutations; i++)
            size = fuzz_damage(fuzz_buffer, size);
        LLVMFuzzerTestOneInput(fuzz_buffer, size);
    }
}

static void fuzz_print(void)
{
    printf("chunks %llu read, %llu refused; entries %llu refused; diffs %llu applied, %llu refused;"
           " heaps %llu loaded, %llu refused\n",
           (unsigned long long)fuzz_met.chunks_read, (unsigned long long)fuzz_met.chunks_refused,
           (unsigned long long)fuzz_met.entries_refused, (unsigned long long)fuzz_met.diffs_applied,
           (unsigned long long)fuzz_met.diffs_refused, (unsigned long long)fuzz_met.heaps_loaded,
           (unsigned long long)fuzz_met.heaps_refused);
}

#ifndef DH_FUZZ_NO_MAIN
int main(int argc, char **argv)
{
    check_begin(argc, argv);
    fuzz_rounds(argc > 2 ? strtoull(argv[2], NULL, 0) : 1000000);
    fuzz_print();
    return 0;
}
#endif

#endif

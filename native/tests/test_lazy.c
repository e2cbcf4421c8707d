/* test_lazy.c -- opening by name from a directory: what is read, what is refused, and what a damaged
 * file can do to a reader, to the first store, and to the switch of a running heap.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture.h"
#include "check.h"
#include "gate.h"
#include "lazy.h"
#include "mapping.h"

#define CAPACITY_BYTES (64u << 20)
#define PAGES 3000u
#define ROWS_MAX 8u

static char directory[64];
static int directory_fd;
static int tracker;
static dh_extent_row rows[ROWS_MAX];
static size_t rows_count;
static struct {
    uint8_t *bytes;
    size_t size;
} chunks[8];
static size_t chunks_count;
static dh_state state;
static dh_off run;

static dh_heap *heap_new(void)
{
    dh_options options = {CAPACITY_BYTES, tracker, {1, 2}};
    dh_heap *heap;
    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    return heap;
}

static uint64_t *words_of(const dh_heap *heap, uint32_t page)
{
    return (uint64_t *)(void *)((uint8_t *)dh_at(heap, run) + page * (size_t)DH_PAGE_BYTES);
}

static void write_extent(dh_heap *heap, const dh_capture *capture, uint32_t number)
{
    dh_extent_row *row = &rows[rows_count++];
    CHECK(rows_count <= ROWS_MAX);
    *row = (dh_extent_row){.version = 1, .number = number};
    snprintf(row->file_name, sizeof row->file_name, "extent.%u", number);
    int fd = openat(directory_fd, row->file_name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(dh_extent_write(heap, capture, number, 1, fd, &row->file_bytes, &row->checksum), 0);
    close(fd);
}

/* Commit 1: a run of PAGES pages and cells, all of it in base files. Commit 2: every tenth page of
 * the run, and a cell. */
static void make_store(void)
{
    dh_heap *heap = heap_new();
    dh_capture *capture;
    uint32_t numbers[ROWS_MAX];
    dh_off cell;

    rows_count = 0;
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, PAGES * (size_t)DH_PAGE_BYTES, DH_RAW, &run), 0);
    for (uint32_t p = 0; p < PAGES; p++)
        words_of(heap, p)[p % 512] = p + 1;
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 0, 1, 1 << 20), 0);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
    size_t count = dh_extents_unfolded(heap, numbers, ROWS_MAX);
    CHECK_EQ(count, 4); /* three of the arena, one of the table */
    for (size_t i = 0; i < count; i++)
        write_extent(heap, NULL, numbers[i]);
    for (uint32_t p = 0; p < PAGES; p += 10)
        words_of(heap, p)[5] = p + 7;
    CHECK_EQ(dh_cell_new(heap, 48, DH_RAW, &cell), 0);
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 1, 2, 64 << 20), 0);
    chunks_count = dh_commit_chunks_count(capture);
    CHECK(chunks_count > 0 && chunks_count <= 8);
    for (size_t i = 0; i < chunks_count; i++) {
        const uint8_t *bytes = dh_commit_chunk(capture, i, &chunks[i].size);
        chunks[i].bytes = malloc(chunks[i].size);
        memcpy(chunks[i].bytes, bytes, chunks[i].size);
    }
    dh_commit_state(capture, &state);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
    dh_heap_close(heap);
}

static int load(dh_heap *heap)
{
    int rc = dh_load_extents(heap, directory_fd, rows, rows_count);
    for (size_t i = 0; rc == 0 && i < chunks_count; i++)
        rc = dh_load_delta(heap, chunks[i].bytes, chunks[i].size);
    return rc == 0 ? dh_load_finish(heap, &state) : rc;
}

static dh_heap *opened(void)
{
    dh_heap *heap = heap_new();
    CHECK_EQ(load(heap), 0);
    return heap;
}

static void check_run(const dh_heap *heap)
{
    CHECK(dh_cell_is_allocated(heap, run));
    for (uint32_t p = 0; p < PAGES; p++) {
        CHECK_EQ(words_of(heap, p)[5], p % 10 == 0 ? p + 7 : p % 512 == 5 ? p + 1 : 0);
        if (p % 512 != 5)
            CHECK_EQ(words_of(heap, p)[p % 512], p + 1);
    }
}

/* --- reading --------------------------------------------------------------------------------------- */

static size_t resident_pages(const dh_heap *heap)
{
    size_t count = 0;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    char line[256];
    bool is_inside = false;

    CHECK(smaps != NULL);
    while (fgets(line, sizeof line, smaps) != NULL) {
        unsigned long from, to;
        size_t kib;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            is_inside = from >= (uintptr_t)heap->arena.base &&
                        to <= (uintptr_t)heap->arena.base + CAPACITY_BYTES;
        else if (is_inside && sscanf(line, "Rss: %zu kB", &kib) == 1)
            count += kib / 4;
    }
    fclose(smaps);
    return count;
}

static void opening_touches_the_root_and_nothing_else(void)
{
    dh_heap *heap = opened();
    CHECK(heap->lazy != NULL);
    CHECK(resident_pages(heap) <= DH_EXTENT_PAGES); /* as the kernel maps what is beside it */
    CHECK_EQ(dh_bits_count(&heap->private_pages, heap->arena.hwm_pages), 0);
    check_run(heap);
    CHECK_EQ(dh_bits_count(&heap->private_pages, heap->arena.hwm_pages), PAGES / 10);
    CHECK(heap->lazy != NULL);
    CHECK_EQ(dh_store_begin(heap), 0);
    CHECK(heap->lazy == NULL);
    check_run(heap);
    dh_heap_close(heap);
}

static void a_read_only_heap_stays_as_it_was_opened(void)
{
    dh_heap *heap = heap_new();
    dh_capture *capture;
    uint64_t pages, bytes;

    dh_heap_set_read_only(heap);
    CHECK_EQ(load(heap), 0);
    check_run(heap);
    CHECK_EQ(dh_store_gate(heap), DH_E_READ_ONLY);
    CHECK_EQ(dh_store_begin(heap), DH_E_READ_ONLY);
    CHECK_EQ(dh_commit_capture(heap, &capture), DH_E_READ_ONLY);
    CHECK_EQ(dh_show_state(heap, NULL, &pages, &bytes), DH_E_READ_ONLY);
    CHECK_EQ(dh_pending(heap, &pages, &bytes), 0);
    CHECK_EQ(pages + bytes, 0);
    CHECK(heap->lazy != NULL);
    dh_heap_close(heap);
}

static void what_is_counted_is_what_the_first_store_finds(void)
{
    dh_heap *heap = opened();
    dh_heap_stats before, after;

    dh_heap_stats_read(heap, &before);
    CHECK(before.is_lazy);
    CHECK_EQ(dh_store_begin(heap), 0);
    dh_heap_stats_read(heap, &after);
    CHECK(!after.is_lazy);
    CHECK_EQ(before.allocated_bytes, after.allocated_bytes);
    CHECK_EQ(before.free_pages_count, after.free_pages_count);
    CHECK_EQ(before.overlay_pages_count, after.overlay_pages_count);
    dh_heap_close(heap);
}

static void files_that_cannot_be_mapped_are_copied(void)
{
    dh_heap *heap = heap_new();
    CHECK_EQ(dh_fault_set("extent.map", 0, ENODEV), 0);
    CHECK_EQ(load(heap), 0);
    CHECK_EQ(dh_fault_set("", 0, 0), 0);
    CHECK(dh_bits_count(&heap->private_pages, heap->arena.hwm_pages) >= PAGES);
    check_run(heap);
    CHECK_EQ(dh_store_begin(heap), 0);
    check_run(heap);
    dh_heap_close(heap);
}

static void a_first_store_that_fails_can_be_repeated(void)
{
    static const char *const places[] = {"extent.view", "watch.arm"};
    for (size_t i = 0; i < 2; i++) {
        dh_heap *heap = opened();
        CHECK_EQ(dh_fault_set(places[i], 0, ENOMEM), 0);
        CHECK_EQ(dh_store_begin(heap), ENOMEM);
        CHECK(heap->lazy != NULL && heap->is_gated);
        check_run(heap);
        CHECK_EQ(dh_fault_set("", 0, 0), 0);
        CHECK_EQ(dh_store_begin(heap), 0);
        check_run(heap);
        dh_heap_close(heap);
    }
}

/* --- damage ---------------------------------------------------------------------------------------- */

static void flip(const dh_extent_row *row, uint64_t at)
{
    uint8_t byte;
    int fd = openat(directory_fd, row->file_name, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x10;
    CHECK_EQ(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void damaged_trailers_and_sizes_refuse_the_heap(void)
{
    for (size_t i = 0; i < rows_count; i++) {
        uint64_t pages = (rows[i].file_bytes - 28) / (DH_PAGE_BYTES + 4);
        uint64_t at = pages * DH_PAGE_BYTES + check_random_below(28 + pages * 4);
        dh_heap *heap = heap_new();
        flip(&rows[i], at);
        CHECK_EQ(load(heap), DH_E_CORRUPT);
        flip(&rows[i], at);
        dh_heap_close(heap);

        int fd = openat(directory_fd, rows[i].file_name, O_RDWR);
        CHECK_EQ(ftruncate(fd, (off_t)rows[i].file_bytes + 1), 0);
        heap = heap_new();
        CHECK_EQ(load(heap), DH_E_CORRUPT);
        dh_heap_close(heap);
        CHECK_EQ(ftruncate(fd, (off_t)rows[i].file_bytes), 0);
        close(fd);
    }
    dh_heap *heap = opened();
    check_run(heap);
    dh_heap_close(heap);
}

static void damaged_rows_refuse_the_heap(void)
{
    for (size_t i = 0; i < 200; i++) {
        dh_extent_row *row = &rows[check_random_below(rows_count)], was = *row;
        uint8_t *bytes = (uint8_t *)row;
        bytes[check_random_below(24 + strlen(row->file_name))] ^=
            (uint8_t)(1u << check_random_below(8));
        dh_heap *heap = heap_new();
        int rc = load(heap);
        CHECK(rc == DH_E_CORRUPT || rc == ENOENT);
        dh_heap_close(heap);
        *row = was;
    }
    static const char *const names[] = {"../extent.0", "/etc/passwd", "", "absent"};
    for (size_t i = 0; i < 4; i++) {
        dh_extent_row was = rows[0];
        snprintf(rows[0].file_name, sizeof rows[0].file_name, "%s", names[i]);
        dh_heap *heap = heap_new();
        int rc = load(heap); /* a name with a path, of no file, of none at all */
        CHECK(rc == DH_E_CORRUPT || (i >= 2 && rc == ENOENT));
        dh_heap_close(heap);
        rows[0] = was;
    }
    dh_extent_row was = rows[0];
    memset(rows[0].file_name, 'x', sizeof rows[0].file_name);
    dh_heap *heap = heap_new();
    CHECK_EQ(load(heap), DH_E_CORRUPT);
    dh_heap_close(heap);
    rows[0] = was;
}

static const dh_extent_row *row_of(uint32_t number)
{
    const dh_extent_row *row = rows;
    while (row->number != number)
        row++;
    return row;
}

/* Wherever the table is damaged: who reads there is told, who stores is told, nobody dies. */
static void a_damaged_table_stops_stores_and_not_readers(void)
{
    const dh_extent_row *row = row_of(DH_EXTENT_TABLE);
    uint64_t table_bytes = dh_table_pages_for(state.hwm_pages) * DH_PAGE_BYTES;
    size_t refused = 0;

    for (size_t i = 0; i < 60; i++) {
        /* its last page has no deltas, and does not tell of the root */
        uint64_t at = i < 30 ? table_bytes - 1 - check_random_below(DH_PAGE_BYTES)
                             : check_random_below(table_bytes);
        flip(row, at);
        dh_heap *heap = heap_new();
        int rc = load(heap);
        CHECK(rc == 0 || rc == DH_E_CORRUPT);
        if (rc == 0) {
            for (uint64_t p = 0; p < state.hwm_pages; p++)
                (void)dh_cell_bytes(heap, p << DH_PAGE_SHIFT);
            for (uint64_t p = 0; p < state.hwm_pages; p++) /* nothing from an unchecked page */
                CHECK(heap->alloc.kind[p] == DH_KIND_FREE ||
                      dh_bits_test(&heap->lazy->table_ready, dh_table_page_of((dh_pgno)p)));
            rc = dh_store_begin(heap);
            CHECK(rc == 0 || rc == DH_E_CORRUPT);
            refused += rc != 0;
            if (rc != 0)
                CHECK(heap->lazy != NULL);
        }
        dh_heap_close(heap);
        flip(row, at);
    }
    CHECK(refused >= 30);
}

static void a_damaged_page_under_a_delta_is_found(void)
{
    uint32_t pgno = (uint32_t)(run >> DH_PAGE_SHIFT) + 1200 / 10 * 10; /* a page of commit 2 */
    const dh_extent_row *row = row_of(pgno / DH_EXTENT_PAGES);
    uint64_t at = pgno % DH_EXTENT_PAGES * (uint64_t)DH_PAGE_BYTES + 3000;

    flip(row, at);
    dh_heap *heap = opened();
    CHECK(!dh_cell_is_allocated(heap, run)); /* all of the run, or none of it */
    CHECK_EQ(dh_store_begin(heap), DH_E_CORRUPT);
    dh_heap_close(heap);
    heap = opened();
    CHECK_EQ(dh_load_preload(heap), DH_E_CORRUPT);
    dh_heap_close(heap);
    flip(row, at);
    heap = opened();
    CHECK_EQ(dh_load_preload(heap), 0);
    CHECK(resident_pages(heap) >= PAGES);
    check_run(heap);
    dh_heap_close(heap);
}

/* --- switching -------------------------------------------------------------------------------------- */

static int extent_fd(uint32_t number)
{
    int fd = openat(directory_fd, row_of(number)->file_name, O_RDONLY);
    CHECK(fd >= 0);
    return fd;
}

static void exported_memory_is_not_switched(void)
{
    dh_heap *heap = opened();
    uint64_t pages;
    int fd = extent_fd(1);

    CHECK_EQ(dh_store_begin(heap), 0);
    CHECK_EQ(dh_pin_add(&heap->alloc, (dh_pgno)(run >> DH_PAGE_SHIFT), PAGES), 0);
    words_of(heap, 1500)[9] = 42;
    CHECK_EQ(dh_arena_switch(heap, 1, fd, &pages), 0);
    CHECK_EQ(pages, 0);
    CHECK(dh_is_file_backed(heap, 1024));
    dh_pin_remove(&heap->alloc, (dh_pgno)(run >> DH_PAGE_SHIFT));
    CHECK_EQ(dh_arena_switch(heap, 1, fd, &pages), 0);
    CHECK_EQ(words_of(heap, 1500)[9], 42); /* uncommitted, and kept */
    words_of(heap, 1500)[9] = 0;
    check_run(heap); /* what commit 2 changed is newer than the file, and kept */
    close(fd);
    dh_heap_close(heap);
}

static void a_switch_that_fails_leaves_everything_in_place(void)
{
    static const char *const places[] = {"extent.map", "watch.scan", "watch.remapped"};
    for (size_t i = 0; i < 3; i++) {
        dh_heap *heap = opened();
        uint64_t pages, bytes;
        int fd = extent_fd(1);
        CHECK_EQ(dh_store_begin(heap), 0);
        words_of(heap, 1500)[9] = 42;
        CHECK_EQ(dh_fault_set(places[i], 0, EIO), 0);
        CHECK_EQ(dh_arena_switch(heap, 1, fd, &pages), EIO);
        CHECK_EQ(dh_fault_set("", 0, 0), 0);
        CHECK_EQ(words_of(heap, 1500)[9], 42);
        CHECK_EQ(dh_pending(heap, &pages, &bytes), 0);
        CHECK_EQ(pages, 1);
        words_of(heap, 1700)[9] = 43;
        CHECK_EQ(dh_pending(heap, &pages, &bytes), 0);
        CHECK_EQ(pages, 2);
        words_of(heap, 1500)[9] = words_of(heap, 1700)[9] = 0;
        check_run(heap);
        close(fd);
        dh_heap_close(heap);
    }
}

int main(int argc, char **argv)
{
    static const int trackers[] = {DH_TRACKER_AUTO, DH_TRACKER_COMPARE};

    check_begin(argc, argv);
    for (size_t i = 0; i < 2; i++) {
        tracker = trackers[i];
        snprintf(directory, sizeof directory, "/tmp/dirtyheap-lazy-XXXXXX");
        CHECK(mkdtemp(directory) != NULL);
        directory_fd = open(directory, O_RDONLY | O_DIRECTORY);
        CHECK(directory_fd >= 0);
        make_store();
        opening_touches_the_root_and_nothing_else();
        a_read_only_heap_stays_as_it_was_opened();
        what_is_counted_is_what_the_first_store_finds();
        files_that_cannot_be_mapped_are_copied();
        a_first_store_that_fails_can_be_repeated();
        damaged_trailers_and_sizes_refuse_the_heap();
        damaged_rows_refuse_the_heap();
        a_damaged_table_stops_stores_and_not_readers();
        a_damaged_page_under_a_delta_is_found();
        exported_memory_is_not_switched();
        a_switch_that_fails_leaves_everything_in_place();
        for (size_t r = 0; r < rows_count; r++)
            unlinkat(directory_fd, rows[r].file_name, 0);
        close(directory_fd);
        rmdir(directory);
        for (size_t c = 0; c < chunks_count; c++)
            free(chunks[c].bytes);
    }
    return 0;
}

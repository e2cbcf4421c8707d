/* test_commit.c -- random writing, committing, failing, folding, rolling back and reopening, held
 * against a plain model of the cells.
 *
 * The store is an array of chunks and memory files: what a commit hands out is all that the next
 * heap is opened from.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "capture.h"
#include "check.h"
#include "delta.h"
#include "dict.h"
#include "lazy.h"

#define CELLS_MAX 3000u
#define CAPACITY_BYTES (64u << 20)
#define EXTENTS_MAX 64u

typedef struct {
    dh_off off; /* 0: free slot */
    uint32_t bytes;
    uint64_t seed; /* contents are a function of it */
} model_cell;

typedef struct {
    model_cell cells[CELLS_MAX];
} model;

typedef struct {
    uint8_t *bytes;
    size_t size;
    uint64_t commit_id;
} stored_chunk;

typedef struct {
    uint32_t number;
    uint64_t version, file_bytes;
    uint32_t checksum;
    int fd;
} stored_extent;

/* What survives. */
typedef struct {
    stored_chunk chunks[4096];
    size_t chunks_count;
    stored_extent extents[EXTENTS_MAX];
    size_t extents_count;
    dh_state state;
    uint64_t commit_id;
} store;

/* A fold that goes on beside commits. */
typedef struct {
    bool is_under_way, is_recorded;
    uint64_t version;
    uint32_t numbers[EXTENTS_MAX];
    size_t count, written, switched;
    stored_extent extents[EXTENTS_MAX];
} slow_fold;

static store disk;
static slow_fold slow;
static int tracker;

static dh_heap *heap_new(void)
{
    dh_options options = {CAPACITY_BYTES, tracker, {11, 22}};
    dh_heap *heap;
    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    return heap;
}

static void fill(dh_heap *heap, const model_cell *cell)
{
    uint64_t *words = dh_at(heap, cell->off);
    for (uint32_t i = 0; i < cell->bytes / 8; i++)
        words[i] = cell->seed * (i % 97u + 1u);
}

static bool holds(const dh_heap *heap, const model_cell *cell)
{
    const uint64_t *words = dh_at(heap, cell->off);
    for (uint32_t i = 0; i < cell->bytes / 8; i++) {
        if (words[i] != cell->seed * (i % 97u + 1u))
            return false;
    }
    return true;
}

static void check_model(const dh_heap *heap, const model *expected)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < CELLS_MAX; i++) {
        const model_cell *cell = &expected->cells[i];
        if (cell->off == 0)
            continue;
        CHECK(dh_cell_is_allocated(heap, cell->off));
        CHECK(holds(heap, cell));
        bytes += dh_cell_bytes(heap, cell->off);
    }
    /* beside the model's cells there is only the root */
    CHECK(heap->alloc.allocated_bytes >= bytes);
    CHECK(heap->alloc.allocated_bytes <= bytes + 4096);
}

/* A few cells, while the rest stays in the files. */
static void check_model_lazily(const dh_heap *heap, const model *expected)
{
    CHECK(heap->lazy != NULL);
    for (size_t n = 0; n < 50; n++) {
        const model_cell *cell = &expected->cells[check_random_below(CELLS_MAX)];
        if (cell->off == 0)
            continue;
        CHECK(dh_cell_is_allocated(heap, cell->off));
        CHECK(dh_cell_bytes(heap, cell->off) >= cell->bytes);
        CHECK(holds(heap, cell));
    }
    CHECK(heap->lazy != NULL);
}

static uint32_t random_bytes(void)
{
    switch (check_random_below(20)) {
    case 0:
        return 8u * (uint32_t)(1 + check_random_below(8192)); /* to 64 KiB */
    case 1:
        return 8u * (uint32_t)(1 + check_random_below(512));
    default:
        return 8u * (uint32_t)(1 + check_random_below(32));
    }
}

static void mutate(dh_heap *heap, model *now, size_t steps)
{
    for (size_t step = 0; step < steps; step++) {
        model_cell *cell = &now->cells[check_random_below(CELLS_MAX)];
        if (cell->off == 0) {
            cell->bytes = random_bytes();
            cell->seed = check_random();
            CHECK_EQ(dh_cell_new(heap, cell->bytes, DH_RAW, &cell->off), 0);
            for (uint32_t i = 0; i < cell->bytes / 8; i++)
                CHECK_EQ(((uint64_t *)dh_at(heap, cell->off))[i], 0);
            fill(heap, cell);
        } else if (check_random_below(3) == 0) {
            dh_cell_free(heap, cell->off);
            cell->off = 0;
        } else {
            cell->seed = check_random();
            fill(heap, cell);
        }
    }
}

static void free_all(dh_heap *heap, model *now)
{
    for (size_t i = 0; i < CELLS_MAX; i++) {
        if (now->cells[i].off != 0)
            dh_cell_free(heap, now->cells[i].off);
        now->cells[i].off = 0;
    }
}

/* --- the store -------------------------------------------------------------------------------------- */

static void put_extent(dh_heap *heap, const dh_capture *capture, uint32_t number, uint64_t version,
                       stored_extent *extent_out)
{
    int fd = memfd_create("extent", MFD_CLOEXEC);
    CHECK(fd >= 0);
    *extent_out = (stored_extent){number, version, 0, 0, fd};
    CHECK_EQ(dh_extent_write(heap, capture, number, version, fd, &extent_out->file_bytes,
                             &extent_out->checksum),
             0);
}

static void record_extent(const stored_extent *extent)
{
    size_t i = 0;
    while (i < disk.extents_count && disk.extents[i].number != extent->number)
        i++;
    if (i < disk.extents_count)
        close(disk.extents[i].fd);
    else
        disk.extents_count++;
    CHECK(disk.extents_count <= EXTENTS_MAX);
    disk.extents[i] = *extent;
}

static void commit(dh_heap *heap, bool succeeds)
{
    dh_capture *capture;
    stored_extent extents[EXTENTS_MAX];

    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, disk.commit_id, disk.commit_id + 1, 1 << 20), 0);
    size_t rebased = dh_commit_rebased_count(capture);
    for (size_t i = 0; i < rebased; i++)
        put_extent(heap, capture, dh_commit_rebased_extent(capture, i), disk.commit_id + 1,
                   &extents[i]);
    if (!succeeds) {
        for (size_t i = 0; i < rebased; i++)
            close(extents[i].fd);
        dh_commit_failed(heap, capture);
        return;
    }
    for (size_t i = 0; i < dh_commit_chunks_count(capture); i++) {
        stored_chunk *chunk = &disk.chunks[disk.chunks_count++];
        const uint8_t *bytes = dh_commit_chunk(capture, i, &chunk->size);
        chunk->bytes = malloc(chunk->size);
        memcpy(chunk->bytes, bytes, chunk->size);
        chunk->commit_id = disk.commit_id + 1;
        CHECK(disk.chunks_count < 4096);
    }
    dh_commit_state(capture, &disk.state);
    disk.commit_id++;
    for (size_t i = 0; i < rebased; i++) {
        record_extent(&extents[i]);
        CHECK_EQ(dh_extent_switch(heap, extents[i].number, extents[i].version, extents[i].fd,
                                  extents[i].file_bytes, extents[i].checksum),
                 0);
    }
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
}

/* Let the arena show files that it does not, with uncommitted pages in between. */
static void switch_some(dh_heap *heap)
{
    uint32_t numbers[EXTENTS_MAX];
    size_t count = dh_extents_private(heap, 1, numbers, EXTENTS_MAX);

    CHECK(count <= EXTENTS_MAX);
    for (size_t i = 0; i < count; i++) {
        const stored_extent *extent = disk.extents;
        uint64_t pages;
        while (extent->number != numbers[i])
            extent++;
        if (check_random_below(3) != 0)
            CHECK_EQ(dh_arena_switch(heap, extent->number, extent->fd, &pages), 0);
    }
}

static void slow_end(dh_heap *heap)
{
    for (size_t i = 0; slow.is_under_way && !slow.is_recorded && i < slow.written; i++)
        close(slow.extents[i].fd);
    slow.is_under_way = false;
    if (heap != NULL)
        dh_fold_end(heap);
}

static void fold(dh_heap *heap)
{
    uint32_t numbers[EXTENTS_MAX];
    slow_end(heap);
    CHECK_EQ(dh_store_begin(heap), 0);
    size_t count = dh_extents_unfolded(heap, numbers, EXTENTS_MAX);
    CHECK(count <= EXTENTS_MAX);
    for (size_t i = 0; i < count; i++) {
        stored_extent extent;
        put_extent(heap, NULL, numbers[i], disk.commit_id, &extent);
        record_extent(&extent);
        CHECK_EQ(dh_extent_switch(heap, extent.number, extent.version, extent.fd, extent.file_bytes,
                                  extent.checksum),
                 0);
    }
    switch_some(heap);
    for (size_t i = 0; i < disk.chunks_count; i++)
        free(disk.chunks[i].bytes);
    disk.chunks_count = 0;
    CHECK_EQ(dh_extents_unfolded(heap, numbers, EXTENTS_MAX), 0);
}

static void slow_begin(dh_heap *heap)
{
    memset(&slow, 0, sizeof slow);
    CHECK_EQ(dh_fold_begin(heap, &slow.count), 0);
    CHECK(slow.count <= EXTENTS_MAX);
    for (size_t i = 0; i < slow.count; i++)
        slow.numbers[i] = dh_fold_extent(heap, i);
    slow.version = disk.commit_id;
    slow.is_under_way = true;
}

static void slow_write(dh_heap *heap)
{
    stored_extent *extent = &slow.extents[slow.written];
    int fd = memfd_create("extent", MFD_CLOEXEC);
    CHECK(fd >= 0);
    *extent = (stored_extent){slow.numbers[slow.written], slow.version, 0, 0, fd};
    CHECK_EQ(dh_fold_write(heap, extent->number, extent->version, fd, &extent->file_bytes,
                           &extent->checksum),
             0);
    slow.written++;
}

static const stored_extent *find_extent(uint32_t number)
{
    for (size_t i = 0; i < disk.extents_count; i++)
        if (disk.extents[i].number == number)
            return &disk.extents[i];
    return NULL;
}

/* The files are the base from now on, but where a commit has made a newer one; deltas that they hold
 * go, later ones stay. */
static void slow_record(void)
{
    size_t kept = 0;
    for (size_t i = 0; i < slow.count; i++) {
        const stored_extent *now = find_extent(slow.extents[i].number);
        if (now != NULL && now->version > slow.version)
            close(slow.extents[i].fd);
        else
            record_extent(&slow.extents[i]);
    }
    for (size_t i = 0; i < disk.chunks_count; i++) {
        if (disk.chunks[i].commit_id <= slow.version)
            free(disk.chunks[i].bytes);
        else
            disk.chunks[kept++] = disk.chunks[i];
    }
    disk.chunks_count = kept;
    slow.is_recorded = true;
}

static void slow_switch(dh_heap *heap)
{
    const stored_extent *extent = &slow.extents[slow.switched++];
    const stored_extent *now = find_extent(extent->number);
    if (now->version == slow.version)
        CHECK_EQ(dh_fold_switch(heap, extent->number, extent->version, extent->fd,
                                extent->file_bytes, extent->checksum),
                 0);
}

/* One step of it; true when that was the last. */
static bool slow_step(dh_heap *heap)
{
    if (!slow.is_under_way)
        slow_begin(heap);
    else if (slow.written < slow.count)
        slow_write(heap);
    else if (!slow.is_recorded)
        slow_record();
    else if (slow.switched < slow.count)
        slow_switch(heap);
    else
        slow_end(heap);
    return !slow.is_under_way;
}

static dh_heap *load(void)
{
    dh_heap *heap = heap_new();
    for (size_t i = 0; i < disk.extents_count; i++) {
        stored_extent *extent = &disk.extents[i];
        CHECK_EQ(dh_load_extent(heap, extent->number, extent->version, extent->fd,
                                extent->file_bytes, extent->checksum),
                 0);
    }
    for (size_t i = 0; i < disk.chunks_count; i++)
        CHECK_EQ(dh_load_delta(heap, disk.chunks[i].bytes, disk.chunks[i].size), 0);
    CHECK_EQ(dh_load_finish(heap, &disk.state), 0);
    return heap;
}

static dh_heap *reopen(dh_heap *heap)
{
    dh_heap_close(heap);
    slow_end(NULL);
    return load();
}

static void store_reset(void)
{
    slow_end(NULL);
    for (size_t i = 0; i < disk.chunks_count; i++)
        free(disk.chunks[i].bytes);
    for (size_t i = 0; i < disk.extents_count; i++)
        close(disk.extents[i].fd);
    memset(&disk, 0, sizeof disk);
}

static void check_nothing_pending(dh_heap *heap)
{
    uint64_t pages, bytes;
    CHECK_EQ(dh_pending(heap, &pages, &bytes), 0);
    CHECK_EQ(pages, 0);
    CHECK_EQ(bytes, 0);
}

/* --- cases --------------------------------------------------------------------------------------------- */

static void random_histories_reopen_as_committed(size_t rounds)
{
    static model now, committed, saved;
    dh_heap *heap = heap_new();
    uint64_t pages, stop_ns;

    memset(&now, 0, sizeof now);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    commit(heap, true);
    committed = now;
    for (size_t round = 0; round < rounds; round++) {
        if (check_random_below(30) == 0)
            free_all(heap, &now);
        else
            mutate(heap, &now, 1 + check_random_below(check_random_below(4) == 0 ? 3000 : 100));
        switch (check_random_below(10)) {
        case 0:
            commit(heap, false);
            check_model(heap, &now);
            break;
        case 1:
            CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
            now = committed;
            check_model(heap, &now);
            check_nothing_pending(heap);
            break;
        case 2: {
            dh_capture *savepoint;
            saved = now;
            CHECK_EQ(dh_savepoint_take(heap, &savepoint), 0);
            mutate(heap, &now, 1 + check_random_below(500));
            CHECK_EQ(dh_show_state(heap, savepoint, &pages, &stop_ns), 0);
            dh_savepoint_drop(heap, savepoint);
            now = saved;
            check_model(heap, &now);
            break;
        }
        case 3:
            fold(heap);
            break;
        case 4:
            heap = reopen(heap);
            now = committed;
            check_nothing_pending(heap);
            if (check_random_below(2) == 0)
                check_model_lazily(heap, &now);
            CHECK_EQ(dh_store_begin(heap), 0);
            check_model(heap, &now);
            check_nothing_pending(heap);
            break;
        case 5:
            if (!slow.is_under_way && check_random_below(2) == 0)
                switch_some(heap);
            check_model(heap, &now);
            break;
        case 6:
            for (size_t steps = check_random_below(20); steps > 0 && !slow_step(heap); steps--)
                check_model(heap, &now);
            break;
        default:
            commit(heap, true);
            committed = now;
            check_nothing_pending(heap);
            break;
        }
    }
    heap = reopen(heap);
    CHECK_EQ(dh_store_begin(heap), 0);
    check_model(heap, &committed);
    dh_heap_close(heap);
    store_reset();
}

static uint64_t loaded_differs(dh_heap *heap)
{
    dh_heap *loaded = load();
    uint64_t pages, bytes;
    CHECK_EQ(dh_store_begin(loaded), 0);
    CHECK_EQ(dh_compare(heap, loaded, &pages, &bytes), 0);
    dh_heap_close(loaded);
    return pages;
}

/* Commits of every kind between any two steps: what is on the disk is the last commit after each
 * step, and what is in memory is too. */
static void a_fold_beside_commits_changes_nothing(size_t folds)
{
    static model now, committed;
    dh_heap *heap = heap_new();
    uint64_t pages, stop_ns;

    memset(&now, 0, sizeof now);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    commit(heap, true);
    while (folds > 0) {
        mutate(heap, &now, 1 + check_random_below(check_random_below(6) == 0 ? 3000 : 60));
        if (check_random_below(20) == 0)
            free_all(heap, &now);
        commit(heap, check_random_below(8) != 0);
        commit(heap, true);
        committed = now;
        for (size_t steps = check_random_below(4); steps > 0 && folds > 0; steps--) {
            folds -= slow_step(heap);
            CHECK_EQ(loaded_differs(heap), 0);
        }
        mutate(heap, &now, 20); /* then the arena is not the image */
        CHECK_EQ(loaded_differs(heap), 0);
        CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
        now = committed;
        check_model(heap, &now);
        check_nothing_pending(heap);
    }
    if (!slow.is_under_way)
        switch_some(heap);
    check_model(heap, &committed);
    heap = reopen(heap);
    CHECK_EQ(dh_store_begin(heap), 0);
    check_model(heap, &committed);
    dh_heap_close(heap);
    store_reset();
}

/* --- one large run beside a fold: extents that commits rewrite, and pages that only one of them does */

#define RUN_BYTES (20u << 20)
#define RUN_PAGES (RUN_BYTES / DH_PAGE_BYTES)

/* Words at a few places, some of them back to what they were; or extents as a whole. */
static void change_run(uint64_t *words)
{
    if (check_random_below(4) == 0) {
        size_t first = check_random_below(RUN_PAGES / 2) * 512, value = check_random();
        for (size_t i = 0; i < (6u << 20) / 8; i++)
            words[first + i] = value + i;
    }
    for (size_t n = check_random_below(40); n > 0; n--)
        words[check_random_below(RUN_PAGES) * 512 + check_random_below(3)] = check_random_below(3);
}

static void check_run(dh_heap *heap, dh_off off, const uint8_t *expected)
{
    dh_heap *loaded = load();
    CHECK_EQ(dh_store_begin(loaded), 0);
    CHECK(memcmp(dh_at(loaded, off), expected, RUN_BYTES) == 0);
    dh_heap_close(loaded);
    CHECK(memcmp(dh_at(heap, off), expected, RUN_BYTES) == 0);
}

/* What the fold has written is the run as it was when it began, whatever was committed since. */
static void check_files(dh_off off, const uint8_t *then)
{
    uint8_t page[DH_PAGE_BYTES];
    uint64_t first = off >> DH_PAGE_SHIFT;
    for (size_t i = 0; i < slow.written; i++) {
        const stored_extent *extent = &slow.extents[i];
        uint64_t pages = extent->file_bytes / (DH_PAGE_BYTES + 4);
        for (uint64_t n = 0; n < DH_EXTENT_PAGES && extent->number < DH_EXTENT_TABLE; n++) {
            uint64_t pgno = (uint64_t)extent->number * DH_EXTENT_PAGES + n;
            if (pgno < first || pgno >= first + RUN_PAGES)
                continue;
            memset(page, 0, sizeof page);
            if (n < pages)
                CHECK(pread(extent->fd, page, sizeof page, (off_t)(n * sizeof page)) ==
                      (ssize_t)sizeof page);
            CHECK(memcmp(page, then + (pgno - first) * DH_PAGE_BYTES, sizeof page) == 0);
        }
    }
}

static void commits_that_rewrite_extents_beside_a_fold_change_nothing(size_t folds)
{
    dh_heap *heap = heap_new();
    uint8_t *expected = malloc(RUN_BYTES), *then = malloc(RUN_BYTES);
    uint32_t numbers[EXTENTS_MAX];
    uint64_t pages, stop_ns, replaced = 0;
    dh_off off;

    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, RUN_BYTES, DH_RAW, &off), 0);
    commit(heap, true);
    while (folds > 0) {
        bool is_over = slow_step(heap);
        folds -= is_over;
        if (slow.is_under_way && slow.written == 0)
            memcpy(then, dh_at(heap, off), RUN_BYTES);
        else if (slow.is_under_way && slow.written == slow.count && !slow.is_recorded)
            check_files(off, then);
        if (is_over && slow.version == disk.commit_id) /* nothing is newer than its base */
            CHECK_EQ(dh_extents_unfolded(heap, numbers, EXTENTS_MAX), 0);
        if (check_random_below(3) != 0) {
            change_run(dh_at(heap, off));
            commit(heap, true);
        }
        for (size_t i = 0; slow.is_under_way && i < disk.extents_count; i++)
            replaced += disk.extents[i].version > slow.version;
        memcpy(expected, dh_at(heap, off), RUN_BYTES);
        check_run(heap, off, expected);
        change_run(dh_at(heap, off));
        CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
        CHECK(memcmp(dh_at(heap, off), expected, RUN_BYTES) == 0);
    }
    CHECK(replaced > 0);
    fold(heap);
    check_run(heap, off, expected);
    free(expected);
    free(then);
    dh_heap_close(heap);
    store_reset();
}

/* The page returns to what the base before the fold holds: no entry is left of it, but the new base
 * holds the value between. */
static void a_value_that_comes_back_during_a_fold_is_not_lost(void)
{
    dh_heap *heap = heap_new();
    dh_off off;
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, 64, DH_RAW, &off), 0);
    for (uint64_t value = 1; value < 4; value++) {
        uint64_t *word = dh_at(heap, off);
        *word = value;
        commit(heap, true);
        fold(heap);
        *word = 100;
        commit(heap, true);
        slow_begin(heap);
        if (value != 2)
            slow_write(heap);
        *word = value;
        commit(heap, true);
        while (!slow_step(heap))
            CHECK_EQ(loaded_differs(heap), 0);
        CHECK_EQ(loaded_differs(heap), 0);
        fold(heap); /* what is left of the deltas goes */
        CHECK_EQ(loaded_differs(heap), 0);
        dh_heap *loaded = load();
        CHECK_EQ(dh_store_begin(loaded), 0);
        CHECK_EQ(*(uint64_t *)dh_at(loaded, off), value);
        dh_heap_close(loaded);
    }
    dh_heap_close(heap);
    store_reset();
}

/* The last chunk is cut so that its rest stands beside its key: the rest is small, the first is
 * whole pages of the engine but for less than an entry, and both together are what was written. */
static void a_commit_just_beyond_a_page_of_the_engine_is_cut_there(void)
{
    size_t cuts = 0;
    for (uint64_t pages = 1; pages < 500; pages += 1 + check_random_below(8)) {
        dh_heap *heap = heap_new();
        dh_off off;
        CHECK_EQ(dh_load_finish(heap, NULL), 0);
        CHECK_EQ(dh_cell_new(heap, 500 * 4096, DH_RAW, &off), 0);
        commit(heap, true);
        size_t before = disk.chunks_count;
        for (uint64_t p = 0; p < pages; p++)
            ((uint64_t *)dh_at(heap, off))[p * 512] = p + 1;
        commit(heap, true);
        size_t made = disk.chunks_count - before;
        CHECK(made == 1 || made == 2);
        if (made == 2) {
            size_t first = disk.chunks[before].size, rest = disk.chunks[before + 1].size;
            CHECK(rest <= 1024);
            CHECK((first + 16) % 4096 == 0 || 4096 - (first + 16) % 4096 < 12 + 2 + 8);
            cuts++;
        }
        heap = reopen(heap);
        CHECK(dh_cell_is_allocated(heap, off));
        for (uint64_t p = 0; p < 500; p++)
            CHECK_EQ(((uint64_t *)dh_at(heap, off))[p * 512], p < pages ? p + 1 : 0);
        dh_heap_close(heap);
        store_reset();
    }
    CHECK(cuts > 3);
}

/* Two older commits are kept as heap objects of their own, and shown again and again. */
static void an_older_commit_can_be_shown(size_t rounds)
{
    static model now, committed, then[2];
    dh_heap *heap = heap_new(), *old[2];
    uint64_t pages, bytes, stop_ns;

    memset(&now, 0, sizeof now);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    commit(heap, true);
    committed = now;
    for (size_t i = 0; i < 2; i++) {
        old[i] = load();
        then[i] = now;
    }
    for (size_t round = 0; round < rounds; round++) {
        size_t i = check_random_below(2);
        switch (check_random_below(6)) {
        case 0:
            dh_heap_close(old[i]);
            old[i] = load();
            then[i] = committed;
            break;
        case 1:
            fold(heap);
            break;
        case 2:
            heap = reopen(heap);
            now = committed;
            break;
        default:
            if (check_random_below(8) == 0)
                free_all(heap, &now);
            mutate(heap, &now, 1 + check_random_below(800));
            if (check_random_below(2) == 0) {
                commit(heap, true);
                committed = now;
            }
            break;
        }
        i = check_random_below(2);
        CHECK_EQ(dh_show_heap(heap, old[i], &pages, &stop_ns), 0);
        now = then[i];
        check_model(heap, &now);
        if (check_random_below(3) == 0) { /* it may be taken back, as anything uncommitted */
            CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
            now = committed;
            check_model(heap, &now);
            check_nothing_pending(heap);
            continue;
        }
        commit(heap, true);
        committed = now;
        CHECK_EQ(dh_compare(heap, old[i], &pages, &bytes), 0);
        CHECK_EQ(pages, 0);
        CHECK_EQ(bytes, 0);
        if (check_random_below(4) == 0) {
            heap = reopen(heap);
            CHECK_EQ(dh_store_begin(heap), 0);
            check_model(heap, &now);
        }
    }
    dh_heap_close(old[0]);
    dh_heap_close(old[1]);
    dh_heap_close(heap);
    store_reset();
}

/* What an exported buffer's memory holds in the older state decides: R3. */
static void pinned_memory_is_not_shown_as_something_else(void)
{
    dh_heap *heap = heap_new(), *old;
    uint64_t pages, stop_ns, size;
    dh_handle handle = {0, 0};
    dh_off freed, off;
    dh_word buffer;
    uint8_t *data;

    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, 64 * 4096, DH_RAW, &freed), 0);
    memset(dh_at(heap, freed), 5, 64 * 4096);
    commit(heap, true);
    old = load();
    dh_cell_free(heap, freed);
    commit(heap, true);
    CHECK_EQ(dh_buffer_new(heap, 32 * 4096, &buffer), 0);
    CHECK_EQ(dh_buffer_read(heap, buffer, &data, &size), 0);
    off = (dh_off)(data - (uint8_t *)dh_at(heap, 0));
    CHECK(off >= freed && off + size <= freed + 64 * 4096); /* some of the same pages */
    CHECK_EQ(dh_export_begin(heap, off, size), 0);
    memset(data, 6, size);
    CHECK_EQ(dh_show_heap(heap, old, &pages, &stop_ns), EBUSY);
    CHECK_EQ(data[size - 1], 6);
    commit(heap, true);
    dh_heap_close(old);

    /* The same Buffer in both states: allowed as long as somebody can say that it is the same. */
    old = load();
    CHECK_EQ(dh_show_heap(heap, old, &pages, &stop_ns), EBUSY);
    handle = (dh_handle){buffer, dh_meta_serial(*(const dh_word *)dh_at(heap, dh_ref_off(buffer)))};
    CHECK_EQ(dh_handles_add(&heap->handles, &handle), 0);
    memset(data, 7, size);
    CHECK_EQ(dh_show_heap(heap, old, &pages, &stop_ns), 0);
    CHECK_EQ(data[size - 1], 6);
    CHECK_EQ(handle.word, buffer);
    dh_export_end(heap, off, size);
    dh_handles_remove(&heap->handles, &handle);
    dh_heap_close(old);
    dh_heap_close(heap);
    store_reset();
}

static void another_heaps_state_is_refused(void)
{
    dh_heap *heap = heap_new(), *other = heap_new();
    uint64_t pages, stop_ns;
    dh_off off;

    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_load_finish(other, NULL), 0);
    CHECK_EQ(dh_cell_new(other, 1 << 20, DH_RAW, &off), 0); /* beyond the mark of heap */
    CHECK_EQ(dh_show_heap(heap, other, &pages, &stop_ns), DH_E_CORRUPT);
    dh_heap_close(other);
    dh_heap_close(heap);
}

/* A run that covers an extent and is freed again leaves a base file without pages. */
static void a_freed_extent_folds_to_nothing(void)
{
    static model now;
    dh_heap *heap = heap_new();
    uint64_t extent_bytes = UINT64_MAX;
    dh_off off;

    memset(&now, 0, sizeof now);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, 12u << 20, DH_RAW, &off), 0);
    memset(dh_at(heap, off), 3, 12u << 20);
    commit(heap, true);
    dh_cell_free(heap, off);
    commit(heap, true);
    fold(heap);
    for (size_t i = 0; i < disk.extents_count; i++) {
        if (disk.extents[i].number == 1)
            extent_bytes = disk.extents[i].file_bytes;
    }
    CHECK(extent_bytes < DH_PAGE_BYTES);
    mutate(heap, &now, 2000);
    commit(heap, true);
    heap = reopen(heap);
    CHECK_EQ(dh_store_begin(heap), 0);
    check_model(heap, &now);
    dh_heap_close(heap);
    store_reset();
}

static void a_commit_of_one_word_is_small(void)
{
    dh_heap *heap = heap_new();
    dh_capture *capture;
    dh_commit_stats stats;
    dh_off off;

    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, 4u << 20, DH_RAW, &off), 0);
    memset(dh_at(heap, off), 7, 4u << 20);
    commit(heap, true);
    ((uint64_t *)dh_at(heap, off))[1000] = 1;
    ((uint64_t *)dh_at(heap, off))[400000] = 2;
    ((uint8_t *)dh_at(heap, off))[3] = 7; /* written, not changed */
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 1, 2, 1 << 20), 0);
    dh_commit_stats_read(capture, &stats);
    CHECK_EQ(stats.pages_count, 2);
    CHECK_EQ(stats.changed_bytes, 16);
    CHECK(stats.scanned_pages_count >= 2);
    CHECK_EQ(stats.delta_bytes, 48 + 2 * 12 + 2 * (2 + 8));
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
    dh_heap_close(heap);
    store_reset();
}

static void damaged_chunks_are_refused(void)
{
    static model now;
    dh_heap *heap = heap_new();

    memset(&now, 0, sizeof now);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    mutate(heap, &now, 200);
    commit(heap, true);
    dh_heap_close(heap);
    for (int i = 0; i < 300; i++) {
        stored_chunk *chunk = &disk.chunks[check_random_below(disk.chunks_count)];
        size_t at = check_random_below(chunk->size);
        uint8_t bit = (uint8_t)(1u << check_random_below(8));
        heap = heap_new();
        chunk->bytes[at] ^= bit;
        CHECK_EQ(dh_load_delta(heap, chunk->bytes, chunk->size), DH_E_CORRUPT);
        chunk->bytes[at] ^= bit;
        CHECK_EQ(dh_load_delta(heap, chunk->bytes, check_random_below(chunk->size)), DH_E_CORRUPT);
        dh_heap_close(heap);
    }
    store_reset();
}

/* A diff that meets another image than it was made against is found by the checksum of the result,
 * in a chunk that is sound in itself. */
static void a_diff_against_another_image_is_refused(void)
{
    dh_heap *heap = heap_new();
    dh_delta_entry entry;
    dh_off off;

    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, 64 * 4096, DH_RAW, &off), 0);
    memset(dh_at(heap, off), 7, 64 * 4096);
    commit(heap, true);
    for (size_t p = 0; p < 64; p++)
        ((uint64_t *)dh_at(heap, off))[p * 512 + 100] = p;
    commit(heap, true);
    dh_heap_close(heap);
    CHECK_EQ(disk.chunks_count, 2);

    for (int wrong = 0; wrong < 3; wrong++) {
        stored_chunk *first = &disk.chunks[0], *chunk = wrong == 2 ? first : &disk.chunks[1];
        uint8_t *body = chunk->bytes + DH_CHUNK_HEADER_BYTES, was[DH_ENTRY_BYTES];
        dh_chunk_header header;
        CHECK_EQ(dh_chunk_header_decode(chunk->bytes, chunk->size, &header), 0);
        memcpy(was, body, sizeof was);
        if (wrong > 0) { /* a checksum that is not the page's, under a right one of the chunk */
            CHECK_EQ(dh_entry_decode(body, &entry), 0);
            entry.checksum ^= 1;
            dh_entry_encode(body, &entry);
            dh_chunk_header_encode(chunk->bytes, &header, body,
                                   chunk->size - DH_CHUNK_HEADER_BYTES);
        }
        heap = heap_new();
        if (wrong == 1)
            CHECK_EQ(dh_load_delta(heap, first->bytes, first->size), 0);
        /* wrong 0: the second diff without the first */
        CHECK_EQ(dh_load_delta(heap, chunk->bytes, chunk->size), 0);
        int rc = dh_load_finish(heap, &disk.state); /* looks at the root's page */
        CHECK_EQ(rc == 0 ? dh_store_begin(heap) : rc, DH_E_CORRUPT);
        dh_heap_close(heap);
        memcpy(body, was, sizeof was);
        dh_chunk_header_encode(chunk->bytes, &header, body, chunk->size - DH_CHUNK_HEADER_BYTES);
    }
    heap = reopen(heap_new());
    CHECK(dh_cell_is_allocated(heap, off)); /* brings the pages in */
    CHECK_EQ(((uint64_t *)dh_at(heap, off))[63 * 512 + 100], 63);
    dh_heap_close(heap);
    store_reset();
}

/* Enough pages for two threads, with changed, freed and rewritten ones in both halves. */
static void a_large_commit_is_whole(void)
{
    enum { PAGES = 4096 };
    dh_heap *heap = heap_new();
    dh_off off, freed[2];

    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    CHECK_EQ(dh_cell_new(heap, 40 * 4096, DH_RAW, &freed[0]), 0);
    CHECK_EQ(dh_cell_new(heap, PAGES * 4096, DH_RAW, &off), 0);
    CHECK_EQ(dh_cell_new(heap, 40 * 4096, DH_RAW, &freed[1]), 0);
    memset(dh_at(heap, freed[0]), 1, 40 * 4096);
    memset(dh_at(heap, freed[1]), 1, 40 * 4096);
    for (uint64_t p = 0; p < PAGES; p++)
        memset((uint8_t *)dh_at(heap, off) + p * 4096, (int)(p % 251), 4096);
    commit(heap, true);
    CHECK(disk.extents_count >= 3);
    size_t chunks_before = disk.chunks_count;
    for (uint64_t p = 0; p < PAGES; p++)
        ((uint64_t *)dh_at(heap, off))[p * 512 + p % 512] = p;
    memset(dh_at(heap, off), 3, 600 * 4096); /* more than half of the first extent */
    dh_cell_free(heap, freed[0]);
    dh_cell_free(heap, freed[1]);
    commit(heap, true);
    CHECK(disk.chunks_count >= chunks_before + 2);
    heap = reopen(heap);
    CHECK(!dh_cell_is_allocated(heap, freed[0]) && !dh_cell_is_allocated(heap, freed[1]));
    CHECK(dh_cell_is_allocated(heap, off));
    for (uint64_t p = 0; p < PAGES; p++) {
        const uint64_t *words = (uint64_t *)dh_at(heap, off) + p * 512;
        uint64_t filled = 0x0101010101010101u * (p < 600 ? 3 : p % 251);
        CHECK_EQ(words[p % 512], p < 600 ? filled : p);
        CHECK_EQ(words[(p + 1) % 512], filled);
    }
    dh_heap_close(heap);
    store_reset();
}

int main(int argc, char **argv)
{
    static const int trackers[] = {DH_TRACKER_AUTO, DH_TRACKER_COMPARE};

    check_begin(argc, argv);
    for (size_t i = 0; i < 2; i++) {
        tracker = trackers[i];
        random_histories_reopen_as_committed(150);
        a_fold_beside_commits_changes_nothing(8);
        a_value_that_comes_back_during_a_fold_is_not_lost();
        commits_that_rewrite_extents_beside_a_fold_change_nothing(5);
        a_commit_just_beyond_a_page_of_the_engine_is_cut_there();
        an_older_commit_can_be_shown(40);
        pinned_memory_is_not_shown_as_something_else();
        another_heaps_state_is_refused();
        a_freed_extent_folds_to_nothing();
        a_commit_of_one_word_is_small();
        damaged_chunks_are_refused();
        a_diff_against_another_image_is_refused();
        a_large_commit_is_whole();
    }
    return 0;
}

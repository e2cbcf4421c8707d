/* test_precopy.c -- commits whose bulk is staged ahead of the stop, while the heap is written to,
 * held against a plain copy of its contents and against a twin that commits in one stop.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "capture.h"
#include "check.h"
#include "precopy.h"

#define CAPACITY_BYTES (512u << 20)
#define RUNS 6u
#define RUN_BYTES_MAX (9u << 20)
#define EXTENTS_MAX 160u
#define CHUNKS_MAX 256u

typedef struct {
    dh_off off; /* 0: none */
    size_t size;
    uint8_t *bytes; /* what it must hold */
} model_run;

typedef struct {
    uint32_t number;
    uint64_t version, file_bytes;
    uint32_t checksum;
    int fd;
} stored_extent;

typedef struct {
    uint8_t *bytes;
    size_t size;
} stored_chunk;

/* A heap, what it must hold, and what survives of it. */
typedef struct {
    dh_heap *heap;
    model_run runs[RUNS];
    uint64_t random; /* its own, so that twins do the same */
    stored_extent extents[EXTENTS_MAX];
    size_t extents_count;
    stored_chunk chunks[CHUNKS_MAX];
    size_t chunks_count;
    dh_state state;
    uint64_t commit_id;
    uint64_t window_pages;
    int tracker;
} subject;

static dh_heap *heap_new(int tracker)
{
    dh_options options = {CAPACITY_BYTES, tracker, {1, 2}};
    dh_heap *heap;
    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    return heap;
}

static uint64_t below(subject *s, uint64_t limit)
{
    uint64_t kept = check_random_state;
    check_random_state = s->random;
    uint64_t found = check_random_below(limit);
    s->random = check_random_state;
    check_random_state = kept;
    return found;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void put(subject *s, model_run *run, size_t at, size_t size)
{
    uint8_t value = (uint8_t)below(s, 256);
    memset(run->bytes + at, value, size);
    memset((uint8_t *)dh_at(s->heap, run->off) + at, value, size);
    if (s->tracker == DH_TRACKER_SCRIPT)
        dh_script_write(s->heap->watch, (dh_pgno)((run->off + at) >> DH_PAGE_SHIFT),
                        ((run->off + at + size - 1) >> DH_PAGE_SHIFT) -
                            ((run->off + at) >> DH_PAGE_SHIFT) + 1);
}

static void make_run(subject *s, model_run *run)
{
    run->size = 4096u * (1 + below(s, RUN_BYTES_MAX / 4096u));
    CHECK_EQ(dh_cell_new(s->heap, run->size, DH_RAW, &run->off), 0);
    memset(run->bytes, 0, run->size);
    if (below(s, 4) != 0)
        put(s, run, 0, run->size);
}

static void write_some(subject *s, size_t steps)
{
    for (size_t step = 0; step < steps; step++) {
        model_run *run = &s->runs[below(s, RUNS)];
        if (run->off == 0) {
            make_run(s, run);
        } else if (below(s, 12) == 0) {
            dh_cell_free(s->heap, run->off);
            run->off = 0;
        } else {
            size_t at = below(s, run->size);
            size_t size = below(s, 5) == 0 ? run->size - at : 1 + below(s, 5000);
            put(s, run, at, size < run->size - at ? size : run->size - at);
        }
    }
}

static bool holds(const subject *s)
{
    for (size_t i = 0; i < RUNS; i++) {
        const model_run *run = &s->runs[i];
        if (run->off != 0 && memcmp(dh_at(s->heap, run->off), run->bytes, run->size) != 0)
            return false;
    }
    return true;
}

/* --- committing ------------------------------------------------------------------------------- */

static stored_extent *staged_extent(stored_extent *extents, size_t count, uint32_t number)
{
    for (size_t i = 0; i < count; i++) {
        if (extents[i].number == number)
            return &extents[i];
    }
    return NULL;
}

static void write_file(subject *s, dh_capture *capture, uint32_t number, stored_extent *extent)
{
    *extent = (stored_extent){number, s->commit_id + 1, 0, 0, memfd_create("extent", MFD_CLOEXEC)};
    CHECK(extent->fd >= 0);
    CHECK_EQ(dh_extent_write(s->heap, capture, number, extent->version, extent->fd,
                             &extent->file_bytes, &extent->checksum),
             0);
}

static void patch_file(subject *s, dh_capture *capture, stored_extent *extent)
{
    CHECK_EQ(dh_extent_patch(s->heap, capture, extent->number, extent->version, extent->fd,
                             &extent->file_bytes, &extent->checksum),
             0);
}

/* Returns how many extents were staged. */
static size_t stage(subject *s, dh_capture **capture, stored_extent *staged, size_t writes)
{
    size_t count = 0, planned;
    for (int round = 0; round < 4; round++) {
        CHECK_EQ(dh_stage_round(s->heap, s->window_pages, capture, &planned), 0);
        for (size_t i = 0; i < planned; i++) {
            uint32_t number = dh_stage_extent(*capture, i);
            stored_extent *extent = staged_extent(staged, count, number);
            int verdict;
            CHECK_EQ(dh_stage_take(s->heap, *capture, number, &verdict), 0);
            if (verdict == DH_STAGE_WRITE) {
                CHECK(extent == NULL && count < EXTENTS_MAX);
                extent = &staged[count++];
                write_file(s, *capture, number, extent);
            } else if (verdict == DH_STAGE_PATCH) {
                patch_file(s, *capture, extent);
            }
            if (verdict != DH_STAGE_NONE)
                CHECK_EQ(dh_stage_keep(s->heap, *capture, number, extent->fd, extent->file_bytes),
                         0);
            if (writes > 0)
                write_some(s, below(s, writes)); /* the application goes on */
        }
        if (planned == 0)
            break;
    }
    return count;
}

static void record(subject *s, const stored_extent *extent)
{
    stored_extent *old = staged_extent(s->extents, s->extents_count, extent->number);
    if (old == NULL) {
        CHECK(s->extents_count < EXTENTS_MAX);
        old = &s->extents[s->extents_count++];
    } else {
        close(old->fd);
    }
    *old = *extent;
    CHECK_EQ(dh_extent_switch(s->heap, extent->number, extent->version, extent->fd,
                              extent->file_bytes, extent->checksum),
             0);
}

static void keep_chunks(subject *s, dh_capture *capture)
{
    for (size_t i = 0; i < dh_commit_chunks_count(capture); i++) {
        CHECK(s->chunks_count < CHUNKS_MAX);
        stored_chunk *chunk = &s->chunks[s->chunks_count++];
        const uint8_t *bytes = dh_commit_chunk(capture, i, &chunk->size);
        chunk->bytes = malloc(chunk->size);
        memcpy(chunk->bytes, bytes, chunk->size);
    }
}

/* The stop and what follows it. */
static dh_commit_stats finish(subject *s, dh_capture *capture, stored_extent *files, size_t staged,
                              bool succeeds)
{
    dh_commit_stats stats;
    size_t count = staged;

    CHECK_EQ(dh_commit_capture(s->heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(s->heap, capture, s->commit_id, s->commit_id + 1, 1 << 20), 0);
    dh_commit_stats_read(capture, &stats);
    for (size_t i = 0; i < staged; i++) {
        if (dh_stage_is_touched(capture, files[i].number))
            patch_file(s, capture, &files[i]);
    }
    for (size_t i = 0; i < dh_commit_rebased_count(capture); i++) {
        CHECK(staged_extent(files, staged, dh_commit_rebased_extent(capture, i)) == NULL);
        write_file(s, capture, dh_commit_rebased_extent(capture, i), &files[count++]);
    }
    if (!succeeds) {
        for (size_t i = 0; i < count; i++)
            close(files[i].fd);
        dh_commit_failed(s->heap, capture);
        return stats;
    }
    keep_chunks(s, capture);
    dh_commit_state(capture, &s->state);
    s->commit_id++;
    for (size_t i = 0; i < count; i++)
        record(s, &files[i]);
    CHECK_EQ(dh_commit_done(s->heap, &capture), 0);
    return stats;
}

/* `writes`: how much may be written after each extent that is staged. */
static dh_commit_stats commit(subject *s, size_t writes, bool succeeds, size_t *staged_out)
{
    stored_extent files[EXTENTS_MAX];
    dh_capture *capture = NULL;

    *staged_out = stage(s, &capture, files, writes);
    return finish(s, capture, files, *staged_out, succeeds);
}

/* --- a subject's life ------------------------------------------------------------------------- */

static void begin(subject *s, int tracker, uint64_t window_pages, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->tracker = tracker;
    s->window_pages = window_pages;
    s->random = seed;
    for (size_t i = 0; i < RUNS; i++)
        s->runs[i].bytes = malloc(RUN_BYTES_MAX);
    s->heap = heap_new(tracker);
    CHECK_EQ(dh_load_finish(s->heap, NULL), 0);
}

static void reopen(subject *s)
{
    dh_heap_close(s->heap);
    s->heap = heap_new(s->tracker);
    for (size_t i = 0; i < s->extents_count; i++) {
        stored_extent *extent = &s->extents[i];
        CHECK_EQ(dh_load_extent(s->heap, extent->number, extent->version, extent->fd,
                                extent->file_bytes, extent->checksum),
                 0);
    }
    for (size_t i = 0; i < s->chunks_count; i++)
        CHECK_EQ(dh_load_delta(s->heap, s->chunks[i].bytes, s->chunks[i].size), 0);
    CHECK_EQ(dh_load_finish(s->heap, &s->state), 0);
    CHECK_EQ(dh_store_begin(s->heap), 0);
}

static void check_nothing_pending(subject *s)
{
    uint64_t pages, bytes;
    CHECK_EQ(dh_pending(s->heap, &pages, &bytes), 0);
    CHECK_EQ(pages, 0);
    CHECK_EQ(bytes, 0);
}

static void end(subject *s)
{
    dh_heap_close(s->heap);
    for (size_t i = 0; i < RUNS; i++)
        free(s->runs[i].bytes);
    for (size_t i = 0; i < s->extents_count; i++)
        close(s->extents[i].fd);
    for (size_t i = 0; i < s->chunks_count; i++)
        free(s->chunks[i].bytes);
}

/* --- cases ------------------------------------------------------------------------------------ */

static void what_is_written_while_extents_are_staged_is_in_the_commit(int tracker)
{
    static subject s;
    size_t staged, staged_sum = 0;

    begin(&s, tracker, 0, check_random());
    for (int round = 0; round < 12; round++) {
        write_some(&s, 1 + below(&s, 30));
        (void)commit(&s, below(&s, 3) * 2, below(&s, 3) != 0, &staged);
        CHECK(holds(&s));
        staged_sum += staged;
        (void)commit(&s, 0, true, &staged);
        check_nothing_pending(&s);
        if (below(&s, 2) == 0)
            reopen(&s);
        CHECK(holds(&s));
    }
    CHECK(staged_sum > 0);
    reopen(&s);
    CHECK(holds(&s));
    end(&s);
}

static void a_staged_commit_counts_what_one_in_one_stop_counts(int tracker)
{
    static subject one, other;
    uint64_t seed = check_random();
    size_t staged, unused, staged_sum = 0;

    begin(&one, tracker, 0, seed);
    begin(&other, tracker, UINT64_MAX, seed);
    for (int round = 0; round < 8; round++) {
        size_t steps = 1 + check_random_below(30);
        write_some(&one, steps);
        write_some(&other, steps);
        dh_commit_stats a = commit(&one, 0, true, &staged);
        dh_commit_stats b = commit(&other, 0, true, &unused);
        CHECK_EQ(unused, 0);
        staged_sum += staged;
        CHECK_EQ(a.changed_bytes, b.changed_bytes);
        CHECK_EQ(a.pages_count, b.pages_count);
        CHECK_EQ(a.data_pages_count, b.data_pages_count);
    }
    CHECK(staged_sum > 0);
    end(&one);
    end(&other);
}

/* Whether a store between staging and stop is there after reopening. */
static bool survives(bool is_reported)
{
    static subject s;
    stored_extent files[EXTENTS_MAX];
    dh_capture *capture = NULL;

    begin(&s, DH_TRACKER_SCRIPT, 0, 7);
    model_run *run = &s.runs[0];
    run->size = 4u << 20;
    CHECK_EQ(dh_cell_new(s.heap, run->size, DH_RAW, &run->off), 0);
    put(&s, run, 0, run->size);
    size_t staged = stage(&s, &capture, files, 0);
    CHECK(staged > 0);
    if (is_reported)
        put(&s, run, 5, 1);
    else
        run->bytes[5] = ++*((uint8_t *)dh_at(s.heap, run->off) + 5);
    (void)finish(&s, capture, files, staged, true);
    CHECK(holds(&s));
    reopen(&s);
    bool found = holds(&s);
    end(&s);
    return found;
}

/* The negative control: a page that the last scan does not report keeps its staged bytes. */
static void only_the_scan_of_the_stop_tells_which_copies_count(void)
{
    CHECK(survives(true));
    CHECK(!survives(false));
}

int main(int argc, char **argv)
{
    static const int trackers[] = {DH_TRACKER_AUTO, DH_TRACKER_COMPARE};

    check_begin(argc, argv);
    for (size_t i = 0; i < 2; i++) {
        what_is_written_while_extents_are_staged_is_in_the_commit(trackers[i]);
        a_staged_commit_counts_what_one_in_one_stop_counts(trackers[i]);
    }
    only_the_scan_of_the_stop_tells_which_copies_count();
    return 0;
}

/* test_proof.c -- proof mode under a watch that reports what the test says, and no more: every store
 * that is left out must be caught, and nothing else.
 */
#include <unistd.h>

#include "buffer.h"
#include "check.h"
#include "dict.h"
#include "gate.h"
#include "heap.h"
#include "precopy.h"

#define CAPACITY_BYTES (64u << 20)
#define RUN_PAGES 600u

typedef struct {
    dh_heap *heap;
    dh_off run; /* RUN_PAGES pages of bytes */
} fixture;

static uint8_t *page_of(const fixture *f, uint64_t index)
{
    return (uint8_t *)dh_at(f->heap, f->run) + index * DH_PAGE_BYTES;
}

static dh_pgno pgno_of(const fixture *f, uint64_t index)
{
    return (dh_pgno)((f->run >> DH_PAGE_SHIFT) + index);
}

static void store(const fixture *f, uint64_t index, bool is_reported)
{
    page_of(f, index)[check_random_below(DH_PAGE_BYTES)] ^= (uint8_t)(1 + check_random_below(255));
    if (is_reported)
        dh_script_write(f->heap->watch, pgno_of(f, index), 1);
}

static int commit(dh_heap *heap, uint64_t *pages_out)
{
    dh_capture *capture = NULL;
    int rc = dh_commit_capture(heap, &capture);

    if (rc != 0)
        return rc;
    CHECK_EQ(dh_commit_encode(heap, capture, 0, 1, 1 << 20), 0);
    dh_commit_stats stats;
    dh_commit_stats_read(capture, &stats);
    if (pages_out != NULL)
        *pages_out = stats.data_pages_count;
    return dh_commit_done(heap, &capture);
}

static fixture begin(bool is_proved)
{
    dh_options options = {CAPACITY_BYTES, DH_TRACKER_SCRIPT, {check_random(), check_random()}};
    fixture f;

    CHECK_EQ(dh_heap_open(&options, &f.heap), 0);
    if (is_proved) {
        CHECK_EQ(dh_heap_prove(f.heap), 0);
        CHECK_EQ(dh_heap_prove(f.heap), 0); /* once more is no harm */
    }
    CHECK_EQ(dh_load_finish(f.heap, NULL), 0);
    CHECK_EQ(dh_cell_new(f.heap, RUN_PAGES * DH_PAGE_BYTES, DH_RAW, &f.run), 0);
    dh_script_write(f.heap->watch, 1, f.heap->arena.hwm_pages - 1);
    CHECK_EQ(commit(f.heap, NULL), 0);
    return f;
}

static void reported_stores_pass(void)
{
    fixture f = begin(true);

    for (int round = 0; round < 200; round++) {
        for (uint64_t n = check_random_below(20); n > 0; n--)
            store(&f, check_random_below(RUN_PAGES), true);
        CHECK_EQ(commit(f.heap, NULL), 0);
    }
    dh_heap_close(f.heap);
}

/* One bit anywhere, in any page: a commit fails, says which page, and the next one holds it. */
static void every_store_that_is_left_out_is_caught(void)
{
    fixture f = begin(true);

    for (int round = 0; round < 500; round++) {
        uint64_t index = check_random_below(RUN_PAGES), pages;
        char number[32];

        store(&f, check_random_below(RUN_PAGES), true);
        page_of(&f, index)[check_random_below(DH_PAGE_BYTES)] ^=
            (uint8_t)(1u << check_random_below(8));
        snprintf(number, sizeof number, "number %u", pgno_of(&f, index));
        int rc = commit(f.heap, &pages);
        if (rc == 0)
            continue; /* the page that was reported beside it */
        CHECK_EQ(rc, DH_E_UNREPORTED);
        CHECK(strstr(dh_heap_error_text(f.heap), number) != NULL);
        CHECK_EQ(commit(f.heap, &pages), 0);
        CHECK(pages >= 1);
        CHECK(dh_image_same(f.heap, pgno_of(&f, index)));
        CHECK_EQ(commit(f.heap, &pages), 0);
        CHECK_EQ(pages, 0);
    }
    dh_heap_close(f.heap);
}

static void without_proof_nothing_is_caught(void)
{
    fixture f = begin(false);
    uint64_t pages;

    store(&f, 7, false);
    CHECK_EQ(commit(f.heap, &pages), 0);
    CHECK_EQ(pages, 0);
    CHECK(!dh_image_same(f.heap, pgno_of(&f, 7)));
    dh_heap_close(f.heap);
}

static void pages_are_named_as_runs(void)
{
    fixture f = begin(true);
    char expected[64];

    for (uint64_t index = 10; index < 14; index++)
        store(&f, index, false);
    store(&f, 100, false);
    snprintf(expected, sizeof expected, "number %u-%u, %u", pgno_of(&f, 10), pgno_of(&f, 13),
             pgno_of(&f, 100));
    CHECK_EQ(commit(f.heap, NULL), DH_E_UNREPORTED);
    CHECK(strstr(dh_heap_error_text(f.heap), expected) != NULL);
    CHECK(strstr(dh_heap_error_text(f.heap), "5 pages") != NULL);
    CHECK_EQ(commit(f.heap, NULL), 0);
    for (uint64_t index = 0; index < RUN_PAGES; index += 2)
        store(&f, index, false);
    CHECK_EQ(commit(f.heap, NULL), DH_E_UNREPORTED);
    CHECK(strstr(dh_heap_error_text(f.heap), ", ...") != NULL);
    CHECK_EQ(commit(f.heap, NULL), 0);
    dh_heap_close(f.heap);
}

static void marking_by_hand_makes_it_right(void)
{
    fixture f = begin(true);
    uint64_t pages;

    store(&f, 33, false);
    CHECK_EQ(dh_mark_dirty(f.heap, (uint64_t)(uintptr_t)page_of(&f, 33), 1), 0);
    CHECK_EQ(commit(f.heap, &pages), 0);
    CHECK_EQ(pages, 1);
    dh_heap_close(f.heap);
}

/* A page that was freed is nobody's: who writes to it is not accused, and who gets it next is. */
static void free_pages_are_not_judged(void)
{
    fixture f = begin(true);

    dh_cell_free(f.heap, f.run);
    CHECK_EQ(commit(f.heap, NULL), 0);
    store(&f, 5, false);
    CHECK_EQ(commit(f.heap, NULL), 0);
    CHECK_EQ(dh_cell_new(f.heap, RUN_PAGES * DH_PAGE_BYTES, DH_RAW, &f.run), 0);
    CHECK_EQ(commit(f.heap, NULL), 0); /* in use without a write: captured all the same */
    store(&f, 5, false);
    CHECK_EQ(commit(f.heap, NULL), DH_E_UNREPORTED);
    CHECK_EQ(commit(f.heap, NULL), 0);
    dh_heap_close(f.heap);
}

/* Freed, the freeing captured by a commit that fails, rolled back: the page is as it was committed. */
static void a_page_that_comes_back_is_as_it_was(void)
{
    fixture f = begin(true);
    uint64_t pages, stop_ns;

    for (int round = 0; round < 2; round++) {
        dh_capture *capture = NULL;
        dh_cell_free(f.heap, f.run);
        CHECK_EQ(dh_commit_capture(f.heap, &capture), 0);
        dh_commit_failed(f.heap, capture);
        CHECK_EQ(dh_show_state(f.heap, NULL, &pages, &stop_ns), 0);
        CHECK(dh_cell_is_allocated(f.heap, f.run));
        if (round == 1)
            store(&f, 9, false);
        CHECK_EQ(commit(f.heap, NULL), round == 0 ? 0 : DH_E_UNREPORTED);
    }
    CHECK_EQ(commit(f.heap, NULL), 0);
    CHECK(dh_image_same(f.heap, pgno_of(&f, 9)));
    dh_heap_close(f.heap);
}

/* A commit that fails leaves the pages in the cursor: what they hold by then is the next one's. */
static void failed_commits_and_scans_accuse_nobody(void)
{
    fixture f = begin(true);

    for (int round = 0; round < 100; round++) {
        dh_capture *capture = NULL;
        store(&f, check_random_below(RUN_PAGES), true);
        if (round % 3 == 0) {
            CHECK_EQ(dh_fault_set("watch.scan", 0, EIO), 0);
            CHECK(dh_commit_capture(f.heap, &capture) != 0);
            CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        } else {
            CHECK_EQ(dh_commit_capture(f.heap, &capture), 0);
            store(&f, check_random_below(RUN_PAGES), true);
            dh_commit_failed(f.heap, capture);
        }
        if (round % 5 == 0)
            CHECK_EQ(commit(f.heap, NULL), 0);
    }
    dh_heap_close(f.heap);
}

/* The fault point that the rest of the suite uses as its negative control. */
static void a_scan_that_reaches_no_cursor_is_caught(void)
{
    fixture f = begin(true);

    store(&f, 3, true);
    CHECK_EQ(dh_fault_set("watch.merge", 0, EIO), 0);
    CHECK_EQ(commit(f.heap, NULL), DH_E_UNREPORTED);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    CHECK_EQ(commit(f.heap, NULL), 0);
    CHECK(dh_image_same(f.heap, pgno_of(&f, 3)));
    dh_heap_close(f.heap);
}

/* Of a page that is taken ahead of the stop, the copy counts. */
static void a_store_behind_the_copy_ahead_of_the_stop_is_caught(void)
{
    for (int is_reported = 0; is_reported < 2; is_reported++) {
        fixture f = begin(true);
        dh_capture *capture = NULL;
        size_t count;
        int verdict;

        for (uint64_t index = 0; index < RUN_PAGES; index++) {
            memset(page_of(&f, index), (int)index + 1, DH_PAGE_BYTES);
            dh_script_write(f.heap->watch, pgno_of(&f, index), 1);
        }
        CHECK_EQ(dh_stage_round(f.heap, 16, &capture, &count), 0);
        CHECK(count > 0);
        for (size_t i = 0; i < count; i++) {
            uint32_t extent_no = dh_stage_extent(capture, i), checksum;
            uint64_t bytes;
            FILE *file = tmpfile();
            CHECK(file != NULL);
            CHECK_EQ(dh_stage_take(f.heap, capture, extent_no, &verdict), 0);
            CHECK_EQ(verdict, DH_STAGE_WRITE);
            CHECK_EQ(
                dh_extent_write(f.heap, capture, extent_no, 2, fileno(file), &bytes, &checksum), 0);
            CHECK_EQ(dh_stage_keep(f.heap, capture, extent_no, fileno(file), bytes), 0);
            CHECK_EQ(fclose(file), 0);
        }
        store(&f, 77, is_reported);
        int rc = dh_commit_capture(f.heap, &capture);
        CHECK_EQ(rc, is_reported ? 0 : DH_E_UNREPORTED);
        if (is_reported)
            CHECK(dh_capture_page(capture, pgno_of(&f, 77)) != NULL);
        dh_commit_failed(f.heap, capture);
        capture = NULL;
        CHECK_EQ(dh_commit_capture(f.heap, &capture), 0);
        CHECK(memcmp(dh_capture_page(capture, pgno_of(&f, 77)), page_of(&f, 77), DH_PAGE_BYTES) ==
              0);
        dh_commit_failed(f.heap, capture);
        dh_heap_close(f.heap);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    reported_stores_pass();
    every_store_that_is_left_out_is_caught();
    without_proof_nothing_is_caught();
    pages_are_named_as_runs();
    marking_by_hand_makes_it_right();
    free_pages_are_not_judged();
    a_page_that_comes_back_is_as_it_was();
    failed_commits_and_scans_accuse_nobody();
    a_scan_that_reaches_no_cursor_is_caught();
    a_store_behind_the_copy_ahead_of_the_stop_is_caught();
    return 0;
}

/* test_alloc.c -- cells and runs against a plain model; where new cells go; journal and pins. */
#include "capture.h"
#include "check.h"

#define OBJECTS_MAX 4000u

typedef struct {
    dh_off off;
    size_t bytes;
    uint8_t stamp;
} object;

static object objects[OBJECTS_MAX];

static dh_heap *heap_new(uint64_t capacity_bytes)
{
    dh_options options = {capacity_bytes, DH_TRACKER_AUTO, {1, 2}};
    dh_heap *heap;
    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    return heap;
}

static void commit(dh_heap *heap)
{
    dh_capture *capture;
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

static size_t random_size(void)
{
    switch (check_random_below(30)) {
    case 0:
        return 1 + check_random_below(100000);
    case 1:
        return 2040 + check_random_below(20);
    default:
        return 1 + check_random_below(300);
    }
}

/* Every object is stamped over its whole usable size, so an overlap would show. */
static void random_objects_do_not_overlap(void)
{
    dh_heap *heap = heap_new(64u << 20);
    uint64_t start_bytes = heap->alloc.allocated_bytes, start_free;

    memset(objects, 0, sizeof objects);
    for (size_t step = 0; step < 60000; step++) {
        object *o = &objects[check_random_below(OBJECTS_MAX)];
        if (o->off == 0) {
            o->bytes = random_size();
            CHECK_EQ(dh_cell_new(heap, o->bytes, (dh_content)check_random_below(2), &o->off), 0);
            CHECK(dh_cell_bytes(heap, o->off) >= o->bytes);
            CHECK_EQ(dh_cell_bytes(heap, o->off), dh_cell_round(o->bytes));
            o->bytes = dh_cell_bytes(heap, o->off);
            CHECK(is_zero(dh_at(heap, o->off), o->bytes));
            o->stamp = (uint8_t)(1 + check_random_below(255));
            memset(dh_at(heap, o->off), o->stamp, o->bytes);
        } else {
            const uint8_t *bytes = dh_at(heap, o->off);
            CHECK(dh_cell_is_allocated(heap, o->off));
            for (size_t i = 0; i < o->bytes; i++)
                CHECK_EQ(bytes[i], o->stamp);
            dh_cell_free(heap, o->off);
            dh_cell_free(heap, o->off); /* freeing twice does nothing */
            o->off = 0;
        }
        if (step % 7919 == 0)
            commit(heap);
    }
    for (size_t i = 0; i < OBJECTS_MAX; i++) {
        if (objects[i].off != 0)
            dh_cell_free(heap, objects[i].off);
    }
    CHECK_EQ(heap->alloc.allocated_bytes, start_bytes);
    start_free = heap->alloc.free_pages_count;
    CHECK_EQ(dh_alloc_rebuild(heap), 0); /* counted anew, the totals are the same */
    CHECK_EQ(heap->alloc.free_pages_count, start_free);
    CHECK_EQ(heap->alloc.allocated_bytes, start_bytes);
    dh_heap_close(heap);
}

static uint64_t pages_scanned(dh_heap *heap)
{
    uint64_t pages;
    CHECK_EQ(dh_watch_scan(heap->watch, heap->arena.hwm_pages, &pages), 0);
    return pages;
}

/* A heap of 64-byte cells with random holes in a fifth of them: 1000 new cells after a commit must
 * go together, not into the holes. */
static void new_cells_dirty_few_pages(void)
{
    dh_heap *heap = heap_new(64u << 20);
    static dh_off cells[64 * 1000];
    const size_t count = sizeof cells / sizeof *cells;
    dh_off off;

    for (size_t i = 0; i < count; i++)
        CHECK_EQ(dh_cell_new(heap, 64, DH_RAW, &cells[i]), 0);
    for (size_t i = 0; i < count; i++) {
        if (check_random_below(5) == 0)
            dh_cell_free(heap, cells[i]);
    }
    commit(heap);
    (void)pages_scanned(heap);
    for (size_t i = 0; i < 1000; i++)
        CHECK_EQ(dh_cell_new(heap, 64, DH_RAW, &off), 0);
    uint64_t pages = pages_scanned(heap);
    CHECK(pages <= 40);
    printf("1000 cells of 64 bytes dirtied %llu pages\n", (unsigned long long)pages);
    dh_heap_close(heap);
}

/* One small commit after another must not take a fresh page each time. */
static void small_commits_share_a_page(void)
{
    dh_heap *heap = heap_new(64u << 20);
    dh_off off;

    for (size_t i = 0; i < 64; i++)
        CHECK_EQ(dh_cell_new(heap, 64, DH_RAW, &off), 0);
    commit(heap);
    uint64_t hwm_pages = heap->arena.hwm_pages;
    for (size_t i = 0; i < 64; i++) {
        CHECK_EQ(dh_cell_new(heap, 64, DH_RAW, &off), 0);
        commit(heap);
    }
    CHECK(heap->arena.hwm_pages <= hwm_pages + 1);
    dh_heap_close(heap);
}

static void a_full_arena_says_so_and_goes_on(void)
{
    dh_heap *heap = heap_new(1u << 20);
    static dh_off cells[70000];
    size_t count = 0;
    dh_off off;

    while (dh_cell_new(heap, 16, DH_RAW, &cells[count]) == 0)
        count++;
    CHECK_EQ(dh_cell_new(heap, 16, DH_RAW, &off), DH_E_FULL);
    CHECK_EQ(dh_cell_new(heap, 5000, DH_RAW, &off), DH_E_FULL);
    CHECK(count > 60000);
    for (size_t i = 0; i < 1000; i++)
        dh_cell_free(heap, cells[i]);
    CHECK_EQ(dh_cell_new(heap, 8192, DH_RAW, &off), 0); /* pages that became empty */
    CHECK_EQ(dh_cell_new(heap, 16, DH_RAW, &off), 0);
    dh_heap_close(heap);
}

static void an_aborted_journal_frees_what_it_saw(void)
{
    dh_heap *heap = heap_new(16u << 20);
    uint64_t bytes = heap->alloc.allocated_bytes;
    dh_off off;

    dh_journal_begin(heap);
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(dh_cell_new(heap, random_size(), DH_REFS, &off), 0);
        if (i % 3 == 0)
            dh_cell_free(heap, off);
    }
    dh_journal_abort(heap);
    CHECK_EQ(heap->alloc.allocated_bytes, bytes);
    dh_journal_begin(heap);
    CHECK_EQ(dh_cell_new(heap, 48, DH_REFS, &off), 0);
    dh_journal_commit(heap);
    CHECK(dh_cell_is_allocated(heap, off));
    dh_heap_close(heap);
}

/* Exported memory may only come from pages that no rollback can give to anybody else. */
static void exported_memory_is_never_a_committed_object_s(void)
{
    dh_heap *heap = heap_new(16u << 20);
    dh_off committed, exported;
    uint64_t pages, stop_ns;

    CHECK_EQ(dh_cell_new(heap, 64 * 4096, DH_RAW, &committed), 0);
    memset(dh_at(heap, committed), 5, 64 * 4096);
    commit(heap);
    dh_cell_free(heap, committed);
    CHECK_EQ(dh_run_new_exportable(heap, 32 * 4096, &exported), 0);
    CHECK(exported + 32 * 4096 <= committed || exported >= committed + 64 * 4096);
    CHECK_EQ(dh_pin_add(&heap->alloc, (dh_pgno)(exported >> DH_PAGE_SHIFT), 32), 0);
    memset(dh_at(heap, exported), 9, 32 * 4096);
    CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
    CHECK(dh_cell_is_allocated(heap, committed));
    CHECK(!dh_cell_is_allocated(heap, exported));
    memset(dh_at(heap, exported), 11, 32 * 4096); /* the view is still there */
    for (int i = 0; i < 200; i++) {
        dh_off off;
        CHECK_EQ(dh_cell_new(heap, 4096, DH_RAW, &off), 0);
        CHECK(off + 4096 <= exported || off >= exported + 32 * 4096);
    }
    for (size_t i = 0; i < 64 * 4096; i++)
        CHECK_EQ(((uint8_t *)dh_at(heap, committed))[i], 5);
    dh_pin_remove(&heap->alloc, (dh_pgno)(exported >> DH_PAGE_SHIFT));
    CHECK_EQ(heap->alloc.kind[exported >> DH_PAGE_SHIFT], DH_KIND_FREE);
    dh_heap_close(heap);
}

/* Freed in a commit under way that then fails: the rollback shows them as used again. */
static void exported_memory_keeps_off_pages_freed_in_flight(void)
{
    dh_heap *heap = heap_new(16u << 20);
    dh_capture *capture;
    dh_off committed, exported, again;
    uint64_t pages, stop_ns;

    CHECK_EQ(dh_cell_new(heap, 64 * 4096, DH_RAW, &committed), 0);
    commit(heap);
    dh_cell_free(heap, committed);
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_run_new_exportable(heap, 32 * 4096, &exported), 0);
    CHECK(exported >= committed + 64 * 4096);
    dh_commit_failed(heap, capture);
    CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
    CHECK(dh_cell_is_allocated(heap, committed));

    dh_cell_free(heap, committed);
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 1, 2, 1 << 20), 0);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
    CHECK_EQ(dh_run_new_exportable(heap, 32 * 4096, &again), 0);
    CHECK(again < exported); /* durable: what was freed may be used */
    dh_heap_close(heap);
}

/* A class with a large part that stays, and pages that are filled and emptied again and again. */
static void lists_of_pages_do_not_grow(void)
{
    enum { STAYING = 20000, PASSING = 2000 };
    static dh_off passing[PASSING];
    dh_heap *heap = heap_new(64u << 20);
    size_t room = 0;
    dh_off off;

    for (int i = 0; i < STAYING; i++)
        CHECK_EQ(dh_cell_new(heap, 64, DH_RAW, &off), 0);
    for (int cycle = 0; cycle < 400; cycle++) {
        for (size_t i = 0; i < PASSING; i++)
            CHECK_EQ(dh_cell_new(heap, 64, DH_RAW, &passing[i]), 0);
        commit(heap);
        for (size_t i = 0; i < PASSING; i++)
            dh_cell_free(heap, passing[i]);
        commit(heap);
        size_t now = 0;
        for (size_t i = 0; i < DH_CLASSES_COUNT * 2; i++)
            now += heap->alloc.cursors[i].partial.room + heap->alloc.cursors[i].hot.room;
        if (cycle == 20)
            room = now;
        CHECK(cycle < 20 || now <= room * 2);
    }
    dh_heap_close(heap);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    random_objects_do_not_overlap();
    new_cells_dirty_few_pages();
    small_commits_share_a_page();
    a_full_arena_says_so_and_goes_on();
    an_aborted_journal_frees_what_it_saw();
    exported_memory_is_never_a_committed_object_s();
    exported_memory_keeps_off_pages_freed_in_flight();
    lists_of_pages_do_not_grow();
    return 0;
}

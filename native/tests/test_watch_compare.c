/* test_watch_compare.c -- the fallback that compares pages with their committed image. */
#include "watch.h"

#include "arena.h"
#include "check.h"

#define PAGES_COUNT 3000u

static dh_arena arena;
static uint8_t *image;
static dh_watch *watch;
static dh_bits set;
static int commit, collector;

static bool same(void *context, dh_pgno pgno)
{
    (void)context;
    return memcmp(dh_arena_page(&arena, pgno), image + (size_t)pgno * DH_PAGE_BYTES,
                  DH_PAGE_BYTES) == 0;
}

static void begin(void)
{
    dh_compare_source source = {same, NULL};

    CHECK_EQ(dh_arena_init(&arena, (uint64_t)PAGES_COUNT * DH_PAGE_BYTES), 0);
    const dh_range range = dh_arena_range(&arena);
    image = calloc(PAGES_COUNT, DH_PAGE_BYTES);
    CHECK(image != NULL);
    CHECK_EQ(dh_bits_init(&set, PAGES_COUNT), 0);
    CHECK_EQ(dh_watch_open(&range, DH_TRACKER_COMPARE, &source, &watch, NULL, 0), 0);
    source.same = NULL; /* the watch has a copy */
    CHECK_EQ(dh_watch_tracker(watch), DH_TRACKER_COMPARE);
    commit = dh_watch_cursor_open(watch);
    collector = dh_watch_cursor_open(watch);
}

static void end(void)
{
    dh_watch_close(watch);
    dh_bits_finish(&set);
    dh_arena_finish(&arena);
    free(image);
}

static void write_page(uint64_t pgno, uint8_t value)
{
    dh_arena_page(&arena, (dh_pgno)pgno)[check_random_below(DH_PAGE_BYTES)] = value;
}

static const dh_bits *scan_and_take(int cursor)
{
    CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, NULL), 0);
    dh_bits_clear_all(&set, PAGES_COUNT);
    dh_watch_take(watch, cursor, &set, PAGES_COUNT);
    return &set;
}

static void only_pages_that_differ_are_reported(void)
{
    begin();
    write_page(5, 1);
    write_page(6, 1);
    write_page(PAGES_COUNT - 1, 1);
    CHECK_EQ(dh_bits_count(scan_and_take(commit), PAGES_COUNT), 3);
    CHECK(dh_bits_test(&set, 5) && dh_bits_test(&set, 6) && dh_bits_test(&set, PAGES_COUNT - 1));
    memcpy(image, arena.base, (size_t)PAGES_COUNT * DH_PAGE_BYTES);
    (void)scan_and_take(commit); /* suspects may come once more */
    CHECK_EQ(dh_bits_count(scan_and_take(commit), PAGES_COUNT), 0);
    end();
}

static void a_page_that_went_there_and_back_is_reported_twice(void)
{
    begin();
    dh_arena_page(&arena, 9)[100] = 1; /* A to B */
    CHECK(dh_bits_test(scan_and_take(collector), 9));
    dh_arena_page(&arena, 9)[100] = 0; /* B to A: equal to the image again */
    CHECK(dh_bits_test(scan_and_take(collector), 9));
    CHECK(!dh_bits_test(scan_and_take(collector), 9));
    end();
}

static void note(void *context, dh_pgno first, uint64_t count)
{
    dh_bits_set_run(context, first, count);
}

static void a_peek_does_not_make_a_suspect(void)
{
    begin();
    dh_arena_page(&arena, 9)[100] = 1;
    dh_bits_clear_all(&set, PAGES_COUNT);
    CHECK_EQ(dh_watch_peek(watch, PAGES_COUNT, note, &set), 0);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 1);
    dh_arena_page(&arena, 9)[100] = 0;
    CHECK_EQ(dh_bits_count(scan_and_take(commit), PAGES_COUNT), 0);
    end();
}

static void a_failed_scan_reports_the_rest_whole(void)
{
    begin();
    write_page(5, 1);
    write_page(2000, 1);
    CHECK_EQ(dh_fault_set("watch.scan", 1, EIO), 0);
    CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, NULL), EIO);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    dh_watch_take(watch, commit, &set, PAGES_COUNT);
    CHECK(dh_bits_test(&set, 5) && !dh_bits_test(&set, 6));
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 1 + PAGES_COUNT - 1024);
    end();
}

/* Each cursor's owner keeps a copy of what it took; after every take the copy equals the arena. */
static void any_cursor_can_follow_the_arena(void)
{
    uint8_t *copies[2];
    int cursors[2];

    begin();
    cursors[0] = commit;
    cursors[1] = collector;
    for (int i = 0; i < 2; i++) {
        copies[i] = calloc(PAGES_COUNT, DH_PAGE_BYTES);
        CHECK(copies[i] != NULL);
    }
    for (int round = 0; round < 100; round++) {
        int who = (int)check_random_below(2);

        for (uint64_t n = check_random_below(20); n > 0; n--)
            write_page(check_random_below(50), (uint8_t)check_random_below(2));
        if (check_random_below(3) == 0)
            memset(dh_arena_page(&arena, (dh_pgno)check_random_below(50)), 0, DH_PAGE_BYTES);
        (void)scan_and_take(cursors[who]);
        for (uint64_t i = dh_bits_next(&set, 0, PAGES_COUNT); i < PAGES_COUNT;
             i = dh_bits_next(&set, i + 1, PAGES_COUNT)) {
            memcpy(copies[who] + i * DH_PAGE_BYTES, arena.base + i * DH_PAGE_BYTES, DH_PAGE_BYTES);
            if (who == 0)
                memcpy(image + i * DH_PAGE_BYTES, arena.base + i * DH_PAGE_BYTES, DH_PAGE_BYTES);
        }
        CHECK(memcmp(copies[who], arena.base, (size_t)PAGES_COUNT * DH_PAGE_BYTES) == 0);
    }
    free(copies[0]);
    free(copies[1]);
    end();
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    only_pages_that_differ_are_reported();
    a_page_that_went_there_and_back_is_reported_twice();
    a_peek_does_not_make_a_suspect();
    a_failed_scan_reports_the_rest_whole();
    any_cursor_can_follow_the_arena();
    return 0;
}

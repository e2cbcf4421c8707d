/* test_watch.c -- cursors: take, flight, put back, mark; faults; over the script tracker. */
#include "watch.h"

#include <sys/wait.h>
#include <unistd.h>

#include "arena.h"
#include "check.h"

#define PAGES_COUNT 5000u

static dh_arena arena;
static dh_watch *watch;
static dh_bits set; /* where takes go */

static void begin(void)
{
    CHECK_EQ(dh_arena_init(&arena, (uint64_t)PAGES_COUNT * DH_PAGE_BYTES), 0);
    const dh_range range = dh_arena_range(&arena);
    CHECK_EQ(dh_watch_open(&range, DH_TRACKER_SCRIPT, NULL, &watch, NULL, 0), 0);
    CHECK_EQ(dh_bits_init(&set, PAGES_COUNT), 0);
}

static void end(void)
{
    dh_watch_close(watch);
    dh_bits_finish(&set);
    dh_arena_finish(&arena);
}

static void forget(dh_bits *bits) { dh_bits_clear_all(bits, PAGES_COUNT); }

static uint64_t scan(void)
{
    uint64_t pages_count = 0;

    CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, &pages_count), 0);
    return pages_count;
}

static void a_page_stays_until_its_cursor_is_taken(void)
{
    int commit, collector;

    begin();
    commit = dh_watch_cursor_open(watch);
    dh_script_write(watch, 10, 2);
    CHECK_EQ(scan(), 2);
    collector = dh_watch_cursor_open(watch); /* starts empty */
    dh_script_write(watch, 20, 1);
    CHECK_EQ(scan(), 1);
    CHECK_EQ(scan(), 0);
    dh_watch_copy(watch, commit, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 3);
    forget(&set);
    dh_watch_take(watch, collector, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 1);
    CHECK(dh_bits_test(&set, 20));
    forget(&set);
    dh_watch_take(watch, commit, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 3);
    CHECK(dh_bits_test(&set, 10) && dh_bits_test(&set, 11) && dh_bits_test(&set, 20));
    forget(&set);
    dh_watch_take(watch, commit, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 0);
    end();
}

/* Pages that arrive while a commit is in flight are neither dropped by its success nor doubled by
 * its failure. */
static void a_flight_that_fails_comes_back_to_its_own_cursor(void)
{
    dh_bits flight;
    int commit, collector;

    begin();
    CHECK_EQ(dh_bits_init(&flight, PAGES_COUNT), 0);
    commit = dh_watch_cursor_open(watch);
    collector = dh_watch_cursor_open(watch);
    dh_script_write(watch, 1, 1);
    scan();
    dh_watch_take(watch, commit, &flight, PAGES_COUNT);
    dh_script_write(watch, 2, 1);
    scan();          /* somebody else's scan, commit 1 still in flight */
    forget(&flight); /* success */
    dh_watch_take(watch, commit, &flight, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&flight, PAGES_COUNT), 1);
    CHECK(dh_bits_test(&flight, 2));
    dh_script_write(watch, 3, 1);
    scan();
    dh_watch_take(watch, collector, &set, PAGES_COUNT);
    dh_watch_put_back(watch, commit, &flight, PAGES_COUNT); /* failure */
    forget(&set);
    dh_watch_take(watch, commit, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 2);
    CHECK(dh_bits_test(&set, 2) && dh_bits_test(&set, 3));
    forget(&set);
    dh_watch_take(watch, collector, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 0);
    dh_bits_finish(&flight);
    end();
}

static void a_take_below_a_limit_leaves_the_rest(void)
{
    int commit;

    begin();
    commit = dh_watch_cursor_open(watch);
    dh_watch_mark(watch, 60, 10);
    dh_watch_take(watch, commit, &set, 65);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 5);
    forget(&set);
    dh_watch_take(watch, commit, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_next(&set, 0, PAGES_COUNT), 65);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 5);
    end();
}

static void count_pages(void *context, dh_pgno first, uint64_t count)
{
    (void)first;
    *(uint64_t *)context += count;
}

static void a_peek_changes_nothing(void)
{
    uint64_t pages_count = 0;
    int commit;

    begin();
    commit = dh_watch_cursor_open(watch);
    dh_script_write(watch, 100, 50);
    CHECK_EQ(dh_watch_peek(watch, 120, count_pages, &pages_count), 0);
    CHECK_EQ(pages_count, 20);
    dh_watch_copy(watch, commit, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 0);
    CHECK_EQ(scan(), 50);
    end();
}

static void arming_empties_every_cursor_and_a_failed_one_fills_them(void)
{
    int cursors[2];

    begin();
    for (int i = 0; i < 2; i++)
        cursors[i] = dh_watch_cursor_open(watch);
    dh_watch_mark(watch, 1, 3);
    dh_script_write(watch, 7, 1);
    CHECK_EQ(dh_watch_arm(watch, PAGES_COUNT), 0);
    CHECK_EQ(scan(), 0);
    for (int i = 0; i < 2; i++)
        dh_watch_copy(watch, cursors[i], &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 0);
    CHECK_EQ(dh_fault_set("watch.arm", 0, ENOMEM), 0);
    CHECK_EQ(dh_watch_arm(watch, 100), ENOMEM);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    for (int i = 0; i < 2; i++) {
        forget(&set);
        dh_watch_take(watch, cursors[i], &set, PAGES_COUNT);
        CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 100);
    }
    end();
}

static void a_failed_scan_loses_nothing(void)
{
    uint64_t pages_count;
    int commit;

    begin();
    commit = dh_watch_cursor_open(watch);
    dh_script_write(watch, 300, 1);
    CHECK_EQ(dh_fault_set("watch.scan", 0, EPERM), 0);
    CHECK_EQ(dh_watch_scan(watch, 1000, &pages_count), EPERM);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    CHECK(pages_count >= 1);
    dh_watch_take(watch, commit, &set, PAGES_COUNT);
    CHECK(dh_bits_test(&set, 300));
    CHECK_EQ(scan(), 0);
    end();
}

/* Negative control: what a merge leaves out is really gone, so a checker has something to find. */
static void a_merge_left_out_is_a_loss(void)
{
    int commit;

    begin();
    commit = dh_watch_cursor_open(watch);
    dh_script_write(watch, 300, 1);
    CHECK_EQ(dh_fault_set("watch.merge", 0, 1), 0);
    CHECK_EQ(scan(), 1);
    CHECK_EQ(dh_fault_hits("watch.merge"), 1);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    CHECK_EQ(scan(), 0);
    dh_watch_take(watch, commit, &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 0);
    end();
}

static void cursors_are_few_and_come_back(void)
{
    int cursors[DH_CURSORS_MAX];

    begin();
    for (int i = 0; i < DH_CURSORS_MAX; i++) {
        cursors[i] = dh_watch_cursor_open(watch);
        CHECK(cursors[i] >= 0);
    }
    CHECK(dh_watch_cursor_open(watch) < 0);
    dh_watch_mark(watch, 5, 1);
    dh_watch_cursor_close(watch, cursors[3]);
    CHECK_EQ(dh_watch_cursor_open(watch), cursors[3]);
    dh_watch_take(watch, cursors[3], &set, PAGES_COUNT);
    CHECK_EQ(dh_bits_count(&set, PAGES_COUNT), 0);
    end();
}

/* Random writes, scans, takes, failures: what a cursor's owner got, and what it still may get, is
 * everything that was written. */
static void no_page_is_ever_lost(void)
{
    static bool is_owed[3][PAGES_COUNT];
    dh_bits flight;
    int cursors[3];

    memset(is_owed, 0, sizeof(is_owed));
    begin();
    CHECK_EQ(dh_bits_init(&flight, PAGES_COUNT), 0);
    for (int i = 0; i < 3; i++)
        cursors[i] = dh_watch_cursor_open(watch);
    for (int round = 0; round < 3000; round++) {
        int who = (int)check_random_below(3);
        uint64_t first = check_random_below(PAGES_COUNT - 40);
        uint64_t count = 1 + check_random_below(40);

        dh_script_write(watch, (dh_pgno)first, count);
        for (int i = 0; i < 3; i++)
            memset(is_owed[i] + first, true, count);
        if (check_random_below(10) == 0)
            CHECK_EQ(dh_fault_set("watch.scan", 0, EIO), 0);
        (void)dh_watch_scan(watch, PAGES_COUNT, NULL);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        forget(&flight);
        dh_watch_take(watch, cursors[who], &flight, PAGES_COUNT);
        for (uint64_t i = 0; i < PAGES_COUNT; i++)
            CHECK(dh_bits_test(&flight, i) || !is_owed[who][i]);
        if (check_random_below(2) == 0)
            dh_watch_put_back(watch, cursors[who], &flight, PAGES_COUNT);
        else
            memset(is_owed[who], 0, PAGES_COUNT);
    }
    dh_bits_finish(&flight);
    end();
}

static void a_child_is_refused(void)
{
    pid_t child;
    int status;

    begin();
    CHECK(!dh_watch_is_forked(watch));
    child = fork();
    if (child == 0) {
        CHECK(dh_watch_is_forked(watch));
        CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, NULL), DH_E_FORKED);
        CHECK_EQ(dh_watch_arm(watch, PAGES_COUNT), DH_E_FORKED);
        CHECK_EQ(dh_watch_cursor_open(watch), DH_E_FORKED);
        dh_watch_close(watch);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    CHECK(!dh_watch_is_forked(watch));
    end();
}

static void an_unknown_tracker_says_so(void)
{
    char why[100];

    CHECK_EQ(dh_arena_init(&arena, DH_PAGE_BYTES), 0);
    const dh_range range = dh_arena_range(&arena);
    CHECK_EQ(dh_watch_open(&range, 77, NULL, &watch, why, sizeof(why)), DH_E_TRACKER);
    CHECK(strstr(why, "77") != NULL);
    CHECK_EQ(dh_watch_open(&range, DH_TRACKER_COMPARE, NULL, &watch, why, sizeof(why)),
             DH_E_TRACKER);
    CHECK(why[0] != '\0');
    dh_arena_finish(&arena);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    a_page_stays_until_its_cursor_is_taken();
    a_flight_that_fails_comes_back_to_its_own_cursor();
    a_take_below_a_limit_leaves_the_rest();
    a_peek_changes_nothing();
    arming_empties_every_cursor_and_a_failed_one_fills_them();
    a_failed_scan_loses_nothing();
    a_merge_left_out_is_a_loss();
    cursors_are_few_and_come_back();
    no_page_is_ever_lost();
    a_child_is_refused();
    an_unknown_tracker_says_so();
    return 0;
}

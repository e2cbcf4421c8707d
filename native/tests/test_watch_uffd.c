/* test_watch_uffd.c -- the real kernel: exactly the written pages, whoever wrote, whatever fails.
 *
 * Over the system call; test_watch_uffd_dev.c runs the same over the device node.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena.h"
#include "check.h"
#include "pagemap.h"

#define PAGES_COUNT 40000u /* three chunks */

#ifndef TEST_TRACKER
#define TEST_TRACKER DH_TRACKER_UFFD
#endif

static dh_arena arena;
static dh_watch *watch;
static int commit;
static dh_bits found;

static void begin(void)
{
    char why[300];

    CHECK_EQ(dh_arena_init(&arena, (uint64_t)PAGES_COUNT * DH_PAGE_BYTES), 0);
    const dh_range range = dh_arena_range(&arena);
    CHECK_EQ(dh_watch_open(&range, TEST_TRACKER, NULL, &watch, why, sizeof(why)), 0);
    CHECK_EQ(dh_watch_tracker(watch), TEST_TRACKER);
    CHECK(why[0] == '\0');
    commit = dh_watch_cursor_open(watch);
    CHECK(commit >= 0);
    CHECK_EQ(dh_bits_init(&found, PAGES_COUNT), 0);
}

static void end(void)
{
    dh_watch_close(watch);
    dh_bits_finish(&found);
    dh_arena_finish(&arena);
}

static void populate(void) { memset(arena.base, 1, (size_t)PAGES_COUNT * DH_PAGE_BYTES); }

static void begin_populated(void)
{
    begin();
    populate();
    CHECK_EQ(dh_watch_arm(watch, PAGES_COUNT), 0);
}

static void take(void)
{
    dh_bits_clear_all(&found, PAGES_COUNT);
    dh_watch_take(watch, commit, &found, PAGES_COUNT);
}

static void scan_and_take(void)
{
    CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, NULL), 0);
    take();
}

static void write_page(uint64_t pgno)
{
    volatile uint8_t *page = dh_arena_page(&arena, (dh_pgno)pgno);

    page[check_random_below(DH_PAGE_BYTES)]++;
}

static void read_all_pages(void)
{
    for (uint64_t pgno = 0; pgno < PAGES_COUNT; pgno++)
        (void)*(volatile uint8_t *)dh_arena_page(&arena, (dh_pgno)pgno);
}

static void note(void *context, dh_pgno first, uint64_t count)
{
    dh_bits_set_run(context, first, count);
}

static void check_found(const bool *is_expected)
{
    for (uint64_t pgno = 0; pgno < PAGES_COUNT; pgno++)
        CHECK_EQ(dh_bits_test(&found, pgno), is_expected[pgno]);
}

/* --- exactness -------------------------------------------------------------------------------- */

static void write_random_pages(bool *is_written, uint64_t pages_count)
{
    memset(is_written, 0, PAGES_COUNT);
    for (uint64_t i = 0; i < pages_count; i++) {
        uint64_t pgno = check_random_below(PAGES_COUNT);

        write_page(pgno);
        is_written[pgno] = true;
    }
}

static void check_rounds_are_exact(void)
{
    static const uint64_t pages_counts[] = {0, 1, 37, 480, 6000, 40000, 0};
    static bool is_written[PAGES_COUNT];

    for (size_t i = 0; i < sizeof(pages_counts) / sizeof(pages_counts[0]); i++) {
        write_random_pages(is_written, pages_counts[i]);
        read_all_pages();
        dh_bits_clear_all(&found, PAGES_COUNT);
        CHECK_EQ(dh_watch_peek(watch, PAGES_COUNT, note, &found), 0);
        check_found(is_written);
        scan_and_take();
        check_found(is_written);
    }
}

static void exactly_the_written_pages_are_reported(void)
{
    begin_populated();
    check_rounds_are_exact();
    end();
    begin(); /* untouched memory, armed: zero pages and holes */
    read_all_pages();
    CHECK_EQ(dh_watch_arm(watch, PAGES_COUNT), 0);
    check_rounds_are_exact();
    end();
    begin(); /* never armed: the first scan may report more, the next ones not */
    write_page(17);
    scan_and_take();
    CHECK(dh_bits_test(&found, 17));
    check_rounds_are_exact();
    end();
}

static void pages_above_the_mark_are_new(void)
{
    begin();
    memset(arena.base, 1, 100 * DH_PAGE_BYTES);
    CHECK_EQ(dh_watch_arm(watch, 100), 0);
    write_page(50);
    write_page(120);
    CHECK_EQ(dh_watch_scan(watch, 100, NULL), 0);
    take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 1);
    CHECK_EQ(dh_watch_scan(watch, 150, NULL), 0);
    take();
    CHECK(dh_bits_test(&found, 120) && !dh_bits_test(&found, 50));
    CHECK_EQ(dh_bits_next(&found, 0, PAGES_COUNT) >= 100, 1);
    end();
}

/* --- the scan loop ---------------------------------------------------------------------------- */

typedef struct {
    uint64_t pages_count;
    uint64_t runs_count;
    uint64_t limit; /* end of the previous run */
} tally;

static void tally_run(void *context, dh_pgno first, uint64_t count)
{
    tally *t = context;

    CHECK(count > 0 && first >= t->limit);
    t->limit = first + count;
    t->pages_count += count;
    t->runs_count++;
}

/* 1024 pages that touch none of each other, with vectors too short for them: the kernel stops
 * early and returns regions beyond the point where it stopped. */
static void a_short_vector_finds_everything_once(void)
{
    static const uint64_t vec_lens[] = {1, 2, 7, 512, 1024, 5000};

    begin_populated();
    for (size_t i = 0; i < sizeof(vec_lens) / sizeof(vec_lens[0]); i++) {
        dhi_pagemap pagemap;
        tally t = {0};

        for (uint64_t pgno = 0; pgno < 2048; pgno += 2)
            write_page(pgno + 8000); /* across a chunk's edge */
        CHECK_EQ(dhi_pagemap_open(&pagemap, vec_lens[i]), 0);
        CHECK_EQ(
            dhi_pagemap_scan(&pagemap, arena.base, 0, PAGES_COUNT, DH_SCAN_PEEK, tally_run, &t), 0);
        CHECK_EQ(t.pages_count, 1024);
        CHECK_EQ(t.runs_count, 1024);
        t = (tally){0};
        CHECK_EQ(
            dhi_pagemap_scan(&pagemap, arena.base, 0, PAGES_COUNT, DH_SCAN_TAKE, tally_run, &t), 0);
        CHECK_EQ(t.pages_count, 1024);
        t = (tally){0};
        CHECK_EQ(
            dhi_pagemap_scan(&pagemap, arena.base, 0, PAGES_COUNT, DH_SCAN_TAKE, tally_run, &t), 0);
        CHECK_EQ(t.pages_count, 0);
        dhi_pagemap_close(&pagemap);
    }
    end();
}

static uint64_t mappings_count(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    uint64_t count = 0;
    int c;

    CHECK(maps != NULL);
    while ((c = getc(maps)) != EOF)
        count += c == '\n';
    fclose(maps);
    return count;
}

static void scattered_writes_make_no_mappings(void)
{
    uint64_t before;

    begin_populated();
    before = mappings_count();
    for (uint64_t pgno = 0; pgno < 4096; pgno += 2)
        write_page(pgno);
    scan_and_take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 2048);
    CHECK(mappings_count() <= before + 4); /* the C library may map something of its own */
    end();
}

/* --- stores by the kernel --------------------------------------------------------------------- */

static void system_calls_that_write_are_reported(void)
{
    static uint8_t bytes[3 * DH_PAGE_BYTES];
    struct iovec from = {bytes, DH_PAGE_BYTES}, to;
    int ends[2], sockets[2], zero;

    begin_populated();
    zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CHECK(zero >= 0 && pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);

    CHECK_EQ(read(zero, arena.base + 10 * DH_PAGE_BYTES + 100, 3 * DH_PAGE_BYTES),
             3 * DH_PAGE_BYTES);
    CHECK_EQ(write(ends[1], bytes, 10), 10);
    CHECK_EQ(read(ends[0], dh_arena_page(&arena, 20), 10), 10);
    CHECK_EQ(send(sockets[0], bytes, 10, 0), 10);
    CHECK_EQ(recv(sockets[1], dh_arena_page(&arena, 30), 10, 0), 10);
    to = (struct iovec){dh_arena_page(&arena, 40), DH_PAGE_BYTES};
    CHECK_EQ(process_vm_writev(getpid(), &from, 1, &to, 1, 0), DH_PAGE_BYTES);
    to = (struct iovec){dh_arena_page(&arena, 50) + 1, DH_PAGE_BYTES};
    CHECK_EQ(readv(zero, &to, 1), DH_PAGE_BYTES);

    scan_and_take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 4 + 1 + 1 + 1 + 2);
    for (uint64_t pgno = 10; pgno < 14; pgno++)
        CHECK(dh_bits_test(&found, pgno));
    CHECK(dh_bits_test(&found, 20) && dh_bits_test(&found, 30) && dh_bits_test(&found, 40) &&
          dh_bits_test(&found, 50) && dh_bits_test(&found, 51));
    close(zero);
    close(ends[0]);
    close(ends[1]);
    close(sockets[0]);
    close(sockets[1]);
    end();
}

/* --- errors ----------------------------------------------------------------------------------- */

/* The ioctl re-arms a chunk's pages and then fails: only reporting the chunk whole keeps them. */
static void an_error_in_mid_scan_costs_its_chunks_only(void)
{
    uint64_t pages_count;

    begin_populated();
    for (int round = 0; round < 3; round++) {
        write_page(5);
        write_page(20000);
        write_page(PAGES_COUNT - 1);
        CHECK_EQ(dh_fault_set("watch.scan", 1, round == 0 ? EPERM : ENOMEM), 0);
        CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, &pages_count), round == 0 ? DH_E_WATCH : ENOMEM);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        take();
        CHECK(dh_bits_test(&found, 5) && !dh_bits_test(&found, 6));
        CHECK(dh_bits_test(&found, 20000) && dh_bits_test(&found, PAGES_COUNT - 1));
        CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), pages_count);
        CHECK(pages_count > PAGES_COUNT / 2);
        scan_and_take(); /* they really were re-armed: scanning again and trusting it loses them */
        CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 0);
    }
    end();
}

static void an_interrupted_scan_is_no_error(void)
{
    begin_populated();
    write_page(5);
    CHECK_EQ(dh_fault_set("watch.scan", 0, EINTR), 0);
    CHECK_EQ(dh_watch_scan(watch, 100, NULL), 0);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 100);
    end();
}

/* Somebody maps over a part of the arena: the kernel refuses, after re-arming what came before. */
static void an_untracked_piece_is_noticed_and_tracked_again(void)
{
    begin_populated();
    for (uint64_t pgno = 0; pgno < 200; pgno += 2)
        write_page(pgno);
    write_page(30000);
    CHECK(mmap(dh_arena_page(&arena, 300), 10 * DH_PAGE_BYTES, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == dh_arena_page(&arena, 300));
    CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, NULL), DH_E_WATCH);
    take();
    for (uint64_t pgno = 0; pgno < 400; pgno++)
        CHECK(dh_bits_test(&found, pgno));
    CHECK(dh_bits_test(&found, 30000) && !dh_bits_test(&found, 30001));

    scan_and_take();
    for (uint64_t pgno = 300; pgno < 310; pgno++)
        CHECK(dh_bits_test(&found, pgno));
    write_page(305);
    scan_and_take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 1);
    CHECK(dh_bits_test(&found, 305));
    end();
}

static void pages_given_back_are_reported(void)
{
    begin_populated();
    CHECK_EQ(madvise(dh_arena_page(&arena, 1000), 3000 * DH_PAGE_BYTES, MADV_DONTNEED), 0);
    dh_watch_mark(watch, 1000, 3000);
    scan_and_take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 3000);
    write_page(1500);
    scan_and_take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 1);
    end();
}

/* --- forks ------------------------------------------------------------------------------------ */

static int tracking_fds_count(void)
{
    int count = 0;

    for (int fd = 3; fd < 200; fd++) {
        char link[64], target[100];
        ssize_t size;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        size = readlink(link, target, sizeof(target) - 1);
        if (size < 0)
            continue;
        target[size] = '\0';
        count += strstr(target, "userfaultfd") != NULL || strstr(target, "/pagemap") != NULL;
    }
    return count;
}

static void child_tries_everything(bool is_guarded)
{
    alarm(60); /* a deadlock is a failure, not a hang */
    write_page(1);
    write_page(2);
    CHECK(dh_watch_is_forked(watch));
    CHECK_EQ(dh_watch_scan(watch, PAGES_COUNT, NULL), DH_E_FORKED);
    CHECK_EQ(dh_watch_peek(watch, PAGES_COUNT, note, &found), DH_E_FORKED);
    CHECK_EQ(dh_watch_arm(watch, PAGES_COUNT), DH_E_FORKED);
    CHECK_EQ(dh_watch_remapped(watch, 0, 10), DH_E_FORKED);
    if (is_guarded)
        CHECK_EQ(tracking_fds_count(), 0);
}

static void wait_for(pid_t child)
{
    int status;

    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

static void check_parent_has(uint64_t pgno, uint64_t other_pgno)
{
    scan_and_take();
    CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 2);
    CHECK(dh_bits_test(&found, pgno) && dh_bits_test(&found, other_pgno));
}

static void a_child_does_not_rob_its_parent(void)
{
    pid_t child;

    begin_populated();
    CHECK_EQ(tracking_fds_count(), 2);
    write_page(7);
    child = fork();
    if (child == 0) {
        child_tries_everything(true);
        dh_watch_close(watch);
        _exit(0);
    }
    write_page(8);
    wait_for(child);
    check_parent_has(7, 8);

    write_page(9);
    child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* no handler runs */
    if (child == 0) {
        child_tries_everything(false);
        _exit(0);
    }
    wait_for(child);
    write_page(10);
    check_parent_has(9, 10);
    end();
}

static void a_child_can_watch_an_arena_of_its_own(void)
{
    pid_t child;

    begin_populated();
    child = fork();
    if (child == 0) {
        alarm(60);
        dh_watch_close(watch);
        dh_arena_finish(&arena);
        dh_bits_finish(&found);
        begin_populated();
        write_page(3);
        scan_and_take();
        CHECK_EQ(dh_bits_count(&found, PAGES_COUNT), 1);
        end();
        _exit(0);
    }
    write_page(11);
    write_page(12);
    wait_for(child);
    check_parent_has(11, 12);
    end();
}

static bool is_over;

static void *open_and_close(void *context)
{
    (void)context;
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        dh_arena other_arena;
        dh_watch *other;

        CHECK_EQ(dh_arena_init(&other_arena, 100 * DH_PAGE_BYTES), 0);
        const dh_range other_range = dh_arena_range(&other_arena);
        CHECK_EQ(dh_watch_open(&other_range, TEST_TRACKER, NULL, &other, NULL, 0), 0);
        dh_watch_close(other);
        dh_arena_finish(&other_arena);
    }
    return NULL;
}

static void a_fork_during_open_leaks_no_descriptor(void)
{
    pthread_t thread;

    is_over = false;
    CHECK_EQ(pthread_create(&thread, NULL, open_and_close, NULL), 0);
    for (int round = 0; round < 100; round++) {
        pid_t child = fork();

        if (child == 0) {
            CHECK_EQ(tracking_fds_count(), 0);
            _exit(0);
        }
        wait_for(child);
    }
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(tracking_fds_count(), 0);
}

/* --- writers that never stop ------------------------------------------------------------------ */

#define STRESS_PAGES 4000u
#define WRITERS 2

static void *write_without_end(void *context)
{
    uint64_t state = (uint64_t)(uintptr_t)context;

    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        uint64_t *word;

        state = state * 6364136223846793005u + 1442695040888963407u;
        word = (uint64_t *)(void *)(arena.base + ((state >> 20) % (STRESS_PAGES * 512u)) * 8u);
        __atomic_fetch_add(word, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void copy_found(uint8_t *copy)
{
    scan_and_take();
    for (uint64_t i = dh_bits_next(&found, 0, STRESS_PAGES); i < STRESS_PAGES;
         i = dh_bits_next(&found, i + 1, STRESS_PAGES))
        for (size_t w = 0; w < DH_PAGE_WORDS; w++)
            ((uint64_t *)(void *)copy)[i * DH_PAGE_WORDS + w] = __atomic_load_n(
                (uint64_t *)(void *)arena.base + i * DH_PAGE_WORDS + w, __ATOMIC_RELAXED);
}

/* Copies taken while writers run may be torn, but the last one, made at rest, must leave the copy
 * equal to the memory: no write fell between two scans. */
static void no_write_falls_between_two_scans(void)
{
    uint8_t *copy = malloc((size_t)STRESS_PAGES * DH_PAGE_BYTES);
    uint64_t deadline_ns = dhi_clock_ns() + 700000000u;
    pthread_t threads[WRITERS];

    CHECK(copy != NULL);
    begin_populated();
    memcpy(copy, arena.base, (size_t)STRESS_PAGES * DH_PAGE_BYTES);
    is_over = false;
    for (uintptr_t i = 0; i < WRITERS; i++)
        CHECK_EQ(
            pthread_create(&threads[i], NULL, write_without_end, (void *)(uintptr_t)check_random()),
            0);
    while (dhi_clock_ns() < deadline_ns)
        copy_found(copy);
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    copy_found(copy);
    CHECK(memcmp(copy, arena.base, (size_t)STRESS_PAGES * DH_PAGE_BYTES) == 0);
    free(copy);
    end();
}

int main(int argc, char **argv)
{
    char why[300];

    check_begin(argc, argv);
    if (dh_probe(TEST_TRACKER, why, sizeof(why)) != 0)
        SKIP("%s", why);
    exactly_the_written_pages_are_reported();
    pages_above_the_mark_are_new();
    a_short_vector_finds_everything_once();
    scattered_writes_make_no_mappings();
    system_calls_that_write_are_reported();
    an_error_in_mid_scan_costs_its_chunks_only();
    an_interrupted_scan_is_no_error();
    an_untracked_piece_is_noticed_and_tracked_again();
    pages_given_back_are_reported();
    a_child_does_not_rob_its_parent();
    a_child_can_watch_an_arena_of_its_own();
    a_fork_during_open_leaks_no_descriptor();
    no_write_falls_between_two_scans();
    return 0;
}

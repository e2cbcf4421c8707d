/* Synchronous userfaultfd: memory it refuses, many writers at once, a close while they wait. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lab/lab.h"
#include "../src/arena.h"
#include "check.h"

static const dh_tracker *const tracker = &dhl_tracker_uffd_sync;

static void memory_of_a_file_is_refused(void)
{
    char name[] = "test_lab_uffd_sync_XXXXXX", why[300] = "";
    dh_range range = {.pages_count = 4};
    int fd = mkstemp(name);
    void *state;

    CHECK(fd >= 0 && unlink(name) == 0 && ftruncate(fd, 4 * DH_PAGE_BYTES) == 0);
    range.base = mmap(NULL, 4 * DH_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(range.base != MAP_FAILED);
    CHECK(tracker->open(&range, NULL, &state, why, sizeof(why)) != 0);
    CHECK(strstr(why, "files cannot") != NULL);
    CHECK_EQ(munmap(range.base, 4 * DH_PAGE_BYTES), 0);
    close(fd);
}

static void memory_is_watched_once(void)
{
    char why[300] = "";
    dh_range range;
    void *base, *state, *second;

    CHECK_EQ(dh_reserve(10 * DH_PAGE_BYTES, &base), 0);
    range = (dh_range){.base = base, .pages_count = 10};
    CHECK_EQ(tracker->open(&range, NULL, &state, why, sizeof(why)), 0);
    CHECK(tracker->open(&range, NULL, &second, why, sizeof(why)) != 0);
    CHECK(strstr(why, "another userfaultfd") != NULL);
    tracker->close(state);
    dh_unreserve(base, 10 * DH_PAGE_BYTES);
}

/* --- many writers at once --------------------------------------------------------------------- */

#define WRITERS 8
#define PAGES 800u

static uint8_t *memory;

static void *write_all(void *context)
{
    size_t at = (size_t)(uintptr_t)context;

    for (uint64_t pgno = 0; pgno < PAGES; pgno++)
        __atomic_fetch_add(&memory[(pgno << DH_PAGE_SHIFT) + at], 1, __ATOMIC_RELAXED);
    return NULL;
}

static void note(void *context, dh_pgno first, uint64_t count)
{
    (void)first;
    *(uint64_t *)context += count;
}

/* All wait for the same pages; each is let go on, and a close in the middle lets everybody go. */
static void many_writers_wait_for_the_same_pages(bool is_closed_early)
{
    pthread_t threads[WRITERS];
    char why[300] = "";
    uint64_t found = 0;
    dh_range range;
    void *base, *state;

    CHECK_EQ(dh_reserve(PAGES << DH_PAGE_SHIFT, &base), 0);
    memory = base;
    range = (dh_range){.base = base, .pages_count = PAGES};
    CHECK_EQ(tracker->open(&range, NULL, &state, why, sizeof(why)), 0);
    CHECK_EQ(tracker->begin(state), 0);
    CHECK_EQ(tracker->arm(state, PAGES), 0);
    for (uintptr_t i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, write_all, (void *)i), 0);
    if (is_closed_early)
        tracker->close(state);
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    if (!is_closed_early) {
        CHECK_EQ(tracker->scan(state, 0, PAGES, DH_SCAN_TAKE, note, &found), 0);
        CHECK_EQ(found, PAGES);
        tracker->close(state);
    }
    for (size_t i = 0; i < PAGES * WRITERS; i++)
        CHECK_EQ(memory[(i / WRITERS << DH_PAGE_SHIFT) + i % WRITERS], 1);
    dh_unreserve(base, PAGES << DH_PAGE_SHIFT);
}

int main(int argc, char **argv)
{
    char why[300];

    check_begin(argc, argv);
    if (dh_lab_probe((size_t)dhl_technique_find("uffd-sync"), why, sizeof(why)) != 0)
        SKIP("%s", why);
    alarm(100); /* a writer that nobody wakes is a failure, not a hang */
    memory_of_a_file_is_refused();
    memory_is_watched_once();
    many_writers_wait_for_the_same_pages(false);
    for (int round = 0; round < 20; round++)
        many_writers_wait_for_the_same_pages(true);
    return 0;
}

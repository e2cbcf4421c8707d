/* Every technique of the laboratory by the same rules: exactly the written pages, once; a part of
 * the range; looking without taking; two watches; children; writers that go on. What a technique
 * cannot do is a case of its own below. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lab/lab.h"
#include "../src/arena.h"
#include "check.h"

#define PAGES 20000u

typedef struct {
    const dh_tracker *tracker;
    dh_range range;
    void *state;
    dh_bits found;
} watched;

static const dh_tracker *const techniques[] = {
    &dhl_tracker_hash,      &dhl_tracker_mprotect,   &dhl_tracker_fork,
    &dhl_tracker_uffd_sync, &dhl_tracker_soft_dirty,
};

/* --- helpers ---------------------------------------------------------------------------------- */

static bool works_here(const dh_tracker *tracker)
{
    char why[300];

    return dh_lab_probe((size_t)dhl_technique_find(tracker->name), why, sizeof(why)) == 0;
}

static void note(void *context, dh_pgno first, uint64_t count)
{
    watched *w = context;

    CHECK(count > 0 && first + count <= w->range.pages_count);
    dh_bits_set_run(&w->found, first, count);
}

static void begin_on(watched *w, const dh_tracker *tracker, void *base, uint64_t pages_count)
{
    char why[300] = "";

    *w = (watched){.tracker = tracker, .range = {.base = base, .pages_count = pages_count}};
    CHECK_EQ(dh_bits_init(&w->found, pages_count), 0);
    CHECK_EQ(tracker->open(&w->range, NULL, &w->state, why, sizeof(why)), 0);
    CHECK(tracker->begin == NULL || tracker->begin(w->state) == 0);
}

/* Every second page was touched before, the others never. */
static void begin(watched *w, const dh_tracker *tracker, uint64_t pages_count)
{
    void *base;

    CHECK_EQ(dh_reserve(pages_count << DH_PAGE_SHIFT, &base), 0);
    for (uint64_t pgno = 0; pgno < pages_count; pgno += 2)
        ((uint8_t *)base)[pgno << DH_PAGE_SHIFT] = 7;
    begin_on(w, tracker, base, pages_count);
}

static void end(watched *w)
{
    w->tracker->close(w->state);
    dh_bits_finish(&w->found);
    dh_unreserve(w->range.base, w->range.pages_count << DH_PAGE_SHIFT);
}

static void arm(watched *w) { CHECK_EQ(w->tracker->arm(w->state, w->range.pages_count), 0); }

/* How many pages of [first, limit); they are in found. */
static uint64_t scan(watched *w, uint64_t first, uint64_t limit, dh_scan_mode mode)
{
    dh_bits_clear_all(&w->found, w->range.pages_count);
    CHECK_EQ(w->tracker->scan(w->state, (dh_pgno)first, limit - first, mode, note, w), 0);
    return dh_bits_count(&w->found, w->range.pages_count);
}

static uint64_t take(watched *w) { return scan(w, 0, w->range.pages_count, DH_SCAN_TAKE); }

/* Always other bytes than before. */
static void write_page(const watched *w, uint64_t pgno)
{
    volatile uint64_t *word = (uint64_t *)(void *)(dh_range_page(&w->range, pgno) +
                                                   8u * check_random_below(DH_PAGE_WORDS));
    *word = *word + 1;
}

static void check_equal(const dh_bits *a, const dh_bits *b, uint64_t first, uint64_t limit)
{
    for (uint64_t i = first; i < limit; i++)
        CHECK_EQ(dh_bits_test(a, i), dh_bits_test(b, i));
}

/* --- for each technique ----------------------------------------------------------------------- */

static void before_arming_everything_counts_as_written(const dh_tracker *tracker)
{
    watched w;

    begin(&w, tracker, 100);
    CHECK_EQ(take(&w), 100);
    CHECK_EQ(take(&w), 0);
    end(&w);
}

static void exactly_the_written_pages_are_reported(const dh_tracker *tracker)
{
    static const uint64_t counts[] = {0, 1, 37, 480, 5000};
    dh_bits model;
    watched w;

    begin(&w, tracker, PAGES);
    CHECK_EQ(dh_bits_init(&model, PAGES), 0);
    arm(&w);
    for (size_t round = 0; round < sizeof(counts) / sizeof(counts[0]); round++) {
        volatile uint8_t sum = 0;

        for (uint64_t i = 0; i < counts[round]; i++) {
            uint64_t pgno = check_random_below(PAGES);

            write_page(&w, pgno);
            dh_bits_set(&model, pgno);
        }
        for (uint64_t pgno = 0; pgno < PAGES; pgno++)
            sum = (uint8_t)(sum + *dh_range_page(&w.range, pgno));
        CHECK_EQ(scan(&w, 0, PAGES, DH_SCAN_PEEK), dh_bits_count(&model, PAGES));
        CHECK_EQ(take(&w), dh_bits_count(&model, PAGES));
        check_equal(&w.found, &model, 0, PAGES);
        CHECK_EQ(take(&w), 0);
        dh_bits_clear_all(&model, PAGES);
    }
    dh_bits_finish(&model);
    end(&w);
}

static void what_was_not_asked_for_is_kept(const dh_tracker *tracker)
{
    dh_bits model;
    watched w;

    begin(&w, tracker, 3000);
    CHECK_EQ(dh_bits_init(&model, 3000), 0);
    arm(&w);
    for (int round = 0; round < 30; round++) {
        uint64_t first = check_random_below(3000);
        uint64_t limit = first + 1 + check_random_below(3000 - first);

        for (int i = 0; i < 40; i++) {
            uint64_t pgno = check_random_below(3000);

            write_page(&w, pgno);
            dh_bits_set(&model, pgno);
        }
        scan(&w, first, limit, DH_SCAN_TAKE);
        check_equal(&w.found, &model, first, limit);
        CHECK_EQ(dh_bits_count(&w.found, first), 0);
        for (uint64_t pgno = first; pgno < limit; pgno++)
            dh_bits_clear(&model, pgno);
    }
    CHECK_EQ(take(&w), dh_bits_count(&model, 3000));
    check_equal(&w.found, &model, 0, 3000);
    dh_bits_finish(&model);
    end(&w);
}

static void arming_forgets_what_was_written(const dh_tracker *tracker)
{
    watched w;

    begin(&w, tracker, 500);
    arm(&w);
    for (uint64_t pgno = 0; pgno < 500; pgno += 3)
        write_page(&w, pgno);
    CHECK_EQ(w.tracker->arm(w.state, 300), 0);
    CHECK_EQ(take(&w), (500 - 300 + 2) / 3);
    CHECK_EQ(take(&w), 0);
    write_page(&w, 120);
    CHECK_EQ(take(&w), 1);
    end(&w);
}

static void two_watches_do_not_disturb_each_other(const dh_tracker *tracker)
{
    watched a, b;

    begin(&a, tracker, 300);
    begin(&b, tracker, 300);
    arm(&a);
    arm(&b);
    write_page(&a, 5);
    write_page(&b, 6);
    write_page(&b, 7);
    CHECK_EQ(take(&a), 1);
    CHECK_EQ(take(&b), 2);
    write_page(&a, 8);
    end(&b);
    write_page(&a, 9);
    CHECK_EQ(take(&a), 2);
    end(&a);
}

/* After the close memory is ordinary again. */
static void closing_leaves_ordinary_memory(const dh_tracker *tracker)
{
    uint8_t byte = 1;
    watched w;
    int ends[2];

    begin(&w, tracker, 100);
    arm(&w);
    w.tracker->close(w.state);
    CHECK_EQ(pipe(ends), 0);
    for (uint64_t pgno = 0; pgno < 100; pgno++) {
        write_page(&w, pgno);
        CHECK_EQ(write(ends[1], &byte, 1), 1);
        CHECK_EQ(read(ends[0], dh_range_page(&w.range, pgno), 1), 1);
    }
    close(ends[0]);
    close(ends[1]);
    dh_bits_finish(&w.found);
    dh_unreserve(w.range.base, w.range.pages_count << DH_PAGE_SHIFT);
}

/* --- children --------------------------------------------------------------------------------- */

static void wait_for(pid_t child)
{
    int status;

    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

/* The watch calls fork_child; here the test does. */
static void a_child_writes_freely_and_robs_nobody(const dh_tracker *tracker)
{
    watched w;
    pid_t child;

    begin(&w, tracker, 400);
    arm(&w);
    write_page(&w, 7);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        watched own;

        alarm(60); /* a deadlock is a failure, not a hang */
        w.tracker->fork_child(w.state);
        for (uint64_t pgno = 0; pgno < 400; pgno++)
            write_page(&w, pgno);
        w.tracker->close(w.state);
        begin(&own, tracker, 50);
        arm(&own);
        write_page(&own, 3);
        CHECK_EQ(take(&own), 1);
        end(&own);
        _exit(0);
    }
    write_page(&w, 8);
    wait_for(child);
    CHECK_EQ(take(&w), 2);
    CHECK(dh_bits_test(&w.found, 7) && dh_bits_test(&w.found, 8));

    child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* no handler runs */
    if (child == 0) {
        alarm(60);
        if (tracker == &dhl_tracker_hash)
            _exit(0); /* knows of no process */
        if (tracker->scan(w.state, 0, 400, DH_SCAN_TAKE, note, &w) != DH_E_FORKED)
            _exit(1);
        for (uint64_t pgno = 0; pgno < 400; pgno++)
            *(volatile uint8_t *)dh_range_page(&w.range, pgno) = 1;
        _exit(0);
    }
    wait_for(child);
    write_page(&w, 9);
    CHECK_EQ(take(&w), 1);
    end(&w);
}

/* --- writers that go on ----------------------------------------------------------------------- */

#define STRESS_PAGES 2000u
#define WRITERS 2

static bool is_over;
static watched stressed;

static void *write_without_end(void *context)
{
    uint64_t state = (uint64_t)(uintptr_t)context;

    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        uint64_t *word;

        state = state * 6364136223846793005u + 1442695040888963407u;
        word = (uint64_t *)(void *)stressed.range.base + (state >> 20) % (STRESS_PAGES * 512u);
        __atomic_fetch_add(word, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* Take a part and copy what it reports. */
static uint64_t copy_part(uint8_t *copy, uint64_t first, uint64_t limit)
{
    const uint64_t *memory = (uint64_t *)(void *)stressed.range.base;
    uint64_t count = first < limit ? scan(&stressed, first, limit, DH_SCAN_TAKE) : 0;

    if (count == 0)
        return 0;
    for (uint64_t i = dh_bits_next(&stressed.found, 0, limit); i < limit;
         i = dh_bits_next(&stressed.found, i + 1, limit))
        for (size_t w = i * DH_PAGE_WORDS; w < (i + 1) * DH_PAGE_WORDS; w++)
            ((uint64_t *)(void *)copy)[w] = __atomic_load_n(memory + w, __ATOMIC_RELAXED);
    return count;
}

static uint64_t copy_found(uint8_t *copy)
{
    uint64_t cut = check_random_below(STRESS_PAGES);

    return copy_part(copy, cut, STRESS_PAGES) + copy_part(copy, 0, cut);
}

/* The last copy, made at rest, equals memory. Counters only grow, so no page goes A, B, A: for hash
 * and fork that is the condition. */
static void no_write_falls_between_two_scans(const dh_tracker *tracker)
{
    uint8_t *copy = malloc((size_t)STRESS_PAGES * DH_PAGE_BYTES);
    pthread_t threads[WRITERS];
    uint64_t copied = 0;

    CHECK(copy != NULL);
    begin(&stressed, tracker, STRESS_PAGES);
    memcpy(copy, stressed.range.base, (size_t)STRESS_PAGES * DH_PAGE_BYTES);
    arm(&stressed);
    __atomic_store_n(&is_over, false, __ATOMIC_RELAXED);
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(
            pthread_create(&threads[i], NULL, write_without_end, (void *)(uintptr_t)check_random()),
            0);
    while (copied < 20000)
        copied += copy_found(copy);
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    copy_found(copy);
    CHECK(memcmp(copy, stressed.range.base, (size_t)STRESS_PAGES * DH_PAGE_BYTES) == 0);
    free(copy);
    end(&stressed);
}

/* --- what a technique cannot do --------------------------------------------------------------- */

/* EFAULT from the two that protect; from the others success, and a report. */
static void a_system_call_that_writes(const dh_tracker *tracker)
{
    bool is_refused = tracker == &dhl_tracker_mprotect || tracker == &dhl_tracker_uffd_sync;
    uint8_t byte = 9;
    watched w;
    int ends[2];

    begin(&w, tracker, 50);
    arm(&w);
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(write(ends[1], &byte, 1), 1);
    errno = 0;
    if (is_refused) {
        CHECK_EQ(read(ends[0], dh_range_page(&w.range, 20), 1), -1);
        CHECK_EQ(errno, EFAULT);
        CHECK_EQ(take(&w), 0);
        write_page(&w, 20); /* after a store by hand it works, and is reported with it */
    }
    CHECK_EQ(read(ends[0], dh_range_page(&w.range, 20), 1), 1);
    CHECK_EQ(take(&w), 1);
    CHECK(dh_bits_test(&w.found, 20));
    close(ends[0]);
    close(ends[1]);
    end(&w);
}

/* A store of the same byte, and there and back again: only who watches stores sees them. */
static void bytes_that_are_as_they_were(const dh_tracker *tracker)
{
    bool sees_bytes_only = tracker == &dhl_tracker_hash || tracker == &dhl_tracker_fork;
    watched w;

    begin(&w, tracker, 50);
    arm(&w);
    *(volatile uint8_t *)dh_range_page(&w.range, 4) = 7;
    *(volatile uint8_t *)dh_range_page(&w.range, 5) = 1;
    *(volatile uint8_t *)dh_range_page(&w.range, 5) = 0;
    CHECK_EQ(take(&w), sees_bytes_only ? 0 : 2);
    end(&w);
}

/* Given back, a page reads as zeros: seen in its bytes, not by who waits for stores. */
static void a_page_given_back(const dh_tracker *tracker)
{
    bool sees_bytes = tracker == &dhl_tracker_hash || tracker == &dhl_tracker_fork;
    watched w;

    begin(&w, tracker, 50);
    arm(&w);
    CHECK_EQ(madvise(dh_range_page(&w.range, 10), DH_PAGE_BYTES, MADV_DONTNEED), 0);
    CHECK_EQ(*dh_range_page(&w.range, 10), 0);
    CHECK_EQ(take(&w), sees_bytes ? 1 : 0);
    end(&w);
}

/* Shared memory has two mappings here, and the store goes through the other one. */
static void a_store_through_another_mapping(const dh_tracker *tracker)
{
    size_t bytes = 50 * DH_PAGE_BYTES;
    int fd = memfd_create("shared", MFD_CLOEXEC);
    char why[300] = "";
    watched w = {.tracker = tracker};
    uint8_t *watched_base, *other;

    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    watched_base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    other = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(watched_base != MAP_FAILED && other != MAP_FAILED);
    if (tracker == &dhl_tracker_fork) {
        w.range = (dh_range){.base = watched_base, .pages_count = 50};
        CHECK_EQ(tracker->open(&w.range, NULL, &w.state, why, sizeof(why)), DH_E_TRACKER);
        CHECK(strstr(why, "must be private") != NULL);
    } else {
        begin_on(&w, tracker, watched_base, 50);
        arm(&w);
        write_page(&w, 2);
        other[3 * DH_PAGE_BYTES] = 1;
        CHECK_EQ(take(&w), tracker == &dhl_tracker_hash ? 2 : 1);
        CHECK(dh_bits_test(&w.found, 2));
        tracker->close(w.state);
        dh_bits_finish(&w.found);
    }
    CHECK_EQ(munmap(watched_base, bytes), 0);
    CHECK_EQ(munmap(other, bytes), 0);
    close(fd);
}

static void check_technique(const dh_tracker *tracker)
{
    before_arming_everything_counts_as_written(tracker);
    exactly_the_written_pages_are_reported(tracker);
    what_was_not_asked_for_is_kept(tracker);
    arming_forgets_what_was_written(tracker);
    two_watches_do_not_disturb_each_other(tracker);
    closing_leaves_ordinary_memory(tracker);
    a_child_writes_freely_and_robs_nobody(tracker);
    a_system_call_that_writes(tracker);
    bytes_that_are_as_they_were(tracker);
    a_page_given_back(tracker);
    a_store_through_another_mapping(tracker);
    if (tracker != &dhl_tracker_soft_dirty) /* reading and clearing are two steps */
        no_write_falls_between_two_scans(tracker);
}

/* --- the list --------------------------------------------------------------------------------- */

static void the_list_is_whole_and_safe_ones_are_marked(void)
{
    size_t count = dh_lab_techniques_count();
    char why[300];

    CHECK(dh_lab_technique_at(count) == NULL && dhl_tracker_at(count) == NULL);
    CHECK_EQ(dh_lab_probe(count, why, sizeof(why)), EINVAL);
    CHECK_EQ(dhl_technique_find("nothing"), -1);
    for (size_t i = 0; i < count; i++) {
        const dh_lab_technique *about = dh_lab_technique_at(i);

        CHECK_EQ(dhl_technique_find(about->name), i);
        CHECK(about->idea[0] != '\0' && about->cannot_see[0] != '\0' && about->breaks[0] != '\0');
        CHECK_EQ(about->is_for_heaps, dhl_tracker_at(i)->id < DHL_TRACKER_HASH);
    }
}

/* A heap names a tracker by its number; those of the laboratory mean nothing to it. */
static void a_watch_by_number_knows_no_technique_of_the_laboratory(void)
{
    dh_arena arena;
    dh_range range;

    CHECK_EQ(dh_arena_init(&arena, 100 * DH_PAGE_BYTES), 0);
    range = dh_arena_range(&arena);
    for (size_t i = 0; i < sizeof(techniques) / sizeof(techniques[0]); i++) {
        char why[300] = "";
        dh_watch *watch;

        CHECK_EQ(dh_watch_open(&range, techniques[i]->id, NULL, &watch, why, sizeof(why)),
                 DH_E_TRACKER);
        CHECK(strstr(why, "no tracker number") != NULL);
    }
    dh_arena_finish(&arena);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    the_list_is_whole_and_safe_ones_are_marked();
    a_watch_by_number_knows_no_technique_of_the_laboratory();
    for (size_t i = 0; i < sizeof(techniques) / sizeof(techniques[0]); i++) {
        if (works_here(techniques[i]))
            check_technique(techniques[i]);
        else
            printf("not here: %s\n", techniques[i]->name);
    }
    return 0;
}

/* test_write_watch.c -- a write watch against a plain list of bools, over every technique; whose
 * memory it takes and whose it refuses; several threads, a fork, failures in mid-scan. */
#include "write_watch.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena.h"
#include "check.h"
#include "heap.h"

#define PAGES_COUNT 40000u /* three chunks of the kernel's scan */
#define NO_LIMIT UINT64_MAX

static uint8_t *memory;
static dh_write_watch *w;
static char why[512];
static const int techniques[] = {DH_TRACKER_UFFD, DH_TRACKER_UFFD_DEV, DH_TRACKER_SHADOW};
#define TECHNIQUES_COUNT (sizeof(techniques) / sizeof(techniques[0]))

static uint8_t *map_pages(uint64_t pages_count)
{
    void *base;

    CHECK_EQ(dh_reserve(pages_count << DH_PAGE_SHIFT, &base), 0);
    return base;
}

static int open_at(const uint8_t *base, uint64_t pages_count, int technique, dh_write_watch **out)
{
    return dh_write_watch_open((uint64_t)(uintptr_t)base, pages_count, technique, out, why,
                               sizeof(why));
}

static void begin(int technique)
{
    memory = map_pages(PAGES_COUNT);
    CHECK_EQ(open_at(memory, PAGES_COUNT, technique, &w), 0);
    CHECK_EQ(dh_write_watch_tracker(w), technique);
}

static void end(void)
{
    dh_write_watch_close(w);
    dh_unreserve(memory, (uint64_t)PAGES_COUNT << DH_PAGE_SHIFT);
}

/* Another value each time, or the shadow would see nothing. */
static void write_page(uint64_t page) { ((volatile uint8_t *)memory)[page << DH_PAGE_SHIFT]++; }

static dh_pages *get(int cursor, uint64_t first, uint64_t limit, uint64_t pages_max, bool is_reset)
{
    dh_pages *pages;

    CHECK_EQ(dh_write_watch_get(w, cursor, first, limit, pages_max, is_reset, &pages), 0);
    return pages;
}

static uint64_t get_count(int cursor, bool is_reset)
{
    dh_pages *pages = get(cursor, 0, PAGES_COUNT, NO_LIMIT, is_reset);
    uint64_t count = pages->pages_count;

    dh_pages_free(pages);
    return count;
}

/* --- against a model --------------------------------------------------------------------------- */

/* What a get tells is what the model says of the range, up to pages_max; reset clears just that. */
static void check_get(bool *model, int cursor, uint64_t first, uint64_t limit, uint64_t pages_max,
                      bool is_reset)
{
    dh_pages *pages = get(cursor, first, limit, pages_max, is_reset);
    uint64_t count = 0, at = first, end = limit;

    for (size_t i = 0; i < pages->runs_count; i++) {
        const dh_page_run *run = &pages->runs[i];

        CHECK(run->start < run->stop && run->stop <= limit && run->start >= at);
        CHECK(i == 0 || run->start > at); /* runs do not touch */
        for (; at < run->start; at++)
            CHECK(!model[at]);
        for (; at < run->stop; at++, count++) {
            CHECK(model[at]);
            if (is_reset)
                model[at] = false;
        }
    }
    CHECK_EQ(count, pages->pages_count);
    CHECK(count <= pages_max);
    if (pages->next_page != (uint64_t)DH_PAGES_COMPLETE) {
        CHECK_EQ(count, pages_max);
        CHECK_EQ(pages->next_page, at);
        end = at;
    }
    for (; at < end; at++)
        CHECK(!model[at]);
    dh_pages_free(pages);
}

static uint64_t random_pages_max(void)
{
    uint64_t kind = check_random_below(4);

    return kind == 0 ? 1 : kind == 1 ? 1 + check_random_below(100) : kind == 2 ? 5000 : NO_LIMIT;
}

static void random_steps_agree_with_a_model(int technique)
{
    static bool models[2][PAGES_COUNT];
    int cursors[2];

    begin(technique);
    memset(models, 0, sizeof(models));
    cursors[0] = dh_write_watch_cursor(w);
    CHECK_EQ(dh_write_watch_cursor_open(w, &cursors[1]), 0);
    for (int step = 0; step < 400; step++) {
        uint64_t first = check_random_below(PAGES_COUNT + 1);
        uint64_t limit = first + check_random_below(PAGES_COUNT + 1 - first);
        size_t who = check_random_below(2);

        switch (check_random_below(4)) {
        case 0:
        case 1:
            for (uint64_t i = check_random_below(60); i > 0; i--) {
                uint64_t page = check_random_below(PAGES_COUNT);

                write_page(page);
                models[0][page] = models[1][page] = true;
            }
            break;
        case 2:
            check_get(models[who], cursors[who], first, limit, random_pages_max(),
                      check_random_below(2) != 0);
            break;
        default:
            CHECK_EQ(dh_write_watch_reset(w, cursors[who], first, limit), 0);
            memset(models[who] + first, 0, limit - first);
        }
    }
    for (size_t who = 0; who < 2; who++)
        check_get(models[who], cursors[who], 0, PAGES_COUNT, NO_LIMIT, true);
    end();
}

static void a_part_is_taken_exactly(int technique)
{
    dh_pages *pages;

    begin(technique);
    for (uint64_t page = 0; page < PAGES_COUNT; page += 2)
        write_page(page);
    pages = get(dh_write_watch_cursor(w), 0, PAGES_COUNT, 3, true);
    CHECK_EQ(pages->runs_count, 3);
    CHECK_EQ(pages->next_page, 5);
    dh_pages_free(pages);
    CHECK_EQ(get_count(dh_write_watch_cursor(w), true), PAGES_COUNT / 2 - 3);
    end();
}

/* For one page out of many, not all are looked at. */
static void one_page_costs_no_whole_scan(void)
{
    uint64_t few, all;

    if (open_at(memory = map_pages(PAGES_COUNT), PAGES_COUNT, DH_TRACKER_SHADOW, &w) != 0)
        CHECK(false);
    write_page(0);
    CHECK_EQ(dh_fault_set("watch.scan", 0, 0), 0);
    dh_pages_free(get(dh_write_watch_cursor(w), 0, PAGES_COUNT, 1, true));
    few = dh_fault_hits("watch.scan");
    dh_pages_free(get(dh_write_watch_cursor(w), 0, PAGES_COUNT, 1, true));
    all = dh_fault_hits("watch.scan") - few;
    dh_fault_set("", 0, 0);
    CHECK_EQ(few, 1);
    CHECK(all > 2);
    end();
}

static void bitmap_and_numbers_say_the_same(void)
{
    uint8_t bits[16];
    uint64_t numbers[64];
    dh_pages *pages;

    begin(DH_TRACKER_SHADOW);
    for (int round = 0; round < 200; round++) {
        uint64_t first = check_random_below(30), count = check_random_below(60), i = 0;

        CHECK_EQ(dh_write_watch_reset(w, dh_write_watch_cursor(w), 0, PAGES_COUNT), 0);
        CHECK_EQ(dh_write_watch_mark(w, first, first + count), 0);
        CHECK_EQ(dh_write_watch_mark(w, 77, 78), 0);
        pages = get(dh_write_watch_cursor(w), first, 100, NO_LIMIT, false);
        memset(bits, 0, sizeof(bits));
        dh_pages_bitmap(pages, first, bits);
        dh_pages_numbers(pages, numbers);
        for (uint64_t page = first; page < 100; page++) {
            bool is_in = page < first + count || page == 77;

            CHECK_EQ(bits[(page - first) / 8] >> (page - first) % 8 & 1, is_in);
            if (is_in)
                CHECK_EQ(numbers[i++], page);
        }
        CHECK_EQ(i, pages->pages_count);
        dh_pages_free(pages);
    }
    end();
}

/* --- failures ---------------------------------------------------------------------------------- */

static void a_failed_get_takes_nothing(int technique)
{
    static const int codes[] = {EPERM, EFAULT, ENOMEM};
    dh_pages *pages = NULL;

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        for (uint64_t after = 0; after < 3; after++) {
            bool *is_told = calloc(PAGES_COUNT, 1);
            int rc;

            begin(technique);
            for (uint64_t page = 0; page < PAGES_COUNT; page += 9)
                write_page(page);
            CHECK_EQ(dh_fault_set("watch.scan", after, codes[i]), 0);
            rc = dh_write_watch_get(w, dh_write_watch_cursor(w), 0, PAGES_COUNT, NO_LIMIT, 1,
                                    &pages);
            CHECK(rc != 0);
            rc = dh_write_watch_reset(w, dh_write_watch_cursor(w), 100, 200);
            CHECK(rc != 0);
            dh_fault_set("", 0, 0);
            pages = get(dh_write_watch_cursor(w), 0, PAGES_COUNT, NO_LIMIT, true);
            for (size_t k = 0; k < pages->runs_count; k++)
                memset(is_told + pages->runs[k].start, 1,
                       pages->runs[k].stop - pages->runs[k].start);
            for (uint64_t page = 0; page < PAGES_COUNT; page += 9)
                CHECK(is_told[page]);
            dh_pages_free(pages);
            free(is_told);
            end();
        }
}

/* Neither what was told before memory ran out, nor what would have come after it; for a cursor that is
 * alone, and for one of two. */
static void no_memory_for_the_answer_takes_nothing(int technique)
{
    dh_pages *pages = NULL;

    for (int others = 0; others < 2; others++)
        for (uint64_t after = 0; after < 300; after += 37) {
            int cursor;

            begin(technique);
            if (others > 0)
                CHECK_EQ(dh_write_watch_cursor_open(w, &cursor), 0);
            for (uint64_t page = 3; page < PAGES_COUNT; page += 60)
                write_page(page);
            CHECK_EQ(dh_fault_set("watch.runs", after, ENOMEM), 0);
            for (int is_reset = 0; is_reset < 2; is_reset++)
                CHECK_EQ(dh_write_watch_get(w, dh_write_watch_cursor(w), 5, PAGES_COUNT - 5,
                                            NO_LIMIT, is_reset, &pages),
                         ENOMEM);
            dh_fault_set("", 0, 0);
            CHECK_EQ(get_count(dh_write_watch_cursor(w), true), (PAGES_COUNT - 4) / 60 + 1);
            end();
        }
}

static void wrong_arguments_are_refused(void)
{
    dh_pages *pages;
    dh_write_watch *other;

    begin(DH_TRACKER_SHADOW);
    CHECK_EQ(dh_write_watch_get(w, 0, 2, 1, 1, 0, &pages), EINVAL);
    CHECK_EQ(dh_write_watch_get(w, 0, 0, PAGES_COUNT + 1, 1, 0, &pages), EINVAL);
    CHECK_EQ(dh_write_watch_get(w, 0, 0, 1, 0, 0, &pages), EINVAL);
    CHECK_EQ(dh_write_watch_reset(w, 0, 1, PAGES_COUNT + 1), EINVAL);
    CHECK_EQ(dh_write_watch_mark(w, 1, PAGES_COUNT + 1), EINVAL);
    CHECK_EQ(open_at(memory + 1, 1, DH_TRACKER_AUTO, &other), EINVAL);
    CHECK_EQ(open_at(memory, 0, DH_TRACKER_AUTO, &other), EINVAL);
    CHECK_EQ(open_at(memory, (uint64_t)DH_PGNO_TABLE + 1, DH_TRACKER_AUTO, &other), DH_E_LIMIT);
    CHECK_EQ(open_at(memory, 1, 77, &other), DH_E_TRACKER);
    for (int i = 1; i < DH_CURSORS_MAX; i++) {
        int cursor;

        CHECK_EQ(dh_write_watch_cursor_open(w, &cursor), 0);
    }
    CHECK_EQ(dh_write_watch_cursor_open(w, &(int){0}), DH_E_LIMIT);
    end();
}

/* --- whose memory ------------------------------------------------------------------------------ */

static void overlapping_watches_are_refused(void)
{
    dh_write_watch *other;

    begin(DH_TRACKER_UFFD);
    CHECK_EQ(open_at(memory, PAGES_COUNT, DH_TRACKER_AUTO, &other), EEXIST);
    CHECK_EQ(open_at(memory + DH_PAGE_BYTES, 1, DH_TRACKER_UFFD, &other), EEXIST);
    CHECK(strstr(why, "another watch") != NULL);
    CHECK_EQ(open_at(memory, 10, DH_TRACKER_SHADOW, &other), 0); /* it disturbs nobody */
    dh_write_watch_close(other);
    dh_write_watch_close(w);
    CHECK_EQ(open_at(memory, PAGES_COUNT / 2, DH_TRACKER_AUTO, &w), 0);
    CHECK_EQ(open_at(memory + ((uint64_t)PAGES_COUNT / 2 << DH_PAGE_SHIFT), PAGES_COUNT / 2,
                     DH_TRACKER_AUTO, &other),
             0); /* neighbours */
    write_page(3);
    write_page(PAGES_COUNT - 1);
    w->pages_count = PAGES_COUNT / 2;
    dh_pages *pages = get(dh_write_watch_cursor(w), 0, PAGES_COUNT / 2, NO_LIMIT, true);
    CHECK_EQ(pages->pages_count, 1);
    dh_pages_free(pages);
    dh_write_watch_close(other);
    end();
}

static void unfit_memory_is_refused(void)
{
    dh_range_facts facts;
    dh_range range;

    memory = map_pages(PAGES_COUNT);
    range = (dh_range){memory, PAGES_COUNT};
    dh_range_inspect(&range, &facts);
    if (facts.is_known) {
        CHECK(facts.is_whole && facts.is_writable && facts.page_bytes == DH_PAGE_BYTES);
        CHECK_EQ(mprotect(memory + 5 * DH_PAGE_BYTES, DH_PAGE_BYTES, PROT_READ), 0);
        CHECK_EQ(open_at(memory, 10, DH_TRACKER_AUTO, &w), EACCES);
        CHECK_EQ(munmap(memory + 20 * DH_PAGE_BYTES, DH_PAGE_BYTES), 0);
        CHECK_EQ(open_at(memory + 10 * DH_PAGE_BYTES, 20, DH_TRACKER_AUTO, &w), EFAULT);
    }
    dh_unreserve(memory, (uint64_t)PAGES_COUNT << DH_PAGE_SHIFT);
}

/* Both hear of every write, whoever scans; the heap's end is the watch's. */
static void a_watch_over_a_heaps_memory_shares_the_heaps(void)
{
    dh_options options = {(uint64_t)PAGES_COUNT << DH_PAGE_SHIFT, DH_TRACKER_UFFD, {1, 2}};
    dh_heap *heap;
    dh_pages *pages;
    uint64_t count;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    memory = heap->arena.base + 64 * DH_PAGE_BYTES;
    CHECK(open_at(memory, PAGES_COUNT, DH_TRACKER_AUTO, &w) != 0); /* beyond its end */
    CHECK_EQ(open_at(memory, 100, DH_TRACKER_AUTO, &w), 0);
    write_page(7);
    CHECK_EQ(dh_watch_scan(heap->watch, 1000, &count), 0); /* as a commit does */
    write_page(9);
    pages = get(dh_write_watch_cursor(w), 0, 100, NO_LIMIT, true);
    CHECK_EQ(pages->pages_count, 2);
    CHECK_EQ(pages->runs[0].start, 7);
    CHECK_EQ(pages->runs[1].start, 9);
    dh_pages_free(pages);
    dh_bits found;
    CHECK_EQ(dh_bits_init(&found, PAGES_COUNT), 0);
    dh_watch_copy(heap->watch, heap->commit_cursor, &found, 1000);
    CHECK(dh_bits_test(&found, 64 + 7) && dh_bits_test(&found, 64 + 9));
    dh_bits_finish(&found);
    dh_heap_close(heap);
    CHECK_EQ(dh_write_watch_get(w, dh_write_watch_cursor(w), 0, 100, 1, 1, &pages), DH_E_CLOSED);
    CHECK_EQ(dh_write_watch_reset(w, dh_write_watch_cursor(w), 0, 100), DH_E_CLOSED);
    CHECK_EQ(dh_write_watch_cursor_open(w, &(int){0}), DH_E_CLOSED);
    dh_write_watch_close(w);
}

static void a_closed_cursor_leaves_the_heap_its_own(void)
{
    dh_options options = {(uint64_t)PAGES_COUNT << DH_PAGE_SHIFT, DH_TRACKER_UFFD, {1, 2}};
    dh_heap *heap;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    for (int i = 0; i < 3 * DH_CURSORS_MAX; i++) {
        CHECK_EQ(open_at(heap->arena.base, 10, DH_TRACKER_UFFD, &w), 0);
        dh_write_watch_close(w);
    }
    CHECK_EQ(open_at(heap->arena.base, 10, DH_TRACKER_SHADOW, &w), 0); /* a watch of its own */
    CHECK(!w->is_shared);
    dh_write_watch_close(w);
    dh_heap_close(heap);
}

/* --- processes and threads --------------------------------------------------------------------- */

static void a_child_is_refused_and_begins_anew(int technique)
{
    pid_t child;
    int status;

    begin(technique);
    write_page(3);
    child = fork();
    if (child == 0) {
        dh_pages *pages;
        dh_write_watch *own;

        alarm(60);
        CHECK_EQ(dh_write_watch_get(w, 0, 0, 1, 1, 1, &pages), DH_E_FORKED);
        CHECK_EQ(dh_write_watch_reset(w, 0, 0, 1), DH_E_FORKED);
        CHECK_EQ(dh_write_watch_cursor_open(w, &(int){0}), DH_E_FORKED);
        CHECK_EQ(open_at(memory, PAGES_COUNT, technique, &own), 0);
        dh_write_watch_close(w);
        w = own;
        write_page(4);
        CHECK_EQ(get_count(dh_write_watch_cursor(w), true), 1);
        dh_write_watch_close(w);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    write_page(5);
    CHECK_EQ(get_count(dh_write_watch_cursor(w), true), 2);
    end();
}

typedef struct {
    int cursor;
    uint8_t *is_told; /* by any thread that has this cursor */
} taker;

static bool is_over;

static void take_once(const taker *t, uint64_t pages_max)
{
    dh_pages *pages = get(t->cursor, 0, PAGES_COUNT, pages_max, true);

    for (size_t i = 0; i < pages->runs_count; i++)
        for (uint64_t page = pages->runs[i].start; page < pages->runs[i].stop; page++)
            __atomic_store_n(&t->is_told[page], 1, __ATOMIC_RELAXED);
    dh_pages_free(pages);
}

static void *take_always(void *context)
{
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED))
        take_once(context, 100);
    take_once(context, NO_LIMIT);
    return NULL;
}

/* However many threads ask. A page may be told twice: armed again between a fault and its store. */
static void threads_are_told_every_page_for_each_cursor(int technique)
{
    static uint8_t is_told[2][PAGES_COUNT];
    pthread_t threads[3];
    taker takers[3];

    begin(technique);
    is_over = false;
    memset(is_told, 0, sizeof(is_told));
    takers[0] = takers[1] = (taker){dh_write_watch_cursor(w), is_told[0]};
    takers[2].is_told = is_told[1];
    CHECK_EQ(dh_write_watch_cursor_open(w, &takers[2].cursor), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, take_always, &takers[i]), 0);
    for (uint64_t page = 0; page < PAGES_COUNT; page++)
        write_page(page * 7919 % PAGES_COUNT);
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    for (uint64_t page = 0; page < PAGES_COUNT; page++)
        CHECK(is_told[0][page] && is_told[1][page]);
    end();
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    for (size_t i = 0; i < TECHNIQUES_COUNT; i++) {
        int technique = techniques[i];

        if (dh_probe(technique, why, sizeof(why)) != 0) {
            printf("not tested: %s\n", why);
            continue;
        }
        random_steps_agree_with_a_model(technique);
        a_part_is_taken_exactly(technique);
        a_failed_get_takes_nothing(technique);
        no_memory_for_the_answer_takes_nothing(technique);
        a_child_is_refused_and_begins_anew(technique);
        threads_are_told_every_page_for_each_cursor(technique);
    }
    one_page_costs_no_whole_scan();
    bitmap_and_numbers_say_the_same();
    wrong_arguments_are_refused();
    unfit_memory_is_refused();
    if (dh_probe(DH_TRACKER_UFFD, why, sizeof(why)) != 0)
        SKIP("%s", why);
    overlapping_watches_are_refused();
    a_watch_over_a_heaps_memory_shares_the_heaps();
    a_closed_cursor_leaves_the_heap_its_own();
    return 0;
}

/* lab_soft_dirty.c -- the kernel's soft-dirty bit: bit 55 of pagemap, cleared through clear_refs.
 *
 * Contract: watch.h, as far as it can be kept. For: kernels before 6.7 that have the bit
 * (CONFIG_MEM_SOFT_DIRTY, Linux 3.11; Documentation/admin-guide/mm/soft-dirty.rst); what CRIU
 * moves processes with.
 *
 * Cannot see: a store between the reading of the bits and the clearing: these are two calls, so
 * all writers must stand still for a scan. Shared memory or a file changed by another way than this
 * mapping. Pages given back (MADV_DONTNEED) and not touched since.
 *
 * Breaks: clearing is for the whole process and every other user of the bit: what they had not read
 * is gone. Watches of this file tell each other; nobody can tell the others. Every page of the
 * process faults again at its next store.
 *
 * Writing to clear_refs succeeds on kernels without the bit, which then never appears. So opening
 * proves that it comes and goes.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../src/arena.h"
#include "lab.h"

#define ENTRIES_MAX 4096u
#define SOFT_DIRTY ((uint64_t)1 << 55)
#define PROOF_PAGES 3u

typedef struct soft_dirty_watch soft_dirty_watch;
struct soft_dirty_watch {
    dhl_pages pages; /* written: gathered; guarded by watches_lock            */
    int pagemap;     /* both act on the memory of the process that opened them */
    int clear_refs;  /* -1 in a forked child                                   */
    soft_dirty_watch *next;
    soft_dirty_watch *previous;
    uint64_t entries[ENTRIES_MAX]; /* of pagemap; guarded by watches_lock */
};

/* Who clears must first gather for all of them. */
static pthread_mutex_t watches_lock = PTHREAD_MUTEX_INITIALIZER;
static soft_dirty_watch *watches_first;

/* --- the kernel's interface ------------------------------------------------------------------- */

/* Pages [first, first + count) of the range, count <= ENTRIES_MAX, into entries. */
static int entries_read(soft_dirty_watch *watch, uint64_t first, uint64_t count)
{
    uint64_t pgno = ((uint64_t)(uintptr_t)watch->pages.base >> DH_PAGE_SHIFT) + first;
    ssize_t size = (ssize_t)(count * sizeof(uint64_t));
    ssize_t got =
        pread(watch->pagemap, watch->entries, (size_t)size, (off_t)(pgno * sizeof(uint64_t)));

    return got == size ? 0 : got < 0 ? errno : EIO;
}

/* watches_lock held. What cannot be read counts as written. */
static int watch_gather(soft_dirty_watch *watch, uint64_t first, uint64_t limit)
{
    int rc_first = 0;

    for (; first < limit; first += ENTRIES_MAX) {
        uint64_t count = limit - first < ENTRIES_MAX ? limit - first : ENTRIES_MAX;
        int rc = entries_read(watch, first, count);

        if (rc != 0) {
            dh_bits_set_run(&watch->pages.written, first, count);
            rc_first = rc_first != 0 ? rc_first : rc;
            continue;
        }
        for (uint64_t i = 0; i < count; i++)
            if ((watch->entries[i] & SOFT_DIRTY) != 0)
                dh_bits_set(&watch->pages.written, first + i);
    }
    return rc_first;
}

static int process_clear(const soft_dirty_watch *watch)
{
    ssize_t written = pwrite(watch->clear_refs, "4", 1, 0);

    return written == 1 ? 0 : written < 0 ? errno : EIO;
}

/* watches_lock held. Keep everybody's pages, then clear all bits of the process. */
static int process_take(const soft_dirty_watch *by)
{
    int rc_first = 0;

    for (soft_dirty_watch *watch = watches_first; watch != NULL; watch = watch->next) {
        int rc = watch_gather(watch, 0, watch->pages.count);

        if (watch == by)
            rc_first = rc;
    }
    int rc = process_clear(by);
    return rc_first != 0 ? rc_first : rc;
}

/* --- the proof -------------------------------------------------------------------------------- */

/* watches_lock held. Three pages: written before, written after, never written. */
static int proof_run(soft_dirty_watch *proof, char *why_out, size_t why_size)
{
    static const char missing[] =
        "bit 55 of pagemap does not follow stores: this kernel is without soft-dirty "
        "(CONFIG_MEM_SOFT_DIRTY), although it accepts the clearing";
    int rc;

    for (unsigned i = 0; i < PROOF_PAGES; i++)
        *(volatile uint8_t *)(proof->pages.base + i * DH_PAGE_BYTES) = 1;
    rc = process_take(proof);
    if (rc == 0)
        rc = entries_read(proof, 0, PROOF_PAGES);
    for (unsigned i = 0; rc == 0 && i < PROOF_PAGES; i++)
        if ((proof->entries[i] & SOFT_DIRTY) != 0)
            rc = DH_E_TRACKER;
    *(volatile uint8_t *)(proof->pages.base + DH_PAGE_BYTES) = 2;
    if (rc == 0)
        rc = entries_read(proof, 0, PROOF_PAGES);
    if (rc == 0 && ((proof->entries[0] & SOFT_DIRTY) != 0 ||
                    (proof->entries[1] & SOFT_DIRTY) == 0 || (proof->entries[2] & SOFT_DIRTY) != 0))
        rc = DH_E_TRACKER;
    if (rc == DH_E_TRACKER)
        snprintf(why_out, why_size, "%s", missing);
    else if (rc != 0)
        snprintf(why_out, why_size, "/proc/self/clear_refs or pagemap cannot be used: %s",
                 strerror(rc));
    return rc;
}

/* With the watch's own descriptors, on memory of its own. */
static int proof_make(const soft_dirty_watch *watch, char *why_out, size_t why_size)
{
    soft_dirty_watch *proof = malloc(sizeof(*proof));
    void *pages;
    int rc;

    if (proof == NULL)
        return ENOMEM;
    rc = dh_reserve(PROOF_PAGES * DH_PAGE_BYTES, &pages);
    if (rc == 0) {
        *proof = *watch;
        proof->pages.base = pages;
        proof->pages.count = PROOF_PAGES;
        pthread_mutex_lock(&watches_lock);
        rc = proof_run(proof, why_out, why_size);
        pthread_mutex_unlock(&watches_lock);
        dh_unreserve(pages, PROOF_PAGES * DH_PAGE_BYTES);
    }
    free(proof);
    return rc;
}

/* --- the contract ----------------------------------------------------------------------------- */

static int descriptors_open(soft_dirty_watch *watch, char *why_out, size_t why_size)
{
    int rc;

    watch->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    rc = errno;
    if (watch->pagemap >= 0) {
        watch->clear_refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
        rc = errno;
        if (watch->clear_refs >= 0)
            return 0;
        close(watch->pagemap);
    }
    snprintf(why_out, why_size, "/proc/self/pagemap and clear_refs cannot be opened: %s",
             strerror(rc));
    return rc;
}

static void watch_link(soft_dirty_watch *watch)
{
    pthread_mutex_lock(&watches_lock);
    watch->next = watches_first;
    if (watches_first != NULL)
        watches_first->previous = watch;
    watches_first = watch;
    pthread_mutex_unlock(&watches_lock);
}

static void watch_unlink(const soft_dirty_watch *watch)
{
    pthread_mutex_lock(&watches_lock);
    if (watch->previous != NULL)
        watch->previous->next = watch->next;
    else
        watches_first = watch->next;
    if (watch->next != NULL)
        watch->next->previous = watch->previous;
    pthread_mutex_unlock(&watches_lock);
}

static int soft_dirty_open(const dh_range *range, const void *argument, void **state_out,
                           char *why_out, size_t why_size)
{
    soft_dirty_watch *watch = calloc(1, sizeof(*watch));
    int rc;

    (void)argument;
    if (watch == NULL)
        return ENOMEM;
    rc = dhl_pages_init(&watch->pages, range);
    if (rc != 0)
        goto fail_watch;
    rc = descriptors_open(watch, why_out, why_size);
    if (rc != 0)
        goto fail_pages;
    rc = proof_make(watch, why_out, why_size);
    if (rc != 0)
        goto fail_descriptors;
    watch_link(watch);
    *state_out = watch;
    return 0;

fail_descriptors:
    close(watch->pagemap);
    close(watch->clear_refs);
fail_pages:
    dhl_pages_finish(&watch->pages);
fail_watch:
    free(watch);
    return rc;
}

static void soft_dirty_close(void *state)
{
    soft_dirty_watch *watch = state;

    if (dhl_pages_are_ours(&watch->pages)) /* in a child the list was forgotten */
        watch_unlink(watch);
    dhl_close(&watch->pagemap);
    dhl_close(&watch->clear_refs);
    dhl_pages_finish(&watch->pages);
    free(watch);
}

/* Reported under the lock, which no report function takes. Pages stay when the clearing failed. */
static int soft_dirty_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                           dh_watch_report report, void *context)
{
    soft_dirty_watch *watch = state;
    uint64_t limit = first + count;
    int rc;

    DH_ASSERT(limit <= watch->pages.count);
    if (!dhl_pages_are_ours(&watch->pages))
        return DH_E_FORKED;
    pthread_mutex_lock(&watches_lock);
    rc = mode == DH_SCAN_TAKE ? process_take(watch) : watch_gather(watch, first, limit);
    dhl_report(&watch->pages.written, first, limit, 0, report, context);
    if (mode == DH_SCAN_TAKE && rc == 0)
        dh_bits_clear_run(&watch->pages.written, first, limit - first);
    pthread_mutex_unlock(&watches_lock);
    return rc;
}

static int soft_dirty_arm(void *state, uint64_t pages_count)
{
    return soft_dirty_scan(state, 0, pages_count, DH_SCAN_TAKE, NULL, NULL);
}

/* Whoever held the lock does not exist here; each watch closes its own descriptors. */
static void soft_dirty_fork_child(void *state)
{
    soft_dirty_watch *watch = state;

    watches_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    watches_first = NULL;
    dhl_close(&watch->pagemap);
    dhl_close(&watch->clear_refs);
}

const dh_tracker dhl_tracker_soft_dirty = {
    .id = DHL_TRACKER_SOFT_DIRTY,
    .name = "soft-dirty",
    .open = soft_dirty_open,
    .close = soft_dirty_close,
    .scan = soft_dirty_scan,
    .arm = soft_dirty_arm,
    .fork_child = soft_dirty_fork_child,
};

const dh_lab_technique dhl_about_soft_dirty = {
    .name = "soft-dirty",
    .idea = "the kernel's soft-dirty bit: bit 55 of pagemap, cleared through clear_refs",
    .cannot_see = "a store between the reading and the clearing of the bits, so that writers must "
                  "stand still for every scan; shared memory or a file changed by another way "
                  "than this mapping; pages given back (MADV_DONTNEED)",
    .breaks = "every other user of the bit: clearing it is for the whole process, and makes each "
              "of its pages fault at the next store",
};

/* lab_hash.c -- a 64-bit hash of every page; a page was written when its hash is another one.
 *
 * Contract: watch.h. For: memory for which nothing else works, at 8 bytes a page instead of the
 * second copy that comparing needs. Sees stores by devices and other processes, too, for it asks
 * nothing of the kernel.
 *
 * Cannot see: a store that leaves the bytes as they were; a page that went A, B, A between two
 * scans. Who copies a reported page while others write may so be left with B for good: writers must
 * stand still from the scan until the copy is made. Two contents with the same hash: by chance once
 * in 2^64 changes, on purpose whenever somebody wants it. So no guard against an enemy.
 *
 * Breaks: nothing. Each scan reads the whole range, through every cache.
 */
#include <stdlib.h>

#include "../src/arena.h"
#include "lab.h"
#include "xxh64.h"

typedef struct {
    const uint8_t *base;
    uint64_t pages_count;
    uint64_t *hashes; /* [pages_count]: of the last take                       */
    dh_bits unknown;  /* pages without a valid hash: they count as written     */
} hash_watch;

static uint64_t page_hash(const hash_watch *watch, uint64_t pgno)
{
    return dhl_xxh64(watch->base + (pgno << DH_PAGE_SHIFT), DH_PAGE_BYTES, 0);
}

static int hash_open(const dh_range *range, const void *argument, void **state_out, char *why_out,
                     size_t why_size)
{
    hash_watch *watch = calloc(1, sizeof(*watch));
    void *hashes;
    int rc;

    (void)argument, (void)why_out, (void)why_size;
    if (watch == NULL)
        return ENOMEM;
    watch->base = range->base;
    watch->pages_count = range->pages_count;
    rc = dh_bits_init(&watch->unknown, range->pages_count);
    if (rc != 0)
        goto fail_watch;
    rc = dh_reserve(range->pages_count * sizeof(uint64_t), &hashes);
    if (rc != 0)
        goto fail_unknown;
    watch->hashes = hashes;
    dh_bits_set_run(&watch->unknown, 0, range->pages_count);
    *state_out = watch;
    return 0;

fail_unknown:
    dh_bits_finish(&watch->unknown);
fail_watch:
    free(watch);
    return rc;
}

static void hash_close(void *state)
{
    hash_watch *watch = state;

    dh_unreserve(watch->hashes, watch->pages_count * sizeof(uint64_t));
    dh_bits_finish(&watch->unknown);
    free(watch);
}

static bool page_is_written(hash_watch *watch, uint64_t pgno, dh_scan_mode mode)
{
    uint64_t hash = page_hash(watch, pgno);
    bool is_written = dh_bits_test(&watch->unknown, pgno) || watch->hashes[pgno] != hash;

    if (mode == DH_SCAN_TAKE && is_written) {
        watch->hashes[pgno] = hash;
        dh_bits_clear(&watch->unknown, pgno);
    }
    return is_written;
}

static int hash_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                     dh_watch_report report, void *context)
{
    hash_watch *watch = state;
    uint64_t limit = first + count, run_first = first;

    DH_ASSERT(limit <= watch->pages_count);
    for (uint64_t pgno = first; pgno < limit; pgno++) {
        if (page_is_written(watch, pgno, mode))
            continue;
        if (run_first < pgno && report != NULL)
            report(context, (dh_pgno)run_first, pgno - run_first);
        run_first = pgno + 1;
    }
    if (run_first < limit && report != NULL)
        report(context, (dh_pgno)run_first, limit - run_first);
    return 0;
}

static int hash_arm(void *state, uint64_t pages_count)
{
    return hash_scan(state, 0, pages_count, DH_SCAN_TAKE, NULL, NULL);
}

static void hash_fork_child(void *state) { (void)state; }

const dh_tracker dhl_tracker_hash = {
    .id = DHL_TRACKER_HASH,
    .name = "hash",
    .open = hash_open,
    .close = hash_close,
    .scan = hash_scan,
    .arm = hash_arm,
    .fork_child = hash_fork_child,
};

const dh_lab_technique dhl_about_hash = {
    .name = "hash",
    .idea = "a 64-bit hash (XXH64) of every page, compared at each scan",
    .cannot_see = "a store of the same bytes; a page that went A, B, A between two scans, so that "
                  "writers must stand still while reported pages are copied; contents that were "
                  "made to have the same hash",
    .breaks = "nothing; each scan reads all of the memory",
};

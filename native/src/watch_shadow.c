/* watch_shadow.c -- no tracking: a page was written when it differs from a copy of it.
 *
 * Contract: watch.h. The fallback for memory that has no committed image, where the kernel's tracking
 * is refused. It is right for stores by the kernel, by devices and through other mappings too, and
 * costs a second copy of the memory and a quarter of a microsecond per page and scan.
 *
 * What it cannot see: a write of the bytes that are there already, and one that was undone before
 * the scan. So a page that goes A, B, A is lost on who copies it while it is B: copy reported pages
 * while writers stand still. A reported page is copied here before its report, so a store that comes
 * during or after the copy differs from it at the next scan. Never skip a page because something
 * says that it is untouched.
 */
#include <stdlib.h>

#include "arena.h"
#include "watch.h"

#define FAULT_PAGES 1024u /* one "watch.scan" fault point per so many pages */

typedef struct {
    dh_range range;
    uint8_t *copy; /* as large as the range; pages of zeros are never touched */
} shadow_watch;

/* Pages that follow each other, not yet told to the caller. */
typedef struct {
    dh_watch_report report; /* NULL: nobody asks */
    void *context;
    uint64_t first;
    uint64_t count;
} shadow_run;

static int shadow_open(const dh_range *range, const void *argument, void **state_out, char *why_out,
                       size_t why_size)
{
    shadow_watch *shadow = calloc(1, sizeof(*shadow));
    void *copy;
    int rc;

    (void)argument, (void)why_out, (void)why_size;
    if (shadow == NULL)
        return ENOMEM;
    rc = dh_reserve(range->pages_count << DH_PAGE_SHIFT, &copy);
    if (rc != 0) {
        free(shadow);
        return rc;
    }
    *shadow = (shadow_watch){.range = *range, .copy = copy};
    *state_out = shadow;
    return 0;
}

static void shadow_close(void *state)
{
    shadow_watch *shadow = state;

    dh_unreserve(shadow->copy, shadow->range.pages_count << DH_PAGE_SHIFT);
    free(shadow);
}

static void run_end(shadow_run *run)
{
    if (run->count > 0 && run->report != NULL)
        run->report(run->context, (dh_pgno)run->first, run->count);
    run->count = 0;
}

static void run_add(shadow_run *run, uint64_t pgno)
{
    if (run->first + run->count != pgno)
        run_end(run);
    if (run->count++ == 0)
        run->first = pgno;
}

static void shadow_page(const shadow_watch *shadow, uint64_t pgno, dh_scan_mode mode,
                        shadow_run *run)
{
    const uint8_t *page = dh_range_page(&shadow->range, pgno);
    uint8_t *copy = shadow->copy + (pgno << DH_PAGE_SHIFT);

    if (memcmp(page, copy, DH_PAGE_BYTES) == 0)
        return;
    if (mode == DH_SCAN_TAKE)
        memcpy(copy, page, DH_PAGE_BYTES);
    run_add(run, pgno);
}

static int shadow_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                       dh_watch_report report, void *context)
{
    const shadow_watch *shadow = state;
    shadow_run run = {.report = report, .context = context};
    uint64_t limit = first + count;

    DH_ASSERT(limit <= shadow->range.pages_count);
    for (uint64_t pgno = first; pgno < limit; pgno++) {
        if (mode == DH_SCAN_TAKE && (pgno == first || pgno % FAULT_PAGES == 0)) {
            int rc = dhi_fault("watch.scan");

            if (rc != 0) { /* the rest counts as written */
                run_end(&run);
                if (report != NULL)
                    report(context, (dh_pgno)pgno, limit - pgno);
                return rc;
            }
        }
        shadow_page(shadow, pgno, mode, &run);
    }
    run_end(&run);
    return 0;
}

static int shadow_arm(void *state, uint64_t pages_count)
{
    return shadow_scan(state, 0, pages_count, DH_SCAN_TAKE, NULL, NULL);
}

static void shadow_fork_child(void *state) { (void)state; }

const dh_tracker dh_tracker_shadow = {
    .id = DH_TRACKER_SHADOW,
    .name = "compare",
    .open = shadow_open,
    .close = shadow_close,
    .scan = shadow_scan,
    .arm = shadow_arm,
    .fork_child = shadow_fork_child,
};

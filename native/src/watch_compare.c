/* watch_compare.c -- no tracking: a page was written when it differs from its committed image.
 *
 * Contract: watch.h. The fallback that is right everywhere, for stores by the kernel and by devices
 * too, at a quarter of a microsecond per page and scan.
 *
 * Equal to the image does not mean unchanged since the previous scan: a page that went A, B, A was
 * reported as B, and whoever copied B must hear of A. So a page that was reported stays suspect for
 * one more scan. Never skip a page because something says that it is untouched.
 */
#include <stdlib.h>

#include "watch.h"

#define FAULT_PAGES 1024u /* one "watch.scan" fault point per so many pages */

typedef struct {
    dh_compare_source source;
    uint64_t capacity_pages;
    dh_bits reported; /* by the previous TAKE */
} compare_watch;

/* Pages that follow each other, not yet told to the caller. */
typedef struct {
    dh_watch_report report;
    void *context;
    uint64_t first;
    uint64_t count;
} compare_run;

static int compare_open(const dh_range *range, const void *argument, void **state_out,
                        char *why_out, size_t why_size)
{
    compare_watch *compare;
    int rc;

    (void)why_out, (void)why_size;
    if (argument == NULL)
        return EINVAL;
    compare = calloc(1, sizeof(*compare));
    if (compare == NULL)
        return ENOMEM;
    rc = dh_bits_init(&compare->reported, range->pages_count);
    if (rc != 0) {
        free(compare);
        return rc;
    }
    compare->source = *(const dh_compare_source *)argument;
    compare->capacity_pages = range->pages_count;
    *state_out = compare;
    return 0;
}

static void compare_close(void *state)
{
    compare_watch *compare = state;

    dh_bits_finish(&compare->reported);
    free(compare);
}

static void run_end(compare_run *run)
{
    if (run->count > 0)
        run->report(run->context, (dh_pgno)run->first, run->count);
    run->count = 0;
}

static void run_add(compare_run *run, uint64_t pgno)
{
    if (run->first + run->count != pgno)
        run_end(run);
    if (run->count++ == 0)
        run->first = pgno;
}

static void compare_page(compare_watch *compare, uint64_t pgno, dh_scan_mode mode, compare_run *run)
{
    bool is_equal = compare->source.same(compare->source.context, (dh_pgno)pgno);
    bool was_reported = dh_bits_test(&compare->reported, pgno);

    if (!is_equal || was_reported)
        run_add(run, pgno);
    if (mode != DH_SCAN_TAKE || is_equal == !was_reported)
        return;
    if (is_equal)
        dh_bits_clear(&compare->reported, pgno);
    else
        dh_bits_set(&compare->reported, pgno);
}

/* The scan cannot go on: everything from here counts as written. */
static void compare_rest(compare_watch *compare, uint64_t first, uint64_t limit, compare_run *run)
{
    run_end(run);
    run->report(run->context, (dh_pgno)first, limit - first);
    dh_bits_set_run(&compare->reported, first, limit - first);
}

static int compare_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                        dh_watch_report report, void *context)
{
    compare_watch *compare = state;
    compare_run run = {.report = report, .context = context};
    uint64_t limit = first + count;

    DH_ASSERT(limit <= compare->capacity_pages);
    for (uint64_t pgno = first; pgno < limit; pgno++) {
        int rc = 0;

        if (mode == DH_SCAN_TAKE && pgno % FAULT_PAGES == 0)
            rc = dhi_fault("watch.scan");
        if (rc != 0) {
            compare_rest(compare, pgno, limit, &run);
            return rc;
        }
        compare_page(compare, pgno, mode, &run);
    }
    run_end(&run);
    return 0;
}

/* The caller says that arena and image are equal now; what is equal needs no arming. */
static int compare_arm(void *state, uint64_t pages_count)
{
    compare_watch *compare = state;

    dh_bits_clear_all(&compare->reported, pages_count);
    return 0;
}

static void compare_fork_child(void *state) { (void)state; }

const dh_tracker dh_tracker_compare = {
    .id = DH_TRACKER_COMPARE,
    .name = "compare",
    .open = compare_open,
    .close = compare_close,
    .scan = compare_scan,
    .arm = compare_arm,
    .fork_child = compare_fork_child,
};

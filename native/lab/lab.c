/* lab.c -- the list of techniques, and the question whether one works here.
 *
 * Those that heaps use stand first, for comparison. A technique is asked by trying it on a small
 * mapping, as dh_probe does: stores must be reported, once, and nothing else. What a technique
 * cannot see by its nature is not asked here: it is in its description.
 */
#include "lab.h"

#include <stdio.h>

#include "../src/arena.h"
#include "../src/forkguard.h"

#define TRIAL_PAGES 16u

enum { PAGE_STORED = 3, PAGE_READ = 7 };

/* --- the list --------------------------------------------------------------------------------- */

static const dh_lab_technique about_uffd = {
    .name = "uffd",
    .idea = "userfaultfd in asynchronous mode, read by PAGEMAP_SCAN",
    .cannot_see = "shared memory or a file changed by another way than this mapping; devices "
                  "that write into memory pinned before (io_uring fixed buffers, RDMA, GPUs)",
    .breaks = "nothing; it needs Linux 6.7, and a sandbox that allows it",
    .is_for_heaps = 1,
};

static const dh_lab_technique about_uffd_dev = {
    .name = "uffd-dev",
    .idea = "the same, by the device node /dev/userfaultfd",
    .cannot_see = "the same as uffd",
    .breaks = "nothing; it needs permission for the node, and Linux 6.7",
    .is_for_heaps = 1,
};

static const dh_lab_technique about_compare = {
    .name = "compare",
    .idea = "every page compared with a copy, in heaps with the committed image",
    .cannot_see = "a store of the same bytes; a page that went A, B, A between two scans, so that "
                  "writers must stand still while reported pages are copied",
    .breaks = "nothing; each scan reads everything twice, and a copy is kept",
    .is_for_heaps = 1,
};

typedef struct {
    const dh_lab_technique *about;
    const dh_tracker *tracker;
} technique;

static const technique techniques[] = {
    {&about_uffd, &dh_tracker_uffd},
    {&about_uffd_dev, &dh_tracker_uffd_dev},
    {&about_compare, &dh_tracker_shadow},
    {&dhl_about_hash, &dhl_tracker_hash},
    {&dhl_about_soft_dirty, &dhl_tracker_soft_dirty},
    {&dhl_about_mprotect, &dhl_tracker_mprotect},
    {&dhl_about_uffd_sync, &dhl_tracker_uffd_sync},
    {&dhl_about_fork, &dhl_tracker_fork},
};

#define TECHNIQUES_COUNT (sizeof(techniques) / sizeof(techniques[0]))

size_t dh_lab_techniques_count(void) { return TECHNIQUES_COUNT; }

const dh_lab_technique *dh_lab_technique_at(size_t index)
{
    return index < TECHNIQUES_COUNT ? techniques[index].about : NULL;
}

int dh_lab_technique_tracker(size_t index)
{
    return index < TECHNIQUES_COUNT ? techniques[index].tracker->id : -1;
}

const dh_tracker *dhl_tracker_at(size_t index)
{
    return index < TECHNIQUES_COUNT ? techniques[index].tracker : NULL;
}

int dhl_technique_find(const char *name)
{
    for (size_t i = 0; i < TECHNIQUES_COUNT; i++)
        if (strcmp(techniques[i].about->name, name) == 0)
            return (int)i;
    return -1;
}

/* --- does it work here? ----------------------------------------------------------------------- */

typedef struct {
    const dh_tracker *tracker;
    dh_range range;
    void *state;
    char *text;
    size_t text_size;
} trial;

static void note(void *context, dh_pgno first, uint64_t count)
{
    bool *is_written = context;

    memset(is_written + first, 1, (size_t)count);
}

static int trial_fail(const trial *t, const char *what)
{
    snprintf(t->text, t->text_size, "%s: %s", t->tracker->name, what);
    return DH_E_TRACKER;
}

/* The same, when a code says why: a shortage says nothing of the technique. */
static int trial_fail_by(const trial *t, int rc, const char *what)
{
    if (!dhi_is_shortage(rc))
        return trial_fail(t, what);
    t->text[0] = '\0';
    return rc;
}

/* Take what was written: the page, or none (TRIAL_PAGES). */
static int trial_expect(const trial *t, unsigned page)
{
    bool is_written[TRIAL_PAGES] = {false};
    int rc = t->tracker->scan(t->state, 0, TRIAL_PAGES, DH_SCAN_TAKE, note, is_written);

    if (rc != 0)
        return trial_fail_by(t, rc, "a scan fails");
    for (unsigned i = 0; i < TRIAL_PAGES; i++) {
        if (i == page && !is_written[i])
            return trial_fail(t, "a store is not reported");
        if (i != page && is_written[i])
            return trial_fail(t, "a page is reported that nobody wrote");
    }
    return 0;
}

static int trial_run(const trial *t)
{
    volatile uint8_t *stored = t->range.base + PAGE_STORED * DH_PAGE_BYTES;
    volatile uint8_t *only_read = t->range.base + PAGE_READ * DH_PAGE_BYTES;
    int rc = t->tracker->begin != NULL ? t->tracker->begin(t->state) : 0;

    if (rc != 0)
        return trial_fail_by(t, rc, "tracking cannot begin");
    rc = t->tracker->arm(t->state, TRIAL_PAGES);
    if (rc != 0)
        return trial_fail_by(t, rc, "pages cannot be armed");
    rc = trial_expect(t, TRIAL_PAGES);
    for (uint8_t round = 0; rc == 0 && round < 2; round++) {
        *stored = (uint8_t)(*stored + *only_read);
        rc = trial_expect(t, PAGE_STORED);
        if (rc == 0)
            rc = trial_expect(t, TRIAL_PAGES);
    }
    return rc;
}

static int trial_make(const dh_tracker *tracker, char *text, size_t text_size)
{
    trial t = {.tracker = tracker, .text = text, .text_size = text_size};
    void *base;
    int rc = dh_reserve(TRIAL_PAGES * DH_PAGE_BYTES, &base);

    if (rc != 0)
        return rc;
    memset(base, 1, TRIAL_PAGES * DH_PAGE_BYTES);
    t.range = (dh_range){.base = base, .pages_count = TRIAL_PAGES};
    dh_fork_guard_hold(); /* a child must not inherit what is open here */
    rc = tracker->open(&t.range, NULL, &t.state, text, text_size);
    if (rc == 0) {
        rc = trial_run(&t);
        tracker->close(t.state);
    }
    dh_fork_guard_release();
    dh_unreserve(base, TRIAL_PAGES * DH_PAGE_BYTES);
    return rc;
}

int dh_lab_probe(size_t index, char *text_out, size_t text_size)
{
    const technique *asked = index < TECHNIQUES_COUNT ? &techniques[index] : NULL;
    int rc;

    DH_ASSERT(text_size > 0);
    text_out[0] = '\0';
    if (asked == NULL)
        return EINVAL;
    if (asked->about->is_for_heaps != 0)
        return dh_probe(asked->tracker->id, text_out, text_size);
    rc = trial_make(asked->tracker, text_out, text_size);
    if (rc != 0 && text_out[0] == '\0')
        snprintf(text_out, text_size, "%s", dh_error_name(rc));
    dhi_explain_shortage(rc, text_out, text_size);
    return rc;
}

/* watch.c -- one tracker, one lock, any number of cursors; and which tracker it is.
 *
 * Contract: watch.h. Scan and merge are one step under the lock, so no page is between the tracker
 * and the cursors when somebody takes his; report functions run under it too. Nothing here ever
 * clears a page of a cursor except its owner's take, and arming. In a forked child nothing waits
 * for the lock (a thread that does not exist there may hold it) and nothing touches a descriptor.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "watch_state.h"

/* --- opening ---------------------------------------------------------------------------------- */

/* Async-signal-safe. */
static void watch_fork_child(void *context)
{
    dh_watch *watch = context;

    watch->is_forked = 1;
    if (watch->state != NULL)
        watch->tracker->fork_child(watch->state);
}

/* Take this tracker if it does here what it must; otherwise say why not. */
static int watch_try(dh_watch *watch, const dh_range *range, const dh_tracker *tracker,
                     const void *argument, char *why_out, size_t why_size)
{
    void *state;
    int rc = dh_probe(tracker->id, why_out, why_size);

    if (rc != 0)
        return rc;
    dh_fork_guard_hold();
    rc = tracker->open(range, argument, &state, why_out, why_size);
    if (rc == 0) {
        watch->tracker = tracker;
        watch->state = state;
    }
    dh_fork_guard_release();
    if (rc != 0 && why_out[0] == '\0')
        snprintf(why_out, why_size, "%s", dh_error_name(rc));
    return rc;
}

/* The first that works; the reason names those that did not. */
static int watch_choose_first(dh_watch *watch, const dh_range *range,
                              const dh_compare_source *compare)
{
    const dh_tracker *const trackers[] = {&dh_tracker_uffd, &dh_tracker_uffd_dev,
                                          compare != NULL ? &dh_tracker_compare
                                                          : &dh_tracker_shadow};
    size_t used_bytes = 0;

    for (size_t i = 0; i < sizeof(trackers) / sizeof(trackers[0]); i++) {
        char why[256] = "";
        int written;

        if (watch_try(watch, range, trackers[i], compare, why, sizeof(why)) == 0)
            return 0;
        written = snprintf(watch->reason + used_bytes, sizeof(watch->reason) - used_bytes,
                           "%s%s: %s", i == 0 ? "" : "; ", trackers[i]->name, why);
        used_bytes += (size_t)written;
        if (used_bytes >= sizeof(watch->reason))
            used_bytes = sizeof(watch->reason) - 1;
    }
    return DH_E_TRACKER;
}

static const dh_tracker *watch_tracker_named(int tracker)
{
    switch (tracker) {
    case DH_TRACKER_UFFD:
        return &dh_tracker_uffd;
    case DH_TRACKER_UFFD_DEV:
        return &dh_tracker_uffd_dev;
    case DH_TRACKER_COMPARE:
        return &dh_tracker_compare;
    case DH_TRACKER_SHADOW:
        return &dh_tracker_shadow;
    case DH_TRACKER_SCRIPT:
        return &dh_tracker_script;
    default:
        return NULL;
    }
}

static int watch_choose(dh_watch *watch, const dh_range *range, int tracker,
                        const dh_compare_source *compare)
{
    const dh_tracker *named = watch_tracker_named(tracker);

    if (tracker == DH_TRACKER_AUTO)
        return watch_choose_first(watch, range, compare);
    if (named == NULL) {
        snprintf(watch->reason, sizeof(watch->reason), "there is no tracker number %d", tracker);
        return DH_E_TRACKER;
    }
    int rc = watch_try(watch, range, named, compare, watch->reason, sizeof(watch->reason));
    return rc == 0 || rc == ENOMEM ? rc : DH_E_TRACKER; /* no memory says nothing of a tracker */
}

int dh_watch_open_idle(const dh_range *range, int tracker, const dh_compare_source *compare,
                       dh_watch **watch_out, char *why_out, size_t why_size)
{
    dh_watch *watch = calloc(1, sizeof(*watch));
    int rc;

    if (watch == NULL)
        return ENOMEM;
    watch->capacity_pages = range->pages_count;
    watch->owner = getpid();
    rc = pthread_mutex_init(&watch->lock, NULL);
    if (rc != 0)
        goto fail_watch;
    rc = dh_fork_guard_open(watch_fork_child, watch, &watch->guard);
    if (rc != 0)
        goto fail_lock;
    rc = watch_choose(watch, range, tracker, compare);
    if (why_out != NULL && why_size > 0)
        snprintf(why_out, why_size, "%s", watch->reason);
    if (rc != 0)
        goto fail_guard;
    watch->sig = DHI_WATCH_SIG;
    *watch_out = watch;
    return 0;

fail_guard:
    dh_fork_guard_close(watch->guard);
fail_lock:
    pthread_mutex_destroy(&watch->lock);
fail_watch:
    free(watch);
    return rc;
}

int dh_watch_open(const dh_range *range, int tracker, const dh_compare_source *compare,
                  dh_watch **watch_out, char *why_out, size_t why_size)
{
    dh_watch *watch;
    int rc = dh_watch_open_idle(range, tracker, compare, &watch, why_out, why_size);

    if (rc == 0)
        rc = dh_watch_begin(watch);
    else
        return rc;
    if (rc != 0)
        dh_watch_close(watch);
    else
        *watch_out = watch;
    return rc;
}

void dh_watch_close(dh_watch *watch)
{
    void *state;

    if (watch == NULL)
        return;
    DH_ASSERT(watch->sig == DHI_WATCH_SIG);
    watch->sig = 0;
    dh_fork_guard_hold();
    state = watch->state;
    watch->state = NULL;
    watch->tracker->close(state);
    dh_fork_guard_release();
    dh_fork_guard_close(watch->guard);
    for (int i = 0; i < DH_CURSORS_MAX; i++)
        if (watch->is_open[i])
            dh_bits_finish(&watch->cursors[i]);
    if (!watch->is_forked)
        pthread_mutex_destroy(&watch->lock);
    free(watch);
}

int dh_watch_tracker(const dh_watch *watch) { return watch->tracker->id; }

const char *dh_watch_reason(const dh_watch *watch) { return watch->reason; }

/* The process id also tells of forks that ran no handlers. */
bool dh_watch_is_forked(const dh_watch *watch)
{
    return watch->is_forked != 0 || watch->owner != getpid();
}

/* Lock, unless this is a forked child. */
static bool watch_enter(dh_watch *watch)
{
    DH_ASSERT(watch->sig == DHI_WATCH_SIG);
    if (dh_watch_is_forked(watch))
        return false;
    pthread_mutex_lock(&watch->lock);
    return true;
}

static void watch_leave(dh_watch *watch) { pthread_mutex_unlock(&watch->lock); }

/* --- cursors ---------------------------------------------------------------------------------- */

static dh_bits *watch_cursor(dh_watch *watch, int cursor)
{
    DH_ASSERT(cursor >= 0 && cursor < DH_CURSORS_MAX);
    DH_ASSERT(watch->is_open[cursor]);
    return &watch->cursors[cursor];
}

static int watch_cursor_add(dh_watch *watch)
{
    for (int i = 0; i < DH_CURSORS_MAX; i++)
        if (!watch->is_open[i]) {
            if (dh_bits_init(&watch->cursors[i], watch->capacity_pages) != 0)
                return DH_E_LIMIT;
            watch->is_open[i] = true;
            return i;
        }
    return DH_E_LIMIT;
}

int dh_watch_cursor_open(dh_watch *watch)
{
    int cursor;

    if (!watch_enter(watch))
        return DH_E_FORKED;
    cursor = watch_cursor_add(watch);
    watch_leave(watch);
    return cursor;
}

void dh_watch_cursor_close(dh_watch *watch, int cursor)
{
    if (!watch_enter(watch))
        return;
    dh_bits_finish(watch_cursor(watch, cursor));
    watch->is_open[cursor] = false;
    watch_leave(watch);
}

/* Lock held. */
static void watch_mark_all(dh_watch *watch, dh_pgno first, uint64_t count)
{
    for (int i = 0; i < DH_CURSORS_MAX; i++)
        if (watch->is_open[i])
            dh_bits_set_run(&watch->cursors[i], first, count);
}

void dh_watch_mark(dh_watch *watch, dh_pgno first, uint64_t count)
{
    if (!watch_enter(watch))
        return;
    watch_mark_all(watch, first, count);
    watch_leave(watch);
}

void dh_watch_take_part(dh_watch *watch, int cursor, dh_bits *into, uint64_t first, uint64_t limit)
{
    dh_bits *pages;

    if (!watch_enter(watch))
        return;
    pages = watch_cursor(watch, cursor);
    dh_bits_or_part(into, pages, first, limit);
    dh_bits_clear_part(pages, first, limit);
    watch_leave(watch);
}

void dh_watch_take(dh_watch *watch, int cursor, dh_bits *into, uint64_t limit)
{
    dh_watch_take_part(watch, cursor, into, 0, limit);
}

void dh_watch_put_back_part(dh_watch *watch, int cursor, const dh_bits *from, uint64_t first,
                            uint64_t limit)
{
    if (!watch_enter(watch))
        return;
    dh_bits_or_part(watch_cursor(watch, cursor), from, first, limit);
    watch_leave(watch);
}

void dh_watch_put_back(dh_watch *watch, int cursor, const dh_bits *from, uint64_t limit)
{
    dh_watch_put_back_part(watch, cursor, from, 0, limit);
}

uint64_t dh_watch_count(dh_watch *watch, int cursor, uint64_t limit)
{
    uint64_t count;

    if (!watch_enter(watch))
        return 0;
    count = dh_bits_count(watch_cursor(watch, cursor), limit);
    watch_leave(watch);
    return count;
}

void dh_watch_copy(dh_watch *watch, int cursor, dh_bits *into, uint64_t limit)
{
    if (!watch_enter(watch))
        return;
    dh_bits_or(into, watch_cursor(watch, cursor), limit);
    watch_leave(watch);
}

/* --- scanning --------------------------------------------------------------------------------- */

typedef struct {
    dh_watch *watch;
    bool is_merged; /* false: negative control */
    uint64_t pages_count;
} merge;

static void merge_run(void *context, dh_pgno first, uint64_t count)
{
    merge *m = context;

    m->pages_count += count;
    if (m->is_merged)
        watch_mark_all(m->watch, first, count);
}

/* Lock held. Before anything is asked of a tracker. */
static int watch_start(dh_watch *watch)
{
    int rc = watch->tracker->begin != NULL ? watch->tracker->begin(watch->state) : 0;

    if (rc == 0)
        watch->is_torn = false;
    return rc;
}

int dh_watch_begin(dh_watch *watch)
{
    int rc;

    if (!watch_enter(watch))
        return DH_E_FORKED;
    rc = watch_start(watch);
    watch_leave(watch);
    return rc;
}

static int scan_range(dh_watch *watch, dh_pgno first, uint64_t count, uint64_t *pages_out)
{
    merge m = {.watch = watch, .is_merged = dhi_fault("watch.merge") == 0};
    int rc;

    DH_ASSERT(first <= watch->capacity_pages && count <= watch->capacity_pages - first);
    if (!watch_enter(watch))
        return DH_E_FORKED;
    rc = watch->is_torn ? watch_start(watch) : 0;
    if (rc == 0)
        rc = watch->tracker->scan(watch->state, first, count, DH_SCAN_TAKE, merge_run, &m);
    else
        merge_run(&m, first, count);
    watch_leave(watch);
    if (pages_out != NULL)
        *pages_out = m.pages_count;
    return rc;
}

int dh_watch_scan(dh_watch *watch, uint64_t pages_count, uint64_t *pages_out)
{
    return scan_range(watch, 0, pages_count, pages_out);
}

int dh_watch_scan_range(dh_watch *watch, dh_pgno first, uint64_t count)
{
    return scan_range(watch, first, count, NULL);
}

int dh_watch_peek(dh_watch *watch, uint64_t pages_count, dh_watch_report report, void *context)
{
    int rc;

    DH_ASSERT(pages_count <= watch->capacity_pages);
    if (!watch_enter(watch))
        return DH_E_FORKED;
    rc = watch->is_torn ? watch_start(watch) : 0;
    if (rc == 0)
        rc = watch->tracker->scan(watch->state, 0, pages_count, DH_SCAN_PEEK, report, context);
    watch_leave(watch);
    return rc;
}

static int watch_arm_tracker(dh_watch *watch, uint64_t pages_count)
{
    int rc = dhi_fault("watch.arm");

    return rc != 0 ? rc : watch->tracker->arm(watch->state, pages_count);
}

int dh_watch_arm(dh_watch *watch, uint64_t pages_count)
{
    int rc;

    DH_ASSERT(pages_count <= watch->capacity_pages);
    if (!watch_enter(watch))
        return DH_E_FORKED;
    rc = watch_arm_tracker(watch, pages_count);
    if (rc != 0) /* which pages are armed now is unknown */
        watch_mark_all(watch, 0, pages_count);
    else
        for (int i = 0; i < DH_CURSORS_MAX; i++)
            if (watch->is_open[i])
                dh_bits_clear_all(&watch->cursors[i], watch->capacity_pages);
    watch_leave(watch);
    return rc;
}

/* The pages are entered by hand: a kernel before 7.2 takes a piece whose page table is gone for one
 * that was not written. */
int dh_watch_renew(dh_watch *watch, dh_pgno first, uint64_t count)
{
    int rc;

    if (!watch_enter(watch))
        return DH_E_FORKED;
    watch_mark_all(watch, first, count);
    rc = watch->tracker->renew(watch->state, first, count);
    watch_leave(watch);
    return rc;
}

int dh_watch_remapped(dh_watch *watch, dh_pgno first, uint64_t count)
{
    int rc = dhi_fault("watch.remapped");

    if (!watch_enter(watch))
        return DH_E_FORKED;
    if (rc == 0 && watch->tracker->remapped != NULL)
        rc = watch->tracker->remapped(watch->state, first, count);
    if (rc != 0) {
        watch_mark_all(watch, first, count);
        watch->is_torn = true;
    }
    watch_leave(watch);
    return rc;
}

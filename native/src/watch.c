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

static int watch_set(dh_watch *watch, const dh_range *range, const dh_tracker *tracker,
                     const void *argument, char *why_out, size_t why_size)
{
    void *state;
    int rc;

    dh_fork_guard_hold();
    rc = tracker->open(range, argument, &state, why_out, why_size);
    if (rc == 0) {
        watch->tracker = tracker;
        watch->state = state;
    }
    dh_fork_guard_release();
    if (rc != 0 && why_out[0] == '\0')
        snprintf(why_out, why_size, "%s", dh_error_name(rc));
    dhi_explain_shortage(rc, why_out, why_size);
    return rc;
}

/* Take this tracker if it does here what it must; otherwise say why not. */
static int watch_try(dh_watch *watch, const dh_range *range, const dh_tracker *tracker,
                     const void *argument, char *why_out, size_t why_size)
{
    int rc = dh_probe(tracker->id, why_out, why_size);

    return rc != 0 ? rc : watch_set(watch, range, tracker, argument, why_out, why_size);
}

/* The first that works; the reason names those that did not. A shortage ends the search: another
 * tracker costs or promises something else, and would be taken for want of a descriptor. */
static int watch_choose_first(dh_watch *watch, const dh_range *range,
                              const dh_compare_source *compare)
{
    const dh_tracker *const trackers[] = {&dh_tracker_uffd, &dh_tracker_uffd_dev,
                                          compare != NULL ? &dh_tracker_compare
                                                          : &dh_tracker_shadow};
    size_t used_bytes = 0;

    for (size_t i = 0; i < sizeof(trackers) / sizeof(trackers[0]); i++) {
        char why[256] = "";
        int rc = watch_try(watch, range, trackers[i], compare, why, sizeof(why));
        int written;

        if (dhi_is_shortage(rc))
            snprintf(watch->reason, sizeof(watch->reason), "%s", why);
        if (rc == 0 || dhi_is_shortage(rc))
            return rc;
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
    return rc == 0 || dhi_is_shortage(rc) ? rc : DH_E_TRACKER;
}

/* Without a tracker. */
static int watch_new(const dh_range *range, dh_watch **watch_out)
{
    dh_watch *watch = calloc(1, sizeof(*watch));
    int rc;

    if (watch == NULL)
        return ENOMEM;
    watch->range = *range;
    watch->capacity_pages = range->pages_count;
    watch->holders_count = 1;
    watch->owner = getpid();
    rc = pthread_mutex_init(&watch->lock, NULL);
    if (rc != 0)
        goto fail_watch;
    rc = dh_fork_guard_open(watch_fork_child, watch, &watch->guard);
    if (rc != 0)
        goto fail_lock;
    *watch_out = watch;
    return 0;

fail_lock:
    pthread_mutex_destroy(&watch->lock);
fail_watch:
    free(watch);
    return rc;
}

/* The tracker is there, or will not be. */
static int watch_settle(dh_watch *watch, int rc, dh_watch **watch_out, char *why_out,
                        size_t why_size)
{
    if (why_out != NULL && why_size > 0)
        snprintf(why_out, why_size, "%s", watch->reason);
    if (rc == 0) {
        watch->sig = DHI_WATCH_SIG;
        *watch_out = watch;
        return 0;
    }
    dh_fork_guard_close(watch->guard);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
    return rc;
}

int dh_watch_open_idle(const dh_range *range, int tracker, const dh_compare_source *compare,
                       dh_watch **watch_out, char *why_out, size_t why_size)
{
    dh_watch *watch;
    int rc = watch_new(range, &watch);

    if (rc != 0)
        return rc;
    rc = watch_choose(watch, range, tracker, compare);
    return watch_settle(watch, rc, watch_out, why_out, why_size);
}

int dh_watch_open_with(const dh_range *range, const dh_tracker *tracker, const void *argument,
                       dh_watch **watch_out, char *why_out, size_t why_size)
{
    dh_watch *watch;
    int rc = watch_new(range, &watch);

    if (rc != 0)
        return rc;
    rc = watch_set(watch, range, tracker, argument, watch->reason, sizeof(watch->reason));
    return watch_settle(watch, rc, watch_out, why_out, why_size);
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

/* Lock held, or forked. */
static void watch_end(dh_watch *watch)
{
    void *state;

    dh_fork_guard_hold();
    state = watch->state;
    watch->state = NULL;
    watch->tracker->close(state);
    dh_fork_guard_release();
    for (int i = 0; i < DH_CURSORS_MAX; i++) {
        if (watch->is_open[i])
            dh_bits_finish(&watch->cursors[i]);
        watch->is_open[i] = false;
    }
    dh_bits_finish(&watch->looked);
}

void dh_watch_close(dh_watch *watch)
{
    if (watch == NULL)
        return;
    DH_ASSERT(watch->sig == DHI_WATCH_SIG);
    dh_watch_withdraw(watch);
    if (dhi_watch_enter(watch)) {
        watch_end(watch);
        dhi_watch_leave(watch);
    } else {
        watch_end(watch);
    }
    dh_fork_guard_close(watch->guard);
    dh_watch_drop(watch);
}

void dhi_watch_free(dh_watch *watch)
{
    watch->sig = 0;
    if (!dh_watch_is_forked(watch))
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

bool dhi_watch_enter(dh_watch *watch)
{
    DH_ASSERT(watch->sig == DHI_WATCH_SIG);
    if (dh_watch_is_forked(watch))
        return false;
    pthread_mutex_lock(&watch->lock);
    if (watch->state != NULL)
        return true;
    pthread_mutex_unlock(&watch->lock);
    return false;
}

void dhi_watch_leave(dh_watch *watch) { pthread_mutex_unlock(&watch->lock); }

int dhi_watch_refusal(const dh_watch *watch)
{
    return dh_watch_is_forked(watch) ? DH_E_FORKED : DH_E_CLOSED;
}

/* --- cursors ---------------------------------------------------------------------------------- */

dh_bits *dhi_watch_cursor(dh_watch *watch, int cursor)
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
            watch->open_count++;
            return i;
        }
    return DH_E_LIMIT;
}

int dh_watch_cursor_open(dh_watch *watch)
{
    int cursor;

    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    cursor = watch_cursor_add(watch);
    dhi_watch_leave(watch);
    return cursor;
}

void dh_watch_cursor_close(dh_watch *watch, int cursor)
{
    if (!dhi_watch_enter(watch))
        return;
    dh_bits_finish(dhi_watch_cursor(watch, cursor));
    watch->is_open[cursor] = false;
    watch->open_count--;
    dhi_watch_leave(watch);
}

/* Lock held. */
static void watch_mark_all(dh_watch *watch, dh_pgno first, uint64_t count)
{
    for (int i = 0; i < DH_CURSORS_MAX; i++)
        if (watch->is_open[i])
            dh_bits_set_run(&watch->cursors[i], first, count);
}

int dh_watch_mark(dh_watch *watch, dh_pgno first, uint64_t count)
{
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    watch_mark_all(watch, first, count);
    dhi_watch_leave(watch);
    return 0;
}

void dh_watch_take_part(dh_watch *watch, int cursor, dh_bits *into, uint64_t first, uint64_t limit)
{
    dh_bits *pages;

    if (!dhi_watch_enter(watch))
        return;
    pages = dhi_watch_cursor(watch, cursor);
    dh_bits_or_part(into, pages, first, limit);
    dh_bits_clear_part(pages, first, limit);
    dhi_watch_leave(watch);
}

void dh_watch_take(dh_watch *watch, int cursor, dh_bits *into, uint64_t limit)
{
    dh_watch_take_part(watch, cursor, into, 0, limit);
}

void dh_watch_put_back_part(dh_watch *watch, int cursor, const dh_bits *from, uint64_t first,
                            uint64_t limit)
{
    if (!dhi_watch_enter(watch))
        return;
    dh_bits_or_part(dhi_watch_cursor(watch, cursor), from, first, limit);
    dhi_watch_leave(watch);
}

void dh_watch_put_back(dh_watch *watch, int cursor, const dh_bits *from, uint64_t limit)
{
    dh_watch_put_back_part(watch, cursor, from, 0, limit);
}

uint64_t dh_watch_count(dh_watch *watch, int cursor, uint64_t limit)
{
    uint64_t count;

    if (!dhi_watch_enter(watch))
        return 0;
    count = dh_bits_count(dhi_watch_cursor(watch, cursor), limit);
    dhi_watch_leave(watch);
    return count;
}

bool dh_watch_has(dh_watch *watch, int cursor, dh_pgno pgno)
{
    bool has;

    if (!dhi_watch_enter(watch))
        return true;
    has = dh_bits_test(dhi_watch_cursor(watch, cursor), pgno);
    dhi_watch_leave(watch);
    return has;
}

void dh_watch_copy(dh_watch *watch, int cursor, dh_bits *into, uint64_t limit)
{
    if (!dhi_watch_enter(watch))
        return;
    dh_bits_or(into, dhi_watch_cursor(watch, cursor), limit);
    dhi_watch_leave(watch);
}

/* --- scanning --------------------------------------------------------------------------------- */

/* The open cursors are looked up once and not for each run. */
typedef struct {
    dh_bits *cursors[DH_CURSORS_MAX];
    int cursors_count; /* 0 in the negative control */
    uint64_t pages_count;
} merge;

/* Lock held. */
static merge merge_into_cursors(dh_watch *watch)
{
    merge m = {.pages_count = 0};

    if (dhi_fault("watch.merge") != 0)
        return m;
    for (int i = 0; i < DH_CURSORS_MAX; i++)
        if (watch->is_open[i])
            m.cursors[m.cursors_count++] = &watch->cursors[i];
    return m;
}

static void merge_run(void *context, dh_pgno first, uint64_t count)
{
    merge *m = context;

    m->pages_count += count;
    for (int i = 0; i < m->cursors_count; i++)
        dh_bits_set_run(m->cursors[i], first, count);
}

/* Lock held. Before anything is asked of a tracker. */
static int watch_start(dh_watch *watch)
{
    int rc = watch->tracker->begin != NULL ? watch->tracker->begin(watch->state) : 0;

    if (rc == 0)
        watch->is_torn = false;
    if (rc <= 0 || rc == ENOMEM)
        return rc;
    watch->begin_errno = rc;
    return DH_E_WATCH;
}

int dhi_watch_mend(dh_watch *watch) { return watch->is_torn ? watch_start(watch) : 0; }

int dh_watch_begin_errno(const dh_watch *watch) { return watch->begin_errno; }

int dh_watch_begin(dh_watch *watch)
{
    int rc;

    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    rc = watch_start(watch);
    dhi_watch_leave(watch);
    return rc;
}

int dhi_watch_ask(dh_watch *watch, dh_pgno first, uint64_t count, dh_scan_mode mode,
                  dh_watch_report report, void *context)
{
    int rc = watch->tracker->scan(watch->state, first, count, mode, report, context);

    if (rc == DH_E_WATCH)
        watch->is_torn = true;
    return rc;
}

int dhi_watch_merge(dh_watch *watch, dh_pgno first, uint64_t count, uint64_t *pages_out)
{
    merge m = merge_into_cursors(watch);
    int rc = dhi_watch_mend(watch);

    if (rc == 0)
        rc = dhi_watch_ask(watch, first, count, DH_SCAN_TAKE, merge_run, &m);
    else
        merge_run(&m, first, count);
    if (pages_out != NULL)
        *pages_out = m.pages_count;
    return rc;
}

static int scan_range(dh_watch *watch, dh_pgno first, uint64_t count, uint64_t *pages_out)
{
    int rc;

    DH_ASSERT(first <= watch->capacity_pages && count <= watch->capacity_pages - first);
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    rc = dhi_watch_merge(watch, first, count, pages_out);
    dhi_watch_leave(watch);
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
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    rc = dhi_watch_mend(watch);
    if (rc == 0)
        rc = dhi_watch_ask(watch, 0, pages_count, DH_SCAN_PEEK, report, context);
    dhi_watch_leave(watch);
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
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    rc = watch_arm_tracker(watch, pages_count);
    if (rc != 0) /* which pages are armed now is unknown */
        watch_mark_all(watch, 0, pages_count);
    else
        for (int i = 0; i < DH_CURSORS_MAX; i++)
            if (watch->is_open[i])
                dh_bits_clear_all(&watch->cursors[i], watch->capacity_pages);
    dhi_watch_leave(watch);
    return rc;
}

int dh_watch_remapped(dh_watch *watch, dh_pgno first, uint64_t count)
{
    int rc = dhi_fault("watch.remapped");

    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    if (rc == 0 && watch->tracker->remapped != NULL)
        rc = watch->tracker->remapped(watch->state, first, count);
    if (rc != 0) {
        watch_mark_all(watch, first, count);
        watch->is_torn = true;
    }
    dhi_watch_leave(watch);
    return rc;
}

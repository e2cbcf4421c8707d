/* watch_script.c -- test double: pages count as written when dh_script_write says so.
 *
 * Contract: watch.h. It sees no store, so it must never track a heap that anybody wants to keep.
 */
#include <stdlib.h>

#include "watch_state.h"

typedef struct {
    dh_bits written;
} script_watch;

static int script_open(const dh_range *range, const void *argument, void **state_out, char *why_out,
                       size_t why_size)
{
    script_watch *script = calloc(1, sizeof(*script));
    int rc;

    (void)argument, (void)why_out, (void)why_size;
    if (script == NULL)
        return ENOMEM;
    rc = dh_bits_init(&script->written, range->pages_count);
    if (rc != 0) {
        free(script);
        return rc;
    }
    *state_out = script;
    return 0;
}

static void script_close(void *state)
{
    script_watch *script = state;

    dh_bits_finish(&script->written);
    free(script);
}

static void script_report(const script_watch *script, uint64_t from, uint64_t limit,
                          dh_watch_report report, void *context)
{
    uint64_t first = dh_bits_next(&script->written, from, limit);

    while (first < limit) {
        uint64_t end = first + 1;

        while (end < limit && dh_bits_test(&script->written, end))
            end++;
        report(context, (dh_pgno)first, end - first);
        first = dh_bits_next(&script->written, end, limit);
    }
}

/* A fault behaves like an ioctl that failed after re-arming: everything is reported. */
static int script_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                       dh_watch_report report, void *context)
{
    script_watch *script = state;
    int rc = mode == DH_SCAN_TAKE ? dhi_fault("watch.scan") : 0;

    if (rc != 0)
        report(context, first, count);
    else
        script_report(script, first, first + count, report, context);
    for (uint64_t p = first; mode == DH_SCAN_TAKE && p < first + count; p++)
        dh_bits_clear(&script->written, p);
    return rc;
}

static int script_arm(void *state, uint64_t pages_count)
{
    script_watch *script = state;

    dh_bits_clear_all(&script->written, pages_count);
    return 0;
}

static void script_fork_child(void *state) { (void)state; }

void dh_script_write(dh_watch *watch, dh_pgno first, uint64_t count)
{
    script_watch *script = watch->state;

    DH_ASSERT(watch->tracker == &dh_tracker_script);
    pthread_mutex_lock(&watch->lock);
    dh_bits_set_run(&script->written, first, count);
    pthread_mutex_unlock(&watch->lock);
}

const dh_tracker dh_tracker_script = {
    .id = DH_TRACKER_SCRIPT,
    .name = "script",
    .open = script_open,
    .close = script_close,
    .scan = script_scan,
    .arm = script_arm,
    .fork_child = script_fork_child,
};

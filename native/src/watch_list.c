/* watch_list.c -- who tracks this memory already? The watches of the process that may be found.
 *
 * Two watches over the same memory would need the kernel twice, which it refuses, and whoever watches
 * a heap's memory has to share the heap's own. The list and the counts of holders are guarded by
 * dh_fork_guard_hold: so they are whole in a forked child, which finds none of its parent's watches.
 * Nothing in here waits for a watch's own lock.
 */
#include <unistd.h>

#include "watch_state.h"

static dh_watch *listed_first;

static bool overlaps(const dh_range *a, const dh_range *b)
{
    const uint8_t *a_end = a->base + (a->pages_count << DH_PAGE_SHIFT);
    const uint8_t *b_end = b->base + (b->pages_count << DH_PAGE_SHIFT);

    return a->base < b_end && b->base < a_end;
}

/* Who only compares disturbs nobody. */
static bool needs_kernel(const dh_watch *watch)
{
    return watch->tracker->id != DH_TRACKER_SHADOW && watch->tracker->id != DH_TRACKER_COMPARE;
}

static dh_watch *listed_over(const dh_range *range, dh_watch_kind kind)
{
    pid_t self = getpid();

    for (dh_watch *watch = listed_first; watch != NULL; watch = watch->listed_next)
        if (watch->owner == self && watch->kind == kind && overlaps(&watch->range, range))
            return watch;
    return NULL;
}

static bool is_alone(const dh_watch *watch)
{
    pid_t self = getpid();

    if (!needs_kernel(watch))
        return true;
    for (const dh_watch *other = listed_first; other != NULL; other = other->listed_next)
        if (other->owner == self && needs_kernel(other) && overlaps(&other->range, &watch->range))
            return false;
    return true;
}

int dh_watch_publish(dh_watch *watch, dh_watch_kind kind)
{
    int rc = 0;

    DH_ASSERT(watch->sig == DHI_WATCH_SIG && watch->kind == DH_WATCH_PRIVATE);
    dh_fork_guard_hold();
    if (kind == DH_WATCH_ALONE && !is_alone(watch)) {
        rc = EBUSY;
    } else {
        watch->kind = kind;
        watch->listed_next = listed_first;
        listed_first = watch;
    }
    dh_fork_guard_release();
    return rc;
}

void dh_watch_withdraw(dh_watch *watch)
{
    dh_fork_guard_hold();
    for (dh_watch **at = &listed_first; *at != NULL; at = &(*at)->listed_next)
        if (*at == watch) {
            *at = watch->listed_next;
            break;
        }
    watch->kind = DH_WATCH_PRIVATE;
    dh_fork_guard_release();
}

dh_watch *dh_watch_find(const dh_range *range, dh_watch_kind kind)
{
    dh_watch *watch;

    dh_fork_guard_hold();
    watch = listed_over(range, kind);
    if (watch != NULL)
        watch->holders_count++;
    dh_fork_guard_release();
    return watch;
}

void dh_watch_drop(dh_watch *watch)
{
    bool is_last;

    dh_fork_guard_hold();
    is_last = --watch->holders_count == 0;
    dh_fork_guard_release();
    if (is_last)
        dhi_watch_free(watch);
}

const dh_range *dh_watch_range(const dh_watch *watch) { return &watch->range; }

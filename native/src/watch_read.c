/* watch_read.c -- what a cursor holds, told as runs of pages: with or without taking them out.
 *
 * A page leaves a cursor in the step that tells of it, under the watch's lock, and no other does. A
 * look leaves both cursor and kernel as they are.
 */
#include "watch_state.h"

/* Tell runs of set, ascending, until pages_max are told. Returns where to go on. */
static uint64_t tell(const dh_bits *set, uint64_t first, uint64_t limit, uint64_t pages_max,
                     dh_watch_report report, void *context)
{
    uint64_t at = dh_bits_next(set, first, limit);

    while (at < limit && pages_max > 0) {
        uint64_t end = dh_bits_next_clear(set, at, limit);

        if (end - at > pages_max)
            end = at + pages_max;
        pages_max -= end - at;
        report(context, (dh_pgno)at, end - at);
        if (pages_max == 0)
            return end;
        at = dh_bits_next(set, end, limit);
    }
    return at;
}

int dh_watch_read(dh_watch *watch, int cursor, dh_pgno first, uint64_t limit, uint64_t pages_max,
                  dh_watch_report report, void *context)
{
    dh_bits *pages;
    uint64_t end;

    DH_ASSERT(first <= limit && limit <= watch->capacity_pages);
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    pages = dhi_watch_cursor(watch, cursor);
    end = tell(pages, first, limit, pages_max, report, context);
    dh_bits_clear_run(pages, first, end - first);
    dhi_watch_leave(watch);
    return 0;
}

static void look_note(void *context, dh_pgno first, uint64_t count)
{
    dh_watch *watch = context;

    dh_bits_set_run(&watch->looked, first, count);
}

/* The cursor's pages, and those that were written since the last scan. Lock held. */
static int look_gather(dh_watch *watch, int cursor, uint64_t first, uint64_t limit)
{
    int rc = dhi_watch_mend(watch);

    if (rc == 0 && watch->looked.words == NULL)
        rc = dh_bits_init(&watch->looked, watch->capacity_pages);
    if (rc == 0)
        rc = dhi_watch_ask(watch, (dh_pgno)first, limit - first, DH_SCAN_PEEK, look_note, watch);
    if (rc == 0) /* whole words of 64 pages: what lies before is not told */
        dh_bits_or_part(&watch->looked, dhi_watch_cursor(watch, cursor), first & ~(uint64_t)63,
                        limit);
    return rc;
}

int dh_watch_look(dh_watch *watch, int cursor, dh_pgno first, uint64_t limit, uint64_t pages_max,
                  dh_watch_report report, void *context)
{
    int rc;

    DH_ASSERT(first <= limit && limit <= watch->capacity_pages);
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    rc = look_gather(watch, cursor, first, limit);
    if (rc == 0)
        (void)tell(&watch->looked, first, limit, pages_max, report, context);
    if (watch->looked.words != NULL)
        dh_bits_clear_part(&watch->looked, first & ~(uint64_t)63, limit);
    dhi_watch_leave(watch);
    return rc;
}

int dh_watch_forget(dh_watch *watch, int cursor, dh_pgno first, uint64_t limit)
{
    DH_ASSERT(first <= limit && limit <= watch->capacity_pages);
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    dh_bits_clear_run(dhi_watch_cursor(watch, cursor), first, limit - first);
    dhi_watch_leave(watch);
    return 0;
}

void dh_watch_return(dh_watch *watch, int cursor, dh_pgno first, uint64_t count)
{
    if (!dhi_watch_enter(watch))
        return;
    dh_bits_set_run(dhi_watch_cursor(watch, cursor), first, count);
    dhi_watch_leave(watch);
}

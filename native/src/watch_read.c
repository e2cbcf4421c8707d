/* watch_read.c -- what is written for a cursor, told as runs of pages: with or without taking them out.
 *
 * A page leaves a cursor in the step that tells of it, under the watch's lock, and no other does. A
 * look leaves both cursor and kernel as they are. A cursor that is alone and empty hears of pages as
 * the tracker reports them, without a detour through its bits; what it does not take stays in them.
 */
#include "watch_state.h"

/* Tell runs of set, ascending, until pages_max are told. *end_out: up to where all are. */
static int tell(const dh_bits *set, const dh_watch_question *q, uint64_t *end_out)
{
    uint64_t pages_left = q->pages_max;
    uint64_t at = dh_bits_next(set, q->first, q->limit);

    while (at < q->limit && pages_left > 0) {
        uint64_t end = dh_bits_next_clear(set, at, q->limit);
        int rc;

        if (end - at > pages_left)
            end = at + pages_left;
        rc = q->tell(q->context, (dh_pgno)at, end - at);
        *end_out = rc == 0 ? end : at;
        if (rc != 0)
            return rc;
        pages_left -= end - at;
        at = dh_bits_next(set, end, q->limit);
    }
    return 0;
}

/* --- taking ------------------------------------------------------------------------------------ */

/* One scan that is told as it is found. */
typedef struct {
    const dh_watch_question *q;
    dh_bits *pages; /* the cursor's: what is not told stays there */
    uint64_t pages_left;
    bool is_left_out; /* negative control */
    int rc;
} direct;

static void direct_run(void *context, dh_pgno found_first, uint64_t found_count)
{
    direct *d = context;
    uint64_t found_end = found_first + found_count;
    uint64_t first = found_first > d->q->first ? found_first : d->q->first;
    uint64_t end = found_end < d->q->limit ? found_end : d->q->limit;

    if (d->is_left_out)
        return;
    if (end > first && end - first > d->pages_left)
        end = first + d->pages_left;
    if (end <= first || d->rc != 0) {
        dh_bits_set_run(d->pages, found_first, found_count);
        return;
    }
    d->rc = d->q->tell(d->q->context, (dh_pgno)first, end - first);
    if (d->rc != 0)
        end = first;
    else
        d->pages_left -= end - first;
    if (found_first < first)
        dh_bits_set_run(d->pages, found_first, first - found_first);
    if (end < found_end)
        dh_bits_set_run(d->pages, end, found_end - end);
}

static int answer_direct(dh_watch *watch, dh_bits *pages, const dh_watch_question *q)
{
    direct d = {
        .q = q,
        .pages = pages,
        .pages_left = q->pages_max,
        .is_left_out = dhi_fault("watch.merge") != 0,
    };
    int rc = dhi_watch_ask(watch, (dh_pgno)q->scan_first, q->scan_limit - q->scan_first,
                           DH_SCAN_TAKE, direct_run, &d);

    return rc != 0 ? rc : d.rc;
}

static int answer_merged(dh_watch *watch, dh_bits *pages, const dh_watch_question *q)
{
    uint64_t end = q->first;
    int rc = dhi_watch_merge(watch, (dh_pgno)q->scan_first, q->scan_limit - q->scan_first, NULL);

    if (rc == 0)
        rc = tell(pages, q, &end);
    dh_bits_clear_run(pages, q->first, end - q->first);
    return rc;
}

int dh_watch_answer(dh_watch *watch, int cursor, const dh_watch_question *q)
{
    dh_bits *pages;
    int rc;

    DH_ASSERT(q->scan_first <= q->first && q->first <= q->limit && q->limit <= q->scan_limit);
    DH_ASSERT(q->scan_limit <= watch->capacity_pages);
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    pages = dhi_watch_cursor(watch, cursor);
    if (watch->open_count == 1 && !watch->is_torn &&
        dh_bits_next(pages, q->first, q->limit) == q->limit)
        rc = answer_direct(watch, pages, q);
    else
        rc = answer_merged(watch, pages, q);
    dhi_watch_leave(watch);
    return rc;
}

/* --- looking ----------------------------------------------------------------------------------- */

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

int dh_watch_look(dh_watch *watch, int cursor, const dh_watch_question *q)
{
    uint64_t end;
    int rc;

    DH_ASSERT(q->first <= q->limit && q->limit <= watch->capacity_pages);
    if (!dhi_watch_enter(watch))
        return dhi_watch_refusal(watch);
    rc = look_gather(watch, cursor, q->first, q->limit);
    if (rc == 0)
        rc = tell(&watch->looked, q, &end);
    if (watch->looked.words != NULL)
        dh_bits_clear_part(&watch->looked, q->first & ~(uint64_t)63, q->limit);
    dhi_watch_leave(watch);
    return rc;
}

/* --- by hand ----------------------------------------------------------------------------------- */

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

/* lab_pages.c -- what techniques of the laboratory share: the pages of a watch, and telling them.
 *
 * Nothing here asks the kernel about memory, and nothing locks: each technique does that by itself,
 * which is what it is shown for.
 */
#include <unistd.h>

#include "lab.h"

/* --- the pages of a watch --------------------------------------------------------------------- */

int dhl_pages_init(dhl_pages *pages, const dh_range *range)
{
    int rc = dh_bits_init(&pages->written, range->pages_count);

    if (rc != 0)
        return rc;
    pages->base = range->base;
    pages->count = range->pages_count;
    pages->owner = getpid();
    dh_bits_set_run(&pages->written, 0, range->pages_count);
    return 0;
}

void dhl_pages_finish(dhl_pages *pages) { dh_bits_finish(&pages->written); }

bool dhl_pages_are_ours(const dhl_pages *pages) { return pages->owner == getpid(); }

/* --- telling them ----------------------------------------------------------------------------- */

void dhl_report(const dh_bits *pages, uint64_t first, uint64_t limit, uint64_t shift,
                dh_watch_report report, void *context)
{
    uint64_t from = report != NULL ? dh_bits_next(pages, first, limit) : limit;

    while (from < limit) {
        uint64_t end = dh_bits_next_clear(pages, from, limit);

        report(context, (dh_pgno)(from + shift), end - from);
        from = dh_bits_next(pages, end, limit);
    }
}

uint64_t dhl_chunk_copy(dh_bits *chunk, const dh_bits *written, uint64_t first, uint64_t count)
{
    uint64_t limit = first + count, behind = 0;

    dh_bits_clear_all(chunk, DHL_CHUNK_PAGES);
    for (uint64_t pgno = dh_bits_next(written, first, limit); pgno < limit;
         pgno = dh_bits_next(written, pgno + 1, limit)) {
        dh_bits_set(chunk, pgno - first);
        behind = pgno - first + 1;
    }
    return behind;
}

int dhl_scan_in_chunks(void *state, dhl_chunk_scan scan, dh_bits *chunk, dh_pgno first,
                       uint64_t count, dh_scan_mode mode, dh_watch_report report, void *context)
{
    uint64_t limit = first + count;
    int rc_first = 0;

    for (uint64_t pgno = first; pgno < limit; pgno += DHL_CHUNK_PAGES) {
        uint64_t part = limit - pgno < DHL_CHUNK_PAGES ? limit - pgno : DHL_CHUNK_PAGES;
        int rc = scan(state, chunk, pgno, part, mode);

        if (rc_first == 0)
            rc_first = rc;
        dhl_report(chunk, 0, part, pgno, report, context);
    }
    return rc_first;
}

/* --- small things ----------------------------------------------------------------------------- */

void dhl_signals_block(sigset_t *mask_out)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, mask_out);
}

void dhl_signals_unblock(const sigset_t *mask) { pthread_sigmask(SIG_SETMASK, mask, NULL); }

void dhl_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

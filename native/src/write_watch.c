/* write_watch.c -- the verbs of a write watch: get, reset, get and reset in one step.
 *
 * Contract: write_watch.h; how one is opened: write_watch_open.c. A scan reports into every cursor
 * of the watch, and a cursor keeps what its owner did not take: so a get of N pages takes exactly
 * these N, though the kernel has armed a whole piece. Pieces begin small when few pages are asked
 * for and double, up to 1 GiB, so that one page of a large range costs no scan of all of it.
 *
 * A get that fails has taken nothing: what it was told goes back to the cursor.
 */
#include "write_watch.h"

#include <stdlib.h>

#define PIECE_PAGES_MIN 64u
#define PIECE_PAGES_MAX 262144u  /* of 1 GiB: the watch's lock is held for so long */
#define PIECE_PAGES_SHARED 8192u /* a heap's commit may be waiting for it, in its stop */
#define PIECE_EDGE_PAGES 512u /* of 2 MiB: a piece of that size or more ends where huge pages do */
#define RUNS_ROOM_MIN 64u

/* One get. Page numbers in here are those of the underlying watch. */
typedef struct {
    dh_write_watch *w;
    int cursor;
    bool is_reset;
    uint64_t pages_left;
    dh_pages *pages;
} harvest;

/* --- runs of pages ----------------------------------------------------------------------------- */

/* Room beyond need is memory that the next get finds cold. */
static int pages_grow(dh_pages *pages, const dh_write_watch *w)
{
    size_t expected = __atomic_load_n(&w->runs_expected, __ATOMIC_RELAXED);
    size_t room = pages->runs_room > 0 ? 2 * pages->runs_room : RUNS_ROOM_MIN + expected;
    dh_page_run *runs = realloc(pages->runs, room * sizeof(*runs));

    if (runs == NULL)
        return ENOMEM;
    pages->runs = runs;
    pages->runs_room = room;
    return 0;
}

/* A dh_watch_tell. */
static int pages_add(void *context, dh_pgno first, uint64_t count)
{
    const harvest *h = context;
    dh_pages *pages = h->pages;
    uint64_t start = first - h->w->first;
    dh_page_run *last = pages->runs_count > 0 ? &pages->runs[pages->runs_count - 1] : NULL;

    if (last != NULL && last->stop == start) {
        last->stop += count;
    } else {
        int rc = dhi_fault("watch.runs");

        if (rc == 0 && pages->runs_count == pages->runs_room)
            rc = pages_grow(pages, h->w);
        if (rc != 0)
            return rc;
        pages->runs[pages->runs_count++] = (dh_page_run){start, start + count};
    }
    pages->pages_count += count;
    return 0;
}

void dh_pages_free(dh_pages *pages)
{
    if (pages == NULL)
        return;
    free(pages->runs);
    free(pages);
}

void dh_pages_drop(dh_pages **pages)
{
    dh_pages_free(*pages);
    *pages = NULL;
}

void dh_pages_numbers(const dh_pages *pages, uint64_t *numbers_out)
{
    for (size_t i = 0; i < pages->runs_count; i++)
        for (uint64_t page = pages->runs[i].start; page < pages->runs[i].stop; page++)
            *numbers_out++ = page;
}

void dh_pages_bitmap(const dh_pages *pages, uint64_t first, uint8_t *bits_out)
{
    for (size_t i = 0; i < pages->runs_count; i++)
        for (uint64_t page = pages->runs[i].start - first; page < pages->runs[i].stop - first;) {
            if (page % 8 == 0 && pages->runs[i].stop - first - page >= 8) {
                bits_out[page / 8] = UINT8_MAX;
                page += 8;
            } else {
                bits_out[page / 8] |= (uint8_t)(1u << page % 8);
                page++;
            }
        }
}

/* --- pieces ------------------------------------------------------------------------------------ */

/* Pages counted from address 0, by which huge pages are aligned. */
static uint64_t base_page(const dh_write_watch *w)
{
    return (uint64_t)(uintptr_t)dh_watch_range(w->watch)->base >> DH_PAGE_SHIFT;
}

/* Where a piece that begins at first ends. */
static uint64_t piece_limit(const dh_write_watch *w, uint64_t first, uint64_t size, uint64_t limit)
{
    uint64_t base = base_page(w);
    uint64_t edge = base + first + size;

    if (size >= PIECE_EDGE_PAGES)
        edge &= ~(uint64_t)(PIECE_EDGE_PAGES - 1);
    edge -= base;
    return edge < limit ? edge : limit;
}

/* What has to be scanned to know of [first, limit): whole huge pages. */
static void scan_bounds(const dh_write_watch *w, uint64_t first, uint64_t limit,
                        uint64_t *first_out, uint64_t *limit_out)
{
    uint64_t base = base_page(w);
    uint64_t end = w->first + w->pages_count;
    uint64_t before = (base + first) % w->unit_pages;
    uint64_t behind = (w->unit_pages - (base + limit) % w->unit_pages) % w->unit_pages;

    *first_out = before < first - w->first ? first - before : w->first;
    *limit_out = behind < end - limit ? limit + behind : end;
}

static int scan_around(const dh_write_watch *w, uint64_t first, uint64_t limit)
{
    scan_bounds(w, first, limit, &first, &limit);
    return dh_watch_scan_range(w->watch, (dh_pgno)first, limit - first);
}

static int harvest_piece(harvest *h, uint64_t first, uint64_t limit)
{
    dh_watch_question question = {
        .first = first,
        .limit = limit,
        .pages_max = h->pages_left,
        .tell = pages_add,
        .context = h,
    };

    if (!h->is_reset)
        return dh_watch_look(h->w->watch, h->cursor, &question);
    scan_bounds(h->w, first, limit, &question.scan_first, &question.scan_limit);
    return dh_watch_answer(h->w->watch, h->cursor, &question);
}

static int harvest_all(harvest *h, uint64_t first, uint64_t limit, uint64_t pages_max)
{
    uint64_t size_max = h->w->is_shared ? PIECE_PAGES_SHARED : PIECE_PAGES_MAX;
    uint64_t size = PIECE_PAGES_MIN;

    while (size < pages_max && size < size_max)
        size *= 2;
    while (first < limit && h->pages_left > 0) {
        uint64_t end = piece_limit(h->w, first, size, limit);
        uint64_t before = h->pages->pages_count;
        int rc = harvest_piece(h, first, end);

        if (rc != 0)
            return rc;
        h->pages_left -= h->pages->pages_count - before;
        first = end;
        if (size < size_max)
            size *= 2;
    }
    return 0;
}

/* --- the verbs --------------------------------------------------------------------------------- */

void dh_write_watch_return(dh_write_watch *w, int cursor, const dh_pages *pages)
{
    for (size_t i = 0; i < pages->runs_count; i++) {
        const dh_page_run *run = &pages->runs[i];

        dh_watch_return(w->watch, cursor, (dh_pgno)(w->first + run->start), run->stop - run->start);
    }
}

static int check_range(const dh_write_watch *w, uint64_t first, uint64_t limit)
{
    DH_ASSERT(w->sig == DHI_WRITE_WATCH_SIG);
    return first <= limit && limit <= w->pages_count ? 0 : EINVAL;
}

int dh_write_watch_get(dh_write_watch *w, int cursor, uint64_t first, uint64_t limit,
                       uint64_t pages_max, int is_reset, dh_pages **pages_out)
{
    harvest h = {w, cursor, is_reset != 0, pages_max, NULL};
    int rc = check_range(w, first, limit);

    if (rc != 0 || pages_max == 0)
        return EINVAL;
    h.pages = calloc(1, sizeof(*h.pages));
    if (h.pages == NULL)
        return ENOMEM;
    rc = harvest_all(&h, w->first + first, w->first + limit, pages_max);
    if (rc != 0) {
        if (h.is_reset)
            dh_write_watch_return(w, cursor, h.pages);
        dh_pages_free(h.pages);
        return rc;
    }
    __atomic_store_n(&w->runs_expected, h.pages->runs_count, __ATOMIC_RELAXED);
    h.pages->next_page = (uint64_t)DH_PAGES_COMPLETE;
    if (h.pages_left == 0 && h.pages->runs[h.pages->runs_count - 1].stop < limit)
        h.pages->next_page = h.pages->runs[h.pages->runs_count - 1].stop;
    *pages_out = h.pages;
    return 0;
}

int dh_write_watch_reset(dh_write_watch *w, int cursor, uint64_t first, uint64_t limit)
{
    int rc = check_range(w, first, limit);

    if (rc == 0 && first < limit)
        rc = scan_around(w, w->first + first, w->first + limit);
    if (rc == 0)
        rc = dh_watch_forget(w->watch, cursor, (dh_pgno)(w->first + first), w->first + limit);
    return rc;
}

int dh_write_watch_mark(dh_write_watch *w, uint64_t first, uint64_t limit)
{
    int rc = check_range(w, first, limit);

    return rc != 0 ? rc : dh_watch_mark(w->watch, (dh_pgno)(w->first + first), limit - first);
}

/* What was written before concerns the older cursors only. */
int dh_write_watch_cursor_open(dh_write_watch *w, int *cursor_out)
{
    int rc = check_range(w, 0, 0);
    int cursor;

    if (rc == 0)
        rc = scan_around(w, w->first, w->first + w->pages_count);
    if (rc != 0)
        return rc;
    cursor = dh_watch_cursor_open(w->watch);
    if (cursor < 0)
        return cursor;
    *cursor_out = cursor;
    return 0;
}

void dh_write_watch_cursor_close(dh_write_watch *w, int cursor)
{
    dh_watch_cursor_close(w->watch, cursor);
}

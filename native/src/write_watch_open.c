/* write_watch_open.c -- opening a write watch: whose memory is it, and who can track it?
 *
 * A heap's memory is registered by the heap, and the kernel refuses a second registration: there the
 * new watch gets a cursor of the heap's own watch, and every scan serves both. Any other memory gets
 * a watch of its own. AUTO takes the copy (watch_shadow.c) where the kernel will not track; never
 * because memory or descriptors have run out.
 * Memory that another write watch tracks is refused. Nothing is written yet when a watch is open:
 * opening arms every page, which costs page tables (2 MiB per GiB) where nothing was touched.
 */
#include "write_watch.h"

#include <stdio.h>
#include <stdlib.h>

#define UNIT_PAGES_UNKNOWN 512u /* 2 MiB: where the kernel cannot be asked */
#define UNIT_PAGES_MAX 8192u    /* an arming scan's chunk, see pagemap.h */

typedef struct {
    char *text;
    size_t size;
} sentence;

static int refuse(const sentence *why, int rc, const char *text)
{
    snprintf(why->text, why->size, "%s", text);
    return rc;
}

/* --- the memory -------------------------------------------------------------------------------- */

static int check_memory(const dh_range *range, dh_range_facts *facts, const sentence *why)
{
    if (((uintptr_t)range->base & (DH_PAGE_BYTES - 1)) != 0 || range->pages_count == 0)
        return refuse(why, EINVAL, "whole pages of memory are watched, at least one");
    if (range->pages_count > DH_PGNO_TABLE)
        return refuse(why, DH_E_LIMIT, "at most 8 TiB can be watched at once");
    dh_range_inspect(range, facts);
    if (!facts->is_whole)
        return refuse(why, EFAULT, "a part of this memory is not mapped");
    if (!facts->is_writable)
        return refuse(why, EACCES, "a part of this memory is mapped for reading only");
    return 0;
}

static uint64_t unit_pages(const dh_range_facts *facts)
{
    return facts->is_known ? facts->page_bytes >> DH_PAGE_SHIFT : UNIT_PAGES_UNKNOWN;
}

/* --- a heap's memory --------------------------------------------------------------------------- */

static bool covers(const dh_range *whole, const dh_range *part)
{
    return part->base >= whole->base && part->base + (part->pages_count << DH_PAGE_SHIFT) <=
                                            whole->base + (whole->pages_count << DH_PAGE_SHIFT);
}

/* Does the heap's watch serve whoever asks for this technique? One that compares does not: it reads
 * the heap's committed image, under the heap's lock. */
static bool is_served(const dh_watch *heap_watch, int tracker)
{
    int id = dh_watch_tracker(heap_watch);

    return id != DH_TRACKER_COMPARE && (tracker == DH_TRACKER_AUTO || tracker == id);
}

/* The watch held becomes the new one's. */
static int share(dh_write_watch *w, dh_watch *heap_watch, const dh_range *range,
                 const sentence *why)
{
    const dh_range *whole = dh_watch_range(heap_watch);
    int rc;

    if (!covers(whole, range))
        return refuse(why, EINVAL, "a part of this memory is a heap's, and a part is not");
    w->watch = heap_watch;
    w->is_shared = true;
    w->first = (uint64_t)(range->base - whole->base) >> DH_PAGE_SHIFT;
    rc = dh_write_watch_cursor_open(w, &w->cursor);
    if (rc == DH_E_LIMIT)
        refuse(why, rc, "this heap's watch has no cursor left");
    return rc;
}

/* --- memory of anybody else -------------------------------------------------------------------- */

static void explain_begin(int number, const sentence *why)
{
    const char *text = "";

    if (number == EBUSY)
        text = ": another userfaultfd of this process tracks it, that of a library or of a heap";
    else if (number == EINVAL)
        text = ": it is memory of a kind that the kernel cannot write-protect by page";
    else if (number == EPERM)
        text = ": it shows a file that was not opened for writing";
    snprintf(why->text, why->size, "the kernel refuses to track this memory (%s)%s",
             strerror(number), text);
}

/* Begin and arm a watch that is open. */
static int start(dh_write_watch *w, const sentence *why)
{
    int rc = dh_watch_begin(w->watch);

    if (rc == DH_E_WATCH)
        explain_begin(dh_watch_begin_errno(w->watch), why);
    if (rc != 0)
        return rc;
    rc = dh_watch_arm(w->watch, w->pages_count);
    if (rc != 0) {
        snprintf(why->text, why->size, "the first scan of this memory failed (%s)",
                 rc > 0 ? strerror(rc) : dh_error_name(rc));
        dhi_explain_shortage(rc, why->text, why->size);
        return dhi_is_shortage(rc) ? rc : DH_E_WATCH;
    }
    w->cursor = dh_watch_cursor_open(w->watch);
    return w->cursor < 0 ? ENOMEM : 0;
}

/* A watch that is open becomes the new one's, or is closed. */
static int adopt(dh_write_watch *w, dh_watch *watch, const sentence *why)
{
    int rc;

    w->watch = watch;
    if (dh_watch_publish(watch, DH_WATCH_ALONE) != 0)
        rc = refuse(why, EEXIST,
                    "another watch of this process tracks some of this memory: close it, or use a "
                    "cursor of it");
    else
        rc = start(w, why);
    if (rc != 0)
        dh_watch_close(watch);
    return rc;
}

static int own(dh_write_watch *w, const dh_range *range, int tracker, const sentence *why)
{
    dh_watch *watch;
    int rc = dh_watch_open_idle(range, tracker, NULL, &watch, why->text, why->size);

    return rc != 0 ? rc : adopt(w, watch, why);
}

/* What the kernel will not do for this memory, a copy does. */
static int own_first(dh_write_watch *w, const dh_range *range, const sentence *why)
{
    int rc;

    if (w->unit_pages > UNIT_PAGES_MAX)
        rc = refuse(why, DH_E_WATCH, "its pages are too large for the kernel's tracking");
    else
        rc = own(w, range, DH_TRACKER_AUTO, why);
    if (rc == 0 || rc == EEXIST || dhi_is_shortage(rc))
        return rc;
    snprintf(w->reason, sizeof(w->reason), "%s", why->text);
    return own(w, range, DH_TRACKER_SHADOW, why);
}

static int find_watch(dh_write_watch *w, const dh_range *range, int tracker, const sentence *why)
{
    dh_watch *heap_watch = dh_watch_find(range, DH_WATCH_HEAP);

    if (heap_watch != NULL && is_served(heap_watch, tracker)) {
        int rc = share(w, heap_watch, range, why);

        if (rc != 0)
            dh_watch_drop(heap_watch);
        return rc;
    }
    if (heap_watch != NULL)
        dh_watch_drop(heap_watch);
    if (tracker == DH_TRACKER_AUTO)
        return own_first(w, range, why);
    return own(w, range, tracker, why);
}

/* --- life -------------------------------------------------------------------------------------- */

static int create(const dh_range *range, dh_write_watch **watch_out, const sentence *why)
{
    dh_range_facts facts;
    dh_write_watch *w;
    int rc = check_memory(range, &facts, why);

    if (rc != 0)
        return rc;
    w = calloc(1, sizeof(*w));
    if (w == NULL)
        return ENOMEM;
    w->sig = DHI_WRITE_WATCH_SIG;
    w->pages_count = range->pages_count;
    w->unit_pages = unit_pages(&facts);
    *watch_out = w;
    return 0;
}

/* Of a watch that was created: it has a tracker, or will not have one. */
static int settle(dh_write_watch *w, int rc, dh_write_watch **watch_out, const sentence *why)
{
    if (rc != 0) {
        free(w);
        return rc;
    }
    if (w->reason[0] == '\0')
        snprintf(w->reason, sizeof(w->reason), "%s", why->text);
    else
        snprintf(why->text, why->size, "%s", w->reason);
    *watch_out = w;
    return 0;
}

int dh_write_watch_open(uint64_t address, uint64_t pages_count, int tracker,
                        dh_write_watch **watch_out, char *why_out, size_t why_size)
{
    const dh_range range = {(uint8_t *)(uintptr_t)address, pages_count};
    const sentence why = {why_out, why_size};
    dh_write_watch *w;
    int rc;

    DH_ASSERT(why_size > 0);
    why_out[0] = '\0';
    rc = create(&range, &w, &why);
    return rc != 0 ? rc : settle(w, find_watch(w, &range, tracker, &why), watch_out, &why);
}

int dhi_write_watch_open_with(const dh_range *range, const dh_tracker *tracker,
                              const void *argument, dh_write_watch **watch_out, char *why_out,
                              size_t why_size)
{
    const sentence why = {why_out, why_size};
    dh_write_watch *w;
    dh_watch *watch;
    int rc;

    DH_ASSERT(why_size > 0);
    why_out[0] = '\0';
    rc = create(range, &w, &why);
    if (rc != 0)
        return rc;
    rc = dh_watch_open_with(range, tracker, argument, &watch, why_out, why_size);
    return settle(w, rc != 0 ? rc : adopt(w, watch, &why), watch_out, &why);
}

void dh_write_watch_close(dh_write_watch *w)
{
    if (w == NULL)
        return;
    DH_ASSERT(w->sig == DHI_WRITE_WATCH_SIG);
    w->sig = 0;
    if (w->is_shared) {
        dh_watch_cursor_close(w->watch, w->cursor);
        dh_watch_drop(w->watch);
    } else {
        dh_watch_close(w->watch);
    }
    free(w);
}

void dh_write_watch_release(dh_write_watch **watch)
{
    dh_write_watch_close(*watch);
    *watch = NULL;
}

int dh_write_watch_cursor(const dh_write_watch *w) { return w->cursor; }

int dh_write_watch_tracker(const dh_write_watch *w) { return dh_watch_tracker(w->watch); }

const char *dh_write_watch_reason(const dh_write_watch *w) { return w->reason; }

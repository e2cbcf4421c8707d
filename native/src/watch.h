/* watch.h -- who was written since when: one scan, any number of cursors.
 *
 * A tracker finds pages written since its previous scan. dh_watch_scan runs it and ORs the result
 * into every cursor, under one lock; nobody else may scan. A cursor is sticky: its pages stay until
 * its owner takes them. A commit takes its cursor into flight: pages that arrive meanwhile stay in
 * the cursor, success drops the flight, failure ORs it back.
 *
 * A page may be reported that did not change; a page that changed is never left out. When a tracker
 * cannot tell (an error in mid-scan has already re-armed pages), it reports the whole chunk.
 * Kernel rules: docs/design.md, "What the kernel does".
 */
#ifndef DH_WATCH_H
#define DH_WATCH_H

#include "bits.h"
#include "range.h"

#define DH_CURSORS_MAX 8

typedef struct dh_watch dh_watch;

/* Called for each run of reported pages, ascending, inside the range asked for. */
typedef void (*dh_watch_report)(void *context, dh_pgno first, uint64_t count);

typedef enum {
    DH_SCAN_PEEK, /* report, change nothing: the same pages are reported again */
    DH_SCAN_TAKE  /* report and re-arm in one step                             */
} dh_scan_mode;

/* A tracker: one of these tables per technique. All functions get the tracker's own state. */
typedef struct {
    int id; /* DH_TRACKER_* */
    const char *name;
    /* Prepare to track the range; on failure why_out says what the user can do. */
    int (*open)(const dh_range *range, const void *argument, void **state_out, char *why_out,
                size_t why_size);
    void (*close)(void *state);
    /* Begin. Until then memory may be mapped anew, and nothing may be asked. NULL: nothing to do. An
     * errno says why tracking is refused. */
    int (*begin)(void *state);
    /* Pages [first, first + count). Never reports less than what was written. Returns 0 or a code;
     * on a nonzero code the pages it could not vouch for have been reported already. */
    int (*scan)(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                dh_watch_report report, void *context);
    /* Forget everything written so far in [0, pages_count): they start clean. */
    int (*arm)(void *state, uint64_t pages_count);
    /* The page range shows other memory with the same bytes: go on tracking it, as not written. NULL:
     * nothing to do. */
    int (*remapped)(void *state, dh_pgno first, uint64_t count);
    /* Runs in a forked child: close descriptors, touch nothing else. Async-signal-safe. */
    void (*fork_child)(void *state);
} dh_tracker;

extern const dh_tracker dh_tracker_uffd;     /* watch_uffd.c, syscall                       */
extern const dh_tracker dh_tracker_uffd_dev; /* watch_uffd.c, device node                   */
extern const dh_tracker dh_tracker_compare;  /* watch_compare.c; argument: dh_compare_source */
extern const dh_tracker dh_tracker_shadow;   /* watch_shadow.c, a copy of the memory         */
extern const dh_tracker dh_tracker_script;   /* watch_script.c; the test says what was written */

/* What the compare tracker compares with; copied when the watch opens. same() is true when the page
 * equals its image. */
typedef struct {
    bool (*same)(void *context, dh_pgno pgno);
    void *context;
} dh_compare_source;

/* Opens the tracker asked for, or for AUTO the first that works: uffd by syscall, by device node,
 * then compare, or shadow where there is nothing to compare with (NULL). why_out (may be NULL) receives
 * why a better one was passed over. None is for want of memory or descriptors: an errno. */
int dh_watch_open(const dh_range *range, int tracker, const dh_compare_source *compare,
                  dh_watch **watch_out, char *why_out, size_t why_size);
/* The same, and nothing is tracked before dh_watch_begin: what may fail for want of a tracker fails
 * here. */
int dh_watch_open_idle(const dh_range *range, int tracker, const dh_compare_source *compare,
                       dh_watch **watch_out, char *why_out, size_t why_size);
/* The same with a tracker that no id names, which is asked nothing first. argument: what it wants. */
int dh_watch_open_with(const dh_range *range, const dh_tracker *tracker, const void *argument,
                       dh_watch **watch_out, char *why_out, size_t why_size);
/* DH_E_WATCH when the system refuses: dh_watch_begin_errno says why. */
int dh_watch_begin(dh_watch *watch);
int dh_watch_begin_errno(const dh_watch *watch);
/* Ends tracking; for those who hold it every call is refused with DH_E_CLOSED from then on. */
void dh_watch_close(dh_watch *watch);
int dh_watch_tracker(const dh_watch *watch);
const char *dh_watch_reason(const dh_watch *watch);

/* --- finding a watch by the memory it tracks (watch_list.c) ----------------------------------- */

typedef enum {
    DH_WATCH_PRIVATE, /* not to be found                                            */
    DH_WATCH_HEAP,    /* others may hold it and have cursors of their own           */
    DH_WATCH_ALONE    /* no other may track this memory by the same means           */
} dh_watch_kind;

/* Let the watch be found, once, until it is closed or withdrawn. EBUSY: kind is ALONE, and another
 * watch of this process that the kernel serves covers some of the memory, likewise. */
int dh_watch_publish(dh_watch *watch, dh_watch_kind kind);
void dh_watch_withdraw(dh_watch *watch);
/* A published watch of this process with some of the range, held until dh_watch_drop, or NULL. */
dh_watch *dh_watch_find(const dh_range *range, dh_watch_kind kind);
void dh_watch_drop(dh_watch *watch);
const dh_range *dh_watch_range(const dh_watch *watch);

/* --- cursors ---------------------------------------------------------------------------------- */

/* A new cursor starts empty. Returns its index, or a negative code when there are too many. */
int dh_watch_cursor_open(dh_watch *watch);
void dh_watch_cursor_close(dh_watch *watch, int cursor);

/* Scan [0, pages_count) and OR into all cursors. pages_out (may be NULL): pages reported. Any error
 * leaves the pages concerned in every cursor, so a commit after it loses nothing. After DH_E_WATCH
 * (somebody mapped over a piece) the next scan begins to track that piece again. */
int dh_watch_scan(dh_watch *watch, uint64_t pages_count, uint64_t *pages_out);
/* The same for pages [first, first + count) only. */
int dh_watch_scan_range(dh_watch *watch, dh_pgno first, uint64_t count);
/* How many pages the next scan would report; changes nothing. */
int dh_watch_peek(dh_watch *watch, uint64_t pages_count, dh_watch_report report, void *context);
/* Called for each run told, ascending; a nonzero code ends it: that run was not told. */
typedef int (*dh_watch_tell)(void *context, dh_pgno first, uint64_t count);
/* Which of the pages [first, limit) are written for a cursor? At most pages_max of them. */
typedef struct {
    uint64_t first;
    uint64_t limit;
    uint64_t scan_first; /* scanned for it: the same, or more where pages are huge */
    uint64_t scan_limit;
    uint64_t pages_max;
    dh_watch_tell tell;
    void *context;
} dh_watch_question;
/* Scan, tell, and take what was told out of the cursor, in one step. After a failure some pages were
 * told: dh_watch_return. */
int dh_watch_answer(dh_watch *watch, int cursor, const dh_watch_question *question);
/* The same, and nothing is changed. */
int dh_watch_look(dh_watch *watch, int cursor, const dh_watch_question *question);
/* Empty the cursor over [first, limit). */
int dh_watch_forget(dh_watch *watch, int cursor, dh_pgno first, uint64_t limit);
/* Enter pages by hand into one cursor. */
void dh_watch_return(dh_watch *watch, int cursor, dh_pgno first, uint64_t count);
/* Enter pages by hand into every cursor. */
int dh_watch_mark(dh_watch *watch, dh_pgno first, uint64_t count);
/* Move the cursor's pages [0, limit) into *into (OR) and empty the cursor. */
void dh_watch_take(dh_watch *watch, int cursor, dh_bits *into, uint64_t limit);
/* OR pages back into one cursor (a flight that failed). */
void dh_watch_put_back(dh_watch *watch, int cursor, const dh_bits *from, uint64_t limit);
/* The same for pages [first, limit) only; first is a multiple of 64. */
void dh_watch_take_part(dh_watch *watch, int cursor, dh_bits *into, uint64_t first, uint64_t limit);
void dh_watch_put_back_part(dh_watch *watch, int cursor, const dh_bits *from, uint64_t first,
                            uint64_t limit);
/* How many of the pages [0, limit) are in the cursor. */
uint64_t dh_watch_count(dh_watch *watch, int cursor, uint64_t limit);
/* Whether a page is in the cursor; true in a forked child, where nobody can tell. */
bool dh_watch_has(dh_watch *watch, int cursor, dh_pgno pgno);
/* OR the cursor's pages into *into and keep them. */
void dh_watch_copy(dh_watch *watch, int cursor, dh_bits *into, uint64_t limit);
/* The memory now in the range is the committed one: start clean, all cursors empty. */
int dh_watch_arm(dh_watch *watch, uint64_t pages_count);
/* See the tracker's remapped. After a failure the pages count as written. */
int dh_watch_remapped(dh_watch *watch, dh_pgno first, uint64_t count);
bool dh_watch_is_forked(const dh_watch *watch);

/* Tests drive the script tracker with this. */
void dh_script_write(dh_watch *watch, dh_pgno first, uint64_t count);

#endif

/* watch_state.h -- the inside of a watch. Only watch*.c that are no trackers look at it, and the
 * script tracker. */
#ifndef DH_WATCH_STATE_H
#define DH_WATCH_STATE_H

#include <pthread.h>
#include <sys/types.h>

#include "forkguard.h"
#include "watch.h"

#define DHI_WATCH_SIG 0x4843544157594c44u /* "DLYWATCH" in a hex dump */

/* capacity_pages == bits_count of every open cursor. */
struct dh_watch {
    uint64_t sig;
    const dh_tracker *tracker; /* set with state                                     */
    void *state;               /* the tracker's; NULL until it is open, and closed   */
    dh_range range;
    uint64_t capacity_pages; /* == range.pages_count                               */
    pid_t owner;             /* the process that opened it                         */
    volatile int is_forked;  /* set in a child, which must not wait for the lock   */
    pthread_mutex_t lock;    /* guards the tracker's scan and all cursors          */
    dh_bits cursors[DH_CURSORS_MAX];
    bool is_open[DH_CURSORS_MAX];
    int open_count;  /* of cursors */
    dh_bits looked;  /* pages that a look gathers; empty in between                */
    bool is_torn;    /* a piece of the range lost its tracking: begin again        */
    int begin_errno; /* what the system said when tracking could not begin         */
    dh_fork_guard *guard;
    /* Below: guarded by dh_fork_guard_hold, see watch_list.c. */
    uint32_t holders_count; /* who opened it counts as one                              */
    dh_watch_kind kind;
    dh_watch *listed_next;
    char reason[512];
};

/* Lock; false, and no lock, in a forked child and when the watch is closed: dhi_watch_refusal. */
bool dhi_watch_enter(dh_watch *watch);
void dhi_watch_leave(dh_watch *watch);
int dhi_watch_refusal(const dh_watch *watch);
/* Lock held. */
dh_bits *dhi_watch_cursor(dh_watch *watch, int cursor);
/* Lock held. Begin anew when a piece lost its tracking. */
int dhi_watch_mend(dh_watch *watch);
/* Ask the tracker, and remember what it no longer tracks. Lock held. */
int dhi_watch_ask(dh_watch *watch, dh_pgno first, uint64_t count, dh_scan_mode mode,
                  dh_watch_report report, void *context);
/* Lock held. Scan and merge into every cursor. */
int dhi_watch_merge(dh_watch *watch, dh_pgno first, uint64_t count, uint64_t *pages_out);
/* The last holder is gone: free the memory. */
void dhi_watch_free(dh_watch *watch);

#endif

/* cycle.h -- a full collection in steps: marking beside the mutator, a short last stop, sweeping in
 * slices.
 *
 *   idle -- begin --> MARKING -- finish --> SWEEPING -- the last slice --> idle
 *                        |  drop: rollback, restore, a collection in one stop, a full arena, close
 *                        v
 *                      idle
 *
 * While it marks, cells that are freed stay allocated (their frees wait), so that no page changes its
 * owner under the marker; new cells are white: unmarked, and found through what refers to them. While
 * it sweeps, a page whose turn has not come is settled before anything else happens to it.
 *
 * begin, finish, sweep and drop need the heap lock and stop the world; mark needs neither and may run
 * in any one thread. The lock of the cycle is held for one slice of marking at most.
 */
#ifndef DH_CYCLE_H
#define DH_CYCLE_H

#include <pthread.h>

#include "mark.h"

typedef enum { DHI_CYCLE_IDLE, DHI_CYCLE_MARKING, DHI_CYCLE_SWEEPING } dhi_cycle_phase;

typedef struct dh_cycle {
    pthread_mutex_t lock;
    dh_page_bits *bits; /* the marks                                                      */
    dh_mark mark;
    dh_bits taken;   /* pages that left the collector's cursor: where a drop puts them back  */
    dh_bits written; /* pages of the round under way                                     */
    dh_bits unswept; /* pages to be settled: world lock                                  */
    uint64_t written_at, written_count, swept_at;
    bool is_last_round; /* the set does not shrink any more                                    */
    dh_off *frees;      /* cells freed while it marks: world lock                         */
    size_t frees_count, frees_room;
    dh_collect_stats stats;
} dh_cycle;

int dhi_cycle_init(dh_heap *heap);
/* Waits for the slice of marking under way; not in a forked child. */
void dhi_cycle_finish(dh_heap *heap);

/* --- what others ask; all but halt where heap->cycle_phase says so ------------------------------ */

/* End the cycle here, world stopped: dropped while it marks, completed while it sweeps. */
void dhi_cycle_leave(dh_heap *heap);
/* Between them nothing is marked (T8), world stopped: waits for the slice of marking under way. */
void dhi_cycle_halt(dh_heap *heap);
void dhi_cycle_go_on(dh_heap *heap);
/* A cell is freed while the cycle marks. */
void dhi_cycle_defer_free(dh_heap *heap, dh_off off);
/* The page is about to be allocated from, or freed on. */
void dhi_cycle_settle_page(dh_heap *heap, dh_pgno pgno);
/* The pages have a new owner, or none. */
void dhi_cycle_forget_pages(dh_heap *heap, dh_pgno first, uint64_t count);
/* Whether a cell whose page was not settled yet is to stay. */
bool dhi_cycle_keeps(const dh_heap *heap, dh_off off);

#endif

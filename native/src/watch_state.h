/* watch_state.h -- the inside of a watch. Only watch.c and watch_script.c look at it. */
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
    void *state;               /* the tracker's; NULL until it is open               */
    uint64_t capacity_pages;   /* of the range                                       */
    pid_t owner;               /* the process that opened it                         */
    volatile int is_forked;    /* set in a child, which must not wait for the lock   */
    pthread_mutex_t lock;      /* guards the tracker's scan and all cursors          */
    dh_bits cursors[DH_CURSORS_MAX];
    bool is_open[DH_CURSORS_MAX];
    bool is_torn; /* a piece of the range lost its tracking: begin again */
    dh_fork_guard *guard;
    char reason[512];
};

#endif

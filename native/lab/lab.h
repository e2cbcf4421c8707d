/* lab.h -- the laboratory: older ways to learn which pages were written, beside those of heaps.
 *
 * Each technique is a dh_tracker table (watch.h) in a file of its own, which opens with what it is
 * for, what it cannot see and what it breaks. They are here to be measured and compared under one
 * contract. src/ must never include this folder: so no heap can come to depend on one of them.
 */
#ifndef DH_LAB_H
#define DH_LAB_H

#include <signal.h>

#include "../src/watch.h"

/* Trackers' ids beyond those that a heap may name (DH_TRACKER_*). */
enum {
    DHL_TRACKER_HASH = 100,
    DHL_TRACKER_SOFT_DIRTY = 101,
    DHL_TRACKER_MPROTECT = 102,
    DHL_TRACKER_UFFD_SYNC = 103,
    DHL_TRACKER_FORK = 104
};

extern const dh_tracker dhl_tracker_hash;       /* lab_hash.c      */
extern const dh_tracker dhl_tracker_soft_dirty; /* lab_soft_dirty.c */
extern const dh_tracker dhl_tracker_mprotect;   /* lab_mprotect.c  */
extern const dh_tracker dhl_tracker_uffd_sync;  /* lab_uffd_sync.c */
extern const dh_tracker dhl_tracker_fork;       /* lab_fork.c      */

/* What each says of itself; lab.c lists them. */
extern const dh_lab_technique dhl_about_hash;
extern const dh_lab_technique dhl_about_soft_dirty;
extern const dh_lab_technique dhl_about_mprotect;
extern const dh_lab_technique dhl_about_uffd_sync;
extern const dh_lab_technique dhl_about_fork;

/* The tracker of a technique of the list, NULL beyond its end. */
const dh_tracker *dhl_tracker_at(size_t index);
/* Its index, or -1. */
int dhl_technique_find(const char *name);

/* --- what techniques share: lab_pages.c ------------------------------------------------------- */

/* The memory that a watch is about, whose it is, and what was written. */
typedef struct {
    uint8_t *base;
    uint64_t count;
    pid_t owner;     /* the process that opened the watch                   */
    dh_bits written; /* and not taken; all of them until they are armed     */
} dhl_pages;

int dhl_pages_init(dhl_pages *pages, const dh_range *range);
void dhl_pages_finish(dhl_pages *pages);
/* False in a forked child. */
bool dhl_pages_are_ours(const dhl_pages *pages);

/* The set pages of [first, limit) as ascending runs, numbered from shift on. report may be NULL. */
void dhl_report(const dh_bits *pages, uint64_t first, uint64_t limit, uint64_t shift,
                dh_watch_report report, void *context);

/* Scanning under a lock that first stores wait for: in chunks, each told when the lock is free. */
#define DHL_CHUNK_PAGES 8192u
/* Takes the technique's lock, fills chunk with the written pages of [first, first + count), the
 * first being number 0, and takes them in that mode. After an error chunk is told all the same. */
typedef int (*dhl_chunk_scan)(void *state, dh_bits *chunk, uint64_t first, uint64_t count,
                              dh_scan_mode mode);
/* All chunks of [first, first + count), whatever fails; 0 or the first error. */
int dhl_scan_in_chunks(void *state, dhl_chunk_scan scan, dh_bits *chunk, dh_pgno first,
                       uint64_t count, dh_scan_mode mode, dh_watch_report report, void *context);
/* For dhl_chunk_scan: copies that part of written. The number behind the last page, 0: none. */
uint64_t dhl_chunk_copy(dh_bits *chunk, const dh_bits *written, uint64_t first, uint64_t count);

/* No handler runs in this thread until the mask is set back. */
void dhl_signals_block(sigset_t *mask_out);
void dhl_signals_unblock(const sigset_t *mask);
/* Unless it is closed (-1), which it is afterwards. */
void dhl_close(int *fd);

/* --- lab_memory.c ------------------------------------------------------------------------------ */

/* What kind of memory a range is. */
typedef struct {
    bool is_shared;     /* some of it: MAP_SHARED                      */
    bool is_unwritable; /* some of it                                  */
    bool is_executable; /* some of it                                  */
    bool has_hole;      /* not mapped everywhere                       */
} dhl_memory;
/* By /proc/self/maps, so true only until somebody maps or protects again. 0 or an errno. */
int dhl_memory_read(const dh_range *range, dhl_memory *memory_out);

#endif

/* lab.h -- the laboratory: older ways to learn which pages were written, beside those of heaps.
 *
 * Each technique is a dh_tracker table (watch.h) in a file of its own, which opens with what it is
 * for, what it cannot see and what it breaks. They are here to be measured and compared under one
 * contract. src/ must never include this folder: so no heap can come to depend on one of them.
 */
#ifndef DH_LAB_H
#define DH_LAB_H

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

/* The set pages of [first, limit) as ascending runs, numbered from shift on. report may be NULL. */
void dhl_report(const dh_bits *pages, uint64_t first, uint64_t limit, uint64_t shift,
                dh_watch_report report, void *context);

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

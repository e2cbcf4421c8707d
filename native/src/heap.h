/* heap.h -- the heap object: who owns which part, and how a word is followed.
 *
 * Arrows: containers -> alloc -> arena; commit -> image, table, watch; nothing points back.
 */
#ifndef DH_HEAP_H
#define DH_HEAP_H

#include "alloc.h"
#include "alloc_state.h"
#include "forkguard.h"
#include "handles.h"
#include "image.h"
#include "table.h"
#include "watch.h"
#include "word.h"

#define DH_HEAP_SIG 0x5041454859545244u /* "DRTYHEAP" in a hex dump */

typedef enum { DH_LOADING, DH_RUNNING, DH_CLOSED } dh_heap_phase;

struct dh_heap {
    uint64_t sig;
    dh_heap_phase phase;
    volatile int is_forked; /* set by the fork guard in a child                       */
    volatile int is_gated;  /* stores must ask dhi_store_gate_slow, see gate.h         */
    bool is_read_only;
    dh_arena arena;
    dh_alloc alloc; /* world lock                                             */
    dh_table table; /* heap lock                                              */
    dh_image image; /* heap lock                                              */
    dh_watch *watch;
    int commit_cursor;
    int collect_cursor;
    dh_fork_guard *guard;
    int guarded_fd;     /* -1 or a descriptor closed in a child                   */
    dh_handles handles; /* world lock                                             */
    uint64_t hash_key[2];
    dh_word root;
    uint64_t serial_next;   /* never goes back, not even in a rollback: world lock    */
    uint64_t shows_count;   /* times that another state was shown: places kept from before end */
    uint64_t moves_count;   /* times that elements of some list may have moved, see list.h */
    uint64_t exports_count; /* exported buffers, world lock                           */
    uint64_t frees_count;   /* collections and rollbacks: cells may have gone, world lock */
    dh_state committed;     /* as of the last commit                                  */
    dh_world world;
    dh_capture *spare;        /* buffers of the last capture, kept for the next         */
    dh_capture *in_flight;    /* of the commit under way, until done or failed       */
    struct dh_proof *proof;   /* proof mode: hashes of all pages (proof.h), or NULL */
    struct dh_fold *fold;     /* under way (fold.h), or NULL: heap lock                  */
    struct dh_cycle *cycle;   /* a collection in steps (cycle.h)                     */
    int cycle_phase;          /* dhi_cycle_phase; changed with the world stopped     */
    int dirty_source;         /* DH_DIRTY_*, of young collections and cycles         */
    struct dh_lazy *lazy;     /* what was not brought in yet (lazy.h), or NULL       */
    dh_bits private_pages;    /* of the arena: written since its file was mapped; world lock */
    int base_fd;              /* the directory of base files, or -1                  */
    struct dh_shapes *shapes; /* the table of shapes (dict_shape.c), or NULL: world lock */
    dh_capture *empty;        /* before the first commit: the heap as it was made       */
    char error_text[256];
    char tracker_reason[512];
};

static inline void dhi_world_stop(const dh_heap *heap)
{
    if (heap->world.stop)
        heap->world.stop(heap->world.context);
}
static inline void dhi_world_resume(const dh_heap *heap)
{
    if (heap->world.resume)
        heap->world.resume(heap->world.context);
}

/* Address of an offset that is known to be right. */
static inline void *dh_at(const dh_heap *heap, dh_off off) { return heap->arena.base + off; }

/* dh_deref where nothing is known to be: NULL unless the page has not been brought in yet. */
void *dhi_deref_lazily(const dh_heap *heap, dh_word w, dh_type type, size_t need);
/* Bytes of the cells of a page, or of a run's first page; 0: none. Brings the page in. */
size_t dhi_kind_bytes_lazily(const dh_heap *heap, uint64_t pgno);

/* Follow a word that comes from the arena, and so perhaps from a damaged file. NULL unless it is a
 * ref of that type to a page that holds cells or a run, with room for need bytes (<= one page).
 * Never leaves the arena. */
static inline void *dh_deref(const dh_heap *heap, dh_word w, dh_type type, size_t need)
{
    dh_off off = dh_ref_off(w);
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    if (DH_UNLIKELY(!dh_is_ref_to(w, type) || pgno >= heap->arena.hwm_pages))
        return NULL;
    size_t bytes = dh_kind_bytes[heap->alloc.kind[pgno]];
    if (DH_UNLIKELY(bytes < need || (off & (DH_GRANULE_BYTES - 1)) != 0 ||
                    (off & (DH_PAGE_BYTES - 1)) + need > DH_PAGE_BYTES))
        return bytes == 0 ? dhi_deref_lazily(heap, w, type, need) : NULL;
    return heap->arena.base + off;
}

/* Tests take it back. */
void dhi_heap_set_read_only(dh_heap *heap, bool is_read_only);
void dhi_shapes_free(dh_heap *heap);
/* The end of a closed heap, when no view is left. */
void dhi_heap_free_arena(dh_heap *heap);

/* The next identity number. */
static inline uint64_t dhi_serial_next(dh_heap *heap) { return heap->serial_next++; }

#endif

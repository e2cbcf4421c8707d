/* heap.c -- open and close: putting the parts together and taking them apart.
 *
 * Must never touch the store; what a heap holds comes through load.c. A closed heap whose memory
 * is still exported keeps its arena, and nothing else, until the last view goes.
 */
#include <stdlib.h>
#include <unistd.h>

#include "buffer.h"
#include "capture.h"
#include "cycle.h"
#include "dict.h"
#include "fold.h"
#include "gate.h"
#include "lazy.h"
#include "precopy.h"
#include "proof.h"

#define CAPACITY_BYTES_MAX ((uint64_t)1 << 42) /* 4 TiB: page numbers have 31 bits, with room */
#define CAPACITY_BYTES_MIN ((uint64_t)1 << 20)

/* While a commit is under way its staged files are what was taken last. */
static bool page_is_image(void *context, dh_pgno pgno)
{
    const dh_heap *heap = context;
    const uint8_t *staged = heap->in_flight ? dhi_staged_page(heap->in_flight, pgno) : NULL;
    if (staged == NULL)
        return dh_image_same(heap, pgno);
    return memcmp(staged, dh_arena_page(&heap->arena, pgno), DH_PAGE_BYTES) == 0;
}

/* Async-signal-safe: the child may have been forked from any thread. */
static void fork_child(void *context)
{
    dh_heap *heap = context;
    heap->is_forked = heap->is_gated = 1;
    if (heap->guarded_fd >= 0)
        (void)close(heap->guarded_fd);
}

static int check_options(const dh_heap *heap, const dh_options *options)
{
    if (options->capacity_bytes < CAPACITY_BYTES_MIN ||
        options->capacity_bytes > CAPACITY_BYTES_MAX)
        return dhi_fail(heap, EINVAL, "capacity must be from 1 MiB to 4 TiB, not %llu bytes",
                        (unsigned long long)options->capacity_bytes);
    return 0;
}

static int open_parts(dh_heap *heap, const dh_options *options)
{
    dh_compare_source source = {page_is_image, heap};
    int rc = dh_arena_init(&heap->arena, options->capacity_bytes);
    if (rc == 0)
        rc = dh_alloc_init(&heap->alloc, heap->arena.capacity_pages);
    if (rc == 0)
        rc = dh_table_init(&heap->table, heap->arena.capacity_pages);
    if (rc == 0)
        rc = dh_image_init(&heap->image);
    if (rc == 0)
        rc = dh_bits_init(&heap->private_pages, heap->arena.capacity_pages);
    if (rc == 0)
        rc = dhi_lazy_init(heap);
    if (rc == 0)
        rc = dh_handles_init(&heap->handles);
    if (rc == ENOMEM)
        return dhi_fail(heap, rc,
                        "cannot reserve %llu bytes of address space: pass a smaller capacity=, "
                        "raise 'ulimit -v', or allow overcommit",
                        (unsigned long long)options->capacity_bytes);
    if (rc != 0)
        return rc;
    const dh_range range = dh_arena_range(&heap->arena);
    rc = dh_watch_open_idle(&range, options->tracker, &source, &heap->watch, heap->tracker_reason,
                            sizeof heap->tracker_reason);
    if (dhi_is_shortage(rc))
        return dhi_fail(heap, rc, "written pages cannot be tracked: %s", heap->tracker_reason);
    if (rc != 0)
        return dhi_fail(heap, rc, "the tracker asked for does not work here: %s",
                        heap->tracker_reason);
    heap->commit_cursor = dh_watch_cursor_open(heap->watch);
    heap->collect_cursor = dh_watch_cursor_open(heap->watch);
    if (heap->commit_cursor < 0 || heap->collect_cursor < 0)
        return ENOMEM;
    rc = dhi_cycle_init(heap);
    if (rc != 0)
        return rc;
    rc = dh_watch_publish(heap->watch, DH_WATCH_HEAP);
    DH_ASSERT(rc == 0);
    return dh_fork_guard_open(fork_child, heap, &heap->guard);
}

/* The message of a failed open must outlive the heap. */
static _Thread_local char open_error_text[256];

int dh_heap_open(const dh_options *options, dh_heap **heap_out)
{
    dh_heap *heap = calloc(1, sizeof *heap);
    int rc;

    open_error_text[0] = '\0';
    if (heap == NULL)
        return ENOMEM;
    heap->guarded_fd = heap->base_fd = -1;
    heap->is_gated = 1; /* until it is loaded */
    heap->serial_next = 1;
    memcpy(heap->hash_key, options->hash_key, sizeof heap->hash_key);
    rc = check_options(heap, options);
    if (rc == 0)
        rc = open_parts(heap, options);
    if (rc != 0) {
        memcpy(open_error_text, heap->error_text, sizeof open_error_text);
        dh_heap_close(heap);
        return rc;
    }
    heap->sig = DH_HEAP_SIG;
    *heap_out = heap;
    return 0;
}

const char *dh_heap_open_error(void) { return open_error_text; }

void dhi_heap_free_arena(dh_heap *heap)
{
    dh_arena_finish(&heap->arena);
    heap->sig = 0;
    free(heap);
}

/* Not in a forked child: a thread of the parent may have been inside a commit when the fork came,
 * and what it was about to free or to move cannot be told. The child leaves it to its exit. */
static void free_committed(dh_heap *heap)
{
    dhi_cycle_finish(heap);
    if (heap->watch != NULL)
        dh_watch_close(heap->watch);
    heap->watch = NULL;
    dhi_capture_free(heap->spare);
    dhi_capture_free(heap->in_flight); /* of a poisoned heap */
    dhi_capture_free(heap->empty);
    heap->spare = heap->empty = heap->in_flight = NULL;
    dh_fold_end(heap);
    dhi_lazy_finish(heap);
    dhi_proof_free(heap);
    dh_image_finish(&heap->image);
    dh_table_finish(&heap->table);
    dh_bits_finish(&heap->private_pages);
    if (heap->base_fd >= 0)
        (void)close(heap->base_fd);
    heap->base_fd = -1;
}

void dh_heap_close(dh_heap *heap)
{
    if (heap->guard != NULL)
        dh_fork_guard_close(heap->guard);
    heap->guard = NULL;
    dh_handles_drop_all(&heap->handles);
    dh_handles_finish(&heap->handles);
    if (!heap->is_forked)
        free_committed(heap);
    dhi_shapes_free(heap);
    heap->phase = DH_CLOSED;
    dhi_gate_update(heap);
    if (heap->exports_count > 0)
        return; /* the last dh_export_end finishes */
    dh_alloc_finish(&heap->alloc);
    dhi_heap_free_arena(heap);
}

void dh_heap_set_world(dh_heap *heap, const dh_world *world) { heap->world = *world; }
const char *dh_heap_tracker_reason(const dh_heap *heap) { return heap->tracker_reason; }

int dh_fork_guard_fd(dh_heap *heap, int fd)
{
    heap->guarded_fd = fd;
    return 0;
}

int dh_mark_dirty(dh_heap *heap, uint64_t address, uint64_t size)
{
    uint64_t base = (uint64_t)(uintptr_t)heap->arena.base;
    uint64_t limit = base + (heap->arena.hwm_pages << DH_PAGE_SHIFT);
    int rc = dhi_verb_gate(heap);

    if (rc != 0)
        return rc;
    if (address < base || address > limit || size > limit - address)
        return dhi_fail(heap, EINVAL, "the buffer does not lie in this heap");
    if (size > 0) {
        uint64_t first = (address - base) >> DH_PAGE_SHIFT;
        uint64_t last = (address + size - 1 - base) >> DH_PAGE_SHIFT;
        (void)dh_watch_mark(heap->watch, (dh_pgno)first, last - first + 1);
    }
    return 0;
}

/* A heap that was only read so far has not counted what is allocated; damage is left for the first
 * store to tell of. */
static void read_allocated(dh_heap *heap, dh_heap_stats *stats_out)
{
    if (heap->lazy == NULL) {
        stats_out->free_pages_count = heap->alloc.free_pages_count;
        stats_out->allocated_bytes = heap->alloc.allocated_bytes;
        return;
    }
    stats_out->is_lazy = 1;
    stats_out->overlay_pages_count = heap->lazy->backlog.pages_count;
    if (heap->is_forked ||
        dhi_lazy_count(heap, &stats_out->free_pages_count, &stats_out->allocated_bytes) != 0)
        heap->error_text[0] = '\0';
}

void dh_heap_stats_read(dh_heap *heap, dh_heap_stats *stats_out)
{
    memset(stats_out, 0, sizeof *stats_out);
    stats_out->tracker = dh_watch_tracker(heap->watch);
    stats_out->capacity_pages = heap->arena.capacity_pages;
    stats_out->hwm_pages = heap->arena.hwm_pages;
    stats_out->handles_count = heap->handles.live_count;
    stats_out->exports_count = heap->exports_count;
    stats_out->overlay_pages_count = heap->image.overlay_count;
    stats_out->overlay_bytes = heap->image.overlay_bytes + dhi_fold_kept_bytes(heap);
    stats_out->base_pages_count = heap->image.base_pages_count;
    if (heap->is_forked)
        return;
    dhi_world_stop(heap);
    read_allocated(heap, stats_out);
    stats_out->private_pages_count = dh_bits_count(&heap->private_pages, heap->arena.hwm_pages);
    dhi_world_resume(heap);
}

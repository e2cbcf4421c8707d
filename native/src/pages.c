/* pages.c -- runs of whole pages: taking them, giving them back, returning them to the kernel.
 *
 * Free pages are those whose kind byte is FREE, so finding one is a search for a zero byte; a floor
 * per run length keeps the search from starting over. Pages are handed out reading as zeros.
 * Must never look at what a page holds, and never lowers the high-water mark: what lies above it
 * is untouched memory.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "cycle.h"
#include "mapping.h"

/* Runs shorter than this stay with the process: a release costs microseconds a page, and the next
 * touch of a released page costs as much again. */
#define RELEASE_PAGES_MIN 16u

static unsigned log2_floor(uint64_t n) { return 63u - (unsigned)__builtin_clzll(n); }

static unsigned log2_ceil(uint64_t n) { return n <= 1 ? 0 : log2_floor(n - 1) + 1u; }

int dh_pgno_stack_grow(dh_pgno_stack *stack)
{
    size_t room = stack->room ? stack->room * 2 : 64;
    dh_pgno *items = realloc(stack->items, room * sizeof *items);
    if (items == NULL)
        return ENOMEM;
    stack->items = items;
    stack->room = room;
    return 0;
}

int dh_pgno_stack_push(dh_pgno_stack *stack, dh_pgno pgno)
{
    if (stack->count == stack->room && dh_pgno_stack_grow(stack) != 0)
        return ENOMEM;
    stack->items[stack->count++] = pgno;
    return 0;
}

/* Free for every state that may be shown again: now, in the last commit, and in the one under way,
 * whose freed pages the table still has as used. (Its own entries were taken from `changed`.) */
static bool is_untouched(const dh_heap *heap, uint64_t pgno)
{
    dh_table_entry committed;
    if (dh_bits_test(&heap->alloc.changed, pgno))
        return false;
    dh_table_read(&heap->table, (dh_pgno)pgno, &committed);
    return committed.kind == DH_KIND_FREE;
}

static uint64_t free_run_length(const dh_heap *heap, uint64_t first, uint64_t wanted,
                                bool fresh_only)
{
    const dh_alloc *alloc = &heap->alloc;
    uint64_t n = 0;
    while (n < wanted && first + n < heap->arena.hwm_pages &&
           alloc->kind[first + n] == DH_KIND_FREE &&
           !(fresh_only && !is_untouched(heap, first + n)))
        n++;
    return n;
}

/* No run of 2^j pages starts below floor[j], so none of count >= 2^j does either. */
static uint64_t search_start(const dh_alloc *alloc, uint64_t count)
{
    uint64_t start = 1;
    for (unsigned j = 0; j <= log2_floor(count); j++) {
        if (alloc->run_floor[j] > start)
            start = alloc->run_floor[j];
    }
    return start;
}

/* First free run of count pages below the mark, or 0. */
static uint64_t find_free_run(dh_heap *heap, uint64_t count, bool fresh_only)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t limit = heap->arena.hwm_pages, at = search_start(alloc, count), found = 0;

    while (at < limit) {
        const uint8_t *hit = memchr(alloc->kind + at, DH_KIND_FREE, limit - at);
        if (hit == NULL) {
            at = limit;
            break;
        }
        at = (uint64_t)(hit - alloc->kind);
        uint64_t length = free_run_length(heap, at, count, fresh_only);
        if (length == count) {
            found = at;
            break;
        }
        at += length ? length : 1;
    }
    if (!fresh_only) {
        unsigned j = log2_ceil(count);
        if (alloc->run_floor[j] < at)
            alloc->run_floor[j] = (dh_pgno)at;
    }
    return found;
}

static void make_zero(dh_heap *heap, uint64_t first, uint64_t count)
{
    for (uint64_t p = first; p < first + count; p++) {
        if (!(heap->alloc.flags[p] & DH_PAGE_ZERO))
            memset(dh_arena_page(&heap->arena, (dh_pgno)p), 0, DH_PAGE_BYTES);
        heap->alloc.flags[p] = 0;
    }
}

int dh_pages_take(dh_heap *heap, uint64_t count, bool fresh_only, dh_pgno *pgno_out)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t first = 0;

    DH_ASSERT(count > 0);
    if (alloc->free_pages_count >= count)
        first = find_free_run(heap, count, fresh_only);
    if (first != 0) {
        make_zero(heap, first, count);
        alloc->free_pages_count -= count;
    } else {
        bool is_full = count > alloc->capacity_pages - heap->arena.hwm_pages;
        if (is_full && heap->cycle_phase != DHI_CYCLE_IDLE) { /* what it holds back is needed now */
            dhi_cycle_leave(heap);
            return dh_pages_take(heap, count, fresh_only, pgno_out);
        }
        if (is_full)
            return dhi_fail(heap, DH_E_FULL,
                            "the heap is full: %llu pages more than its capacity of %llu bytes "
                            "(heap.collect() frees what is garbage; else open it with a larger "
                            "capacity=)",
                            (unsigned long long)count,
                            (unsigned long long)(alloc->capacity_pages << DH_PAGE_SHIFT));
        first = heap->arena.hwm_pages;
        DHI_SHARED_STORE(&heap->arena.hwm_pages, first + count);
    }
    if (heap->cycle_phase == DHI_CYCLE_SWEEPING)
        dhi_cycle_forget_pages(heap, (dh_pgno)first, count);
    dh_bits_set_run(&alloc->changed, first, count);
    *pgno_out = (dh_pgno)first;
    return 0;
}

bool dh_page_is_pinned(const dh_alloc *alloc, dh_pgno pgno)
{
    for (size_t i = 0; i < alloc->pins_count; i++) {
        if (pgno - alloc->pins[i].first < alloc->pins[i].pages_count)
            return true;
    }
    return false;
}

int dh_pin_add(dh_alloc *alloc, dh_pgno first, uint32_t pages_count)
{
    for (size_t i = 0; i < alloc->pins_count; i++) {
        if (alloc->pins[i].first == first) {
            alloc->pins[i].exports_count++;
            return 0;
        }
    }
    if (alloc->pins_count == alloc->pins_room) {
        size_t room = alloc->pins_room ? alloc->pins_room * 2 : 16;
        dh_pin *pins = realloc(alloc->pins, room * sizeof *pins);
        if (pins == NULL)
            return ENOMEM;
        alloc->pins = pins;
        alloc->pins_room = room;
    }
    alloc->pins[alloc->pins_count++] = (dh_pin){first, pages_count, 1};
    return 0;
}

static void lower_floors(dh_alloc *alloc, uint64_t first)
{
    /* A run that ends in these pages may begin before them, by less than the length asked for. */
    for (unsigned j = 0; j < 32; j++) {
        uint64_t reach = (uint64_t)2 << j;
        uint64_t floor = first > reach ? first - reach : 1;
        if (alloc->run_floor[j] > floor)
            alloc->run_floor[j] = (dh_pgno)floor;
    }
}

void dh_pin_remove(dh_alloc *alloc, dh_pgno first)
{
    size_t i = 0;
    while (i < alloc->pins_count && alloc->pins[i].first != first)
        i++;
    DH_ASSERT(i < alloc->pins_count);
    if (--alloc->pins[i].exports_count > 0)
        return;
    dh_pin pin = alloc->pins[i];
    uint64_t freed = 0;
    alloc->pins[i] = alloc->pins[--alloc->pins_count];
    for (uint64_t p = pin.first; p < (uint64_t)pin.first + pin.pages_count; p++) {
        if (alloc->kind[p] == DH_KIND_PINNED) {
            alloc->kind[p] = DH_KIND_FREE;
            alloc->flags[p] = 0;
            freed++;
        }
    }
    alloc->free_pages_count += freed;
    if (freed > 0)
        lower_floors(alloc, pin.first);
}

void dh_pages_give(dh_heap *heap, dh_pgno first, uint64_t count)
{
    dh_alloc *alloc = &heap->alloc;

    for (uint64_t p = first; p < (uint64_t)first + count; p++) {
        bool pinned = alloc->pins_count != 0 && dh_page_is_pinned(alloc, (dh_pgno)p);
        alloc->kind[p] = pinned ? DH_KIND_PINNED : DH_KIND_FREE;
        alloc->run[p] = 0;
        alloc->free_cells[p] = 0;
        alloc->flags[p] = 0;
        memset(&alloc->old[p], 0, sizeof alloc->old[p]);
        memset(&alloc->fresh[p], 0, sizeof alloc->fresh[p]);
        alloc->free_pages_count += pinned ? 0 : 1;
    }
    if (heap->cycle_phase == DHI_CYCLE_SWEEPING)
        dhi_cycle_forget_pages(heap, first, count);
    dh_bits_set_run(&alloc->changed, first, count);
    lower_floors(alloc, first);
}

static uint64_t release_run(dh_heap *heap, uint64_t first, uint64_t count)
{
    if (madvise(dh_arena_page(&heap->arena, (dh_pgno)first), count << DH_PAGE_SHIFT,
                MADV_DONTNEED) != 0)
        return 0;
    /* Whether the kernel reports dropped pages depends on its version: enter them by hand. */
    (void)dh_watch_mark(heap->watch, (dh_pgno)first, count);
    for (uint64_t p = first; p < first + count; p++) {
        heap->alloc.flags[p] =
            dh_is_file_backed(heap, (dh_pgno)p) ? DH_PAGE_RELEASED : DH_PAGE_ZERO;
        dh_bits_clear(&heap->private_pages, p);
    }
    return count;
}

uint64_t dh_pages_release(dh_heap *heap, uint64_t pages_max)
{
    const dh_alloc *alloc = &heap->alloc;
    uint64_t limit = heap->arena.hwm_pages, released = 0, at = 1;

    while (at < limit && released < pages_max) {
        const uint8_t *hit = memchr(alloc->kind + at, DH_KIND_FREE, limit - at);
        if (hit == NULL)
            break;
        uint64_t first = (uint64_t)(hit - alloc->kind), end = first;
        while (end < limit && alloc->kind[end] == DH_KIND_FREE &&
               !(alloc->flags[end] & (DH_PAGE_ZERO | DH_PAGE_RELEASED)))
            end++;
        if (end - first >= RELEASE_PAGES_MIN)
            released += release_run(heap, first, end - first);
        at = end + 1;
    }
    return released;
}

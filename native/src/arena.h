/* arena.h -- the reserved, contiguous address range that holds one heap.
 *
 * Pages [0, hwm_pages) have been handed out at some time; beyond lies untouched, unarmed memory.
 * Page 0 is never an object, so offset 0 is never a ref. The range is never moved or remapped.
 */
#ifndef DH_ARENA_H
#define DH_ARENA_H

#include "range.h"

typedef struct {
    uint8_t *base;
    uint64_t capacity_pages;
    uint64_t hwm_pages; /* high-water mark, at least 1; guarded by the world lock */
} dh_arena;

/* Zeroed, lazily committed address space; MADV_NOHUGEPAGE. */
int dh_reserve(uint64_t bytes, void **base_out);
void dh_unreserve(void *base, uint64_t bytes);

int dh_arena_init(dh_arena *arena, uint64_t capacity_bytes);
void dh_arena_finish(dh_arena *arena);

static inline uint8_t *dh_arena_page(const dh_arena *arena, dh_pgno pgno)
{
    return arena->base + ((uint64_t)pgno << DH_PAGE_SHIFT);
}

/* All of it, handed out or not. */
static inline dh_range dh_arena_range(const dh_arena *arena)
{
    return (dh_range){.base = arena->base, .pages_count = arena->capacity_pages};
}

#endif

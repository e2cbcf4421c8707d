/* sweep.c -- a page after a collection.
 *
 * Contract: sweep.h. No cell is visited: marks become the allocation bits, whole words of them, so
 * freeing costs nothing per cell. Must never touch the arena: what was freed reaches the next commit
 * through the changed entries.
 */
#include "sweep.h"

static uint64_t bits_count(const dh_page_bits *a)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        n += (uint64_t)__builtin_popcountll(a->bits[i]);
    return n;
}

static void keep_marked(dh_alloc *alloc, dh_pgno pgno, const dh_page_bits *live)
{
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++) {
        DHI_SHARED_STORE(&alloc->old[pgno].bits[i], live->bits[i]);
        DHI_SHARED_STORE(&alloc->fresh[pgno].bits[i], 0);
    }
}

static void sweep_cells(dh_heap *heap, dh_pgno pgno, const dh_page_bits *live,
                        dh_collect_stats *stats)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t freed = 0, live_count = bits_count(live);

    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        freed += (uint64_t)__builtin_popcountll(
            (alloc->old[pgno].bits[i] | alloc->fresh[pgno].bits[i]) & ~live->bits[i]);
    stats->live_cells_count += live_count;
    if (freed == 0 && live_count != 0) {
        keep_marked(alloc, pgno, live);
        return;
    }
    stats->freed_cells_count += freed;
    stats->freed_bytes += freed * dh_kind_bytes[alloc->kind[pgno]];
    dh_alloc_count_page(heap, pgno, false);
    if (live_count == 0) {
        dh_pages_give(heap, pgno, 1);
        stats->freed_pages_count++;
        return;
    }
    keep_marked(alloc, pgno, live);
    dh_bits_set(&alloc->changed, pgno);
    dh_alloc_count_page(heap, pgno, true);
    dh_alloc_list_page(heap, pgno);
}

static uint64_t sweep_run(dh_heap *heap, dh_pgno pgno, const dh_page_bits *live,
                          dh_collect_stats *stats)
{
    dh_alloc *alloc = &heap->alloc;
    uint32_t pages = alloc->run[pgno];

    if (live->bits[0] & 1u) {
        const dh_page_bits head = {{1}};
        keep_marked(alloc, pgno, &head);
        stats->live_cells_count++;
        return pages;
    }
    stats->freed_cells_count++;
    stats->freed_bytes += (uint64_t)pages << DH_PAGE_SHIFT;
    stats->freed_pages_count += pages;
    dh_alloc_count_page(heap, pgno, false);
    dh_pages_give(heap, pgno, pages);
    return pages;
}

uint64_t dhi_sweep_page(dh_heap *heap, dh_pgno pgno, const dh_page_bits *live,
                        dh_collect_stats *stats)
{
    unsigned kind = heap->alloc.kind[pgno];

    if (kind == DH_KIND_RUN_REFS || kind == DH_KIND_RUN_RAW)
        return sweep_run(heap, pgno, &live[pgno], stats);
    if (kind >= DH_KIND_CELLS)
        sweep_cells(heap, pgno, &live[pgno], stats);
    return 1;
}

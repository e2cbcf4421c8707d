/* alloc.c -- cells of a size class; the policy of where a new one goes.
 *
 * Contract: alloc.h. Must never store anything in the arena but zeros in a new cell: all state
 * lies outside, so that freeing and collecting dirty nothing (docs/design.md, "Allocation").
 */
#include <stdlib.h>

#include "cycle.h"

static const uint16_t class_bytes[DH_CLASSES_COUNT] = {16,  32,  48,  64,   80,   96,  112, 128,
                                                       160, 192, 224, 256,  320,  384, 448, 512,
                                                       576, 672, 816, 1024, 1360, 2048};
static uint8_t class_of_granules[DH_CELL_BYTES_MAX / DH_GRANULE_BYTES + 1];
dh_page_bits dh_class_starts[DH_CLASSES_COUNT];

const uint16_t dh_kind_bytes[256] = {
    [DH_KIND_RUN_REFS] = DH_PAGE_BYTES,
    [DH_KIND_RUN_RAW] = DH_PAGE_BYTES,
#define PAIR(i, bytes) [DH_KIND_CELLS + 2 * (i)] = (bytes), [DH_KIND_CELLS + 2 * (i) + 1] = (bytes)
    PAIR(0, 16),
    PAIR(1, 32),
    PAIR(2, 48),
    PAIR(3, 64),
    PAIR(4, 80),
    PAIR(5, 96),
    PAIR(6, 112),
    PAIR(7, 128),
    PAIR(8, 160),
    PAIR(9, 192),
    PAIR(10, 224),
    PAIR(11, 256),
    PAIR(12, 320),
    PAIR(13, 384),
    PAIR(14, 448),
    PAIR(15, 512),
    PAIR(16, 576),
    PAIR(17, 672),
    PAIR(18, 816),
    PAIR(19, 1024),
    PAIR(20, 1360),
    PAIR(21, 2048),
#undef PAIR
};

__attribute__((constructor)) static void classes_init(void)
{
    unsigned class = 0;
    for (unsigned granules = 0; granules <= DH_CELL_BYTES_MAX / DH_GRANULE_BYTES; granules++) {
        while (class_bytes[class] < granules * DH_GRANULE_BYTES)
            class++;
        class_of_granules[granules] = (uint8_t)class;
    }
    for (class = 0; class < DH_CLASSES_COUNT; class++) {
        unsigned bytes = class_bytes[class];
        for (unsigned at = 0; at + bytes <= DH_PAGE_BYTES; at += bytes) {
            unsigned granule = at / DH_GRANULE_BYTES;
            dh_class_starts[class].bits[granule / 64] |= (uint64_t)1 << (granule % 64);
        }
    }
}

static unsigned class_of(size_t bytes)
{
    return class_of_granules[(bytes + DH_GRANULE_BYTES - 1) / DH_GRANULE_BYTES];
}

static bool is_cells(unsigned kind) { return kind >= DH_KIND_CELLS; }
static bool is_run(unsigned kind) { return kind == DH_KIND_RUN_REFS || kind == DH_KIND_RUN_RAW; }

uint32_t dh_class_cells(unsigned kind) { return DH_PAGE_BYTES / dh_kind_bytes[kind]; }

size_t dh_cell_round(size_t bytes)
{
    if (bytes <= DH_CELL_BYTES_MAX)
        return class_bytes[class_of(bytes)];
    return (bytes + DH_PAGE_BYTES - 1) & ~(size_t)(DH_PAGE_BYTES - 1);
}

int dh_alloc_init(dh_alloc *alloc, uint64_t capacity_pages)
{
    struct {
        void **at;
        size_t item_bytes;
    } parts[] = {{(void **)&alloc->kind, 1},
                 {(void **)&alloc->run, sizeof *alloc->run},
                 {(void **)&alloc->old, sizeof *alloc->old},
                 {(void **)&alloc->fresh, sizeof *alloc->fresh},
                 {(void **)&alloc->free_cells, sizeof *alloc->free_cells},
                 {(void **)&alloc->flags, 1}};
    int rc;

    memset(alloc, 0, sizeof *alloc);
    alloc->capacity_pages = capacity_pages;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        rc = dh_reserve(capacity_pages * parts[i].item_bytes, parts[i].at);
        if (rc != 0)
            goto fail;
    }
    rc = dh_bits_init(&alloc->changed, capacity_pages);
    if (rc == 0)
        rc = dh_bits_init(&alloc->fresh_pages, capacity_pages);
    if (rc != 0)
        goto fail;
    alloc->kind[0] = DH_KIND_RESERVED;
    return 0;

fail:
    dh_alloc_finish(alloc);
    return rc;
}

void dh_alloc_finish(dh_alloc *alloc)
{
    uint64_t n = alloc->capacity_pages;
    dh_unreserve(alloc->kind, n);
    dh_unreserve(alloc->run, n * sizeof *alloc->run);
    dh_unreserve(alloc->old, n * sizeof *alloc->old);
    dh_unreserve(alloc->fresh, n * sizeof *alloc->fresh);
    dh_unreserve(alloc->free_cells, n * sizeof *alloc->free_cells);
    dh_unreserve(alloc->flags, n);
    dh_bits_finish(&alloc->changed);
    dh_bits_finish(&alloc->fresh_pages);
    for (size_t i = 0; i < DH_CLASSES_COUNT * 2; i++) {
        free(alloc->cursors[i].hot.items);
        free(alloc->cursors[i].partial.items);
    }
    free(alloc->journal);
    free(alloc->pins);
    memset(alloc, 0, sizeof *alloc);
}

/* --- a page as a whole --------------------------------------------------------------------------- */

static dh_class_cursor *cursor_of(dh_alloc *alloc, unsigned kind)
{
    return &alloc->cursors[kind - DH_KIND_CELLS];
}

/* Drop entries that are out of date or double, which pages that come and go leave behind. */
static void compact_stack(dh_alloc *alloc, dh_pgno_stack *stack, unsigned kind)
{
    size_t kept = 0;

    for (size_t i = 0; i < stack->count; i++) {
        dh_pgno pgno = stack->items[i];
        if (alloc->kind[pgno] != kind || !(alloc->flags[pgno] & DH_PAGE_LISTED))
            continue;
        alloc->flags[pgno] &= (uint8_t)~DH_PAGE_LISTED;
        stack->items[kept++] = pgno;
    }
    for (size_t i = 0; i < kept; i++)
        alloc->flags[stack->items[i]] |= DH_PAGE_LISTED;
    stack->count = kept;
}

/* So that no stack has room for more than four times the pages of its class; half of it is free
 * after a compaction, which so pays for itself. */
static int push_page(dh_alloc *alloc, dh_pgno_stack *stack, unsigned kind, dh_pgno pgno)
{
    if (stack->count == stack->room && stack->count > 0) {
        compact_stack(alloc, stack, kind);
        if (stack->count > stack->room / 2)
            (void)dh_pgno_stack_grow(stack); /* else it is compacted again sooner */
    }
    return dh_pgno_stack_push(stack, pgno);
}

/* Put a page with room where its class will find it; without memory it waits for the next count. */
static void list_page(dh_alloc *alloc, dh_pgno pgno)
{
    dh_class_cursor *cursor = cursor_of(alloc, alloc->kind[pgno]);
    dh_pgno_stack *stack = alloc->flags[pgno] & DH_PAGE_HOT ? &cursor->hot : &cursor->partial;

    if (alloc->flags[pgno] & DH_PAGE_LISTED || alloc->free_cells[pgno] == 0)
        return;
    if (push_page(alloc, stack, alloc->kind[pgno], pgno) == 0)
        alloc->flags[pgno] |= DH_PAGE_LISTED;
}

void dh_alloc_count_page(dh_heap *heap, dh_pgno pgno, bool add)
{
    dh_alloc *alloc = &heap->alloc;
    unsigned kind = alloc->kind[pgno];
    uint64_t sign = add ? 1 : (uint64_t)-1;

    if (kind == DH_KIND_FREE) {
        alloc->free_pages_count += sign;
    } else if (is_run(kind)) {
        alloc->allocated_bytes += sign * ((uint64_t)alloc->run[pgno] << DH_PAGE_SHIFT);
    } else if (is_cells(kind)) {
        uint64_t cells = dh_class_cells(kind), used = 0;
        for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
            used += (uint64_t)__builtin_popcountll(alloc->old[pgno].bits[i] |
                                                   alloc->fresh[pgno].bits[i]);
        alloc->free_cells[pgno] = (uint16_t)(cells - used);
        cursor_of(alloc, kind)->cells_count += sign * cells;
        cursor_of(alloc, kind)->free_count += sign * (cells - used);
        alloc->allocated_bytes += sign * used * dh_kind_bytes[kind];
    }
}

void dh_alloc_list_page(dh_heap *heap, dh_pgno pgno)
{
    if (is_cells(heap->alloc.kind[pgno]))
        list_page(&heap->alloc, pgno);
}

void dh_alloc_drop_cursors(dh_heap *heap)
{
    for (size_t i = 0; i < DH_CLASSES_COUNT * 2; i++) {
        heap->alloc.cursors[i].pgno = 0;
        heap->alloc.cursors[i].free_bits = 0;
    }
}

static void park_cursor(dh_alloc *alloc, dh_class_cursor *cursor)
{
    dh_pgno pgno = cursor->pgno, before = cursor->resume;

    cursor->pgno = 0;
    cursor->free_bits = 0;
    if (pgno == 0 || alloc->free_cells[pgno] == 0 || alloc->flags[pgno] & DH_PAGE_LISTED)
        return;
    cursor->resume = pgno;
    alloc->flags[pgno] |= DH_PAGE_LISTED;
    if (before != 0 && alloc->kind[before] == alloc->kind[pgno])
        (void)push_page(alloc, &cursor->partial, alloc->kind[pgno],
                        before); /* checked when popped */
}

void dh_alloc_park_cursors(dh_heap *heap)
{
    for (size_t i = 0; i < DH_CLASSES_COUNT * 2; i++)
        park_cursor(&heap->alloc, &heap->alloc.cursors[i]);
}

void dh_alloc_cool(dh_heap *heap, const dh_bits *pages, uint64_t limit)
{
    dh_alloc *alloc = &heap->alloc;

    dh_alloc_park_cursors(heap);
    for (uint64_t p = dh_bits_next(pages, 0, limit); p < limit;
         p = dh_bits_next(pages, p + 1, limit))
        alloc->flags[p] &= (uint8_t)~DH_PAGE_HOT;
    for (size_t i = 0; i < DH_CLASSES_COUNT * 2; i++) {
        dh_pgno_stack *hot = &alloc->cursors[i].hot;
        while (hot->count > 0) {
            dh_pgno pgno = hot->items[--hot->count];
            if (alloc->kind[pgno] != DH_KIND_CELLS + i || !(alloc->flags[pgno] & DH_PAGE_LISTED))
                continue;
            alloc->flags[pgno] &= (uint8_t)~(DH_PAGE_LISTED | DH_PAGE_HOT);
            list_page(alloc, pgno);
        }
    }
}

int dh_alloc_rebuild(dh_heap *heap)
{
    dh_alloc *alloc = &heap->alloc;

    alloc->free_pages_count = alloc->allocated_bytes = 0;
    memset(alloc->run_floor, 0, sizeof alloc->run_floor);
    for (size_t i = 0; i < DH_CLASSES_COUNT * 2; i++) {
        dh_class_cursor *cursor = &alloc->cursors[i];
        cursor->pgno = cursor->resume = 0;
        cursor->free_bits = cursor->cells_count = cursor->free_count = 0;
        cursor->hot.count = cursor->partial.count = 0;
    }
    for (uint64_t p = 1; p < heap->arena.hwm_pages; p++) {
        if (alloc->flags[p] != 0)
            alloc->flags[p] &= DH_PAGE_ZERO;
        dh_alloc_count_page(heap, (dh_pgno)p, true);
        dh_alloc_list_page(heap, (dh_pgno)p);
    }
    return 0;
}

/* --- cells ---------------------------------------------------------------------------------------- */

static uint64_t free_starts(const dh_alloc *alloc, dh_pgno pgno, unsigned class, uint32_t word)
{
    return dh_class_starts[class].bits[word] &
           ~(alloc->old[pgno].bits[word] | alloc->fresh[pgno].bits[word]);
}

/* A listed page may have changed its owner or filled up since. */
static bool claim_page(dh_alloc *alloc, dh_pgno pgno, unsigned kind)
{
    if (alloc->kind[pgno] != kind || !(alloc->flags[pgno] & DH_PAGE_LISTED))
        return false;
    alloc->flags[pgno] &= (uint8_t)~DH_PAGE_LISTED;
    return alloc->free_cells[pgno] > 0;
}

static void settle_page(dh_heap *heap, dh_pgno pgno)
{
    if (DH_UNLIKELY(heap->cycle_phase == DHI_CYCLE_SWEEPING))
        dhi_cycle_settle_page(heap, pgno);
}

static dh_pgno pop_page(dh_heap *heap, dh_pgno_stack *stack, unsigned kind)
{
    while (stack->count > 0) {
        dh_pgno pgno = stack->items[--stack->count];
        settle_page(heap, pgno);
        if (claim_page(&heap->alloc, pgno, kind))
            return pgno;
    }
    return 0;
}

static dh_pgno take_resume(dh_heap *heap, dh_class_cursor *cursor, unsigned kind)
{
    dh_pgno pgno = cursor->resume;
    cursor->resume = 0;
    if (pgno == 0)
        return 0;
    settle_page(heap, pgno);
    return claim_page(&heap->alloc, pgno, kind) ? pgno : 0;
}

static int format_page(dh_heap *heap, unsigned kind, dh_pgno *pgno_out)
{
    dh_pgno pgno;
    int rc = dh_pages_take(heap, 1, false, &pgno);
    if (rc != 0)
        return rc;
    DHI_SHARED_STORE(&heap->alloc.kind[pgno], (uint8_t)kind);
    dh_alloc_count_page(heap, pgno, true);
    *pgno_out = pgno;
    return 0;
}

/* Dirty pages first, the page left at the last commit, then fresh ones; partly filled clean pages once
 * a quarter of the class is free, or when there is nothing else (measured: docs/design.md, A2). */
static int next_page(dh_heap *heap, unsigned kind, dh_pgno *pgno_out)
{
    dh_alloc *alloc = &heap->alloc;
    dh_class_cursor *cursor = cursor_of(alloc, kind);
    dh_pgno pgno = pop_page(heap, &cursor->hot, kind);

    if (pgno == 0)
        pgno = take_resume(heap, cursor, kind);
    if (pgno == 0 && cursor->free_count * 4 > cursor->cells_count)
        pgno = pop_page(heap, &cursor->partial, kind);
    if (pgno == 0) {
        int rc = format_page(heap, kind, &pgno);
        if (rc == DH_E_FULL)
            pgno = pop_page(heap, &cursor->partial, kind);
        if (rc != 0 && pgno == 0)
            return rc;
    }
    *pgno_out = pgno;
    return 0;
}

/* Room was taken; the host hears once when a collection is due. */
static void count_taken(dh_heap *heap, uint64_t bytes)
{
    dh_alloc *alloc = &heap->alloc;

    alloc->taken_bytes += bytes;
    if (alloc->taken_bytes < alloc->due_bytes || alloc->due_bytes == 0 || alloc->is_due_told)
        return;
    alloc->is_due_told = heap->world.due != NULL && heap->world.due(heap->world.context) == 0;
}

/* Make cursor->free_bits nonzero. */
static int refill(dh_heap *heap, unsigned kind)
{
    dh_alloc *alloc = &heap->alloc;
    dh_class_cursor *cursor = cursor_of(alloc, kind);
    unsigned class = (kind - DH_KIND_CELLS) / 2;

    for (;;) {
        while (cursor->pgno != 0 && ++cursor->word < DH_PAGE_BIT_WORDS) {
            cursor->free_bits = free_starts(alloc, cursor->pgno, class, cursor->word);
            if (cursor->free_bits != 0)
                return 0;
        }
        dh_pgno pgno;
        int rc = next_page(heap, kind, &pgno);
        if (rc != 0) {
            cursor->pgno = 0;
            return rc;
        }
        alloc->flags[pgno] |= DH_PAGE_HOT;
        dh_bits_set(&alloc->changed, pgno);
        dh_bits_set(&alloc->fresh_pages, pgno);
        count_taken(heap, (uint64_t)alloc->free_cells[pgno] * dh_kind_bytes[kind]);
        cursor->pgno = pgno;
        cursor->word = (uint32_t)-1;
    }
}

static int journal_add(dh_alloc *alloc, dh_off off)
{
    if (alloc->journal_count == alloc->journal_room) {
        size_t room = alloc->journal_room ? alloc->journal_room * 2 : 256;
        dh_off *journal = realloc(alloc->journal, room * sizeof *journal);
        if (journal == NULL)
            return ENOMEM;
        alloc->journal = journal;
        alloc->journal_room = room;
    }
    alloc->journal[alloc->journal_count++] = off;
    return 0;
}

static int run_new(dh_heap *heap, size_t bytes, dh_content content, bool exportable,
                   dh_off *off_out)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t pages = (bytes + DH_PAGE_BYTES - 1) >> DH_PAGE_SHIFT;
    dh_pgno first;
    int rc;

    if (pages > UINT32_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "an object of %zu bytes is too large", bytes);
    rc = dh_pages_take(heap, pages, exportable, &first);
    if (rc != 0)
        return rc;
    for (uint64_t i = 1; i < pages; i++) {
        DHI_SHARED_STORE(&alloc->run[first + i], (uint32_t)i);
        DHI_SHARED_STORE(&alloc->kind[first + i], DH_KIND_CONT);
    }
    DHI_SHARED_STORE(&alloc->run[first], (uint32_t)pages);
    DHI_SHARED_STORE(&alloc->kind[first], content == DH_RAW ? DH_KIND_RUN_RAW : DH_KIND_RUN_REFS);
    DHI_SHARED_STORE(&alloc->fresh[first].bits[0], 1);
    dh_bits_set(&alloc->fresh_pages, first);
    alloc->allocated_bytes += pages << DH_PAGE_SHIFT;
    count_taken(heap, pages << DH_PAGE_SHIFT);
    *off_out = (dh_off)first << DH_PAGE_SHIFT;
    return 0;
}

int dh_run_new_exportable(dh_heap *heap, size_t bytes, dh_off *off_out)
{
    int rc = dhi_fault("alloc.cell");
    if (rc == 0)
        rc = run_new(heap, bytes, DH_RAW, true, off_out);
    if (rc == 0 && heap->alloc.journal_open && journal_add(&heap->alloc, *off_out) != 0) {
        dh_cell_free(heap, *off_out);
        rc = ENOMEM;
    }
    return rc;
}

static int small_new(dh_heap *heap, size_t bytes, dh_content content, dh_off *off_out)
{
    dh_alloc *alloc = &heap->alloc;
    unsigned kind = DH_KIND_CELLS + class_of(bytes) * 2 + (unsigned)content;
    dh_class_cursor *cursor = cursor_of(alloc, kind);

    if (cursor->free_bits == 0) {
        int rc = refill(heap, kind);
        if (rc != 0)
            return rc;
    }
    unsigned bit = (unsigned)__builtin_ctzll(cursor->free_bits);
    dh_pgno pgno = cursor->pgno;
    cursor->free_bits &= cursor->free_bits - 1;
    cursor->free_count--;
    uint64_t *fresh = &alloc->fresh[pgno].bits[cursor->word];
    DHI_SHARED_STORE(fresh, *fresh | (uint64_t)1 << bit);
    alloc->free_cells[pgno]--;
    alloc->allocated_bytes += dh_kind_bytes[kind];
    dh_off off = ((dh_off)pgno << DH_PAGE_SHIFT) + (cursor->word * 64u + bit) * DH_GRANULE_BYTES;
    memset(dh_at(heap, off), 0, dh_kind_bytes[kind]);
    *off_out = off;
    return 0;
}

int dh_cell_new(dh_heap *heap, size_t bytes, dh_content content, dh_off *off_out)
{
    int rc = dhi_fault("alloc.cell");

    if (rc != 0)
        return rc;
    if (DH_LIKELY(bytes <= DH_CELL_BYTES_MAX))
        rc = small_new(heap, bytes, content, off_out);
    else
        rc = run_new(heap, bytes, content, false, off_out);
    if (rc == 0 && DH_UNLIKELY(heap->alloc.journal_open) &&
        journal_add(&heap->alloc, *off_out) != 0) {
        dh_cell_free(heap, *off_out);
        rc = ENOMEM;
    }
    return rc;
}

bool dh_cell_is_allocated(const dh_heap *heap, dh_off off)
{
    const dh_alloc *alloc = &heap->alloc;
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    unsigned granule = (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;

    if ((off & (DH_GRANULE_BYTES - 1)) != 0 || pgno >= heap->arena.hwm_pages)
        return false;
    if (DH_UNLIKELY(heap->lazy != NULL) && dhi_kind_bytes_lazily(heap, pgno) == 0)
        return false;
    if (DH_UNLIKELY(heap->cycle_phase == DHI_CYCLE_SWEEPING) && !dhi_cycle_keeps(heap, off))
        return false;
    return ((alloc->old[pgno].bits[granule / 64] | alloc->fresh[pgno].bits[granule / 64]) >>
            (granule % 64)) &
           1u;
}

size_t dh_cell_bytes(const dh_heap *heap, dh_off off)
{
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    if (pgno >= heap->arena.hwm_pages)
        return 0;
    if (DH_UNLIKELY(heap->lazy != NULL))
        (void)dhi_kind_bytes_lazily(heap, pgno);
    unsigned kind = heap->alloc.kind[pgno];
    if (is_run(kind))
        return (size_t)heap->alloc.run[pgno] << DH_PAGE_SHIFT;
    return dh_kind_bytes[kind];
}

void dh_cell_free(dh_heap *heap, dh_off off)
{
    dh_alloc *alloc = &heap->alloc;
    dh_pgno pgno = (dh_pgno)(off >> DH_PAGE_SHIFT);
    unsigned granule = (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;

    if (!dh_cell_is_allocated(heap, off))
        return;
    if (DH_UNLIKELY(heap->cycle_phase == DHI_CYCLE_MARKING)) {
        dhi_cycle_defer_free(heap, off);
        return;
    }
    settle_page(heap, pgno);
    unsigned kind = alloc->kind[pgno];
    if (is_run(kind)) {
        alloc->allocated_bytes -= (uint64_t)alloc->run[pgno] << DH_PAGE_SHIFT;
        dh_pages_give(heap, pgno, alloc->run[pgno]);
        return;
    }
    uint64_t keep = ~((uint64_t)1 << (granule % 64));
    dh_class_cursor *cursor = cursor_of(alloc, kind);
    alloc->old[pgno].bits[granule / 64] &= keep; /* no marker reads it now */
    alloc->fresh[pgno].bits[granule / 64] &= keep;
    alloc->free_cells[pgno]++;
    alloc->allocated_bytes -= dh_kind_bytes[kind];
    cursor->free_count++;
    dh_bits_set(&alloc->changed, pgno);
    if (alloc->free_cells[pgno] == dh_class_cells(kind) && cursor->pgno != pgno) {
        dh_alloc_count_page(heap, pgno, false);
        dh_pages_give(heap, pgno, 1);
    } else {
        list_page(alloc, pgno);
    }
}

/* --- journal --------------------------------------------------------------------------------------- */

void dh_journal_begin(dh_heap *heap)
{
    DH_ASSERT(!heap->alloc.journal_open);
    heap->alloc.journal_open = true;
    heap->alloc.journal_count = 0;
}

void dh_journal_commit(dh_heap *heap)
{
    DH_ASSERT(heap->alloc.journal_open);
    heap->alloc.journal_open = false;
}

void dh_journal_abort(dh_heap *heap)
{
    DH_ASSERT(heap->alloc.journal_open);
    heap->alloc.journal_open = false;
    for (size_t i = heap->alloc.journal_count; i > 0; i--)
        dh_cell_free(heap, heap->alloc.journal[i - 1]);
}

bool dh_journal_suspend(dh_heap *heap)
{
    bool was_open = heap->alloc.journal_open;
    heap->alloc.journal_open = false;
    return was_open;
}

void dh_journal_resume(dh_heap *heap, bool was_open) { heap->alloc.journal_open = was_open; }

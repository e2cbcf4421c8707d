/* verify_alloc.c -- the allocator's state: against itself, its counters, and the committed table.
 *
 * Every page has a kind that can be, runs have their length, cells begin where cells of their class
 * begin, and the totals are what the pages add up to. A page that has not changed since the last
 * commit is what the table says. Must change nothing and must not look into the arena.
 */
#include "cycle.h"
#include "verify.h"

typedef struct {
    uint64_t free_pages, allocated_bytes;
    uint64_t cells[DH_CLASSES_COUNT * 2], free_cells[DH_CLASSES_COUNT * 2];
} totals;

static void problem(dh_verify *verify, const char *what, uint64_t pgno)
{
    dhi_verify_problem(verify, "<allocator>", what, "page %llu", (unsigned long long)pgno);
}

static unsigned bits_count(const dh_page_bits *a)
{
    unsigned n = 0;
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        n += (unsigned)__builtin_popcountll(a->bits[i]);
    return n;
}

/* --- live state ------------------------------------------------------------------------------- */

static bool bits_are_starts(const dh_page_bits *used, unsigned kind)
{
    const dh_page_bits *starts = &dh_class_starts[(kind - DH_KIND_CELLS) / 2];
    uint64_t wrong = 0;
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        wrong |= used->bits[i] & ~starts->bits[i];
    return wrong == 0;
}

static void check_cells(dh_verify *verify, uint64_t pgno, totals *sum)
{
    const dh_alloc *alloc = &verify->heap->alloc;
    unsigned kind = alloc->kind[pgno], cells = dh_class_cells(kind);
    dh_page_bits used;

    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        used.bits[i] = alloc->old[pgno].bits[i] | alloc->fresh[pgno].bits[i];
    unsigned count = bits_count(&used);
    if (!dh_page_bits_empty(&alloc->fresh[pgno]) && !dh_bits_test(&alloc->fresh_pages, pgno) &&
        verify->heap->cycle_phase != DHI_CYCLE_SWEEPING)
        problem(verify, "a page of new cells is not known as one", pgno);
    if (!bits_are_starts(&used, kind))
        problem(verify, "a cell begins inside another", pgno);
    if (count > cells || alloc->free_cells[pgno] != cells - count)
        problem(verify, "the count of free cells is wrong", pgno);
    sum->cells[kind - DH_KIND_CELLS] += cells;
    sum->free_cells[kind - DH_KIND_CELLS] += cells - count;
    sum->allocated_bytes += (uint64_t)count * dh_kind_bytes[kind];
    verify->stats.allocated_cells_count += count;
}

/* Returns how many pages to go on by. */
static uint64_t check_run(dh_verify *verify, uint64_t first, totals *sum)
{
    const dh_alloc *alloc = &verify->heap->alloc;
    uint64_t pages = alloc->run[first];

    if (pages == 0 || pages > verify->hwm_pages - first) {
        problem(verify, "a run of pages has an impossible length", first);
        return 1;
    }
    if (((alloc->old[first].bits[0] | alloc->fresh[first].bits[0]) & 1u) == 0)
        problem(verify, "a run of pages is neither free nor allocated", first);
    for (uint64_t i = 1; i < pages; i++)
        if (alloc->kind[first + i] != DH_KIND_CONT || alloc->run[first + i] != i) {
            problem(verify, "a run of pages is broken", first + i);
            return i;
        }
    sum->allocated_bytes += pages << DH_PAGE_SHIFT;
    verify->stats.allocated_cells_count++;
    verify->stats.pages_count += pages;
    return pages;
}

static uint64_t check_page(dh_verify *verify, uint64_t pgno, totals *sum)
{
    unsigned kind = verify->heap->alloc.kind[pgno];

    if (kind == DH_KIND_RUN_REFS || kind == DH_KIND_RUN_RAW)
        return check_run(verify, pgno, sum);
    if (kind == DH_KIND_FREE) {
        sum->free_pages++;
    } else if (kind >= DH_KIND_CELLS && kind < DH_KINDS_COUNT) {
        verify->stats.pages_count++;
        check_cells(verify, pgno, sum);
    } else if (kind != DH_KIND_PINNED) {
        problem(verify, "a page of an impossible kind", pgno);
    }
    return 1;
}

static void check_totals(dh_verify *verify, const totals *sum)
{
    const dh_alloc *alloc = &verify->heap->alloc;
    bool is_same = true;

    for (size_t i = 0; i < DH_CLASSES_COUNT * 2; i++)
        is_same = is_same && alloc->cursors[i].cells_count == sum->cells[i] &&
                  alloc->cursors[i].free_count == sum->free_cells[i];
    if (!is_same)
        problem(verify, "the counts of cells are not those of the pages", 0);
    if (alloc->free_pages_count != sum->free_pages)
        problem(verify, "the count of free pages is wrong", 0);
    if (alloc->allocated_bytes != sum->allocated_bytes)
        problem(verify, "the count of allocated bytes is wrong", 0);
}

/* --- lists ------------------------------------------------------------------------------------ */

/* Entries may be out of date, but never lead out of the arena. */
static void check_stack(dh_verify *verify, const dh_pgno_stack *stack)
{
    for (size_t i = 0; i < stack->count; i++)
        if (stack->items[i] == 0 || stack->items[i] >= verify->hwm_pages) {
            problem(verify, "a list names a page that is not there", stack->items[i]);
            return;
        }
}

/* What the cursor hands out next is free. */
static void check_cursor(dh_verify *verify, const dh_class_cursor *cursor, unsigned kind)
{
    const dh_alloc *alloc = &verify->heap->alloc;
    dh_pgno pgno = cursor->pgno;

    check_stack(verify, &cursor->hot);
    check_stack(verify, &cursor->partial);
    if (pgno == 0)
        return;
    if (pgno >= verify->hwm_pages || alloc->kind[pgno] != kind ||
        cursor->word >= DH_PAGE_BIT_WORDS ||
        (cursor->free_bits &
         (alloc->old[pgno].bits[cursor->word] | alloc->fresh[pgno].bits[cursor->word])) != 0)
        problem(verify, "the next free cell of a class is none", pgno);
}

/* --- the committed table ---------------------------------------------------------------------- */

static void check_table(dh_verify *verify)
{
    dh_heap *heap = verify->heap;
    uint64_t limit = heap->committed.hwm_pages;

    if (limit <= 1)
        return; /* nothing was committed: there is no table yet */
    heap->error_text[0] = '\0';
    if (dh_table_validate(heap, limit) != 0) {
        dhi_verify_problem(verify, "<allocation table>", heap->error_text, "%llu pages",
                           (unsigned long long)limit);
        return;
    }
    for (uint64_t p = 1; p < limit && p < verify->hwm_pages; p++) {
        dh_table_entry now, committed;
        if (dh_bits_test(&heap->alloc.changed, p))
            continue;
        dh_table_entry_now(heap, (dh_pgno)p, &now);
        dh_table_read(&heap->table, (dh_pgno)p, &committed);
        if (now.kind != committed.kind || memcmp(now.value, committed.value, sizeof now.value) != 0)
            problem(verify, "the allocator differs from its table without having noted a change",
                    p);
    }
}

bool dhi_verify_alloc(dh_verify *verify)
{
    const dh_alloc *alloc = &verify->heap->alloc;
    uint64_t problems_before = verify->stats.problems_count;
    totals sum = {0};

    if (alloc->kind[0] != DH_KIND_RESERVED)
        problem(verify, "page 0 is in use", 0);
    for (uint64_t p = 1; p < verify->hwm_pages;)
        p += check_page(verify, p, &sum);
    bool is_usable = verify->stats.problems_count == problems_before;
    check_totals(verify, &sum);
    for (unsigned i = 0; i < DH_CLASSES_COUNT * 2; i++)
        check_cursor(verify, &alloc->cursors[i], DH_KIND_CELLS + i);
    check_table(verify);
    return is_usable;
}

/* census.c -- how much of what there is: everything alive by type, and the room between it.
 *
 * The order of the survey: with a stack of fixed size, what does not fit it is noted at its page and
 * found again page by page (a note is the type, in four bits: containers, tuples, shapes and classes
 * can be looked at knowing no more). Or, where growth is to be told, along a lineage. What the walk
 * did not come to is counted by the allocator's bits. Contract: dirtyheap.h, survey.h. Changes nothing.
 */
#include "census.h"

#include <stdlib.h>

#define STACK_ROOM 65536u

#define NOTE_BITS 4u
#define NOTE_MASK (((uint64_t)1 << NOTE_BITS) - 1u)
#define NOTES_PER_WORD (64u / NOTE_BITS)

typedef struct census_notes {
    uint64_t words[DH_GRANULES_PER_PAGE / NOTES_PER_WORD];
} census_notes;

/* --- what is met and not looked at yet -------------------------------------------------------- */

/* A type in four bits: those up to 15 are themselves, the others have the numbers of values that are
 * never noted. 0: no note. */
static const uint8_t noted_types[] = {0, DH_T_SHAPE, DH_T_SHAPES, DH_T_CLASS, DH_T_CLASSES};
_Static_assert(DH_T_VALUES_LAST <= NOTE_MASK && DH_T_TUPLE == sizeof noted_types,
               "the numbers of notes");

static dh_type type_of_note(uint64_t note)
{
    return (dh_type)(note < sizeof noted_types ? noted_types[note] : note);
}

static uint64_t note_of_type(dh_type type)
{
    uint64_t note = 1;
    if (type <= DH_T_VALUES_LAST)
        return type;
    while (note < sizeof noted_types - 1 && noted_types[note] != type)
        note++;
    return note;
}

static void put_note(dh_census *census, dh_word w)
{
    dh_off off = dh_ref_off(w);
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    unsigned granule = (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;

    census->notes[pgno].words[granule / NOTES_PER_WORD] |= note_of_type(dh_ref_type(w))
                                                           << granule % NOTES_PER_WORD * NOTE_BITS;
    dh_bits_set(&census->overflow, pgno);
    census->has_overflow = true;
}

static int meet_on_stack(dh_survey *survey, dh_word w)
{
    dh_census *census = (dh_census *)survey;
    if (census->stack_count < census->stack_room)
        census->stack[census->stack_count++] = w;
    else
        put_note(census, w);
    return 0;
}

static int meet_in_line(dh_survey *survey, dh_word w)
{
    dh_census *census = (dh_census *)survey;
    dhi_lineage_add(&census->lineage, w, survey->frames_count == 0);
    return 0;
}

static int look_at(dh_census *census, dh_word w)
{
    (void)dhi_survey_walk(&census->survey, w); /* meeting never ends it */
    return dhi_census_count(&census->types, &census->survey, w);
}

static int drain_stack(dh_census *census)
{
    int rc = 0;
    while (rc == 0 && census->stack_count > 0)
        rc = look_at(census, census->stack[--census->stack_count]);
    return rc;
}

/* Everything noted at a page, and all that comes of it; that may leave more notes here. */
static int drain_page(dh_census *census, uint64_t pgno)
{
    uint64_t *words = census->notes[pgno].words;
    int rc = 0;

    for (unsigned i = 0; i < DH_GRANULES_PER_PAGE / NOTES_PER_WORD; i++)
        while (rc == 0 && words[i] != 0) {
            unsigned number = (unsigned)__builtin_ctzll(words[i]) / NOTE_BITS;
            uint64_t note = words[i] >> number * NOTE_BITS & NOTE_MASK;
            dh_off off = (pgno << DH_PAGE_SHIFT) + (i * NOTES_PER_WORD + number) * DH_GRANULE_BYTES;
            words[i] &= ~(NOTE_MASK << number * NOTE_BITS);
            rc = look_at(census, dh_ref(type_of_note(note), off));
            if (rc == 0)
                rc = drain_stack(census);
        }
    return rc;
}

static int drain_notes(dh_census *census)
{
    uint64_t limit = census->heap->arena.hwm_pages;
    int rc = 0;

    while (rc == 0 && census->has_overflow) {
        census->has_overflow = false;
        census->stats.overflow_rounds_count++;
        for (uint64_t p = dh_bits_next(&census->overflow, 0, limit); rc == 0 && p < limit;
             p = dh_bits_next(&census->overflow, p + 1, limit)) {
            dh_bits_clear(&census->overflow, p);
            rc = drain_page(census, p);
        }
    }
    return rc;
}

static int drain_line(dh_census *census)
{
    dh_lineage *line = &census->lineage;
    int rc = 0;

    while (rc == 0 && line->next < line->count) {
        dh_word w = line->entries[line->next++].word;
        rc = look_at(census, w);
        census->bytes[line->next - 1] = census->survey.own.bytes + census->survey.held.bytes;
    }
    return rc;
}

static int drain(dh_census *census)
{
    if (census->keeps_containers)
        return drain_line(census);
    int rc = drain_stack(census);
    return rc != 0 ? rc : drain_notes(census);
}

/* --- what was not reached, and what is free --------------------------------------------------- */

static uint64_t bits_count(const uint64_t bits[DH_PAGE_BIT_WORDS])
{
    uint64_t n = 0;
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        n += (uint64_t)__builtin_popcountll(bits[i]);
    return n;
}

static void count_unreached(dh_census_stats *stats, uint64_t cells, uint64_t bytes)
{
    stats->unreachable_cells_count += cells;
    stats->unreachable_bytes += bytes;
}

static void count_cell_page(dh_census *census, uint64_t pgno, unsigned kind)
{
    const dh_alloc *alloc = &census->heap->alloc;
    dh_census_size *size = &census->sizes[(kind - DH_KIND_CELLS) / 2];
    uint64_t cell_bytes = dh_kind_bytes[kind], cells = dh_class_cells(kind);
    uint64_t used[DH_PAGE_BIT_WORDS], unreached[DH_PAGE_BIT_WORDS];

    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++) {
        used[i] = alloc->old[pgno].bits[i] | alloc->fresh[pgno].bits[i];
        unreached[i] = used[i] & ~census->survey.seen[pgno].bits[i];
    }
    uint64_t used_cells = bits_count(used), unreached_cells = bits_count(unreached);
    uint64_t free_cells = used_cells <= cells ? cells - used_cells : 0;
    count_unreached(&census->stats, unreached_cells, unreached_cells * cell_bytes);
    census->stats.free_cells_count += free_cells;
    census->stats.free_cells_bytes += free_cells * cell_bytes;
    census->stats.rest_bytes += DH_PAGE_BYTES - cells * cell_bytes;
    census->stats.used_pages_count++;
    size->cell_bytes = cell_bytes;
    size->pages_count++;
    size->used_cells_count += used_cells;
    size->free_cells_count += free_cells;
}

/* Returns how many pages to go on by. */
static uint64_t count_run(dh_census *census, uint64_t pgno)
{
    uint64_t pages = census->heap->alloc.run[pgno], left = census->stats.arena_pages - pgno;
    if (pages == 0 || pages > left)
        pages = 1;
    if ((census->survey.seen[pgno].bits[0] & 1u) == 0)
        count_unreached(&census->stats, 1, pages << DH_PAGE_SHIFT);
    census->stats.used_pages_count += pages;
    return pages;
}

static void count_pages(dh_census *census)
{
    dh_census_stats *stats = &census->stats;
    uint64_t free_run = 0, step;

    stats->arena_pages = census->heap->arena.hwm_pages;
    for (uint64_t p = 1; p < stats->arena_pages; p += step) {
        unsigned kind = census->heap->alloc.kind[p];
        step = 1;
        free_run = kind == DH_KIND_FREE ? free_run + 1 : 0;
        if (free_run > stats->free_run_pages_max)
            stats->free_run_pages_max = free_run;
        if (kind == DH_KIND_FREE)
            stats->free_pages_count++;
        else if (kind == DH_KIND_RUN_REFS || kind == DH_KIND_RUN_RAW)
            step = count_run(census, p);
        else if (kind >= DH_KIND_CELLS)
            count_cell_page(census, p, kind);
        else
            stats->pinned_pages_count++;
    }
}

/* Sizes of which there are pages, in the order in which classes are: ascending. */
static void pack_sizes(dh_census *census)
{
    for (size_t i = 0; i < DH_CLASSES_COUNT; i++)
        if (census->sizes[i].pages_count > 0)
            census->sizes[census->sizes_count++] = census->sizes[i];
}

/* --- the run ---------------------------------------------------------------------------------- */

static int init(dh_census *census, dh_heap *heap, size_t stack_room)
{
    dh_survey_meet *meet = census->keeps_containers ? meet_in_line : meet_on_stack;
    uint64_t pages = heap->arena.hwm_pages;
    int rc = dhi_survey_bring_in(heap);

    census->heap = heap;
    if (rc == 0)
        rc = dhi_survey_init(&census->survey, heap, meet);
    if (rc != 0)
        return rc;
    if (census->keeps_containers) {
        rc = dhi_lineage_init(&census->lineage, heap);
        census->bytes_bytes = pages * DH_GRANULES_PER_PAGE * sizeof *census->bytes;
        return rc != 0 ? rc : dh_reserve(census->bytes_bytes, (void **)&census->bytes);
    }
    census->stack_room = stack_room;
    census->stack = malloc(stack_room * sizeof *census->stack);
    census->notes_bytes = pages * sizeof *census->notes;
    rc = census->stack == NULL ? ENOMEM : dh_reserve(census->notes_bytes, (void **)&census->notes);
    return rc != 0 ? rc : dh_bits_init(&census->overflow, pages);
}

/* What only the way needed. */
static void finish_way(dh_census *census)
{
    dhi_survey_finish(&census->survey);
    free(census->stack);
    census->stack = NULL;
    if (census->notes != NULL)
        dh_unreserve(census->notes, census->notes_bytes);
    census->notes = NULL;
    dh_bits_finish(&census->overflow);
}

static void sum_up(dh_census *census)
{
    dh_census_stats *stats = &census->stats;
    const census_types *types = &census->types;

    stats->objects_count = stats->cells_count = stats->bytes = 0;
    for (unsigned i = 0; i <= DH_T_VALUES_LAST; i++) {
        stats->objects_count += census->survey.values[i].cells_count;
        stats->cells_count += census->survey.values[i].cells_count;
        stats->bytes += census->survey.values[i].bytes;
    }
    for (size_t i = 0; i < DH_TYPES_COUNT + types->classes_count; i++) {
        const census_sum *sum =
            i < DH_TYPES_COUNT ? &types->types[i] : &types->classes[i - DH_TYPES_COUNT].sum;
        stats->objects_count += sum->objects_count;
        stats->cells_count += sum->cells.cells_count;
        stats->bytes += sum->cells.bytes;
    }
}

static int walk_all(dh_census *census)
{
    size_t index = 0;
    dh_handle *handle;

    (void)dhi_survey_root(&census->survey, census->heap->root);
    int rc = drain(census);
    sum_up(census);
    uint64_t cells_of_root = census->stats.cells_count, bytes_of_root = census->stats.bytes;
    while (rc == 0 && (handle = dh_handles_next(&census->heap->handles, &index)) != NULL) {
        (void)dhi_survey_root(&census->survey, handle->word);
        rc = drain(census);
    }
    sum_up(census);
    census->stats.held_cells_count = census->stats.cells_count - cells_of_root;
    census->stats.held_bytes = census->stats.bytes - bytes_of_root;
    return rc;
}

static int run(dh_census *census, dh_heap *heap, size_t stack_room)
{
    int rc = init(census, heap, stack_room);
    if (rc == 0)
        rc = walk_all(census);
    if (rc == 0)
        rc = dhi_census_rows_make(&census->types, &census->survey);
    if (rc != 0)
        return rc;
    count_pages(census);
    pack_sizes(census);
    census->stats.broken_count = census->survey.broken_count;
    heap->error_text[0] = '\0'; /* what could not be read has left sentences */
    return 0;
}

int dhi_census_take(dh_heap *heap, int flags, size_t stack_room, dh_census **census_out)
{
    if (heap->is_forked)
        return dhi_fail(heap, DH_E_FORKED, "this heap belongs to the parent process");
    dh_census *census = calloc(1, sizeof *census);
    if (census == NULL)
        return ENOMEM;
    census->keeps_containers = (flags & DH_CENSUS_CONTAINERS) != 0;
    census->is_private = (flags & DH_CENSUS_PRIVATE) != 0;
    if (!census->is_private)
        dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    int rc = run(census, heap, stack_room);
    census->stats.stop_ns = dhi_clock_ns() - stop_began_ns;
    if (!census->is_private)
        dhi_world_resume(heap);
    finish_way(census);
    if (rc == 0)
        *census_out = census;
    else
        dh_census_free(census);
    return rc;
}

int dh_census_take(dh_heap *heap, int flags, dh_census **census_out)
{
    return dhi_census_take(heap, flags, STACK_ROOM, census_out);
}

void dh_census_free(dh_census *census)
{
    dhi_census_types_finish(&census->types);
    dhi_lineage_finish(&census->lineage);
    if (census->bytes != NULL)
        dh_unreserve(census->bytes, census->bytes_bytes);
    free(census);
}

void dh_census_stats_read(const dh_census *census, dh_census_stats *stats_out)
{
    *stats_out = census->stats;
}

int dh_census_row_read(const dh_census *census, size_t index, dh_census_row *row_out)
{
    if (index >= census->types.rows_count)
        return DH_E_ABSENT;
    *row_out = census->types.rows[index];
    return 0;
}

int dh_census_size_read(const dh_census *census, size_t index, dh_census_size *size_out)
{
    if (index >= census->sizes_count)
        return DH_E_ABSENT;
    *size_out = census->sizes[index];
    return 0;
}

/* survey.c -- the walk inside one container. Contract: survey.h. Must store nothing to the arena, and
 * follow nothing that it has not judged. */
#include "survey.h"

#include "ext.h"
#include "lazy.h"

int dhi_survey_bring_in(dh_heap *heap) { return heap->lazy != NULL ? dhi_lazy_bring_all(heap) : 0; }

int dhi_survey_init(dh_survey *survey, dh_heap *heap, dh_survey_meet *meet)
{
    memset(survey, 0, sizeof *survey);
    survey->heap = heap;
    survey->meet = meet;
    survey->seen_bytes = heap->arena.hwm_pages * sizeof *survey->seen;
    return dh_reserve(survey->seen_bytes, (void **)&survey->seen);
}

void dhi_survey_finish(dh_survey *survey)
{
    if (survey->seen != NULL)
        dh_unreserve(survey->seen, survey->seen_bytes);
    survey->seen = NULL;
}

/* --- one ref ---------------------------------------------------------------------------------- */

#define TYPE_BIT(type) ((uint32_t)1 << (type))
#define RAW_TYPES                                                                               \
    (TYPE_BIT(DH_T_STR) | TYPE_BIT(DH_T_BYTES) | TYPE_BIT(DH_T_FLOAT) | TYPE_BIT(DH_T_BIGINT) | \
     TYPE_BIT(DH_T_EXT) | TYPE_BIT(DH_T_BUCKET) | TYPE_BIT(DH_T_DATA))
#define VALUE_TYPES                                                                             \
    (TYPE_BIT(DH_T_STR) | TYPE_BIT(DH_T_BYTES) | TYPE_BIT(DH_T_FLOAT) | TYPE_BIT(DH_T_BIGINT) | \
     TYPE_BIT(DH_T_EXT))
#define DESCRIPTION_TYPES \
    (TYPE_BIT(DH_T_SHAPE) | TYPE_BIT(DH_T_SHAPES) | TYPE_BIT(DH_T_CLASS) | TYPE_BIT(DH_T_CLASSES))
/* All that is neither a container's own nor a value that only its slot knows. */
#define OUTER_TYPES \
    (((TYPE_BIT(DH_T_VALUES_LAST) << 1) - 1u) & ~(TYPE_BIT(0) | VALUE_TYPES)) | DESCRIPTION_TYPES

/* Of an allocated cell: its room is that of its page's kind. */
static size_t room_of(const dh_heap *heap, uint64_t pgno)
{
    unsigned kind = heap->alloc.kind[pgno];
    return kind >= DH_KIND_CELLS ? dh_kind_bytes[kind]
                                 : (size_t)heap->alloc.run[pgno] << DH_PAGE_SHIFT;
}

/* The room of the cell that a ref leads to; 0: it cannot be what the ref says. */
static size_t judge(const dh_heap *heap, dh_word w)
{
    dh_off off = dh_ref_off(w);
    dh_type type = dh_ref_type(w);

    if (DH_UNLIKELY(type == 0 || !dh_cell_is_allocated(heap, off)))
        return 0;
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    bool is_raw = (heap->alloc.kind[pgno] & 1u) == DH_RAW;
    size_t bytes = room_of(heap, pgno);
    bool has_room = bytes >= DH_HEAD_BYTES || !dh_is_container(w);
    return is_raw == ((RAW_TYPES >> type & 1u) != 0) && has_room ? bytes : 0;
}

static bool is_first_time(dh_survey *survey, dh_off off)
{
    unsigned granule = (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;
    uint64_t *bits = &survey->seen[off >> DH_PAGE_SHIFT].bits[granule / 64];
    uint64_t bit = (uint64_t)1 << (granule % 64);
    bool is_first = (*bits & bit) == 0;
    *bits |= bit;
    return is_first;
}

static void count_packed(dh_survey *survey, dh_word w, size_t bytes)
{
    dh_ext_view view;
    unsigned code = dh_ext_read(survey->heap, w, &view) == 0 ? view.payload[0] : 0;
    dhi_tally_add(&survey->packed[code], 1, bytes);
    survey->broken_count += code == 0;
}

static void count_value(dh_survey *survey, dh_word w, size_t bytes)
{
    dhi_tally_add(&survey->values[dh_ref_type(w)], 1, bytes);
    dhi_tally_add(&survey->held, 1, bytes);
    if (DH_UNLIKELY(dh_is_ref_to(w, DH_T_EXT)))
        count_packed(survey, w, bytes);
}

static void enter_inner(dh_survey *survey, dh_word w, size_t bytes)
{
    dhi_tally_add(&survey->own, 1, bytes);
    if ((RAW_TYPES >> dh_ref_type(w) & 1u) != 0)
        return;
    if (survey->frames_count == SURVEY_FRAMES_MAX)
        survey->broken_count++;
    else
        survey->frames[survey->frames_count++] = (dh_frame){w, 0};
}

static int visit(dh_survey *survey, dh_word w)
{
    size_t bytes = judge(survey->heap, w);

    if (DH_UNLIKELY(bytes == 0)) {
        survey->broken_count++;
        return 0;
    }
    if (!is_first_time(survey, dh_ref_off(w)))
        return 0;
    uint32_t type_bit = TYPE_BIT(dh_ref_type(w));
    if ((type_bit & VALUE_TYPES) != 0)
        count_value(survey, w, bytes);
    else if ((type_bit & (OUTER_TYPES)) != 0)
        return survey->meet(survey, w);
    else
        enter_inner(survey, w, bytes);
    return 0;
}

/* --- one container ---------------------------------------------------------------------------- */

/* Look at words of the innermost cell until one leads into another, or it ends. */
static int walk_cell(dh_survey *survey)
{
    size_t level = survey->frames_count;
    dh_frame *frame = &survey->frames[level - 1];
    dh_off off = dh_ref_off(frame->word);
    const dh_word *words = dh_at(survey->heap, off);
    uint64_t count = room_of(survey->heap, off >> DH_PAGE_SHIFT) / sizeof *words;

    while (frame->next < count) {
        dh_word child = dh_load(&words[frame->next++]);
        if (!dh_is_ref(child))
            continue;
        int rc = visit(survey, child);
        if (rc != 0 || survey->frames_count != level)
            return rc;
    }
    survey->frames_count--;
    return 0;
}

int dhi_survey_walk(dh_survey *survey, dh_word w)
{
    int rc = 0;

    survey->own = (dh_tally){1, room_of(survey->heap, dh_ref_off(w) >> DH_PAGE_SHIFT)};
    survey->held = (dh_tally){0, 0};
    survey->frames[0] = (dh_frame){w, 0};
    survey->frames_count = 1;
    while (rc == 0 && survey->frames_count > 0)
        rc = walk_cell(survey);
    return rc;
}

int dhi_survey_root(dh_survey *survey, dh_word w)
{
    survey->frames_count = 0;
    return w != 0 ? visit(survey, w) : 0;
}

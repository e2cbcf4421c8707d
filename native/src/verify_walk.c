/* verify_walk.c -- the conductor of a verify run, and the walk over everything reachable.
 *
 * Every ref must lead to an allocated cell of the right content and of one type; values and inner
 * cells belong to one slot (invariant W3); every container passes its own check. Contract: verify.h
 * and dirtyheap.h. Must change nothing, and must not follow what it has not looked at.
 */
#include "verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lazy.h"
#include "value.h"

#define TEXT_BYTES 256u

/* --- problems --------------------------------------------------------------------------------- */

static void problem_keep(dh_verify *verify, char *path, const char *what, const char *where)
{
    verify_problem *problem = &verify->problems[verify->problems_kept];
    *problem = (verify_problem){path, strdup(what), strdup(where)};
    if (path == NULL || problem->what == NULL || problem->where == NULL) {
        free(problem->path);
        free(problem->what);
        free(problem->where);
        verify->rc = ENOMEM;
        return;
    }
    verify->problems_kept++;
}

void dhi_verify_problem(dh_verify *verify, const char *path, const char *what, const char *format,
                        ...)
{
    char where[TEXT_BYTES];
    va_list arguments;

    if (verify->stats.problems_count++ >= VERIFY_PROBLEMS_MAX || verify->rc != 0)
        return;
    va_start(arguments, format);
    vsnprintf(where, sizeof where, format, arguments);
    va_end(arguments);
    problem_keep(verify, strdup(path), what, where);
}

/* A problem at the word that the walk stands at. */
static void problem_here(dh_verify *verify, dh_word w, const char *what)
{
    char where[TEXT_BYTES];

    if (verify->stats.problems_count++ >= VERIFY_PROBLEMS_MAX || verify->rc != 0)
        return;
    if (dh_is_ref(w))
        snprintf(where, sizeof where, "page %llu, offset %#llx, reference %#llx",
                 (unsigned long long)(dh_ref_off(w) >> DH_PAGE_SHIFT),
                 (unsigned long long)dh_ref_off(w), (unsigned long long)w);
    else
        snprintf(where, sizeof where, "word %#llx", (unsigned long long)w);
    problem_keep(verify,
                 dhi_path_text(verify->heap, verify->origin, verify->frames, verify->frames_count),
                 what, where);
}

/* --- what was seen ---------------------------------------------------------------------------- */

static unsigned granule_of(dh_off off)
{
    return (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;
}

static bool mark_first_time(dh_verify *verify, dh_off off)
{
    unsigned granule = granule_of(off);
    uint64_t *bits = &verify->seen[off >> DH_PAGE_SHIFT].bits[granule / 64];
    uint64_t bit = (uint64_t)1 << (granule % 64);
    bool first = !(*bits & bit);
    *bits |= bit;
    return first;
}

/* Types to which several refs may lead. */
static unsigned code_of(dh_type type)
{
    switch (type) {
    case DH_T_TUPLE:
        return 9;
    case DH_T_FROZENSET:
        return 10;
    case DH_T_SHAPE:
        return 11;
    case DH_T_SHAPES:
        return 12;
    case DH_T_CLASS:
        return 13;
    case DH_T_CLASSES:
        return 14;
    default:
        return type >= DH_T_DICT && type <= DH_T_CONTAINERS_LAST
                   ? (unsigned)type - (unsigned)DH_T_DICT + 1
                   : 0;
    }
}
_Static_assert(DH_T_CONTAINERS_LAST - DH_T_DICT + 1 < 9,
               "codes of containers are below those here");

static unsigned code_read(const dh_verify *verify, dh_off off)
{
    unsigned granule = granule_of(off);
    uint8_t both = verify->codes[off >> DH_PAGE_SHIFT].codes[granule / 2];
    return (unsigned)(both >> granule % 2 * 4) & 15u;
}

static void code_note(dh_verify *verify, dh_off off, unsigned code)
{
    unsigned granule = granule_of(off);
    if (code != 0) /* else the memory stays untouched */
        verify->codes[off >> DH_PAGE_SHIFT].codes[granule / 2] |=
            (uint8_t)(code << granule % 2 * 4);
}

/* --- one ref ---------------------------------------------------------------------------------- */

/* The words of a cell; its bytes were checked when it was met. */
static uint64_t words_of(const dh_heap *heap, dh_word w)
{
    return dh_cell_bytes(heap, dh_ref_off(w)) / sizeof(dh_word);
}

static void push(dh_verify *verify, dh_word w)
{
    if (verify->frames_count == verify->frames_room) {
        size_t room = verify->frames_room * 2;
        dh_frame *frames = realloc(verify->frames, room * sizeof *frames);
        if (frames == NULL) {
            verify->rc = ENOMEM;
            return;
        }
        verify->frames = frames;
        verify->frames_room = room;
    }
    verify->frames[verify->frames_count++] = (dh_frame){w, 0};
}

static const char *page_sentence(verify_page_state state)
{
    switch (state) {
    case VERIFY_PAGE_CHECKSUM:
        return "stands on a page whose stored bytes have a wrong checksum";
    case VERIFY_PAGE_MISSING:
        return "stands on a page whose base file is missing or unreadable";
    default:
        return "stands on a page that changed without being reported as written";
    }
}

/* The first cells of a bad page are named one by one. False: the page is good, or has its names. */
static bool name_page_of(dh_verify *verify, dh_word w, uint64_t pgno)
{
    uint8_t *state = &verify->page_states[pgno];
    if (DH_LIKELY(*state == VERIFY_PAGE_GOOD) ||
        *state >> VERIFY_PAGE_STATE_BITS >= VERIFY_NAMED_PER_PAGE)
        return false;
    *state = (uint8_t)(*state + (1u << VERIFY_PAGE_STATE_BITS));
    problem_here(verify, w, page_sentence(*state & VERIFY_PAGE_STATE_MASK));
    return true;
}

/* A cell has one page, a run many; it is named for the first that is bad. */
static void check_pages_of(dh_verify *verify, dh_word w)
{
    uint64_t pgno = dh_ref_off(w) >> DH_PAGE_SHIFT;
    unsigned kind = verify->heap->alloc.kind[pgno];
    uint64_t pages = kind >= DH_KIND_CELLS ? 1 : verify->heap->alloc.run[pgno];
    bool is_named = false;

    for (uint64_t i = 0; i < pages; i++)
        if (verify->page_states[pgno + i] != VERIFY_PAGE_GOOD) {
            if (!is_named)
                is_named = name_page_of(verify, w, pgno + i);
            else
                verify->page_states[pgno + i] |= VERIFY_PAGE_NAMED;
        }
}

/* In a directory a bucket stands in as many slots, one after the other, as its share is large. */
static bool is_repeated(const dh_verify *verify, dh_word w)
{
    if (verify->frames_count == 0 || !(dh_is_ref_to(w, DH_T_BUCKET) || dh_is_ref_to(w, DH_T_DIR)))
        return false;
    const dh_frame *frame = &verify->frames[verify->frames_count - 1];
    const dh_word *words = dh_at(verify->heap, dh_ref_off(frame->word));
    return dh_is_ref_to(frame->word, DH_T_DIR) && frame->next >= 2 && words[frame->next - 2] == w;
}

static void visit_again(dh_verify *verify, dh_word w)
{
    dh_type type = dh_ref_type(w);
    unsigned code = code_of(type);

    if (code_read(verify, dh_ref_off(w)) != code)
        problem_here(verify, w, "two references of different types lead to one cell");
    else if (is_repeated(verify, w))
        return;
    else if (code == 0 || (dh_is_items(w) && !dh_tuple_is_shared(verify->heap, w)))
        problem_here(verify, w, "belongs to two slots: freed with one, it is lost to the other");
}

static void visit_first(dh_verify *verify, dh_word w)
{
    dh_heap *heap = verify->heap;

    verify->stats.cells_count++;
    verify->stats.cells_bytes += dh_cell_bytes(heap, dh_ref_off(w));
    verify->stats.containers_count += dh_is_container(w);
    code_note(verify, dh_ref_off(w), code_of(dh_ref_type(w)));
    check_pages_of(verify, w);
    heap->error_text[0] = '\0';
    int rc = dhi_check_cell(heap, w);
    if (rc == ENOMEM)
        verify->rc = rc;
    else if (rc != 0)
        problem_here(verify, w, heap->error_text[0] != '\0' ? heap->error_text : "is damaged");
    if (!dhi_type_is_raw(dh_ref_type(w)))
        push(verify, w);
}

static void visit(dh_verify *verify, dh_word w)
{
    const dh_heap *heap = verify->heap;
    dh_off off = dh_ref_off(w);

    if (!dh_cell_is_allocated(heap, off)) {
        problem_here(verify, w, "a reference to what is not allocated");
        return;
    }
    bool is_raw = (heap->alloc.kind[off >> DH_PAGE_SHIFT] & 1u) == DH_RAW;
    if (dh_ref_type(w) == 0 || is_raw != dhi_type_is_raw(dh_ref_type(w)))
        problem_here(verify, w, "a reference of a type that cannot be there");
    else if (mark_first_time(verify, off))
        visit_first(verify, w);
    else
        visit_again(verify, w);
}

/* --- the walk --------------------------------------------------------------------------------- */

/* Look at words of the innermost cell until one leads into another, or it ends. */
static void walk_cell(dh_verify *verify)
{
    size_t level = verify->frames_count;
    dh_frame *frame = &verify->frames[level - 1];
    dh_word w = frame->word;
    const dh_word *words = dh_at(verify->heap, dh_ref_off(w));
    uint64_t count = words_of(verify->heap, w);

    while (frame->next < count) {
        uint64_t index = frame->next++;
        dh_word child = words[index];
        if (dh_is_ref(child))
            visit(verify, child);
        else if (DH_UNLIKELY(!dhi_check_word(child, index)))
            problem_here(verify, child, "a word that has no meaning");
        if (verify->frames_count != level || verify->rc != 0)
            return;
        frame = &verify->frames[level - 1];
    }
    verify->frames_count--;
}

static void walk(dh_verify *verify, uint64_t cells_max)
{
    uint64_t limit = verify->stats.cells_count + cells_max;
    if (limit < cells_max)
        limit = UINT64_MAX;
    while (verify->rc == 0 && verify->frames_count > 0 && verify->stats.cells_count < limit)
        walk_cell(verify);
}

/* Containers that only the program holds: they live, and must be sound. */
static void walk_handles(dh_verify *verify)
{
    size_t index = 0;
    dh_handle *handle;

    verify->origin = "<held by the program>";
    while (verify->rc == 0 && (handle = dh_handles_next(&verify->heap->handles, &index)) != NULL) {
        visit(verify, handle->word);
        walk(verify, UINT64_MAX);
    }
}

/* --- what was not reached --------------------------------------------------------------------- */

static void count_unreached_cells(dh_verify *verify, uint64_t pgno, unsigned kind)
{
    const dh_alloc *alloc = &verify->heap->alloc;
    uint64_t cells = 0;
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        cells += (uint64_t)__builtin_popcountll(
            (alloc->old[pgno].bits[i] | alloc->fresh[pgno].bits[i]) & ~verify->seen[pgno].bits[i]);
    verify->stats.unreachable_cells_count += cells;
    verify->stats.unreachable_bytes += cells * dh_kind_bytes[kind];
}

static void count_unreached(dh_verify *verify)
{
    const dh_alloc *alloc = &verify->heap->alloc;
    for (uint64_t p = 1; p < verify->hwm_pages; p++) {
        unsigned kind = alloc->kind[p];
        if (kind >= DH_KIND_CELLS) {
            count_unreached_cells(verify, p, kind);
        } else if ((kind == DH_KIND_RUN_REFS || kind == DH_KIND_RUN_RAW) &&
                   (verify->seen[p].bits[0] & 1u) == 0) {
            verify->stats.unreachable_cells_count++;
            verify->stats.unreachable_bytes += (uint64_t)alloc->run[p] << DH_PAGE_SHIFT;
        }
    }
}

/* Bad pages on which nothing was met that could name them. */
static void name_pages(dh_verify *verify)
{
    for (uint64_t p = 1; p < verify->hwm_pages; p++) {
        uint8_t state = verify->page_states[p];
        if (state == VERIFY_PAGE_GOOD || state >> VERIFY_PAGE_STATE_BITS != 0)
            continue;
        unsigned kind = verify->heap->alloc.kind[p];
        const char *what = kind == DH_KIND_FREE || kind == DH_KIND_PINNED
                               ? "a free page"
                               : "a page on which nothing begins that can be reached";
        dhi_verify_problem(verify, "<page>", page_sentence(state), "page %llu, %s",
                           (unsigned long long)p, what);
    }
}

/* --- the run ---------------------------------------------------------------------------------- */

int dh_verify_new(dh_heap *heap, dh_verify **verify_out)
{
    dh_verify *verify = calloc(1, sizeof *verify);
    int rc;

    if (verify == NULL)
        return ENOMEM;
    uint64_t pages = heap->arena.capacity_pages;
    verify->heap = heap;
    verify->hwm_pages = pages; /* until the run begins */
    verify->frames_room = 256;
    verify->frames = malloc(verify->frames_room * sizeof *verify->frames);
    rc = verify->frames == NULL ? ENOMEM : 0;
    if (rc == 0)
        rc = dh_reserve(pages * sizeof *verify->seen, (void **)&verify->seen);
    if (rc == 0)
        rc = dh_reserve(pages * sizeof *verify->codes, (void **)&verify->codes);
    if (rc == 0)
        rc = dh_reserve(pages, (void **)&verify->page_states);
    if (rc == 0)
        *verify_out = verify;
    else
        dh_verify_free(verify);
    return rc;
}

void dh_verify_free(dh_verify *verify)
{
    uint64_t pages = verify->heap->arena.capacity_pages;

    for (size_t i = 0; i < verify->problems_kept; i++) {
        free(verify->problems[i].path);
        free(verify->problems[i].what);
        free(verify->problems[i].where);
    }
    free(verify->frames);
    if (verify->seen != NULL)
        dh_unreserve(verify->seen, pages * sizeof *verify->seen);
    if (verify->codes != NULL)
        dh_unreserve(verify->codes, pages * sizeof *verify->codes);
    if (verify->page_states != NULL)
        dh_unreserve(verify->page_states, pages);
    free(verify);
}

void dh_verify_bad_page(dh_verify *verify, uint32_t pgno, int is_missing)
{
    if (pgno < verify->heap->arena.capacity_pages)
        verify->page_states[pgno] = is_missing ? VERIFY_PAGE_MISSING : VERIFY_PAGE_CHECKSUM;
}

/* What opening has left in the files, which it promised to check when it is used. */
static bool bring_in(dh_verify *verify)
{
    dh_heap *heap = verify->heap;
    int rc = heap->lazy != NULL ? dhi_lazy_bring_all(heap) : 0;

    if (rc == DH_E_CORRUPT)
        dhi_verify_problem(verify, "<heap>", heap->error_text, "%llu pages",
                           (unsigned long long)verify->hwm_pages);
    else
        verify->rc = rc;
    return rc == 0;
}

static void begin(dh_verify *verify)
{
    verify->hwm_pages = verify->heap->arena.hwm_pages;
    verify->origin = "root";
    verify->phase = VERIFY_DONE;
    verify->rc = dhi_verify_pages(verify);
    if (verify->rc != 0 || !bring_in(verify) || !dhi_verify_alloc(verify))
        return;
    verify->phase = VERIFY_ROOT;
    visit(verify, verify->heap->root);
}

static void run(dh_verify *verify, uint64_t cells_max)
{
    if (verify->phase == VERIFY_BEGIN)
        begin(verify);
    if (verify->phase == VERIFY_ROOT) {
        walk(verify, cells_max);
        if (verify->frames_count == 0)
            verify->phase = VERIFY_REST;
    }
    if (verify->phase == VERIFY_REST && verify->rc == 0) {
        walk_handles(verify);
        name_pages(verify);
        count_unreached(verify);
        verify->phase = VERIFY_DONE;
    }
}

int dh_verify_run(dh_verify *verify, uint64_t cells_max, int *is_done_out)
{
    dh_heap *heap = verify->heap;

    if (heap->is_forked)
        return dhi_fail(heap, DH_E_FORKED, "this heap belongs to the parent process");
    dhi_world_stop(heap);
    run(verify, cells_max);
    if (verify->rc == 0)
        heap->error_text[0] = '\0'; /* the checks left sentences of their own */
    dhi_world_resume(heap);
    *is_done_out = verify->phase == VERIFY_DONE;
    return verify->rc;
}

void dh_verify_stats_read(const dh_verify *verify, dh_verify_stats *stats_out)
{
    *stats_out = verify->stats;
}

int dh_verify_problem_read(const dh_verify *verify, size_t index, const char **path_out,
                           const char **what_out, const char **where_out)
{
    if (index >= verify->problems_kept)
        return DH_E_ABSENT;
    *path_out = verify->problems[index].path;
    *what_out = verify->problems[index].what;
    *where_out = verify->problems[index].where;
    return 0;
}

int dh_check(dh_heap *heap, uint64_t *cells_out, uint64_t *problems_out)
{
    dh_verify *verify;
    int is_done, rc = dh_verify_new(heap, &verify);

    if (rc != 0)
        return rc;
    rc = dh_verify_run(verify, UINT64_MAX, &is_done);
    *cells_out = verify->stats.cells_count;
    *problems_out = verify->stats.problems_count;
    if (verify->problems_kept > 0)
        (void)dhi_fail(heap, DH_E_CORRUPT, "%s: %s (%s)", verify->problems[0].path,
                       verify->problems[0].what, verify->problems[0].where);
    dh_verify_free(verify);
    return rc;
}

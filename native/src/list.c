/* list.c -- List: a head and a vector, with a gap before the first element. Deques too.
 *
 * Contract: list.h. The gap (slots of the vector before element 0, all EMPTY) stands in the flags
 * of the head's meta word; it makes inserting and removing at the front as cheap as at the end:
 * whole leaves of EMPTY slots come and go there. Only lists of several leaves have use for a gap: in
 * one leaf a memmove is cheaper than the bookkeeping.
 *
 * Nothing may fail after the first store of an operation, so room comes first; what remains is
 * damage, which is reported and may leave a damaged list otherwise damaged.
 */
#include "list.h"

#include "value.h"

/* A longer gap is cut back to one leaf. */
#define LIST_GAP_MAX (2u * DH_VEC_LEAF_WORDS)
/* As many elements before a change move into, or out of, the gap. */
#define LIST_FRONT_MAX DH_VEC_LEAF_WORDS
_Static_assert(2 * LIST_GAP_MAX < (1u << DH_META_FLAGS_BITS), "the gap stands in the flags");

/* A checked list: where things stand. */
typedef struct {
    dh_word *head;
    dh_word *vec;
    uint64_t gap;
    uint64_t length;
    bool is_deque;
} list_view;

static int list_corrupt(const dh_heap *heap, dh_word list)
{
    (void)dhi_fail(heap, DH_E_CORRUPT, "list %#llx is damaged", (unsigned long long)list);
    return DH_E_CORRUPT;
}

static inline int list_open(const dh_heap *heap, dh_word list, list_view *view_out)
{
    bool is_deque = dh_is_ref_to(list, DH_T_DEQUE);
    dh_word *head = dh_deref(heap, list, is_deque ? DH_T_DEQUE : DH_T_LIST,
                             is_deque ? (LIST_CHANGES + 1) * sizeof *head : DH_HEAD_BYTES);
    if (DH_UNLIKELY(head == NULL)) {
        (void)list_corrupt(heap, list);
        return DH_E_CORRUPT;
    }
    uint64_t gap = dh_meta_flags(head[0]), slots = dh_vec_length(head + 1);
    /* A vector that claims more slots than the heap has words would make loops endless. */
    if (DH_UNLIKELY(gap > slots || slots > heap->alloc.allocated_bytes / 8)) {
        (void)list_corrupt(heap, list);
        return DH_E_CORRUPT;
    }
    view_out->head = head;
    view_out->vec = head + 1;
    view_out->gap = gap;
    view_out->length = slots - gap;
    view_out->is_deque = is_deque;
    return 0;
}

/* A change that iterators over a Deque look for. */
static inline void list_count_new(const list_view *view)
{
    dh_word *changes = &view->head[LIST_CHANGES];
    if (view->is_deque)
        dh_store(changes, dh_int((int64_t)((*changes >> 1) + 1) & DH_INT_MAX));
}

/* What stands where has changed: runs that were found before end here. */
static inline void list_count_change(dh_heap *heap, const list_view *view)
{
    heap->moves_count++;
    list_count_new(view);
}

static void list_set_gap(list_view *view, uint64_t gap)
{
    view->gap = gap;
    dh_store(&view->head[0], dh_meta(dh_meta_serial(view->head[0]), (unsigned)gap));
}

int dhi_list_head_new(dh_heap *heap, dh_type type, size_t bytes, dh_word *list_out)
{
    dh_off off;
    int rc = dh_cell_new(heap, bytes, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, off);
    head[0] = dh_meta(dhi_serial_next(heap), 0);
    head[1 + DH_VEC_LENGTH] = dh_int(0);
    head[1 + DH_VEC_ROOT] = DH_EMPTY;
    head[1 + DH_VEC_DEPTH] = dh_int(0);
    *list_out = dh_ref(type, off);
    return 0;
}

int dh_list_new(dh_heap *heap, dh_word *list_out)
{
    return dhi_list_head_new(heap, DH_T_LIST, DH_HEAD_BYTES, list_out);
}

int dh_list_length(const dh_heap *heap, dh_word list, uint64_t *length_out)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc == 0)
        *length_out = view.length;
    return rc;
}

int dh_list_get(const dh_heap *heap, dh_word list, uint64_t index, dh_word *word_out)
{
    list_view view;
    uint64_t span;
    int rc = list_open(heap, list, &view);
    if (DH_UNLIKELY(rc != 0))
        return rc;
    if (DH_UNLIKELY(index >= view.length))
        return DH_E_ABSENT;
    const dh_word *slot = dh_vec_slot(heap, view.vec, view.gap + index, &span);
    if (DH_UNLIKELY(slot == NULL))
        return list_corrupt(heap, list);
    *word_out = dh_load(slot);
    return 0;
}

int dh_list_set(dh_heap *heap, dh_word list, uint64_t index, dh_word word)
{
    list_view view;
    uint64_t span;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    if (index >= view.length)
        return DH_E_ABSENT;
    dh_word *slot = dh_vec_slot(heap, view.vec, view.gap + index, &span);
    if (slot == NULL)
        return list_corrupt(heap, list);
    dh_word old = *slot;
    dh_store(slot, word);
    if (old != word)
        dh_value_drop(heap, old);
    return 0;
}

int dh_list_append(dh_heap *heap, dh_word list, dh_word word)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    /* What is appended moves nothing, but for the only leaf when it is replaced by a larger one. */
    dh_word root = view.vec[DH_VEC_ROOT];
    rc = dh_vec_push(heap, view.vec, word);
    if (view.vec[DH_VEC_ROOT] != root)
        heap->moves_count++;
    if (rc == 0)
        list_count_new(&view);
    return rc;
}

dh_word *dh_list_slots(dh_heap *heap, dh_word list, uint64_t index, uint64_t *span_out)
{
    list_view view;
    uint64_t span;
    if (list_open(heap, list, &view) != 0 || index >= view.length)
        return NULL;
    dh_word *slot = dh_vec_slot(heap, view.vec, view.gap + index, &span);
    if (slot == NULL)
        return NULL;
    *span_out = span < view.length - index ? span : view.length - index;
    return slot;
}

const dh_word *dh_list_span(dh_heap *heap, dh_word list, uint64_t index, uint64_t *span_out)
{
    return dh_list_slots(heap, list, index, span_out);
}

int dh_list_run_at(const dh_heap *heap, dh_word list, uint64_t index, dh_list_run *run_out)
{
    list_view view;
    dh_vec_run run;
    *run_out = (dh_list_run){.count = 0};
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    if (index >= view.length)
        return DH_E_ABSENT;
    if (!dh_vec_run_at(heap, view.vec, view.gap + index, &run))
        return list_corrupt(heap, list);
    uint64_t first = run.start > view.gap ? run.start : view.gap;
    uint64_t end = view.gap + view.length;
    *run_out = (dh_list_run){
        .words = run.first + (first - run.start),
        .first = first - view.gap,
        .count = (run.limit < end ? run.limit : end) - first,
        .moves_count = heap->moves_count,
        .shows_count = heap->shows_count,
    };
    return 0;
}

/* --- splice ----------------------------------------------------------------------------------- */

static void list_drop_range(dh_heap *heap, const list_view *view, uint64_t start, uint64_t count)
{
    uint64_t index = view->gap + start, limit = index + count, span;
    while (index < limit) {
        const dh_word *slot = dh_vec_slot(heap, view->vec, index, &span);
        if (slot == NULL)
            return;
        for (; span > 0 && index < limit; span--, index++)
            dh_value_drop(heap, *slot++);
    }
}

/* Does a change at start move the elements before it? behind: how many there are after it. */
static bool list_is_front(const list_view *view, uint64_t start, uint64_t behind)
{
    return view->vec[DH_VEC_DEPTH] != dh_int(0) && start <= LIST_FRONT_MAX && start < behind;
}

/* Make `more` EMPTY elements at start. All or nothing. */
static int list_open_hole(dh_heap *heap, list_view *view, uint64_t start, uint64_t more)
{
    bool is_front = list_is_front(view, start, view->length - start);
    if (is_front && start == 0 && view->gap < more && more <= DH_VEC_LEAF_WORDS) {
        int rc = dh_vec_insert(heap, view->vec, 0, NULL, DH_VEC_LEAF_WORDS);
        if (rc != 0)
            return rc;
        list_set_gap(view, view->gap + DH_VEC_LEAF_WORDS);
    }
    if (!is_front || view->gap < more)
        return dh_vec_insert(heap, view->vec, view->gap + start, NULL, more);
    int rc = dh_vec_move(heap, view->vec, view->gap - more, view->gap, start);
    if (rc == 0)
        list_set_gap(view, view->gap - more);
    return rc;
}

/* The gap becomes shorter by whole leaves, or goes. */
static int list_cut_gap(dh_heap *heap, list_view *view, uint64_t length)
{
    int rc = 0;
    /* Few elements behind a gap would keep a tree alive. */
    uint64_t kept = length <= DH_VEC_LEAF_WORDS / 4 ? 0 : DH_VEC_LEAF_WORDS;
    if (view->gap >= LIST_GAP_MAX || kept == 0) {
        uint64_t less = view->gap > kept ? view->gap - kept : 0;
        rc = dh_vec_remove(heap, view->vec, 0, less);
        if (rc == 0 && less > 0)
            list_set_gap(view, view->gap - less);
    }
    return rc;
}

/* Take out elements that were dropped already. Needs no memory. */
static int list_close_hole(dh_heap *heap, list_view *view, uint64_t start, uint64_t less)
{
    uint64_t behind = view->length - start - less, length = view->length - less;
    int rc;
    if (length == 0) {
        dh_vec_clear(heap, view->vec);
        list_set_gap(view, 0);
        return 0;
    }
    if (list_is_front(view, start, behind) && view->gap + less < 2 * LIST_GAP_MAX) {
        rc = dh_vec_move(heap, view->vec, view->gap + less, view->gap, start);
        if (rc == 0)
            rc = dh_vec_fill(heap, view->vec, view->gap, NULL, less);
        if (rc == 0)
            list_set_gap(view, view->gap + less);
    } else {
        rc = dh_vec_remove(heap, view->vec, view->gap + start, less);
    }
    return rc != 0 || view->gap == 0 ? rc : list_cut_gap(heap, view, length);
}

int dh_list_splice(dh_heap *heap, dh_word list, uint64_t start, uint64_t removed,
                   const dh_word *inserted, uint64_t inserted_count)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    if (start > view.length || removed > view.length - start)
        return DH_E_ABSENT;
    heap->moves_count++; /* also when this fails half way */
    if (inserted_count > removed) {
        rc = list_open_hole(heap, &view, start + removed, inserted_count - removed);
        if (rc != 0)
            return rc;
    }
    list_drop_range(heap, &view, start, removed);
    rc = dh_vec_fill(heap, view.vec, view.gap + start, inserted, inserted_count);
    if (rc == 0 && removed > inserted_count)
        rc = list_close_hole(heap, &view, start + inserted_count, removed - inserted_count);
    if (removed > 0 || inserted_count > 0)
        list_count_new(&view);
    return rc != 0 ? list_corrupt(heap, list) : 0;
}

int dhi_list_take(dh_heap *heap, dh_word list, uint64_t start, uint64_t count)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    if (start > view.length || count > view.length - start)
        return DH_E_ABSENT;
    list_count_change(heap, &view);
    return list_close_hole(heap, &view, start, count);
}

/* --- whole lists ------------------------------------------------------------------------------ */

int dh_list_reverse(dh_heap *heap, dh_word list)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    uint64_t low = view.gap, high = view.gap + view.length; /* exclusive */
    while (low + 1 < high) {
        dh_vec_run left, right;
        if (!dh_vec_run_at(heap, view.vec, low, &left) ||
            !dh_vec_run_at(heap, view.vec, high - 1, &right))
            return list_corrupt(heap, list);
        dh_word *from = left.first + (low - left.start), *to = right.first + (high - right.start);
        for (; low + 1 < high && low < left.limit && high > right.start; low++, high--) {
            dh_word kept = *from;
            dh_store(from++, *--to);
            dh_store(to, kept);
        }
    }
    return 0;
}

int dh_list_clear(dh_heap *heap, dh_word list)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    list_count_change(heap, &view);
    list_drop_range(heap, &view, 0, view.length);
    dh_vec_clear(heap, view.vec);
    list_set_gap(&view, 0);
    return 0;
}

/* --- check ------------------------------------------------------------------------------------ */

/* Slots [from, to) of the vector: EMPTY, or values. */
static bool slots_are(const dh_heap *heap, const list_view *view, uint64_t from, uint64_t to,
                      bool empty)
{
    uint64_t span;
    while (from < to) {
        const dh_word *slot = dh_vec_slot(heap, view->vec, from, &span);
        if (slot == NULL)
            return false;
        for (; span > 0 && from < to; span--, from++, slot++)
            if (empty ? *slot != DH_EMPTY : !dh_is_value(*slot))
                return false;
    }
    return true;
}

int dh_list_check(const dh_heap *heap, dh_word list)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc == 0)
        rc = dh_vec_check(heap, view.vec);
    if (rc == 0 && (!slots_are(heap, &view, 0, view.gap, true) ||
                    !slots_are(heap, &view, view.gap, view.gap + view.length, false)))
        rc = list_corrupt(heap, list);
    return rc;
}

/* list.c -- List: a head and a vector, with a gap before the first element.
 *
 * Contract: list.h. The gap (slots of the vector before element 0, all EMPTY) stands in the flags
 * of the head's meta word; it makes inserting and removing at the front as cheap as at the end.
 * A splice moves the shorter side. Only lists of several leaves have use for a gap: in one leaf a
 * memmove is cheaper than the bookkeeping.
 *
 * Nothing may fail after the first store of an operation, so room comes first; what remains is
 * damage, which is reported and may leave a damaged list otherwise damaged.
 */
#include "list.h"

#include "value.h"

#define LIST_GAP_LEAVES_MAX 16u

/* A checked list: where things stand. */
typedef struct {
    dh_word *head;
    dh_word *vec;
    uint64_t gap;
    uint64_t length;
} list_view;

static int list_corrupt(const dh_heap *heap, dh_word list)
{
    (void)dhi_fail(heap, DH_E_CORRUPT, "list %#llx is damaged", (unsigned long long)list);
    return DH_E_CORRUPT;
}

static inline int list_open(const dh_heap *heap, dh_word list, list_view *view_out)
{
    dh_word *head = dh_deref(heap, list, DH_T_LIST, DH_HEAD_BYTES);
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
    return 0;
}

static void list_set_gap(list_view *view, uint64_t gap)
{
    view->gap = gap;
    dh_store(&view->head[0], dh_meta(dh_meta_serial(view->head[0]), (unsigned)gap));
}

int dh_list_new(dh_heap *heap, dh_word *list_out)
{
    dh_off off;
    int rc = dh_cell_new(heap, DH_HEAD_BYTES, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, off);
    head[0] = dh_meta(dhi_serial_next(heap), 0);
    head[1 + DH_VEC_LENGTH] = dh_int(0);
    head[1 + DH_VEC_ROOT] = DH_EMPTY;
    head[1 + DH_VEC_DEPTH] = dh_int(0);
    *list_out = dh_ref(DH_T_LIST, off);
    return 0;
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
    return rc != 0 ? rc : dh_vec_push(heap, view.vec, word);
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

/* Store words (NULL: EMPTY) at slots of the vector. */
static int list_fill(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                     uint64_t count)
{
    while (count > 0) {
        uint64_t span;
        dh_word *slot = dh_vec_slot(heap, vec, index, &span);
        if (slot == NULL)
            return DH_E_CORRUPT;
        if (span > count)
            span = count;
        if (words != NULL) {
            memcpy(slot, words, (size_t)span * 8);
            words += span;
        } else {
            memset(slot, 0, (size_t)span * 8);
        }
        index += span;
        count -= span;
    }
    return 0;
}

/* How many leaves the gap grows and shrinks by: few, but in proportion, because each time all
 * refs to leaves move. */
static uint64_t list_gap_step(const list_view *view)
{
    uint64_t leaves = view->length / DH_VEC_LEAF_WORDS / 64 + 1;
    return leaves < LIST_GAP_LEAVES_MAX ? leaves : LIST_GAP_LEAVES_MAX;
}

/* Move the elements before start by shrinking or using the gap. Room for growth is there. */
static int list_shift_front(dh_heap *heap, list_view *view, uint64_t start, uint64_t removed,
                            uint64_t added)
{
    uint64_t from = view->gap, to = view->gap + removed - added;
    int rc = dh_vec_move(heap, view->vec, to, from, start);
    if (rc == 0 && to > from)
        rc = list_fill(heap, view->vec, from, NULL, to - from);
    if (rc == 0)
        list_set_gap(view, to);
    return rc;
}

static int list_shift_back(dh_heap *heap, list_view *view, uint64_t start, uint64_t removed,
                           uint64_t added)
{
    uint64_t slots = view->gap + view->length, first = view->gap + start;
    int rc = 0;
    if (added > removed)
        rc = dh_vec_set_length(heap, view->vec, slots + added - removed);
    if (rc == 0)
        rc = dh_vec_move(heap, view->vec, first + added, first + removed,
                         view->length - start - removed);
    return rc;
}

/* Does the front move, and if so is there a gap large enough? Opens one when it pays. */
static int list_prepare(dh_heap *heap, list_view *view, uint64_t start, uint64_t removed,
                        uint64_t added, bool *is_front_out)
{
    uint64_t back = view->length - start - removed, step = list_gap_step(view);
    bool is_deep = view->vec[DH_VEC_DEPTH] != dh_int(0);
    *is_front_out = false;
    if (added <= removed) {
        *is_front_out =
            is_deep && start < back &&
            view->gap + (removed - added) <= (uint64_t)LIST_GAP_LEAVES_MAX * 3 * DH_VEC_LEAF_WORDS;
        return 0;
    }
    uint64_t more = added - removed;
    if (!is_deep || start >= back || more > step * DH_VEC_LEAF_WORDS)
        return dh_vec_reserve(heap, view->vec, view->gap + view->length + more);
    *is_front_out = true;
    if (more <= view->gap)
        return 0;
    int rc = dh_vec_open_front(heap, view->vec, step);
    if (rc == 0)
        list_set_gap(view, view->gap + step * DH_VEC_LEAF_WORDS);
    return rc;
}

/* Give storage back after elements went away. */
static int list_settle(dh_heap *heap, list_view *view, uint64_t length)
{
    uint64_t step = list_gap_step(view), leaves = view->gap / DH_VEC_LEAF_WORDS;
    int rc = 0;
    if (length == 0) {
        dh_vec_clear(heap, view->vec);
        list_set_gap(view, 0);
        return 0;
    }
    if (view->gap + length != dh_vec_length(view->vec))
        rc = dh_vec_set_length(heap, view->vec, view->gap + length);
    if (rc == 0 && view->vec[DH_VEC_DEPTH] != dh_int(0) && leaves > 2 * step) {
        rc = dh_vec_close_front(heap, view->vec, leaves - step);
        if (rc == 0)
            list_set_gap(view, view->gap - (leaves - step) * DH_VEC_LEAF_WORDS);
    }
    /* Few elements behind a large gap would keep a tree alive. */
    if (rc == 0 && view->gap > 0 && length <= DH_VEC_LEAF_WORDS / 4) {
        rc = dh_vec_move(heap, view->vec, 0, view->gap, length);
        list_set_gap(view, 0);
        if (rc == 0)
            rc = dh_vec_set_length(heap, view->vec, length);
    }
    return rc;
}

int dh_list_splice(dh_heap *heap, dh_word list, uint64_t start, uint64_t removed,
                   const dh_word *inserted, uint64_t inserted_count)
{
    list_view view;
    bool is_front = false;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    if (start > view.length || removed > view.length - start)
        return DH_E_ABSENT;
    if (inserted_count != removed) {
        rc = list_prepare(heap, &view, start, removed, inserted_count, &is_front);
        if (rc != 0)
            return rc;
    }
    list_drop_range(heap, &view, start, removed);
    if (inserted_count != removed)
        rc = is_front ? list_shift_front(heap, &view, start, removed, inserted_count)
                      : list_shift_back(heap, &view, start, removed, inserted_count);
    if (rc == 0 && inserted_count > 0)
        rc = list_fill(heap, view.vec, view.gap + start, inserted, inserted_count);
    if (rc == 0 && removed > inserted_count)
        rc = list_settle(heap, &view, view.length - removed + inserted_count);
    return rc != 0 ? list_corrupt(heap, list) : 0;
}

/* --- whole lists ------------------------------------------------------------------------------ */

int dh_list_reverse(dh_heap *heap, dh_word list)
{
    list_view view;
    uint64_t span;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    for (uint64_t i = 0, j = view.length; i + 1 < j; i++) {
        j--;
        dh_word *low = dh_vec_slot(heap, view.vec, view.gap + i, &span);
        dh_word *high = dh_vec_slot(heap, view.vec, view.gap + j, &span);
        if (low == NULL || high == NULL)
            return list_corrupt(heap, list);
        dh_word kept = *low;
        dh_store(low, *high);
        dh_store(high, kept);
    }
    return 0;
}

int dh_list_clear(dh_heap *heap, dh_word list)
{
    list_view view;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
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
    uint64_t room = 0;
    int rc = list_open(heap, list, &view);
    if (rc != 0)
        return rc;
    uint64_t end = view.gap + view.length;
    bool has_room = dh_vec_slot(heap, view.vec, end, &room) != NULL;
    if (slots_are(heap, &view, 0, view.gap, true) && slots_are(heap, &view, view.gap, end, false) &&
        (!has_room || slots_are(heap, &view, end, end + room, true)))
        return 0;
    return list_corrupt(heap, list);
}

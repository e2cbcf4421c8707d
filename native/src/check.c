/* check.c -- walk everything that can be reached and hold it against the rules.
 *
 * A second traversal beside mark.c that knows the types: every ref must lead to an allocated cell
 * of the right content, every container must pass its own check. Must change nothing.
 */
#include <stdlib.h>

#include "array.h"
#include "buffer.h"
#include "deque.h"
#include "dict.h"
#include "dict_shape.h"
#include "ext.h"
#include "list.h"
#include "mark.h"
#include "record.h"
#include "set.h"
#include "sorted.h"

typedef struct {
    dh_heap *heap;
    dh_mark seen; /* only its bits are used */
    dh_word *stack;
    size_t count, room;
    uint64_t cells_count, problems_count;
    char first_problem[sizeof((dh_heap *)0)->error_text];
    int rc;
} checker;

static bool type_is_raw(dh_type type)
{
    return type == DH_T_STR || type == DH_T_BYTES || type == DH_T_FLOAT || type == DH_T_BIGINT ||
           type == DH_T_EXT || type == DH_T_BUCKET || type == DH_T_DATA;
}

static void problem(checker *check, dh_word w)
{
    if (check->problems_count++ == 0) {
        if (check->heap->error_text[0] == '\0')
            (void)dhi_fail(check->heap, DH_E_CORRUPT, "a bad reference %#llx",
                           (unsigned long long)w);
        memcpy(check->first_problem, check->heap->error_text, sizeof check->first_problem);
    }
}

static bool mark_first_time(checker *check, dh_off off)
{
    unsigned granule = (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;
    uint64_t *bits = &check->seen.bits[off >> DH_PAGE_SHIFT].bits[granule / 64];
    uint64_t bit = (uint64_t)1 << (granule % 64);
    bool first = !(*bits & bit);
    *bits |= bit;
    return first;
}

static void visit(checker *check, dh_word w)
{
    if (!dh_is_ref(w))
        return;
    if (check->count == check->room) {
        size_t room = check->room ? check->room * 2 : 4096;
        dh_word *stack = realloc(check->stack, room * sizeof *stack);
        if (stack == NULL) {
            check->rc = ENOMEM;
            return;
        }
        check->stack = stack;
        check->room = room;
    }
    check->stack[check->count++] = w;
}

static int check_tuple(const dh_heap *heap, dh_word w)
{
    const dh_word *words;
    size_t count;
    int rc = dh_tuple_read(heap, w, &words, &count);
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (!dh_is_value(words[i]))
            rc = dhi_fail(heap, DH_E_CORRUPT, "a tuple's word %#llx is no value",
                          (unsigned long long)words[i]);
    return rc;
}

static int check_frozenset(const dh_heap *heap, dh_word w)
{
    const dh_word *words;
    size_t count;
    int rc = check_tuple(heap, w);
    if (rc == 0)
        rc = dh_tuple_read(heap, w, &words, &count);
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (dh_is_container(words[i]) && !dh_is_ref_to(words[i], DH_T_RECORD))
            rc = dhi_fail(heap, DH_E_CORRUPT, "a frozenset holds a container, %#llx",
                          (unsigned long long)words[i]);
    return rc;
}

/* What holds for the heads of all containers. */
static int check_head(const dh_heap *heap, dh_word w)
{
    const dh_word *head = dh_deref(heap, w, dh_ref_type(w), DH_HEAD_BYTES);
    if (head != NULL && dh_is_meta(head[0]) && dh_meta_serial(head[0]) < heap->serial_next)
        return 0;
    return dhi_fail(heap, DH_E_CORRUPT, "the head of container %#llx is damaged",
                    (unsigned long long)w);
}

static int check_type(const dh_heap *heap, dh_word w)
{
    dh_bytes_view view;
    uint64_t length;
    uint8_t *data;
    double number;
    bool sign;

    switch (dh_ref_type(w)) {
    case DH_T_STR:
    case DH_T_BYTES:
        return dh_bytes_read(heap, w, &view);
    case DH_T_FLOAT:
        return dh_float_read(heap, w, &number);
    case DH_T_BIGINT:
        return dh_bigint_read(heap, w, &sign, &view);
    case DH_T_EXT:
        return dh_ext_check(heap, w);
    case DH_T_TUPLE:
        return check_tuple(heap, w);
    case DH_T_FROZENSET:
        return check_frozenset(heap, w);
    case DH_T_DICT:
        return dh_dict_check((dh_heap *)(uintptr_t)heap, w);
    case DH_T_SET:
        return dh_set_check((dh_heap *)(uintptr_t)heap, w);
    case DH_T_LIST:
        return dh_list_check(heap, w);
    case DH_T_SORTED:
        return dh_sorted_check(heap, w);
    case DH_T_DEQUE:
        return dh_deque_check(heap, w);
    case DH_T_BUFFER:
        return dh_buffer_read(heap, w, &data, &length);
    case DH_T_ARRAY:
        return dh_array_check(heap, w);
    case DH_T_SHAPE:
        return dhi_shape_check(heap, w);
    case DH_T_SHAPES:
        return dhi_shapes_check(heap, w);
    case DH_T_RECORD:
        return dh_record_check(heap, w);
    case DH_T_CLASS:
        return dh_class_check(heap, w);
    case DH_T_CLASSES:
        return dh_classes_check(heap, w);
    case DH_T_VALUES:
    case DH_T_ENTRIES:
    case DH_T_BUCKET:
    case DH_T_DIR:
    case DH_T_BIG:
    case DH_T_LEAF:
    case DH_T_NODE:
    case DH_T_RNODE:
    case DH_T_DATA:
    case DH_T_FIELDS:
    case DH_T_SORTED_LEAF:
    case DH_T_SORTED_NODE:
        return 0; /* checked with their owner */
    default:
        return dhi_fail(heap, DH_E_CORRUPT, "a reference of unknown type %u",
                        (unsigned)dh_ref_type(w));
    }
}

static void check_ref(checker *check, dh_word w)
{
    dh_heap *heap = check->heap;
    dh_off off = dh_ref_off(w);

    heap->error_text[0] = '\0';
    if (!dh_cell_is_allocated(heap, off)) {
        problem(check, w);
        return;
    }
    bool is_raw = (heap->alloc.kind[off >> DH_PAGE_SHIFT] & 1u) == DH_RAW;
    if (is_raw != type_is_raw(dh_ref_type(w))) {
        problem(check, w);
        return;
    }
    if (!mark_first_time(check, off))
        return;
    check->cells_count++;
    if ((dh_is_container(w) && check_head(heap, w) != 0) || check_type(heap, w) != 0)
        problem(check, w);
    if (is_raw)
        return;
    const dh_word *words = dh_at(heap, off);
    size_t count = dh_cell_bytes(heap, off) / sizeof *words;
    for (size_t i = 0; i < count; i++)
        visit(check, words[i]);
}

int dh_check(dh_heap *heap, uint64_t *cells_out, uint64_t *problems_out)
{
    checker check = {.heap = heap};
    int rc;

    dhi_world_stop(heap);
    rc = dh_mark_init(&check.seen, heap, 1);
    if (rc == 0) {
        visit(&check, heap->root);
        while (check.rc == 0 && check.count > 0)
            check_ref(&check, check.stack[--check.count]);
        rc = check.rc;
        dh_mark_finish(&check.seen);
    }
    free(check.stack);
    memcpy(heap->error_text, check.first_problem, sizeof heap->error_text);
    dhi_world_resume(heap);
    *cells_out = check.cells_count;
    *problems_out = check.problems_count;
    return rc;
}

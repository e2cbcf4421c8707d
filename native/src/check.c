/* check.c -- the rules of one cell: what a reference of each type must lead to.
 *
 * Every container passes its own check here, every value is read once. Which cells there are, how
 * they hang together and how a problem is named is for verify_walk.c. Must change nothing.
 */
#include "array.h"
#include "buffer.h"
#include "deque.h"
#include "dict.h"
#include "dict_shape.h"
#include "ext.h"
#include "list.h"
#include "record.h"
#include "set.h"
#include "sorted.h"
#include "verify.h"

bool dhi_type_is_raw(dh_type type)
{
    return type == DH_T_STR || type == DH_T_BYTES || type == DH_T_FLOAT || type == DH_T_BIGINT ||
           type == DH_T_EXT || type == DH_T_BUCKET || type == DH_T_DATA;
}

/* One character of more than a byte as Python's codec takes it, surrogates included; its bytes, or
 * 0. The bounds of the second byte keep out what has a shorter form and what is beyond U+10FFFF. */
static size_t utf8_character(const uint8_t *at, size_t left)
{
    uint8_t first = at[0], low = 0x80, high = 0xbf;
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;

    if (first < 0xc2 || first > 0xf4 || left < size)
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if ((at[i] & 0xc0u) != 0x80)
            return 0;
    return size;
}

static bool text_is_valid(const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint64_t eight;
        if (at + 8 <= size) {
            memcpy(&eight, data + at, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                at += 8;
                continue;
            }
        }
        size_t step = data[at] < 0x80 ? 1 : utf8_character(data + at, size - at);
        if (step == 0)
            return false;
        at += step;
    }
    return true;
}

static int check_text(const dh_heap *heap, dh_word w)
{
    dh_bytes_view view;
    int rc = dh_bytes_read(heap, w, &view);
    if (rc == 0 && dh_ref_type(w) == DH_T_STR && !text_is_valid(view.data, view.size))
        rc = dhi_fail(heap, DH_E_CORRUPT, "a text is damaged: it is no UTF-8");
    return rc;
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
        return check_text(heap, w);
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

int dhi_check_cell(const dh_heap *heap, dh_word w)
{
    int rc = dh_is_container(w) ? check_head(heap, w) : 0;
    return rc != 0 ? rc : check_type(heap, w);
}

/* Constants, and DELETED with what a dict notes beside it. */
static bool constant_is_valid(dh_word w) { return w <= DH_DELETED || (w & 0xffu) == DH_DELETED; }

/* Equal short strings have equal words (W2): nothing stands behind the end. */
static bool short_is_valid(dh_word w)
{
    size_t size = dh_short_size(w);
    uint8_t bytes[8];
    dh_short_copy(w, bytes);
    return (w & 0x80u) == 0 && (size == DH_SHORT_BYTES_MAX || w >> 8 >> (8 * size) == 0) &&
           (dh_short_is_bytes(w) || text_is_valid(bytes, size));
}

bool dhi_check_word(dh_word w, uint64_t index)
{
    switch (w & 7u) {
    case 2:
        return short_is_valid(w);
    case 6:
        return dh_is_meta(w) ? index == 0 : constant_is_valid(w);
    default:
        return true;
    }
}

/* array.c -- Array heads, and the proof that a description stays inside its Buffer.
 *
 * What numpy is told later it believes: type, shape, strides and offset become addresses unchecked.
 * So every description is walked here before it is stored, each time it is read, and by verify().
 * Must never store to the Buffer, and never trust a number of a description before it was bounded.
 */
#include "array.h"

#include "buffer.h"
#include "value.h"

#define DTYPE_DEPTH_MAX 32u
#define DTYPE_PARTS_MAX 65536u /* a damaged file may link one part a thousand times */
#define BYTES_MAX ((uint64_t)DH_INT_MAX)

static int damaged(const dh_heap *heap, const char *what)
{
    (void)dhi_fail(heap, DH_E_CORRUPT, "an array's description has %s", what);
    return DH_E_CORRUPT;
}

/* --- parts of a description ------------------------------------------------------------------- */

/* The words of a tuple of min to max elements. */
static int tuple_parts(const dh_heap *heap, dh_word w, size_t min, size_t max,
                       const dh_word **words_out, size_t *count_out)
{
    int rc = dh_is_ref_to(w, DH_T_TUPLE) ? dh_tuple_read(heap, w, words_out, count_out)
                                         : damaged(heap, "something else in place of a tuple");
    if (rc == 0 && (*count_out < min || *count_out > max))
        rc = damaged(heap, "a tuple of the wrong length");
    return rc;
}

static int count_part(const dh_heap *heap, dh_word w, uint64_t max, uint64_t *value_out)
{
    if (!dh_is_int(w) || dh_int_value(w) < 0 || (uint64_t)dh_int_value(w) > max)
        return damaged(heap, "a size that cannot be");
    *value_out = (uint64_t)dh_int_value(w);
    return 0;
}

/* *bytes times the product of a shape. Zero extents do not excuse the others: numpy multiplies
 * them all before it looks. */
static int shape_bytes(const dh_heap *heap, const dh_word *shape, size_t count, uint64_t *bytes)
{
    uint64_t room = *bytes > 1 ? *bytes : 1, dim = 0;
    bool is_empty = *bytes == 0;
    for (size_t i = 0; i < count; i++) {
        int rc = count_part(heap, shape[i], BYTES_MAX, &dim);
        if (rc != 0)
            return rc;
        is_empty |= dim == 0;
        if (__builtin_mul_overflow(room, dim > 1 ? dim : 1, &room) || room > BYTES_MAX)
            return damaged(heap, "a shape that overflows");
    }
    *bytes = is_empty ? 0 : room;
    return 0;
}

/* --- dtypes ----------------------------------------------------------------------------------- */

/* What is left of the checks of one dtype. */
typedef struct {
    const dh_heap *heap;
    unsigned depth, parts;
} dtype_walk;

static int dtype_bytes(dtype_walk *walk, dh_word dtype, uint64_t *bytes_out);

/* The text of a str of at most 63 bytes. */
static bool short_text(const dh_heap *heap, dh_word w, char text[64])
{
    dh_bytes_view view;
    memset(text, 0, 64);
    if (dh_is_short(w) && !dh_short_is_bytes(w)) {
        uint8_t content[8];
        dh_short_copy(w, content);
        memcpy(text, content, dh_short_size(w));
        return memchr(content, 0, dh_short_size(w)) == NULL;
    }
    if (!dh_is_ref_to(w, DH_T_STR) || dh_bytes_read(heap, w, &view) != 0 || view.size > 63 ||
        memchr(view.data, 0, view.size) != NULL)
        return false;
    memcpy(text, view.data, view.size);
    return true;
}

/* "[25ns]": a multiple and a unit, or a unit alone. */
static bool is_time_unit(const char *text)
{
    static const char *const units[] = {"Y",  "M",  "W",  "D",  "h",  "m", "s",
                                        "ms", "us", "ns", "ps", "fs", "as"};
    size_t digits = strspn(text + 1, "0123456789");
    const char *unit = text + 1 + digits;
    if (text[0] != '[' || digits > 9 || (digits > 0 && text[1] == '0'))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t size = strlen(units[i]);
        if (strncmp(unit, units[i], size) == 0 && strcmp(unit + size, "]") == 0)
            return true;
    }
    return false;
}

static bool is_number_size(char kind, uint64_t bytes)
{
    switch (kind) {
    case 'b':
        return bytes == 1;
    case 'i':
    case 'u':
        return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
    case 'f':
        return bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16;
    case 'c':
        return bytes == 8 || bytes == 16 || bytes == 32;
    default:
        return bytes == 8; /* m, M */
    }
}

/* Order, kind, digits, and for times a unit: nothing that numpy would have to interpret further. */
static int plain_bytes(const dh_heap *heap, dh_word dtype, uint64_t *bytes_out)
{
    char text[64];
    uint64_t bytes = 0;
    if (!short_text(heap, dtype, text) || text[0] == '\0' || strchr("<>|", text[0]) == NULL ||
        text[1] == '\0' || strchr("biufcmMSUV", text[1]) == NULL)
        return damaged(heap, "an unknown type");
    size_t digits = strspn(text + 2, "0123456789");
    const char *rest = text + 2 + digits;
    if (digits == 0 || digits > 18 || (digits > 1 && text[2] == '0'))
        return damaged(heap, "a type without a sound size");
    for (size_t i = 0; i < digits; i++)
        bytes = bytes * 10 + (uint64_t)(text[2 + i] - '0');
    bool is_text = strchr("SUV", text[1]) != NULL;
    bool is_time = strchr("mM", text[1]) != NULL;
    if ((*rest != '\0' && !(is_time && is_time_unit(rest))) ||
        (!is_text && !is_number_size(text[1], bytes)))
        return damaged(heap, "an unknown type");
    *bytes_out = text[1] == 'U' ? bytes * 4 : bytes;
    return 0;
}

static int subarray_bytes(dtype_walk *walk, const dh_word parts[2], uint64_t *bytes_out)
{
    const dh_word *shape;
    size_t count;
    int rc = dtype_bytes(walk, parts[0], bytes_out);
    if (rc == 0)
        rc = tuple_parts(walk->heap, parts[1], 1, DH_ARRAY_DIMS_MAX, &shape, &count);
    return rc == 0 ? shape_bytes(walk->heap, shape, count, bytes_out) : rc;
}

static bool is_text_word(dh_word w)
{
    return (dh_is_short(w) && !dh_short_is_bytes(w)) || dh_is_ref_to(w, DH_T_STR);
}

/* (name, offset, dtype, title) inside a structure of that many bytes. */
static int check_field(dtype_walk *walk, dh_word field, uint64_t bytes)
{
    const dh_word *parts;
    size_t count;
    uint64_t offset = 0, size = 0;
    int rc = tuple_parts(walk->heap, field, 4, 4, &parts, &count);
    if (rc == 0 && (!is_text_word(parts[0]) || !(parts[3] == DH_NONE || is_text_word(parts[3]))))
        rc = damaged(walk->heap, "a field whose name is no text");
    if (rc == 0)
        rc = count_part(walk->heap, parts[1], bytes, &offset);
    if (rc == 0)
        rc = dtype_bytes(walk, parts[2], &size);
    if (rc == 0 && size > bytes - offset)
        rc = damaged(walk->heap, "a field outside its structure");
    return rc;
}

static int structure_bytes(dtype_walk *walk, const dh_word parts[3], uint64_t *bytes_out)
{
    const dh_word *fields;
    size_t count;
    uint64_t bytes = 0, flags;
    int rc = count_part(walk->heap, parts[0], BYTES_MAX, &bytes);
    if (rc == 0)
        rc = count_part(walk->heap, parts[1], DH_DTYPE_FLAGS, &flags);
    if (rc == 0)
        rc = tuple_parts(walk->heap, parts[2], 0, DTYPE_PARTS_MAX, &fields, &count);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = check_field(walk, fields[i], bytes);
    if (rc == 0)
        *bytes_out = bytes;
    return rc;
}

/* Bytes of one element. */
static int dtype_bytes(dtype_walk *walk, dh_word dtype, uint64_t *bytes_out)
{
    const dh_word *parts;
    size_t count;
    if (walk->parts++ >= DTYPE_PARTS_MAX)
        return damaged(walk->heap, "a type of too many parts");
    if (!dh_is_ref_to(dtype, DH_T_TUPLE))
        return plain_bytes(walk->heap, dtype, bytes_out);
    if (walk->depth >= DTYPE_DEPTH_MAX)
        return damaged(walk->heap, "a type that is nested too deep");
    walk->depth++;
    int rc = tuple_parts(walk->heap, dtype, 2, 3, &parts, &count);
    if (rc == 0)
        rc = count == 2 ? subarray_bytes(walk, parts, bytes_out)
                        : structure_bytes(walk, parts, bytes_out);
    walk->depth--;
    return rc;
}

/* --- the whole -------------------------------------------------------------------------------- */

/* Furthest bytes below and above the offset that shape and strides reach, the element included. */
static int reach(const dh_heap *heap, const dh_word *shape, const dh_word *strides, size_t count,
                 uint64_t element_bytes, uint64_t *below_out, uint64_t *above_out)
{
    uint64_t below = 0, above = element_bytes;
    for (size_t i = 0; i < count; i++) {
        if (!dh_is_int(strides[i]))
            return damaged(heap, "a stride that is no number");
        int64_t stride = dh_int_value(strides[i]);
        uint64_t steps = (uint64_t)dh_int_value(shape[i]), far;
        uint64_t step = (uint64_t)(stride < 0 ? -stride : stride),
                 *side = stride < 0 ? &below : &above;
        if (__builtin_mul_overflow(steps > 0 ? steps - 1 : 0, step, &far) ||
            __builtin_add_overflow(*side, far, side) || *side > BYTES_MAX)
            return damaged(heap, "strides that overflow");
    }
    *below_out = below;
    *above_out = above;
    return 0;
}

/* numpy would make axes of it. */
static bool is_subarray(const dh_heap *heap, dh_word dtype)
{
    const dh_word *parts;
    size_t count;
    return dh_is_ref_to(dtype, DH_T_TUPLE) && dh_tuple_read(heap, dtype, &parts, &count) == 0 &&
           count == 2;
}

static int check_description(const dh_heap *heap, dh_word description, uint64_t buffer_bytes)
{
    const dh_word *parts, *shape, *strides;
    size_t count, dims, strides_count;
    uint64_t element_bytes = 0, total, offset = 0, below = 0, above = 0;
    dtype_walk walk = {heap, 0, 0};
    int rc = tuple_parts(heap, description, 4, 4, &parts, &count);
    if (rc == 0 && is_subarray(heap, parts[0]))
        rc = damaged(heap, "a subarray as its type");
    if (rc == 0)
        rc = dtype_bytes(&walk, parts[0], &element_bytes);
    if (rc == 0)
        rc = tuple_parts(heap, parts[1], 0, DH_ARRAY_DIMS_MAX, &shape, &dims);
    if (rc == 0)
        rc = tuple_parts(heap, parts[2], dims, dims, &strides, &strides_count);
    if (rc == 0)
        rc = count_part(heap, parts[3], buffer_bytes, &offset);
    total = element_bytes;
    if (rc == 0)
        rc = shape_bytes(heap, shape, dims, &total);
    if (rc == 0)
        rc = reach(heap, shape, strides, dims, element_bytes, &below, &above);
    if (rc == 0 && total > 0 && (below > offset || above > buffer_bytes - offset))
        rc = damaged(heap, "a window that leaves its buffer");
    return rc;
}

int dh_array_new(dh_heap *heap, dh_word buffer, dh_word description, dh_word *array_out)
{
    dh_off off;
    uint8_t *data;
    uint64_t bytes;
    int rc = dh_buffer_read(heap, buffer, &data, &bytes);
    if (rc == 0)
        rc = check_description(heap, description, bytes);
    if (rc == 0)
        rc = dh_cell_new(heap, DH_HEAD_BYTES, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, off);
    dh_store(&head[1], buffer);
    dh_store(&head[2], description);
    dh_store(&head[0], dh_meta(dhi_serial_next(heap), 0));
    *array_out = dh_ref(DH_T_ARRAY, off);
    return 0;
}

int dh_array_buffer(const dh_heap *heap, dh_word array, dh_word *buffer_out)
{
    const dh_word *head = dh_deref(heap, array, DH_T_ARRAY, DH_HEAD_BYTES);
    if (head == NULL || !dh_is_meta(head[0]) || !dh_is_ref_to(head[1], DH_T_BUFFER))
        return dhi_fail(heap, DH_E_CORRUPT, "a damaged array head");
    *buffer_out = head[1];
    return 0;
}

int dh_array_read(const dh_heap *heap, dh_word array, dh_word *buffer_out, dh_word *description_out)
{
    dh_word buffer;
    uint8_t *data;
    uint64_t bytes;
    int rc = dh_array_buffer(heap, array, &buffer);
    if (rc == 0)
        rc = dh_buffer_read(heap, buffer, &data, &bytes);
    if (rc != 0)
        return rc;
    dh_word description = dh_load((const dh_word *)dh_at(heap, dh_ref_off(array)) + 2);
    rc = check_description(heap, description, bytes);
    if (rc == 0) {
        *buffer_out = buffer;
        *description_out = description;
    }
    return rc;
}

int dh_array_check(const dh_heap *heap, dh_word array)
{
    dh_word buffer, description;
    return dh_array_read(heap, array, &buffer, &description);
}

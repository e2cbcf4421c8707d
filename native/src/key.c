/* key.c -- keys: one canonical form for all values that compare equal.
 *
 * Contract: value.h. Numbers equal across int, bool, float and big int end in the same tag and
 * bytes, as in Python (docs.python.org/3/library/stdtypes.html, "Hashing of numeric types"): what
 * fits an int64 is 'i', other integers are 'I', other numbers a float can be 'f'; rationals beyond
 * these come packed, as 'q'. All NaNs are one key. A frozenset is the sorted concatenation of its
 * elements. Stored words
 * may come from a damaged file: a tuple's canonical bytes are bounded by what the heap holds.
 */
#include "ext.h"
#include "siphash.h"
#include "value_private.h"

#include <math.h>
#include <stdlib.h>

#define KEY_ELEMENT_HEAD_BYTES 5u /* tag, u32 size */
#define KEY_NAN_BITS 0x7ff8000000000000u

/* --- from values that the caller has ---------------------------------------------------------- */

static void key_hash(const dh_heap *heap, dh_key *key)
{
    if (key->tag == 'i')
        key->hash = dh_siphash13_u64(heap->hash_key, (uint64_t)key->number);
    else if (key->tag == 'r')
        key->hash = dh_siphash13_u64(heap->hash_key, ~(uint64_t)key->number);
    else if (key->tag == 'n')
        key->hash = dh_siphash13_u64(heap->hash_key, DH_NONE);
    else
        key->hash = dh_siphash13(heap->hash_key, key->data, key->size);
}

static void key_set(dh_key *key, uint8_t tag, dh_word word, const uint8_t *data, size_t size)
{
    key->hash = 0;
    key->word = word;
    key->tag = tag;
    key->number = 0;
    key->data = data;
    key->size = size;
}

static void key_set_int(dh_key *key, int64_t v)
{
    key_set(key, 'i', dh_int_fits(v) ? dh_int(v) : 0, NULL, 8);
    key->number = v;
}

/* data: sign byte, magnitude. */
static void key_set_bigint(dh_key *key, const uint8_t *data, size_t size)
{
    int64_t v;
    if (size <= 9 && dhi_magnitude_fits(data[0] != 0, data + 1, size - 1, &v))
        key_set_int(key, v);
    else
        key_set(key, 'I', 0, data, size);
}

/* |d| >= 2^63 as sign byte and magnitude, from the bits of the double: mantissa * 2^shift. */
static size_t key_float_magnitude(double d, uint8_t scratch[DH_KEY_SCRATCH_BYTES])
{
    uint64_t bits;
    memcpy(&bits, &d, 8);
    uint64_t mantissa = (bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52;
    unsigned shift = ((unsigned)(bits >> 52) & 0x7ffu) - 1075u;
    uint64_t low = mantissa << shift % 8;
    size_t size = shift / 8 + 8;

    memset(scratch, 0, DH_KEY_SCRATCH_BYTES);
    scratch[0] = (uint8_t)(bits >> 63);
    memcpy(scratch + 1 + shift / 8, &low, 8);
    while (scratch[size] == 0)
        size--;
    return size + 1;
}

static void key_set_float(dh_key *key, double d, uint8_t scratch[DH_KEY_SCRATCH_BYTES])
{
    dh_word word;
    uint64_t bits = KEY_NAN_BITS;
    if (d >= -0x1p63 && d < 0x1p63 && d == (double)(int64_t)d) {
        key_set_int(key, (int64_t)d);
    } else if (isfinite(d) && (d >= 0x1p63 || d < -0x1p63)) {
        key_set(key, 'I', 0, scratch, key_float_magnitude(d, scratch));
    } else {
        if (!isnan(d))
            memcpy(&bits, &d, 8);
        memcpy(scratch, &bits, 8);
        key_set(key, 'f', dh_float_fits(d, &word) ? word : 0, scratch, 8);
    }
}

static void key_set_text(dh_key *key, uint8_t tag, const uint8_t *data, size_t size)
{
    dh_word word = size <= DH_SHORT_BYTES_MAX ? dh_short(data, size, tag == 'b') : 0;
    key_set(key, tag, word, data, size);
}

/* No hash. The bytes may come from a damaged file. */
static int key_set_canonical(const dh_heap *heap, uint8_t tag, const uint8_t *data, size_t size,
                             uint8_t scratch[DH_KEY_SCRATCH_BYTES], dh_key *key)
{
    int64_t v;
    double d;
    if (tag == 0)
        return DH_E_UNHASHABLE;
    if (tag == 'i' && size == sizeof v) {
        memcpy(&v, data, sizeof v);
        key_set_int(key, v);
    } else if (tag == 'f' && size == sizeof d) {
        memcpy(&d, data, sizeof d);
        key_set_float(key, d, scratch);
    } else if (tag == 'I' && size > 1 && data[0] <= 1 && data[size - 1] != 0) {
        key_set_bigint(key, data, size);
    } else if (tag == 's' || tag == 'b') {
        key_set_text(key, tag, data, size);
    } else if (tag == 't' || tag == 'q' || tag == 'x') {
        key_set(key, tag, 0, data, size);
    } else {
        return dhi_fail(heap, DH_E_CORRUPT, "a packed value has no key of tag %u", (unsigned)tag);
    }
    return 0;
}

int dh_key_from_canonical(const dh_heap *heap, uint8_t tag, const uint8_t *data, size_t size,
                          uint8_t scratch[DH_KEY_SCRATCH_BYTES], dh_key *key_out)
{
    int rc = key_set_canonical(heap, tag, data, size, scratch, key_out);
    if (rc == 0)
        key_hash(heap, key_out);
    return rc;
}

void dh_key_from_int(const dh_heap *heap, int64_t v, dh_key *key_out)
{
    key_set_int(key_out, v);
    key_hash(heap, key_out);
}

void dh_key_from_none(const dh_heap *heap, dh_key *key_out)
{
    key_set(key_out, 'n', DH_NONE, NULL, 0);
    key_hash(heap, key_out);
}

static int key_set_record(const dh_heap *heap, dh_word record, dh_key *key)
{
    const dh_word *head = dh_deref(heap, record, DH_T_RECORD, DH_HEAD_BYTES);
    if (head == NULL || !dh_is_meta(head[0]))
        return dhi_fail(heap, DH_E_CORRUPT, "record %#llx is damaged", (unsigned long long)record);
    key_set(key, 'r', record, NULL, 8);
    key->number = (int64_t)dh_meta_serial(head[0]);
    return 0;
}

int dh_key_from_record(const dh_heap *heap, dh_word record, dh_key *key_out)
{
    int rc = key_set_record(heap, record, key_out);
    if (rc == 0)
        key_hash(heap, key_out);
    return rc;
}

void dh_key_from_str(const dh_heap *heap, const uint8_t *utf8, size_t size, dh_key *key_out)
{
    key_set_text(key_out, 's', utf8, size);
    key_hash(heap, key_out);
}

void dh_key_from_bytes(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out)
{
    key_set_text(key_out, 'b', data, size);
    key_hash(heap, key_out);
}

void dh_key_from_float(const dh_heap *heap, double d, uint8_t *scratch, dh_key *key_out)
{
    key_set_float(key_out, d, scratch);
    key_hash(heap, key_out);
}

void dh_key_from_bigint(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out)
{
    key_set_bigint(key_out, data, size);
    key_hash(heap, key_out);
}

void dh_key_from_tuple(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out)
{
    key_set(key_out, 't', 0, data, size);
    key_hash(heap, key_out);
}

void dh_key_from_frozenset(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out)
{
    key_set(key_out, 'z', 0, data, size);
    key_hash(heap, key_out);
}

static const uint8_t *key_canonical(const dh_key *key)
{
    return key->tag == 'i' || key->tag == 'r' ? (const uint8_t *)&key->number : key->data;
}

size_t dh_key_encode(const dh_key *key, uint8_t *out, size_t room)
{
    size_t need = KEY_ELEMENT_HEAD_BYTES + key->size;
    uint32_t size32 = (uint32_t)key->size;
    if (need > room)
        return need;
    out[0] = key->tag;
    memcpy(out + 1, &size32, 4);
    if (key->size > 0)
        memcpy(out + KEY_ELEMENT_HEAD_BYTES, key_canonical(key), key->size);
    return need;
}

/* --- order of elements ------------------------------------------------------------------------ */

static size_t element_size(const uint8_t *element)
{
    uint32_t size32;
    memcpy(&size32, element + 1, 4);
    return KEY_ELEMENT_HEAD_BYTES + (size_t)size32;
}

/* Equal sizes where the first five bytes are equal: memcmp never leaves an element. */
static int compare_elements(const void *a, const void *b)
{
    const uint8_t *x = *(const uint8_t *const *)a, *y = *(const uint8_t *const *)b;
    int head = memcmp(x, y, KEY_ELEMENT_HEAD_BYTES);
    return head != 0 ? head : memcmp(x, y, element_size(x));
}

int dh_key_sort_elements(uint8_t *data, size_t size)
{
    size_t count = 0, done = 0, at;
    for (at = 0; at < size; at += element_size(data + at))
        count++;
    if (count < 2)
        return 0;
    const uint8_t **elements = malloc(count * sizeof *elements);
    uint8_t *copy = malloc(size);
    if (elements == NULL || copy == NULL) {
        free(elements);
        free(copy);
        return ENOMEM;
    }
    memcpy(copy, data, size);
    for (at = 0, count = 0; at < size; at += element_size(copy + at))
        elements[count++] = copy + at;
    qsort(elements, count, sizeof *elements, compare_elements);
    for (size_t i = 0; i < count; i++) {
        memcpy(data + done, elements[i], element_size(elements[i]));
        done += element_size(elements[i]);
    }
    free(elements);
    free(copy);
    return 0;
}

/* --- from stored words ------------------------------------------------------------------------ */

static int key_set_ref(const dh_heap *heap, dh_word w, uint8_t scratch[DH_KEY_SCRATCH_BYTES],
                       dh_key *key)
{
    dh_bytes_view view;
    dh_ext_view ext;
    double d;
    int rc;
    switch (dh_ref_type(w)) {
    case DH_T_STR:
    case DH_T_BYTES:
        rc = dh_bytes_read(heap, w, &view);
        if (rc == 0)
            key_set_text(key, dh_ref_type(w) == DH_T_STR ? 's' : 'b', view.data, view.size);
        return rc;
    case DH_T_FLOAT:
        rc = dh_float_read(heap, w, &d);
        if (rc == 0)
            key_set_float(key, d, scratch);
        return rc;
    case DH_T_EXT:
        rc = dh_ext_read(heap, w, &ext);
        return rc != 0 ? rc
                       : key_set_canonical(heap, ext.key_tag, ext.key, ext.key_size, scratch, key);
    case DH_T_RECORD:
        return key_set_record(heap, w, key);
    default:
        return DH_E_UNHASHABLE;
    }
}

/* Everything but tuples, frozensets and big integers, whose canonical bytes do not stand in one place; no
 * hash. Key data may point to scratch or into the arena. */
static int key_set_simple(const dh_heap *heap, dh_word w, uint8_t scratch[DH_KEY_SCRATCH_BYTES],
                          dh_key *key)
{
    if (dh_is_int(w)) {
        key_set_int(key, dh_int_value(w));
    } else if (dh_is_short(w)) {
        dh_short_copy(w, scratch);
        key_set_text(key, dh_short_is_bytes(w) ? 'b' : 's', scratch, dh_short_size(w));
    } else if (dh_is_float(w)) {
        key_set_float(key, dh_float_value(w), scratch);
    } else if (w == DH_TRUE || w == DH_FALSE) {
        key_set_int(key, w == DH_TRUE);
    } else if (w == DH_NONE) {
        key_set(key, 'n', DH_NONE, NULL, 0);
    } else if (dh_is_ref(w)) {
        return key_set_ref(heap, w, scratch, key);
    } else {
        return dhi_fail(heap, DH_E_CORRUPT, "word %#llx is no value", (unsigned long long)w);
    }
    return 0;
}

/* Canonical bytes in the making, in malloc'd memory. */
typedef struct {
    uint8_t *data;
    size_t size;
    size_t room;
    uint64_t limit; /* no sound heap has more */
} key_writer;

static int writer_room(const dh_heap *heap, key_writer *writer, size_t more)
{
    if (writer->size + more > UINT32_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a tuple of more than 4 GiB cannot be a key");
    if (writer->size + more > writer->limit)
        return dhi_fail(heap, DH_E_CORRUPT, "a tuple contains itself");
    if (writer->size + more <= writer->room)
        return 0;
    size_t room = (writer->size + more) * 2;
    uint8_t *data = realloc(writer->data, room);
    if (data == NULL)
        return ENOMEM;
    writer->data = data;
    writer->room = room;
    return 0;
}

static int writer_put(const dh_heap *heap, key_writer *writer, const dh_key *key)
{
    int rc = writer_room(heap, writer, KEY_ELEMENT_HEAD_BYTES + key->size);
    if (rc == 0)
        writer->size +=
            dh_key_encode(key, writer->data + writer->size, writer->room - writer->size);
    return rc;
}

/* Sign byte and magnitude stand apart in the cell: join them in the writer. */
static int writer_put_bigint(const dh_heap *heap, key_writer *writer, dh_word w)
{
    bool is_negative;
    dh_bytes_view view;
    dh_key key;
    int64_t v;
    int rc = dh_bigint_read(heap, w, &is_negative, &view);
    if (rc != 0)
        return rc;
    if (dhi_magnitude_fits(is_negative, view.data, view.size, &v)) {
        key_set_int(&key, v);
        return writer_put(heap, writer, &key);
    }
    rc = writer_room(heap, writer, KEY_ELEMENT_HEAD_BYTES + 1 + view.size);
    if (rc != 0)
        return rc;
    uint8_t *out = writer->data + writer->size;
    uint32_t size32 = (uint32_t)view.size + 1;
    out[0] = 'I';
    memcpy(out + 1, &size32, 4);
    out[KEY_ELEMENT_HEAD_BYTES] = is_negative;
    memcpy(out + KEY_ELEMENT_HEAD_BYTES + 1, view.data, view.size);
    writer->size += KEY_ELEMENT_HEAD_BYTES + size32;
    return 0;
}

/* One element: head and canonical bytes. A nested tuple's size is filled in afterwards; what stands
 * behind the head of a frozenset is sorted by then. */
static int writer_put_word(const dh_heap *heap, key_writer *writer, dh_word w, unsigned depth)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    const dh_word *words;
    size_t count, start = writer->size;
    dh_key key;
    int rc;

    if (dh_is_ref_to(w, DH_T_BIGINT))
        return writer_put_bigint(heap, writer, w);
    if (!dh_is_items(w)) {
        rc = key_set_simple(heap, w, scratch, &key);
        return rc != 0 ? rc : writer_put(heap, writer, &key);
    }
    if (depth > VALUE_DEPTH_MAX)
        return dhi_fail(heap, DH_E_CORRUPT, "tuples and frozensets nest more than %u deep",
                        VALUE_DEPTH_MAX);
    rc = dh_tuple_read(heap, w, &words, &count);
    if (rc == 0)
        rc = writer_room(heap, writer, KEY_ELEMENT_HEAD_BYTES);
    if (rc != 0)
        return rc;
    writer->size += KEY_ELEMENT_HEAD_BYTES;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = writer_put_word(heap, writer, words[i], depth + 1);
    if (rc != 0)
        return rc;
    uint32_t size32 = (uint32_t)(writer->size - start - KEY_ELEMENT_HEAD_BYTES);
    bool is_tuple = dh_is_ref_to(w, DH_T_TUPLE);
    writer->data[start] = is_tuple ? 't' : 'z';
    memcpy(writer->data + start + 1, &size32, 4);
    return is_tuple ? 0
                    : dh_key_sort_elements(writer->data + start + KEY_ELEMENT_HEAD_BYTES, size32);
}

/* An inline element of 8 bytes is at most 142 canonical ones (1e300), a cell hardly more than its
 * size. */
static uint64_t writer_limit(const dh_heap *heap)
{
    return heap->alloc.allocated_bytes * 20 + 1024;
}

int dh_key_from_word(const dh_heap *heap, dh_word w, uint8_t scratch[DH_KEY_SCRATCH_BYTES],
                     dh_key *key_out, uint8_t **buffer_out)
{
    int rc;
    *buffer_out = NULL;
    if (!dh_is_items(w) && !dh_is_ref_to(w, DH_T_BIGINT)) {
        rc = key_set_simple(heap, w, scratch, key_out);
        if (rc == 0)
            key_hash(heap, key_out);
        return rc;
    }
    key_writer writer = {NULL, 0, 0, writer_limit(heap)};
    rc = writer_put_word(heap, &writer, w, 1);
    if (rc != 0) {
        free(writer.data);
        return rc;
    }
    const uint8_t *data = writer.data + KEY_ELEMENT_HEAD_BYTES;
    size_t size = writer.size - KEY_ELEMENT_HEAD_BYTES;
    if (writer.data[0] == 'i') {
        int64_t v;
        memcpy(&v, data, 8);
        key_set_int(key_out, v);
    } else {
        key_set(key_out, writer.data[0], 0, data, size);
    }
    key_hash(heap, key_out);
    *buffer_out = writer.data;
    return 0;
}

/* --- compare ---------------------------------------------------------------------------------- */

static int word_matches(const dh_heap *heap, const dh_key *key, dh_word stored, unsigned depth);

/* key: a 'I' one, or an 'i' beyond 63 bits. */
static int bigint_matches(const dh_heap *heap, const dh_key *key, dh_word stored)
{
    bool is_negative;
    dh_bytes_view view;
    int64_t v;
    int rc = dh_bigint_read(heap, stored, &is_negative, &view);
    if (rc != 0)
        return rc;
    if (key->tag == 'i')
        return dhi_magnitude_fits(is_negative, view.data, view.size, &v) && v == key->number;
    return key->tag == 'I' && key->size == view.size + 1 && (key->data[0] != 0) == is_negative &&
           memcmp(key->data + 1, view.data, view.size) == 0;
}

/* Take the next element from canonical bytes; false when they end in the middle. */
static bool element_next(const uint8_t **data, size_t *size, dh_key *element_out)
{
    uint32_t size32;
    if (*size < KEY_ELEMENT_HEAD_BYTES)
        return false;
    memcpy(&size32, *data + 1, 4);
    if (size32 > *size - KEY_ELEMENT_HEAD_BYTES)
        return false;
    const uint8_t *content = *data + KEY_ELEMENT_HEAD_BYTES;
    uint8_t tag = **data;
    *data = content + size32;
    *size -= KEY_ELEMENT_HEAD_BYTES + size32;
    if (tag == 'i' && size32 == 8) {
        int64_t v;
        memcpy(&v, content, 8);
        key_set_int(element_out, v);
    } else if (tag == 'r' && size32 == 8) {
        key_set(element_out, tag, 0, NULL, size32);
        memcpy(&element_out->number, content, 8);
    } else if (tag == 's' || tag == 'b') {
        key_set_text(element_out, tag, content, size32);
    } else {
        key_set(element_out, tag, tag == 'n' ? DH_NONE : 0, content, size32);
    }
    return true;
}

/* Every step takes bytes off the key, so the key bounds the walk. */
static int tuple_matches(const dh_heap *heap, const dh_key *key, dh_word stored, unsigned depth)
{
    const dh_word *words;
    size_t count, size = key->size;
    const uint8_t *data = key->data;
    if (key->tag != 't')
        return 0;
    if (depth > VALUE_DEPTH_MAX)
        return dhi_fail(heap, DH_E_CORRUPT, "tuples and frozensets nest more than %u deep",
                        VALUE_DEPTH_MAX);
    int rc = dh_tuple_read(heap, stored, &words, &count);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < count; i++) {
        dh_key element;
        if (!element_next(&data, &size, &element))
            return 0;
        rc = word_matches(heap, &element, words[i], depth + 1);
        if (rc != 1)
            return rc;
    }
    return size == 0;
}

/* A frozenset has no order to walk along with the key's: its canonical bytes are made. */
static int frozenset_matches(const dh_heap *heap, const dh_key *key, dh_word stored, unsigned depth)
{
    const dh_word *words;
    size_t count, head = KEY_ELEMENT_HEAD_BYTES;
    if (key->tag != 'z')
        return 0;
    int rc = dh_tuple_read(heap, stored, &words, &count);
    if (rc != 0)
        return rc;
    if (count * head > key->size)
        return 0;
    key_writer writer = {NULL, 0, 0, writer_limit(heap)};
    rc = writer_put_word(heap, &writer, stored, depth);
    int is_match = rc == 0 && writer.size == head + key->size &&
                   memcmp(writer.data + head, key->data, key->size) == 0;
    free(writer.data);
    if (rc == ENOMEM) /* errno values would be taken for "equal" */
        return dhi_fail(heap, DH_E_LIMIT, "no memory is left to compare frozensets");
    return rc == 0 ? is_match : rc == DH_E_UNHASHABLE ? 0 : rc;
}

static int simple_matches(const dh_heap *heap, const dh_key *key, dh_word stored)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    dh_key other = {.tag = 0};
    int rc = key_set_simple(heap, stored, scratch, &other);
    if (rc != 0)
        return rc == DH_E_UNHASHABLE ? 0 : rc;
    if (key->tag != other.tag || key->size != other.size)
        return 0;
    return key->size == 0 || memcmp(key_canonical(key), key_canonical(&other), key->size) == 0;
}

static int word_matches(const dh_heap *heap, const dh_key *key, dh_word stored, unsigned depth)
{
    if (key->word != 0 && stored == key->word)
        return 1;
    if (stored == DH_EMPTY || stored == DH_DELETED)
        return 0;
    if (dh_is_ref_to(stored, DH_T_BIGINT))
        return bigint_matches(heap, key, stored);
    if (dh_is_ref_to(stored, DH_T_TUPLE))
        return tuple_matches(heap, key, stored, depth);
    if (dh_is_ref_to(stored, DH_T_FROZENSET))
        return frozenset_matches(heap, key, stored, depth);
    return simple_matches(heap, key, stored);
}

int dh_key_matches(const dh_heap *heap, const dh_key *key, dh_word stored)
{
    return word_matches(heap, key, stored, 1);
}

/* --- shared with order.c ------------------------------------------------------------------------ */

int dhi_key_set_simple(const dh_heap *heap, dh_word w, uint8_t scratch[DH_KEY_SCRATCH_BYTES],
                       dh_key *key_out)
{
    return key_set_simple(heap, w, scratch, key_out);
}

bool dhi_key_element_next(const uint8_t **data, size_t *size, dh_key *element_out)
{
    return element_next(data, size, element_out);
}

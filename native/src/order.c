/* order.c -- comparing keys. Contract: order.h.
 *
 * Reads, never writes; nothing here may follow a word without checking it, nor recurse further than
 * tuples nest in a sound heap. Numbers: order_number.c; dates and the like: order_packed.c.
 */
#include <math.h>
#include <stdlib.h>

#include "order_private.h"

#define ORDER_PREFIX_BYTES 8u

/* --- kinds ------------------------------------------------------------------------------------ */

/* What Python compares with each other is of one kind. */
typedef enum {
    KIND_NONE,
    KIND_NUMBER,
    KIND_STR,
    KIND_BYTES,
    KIND_TUPLE,
    KIND_DATE,
    KIND_MOMENT,
    KIND_AWARE_MOMENT,
    KIND_TIME,
    KIND_AWARE_TIME,
    KIND_SPAN,
    KIND_UUID,
    KIND_PATH,
    KIND_OTHER
} order_kind_id;

static uint8_t order_tag(const dh_key *key)
{
    return DH_UNLIKELY(key->tag == 'x') ? dhi_packed_tag(key) : key->tag;
}

static order_kind_id order_kind(uint8_t tag)
{
    switch (tag) {
    case 'n':
        return KIND_NONE;
    case 'i':
    case 'I':
    case 'f':
    case 'q':
        return KIND_NUMBER;
    case 's':
        return KIND_STR;
    case 'b':
        return KIND_BYTES;
    case 't':
        return KIND_TUPLE;
    case PACKED_DATE:
        return KIND_DATE;
    case PACKED_MOMENT:
        return KIND_MOMENT;
    case PACKED_AWARE_MOMENT:
        return KIND_AWARE_MOMENT;
    case PACKED_TIME:
        return KIND_TIME;
    case PACKED_AWARE_TIME:
        return KIND_AWARE_TIME;
    case PACKED_SPAN:
        return KIND_SPAN;
    case PACKED_UUID:
        return KIND_UUID;
    case PACKED_PATH:
        return KIND_PATH;
    default:
        return KIND_OTHER;
    }
}

static const char *order_type_name(uint8_t tag)
{
    static const char *const names[] = {"NoneType",
                                        "int",
                                        "str",
                                        "bytes",
                                        "tuple",
                                        "datetime.date",
                                        "datetime.datetime",
                                        "datetime.datetime",
                                        "datetime.time",
                                        "datetime.time",
                                        "datetime.timedelta",
                                        "UUID",
                                        "PurePosixPath",
                                        "object"};
    if (tag == 'f')
        return "float";
    return tag == 'q' ? "Rational" : names[order_kind(tag)];
}

/* Python's words for naive and aware ones; NULL: the kinds differ in more than that. */
static const char *awareness_differs(order_kind_id a, order_kind_id b)
{
    if ((a == KIND_MOMENT && b == KIND_AWARE_MOMENT) ||
        (b == KIND_MOMENT && a == KIND_AWARE_MOMENT))
        return "datetimes";
    if ((a == KIND_TIME && b == KIND_AWARE_TIME) || (b == KIND_TIME && a == KIND_AWARE_TIME))
        return "times";
    return NULL;
}

int dh_order_refuse(const dh_heap *heap, const dh_ordering *ordering)
{
    const char *what = awareness_differs(order_kind(ordering->left), order_kind(ordering->right));
    if (what != NULL)
        return dhi_fail(heap, DH_E_UNORDERED, "can't compare offset-naive and offset-aware %s",
                        what);
    return dhi_fail(heap, DH_E_UNORDERED, "'<' not supported between instances of '%s' and '%s'",
                    order_type_name(ordering->left), order_type_name(ordering->right));
}

static dh_order_verdict simple_admits(const dh_key *key)
{
    order_number number;
    double d;
    uint8_t tag = order_tag(key);
    if (tag == 'f') {
        memcpy(&d, key->data, sizeof d);
        return isnan(d) ? DH_ORDER_NAN : DH_ORDER_OK;
    }
    if (tag == PACKED_NAN)
        return DH_ORDER_NAN;
    if (tag == PACKED_LONG || (tag == 'q' && !dhi_number_from_key(key, &number)))
        return DH_ORDER_LONG;
    return order_kind(tag) == KIND_OTHER ? DH_ORDER_UNKNOWN : DH_ORDER_OK;
}

static dh_order_verdict tuple_admits(const dh_key *tuple, unsigned depth)
{
    const uint8_t *data = tuple->data;
    size_t size = tuple->size;
    dh_key element;
    while (size > 0) {
        if (depth > VALUE_DEPTH_MAX || !dhi_key_element_next(&data, &size, &element))
            return DH_ORDER_UNKNOWN;
        dh_order_verdict verdict =
            element.tag == 't' ? tuple_admits(&element, depth + 1) : simple_admits(&element);
        if (verdict != DH_ORDER_OK)
            return verdict;
    }
    return DH_ORDER_OK;
}

dh_order_verdict dh_order_admits(const dh_key *key)
{
    return key->tag == 't' ? tuple_admits(key, 1) : simple_admits(key);
}

/* --- texts ------------------------------------------------------------------------------------ */

static inline uint64_t load_big_endian(const uint8_t *data)
{
    uint64_t u;
    memcpy(&u, data, sizeof u);
    return __builtin_bswap64(u);
}

void dh_order_probe_init(dh_order_probe *probe_out, const dh_key *key)
{
    probe_out->key = key;
    probe_out->tag = order_tag(key);
    probe_out->prefix = 0;
    if (key->tag != 's' && key->tag != 'b')
        return;
    if (key->size >= ORDER_PREFIX_BYTES) {
        probe_out->prefix = load_big_endian(key->data);
    } else {
        uint8_t padded[ORDER_PREFIX_BYTES] = {0};
        if (key->size > 0)
            memcpy(padded, key->data, key->size);
        probe_out->prefix = load_big_endian(padded);
    }
}

/* Equal prefixes: a text of fewer than 8 bytes is then equal so far to the other, whose bytes
 * behind it are zeros, and the shorter one comes first. */
static int text_rest_sign(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    size_t common = a_size < b_size ? a_size : b_size;
    int sign = 0;
    if (common > ORDER_PREFIX_BYTES)
        sign = memcmp(a + ORDER_PREFIX_BYTES, b + ORDER_PREFIX_BYTES, common - ORDER_PREFIX_BYTES);
    return sign != 0 ? sign : (a_size > b_size) - (a_size < b_size);
}

/* The probe is of the same kind as the stored short. */
static inline int short_sign(const dh_order_probe *probe, dh_word stored)
{
    uint64_t prefix = __builtin_bswap64(stored >> 8);
    if (probe->prefix != prefix)
        return probe->prefix < prefix ? -1 : 1;
    return text_rest_sign(
        NULL, probe->key->size < ORDER_PREFIX_BYTES ? probe->key->size : ORDER_PREFIX_BYTES, NULL,
        dh_short_size(stored));
}

static inline int long_sign(const dh_order_probe *probe, const dh_bytes_view *view)
{
    uint64_t prefix = load_big_endian(view->data);
    if (probe->prefix != prefix)
        return probe->prefix < prefix ? -1 : 1;
    return text_rest_sign(probe->key->data, probe->key->size, view->data, view->size);
}

/* --- any -------------------------------------------------------------------------------------- */

static int order_at(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                    unsigned depth, dh_ordering *out);

static int order_mixed(uint8_t left, uint8_t right, dh_ordering *out)
{
    int a = (int)order_kind(left), b = (int)order_kind(right);
    *out = (dh_ordering){a < b ? -1 : 1, true, left, right};
    return 0;
}

/* Every step takes bytes off the key, so the key bounds the walk. */
static int order_tuple(const dh_heap *heap, const dh_key *key, dh_word stored, unsigned depth,
                       dh_ordering *out)
{
    const dh_word *words;
    const uint8_t *data = key->data;
    size_t count, size = key->size, i = 0;
    if (depth > VALUE_DEPTH_MAX)
        return dhi_fail(heap, DH_E_CORRUPT, "tuples nest more than %u deep", VALUE_DEPTH_MAX);
    int rc = dh_tuple_read(heap, stored, &words, &count);
    if (rc != 0)
        return rc;
    for (; size > 0 && i < count; i++) {
        dh_key element;
        dh_order_probe probe;
        if (!dhi_key_element_next(&data, &size, &element))
            return dhi_fail(heap, DH_E_CORRUPT, "the canonical form of a tuple ends too early");
        dh_order_probe_init(&probe, &element);
        rc = order_at(heap, &probe, words[i], depth + 1, out);
        if (rc != 0 || out->sign != 0)
            return rc;
    }
    out->sign = (size > 0) - (i < count);
    out->is_mixed = false;
    return 0;
}

/* Both of the same kind. */
static int same_kind_sign(const dh_heap *heap, const dh_order_probe *probe, const dh_key *stored,
                          int *sign_out)
{
    order_number mine, theirs;
    order_kind_id kind = order_kind(probe->tag);
    *sign_out = 0;
    if (kind == KIND_NUMBER) {
        if (DH_UNLIKELY(!dhi_number_from_key(stored, &theirs) ||
                        !dhi_number_from_key(probe->key, &mine)))
            return dhi_fail(heap, DH_E_CORRUPT, "a rational is damaged");
        *sign_out = dhi_number_sign(&mine, &theirs);
    } else if (kind != KIND_NONE) {
        *sign_out = dhi_packed_sign(probe->tag, probe->key, stored);
    }
    return 0;
}

static int order_bigint(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                        dh_ordering *out)
{
    order_number mine, theirs;
    int rc = dhi_number_from_bigint(heap, stored, &theirs);
    if (rc != 0)
        return rc;
    if (order_kind(probe->tag) != KIND_NUMBER)
        return order_mixed(probe->tag, 'I', out);
    if (DH_UNLIKELY(!dhi_number_from_key(probe->key, &mine)))
        return dhi_fail(heap, DH_E_CORRUPT, "a rational is damaged");
    *out = (dh_ordering){dhi_number_sign(&mine, &theirs), false, 0, 0};
    return 0;
}

static int order_simple(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                        dh_ordering *out)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    dh_key other = {.tag = 'n'};
    if (dh_is_ref_to(stored, DH_T_BIGINT))
        return order_bigint(heap, probe, stored, out);
    int rc = dhi_key_set_simple(heap, stored, scratch, &other);
    if (rc != 0 && rc != DH_E_UNHASHABLE)
        return rc;
    uint8_t tag = rc == 0 ? order_tag(&other) : PACKED_OTHER;
    if (order_kind(tag) == KIND_OTHER)
        return dhi_fail(heap, DH_E_CORRUPT, "a sorted key is no key");
    if (order_kind(probe->tag) != order_kind(tag))
        return order_mixed(probe->tag, tag, out);
    *out = (dh_ordering){0, false, 0, 0};
    return same_kind_sign(heap, probe, &other, &out->sign);
}

static int order_text(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                      dh_ordering *out)
{
    uint8_t tag = probe->tag, other;
    dh_bytes_view view;
    if (dh_is_short(stored)) {
        other = dh_short_is_bytes(stored) ? 'b' : 's';
        if (DH_UNLIKELY(other != tag))
            return order_mixed(tag, other, out);
        *out = (dh_ordering){short_sign(probe, stored), false, 0, 0};
        return 0;
    }
    other = dh_ref_type(stored) == DH_T_BYTES ? 'b' : 's';
    if (DH_UNLIKELY(!dhi_text_view(heap, stored, dh_ref_type(stored), &view) ||
                    view.size < ORDER_PREFIX_BYTES))
        return dhi_fail(heap, DH_E_CORRUPT, "string word %#llx is damaged",
                        (unsigned long long)stored);
    if (DH_UNLIKELY(other != tag))
        return order_mixed(tag, other, out);
    *out = (dh_ordering){long_sign(probe, &view), false, 0, 0};
    return 0;
}

static int order_at(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                    unsigned depth, dh_ordering *out)
{
    uint8_t tag = probe->tag;
    bool is_text =
        dh_is_short(stored) || dh_is_ref_to(stored, DH_T_STR) || dh_is_ref_to(stored, DH_T_BYTES);
    if (DH_LIKELY(is_text))
        return tag == 's' || tag == 'b'
                   ? order_text(heap, probe, stored, out)
                   : order_mixed(tag,
                                 dh_is_short(stored) ? (dh_short_is_bytes(stored) ? 'b' : 's')
                                 : dh_is_ref_to(stored, DH_T_BYTES) ? 'b'
                                                                    : 's',
                                 out);
    if (!dh_is_ref_to(stored, DH_T_TUPLE))
        return order_simple(heap, probe, stored, out);
    return tag == 't' ? order_tuple(heap, probe->key, stored, depth, out)
                      : order_mixed(tag, 't', out);
}

int dh_order_compare(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                     dh_ordering *out)
{
    return order_at(heap, probe, stored, 1, out);
}

int dh_order_words(const dh_heap *heap, dh_word left, dh_word right, dh_ordering *out)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_order_probe probe;
    dh_key key;
    if (dh_is_int(left) && dh_is_int(right)) {
        int64_t a = dh_int_value(left), b = dh_int_value(right);
        *out = (dh_ordering){(a > b) - (a < b), false, 0, 0};
        return 0;
    }
    int rc = dh_key_from_word(heap, left, scratch, &key, &buffer);
    if (rc != 0)
        return rc;
    dh_order_probe_init(&probe, &key);
    rc = dh_order_compare(heap, &probe, right, out);
    free(buffer);
    return rc;
}

/* --- separators ------------------------------------------------------------------------------- */

/* Short or long text, by its bytes. */
static bool text_of(const dh_heap *heap, dh_word w, uint8_t scratch[8], dh_bytes_view *view_out)
{
    if (dh_is_short(w)) {
        dh_short_copy(w, scratch);
        *view_out = (dh_bytes_view){scratch, dh_short_size(w)};
        return true;
    }
    return dhi_text_view(heap, w, dh_ref_type(w), view_out);
}

static bool is_text_of(dh_word w, bool is_bytes)
{
    if (dh_is_short(w))
        return dh_short_is_bytes(w) == is_bytes;
    return dh_is_ref_to(w, is_bytes ? DH_T_BYTES : DH_T_STR);
}

/* The shortest beginning of high that is behind low: one byte more than they share, and for a str
 * the rest of that character. */
static size_t separator_size(const dh_bytes_view *low, const dh_bytes_view *high, bool is_bytes)
{
    size_t at = 0;
    while (at < low->size && at < high->size && low->data[at] == high->data[at])
        at++;
    if (at < high->size)
        at++;
    while (!is_bytes && at < high->size && (high->data[at] & 0xc0u) == 0x80u)
        at++;
    return at;
}

int dh_order_separator(dh_heap *heap, dh_word low, dh_word high, dh_word *separator_out)
{
    uint8_t low_scratch[8], high_scratch[8];
    dh_bytes_view a, b;
    bool is_bytes = is_text_of(high, true);
    if ((!is_bytes && !is_text_of(high, false)) || !is_text_of(low, is_bytes) ||
        !text_of(heap, low, low_scratch, &a) || !text_of(heap, high, high_scratch, &b))
        return dh_value_clone(heap, high, separator_out);
    size_t size = separator_size(&a, &b, is_bytes);
    return is_bytes ? dh_bytes_new(heap, b.data, size, separator_out)
                    : dh_str_new(heap, b.data, size, separator_out);
}

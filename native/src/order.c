/* order.c -- comparing keys. Contract: order.h.
 *
 * Reads, never writes; nothing here may follow a word without checking it, nor recurse further than
 * tuples nest in a sound heap. Numbers are compared in their canonical form (key.c): a float that is
 * a whole number is an int by then, so that only floats with a fraction, infinities and NaN are left.
 */
#include "order.h"

#include <math.h>
#include <stdlib.h>

#include "value_private.h"

#define ORDER_PREFIX_BYTES 8u

/* --- kinds ------------------------------------------------------------------------------------ */

typedef enum { KIND_NONE, KIND_NUMBER, KIND_STR, KIND_BYTES, KIND_TUPLE, KIND_OTHER } order_kind_id;

static order_kind_id order_kind(uint8_t tag)
{
    switch (tag) {
    case 'n':
        return KIND_NONE;
    case 'i':
    case 'I':
    case 'f':
        return KIND_NUMBER;
    case 's':
        return KIND_STR;
    case 'b':
        return KIND_BYTES;
    case 't':
        return KIND_TUPLE;
    default:
        return KIND_OTHER;
    }
}

static const char *order_type_name(uint8_t tag)
{
    switch (order_kind(tag)) {
    case KIND_NONE:
        return "NoneType";
    case KIND_NUMBER:
        return tag == 'f' ? "float" : "int";
    case KIND_STR:
        return "str";
    case KIND_BYTES:
        return "bytes";
    case KIND_TUPLE:
        return "tuple";
    default:
        return "object";
    }
}

int dh_order_refuse(const dh_heap *heap, const dh_ordering *ordering)
{
    return dhi_fail(heap, DH_E_UNORDERED, "'<' not supported between instances of '%s' and '%s'",
                    order_type_name(ordering->left), order_type_name(ordering->right));
}

static bool key_is_nan(const dh_key *key)
{
    double d;
    if (key->tag != 'f')
        return false;
    memcpy(&d, key->data, sizeof d);
    return isnan(d);
}

static dh_order_verdict tuple_admits(const dh_key *tuple, unsigned depth)
{
    const uint8_t *data = tuple->data;
    size_t size = tuple->size;
    dh_key element;
    while (size > 0) {
        dh_order_verdict verdict = DH_ORDER_OK;
        if (depth > VALUE_DEPTH_MAX || !dhi_key_element_next(&data, &size, &element))
            return DH_ORDER_UNKNOWN;
        if (element.tag == 't')
            verdict = tuple_admits(&element, depth + 1);
        else if (order_kind(element.tag) == KIND_OTHER)
            verdict = DH_ORDER_UNKNOWN;
        else if (key_is_nan(&element))
            verdict = DH_ORDER_NAN;
        if (verdict != DH_ORDER_OK)
            return verdict;
    }
    return DH_ORDER_OK;
}

dh_order_verdict dh_order_admits(const dh_key *key)
{
    if (key->tag == 't')
        return tuple_admits(key, 1);
    if (order_kind(key->tag) == KIND_OTHER)
        return DH_ORDER_UNKNOWN;
    return key_is_nan(key) ? DH_ORDER_NAN : DH_ORDER_OK;
}

/* --- numbers ---------------------------------------------------------------------------------- */

typedef struct {
    uint8_t tag; /* 'i', 'I' or 'f'                             */
    int64_t i;   /* 'i'                                         */
    double f;    /* 'f': has a fraction, is infinite, or is NaN */
    bool is_negative;
    const uint8_t *magnitude; /* 'I': little-endian, minimal, beyond 64 bits */
    size_t size;
} order_number;

static void number_from_key(const dh_key *key, order_number *out)
{
    *out = (order_number){.tag = key->tag};
    if (key->tag == 'i') {
        out->i = key->number;
        out->is_negative = key->number < 0;
    } else if (key->tag == 'I') {
        out->is_negative = key->data[0] != 0;
        out->magnitude = key->data + 1;
        out->size = key->size - 1;
    } else {
        memcpy(&out->f, key->data, sizeof out->f);
        out->is_negative = signbit(out->f) != 0;
    }
}

static int number_from_bigint(const dh_heap *heap, dh_word w, order_number *out)
{
    dh_bytes_view view;
    *out = (order_number){.tag = 'I'};
    int rc = dh_bigint_read(heap, w, &out->is_negative, &view);
    if (rc != 0)
        return rc;
    if (dhi_magnitude_fits(out->is_negative, view.data, view.size, &out->i))
        out->tag = 'i';
    out->magnitude = view.data;
    out->size = view.size;
    return 0;
}

static int magnitude_sign(const order_number *a, const order_number *b)
{
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    for (size_t i = a->size; i-- > 0;)
        if (a->magnitude[i] != b->magnitude[i])
            return a->magnitude[i] < b->magnitude[i] ? -1 : 1;
    return 0;
}

/* An int in 64 bits against a float with a fraction, which lies between two such ints. */
static int int_float_sign(int64_t i, double f)
{
    int64_t below = (int64_t)f - (f < 0);
    return below >= i ? -1 : 1;
}

static int float_sign(double a, double b)
{
    if (isnan(a) || isnan(b)) /* only in a damaged file: behind everything */
        return isnan(a) - isnan(b);
    return (a > b) - (a < b);
}

static int number_sign(const order_number *a, const order_number *b)
{
    if (a->tag == 'f' && b->tag == 'f')
        return float_sign(a->f, b->f);
    if (a->tag == 'f')
        return -number_sign(b, a);
    if (b->tag == 'f' && !isfinite(b->f))
        return isnan(b->f) || !b->is_negative ? -1 : 1;
    if (a->tag == 'i' && b->tag == 'f')
        return int_float_sign(a->i, b->f);
    if (a->tag == 'i' && b->tag == 'i')
        return (a->i > b->i) - (a->i < b->i);
    /* One is beyond 64 bits: signs decide unless both are. */
    if (a->tag == 'I' && b->tag == 'I' && a->is_negative == b->is_negative)
        return a->is_negative ? -magnitude_sign(a, b) : magnitude_sign(a, b);
    if (a->tag == 'I')
        return a->is_negative ? -1 : 1;
    return b->is_negative ? 1 : -1;
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

static int order_simple(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                        dh_ordering *out)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    order_number mine, theirs;
    dh_key other = {.tag = 'I'};
    bool is_bigint = dh_is_ref_to(stored, DH_T_BIGINT);
    int rc = is_bigint ? number_from_bigint(heap, stored, &theirs)
                       : dhi_key_set_simple(heap, stored, scratch, &other);
    if (rc != 0)
        return rc == DH_E_UNHASHABLE ? dhi_fail(heap, DH_E_CORRUPT, "a sorted key is no key") : rc;
    if (dh_is_ref_to(stored, DH_T_EXT)) /* a packed value: its form says what is equal, no more */
        other.tag = 'x';
    if (order_kind(probe->key->tag) != order_kind(other.tag))
        return order_mixed(probe->key->tag, other.tag, out);
    *out = (dh_ordering){0, false, 0, 0};
    if (order_kind(other.tag) != KIND_NUMBER)
        return 0; /* None */
    if (!is_bigint)
        number_from_key(&other, &theirs);
    number_from_key(probe->key, &mine);
    out->sign = number_sign(&mine, &theirs);
    return 0;
}

static int order_text(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                      dh_ordering *out)
{
    uint8_t tag = probe->key->tag, other;
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
    uint8_t tag = probe->key->tag;
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

/* order_number.c -- numbers among each other, exactly: ints of any size, floats, rationals.
 *
 * Numbers come in their canonical form (key.c): a float that is a whole number is an int by then, so
 * that only floats with a fraction, infinities and NaN are left; a rational is neither an int nor a
 * float. Rationals are compared by cross multiplication, digit by digit from the low end, on the
 * stack. Must never round, and must end in bounded time for damaged bytes too.
 */
#include <math.h>

#include "order_private.h"

/* --- magnitudes as digits ----------------------------------------------------------------------- */

/* Digits of 32 bits, the lowest first, of the absolute value of bytes in two's complement. */
typedef struct {
    const uint8_t *data;
    size_t size;
    bool is_negative;
    size_t
        first; /* negative: the lowest digit that is not zero; it is where the complement turns */
    size_t count; /* digits, the highest not zero */
} magnitude;

static uint32_t stored_digit(const magnitude *m, size_t at)
{
    uint32_t digit = m->is_negative ? UINT32_MAX : 0;
    size_t from = at * sizeof digit;
    if (from < m->size)
        memcpy(&digit, m->data + from,
               m->size - from < sizeof digit ? m->size - from : sizeof digit);
    return digit;
}

static uint32_t digit_at(const magnitude *m, size_t at)
{
    uint32_t digit = stored_digit(m, at);
    if (!m->is_negative || at < m->first)
        return digit;
    return at == m->first ? 0u - digit : ~digit;
}

static magnitude magnitude_of(const uint8_t *data, size_t size, bool is_negative)
{
    magnitude m = {data, size, is_negative, 0, (size + 3) / 4};
    while (is_negative && m.first < m.count && stored_digit(&m, m.first) == 0)
        m.first++;
    while (m.count > 0 && digit_at(&m, m.count - 1) == 0)
        m.count--;
    return m;
}

static uint64_t bits_of(const magnitude *m)
{
    if (m->count == 0)
        return 0;
    return (uint64_t)m->count * 32 - (uint64_t)__builtin_clz(digit_at(m, m->count - 1));
}

/* What is multiplied out: an int that is as long as a rational's numerator, at most. */
#define DIGITS_MAX (ORDER_RATIO_BYTES_MAX / 4 + 1)

typedef struct {
    size_t count;
    uint32_t digits[DIGITS_MAX];
} factor;

static void factor_of(const magnitude *m, factor *out)
{
    out->count = m->count < DIGITS_MAX ? m->count : DIGITS_MAX;
    for (size_t i = 0; i < out->count; i++)
        out->digits[i] = digit_at(m, i);
}

/* A product as it comes out, digit by digit: the sum of one column and what the columns below left. */
typedef struct {
    factor a, b;
    uint64_t low, high; /* of the sum: high counts what overflowed low */
} product;

static void product_begin(product *p, const magnitude *a, const magnitude *b)
{
    factor_of(a, &p->a);
    factor_of(b, &p->b);
    p->low = p->high = 0;
}

static uint32_t product_next(product *p, size_t column)
{
    size_t from = column < p->b.count ? 0 : column - p->b.count + 1;
    uint64_t low = p->low, high = p->high;
    for (size_t i = from; i <= column && i < p->a.count; i++) {
        uint64_t term = (uint64_t)p->a.digits[i] * p->b.digits[column - i];
        low += term;
        high += low < term;
    }
    p->low = low >> 32 | high << 32;
    p->high = high >> 32;
    return (uint32_t)low;
}

/* a * d against b * c, none of them zero. */
static int products_sign(const magnitude *a, const magnitude *d, const magnitude *b,
                         const magnitude *c)
{
    uint64_t left = bits_of(a) + bits_of(d), right = bits_of(b) + bits_of(c);
    if (left > right + 1 || right > left + 1) /* a product has all these bits, or one less */
        return left < right ? -1 : 1;
    product p, q;
    product_begin(&p, a, d);
    product_begin(&q, b, c);
    size_t columns = a->count + d->count;
    int sign = 0;
    if (columns < b->count + c->count)
        columns = b->count + c->count;
    for (size_t column = 0; column < columns; column++) {
        uint32_t x = product_next(&p, column), y = product_next(&q, column);
        if (x != y)
            sign = x < y ? -1 : 1;
    }
    return sign;
}

/* --- numbers from keys and words ---------------------------------------------------------------- */

/* 'q': u32 size of the numerator, numerator, denominator. */
static bool ratio_from_key(const dh_key *key, order_number *out)
{
    uint32_t size;
    if (key->size < sizeof size)
        return false;
    memcpy(&size, key->data, sizeof size);
    size_t rest = key->size - sizeof size;
    if (size == 0 || size >= rest)
        return false;
    out->top = key->data + sizeof size;
    out->top_size = size;
    out->bottom = out->top + size;
    out->bottom_size = rest - size;
    out->is_negative = (out->top[size - 1] & 0x80u) != 0;
    return out->top_size <= ORDER_RATIO_BYTES_MAX && out->bottom_size <= ORDER_RATIO_BYTES_MAX &&
           (out->bottom[out->bottom_size - 1] & 0x80u) == 0 &&
           magnitude_of(out->top, out->top_size, out->is_negative).count > 0 &&
           magnitude_of(out->bottom, out->bottom_size, false).count > 0;
}

bool dhi_number_from_key(const dh_key *key, order_number *out)
{
    *out = (order_number){.tag = key->tag};
    if (key->tag == 'q')
        return ratio_from_key(key, out);
    if (key->tag == 'i') {
        out->i = key->number;
        out->is_negative = key->number < 0;
    } else if (key->tag == 'I') {
        out->is_negative = key->data[0] != 0;
        out->top = key->data + 1;
        out->top_size = key->size - 1;
    } else {
        memcpy(&out->f, key->data, sizeof out->f);
        out->is_negative = signbit(out->f) != 0;
    }
    return true;
}

int dhi_number_from_bigint(const dh_heap *heap, dh_word w, order_number *out)
{
    dh_bytes_view view;
    *out = (order_number){.tag = 'I'};
    int rc = dh_bigint_read(heap, w, &out->is_negative, &view);
    if (rc != 0)
        return rc;
    if (dhi_magnitude_fits(out->is_negative, view.data, view.size, &out->i))
        out->tag = 'i';
    out->top = view.data;
    out->top_size = view.size;
    return 0;
}

/* --- rationals ---------------------------------------------------------------------------------- */

/* |x| as a ratio, x neither infinite nor NaN. storage: where it is not in the number's own bytes. */
typedef struct {
    uint8_t top_storage[8], bottom_storage[136];
    magnitude top, bottom;
} ratio;

/* A fraction of a float: 53 bits over a power of two up to 2^1074. */
static void ratio_of_float(double f, ratio *out)
{
    int exponent;
    uint64_t top = (uint64_t)ldexp(frexp(fabs(f), &exponent), 53);
    unsigned shift = (unsigned)(53 - exponent); /* |f| < 2^53, or it would be an int */
    memcpy(out->top_storage, &top, sizeof top);
    memset(out->bottom_storage, 0, sizeof out->bottom_storage);
    /* A subnormal has fewer bits, and more zeros: they cancel. */
    unsigned spare = shift > 1074 ? shift - 1074 : 0;
    top >>= spare;
    shift -= spare;
    memcpy(out->top_storage, &top, sizeof top);
    out->bottom_storage[shift / 8] = (uint8_t)(1u << shift % 8);
    out->top = magnitude_of(out->top_storage, sizeof out->top_storage, false);
    out->bottom = magnitude_of(out->bottom_storage, sizeof out->bottom_storage, false);
}

static void ratio_of(const order_number *n, ratio *out)
{
    static const uint8_t one = 1;
    if (n->tag == 'f') {
        ratio_of_float(n->f, out);
        return;
    }
    if (n->tag == 'i') {
        uint64_t top = n->i < 0 ? 0 - (uint64_t)n->i : (uint64_t)n->i;
        memcpy(out->top_storage, &top, sizeof top);
        out->top = magnitude_of(out->top_storage, sizeof out->top_storage, false);
    } else {
        out->top = magnitude_of(n->top, n->top_size, n->tag == 'q' && n->is_negative);
    }
    out->bottom = n->tag == 'q' ? magnitude_of(n->bottom, n->bottom_size, false)
                                : magnitude_of(&one, 1, false);
}

/* a is a rational; b is finite. */
static int ratio_sign(const order_number *a, const order_number *b)
{
    ratio mine, theirs;
    if (a->is_negative != b->is_negative)
        return a->is_negative ? -1 : 1;
    ratio_of(a, &mine);
    ratio_of(b, &theirs);
    if (theirs.top.count == 0) /* zero */
        return a->is_negative ? -1 : 1;
    int sign = products_sign(&mine.top, &theirs.bottom, &theirs.top, &mine.bottom);
    return a->is_negative ? -sign : sign;
}

/* --- any two numbers ---------------------------------------------------------------------------- */

static int bigint_sign(const order_number *a, const order_number *b)
{
    if (a->top_size != b->top_size)
        return a->top_size < b->top_size ? -1 : 1;
    for (size_t i = a->top_size; i-- > 0;)
        if (a->top[i] != b->top[i])
            return a->top[i] < b->top[i] ? -1 : 1;
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

int dhi_number_sign(const order_number *a, const order_number *b)
{
    if (a->tag == 'f' && b->tag == 'f')
        return float_sign(a->f, b->f);
    if (a->tag == 'f')
        return -dhi_number_sign(b, a);
    if (b->tag == 'f' && !isfinite(b->f))
        return isnan(b->f) || !b->is_negative ? -1 : 1;
    if (a->tag == 'q')
        return ratio_sign(a, b);
    if (b->tag == 'q')
        return -ratio_sign(b, a);
    if (a->tag == 'i' && b->tag == 'f')
        return int_float_sign(a->i, b->f);
    if (a->tag == 'i' && b->tag == 'i')
        return (a->i > b->i) - (a->i < b->i);
    /* One is beyond 64 bits: signs decide unless both are. */
    if (a->tag == 'I' && b->tag == 'I' && a->is_negative == b->is_negative)
        return a->is_negative ? -bigint_sign(a, b) : bigint_sign(a, b);
    if (a->tag == 'I')
        return a->is_negative ? -1 : 1;
    return b->is_negative ? 1 : -1;
}

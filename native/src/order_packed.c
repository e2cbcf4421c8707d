/* order_packed.c -- packed values among their like: dates, times, UUIDs, paths.
 *
 * They come as the canonical form that says what is equal (dirtyheap/canonical.py, standard_types.py):
 * a code and fields of fixed size, which are compared as Python compares the values. Values that
 * Python does not compare have no kind in common: naive and aware datetimes, a date and a datetime.
 * The bytes may come from a damaged file: what no packer makes has no order.
 */
#include "order_private.h"

/* Codes of the format. */
enum {
    CODE_DATETIME = 2,
    CODE_DATE = 3,
    CODE_TIME = 4,
    CODE_TIMEDELTA = 5,
    CODE_DECIMAL = 6,
    CODE_UUID = 8,
    CODE_PATH = 10
};

/* Sizes with the code. */
#define DATETIME_SIZE 11u /* year .. microsecond, big-endian; or 'u' and 9 bytes               */
#define FOLDED_MIN 21u    /* 'f', 9 bytes, year .. microsecond, the zone: its offset has a fold */
#define DATE_SIZE 5u
#define TIME_SIZE 7u
#define AWARE_TIME_SIZE 10u /* 'u', 8 bytes */
#define TIMEDELTA_SIZE 10u  /* days, microseconds of the day */
#define UUID_SIZE 17u

static uint8_t datetime_tag(const dh_key *key)
{
    if (key->size > FOLDED_MIN && key->data[1] == 'f')
        return PACKED_AWARE_MOMENT;
    if (key->size != DATETIME_SIZE)
        return PACKED_OTHER;
    return key->data[1] == 'u' ? PACKED_AWARE_MOMENT : PACKED_MOMENT; /* no year has this byte */
}

static uint8_t time_tag(const dh_key *key)
{
    if (key->size == AWARE_TIME_SIZE && key->data[1] == 'u')
        return PACKED_AWARE_TIME;
    return key->size == TIME_SIZE ? PACKED_TIME : PACKED_OTHER;
}

uint8_t dhi_packed_tag(const dh_key *key)
{
    switch (key->size > 0 ? key->data[0] : 0) {
    case CODE_DATETIME:
        return datetime_tag(key);
    case CODE_DATE:
        return key->size == DATE_SIZE ? PACKED_DATE : PACKED_OTHER;
    case CODE_TIME:
        return time_tag(key);
    case CODE_TIMEDELTA:
        return key->size == TIMEDELTA_SIZE ? PACKED_SPAN : PACKED_OTHER;
    case CODE_DECIMAL:
        return key->size == 4 && memcmp(key->data + 1, "nan", 3) == 0 ? PACKED_NAN : PACKED_LONG;
    case CODE_UUID:
        return key->size == UUID_SIZE ? PACKED_UUID : PACKED_OTHER;
    case CODE_PATH:
        return PACKED_PATH;
    default:
        return PACKED_OTHER;
    }
}

/* --- comparing ---------------------------------------------------------------------------------- */

static int bytes_sign(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    size_t common = a_size < b_size ? a_size : b_size;
    int sign = common > 0 ? memcmp(a, b, common) : 0;
    return sign != 0 ? sign : (a_size > b_size) - (a_size < b_size);
}

static int64_t int64_at(const uint8_t *data)
{
    int64_t v;
    memcpy(&v, data, sizeof v);
    return v;
}

static int int_sign(int64_t a, int64_t b) { return (a > b) - (a < b); }

/* 9 bytes of two's complement; the rest tells apart what has a fold at the same moment. */
static int moment_sign(const dh_key *a, const dh_key *b)
{
    const uint8_t *x = a->data + 2, *y = b->data + 2;
    uint64_t low_x, low_y;
    int sign = int_sign((int8_t)x[8], (int8_t)y[8]);
    memcpy(&low_x, x, sizeof low_x);
    memcpy(&low_y, y, sizeof low_y);
    if (sign == 0)
        sign = (low_x > low_y) - (low_x < low_y);
    return sign != 0 ? sign
                     : bytes_sign(a->data + DATETIME_SIZE, a->size - DATETIME_SIZE,
                                  b->data + DATETIME_SIZE, b->size - DATETIME_SIZE);
}

static int span_sign(const uint8_t *a, const uint8_t *b)
{
    int32_t days_a, days_b;
    uint64_t micros_a = 0, micros_b = 0;
    memcpy(&days_a, a + 1, sizeof days_a);
    memcpy(&days_b, b + 1, sizeof days_b);
    memcpy(&micros_a, a + 5, 5);
    memcpy(&micros_b, b + 5, 5);
    return days_a != days_b ? int_sign(days_a, days_b)
                            : (micros_a > micros_b) - (micros_a < micros_b);
}

/* As lists of the parts between slashes: a slash comes before every other character. */
static int path_sign(const dh_key *a, const dh_key *b)
{
    size_t at = 0;
    while (at < a->size && at < b->size && a->data[at] == b->data[at])
        at++;
    if (at == a->size || at == b->size)
        return (a->size > b->size) - (a->size < b->size);
    if (a->data[at] == '/' || b->data[at] == '/')
        return a->data[at] == '/' ? -1 : 1;
    return a->data[at] < b->data[at] ? -1 : 1;
}

int dhi_packed_sign(uint8_t tag, const dh_key *a, const dh_key *b)
{
    switch (tag) {
    case PACKED_AWARE_MOMENT:
        return moment_sign(a, b);
    case PACKED_AWARE_TIME:
        return int_sign(int64_at(a->data + 2), int64_at(b->data + 2));
    case PACKED_SPAN:
        return span_sign(a->data, b->data);
    case PACKED_PATH:
        return path_sign(a, b);
    default: /* big-endian, of one size */
        return bytes_sign(a->data, a->size, b->data, b->size);
    }
}

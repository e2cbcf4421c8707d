/* order_private.h -- what the files of the order share: order.c, order_number.c, order_packed.c. */
#ifndef DH_ORDER_PRIVATE_H
#define DH_ORDER_PRIVATE_H

#include "order.h"
#include "value_private.h"

/* Bytes of a rational's numerator, or its denominator. Bounds the time of one comparison, and the
 * magnitudes of every Decimal that is known by its ratio are shorter. */
#define ORDER_RATIO_BYTES_MAX 8192u

/* --- order_number.c ----------------------------------------------------------------------------- */

typedef struct {
    uint8_t tag; /* 'i', 'I', 'f' or 'q'                        */
    bool is_negative;
    int64_t i; /* 'i'                                         */
    double f;  /* 'f': has a fraction, is infinite, or is NaN */
    /* Little-endian. 'I': the magnitude, minimal, beyond 64 bits. 'q': the numerator in two's
     * complement, and the denominator, above one. */
    const uint8_t *top, *bottom;
    size_t top_size, bottom_size;
} order_number;

/* A key of one of these tags. False: the bytes of a rational that cannot be. */
bool dhi_number_from_key(const dh_key *key, order_number *out);
int dhi_number_from_bigint(const dh_heap *heap, dh_word w, order_number *out) DH_MUST_USE;
/* Exactly, whatever the two are. */
int dhi_number_sign(const order_number *a, const order_number *b);

/* --- order_packed.c ----------------------------------------------------------------------------- */

/* What stands for the tag 'x' of a packed value with an order. No tag of value.h is among them. */
enum {
    PACKED_DATE = 'D',
    PACKED_MOMENT = 'm', /* datetime, naive */
    PACKED_AWARE_MOMENT = 'M',
    PACKED_TIME = 'c',
    PACKED_AWARE_TIME = 'C',
    PACKED_SPAN = 'd', /* timedelta */
    PACKED_UUID = 'u',
    PACKED_PATH = 'p',
    PACKED_OTHER = '?', /* no order, or a form that cannot be */
    PACKED_NAN = '!',   /* Decimal("nan")                       */
    PACKED_LONG = '+'   /* a Decimal that is known by its digits */
};
/* Of a key with the tag 'x'. */
uint8_t dhi_packed_tag(const dh_key *key);
/* Two keys of the same packed tag, one that has an order. */
int dhi_packed_sign(uint8_t tag, const dh_key *a, const dh_key *b);

#endif

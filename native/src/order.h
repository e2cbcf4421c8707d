/* order.h -- the order of keys: how a key compares with a stored word.
 *
 * As Python orders them: numbers among each other exactly (ints of any size, floats, rationals,
 * without rounding), str by code points, bytes, dates, times and the like among their own, and tuples
 * of these element by element. UTF-8 has the order of code points, lone surrogates included, so that
 * strings compare as bytes. Of packed values only the canonical form is looked at.
 *
 * Keys of different kinds have no order in Python. Here they still have one, by kind, so that a
 * search always ends somewhere; a comparison that only this order decided says so (is_mixed), and
 * whoever stores a key refuses it.
 */
#ifndef DH_ORDER_H
#define DH_ORDER_H

#include "value.h"

/* A key and what its comparisons share. */
typedef struct {
    const dh_key *key;
    uint8_t tag;     /* its tag (value.h), or for a packed value what stands for it */
    uint64_t prefix; /* first 8 bytes of a str or bytes as a big-endian number, zeros behind */
} dh_order_probe;

/* Where a key stands against a stored word. */
typedef struct {
    int sign;      /* < 0: key first, 0: equal, > 0: stored word first     */
    bool is_mixed; /* the kinds decided: Python would raise TypeError      */
    uint8_t left;  /* the tags, as in the probe, that decided, if so       */
    uint8_t right;
} dh_ordering;

typedef enum {
    DH_ORDER_OK,
    DH_ORDER_NAN,    /* is or holds a NaN, which has no place among numbers      */
    DH_ORDER_LONG,   /* is or holds a number of too many digits to be compared   */
    DH_ORDER_UNKNOWN /* is or holds a value of a kind without an order           */
} dh_order_verdict;

/* May this key stand in an order at all? */
dh_order_verdict dh_order_admits(const dh_key *key);

void dh_order_probe_init(dh_order_probe *probe_out, const dh_key *key);
/* DH_E_CORRUPT for a stored word that is none. */
int dh_order_compare(const dh_heap *heap, const dh_order_probe *probe, dh_word stored,
                     dh_ordering *out) DH_MUST_USE;
/* The same for two stored words. */
int dh_order_words(const dh_heap *heap, dh_word left, dh_word right, dh_ordering *out) DH_MUST_USE;
/* DH_E_UNORDERED with Python's words for a mixed comparison. */
int dh_order_refuse(const dh_heap *heap, const dh_ordering *ordering);
/* A word of its own, to be dropped by the caller, with low < separator <= high; short where it can
 * be. low < high. */
int dh_order_separator(dh_heap *heap, dh_word low, dh_word high, dh_word *separator_out)
    DH_MUST_USE;

#endif

/* value_private.h -- what value.c and key.c share, and the string compare that dicts inline. */
#ifndef DH_VALUE_PRIVATE_H
#define DH_VALUE_PRIVATE_H

#include "span.h"
#include "value.h"

/* Levels of tuples and frozensets inside one another. The depth stands above the count in the first
 * word, so that making one does not walk what it contains; walkers count for themselves. */
#define VALUE_DEPTH_MAX 1000u
#define TUPLE_DEPTH_SHIFT 32u
#define TUPLE_DEPTH_MASK 0xffffu
/* Set in the first word when several slots lead to the tuple: only the collector frees it. */
#define TUPLE_SHARED ((int64_t)1 << 48)

/* The magnitude as an int64, when it fits one. */
bool dhi_magnitude_fits(bool is_negative, const uint8_t *magnitude, size_t size, int64_t *v_out);

/* Steps of key.c that ordering shares. The key of any stored word but a tuple or a big int, without
 * a hash; its data may point to scratch or into the arena. */
int dhi_key_set_simple(const dh_heap *heap, dh_word w, uint8_t scratch[DH_KEY_SCRATCH_BYTES],
                       dh_key *key_out) DH_MUST_USE;
/* Take the next element from a tuple's canonical bytes; false when they end in the middle. */
bool dhi_key_element_next(const uint8_t **data, size_t *size, dh_key *element_out);

/* The bytes of a STR or BYTES ref; false when w is none or is damaged. */
static inline bool dhi_text_view(const dh_heap *heap, dh_word w, dh_type type,
                                 dh_bytes_view *view_out)
{
    size_t bytes;
    uint32_t size;
    const uint8_t *cell = dhi_span(heap, w, type, &bytes);
    if (DH_UNLIKELY(cell == NULL))
        return false;
    memcpy(&size, cell, sizeof size);
    if (DH_UNLIKELY(size > bytes - sizeof size))
        return false;
    view_out->data = cell + sizeof size;
    view_out->size = size;
    return true;
}

/* Equality of strings of the same size, more than 7 bytes: most keys end in these two loads. */
static inline bool dhi_text_same(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint64_t a0, a1, b0, b1;
    if (DH_UNLIKELY(size > 16))
        return memcmp(a, b, size) == 0;
    memcpy(&a0, a, 8);
    memcpy(&b0, b, 8);
    memcpy(&a1, a + size - 8, 8);
    memcpy(&b1, b + size - 8, 8);
    return ((a0 ^ b0) | (a1 ^ b1)) == 0;
}

#endif

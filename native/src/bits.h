/* bits.h -- a set of page numbers as a bitmap over a fixed range. Zero memory is the empty set. */
#ifndef DH_BITS_H
#define DH_BITS_H

#include "base.h"

/* words are lazily touched anonymous memory: an untouched part costs nothing. */
typedef struct {
    uint64_t *words;
    uint64_t bits_count;
} dh_bits;

int dh_bits_init(dh_bits *set, uint64_t bits_count);
void dh_bits_finish(dh_bits *set);
/* Empty the set over [0, limit). */
void dh_bits_clear_all(dh_bits *set, uint64_t limit);
void dh_bits_or(dh_bits *into, const dh_bits *from, uint64_t limit);
uint64_t dh_bits_count(const dh_bits *set, uint64_t limit);
/* The same over [first, limit); first is a multiple of 64. */
void dh_bits_clear_part(dh_bits *set, uint64_t first, uint64_t limit);
void dh_bits_or_part(dh_bits *into, const dh_bits *from, uint64_t first, uint64_t limit);
uint64_t dh_bits_count_part(const dh_bits *set, uint64_t first, uint64_t limit);
/* First member >= from, or limit. */
uint64_t dh_bits_next(const dh_bits *set, uint64_t from, uint64_t limit);
/* First page >= from that is no member, or limit. */
uint64_t dh_bits_next_clear(const dh_bits *set, uint64_t from, uint64_t limit);
void dhi_bits_set_long_run(dh_bits *set, uint64_t first, uint64_t count);
void dh_bits_clear_run(dh_bits *set, uint64_t first, uint64_t count);

static inline bool dh_bits_test(const dh_bits *set, uint64_t i)
{
    return (set->words[i >> 6] >> (i & 63u)) & 1u;
}
static inline void dh_bits_set(dh_bits *set, uint64_t i)
{
    set->words[i >> 6] |= (uint64_t)1 << (i & 63u);
}
static inline void dh_bits_clear(dh_bits *set, uint64_t i)
{
    set->words[i >> 6] &= ~((uint64_t)1 << (i & 63u));
}
/* Within one word, as the runs of most scans are, without a call. */
static inline void dh_bits_set_run(dh_bits *set, uint64_t first, uint64_t count)
{
    unsigned at = first & 63u;

    if (count == 0 || count > 64u - at) {
        dhi_bits_set_long_run(set, first, count);
        return;
    }
    DH_ASSERT(first < set->bits_count && count <= set->bits_count - first);
    set->words[first >> 6] |= UINT64_MAX >> (64u - count) << at;
}

#endif

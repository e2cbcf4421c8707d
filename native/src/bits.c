/* bits.c -- sets of page numbers.
 *
 * Used by whoever owns the set, under the owner's lock; nothing here locks. A word that holds
 * nothing new is never stored to, so that the untouched part of a large set stays without memory.
 */
#include "bits.h"

#include "arena.h"

#define BITS_PER_WORD 64u

static uint64_t bits_bytes(uint64_t bits_count)
{
    return (bits_count + BITS_PER_WORD - 1) / BITS_PER_WORD * sizeof(uint64_t);
}

/* The members of word index that lie below limit. */
static uint64_t bits_below(uint64_t word, uint64_t index, uint64_t limit)
{
    uint64_t first = index * BITS_PER_WORD;

    if (limit - first >= BITS_PER_WORD)
        return word;
    return word & (((uint64_t)1 << (limit - first)) - 1);
}

static uint64_t bits_words_for(uint64_t limit)
{
    return (limit + BITS_PER_WORD - 1) / BITS_PER_WORD;
}

int dh_bits_init(dh_bits *set, uint64_t bits_count)
{
    void *words;
    int rc;

    DH_ASSERT(bits_count > 0);
    rc = dh_reserve(bits_bytes(bits_count), &words);
    if (rc != 0)
        return rc;
    set->words = words;
    set->bits_count = bits_count;
    return 0;
}

void dh_bits_finish(dh_bits *set)
{
    if (set->words != NULL)
        dh_unreserve(set->words, bits_bytes(set->bits_count));
    set->words = NULL;
    set->bits_count = 0;
}

void dh_bits_clear_part(dh_bits *set, uint64_t first, uint64_t limit)
{
    DH_ASSERT(first % BITS_PER_WORD == 0 && limit <= set->bits_count);
    for (uint64_t i = first / BITS_PER_WORD; i < bits_words_for(limit); i++) {
        uint64_t gone = bits_below(set->words[i], i, limit);
        if (gone != 0)
            set->words[i] &= ~gone;
    }
}

void dh_bits_or_part(dh_bits *into, const dh_bits *from, uint64_t first, uint64_t limit)
{
    DH_ASSERT(first % BITS_PER_WORD == 0);
    DH_ASSERT(limit <= into->bits_count && limit <= from->bits_count);
    for (uint64_t i = first / BITS_PER_WORD; i < bits_words_for(limit); i++) {
        uint64_t extra = bits_below(from->words[i], i, limit) & ~into->words[i];
        if (extra != 0)
            into->words[i] |= extra;
    }
}

uint64_t dh_bits_count_part(const dh_bits *set, uint64_t first, uint64_t limit)
{
    uint64_t count = 0;

    DH_ASSERT(first % BITS_PER_WORD == 0 && limit <= set->bits_count);
    for (uint64_t i = first / BITS_PER_WORD; i < bits_words_for(limit); i++)
        count += (uint64_t)__builtin_popcountll(bits_below(set->words[i], i, limit));
    return count;
}

void dh_bits_clear_all(dh_bits *set, uint64_t limit) { dh_bits_clear_part(set, 0, limit); }

void dh_bits_or(dh_bits *into, const dh_bits *from, uint64_t limit)
{
    dh_bits_or_part(into, from, 0, limit);
}

uint64_t dh_bits_count(const dh_bits *set, uint64_t limit)
{
    return dh_bits_count_part(set, 0, limit);
}

/* The first bit >= from in the words, each with the bits of flip turned over. */
static inline uint64_t bits_find(const dh_bits *set, uint64_t from, uint64_t limit, uint64_t flip)
{
    uint64_t i = from / BITS_PER_WORD;
    uint64_t word;

    DH_ASSERT(limit <= set->bits_count);
    if (from >= limit)
        return limit;
    word = (set->words[i] ^ flip) & (UINT64_MAX << (from % BITS_PER_WORD));
    while (word == 0) {
        if (++i >= bits_words_for(limit))
            return limit;
        word = set->words[i] ^ flip;
    }
    from = i * BITS_PER_WORD + (uint64_t)__builtin_ctzll(word);
    return from < limit ? from : limit;
}

uint64_t dh_bits_next(const dh_bits *set, uint64_t from, uint64_t limit)
{
    return bits_find(set, from, limit, 0);
}

uint64_t dh_bits_next_clear(const dh_bits *set, uint64_t from, uint64_t limit)
{
    return bits_find(set, from, limit, UINT64_MAX);
}

void dhi_bits_set_long_run(dh_bits *set, uint64_t first, uint64_t count)
{
    uint64_t limit = first + count;

    DH_ASSERT(count <= set->bits_count && first <= set->bits_count - count);
    while (first < limit) {
        uint64_t i = first / BITS_PER_WORD;
        uint64_t run = UINT64_MAX << (first % BITS_PER_WORD);

        set->words[i] |= bits_below(run, i, limit);
        first = (i + 1) * BITS_PER_WORD;
    }
}

void dh_bits_clear_run(dh_bits *set, uint64_t first, uint64_t count)
{
    uint64_t limit = first + count;

    DH_ASSERT(count <= set->bits_count && first <= set->bits_count - count);
    while (first < limit) {
        uint64_t i = first / BITS_PER_WORD;
        uint64_t gone = bits_below(set->words[i], i, limit) & UINT64_MAX << (first % BITS_PER_WORD);

        if (gone != 0)
            set->words[i] &= ~gone;
        first = (i + 1) * BITS_PER_WORD;
    }
}

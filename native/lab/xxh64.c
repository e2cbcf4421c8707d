/* xxh64.c -- XXH64 after its specification: Yann Collet, "xxHash fast digest algorithm", 0.1.1.
 *
 * Written from the specification's text. Four lanes of 8 bytes, each multiplied and rotated into an
 * accumulator of its own, so that a page costs about what reading it does. No defence against
 * somebody who looks for collisions. Little-endian machines only, as everything here.
 */
#include "xxh64.h"

#include <string.h>

#define PRIME_1 0x9E3779B185EBCA87u
#define PRIME_2 0xC2B2AE3D27D4EB4Fu
#define PRIME_3 0x165667B19E3779F9u
#define PRIME_4 0x85EBCA77C2B2AE63u
#define PRIME_5 0x27D4EB2F165667C5u
#define STRIPE_BYTES 32u

static inline uint64_t rotated(uint64_t x, unsigned bits) { return x << bits | x >> (64u - bits); }

static inline uint64_t lane(const uint8_t *at)
{
    uint64_t x;

    memcpy(&x, at, sizeof(x));
    return x;
}

static inline uint64_t round_of(uint64_t acc, uint64_t input)
{
    return rotated(acc + input * PRIME_2, 31) * PRIME_1;
}

static inline uint64_t merged(uint64_t acc, uint64_t other)
{
    return (acc ^ round_of(0, other)) * PRIME_1 + PRIME_4;
}

/* All whole stripes; the rest is left to the caller. */
static uint64_t stripes(const uint8_t **at, const uint8_t *end, uint64_t seed)
{
    uint64_t a = seed + PRIME_1 + PRIME_2, b = seed + PRIME_2, c = seed, d = seed - PRIME_1;
    const uint8_t *p = *at;
    uint64_t acc;

    for (; (size_t)(end - p) >= STRIPE_BYTES; p += STRIPE_BYTES) {
        a = round_of(a, lane(p));
        b = round_of(b, lane(p + 8));
        c = round_of(c, lane(p + 16));
        d = round_of(d, lane(p + 24));
    }
    *at = p;
    acc = rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18);
    return merged(merged(merged(merged(acc, a), b), c), d);
}

static uint64_t rest(uint64_t acc, const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= 8; p += 8)
        acc = rotated(acc ^ round_of(0, lane(p)), 27) * PRIME_1 + PRIME_4;
    if (end - p >= 4) {
        uint32_t half;

        memcpy(&half, p, sizeof(half));
        acc = rotated(acc ^ half * PRIME_1, 23) * PRIME_2 + PRIME_3;
        p += 4;
    }
    for (; p < end; p++)
        acc = rotated(acc ^ *p * PRIME_5, 11) * PRIME_1;
    return acc;
}

uint64_t dhl_xxh64(const void *bytes, size_t size, uint64_t seed)
{
    const uint8_t *p = bytes;
    const uint8_t *end = p + size;
    uint64_t acc = size >= STRIPE_BYTES ? stripes(&p, end, seed) : seed + PRIME_5;

    acc = rest(acc + size, p, end);
    acc = (acc ^ acc >> 33) * PRIME_2;
    acc = (acc ^ acc >> 29) * PRIME_3;
    return acc ^ acc >> 32;
}

/* siphash.c -- SipHash-1-3: one round per 8 bytes, three at the end.
 *
 * J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012, section 2. The result
 * is stored in dicts on disk: it must never change.
 */
#include "siphash.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are loaded as they lie in memory");

typedef struct {
    uint64_t v0, v1, v2, v3;
} sip_state;

static inline uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64u - bits));
}

static inline void sip_round(sip_state *s)
{
    s->v0 += s->v1;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v2 = rotate_left(s->v2, 32);
}

static inline sip_state sip_begin(const uint64_t key[2])
{
    return (sip_state){key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                       key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
}

static inline void sip_absorb(sip_state *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    s->v0 ^= m;
}

static inline uint64_t sip_end(sip_state *s)
{
    s->v2 ^= 0xffu;
    sip_round(s);
    sip_round(s);
    sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

uint64_t dh_siphash13(const uint64_t key[2], const void *data, size_t size)
{
    sip_state s = sip_begin(key);
    const uint8_t *p = data;
    size_t left = size;
    uint64_t m;

    for (; left >= 8; p += 8, left -= 8) {
        memcpy(&m, p, 8);
        sip_absorb(&s, m);
    }
    m = (uint64_t)size << 56;
    for (size_t i = 0; i < left; i++)
        m |= (uint64_t)p[i] << (8 * i);
    sip_absorb(&s, m);
    return sip_end(&s);
}

uint64_t dh_siphash13_u64(const uint64_t key[2], uint64_t v)
{
    sip_state s = sip_begin(key);

    sip_absorb(&s, v);
    sip_absorb(&s, (uint64_t)8 << 56);
    return sip_end(&s);
}

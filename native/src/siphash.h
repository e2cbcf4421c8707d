/* siphash.h -- SipHash-1-3 (Aumasson, Bernstein 2012; the 1-3 variant), keyed. */
#ifndef DH_SIPHASH_H
#define DH_SIPHASH_H

#include "base.h"

uint64_t dh_siphash13(const uint64_t key[2], const void *data, size_t size);
/* Same result as hashing the 8 little-endian bytes of v. */
uint64_t dh_siphash13_u64(const uint64_t key[2], uint64_t v);

#endif

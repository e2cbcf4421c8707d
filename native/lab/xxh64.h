/* xxh64.h -- the 64-bit xxHash. */
#ifndef DH_XXH64_H
#define DH_XXH64_H

#include <stddef.h>
#include <stdint.h>

uint64_t dhl_xxh64(const void *bytes, size_t size, uint64_t seed);

#endif

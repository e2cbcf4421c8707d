/* fuzzer.h -- what a target gives to fuzzer.c, or to libFuzzer. */
#ifndef DH_FUZZER_H
#define DH_FUZZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
/* Optional. */
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t size_max,
                                                     unsigned seed);

#endif

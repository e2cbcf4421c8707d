/* bare_scan.c -- the bare loop as a library that bench_scan.py calls; it measures itself. */
#include "bare_scan.h"

#include <time.h>

bare *bare_new(uint64_t pages_count)
{
    bare *b = calloc(1, sizeof(*b));

    check(b == NULL ? ENOMEM : 0, "calloc");
    bare_open(b, pages_count);
    return b;
}

uint8_t *bare_memory(const bare *b) { return b->base; }

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Nanoseconds of one scan that resets. */
uint64_t bare_time(const bare *b, uint64_t *found_out)
{
    uint64_t start = now_ns();

    *found_out = bare_scan(b);
    return now_ns() - start;
}

void write_pages(uint8_t *base, uint64_t pages_count, uint64_t dirty_count, int is_random,
                 uint8_t value)
{
    dirty(base, pages_count, dirty_count, is_random != 0, value);
}

/* check.h -- all that a C test needs: CHECK, SKIP, and numbers that can be drawn again.
 *
 * A program runs its cases in main() and returns 0. The seed is printed first; give it as the first
 * argument to repeat a run.
 */
#ifndef DH_CHECK_H
#define DH_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define CHECK(x)                                                                                  \
    ((x) ? (void)0                                                                                \
         : (fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #x), fflush(stdout), \
            exit(1)))

#define CHECK_EQ(a, b)                                                                          \
    do {                                                                                        \
        long long check_a = (long long)(a), check_b = (long long)(b);                           \
        if (check_a != check_b) {                                                               \
            fprintf(stderr, "%s:%d: CHECK failed: %s == %s (%lld, %lld)\n", __FILE__, __LINE__, \
                    #a, #b, check_a, check_b);                                                  \
            fflush(stdout);                                                                     \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

/* This machine cannot run the test; the reason is printed and the harness counts it. */
#define SKIP(...) (printf("SKIP: " __VA_ARGS__), putchar('\n'), fflush(stdout), exit(77))

static uint64_t check_random_state;

/* SplitMix64 (Steele, Lea, Flood 2014). */
static inline uint64_t check_random(void)
{
    uint64_t z = (check_random_state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
/* 0 <= result < limit */
static inline uint64_t check_random_below(uint64_t limit) { return check_random() % limit; }

static inline void check_begin(int argc, char **argv)
{
    uint64_t seed = 0;

    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    else if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        exit(1);
    check_random_state = seed;
    printf("seed 0x%llx\n", (unsigned long long)seed);
    fflush(stdout);
}

#endif

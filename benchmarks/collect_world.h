/* collect_world.h -- what the programs of bench_collect.py and bench_gc_shapes.py share: stopping a
 * mutator between two of its operations, numbers that come again, and the length of its waits.
 *
 * The stop is a handshake, as the GIL gives one: who stops the world asks, the mutator answers at the
 * end of its operation. The wait is measured by the one who waits. One mutator only.
 */
#ifndef DH_BENCH_COLLECT_WORLD_H
#define DH_BENCH_COLLECT_WORLD_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORLD_SPINS 1000

static inline uint64_t world_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The thread's own: it stands while another process has the processor. */
static inline uint64_t world_cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

typedef struct {
    atomic_bool is_asked;
    atomic_bool is_parked;
    uint64_t longest_wait_ns; /* the mutator's own; read it while the mutator does not run */
} bench_world;

static inline void world_await(atomic_bool *flag, bool value)
{
    for (int spins = 0; atomic_load_explicit(flag, memory_order_acquire) != value; spins++)
        if (spins > WORLD_SPINS)
            sched_yield();
}

/* The mutator itself may collect, too: it stands while it does. */
static _Thread_local bool world_is_mine;

/* For dh_world. */
static inline void world_stop(void *context)
{
    bench_world *world = context;

    if (world_is_mine)
        return;
    atomic_store(&world->is_asked, true);
    world_await(&world->is_parked, true);
}

static inline void world_resume(void *context)
{
    bench_world *world = context;

    if (world_is_mine)
        return;
    atomic_store(&world->is_asked, false);
    world_await(&world->is_parked, false);
}

static inline void world_park(bench_world *world)
{
    uint64_t began_ns = world_clock_ns(), waited_ns;

    atomic_store(&world->is_parked, true);
    world_await(&world->is_asked, false);
    atomic_store(&world->is_parked, false);
    waited_ns = world_clock_ns() - began_ns;
    if (waited_ns > world->longest_wait_ns)
        world->longest_wait_ns = waited_ns;
}

/* The mutator, between two operations. */
static inline void world_point(bench_world *world)
{
    if (__builtin_expect(atomic_load_explicit(&world->is_asked, memory_order_relaxed), 0))
        world_park(world);
}

/* --- numbers -------------------------------------------------------------------------------------- */

static uint64_t random_state = 1;

/* SplitMix64 (Steele, Lea, Flood 2014). */
static inline uint64_t random_next(void)
{
    uint64_t z = (random_state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline uint64_t random_below(uint64_t limit) { return random_next() % limit; }

static inline void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s fails: %s\n", what, why);
    exit(1);
}

/* For how long so far somebody else had the processor that this thread was ready to use; 0 where the
 * kernel does not tell. */
static inline uint64_t robbed_ns(void)
{
    static _Thread_local int fd = -2;
    unsigned long long ran, waited;
    char text[100] = "";

    if (fd == -2)
        fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, text, sizeof(text) - 1, 0) <= 0)
        return 0;
    return sscanf(text, "%llu %llu", &ran, &waited) == 2 ? waited : 0;
}

/* Bytes of a line of /proc/self/status, "VmHWM:" say. */
static inline uint64_t status_bytes(const char *name)
{
    unsigned long long kb = 0;
    char line[200];
    FILE *file = fopen("/proc/self/status", "r");

    if (file == NULL)
        fail("open /proc/self/status", strerror(errno));
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), "%llu", &kb);
    fclose(file);
    return (uint64_t)kb << 10;
}

#endif

/* storer.c -- a thread that stores into memory it was given, and knows nothing of Python.
 *
 * Store number n goes to slot n % slots_count and has the value n. After a store its number is
 * published; whoever reads the published number may expect every store up to it in memory.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct {
    uint8_t *memory;
    uint64_t slots_count, first_bytes, stride_bytes;
    _Atomic uint64_t published;
    _Atomic int is_over;
    pthread_t thread;
} storer;

static void *run(void *context)
{
    storer *s = context;
    for (uint64_t n = 1; !atomic_load_explicit(&s->is_over, memory_order_relaxed); n++) {
        uint64_t place = s->first_bytes + n % s->slots_count * s->stride_bytes;
        __atomic_store_n((uint64_t *)(s->memory + place), n, __ATOMIC_RELAXED);
        atomic_store_explicit(&s->published, n, memory_order_release);
    }
    return NULL;
}

int storer_start(storer *s) { return pthread_create(&s->thread, NULL, run, s); }

uint64_t storer_published(storer *s)
{
    return atomic_load_explicit(&s->published, memory_order_acquire);
}

int storer_stop(storer *s)
{
    atomic_store(&s->is_over, 1);
    return pthread_join(s->thread, NULL);
}

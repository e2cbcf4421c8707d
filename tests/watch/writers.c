/* writers.c -- threads that write to memory they were given, as fast as they can, without Python.
 *
 * A writer stores random words, or lets the kernel write there by read(2) from a file. Nothing is
 * published: whoever wants to know what is in memory stops them first.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define READ_BYTES 300u

typedef struct {
    uint8_t *memory;
    uint64_t pages_count;
    uint64_t seed;
    int fd; /* of a file to read from, or -1: stores */
    _Atomic int is_over;
    _Atomic uint64_t writes_count;
    _Atomic int error; /* errno of a read that failed */
    pthread_t thread;
} writer;

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t draw(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static void store(writer *w, uint64_t drawn)
{
    uint64_t place = drawn % w->pages_count * PAGE_BYTES + (drawn >> 32) % 512 * 8;

    __atomic_fetch_add((uint64_t *)(w->memory + place), drawn | 1, __ATOMIC_RELAXED);
}

/* Often across a page's end. */
static int kernel_read(writer *w, uint64_t drawn)
{
    uint64_t place = drawn % (w->pages_count * PAGE_BYTES - READ_BYTES);
    off_t from = (off_t)((drawn >> 40) % 3000);

    return pread(w->fd, w->memory + place, READ_BYTES, from) == READ_BYTES;
}

static void *run(void *context)
{
    writer *w = context;

    while (!atomic_load_explicit(&w->is_over, memory_order_relaxed)) {
        uint64_t drawn = draw(&w->seed);

        if (w->fd < 0)
            store(w, drawn);
        else if (!kernel_read(w, drawn))
            w->error = 1;
        atomic_fetch_add_explicit(&w->writes_count, 1, memory_order_relaxed);
    }
    return NULL;
}

int writer_start(writer *w)
{
    atomic_store(&w->is_over, 0);
    return pthread_create(&w->thread, NULL, run, w);
}

int writer_stop(writer *w)
{
    int rc;

    atomic_store(&w->is_over, 1);
    rc = pthread_join(w->thread, NULL);
    return rc != 0 ? rc : w->error;
}

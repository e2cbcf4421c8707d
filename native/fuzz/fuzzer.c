/* fuzzer.c -- a coverage-guided fuzzer in one file: mutate, run, keep what reached something new.
 *
 *   fuzz_X SECONDS SEED SEEDS_DIR WORK_DIR
 *
 * Links with one target, which has the interface of libFuzzer (LLVMFuzzerTestOneInput and, if it
 * likes, LLVMFuzzerCustomMutator), and with the core compiled with -fsanitize-coverage=trace-pc. That
 * gcc has everywhere; libFuzzer would need clang, AFL++ an installation: a clean clone has neither,
 * and for decoders of some kilobytes a bitmap of edges and this loop find what those find. A target
 * may be compiled for either of them all the same.
 *
 * The input that is running is kept in WORK_DIR/running, so that it outlives a crash; kept ones are
 * written there as corpus-N. Prints executions, edges, corpus.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzzer.h"

#define INPUT_BYTES_MAX (1u << 18)
#define CORPUS_MAX 8192u
#define EDGES_COUNT (1u << 16)
#define STACK_MAX 5u /* mutations at once */

/* --- coverage --------------------------------------------------------------------------------- */

static uint8_t edges[EDGES_COUNT];     /* of the run: how often, saturated */
static uint8_t edges_met[EDGES_COUNT]; /* of all runs: which classes of counts */
static uintptr_t edge_before;

void __sanitizer_cov_trace_pc(void);
/* Called by the compiler at every block of the core. Where a block is came from makes an edge; the
 * address is taken from this function, so that the layout of the process does not matter. */
void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0) - (uintptr_t)&__sanitizer_cov_trace_pc;
    here = here * 0x9E3779B97F4A7C15u >> 32;
    uint8_t *edge = &edges[(here ^ edge_before) % EDGES_COUNT];
    edge_before = here >> 1;
    *edge = (uint8_t)(*edge + (*edge < 255));
}

/* 1, 2, 3, 4-7, 8-15, 16-31, 32-127, more: a bit each, as AFL counts. */
static uint8_t count_class(uint8_t count)
{
    static const uint8_t limits[] = {1, 2, 3, 7, 15, 31, 127, 255};
    unsigned i = 0;
    while (count > limits[i])
        i++;
    return (uint8_t)(1u << i);
}

/* Whether the run met an edge, or a count of one, that no run met before. */
static bool is_new(void)
{
    bool found = false;
    for (size_t i = 0; i < EDGES_COUNT; i++) {
        if (edges[i] == 0)
            continue;
        uint8_t bit = count_class(edges[i]);
        found |= (edges_met[i] & bit) == 0;
        edges_met[i] |= bit;
    }
    return found;
}

static uint64_t edges_count(void)
{
    uint64_t count = 0;
    for (size_t i = 0; i < EDGES_COUNT; i++)
        count += edges_met[i] != 0;
    return count;
}

/* --- randomness ------------------------------------------------------------------------------- */

static uint64_t random_state;

/* splitmix64 (Steele, Lea, Flood, 2014) */
static uint64_t random_u64(void)
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t random_below(size_t limit) { return limit == 0 ? 0 : (size_t)(random_u64() % limit); }

/* --- corpus ----------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *bytes;
    size_t size;
} input;

static input corpus[CORPUS_MAX];
static size_t corpus_count;

static void corpus_add(const uint8_t *bytes, size_t size)
{
    if (corpus_count == CORPUS_MAX)
        return;
    uint8_t *copy = malloc(size + 1);
    if (copy == NULL)
        return;
    memcpy(copy, bytes, size);
    corpus[corpus_count++] = (input){copy, size};
}

static void corpus_read(const char *directory)
{
    static uint8_t bytes[INPUT_BYTES_MAX];
    DIR *entries = opendir(directory);
    struct dirent *entry;

    if (entries == NULL) {
        perror(directory);
        exit(2);
    }
    while ((entry = readdir(entries)) != NULL) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        int fd = open(path, O_RDONLY);
        ssize_t size = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
        if (size > 0)
            corpus_add(bytes, (size_t)size);
        if (fd >= 0)
            close(fd);
    }
    closedir(entries);
}

static void corpus_save(const char *directory)
{
    for (size_t i = 0; i < corpus_count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/corpus-%zu", directory, i);
        FILE *file = fopen(path, "wb");
        if (file == NULL)
            continue;
        (void)!fwrite(corpus[i].bytes, 1, corpus[i].size, file);
        fclose(file);
    }
}

/* --- mutations -------------------------------------------------------------------------------- */

static size_t set_number(uint8_t *bytes, size_t size)
{
    static const uint64_t numbers[] = {
        0,          1,          2,          7,          8,          255,       256,   511,
        512,        4095,       4096,       4097,       8192,       32767,     65535, 65536,
        0x7fffffff, 0x80000000, 0xffffffff, 1ull << 40, 1ull << 62, UINT64_MAX};
    size_t width = (size_t)1 << random_below(4);
    uint64_t number;
    if (size < width)
        return size;
    size_t at = random_below(size - width + 1);
    if (random_below(2) == 0)
        at -= at % width;
    memset(&number, 0, sizeof number);
    memcpy(&number, bytes + at, width);
    switch (random_below(4)) {
    case 0:
        number += random_below(33) - 16;
        break;
    case 1:
        number = random_u64();
        break;
    default:
        number = numbers[random_below(sizeof numbers / sizeof numbers[0])];
    }
    memcpy(bytes + at, &number, width);
    return size;
}

static size_t copy_block(uint8_t *bytes, size_t size)
{
    size_t count = 1 + random_below(size < 512 ? size : 512);
    if (count <= size)
        memmove(bytes + random_below(size - count + 1), bytes + random_below(size - count + 1),
                count);
    return size;
}

static size_t resize(uint8_t *bytes, size_t size, size_t room)
{
    size_t count = 1 + random_below(64), at = random_below(size + 1);
    if (random_below(2) == 0 && size > count && at + count <= size) {
        memmove(bytes + at, bytes + at + count, size - at - count);
        return size - count;
    }
    if (size + count > room)
        return size;
    memmove(bytes + at + count, bytes + at, size - at);
    memset(bytes + at, (int)random_below(256), count);
    return size + count;
}

/* A block of another input. */
static size_t take_block(uint8_t *bytes, size_t size)
{
    const input *other = &corpus[random_below(corpus_count)];
    size_t limit = other->size < size ? other->size : size;
    if (limit == 0)
        return size;
    size_t count = 1 + random_below(limit), at = random_below(limit - count + 1);
    size_t from = random_below(2) == 0 ? at : random_below(other->size - count + 1);
    memcpy(bytes + at, other->bytes + from, count);
    return size;
}

static size_t mutate_once(uint8_t *bytes, size_t size, size_t room)
{
    if (size == 0)
        return resize(bytes, size, room);
    switch (random_below(8)) {
    case 0:
    case 1:
        bytes[random_below(size)] ^= (uint8_t)(1u << random_below(8));
        return size;
    case 2:
    case 3:
    case 4:
        return set_number(bytes, size);
    case 5:
        return copy_block(bytes, size);
    case 6:
        return take_block(bytes, size);
    default:
        return resize(bytes, size, room);
    }
}

static size_t mutate(uint8_t *bytes, size_t size, size_t room)
{
    if (LLVMFuzzerCustomMutator != NULL && random_below(2) == 0)
        return LLVMFuzzerCustomMutator(bytes, size, room, (unsigned)random_u64());
    for (size_t left = 1 + random_below(STACK_MAX); left > 0; left--)
        size = mutate_once(bytes, size, room);
    return size;
}

/* --- the loop --------------------------------------------------------------------------------- */

/* Survives the process: the size, then the bytes. */
static uint8_t *running;

static void open_running(const char *directory)
{
    char path[4096];
    size_t bytes = INPUT_BYTES_MAX + 8;

    snprintf(path, sizeof path, "%s/running", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) {
        perror(path);
        exit(2);
    }
    running = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (running == MAP_FAILED)
        exit(2);
}

static bool run(const uint8_t *bytes, size_t size)
{
    uint64_t size64 = size;
    memcpy(running, &size64, 8);
    memcpy(running + 8, bytes, size);
    memset(edges, 0, sizeof edges);
    edge_before = 0;
    LLVMFuzzerTestOneInput(bytes, size);
    return is_new();
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static uint64_t fuzz_for(double seconds)
{
    static uint8_t bytes[INPUT_BYTES_MAX];
    double until_s = now_s() + seconds;
    uint64_t executions = 0;

    for (; executions % 64 != 0 || now_s() < until_s; executions++) {
        /* Every second one is of the last that were found: they are the least explored. */
        size_t back = random_below(2) == 0 ? corpus_count : corpus_count < 16 ? corpus_count : 16;
        const input *from = &corpus[corpus_count - 1 - random_below(back)];
        memcpy(bytes, from->bytes, from->size);
        size_t size = mutate(bytes, from->size, sizeof bytes);
        if (run(bytes, size))
            corpus_add(bytes, size);
    }
    return executions;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s SECONDS SEED SEEDS_DIR WORK_DIR\n", argv[0]);
        return 2;
    }
    random_state = strtoull(argv[2], NULL, 0);
    open_running(argv[4]);
    corpus_read(argv[3]);
    if (corpus_count == 0)
        corpus_add((const uint8_t *)"", 0);
    size_t seeds = corpus_count;
    for (size_t i = 0; i < seeds; i++)
        run(corpus[i].bytes, corpus[i].size);
    uint64_t edges_of_seeds = edges_count();
    uint64_t executions = fuzz_for(strtod(argv[1], NULL));
    corpus_save(argv[4]);
    printf("%llu executions, %llu edges (%llu by the %zu seeds), corpus %zu\n",
           (unsigned long long)executions, (unsigned long long)edges_count(),
           (unsigned long long)edges_of_seeds, seeds, corpus_count);
    return 0;
}

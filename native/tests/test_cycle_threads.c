/* test_cycle_threads.c -- marking beside a mutator, in threads of their own, held against a naive trace
 * after the last stop. Also run under ThreadSanitizer: make -C native test-tsan.
 *
 * The world lock is a mutex here, as the GIL is under Python: the mutator gives it up between its
 * steps. Commits and rollbacks take the heap lock, as verbs do.
 */
#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "gc_graph.h"
#include "cycle.h"

static pthread_mutex_t world_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t heap_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local unsigned stops_depth;

static void world_stop(void *context)
{
    (void)context;
    if (stops_depth++ == 0)
        pthread_mutex_lock(&world_lock);
}

static void world_resume(void *context)
{
    (void)context;
    if (--stops_depth == 0)
        pthread_mutex_unlock(&world_lock);
}

typedef struct {
    dh_heap *heap;
    graph *g;
    unsigned cycles_count; /* to be completed */
    unsigned dropped_count;
    uint64_t lost_count, rounds_count, freed_count;
    int is_over;
} collector;

static void run_cycle(collector *c)
{
    dh_collect_stats stats;
    int is_over = 0;

    pthread_mutex_lock(&heap_lock);
    CHECK_EQ(dh_cycle_begin(c->heap, &stats), 0);
    pthread_mutex_unlock(&heap_lock);
    while (!is_over)
        CHECK_EQ(dh_cycle_mark(c->heap, 200000, &is_over), 0);
    pthread_mutex_lock(&heap_lock);
    bool is_dropped = DHI_SHARED_LOAD(&c->heap->cycle_phase) == DHI_CYCLE_IDLE;
    CHECK_EQ(dh_cycle_finish(c->heap, &stats), 0);
    world_stop(NULL);
    graph_trace(c->g);
    c->lost_count += c->g->lost_count;
    c->is_over = c->lost_count != 0; /* the mutator must not walk into what is freed */
    world_resume(NULL);
    pthread_mutex_unlock(&heap_lock);
    for (is_over = c->lost_count != 0; !is_over;) {
        pthread_mutex_lock(&heap_lock);
        CHECK_EQ(dh_cycle_sweep(c->heap, 100000, &stats, &is_over), 0);
        pthread_mutex_unlock(&heap_lock);
    }
    c->freed_count += stats.freed_cells_count;
    c->rounds_count += stats.rounds_count;
    c->dropped_count += is_dropped;
    c->cycles_count -= !is_dropped;
}

static void *collect(void *context)
{
    collector *c = context;

    while (c->cycles_count > 0 && c->lost_count == 0)
        run_cycle(c);
    world_stop(NULL);
    c->is_over = 1;
    world_resume(NULL);
    return NULL;
}

static void commit(dh_heap *heap)
{
    dh_capture *capture;

    pthread_mutex_lock(&heap_lock);
    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 0, 1, 1 << 20), 0);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
    pthread_mutex_unlock(&heap_lock);
}

static void go_back(dh_heap *heap)
{
    uint64_t pages, stop_ns;

    pthread_mutex_lock(&heap_lock);
    CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
    pthread_mutex_unlock(&heap_lock);
}

static void mutate(collector *c)
{
    for (unsigned n = 1;; n++) {
        world_stop(NULL);
        bool is_over = c->is_over;
        for (int step = 0; step < 20 && !is_over; step++)
            graph_step(c->g);
        world_resume(NULL);
        if (is_over)
            break;
        if (n % 97 == 0)
            commit(c->heap);
        if (n % 3001 == 0)
            go_back(c->heap);
    }
}

static uint64_t run(unsigned cycles_count, unsigned nodes_count)
{
    dh_options options = {512u << 20, DH_TRACKER_AUTO, {1, 2}};
    dh_world world = {world_stop, world_resume, NULL, NULL};
    collector c = {.cycles_count = cycles_count};
    pthread_t thread;
    graph g;

    CHECK_EQ(dh_heap_open(&options, &c.heap), 0);
    CHECK_EQ(dh_load_finish(c.heap, NULL), 0);
    dh_heap_set_world(c.heap, &world);
    graph_begin(&g, c.heap);
    c.g = &g;
    for (unsigned n = 0; n < nodes_count; n++)
        graph_step(&g);
    commit(c.heap);
    CHECK_EQ(pthread_create(&thread, NULL, collect, &c), 0);
    mutate(&c);
    pthread_join(thread, NULL);
    printf("%u cycles, %u dropped, %llu rounds, %llu cells freed, %llu lost\n", cycles_count,
           c.dropped_count, (unsigned long long)c.rounds_count, (unsigned long long)c.freed_count,
           (unsigned long long)c.lost_count);
    CHECK(c.lost_count != 0 || c.freed_count > 0);
    graph_end(&g);
    dh_heap_close(c.heap);
    return c.lost_count;
}

int main(int argc, char **argv)
{
    bool is_kernel = dh_probe(DH_TRACKER_UFFD, NULL, 0) == 0;

    check_begin(argc, argv);
    CHECK_EQ(run(30, 60000), 0);
    if (is_kernel) {
        uint64_t found = 0;
        CHECK_EQ(dh_fault_set("collect.rescan", 0, 5), 0);
        for (int tries = 0; tries < 20 && found == 0; tries++)
            found = run(30, 60000);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        CHECK(found > 0); /* the trace finds what is lost */
    }
    return 0;
}

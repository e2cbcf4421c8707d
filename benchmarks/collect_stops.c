/* collect_stops.c -- how long the collector stops a program: records in directories, in C.
 *
 * Built by bench_collect.py together with native/src. The graph: a directory, buckets of 63
 * references, records of 64 bytes, each with one leaf of 32 raw bytes; some 20 million cells to a GiB.
 * An operation picks any record: half of them store an int in it, a quarter replace it, a quarter
 * make a record that is dropped at once. Uniform choice is the worst case: nearly every operation
 * writes to a page of its own. One line per measurement, times in ns, measured by who waits; where
 * nobody runs beside it, by its own clock, which other processes do not move:
 *
 *   collect_stops stops MEGABYTES ROUNDS OPS
 *     stops ROUND YOUNG FULL BESIDE INSIDE DIRTY RESCANNED YOUNG_MARKED LIVE PLAIN
 *       a young and a full collection of the same heap, and the mark of its copy as C structures by a
 *       plain loop, with bits beside and inside the objects. LIVE, PLAIN: cells, objects marked.
 *   collect_stops young MEGABYTES ROUNDS OPS...
 *     young OPS ROUND STOP DIRTY RESCANNED MARKED
 *   collect_stops concurrent MEGABYTES ROUNDS RATE...
 *     concurrent RATE ROUND TOTAL LONGEST LAST WAITED STOPS OPS_DONE REMARK_ROUNDS DIRTY
 *       full cycles beside a mutator of RATE operations a second (0: as fast as it can). LONGEST stop,
 *       and LAST one of marking, by the collector's clock; WAITED: the longest by the mutator's.
 */
#include <pthread.h>

#include "collect_beside.h"
#include "collect_plain.h"

#define BUCKET_REFS 63u
#define RECORD_BYTES 64u
#define LEAF_BYTES 32u
#define BYTES_PER_RECORD (RECORD_BYTES + LEAF_BYTES + 512u / BUCKET_REFS + 1u)
/* Words of a record behind its count and its reference. */
#define INTS_FIRST 2u
#define INTS_COUNT 6u

static void check(const dh_heap *heap, int rc, const char *what)
{
    if (rc != 0)
        fail(what, rc > 0 ? strerror(rc) : heap != NULL ? dh_heap_error_text(heap) : "");
}

/* --- the graph ------------------------------------------------------------------------------------ */

typedef struct {
    dh_heap *heap;
    dh_handle handle; /* of the directory */
    uint64_t buckets_count;
} records;

static dh_word cell_new(dh_heap *heap, size_t bytes, dh_content content, dh_type type)
{
    dh_off off;

    check(heap, dh_cell_new(heap, bytes, content, &off), "dh_cell_new");
    return dh_ref(type, off);
}

static dh_word *words_of(const dh_heap *heap, dh_word ref) { return dh_at(heap, dh_ref_off(ref)); }

static dh_word record_new(dh_heap *heap)
{
    dh_word leaf = cell_new(heap, LEAF_BYTES, DH_RAW, DH_T_DATA);
    dh_word record = cell_new(heap, RECORD_BYTES, DH_REFS, DH_T_FIELDS);
    dh_word *words = words_of(heap, record);

    words_of(heap, leaf)[1] = random_next();
    words[0] = dh_int(1);
    words[1] = leaf;
    for (unsigned i = 0; i < INTS_COUNT; i++)
        words[INTS_FIRST + i] = dh_int((int64_t)i);
    return record;
}

static void records_open(records *r, uint64_t bytes)
{
    dh_options options = {
        .capacity_bytes = bytes * 4 + (256u << 20), .tracker = DH_TRACKER_AUTO, .hash_key = {1, 2}};
    dh_word directory;

    check(NULL, dh_heap_open(&options, &r->heap), "dh_heap_open");
    check(r->heap, dh_load_finish(r->heap, NULL), "dh_load_finish");
    r->buckets_count = bytes / BYTES_PER_RECORD / BUCKET_REFS;
    directory = cell_new(r->heap, (r->buckets_count + 1) * 8, DH_REFS, DH_T_DIR);
    r->handle = (dh_handle){directory, 0};
    check(r->heap, dh_handles_add(&r->heap->handles, &r->handle), "dh_handles_add");
    words_of(r->heap, directory)[0] = dh_int((int64_t)r->buckets_count);
    for (uint64_t b = 1; b <= r->buckets_count; b++) {
        dh_word bucket = cell_new(r->heap, (BUCKET_REFS + 1) * 8, DH_REFS, DH_T_LEAF);
        dh_word *words = words_of(r->heap, bucket);

        words[0] = dh_int(BUCKET_REFS);
        for (unsigned i = 1; i <= BUCKET_REFS; i++)
            words[i] = record_new(r->heap);
        words_of(r->heap, directory)[b] = bucket;
    }
}

static void operate(records *r)
{
    uint64_t what = random_below(4), bucket = 1 + random_below(r->buckets_count);
    dh_word *slot = &words_of(
        r->heap, words_of(r->heap, r->handle.word)[bucket])[1 + random_below(BUCKET_REFS)];

    if (what < 2)
        dh_store(&words_of(r->heap, *slot)[INTS_FIRST + random_below(INTS_COUNT)],
                 dh_int((int64_t)random_below(1000)));
    else if (what == 2)
        dh_store(slot, record_new(r->heap));
    else
        (void)record_new(r->heap);
}

static void operate_often(records *r, uint64_t ops)
{
    for (uint64_t i = 0; i < ops; i++)
        operate(r);
}

/* --- one after the other -------------------------------------------------------------------------- */

static uint64_t collect(records *r, bool is_young, dh_collect_stats *stats)
{
    uint64_t began_ns = world_cpu_ns();
    int rc = is_young ? dh_collect_young(r->heap, stats) : dh_collect(r->heap, stats);
    uint64_t took_ns = world_cpu_ns() - began_ns;

    check(r->heap, rc, is_young ? "dh_collect_young" : "dh_collect");
    return took_ns;
}

static uint64_t timed_mark(uint64_t (*mark)(plain_graph *), plain_graph *plain, uint64_t *count_out)
{
    uint64_t began_ns = world_cpu_ns();

    *count_out = mark(plain);
    return world_cpu_ns() - began_ns;
}

static void stops_round(records *r, uint64_t round, uint64_t ops)
{
    dh_collect_stats young, full;
    uint64_t young_ns, full_ns, beside_ns, inside_ns, count, again;
    plain_graph plain;

    operate_often(r, ops);
    young_ns = collect(r, true, &young);
    full_ns = collect(r, false, &full);
    plain_copy(&plain, r->heap, r->handle.word);
    beside_ns = timed_mark(plain_mark_beside, &plain, &count);
    inside_ns = timed_mark(plain_mark_inside, &plain, &again);
    plain_free(&plain);
    if (count != again)
        fail("plain mark", "two ways of marking do not find the same objects");
    printf("stops %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu\n", (unsigned long long)round,
           (unsigned long long)young_ns, (unsigned long long)full_ns, (unsigned long long)beside_ns,
           (unsigned long long)inside_ns, (unsigned long long)young.dirty_pages_count,
           (unsigned long long)young.rescanned_cells_count,
           (unsigned long long)young.marked_cells_count, (unsigned long long)full.live_cells_count,
           (unsigned long long)count);
    fflush(stdout);
}

static void young_round(records *r, uint64_t round, uint64_t ops)
{
    dh_collect_stats stats;
    uint64_t took_ns;

    operate_often(r, ops);
    took_ns = collect(r, true, &stats);
    printf("young %llu %llu %llu %llu %llu %llu\n", (unsigned long long)ops,
           (unsigned long long)round, (unsigned long long)took_ns,
           (unsigned long long)stats.dirty_pages_count,
           (unsigned long long)stats.rescanned_cells_count,
           (unsigned long long)stats.marked_cells_count);
    fflush(stdout);
}

/* --- beside each other ---------------------------------------------------------------------------- */

typedef struct {
    records *records;
    bench_world world;
    uint64_t rate;
    atomic_bool is_over;
    _Atomic uint64_t ops_done;
} mutator;

/* In steps of a tenth of a millisecond, so that the pace does not depend on the clock's cost. */
static void *mutate(void *argument)
{
    mutator *m = argument;
    uint64_t began_ns = world_clock_ns(), done = 0;

    world_is_mine = true;
    while (!atomic_load(&m->is_over)) {
        uint64_t due =
            m->rate == 0 ? done + 100 : (world_clock_ns() - began_ns) / 100000 * m->rate / 10000;

        world_point(&m->world);
        for (; done < due && !atomic_load_explicit(&m->is_over, memory_order_relaxed); done++) {
            operate(m->records);
            world_point(&m->world);
        }
        atomic_store(&m->ops_done, done);
    }
    atomic_store(&m->world.is_parked, true); /* it stands for good */
    return NULL;
}

static void concurrent_round(mutator *m, uint64_t round)
{
    static const struct timespec pause = {0, 100000000};
    uint64_t began_ns, total_ns, waited_ns, ops_before;
    beside_result result;

    nanosleep(&pause, NULL); /* the program goes on between two cycles */
    world_stop(&m->world);
    m->world.longest_wait_ns = 0;
    world_resume(&m->world);
    ops_before = atomic_load(&m->ops_done);
    began_ns = world_clock_ns();
    check(m->records->heap, collect_beside(m->records->heap, &result), "the concurrent cycle");
    total_ns = world_clock_ns() - began_ns;
    world_stop(&m->world);
    waited_ns = m->world.longest_wait_ns;
    world_resume(&m->world);
    printf("concurrent %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu\n",
           (unsigned long long)m->rate, (unsigned long long)round, (unsigned long long)total_ns,
           (unsigned long long)result.longest_stop_ns, (unsigned long long)result.last_stop_ns,
           (unsigned long long)waited_ns, (unsigned long long)result.stops_count,
           (unsigned long long)(atomic_load(&m->ops_done) - ops_before),
           (unsigned long long)result.stats.rounds_count,
           (unsigned long long)result.stats.dirty_pages_count);
    fflush(stdout);
}

static void concurrent(records *r, uint64_t rounds, uint64_t rate)
{
    mutator m = {.records = r, .rate = rate};
    dh_world world = {.stop = world_stop, .resume = world_resume, .context = &m.world};
    pthread_t thread;

    check(NULL, pthread_create(&thread, NULL, mutate, &m), "pthread_create");
    dh_heap_set_world(r->heap, &world);
    for (uint64_t round = 0; round < rounds; round++)
        concurrent_round(&m, round);
    atomic_store(&m.is_over, true);
    check(NULL, pthread_join(thread, NULL), "pthread_join");
    dh_heap_set_world(r->heap, &(dh_world){0});
}

int main(int argc, char **argv)
{
    dh_collect_stats stats;
    records r;

    if (argc < 5)
        fail("usage", "collect_stops stops|young|concurrent MEGABYTES ROUNDS N...");
    records_open(&r, strtoull(argv[2], NULL, 10) << 20);
    uint64_t rounds = strtoull(argv[3], NULL, 10);

    (void)collect(&r, false, &stats); /* all of it is old now */
    for (uint64_t round = 0; strcmp(argv[1], "concurrent") != 0 && round < rounds; round++)
        for (int i = 4; i < argc; i++)
            (strcmp(argv[1], "stops") == 0 ? stops_round
                                           : young_round)(&r, round, strtoull(argv[i], NULL, 10));
    for (int i = 4; strcmp(argv[1], "concurrent") == 0 && i < argc; i++)
        concurrent(&r, rounds, strtoull(argv[i], NULL, 10));
    dh_heap_close(r.heap);
    return 0;
}

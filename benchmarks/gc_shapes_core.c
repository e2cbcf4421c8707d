/* gc_shapes_core.c -- the programs of gc_shapes.h over the core: cells of words, stores without a
 * barrier, and one source of written pages or another.
 *
 * Built by bench_gc_shapes.py together with native/src. Collections are triggered by allocation: a
 * young one for every YOUNG_BYTES, a full one when the heap is FULL_GROWTH times what the last full one
 * left, and YOUNG_BYTES more. Prints what gc_shapes.h says, then the numbers of young and full collections and the bytes of
 * the arena that were ever used.
 *
 *   gc_shapes_core SOURCE SHAPE SIZE WORK throughput|gaps YOUNG_BYTES
 *     watch        the kernel tells which pages were written
 *     concurrent   the same; full collections in a thread of their own, beside the program
 *     marks        the program tells: a byte for the page, at each store (cards, a page each)
 *     compare      all pages are compared with a copy made before the time begins
 *     everything   every page counts as written
 *     full         no young collections
 */
#include <pthread.h>

#include "collect_beside.h"

#define FULL_GROWTH 1.5
#define CAPACITY_BYTES ((uint64_t)16 << 30)
#define ROOTS 64u

typedef dh_word node;
#define NODE_NONE DH_EMPTY

static dh_heap *heap;
static dh_handle roots_handle;
static uint8_t *cards; /* by page, or NULL: nobody wants to be told */
static uint64_t nodes_count, young_count, full_count;
static uint64_t young_bytes, young_due_bytes, full_due_bytes; /* due: of allocated_bytes */

static void check(int rc, const char *what)
{
    if (rc != 0)
        fail(what, heap == NULL ? dh_heap_open_error() : dh_heap_error_text(heap));
}

/* --- nodes ---------------------------------------------------------------------------------------- */

static inline dh_word *words_of(node n) { return dh_at(heap, dh_ref_off(n)); }

/* A slot of a container: the store, and the mark where stores are marked by hand. */
static inline void store(dh_word *slot, node to)
{
    dh_store(slot, to);
    if (cards != NULL)
        cards[(uint64_t)((uint8_t *)slot - heap->arena.base) >> DH_PAGE_SHIFT] = 1;
}

static inline node cell_new(size_t bytes)
{
    dh_off off;

    check(dh_cell_new(heap, bytes, DH_REFS, &off), "dh_cell_new");
    return dh_ref(DH_T_NODE, off);
}

static inline node node_new(unsigned refs)
{
    node n = cell_new(refs * 16);

    words_of(n)[refs] = dh_int((int64_t)++nodes_count);
    words_of(n)[refs + 1] = dh_int((int64_t)refs);
    return n;
}

static inline node node_get(node n, unsigned slot) { return dh_load(&words_of(n)[slot]); }
static inline void node_set(node n, unsigned slot, node to) { store(&words_of(n)[slot], to); }
static inline uint64_t node_id(node n)
{
    return n == NODE_NONE ? 0 : (uint64_t)dh_int_value(words_of(n)[4]);
}
static node table_new(uint64_t count) { return cell_new(count * 8); }
static inline node table_get(node table, uint64_t i) { return dh_load(&words_of(table)[i]); }
static inline void table_set(node table, uint64_t i, node n) { store(&words_of(table)[i], n); }
/* One cell, which a handle holds. */
static inline void root_set(unsigned i, node n) { store(&words_of(roots_handle.word)[i], n); }

/* --- when to collect ------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    int tracker;
    bool has_young;
    bool is_concurrent;
    bool is_marked;   /* by the program     */
    bool is_compared; /* needs a commit     */
    bool is_blind;    /* everything counts  */
} source;

static const source sources[] = {
    {"watch", DH_TRACKER_AUTO, .has_young = true},
    {"concurrent", DH_TRACKER_AUTO, .has_young = true, .is_concurrent = true},
    {"marks", DH_TRACKER_SCRIPT, .has_young = true, .is_marked = true},
    {"compare", DH_TRACKER_COMPARE, .has_young = true, .is_compared = true},
    {"everything", DH_TRACKER_AUTO, .has_young = true, .is_blind = true},
    {"full", DH_TRACKER_AUTO, .has_young = false},
};
static const source *chosen;

/* The thread that runs full cycles: it is idle or at work, and the program starts no collection of its
 * own while it is at work. */
static struct {
    bench_world world;
    atomic_bool is_at_work, is_over;
    pthread_t thread;
} beside;

static void set_due(bool is_full)
{
    uint64_t now = heap->alloc.allocated_bytes;

    young_due_bytes = now + young_bytes;
    if (is_full)
        full_due_bytes = (uint64_t)((double)now * FULL_GROWTH) + young_bytes;
    if (!chosen->has_young)
        young_due_bytes = full_due_bytes;
}

static void *run_beside(void *argument)
{
    static const struct timespec pause = {0, 200000};
    beside_result result;

    (void)argument;
    while (!atomic_load(&beside.is_over)) {
        if (atomic_load(&beside.is_at_work)) {
            check(collect_beside(heap, &result), "the concurrent cycle");
            world_stop(&beside.world);
            full_count++;
            set_due(true);
            atomic_store(&beside.is_at_work, false);
            world_resume(&beside.world);
        }
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* What the program marked since the last collection. */
static void tell_marks(void)
{
    uint64_t limit = heap->arena.hwm_pages;

    for (uint64_t first = 0; cards != NULL && first < limit;) {
        uint64_t count = 0;

        while (first + count < limit && cards[first + count] != 0)
            cards[first + count++] = 0;
        if (count > 0)
            dh_script_write(heap->watch, (dh_pgno)first, count);
        first += count + 1;
    }
}

static void collect_full(void)
{
    dh_collect_stats stats;

    if (chosen->is_concurrent) {
        atomic_store(&beside.is_at_work, true);
        return;
    }
    tell_marks();
    check(dh_collect(heap, &stats), "dh_collect");
    full_count++;
    set_due(true);
}

static void collect_due(void)
{
    dh_collect_stats stats;

    if (atomic_load(&beside.is_at_work))
        return;
    if (chosen->has_young) {
        tell_marks();
        check(dh_collect_young(heap, &stats), "dh_collect_young");
        young_count++;
        set_due(false);
    }
    if (heap->alloc.allocated_bytes >= full_due_bytes)
        collect_full();
}

static inline void safe_point(void)
{
    world_point(&beside.world);
    if (__builtin_expect(heap->alloc.allocated_bytes >= young_due_bytes, 0))
        collect_due();
}

#include "gc_shapes.h"

/* --- the run -------------------------------------------------------------------------------------- */

static void commit(void)
{
    dh_capture *capture;

    check(dh_commit_capture(heap, &capture), "dh_commit_capture");
    check(dh_commit_encode(heap, capture, 0, 1, 1 << 20), "dh_commit_encode");
    check(dh_commit_done(heap, &capture), "dh_commit_done");
}

static void begin(const char *name)
{
    dh_options options = {.capacity_bytes = CAPACITY_BYTES, .hash_key = {1, 2}};

    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
        if (strcmp(sources[i].name, name) == 0)
            chosen = &sources[i];
    if (chosen == NULL)
        fail("usage", "no such source");
    options.tracker = chosen->tracker;
    check(dh_heap_open(&options, &heap), "dh_heap_open");
    check(dh_load_finish(heap, NULL), "dh_load_finish");
    if (chosen->is_blind)
        check(dh_collect_source(heap, DH_DIRTY_EVERYTHING), "dh_collect_source");
    if (chosen->is_marked) {
        cards = calloc(CAPACITY_BYTES >> DH_PAGE_SHIFT, 1);
        check(cards == NULL ? ENOMEM : 0, "calloc");
    }
    roots_handle = (dh_handle){cell_new(ROOTS * 8), 0};
    check(dh_handles_add(&heap->handles, &roots_handle), "dh_handles_add");
    young_due_bytes = UINT64_MAX; /* none before what lives on is there */
}

/* What lives on is old, and committed where that is what counts. */
static void begun(void)
{
    dh_collect_stats stats;

    if (chosen->is_compared)
        commit();
    tell_marks();
    check(dh_collect(heap, &stats), "dh_collect");
    set_due(true);
    if (chosen->is_concurrent) {
        dh_world world = {.stop = world_stop, .resume = world_resume, .context = &beside.world};

        dh_heap_set_world(heap, &world);
        check(pthread_create(&beside.thread, NULL, run_beside, NULL), "pthread_create");
    }
}

static void end(void)
{
    while (atomic_load(&beside.is_at_work))
        world_point(&beside.world);
    atomic_store(&beside.is_over, true);
    if (chosen->is_concurrent)
        check(pthread_join(beside.thread, NULL), "pthread_join");
}

int main(int argc, char **argv)
{
    if (argc != 7)
        fail("usage", "gc_shapes_core SOURCE SHAPE SIZE WORK throughput|gaps YOUNG_BYTES");
    world_is_mine = true;
    young_bytes = strtoull(argv[6], NULL, 10);
    begin(argv[1]);
    shape_run(argv + 2, begun);
    end();
    printf(" %llu %llu %llu\n", (unsigned long long)young_count, (unsigned long long)full_count,
           (unsigned long long)(heap->arena.hwm_pages << DH_PAGE_SHIFT));
    fflush(stdout);
    return 0;
}

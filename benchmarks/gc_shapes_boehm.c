/* gc_shapes_boehm.c -- the programs of gc_shapes.h over the collector of Boehm, Demers and Weiser.
 *
 * Built by bench_gc_shapes.py where libgc is. Its increments happen in allocations, its roots are the
 * stack and static variables: there is nothing to tell it. Prints what gc_shapes.h says, then the
 * number of its collections and the bytes of its heap.
 *
 *   gc_shapes_boehm whole|incremental SHAPE SIZE WORK throughput|gaps
 */
#include <gc.h>

#include <stdint.h>

typedef uint64_t *node; /* references, then the number */
#define NODE_NONE NULL

static uint64_t nodes_count;
static node roots[64];

static inline node node_new(unsigned refs)
{
    node n = GC_MALLOC(refs * 16);

    if (n == NULL) {
        extern void abort(void);
        abort();
    }
    n[refs] = ++nodes_count;
    n[refs + 1] = refs;
    return n;
}
static inline node node_get(node n, unsigned slot) { return (node)(uintptr_t)n[slot]; }
/* Also what a store in C has to do for this collector: nothing. */
static inline void node_set(node n, unsigned slot, node to) { n[slot] = (uintptr_t)to; }
static inline uint64_t node_id(node n) { return n == NULL ? 0 : n[4]; }
static node table_new(uint64_t count) { return GC_MALLOC(count * 8); }
static inline node table_get(node table, uint64_t i) { return (node)(uintptr_t)table[i]; }
static inline void table_set(node table, uint64_t i, node n) { table[i] = (uintptr_t)n; }
static inline void root_set(unsigned i, node n) { roots[i] = n; }
static inline void safe_point(void) {}

#include "gc_shapes.h"

static GC_word collections_before;

static void begun(void) { collections_before = GC_get_gc_no(); }

int main(int argc, char **argv)
{
    if (argc != 6)
        fail("usage", "gc_shapes_boehm whole|incremental SHAPE SIZE WORK throughput|gaps");
    GC_INIT();
    if (strcmp(argv[1], "incremental") == 0)
        GC_enable_incremental();
    shape_run(argv + 2, begun);
    printf(" %llu %llu\n", (unsigned long long)(GC_get_gc_no() - collections_before),
           (unsigned long long)GC_get_heap_size());
    return 0;
}

/* gc_shapes.h -- programs that make garbage, written once for every collector in C.
 *
 *   trees   the shape of Ellis, Kovac and Boehm's GCBench: one tree that lives on, and short-lived ones
 *           of depths 4, 6, ... 16, half of them made from the top, half from the bottom
 *   graph   a table of nodes with edges to each other; operations bend an edge, replace a node, or
 *           make a chain of nodes and drop it; anywhere, so that soon every page is written
 *   window  the same, but of 512 operations one is anywhere, and the others in a 32nd of the table that
 *           moves on slowly
 *
 * Included once by gc_shapes_core.c and gc_shapes_boehm.c, which define what a node is:
 *
 *   node, NODE_NONE, node_new(refs), node_get(n, slot), node_set(n, slot, to), node_id(n)
 *       nodes of 2 references (32 bytes) or 4 (64 bytes), and a number each
 *   table_new(count), table_get(t, i), table_set(t, i, n)    the roots of the graph
 *   root_set(i, n)    what only local variables hold, while something is allocated; i < ROOTS_COUNT
 *   safe_point()      a collection may happen here, and nowhere else where a collector can be told;
 *                     everything needed is held by a table, a root or a node
 *
 * Every contestant must end with the same sum. Between two operations lie some 100 ns of work: a gap of
 * more than GAP_NS is a stop, whoever it is made by, unless another process had the processor. Gaps
 * are taken in runs of their own, because reading the clock costs as much as a node.
 */
#include "collect_world.h"

#define GAP_NS 100000u
#define ROOTS_COUNT 64u
#define DEPTH_FIRST 4u
#define DEPTH_LAST 16u
#define CHAIN_NODES 8u
#define TREE_REFS 2u
#define GRAPH_REFS 4u

/* --- gaps ----------------------------------------------------------------------------------------- */

static struct {
    bool is_timed;
    uint64_t last_ns, robbed_ns;
    uint64_t ops;
    uint64_t *gaps;
    size_t count, room;
} ticks;

static void gap_add(uint64_t gap_ns)
{
    uint64_t robbed = robbed_ns(), robbed_now = robbed - ticks.robbed_ns;

    ticks.robbed_ns = robbed;
    if (gap_ns < robbed_now + GAP_NS)
        return;
    gap_ns -= robbed_now;
    if (ticks.count == ticks.room) {
        ticks.room = ticks.room * 2 + 1024;
        ticks.gaps = realloc(ticks.gaps, ticks.room * sizeof(*ticks.gaps));
        if (ticks.gaps == NULL)
            fail("realloc", "out of memory");
    }
    ticks.gaps[ticks.count++] = gap_ns;
}

/* After each operation. */
static inline void tick(void)
{
    ticks.ops++;
    if (!ticks.is_timed)
        return;
    uint64_t now_ns = world_clock_ns();
    uint64_t gap_ns = now_ns - ticks.last_ns;
    ticks.last_ns = now_ns;
    if (gap_ns > GAP_NS) {
        gap_add(gap_ns);
        ticks.last_ns = world_clock_ns();
    }
}

static void ticks_begin(bool is_timed)
{
    ticks.is_timed = is_timed;
    ticks.robbed_ns = robbed_ns();
    ticks.last_ns = world_clock_ns();
}

static int gap_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* --- trees ---------------------------------------------------------------------------------------- */

static uint64_t tree_nodes(unsigned depth) { return ((uint64_t)2 << depth) - 1; }

static node tree_node(void)
{
    node n = node_new(TREE_REFS);

    tick();
    return n;
}

/* Roots from the bottom: root_set(depth) holds the left part while the right one is made. */
static node tree_from_bottom(unsigned depth)
{
    node left = NODE_NONE, right = NODE_NONE, top;

    safe_point();
    if (depth > 0) {
        left = tree_from_bottom(depth - 1);
        root_set(depth, left);
        right = tree_from_bottom(depth - 1);
    }
    top = tree_node();
    if (depth > 0) {
        node_set(top, 0, left);
        node_set(top, 1, right);
        root_set(depth, NODE_NONE);
    }
    return top;
}

/* Hangs below a node that is held. */
static void tree_from_top(unsigned depth, node top)
{
    if (depth == 0)
        return;
    safe_point();
    for (unsigned side = 0; side < 2; side++)
        node_set(top, side, tree_node());
    for (unsigned side = 0; side < 2; side++)
        tree_from_top(depth - 1, node_get(top, side));
}

static uint64_t tree_count(node top)
{
    return top == NODE_NONE ? 0 : 1 + tree_count(node_get(top, 0)) + tree_count(node_get(top, 1));
}

static uint64_t trees_of_depth(unsigned depth, uint64_t nodes)
{
    uint64_t sum = 0;

    for (uint64_t done = 0; done < nodes; done += 2 * tree_nodes(depth)) {
        node top = tree_node();

        root_set(ROOTS_COUNT - 2, top);
        tree_from_top(depth, top);
        root_set(ROOTS_COUNT - 2, NODE_NONE);
        sum += tree_nodes(depth);
        top = tree_from_bottom(depth);
        sum += node_get(top, 0) != NODE_NONE;
    }
    return sum;
}

/* size: depth of the tree that lives on; work: nodes of short-lived trees, per depth. */
static node trees_begin(uint64_t size, uint64_t work)
{
    (void)work;
    node top = tree_node();

    root_set(ROOTS_COUNT - 1, top);
    tree_from_top((unsigned)size, top);
    return top;
}

static uint64_t trees_run(node top, uint64_t size, uint64_t work)
{
    uint64_t sum = 0;

    (void)size;
    for (unsigned depth = DEPTH_FIRST; depth <= DEPTH_LAST; depth += 2)
        sum += trees_of_depth(depth, work);
    return sum + tree_count(top);
}

/* --- graph ---------------------------------------------------------------------------------------- */

static bool graph_has_window;

/* Where the next operation is. */
static uint64_t graph_place(uint64_t size)
{
    if (!graph_has_window || random_below(512) == 0)
        return random_below(size);
    return (ticks.ops / 16 + random_below(size / 32)) % size;
}

static node graph_node(node table, uint64_t size)
{
    node n = node_new(GRAPH_REFS);

    for (unsigned slot = 0; slot < GRAPH_REFS; slot++)
        node_set(n, slot, table_get(table, random_below(size)));
    return n;
}

static void graph_chain(void)
{
    node last = NODE_NONE;

    for (unsigned i = 0; i < CHAIN_NODES; i++) {
        node n = node_new(GRAPH_REFS);
        node_set(n, 0, last);
        last = n;
    }
}

/* A node that leaves the table lets go of its edges, else the dead would keep the dead. */
static void graph_replace(node table, uint64_t size)
{
    uint64_t place = graph_place(size);
    node before = table_get(table, place);

    table_set(table, place, graph_node(table, size));
    for (unsigned slot = 0; slot < GRAPH_REFS; slot++)
        node_set(before, slot, NODE_NONE);
}

static void graph_bend(node table, uint64_t size)
{
    node from = table_get(table, graph_place(size));
    unsigned slot = (unsigned)random_below(GRAPH_REFS);

    node_set(from, slot, table_get(table, random_below(size)));
}

static void graph_operate(node table, uint64_t size)
{
    uint64_t what = random_below(4);

    safe_point();
    if (what < 2)
        graph_bend(table, size);
    else if (what == 2)
        graph_replace(table, size);
    else
        graph_chain();
    tick();
}

/* size: nodes in the table; work: operations. */
static node graph_begin(uint64_t size, uint64_t work)
{
    node table = table_new(size);

    (void)work;
    root_set(ROOTS_COUNT - 1, table);
    for (uint64_t i = 0; i < size; i++) {
        safe_point();
        table_set(table, i, node_new(GRAPH_REFS));
    }
    for (uint64_t i = 0; i < size; i++)
        for (unsigned slot = 0; slot < GRAPH_REFS; slot++)
            node_set(table_get(table, i), slot, table_get(table, random_below(size)));
    return table;
}

static node window_begin(uint64_t size, uint64_t work)
{
    graph_has_window = true;
    return graph_begin(size, work);
}

static uint64_t graph_run(node table, uint64_t size, uint64_t work)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < work; i++)
        graph_operate(table, size);
    for (uint64_t i = 0; i < size; i++) {
        node n = table_get(table, i);

        sum = sum * 31 + node_id(n);
        for (unsigned slot = 0; slot < GRAPH_REFS; slot++)
            sum = sum * 31 + node_id(node_get(n, slot));
    }
    return sum;
}

/* --- a contestant's run ---------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    node (*begin)(uint64_t size, uint64_t work);
    uint64_t (*run)(node, uint64_t size, uint64_t work);
} shape;

static const shape shapes[] = {{"trees", trees_begin, trees_run},
                               {"graph", graph_begin, graph_run},
                               {"window", window_begin, graph_run}};

static const shape *shape_named(const char *name)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    fail("usage", "the shape is trees, graph or window");
    return NULL;
}

/* TOTAL_NS OPS SUM PEAK_BYTES GAPS_COUNT MEDIAN LONGEST SUM_OF_GAPS; who runs it ends the line. */
static void shape_report(uint64_t total_ns, uint64_t ops, uint64_t sum)
{
    uint64_t all = 0;

    if (ticks.count > 0)
        qsort(ticks.gaps, ticks.count, sizeof(*ticks.gaps), gap_compare);
    for (size_t i = 0; i < ticks.count; i++)
        all += ticks.gaps[i];
    printf("%llu %llu %llu %llu %llu %llu %llu %llu", (unsigned long long)total_ns,
           (unsigned long long)ops, (unsigned long long)sum,
           (unsigned long long)status_bytes("VmHWM:"), (unsigned long long)ticks.count,
           (unsigned long long)(ticks.count > 0 ? ticks.gaps[ticks.count / 2] : 0),
           (unsigned long long)(ticks.count > 0 ? ticks.gaps[ticks.count - 1] : 0),
           (unsigned long long)all);
}

/* What both programs take: SHAPE SIZE WORK throughput|gaps. begun() is called when what lives on is
 * there, before the time begins. */
static void shape_run(char **words, void (*begun)(void))
{
    const shape *named = shape_named(words[0]);
    uint64_t size = strtoull(words[1], NULL, 10), work = strtoull(words[2], NULL, 10);
    node top = named->begin(size, work);
    uint64_t began_ns, robbed_before_ns, total_ns, ops_before = ticks.ops, sum;

    begun();
    ticks_begin(strcmp(words[3], "gaps") == 0);
    robbed_before_ns = robbed_ns();
    began_ns = world_clock_ns();
    sum = named->run(top, size, work);
    total_ns = world_clock_ns() - began_ns;
    shape_report(total_ns - (robbed_ns() - robbed_before_ns), ticks.ops - ops_before, sum);
}

/* sorted_load.c -- a whole tree from entries that are in order already.
 *
 * Contract: sorted.h. Leaves and nodes are filled one after the other, full, bottom up; the container
 * is touched once, at the end. What was made is listed, so that a failure takes all of it back.
 */
#include <stdlib.h>

#include "sorted_private.h"

/* The level under construction, and everything made so far. */
typedef struct {
    dh_heap *heap;
    dh_word *refs;   /* of the level */
    uint64_t *below; /* entries below each */
    uint64_t count;
    dh_word
        *separators; /* on the left of each leaf; [0] EMPTY. Moved into nodes, kept here to undo */
    uint64_t separators_count;
    uint64_t *firsts; /* first leaf below each of the level */
    dh_word *cells;
    uint64_t cells_count;
} sorted_load;

static void load_finish(sorted_load *load)
{
    free(load->refs);
    free(load->below);
    free(load->separators);
    free(load->firsts);
    free(load->cells);
}

static int load_begin(sorted_load *load, dh_heap *heap, uint64_t entries)
{
    size_t leaves = (size_t)((entries + SORTED_LEAF_MAX - 1) / SORTED_LEAF_MAX);
    *load = (sorted_load){.heap = heap};
    load->refs = malloc(leaves * sizeof *load->refs);
    load->below = malloc(leaves * sizeof *load->below);
    load->separators = calloc(leaves, sizeof *load->separators);
    load->firsts = malloc(leaves * sizeof *load->firsts);
    load->cells = malloc((2 * leaves + SORTED_DEPTH_MAX) * sizeof *load->cells);
    if (load->refs && load->below && load->separators && load->firsts && load->cells)
        return 0;
    load_finish(load);
    return ENOMEM;
}

static void load_undo(sorted_load *load)
{
    for (uint64_t i = 0; i < load->separators_count; i++)
        dh_value_drop(load->heap, load->separators[i]);
    for (uint64_t i = load->cells_count; i > 0; i--)
        dh_cell_free(load->heap, dh_ref_off(load->cells[i - 1]));
}

static int load_cell(sorted_load *load, dh_type type, size_t bytes, dh_word *ref_out,
                     dh_word **words_out)
{
    dh_off off;
    int rc = dh_cell_new(load->heap, bytes, DH_REFS, &off);
    if (rc != 0)
        return rc;
    *ref_out = load->cells[load->cells_count++] = dh_ref(type, off);
    *words_out = dh_at(load->heap, off);
    return 0;
}

/* --- checking --------------------------------------------------------------------------------- */

static int check_rising(const dh_heap *heap, const dh_word *pairs, uint64_t count)
{
    for (uint64_t i = 1; i < count; i++) {
        dh_ordering ordering;
        int rc = dh_order_words(heap, pairs[2 * i - 2], pairs[2 * i], &ordering);
        if (rc != 0)
            return rc;
        if (ordering.is_mixed)
            return dh_order_refuse(heap, &ordering);
        if (ordering.sign >= 0)
            return dhi_fail(heap, DH_E_UNORDERED, "the keys are not in rising order");
    }
    return 0;
}

/* --- building --------------------------------------------------------------------------------- */

static int load_leaf(sorted_load *load, const dh_word *pairs, uint64_t first, unsigned count,
                     unsigned room)
{
    dh_word *words, ref, separator = DH_EMPTY;
    int rc = 0;
    if (first > 0)
        rc = dh_order_separator(load->heap, pairs[2 * first - 2], pairs[2 * first], &separator);
    if (rc != 0)
        return rc;
    load->separators[load->separators_count++] = separator;
    rc = load_cell(load, DH_T_SORTED_LEAF, sorted_leaf_bytes(room), &ref, &words);
    if (rc != 0)
        return rc;
    room = sorted_leaf_room(dh_cell_bytes(load->heap, dh_ref_off(ref)));
    sorted_set_count(words, count);
    words[SORTED_CELL_ZERO] = dh_int(0);
    for (unsigned i = 0; i < count; i++) {
        words[SORTED_CELL_WORDS + i] = pairs[2 * (first + i)];
        words[SORTED_CELL_WORDS + room + i] = pairs[2 * (first + i) + 1];
    }
    load->refs[load->count] = ref;
    load->firsts[load->count] = load->count;
    load->below[load->count++] = count;
    return 0;
}

static int load_leaves(sorted_load *load, const dh_word *pairs, uint64_t entries)
{
    unsigned room = entries < SORTED_LEAF_MAX ? (unsigned)entries : SORTED_LEAF_MAX;
    int rc = 0;
    for (uint64_t first = 0; first < entries && rc == 0; first += SORTED_LEAF_MAX) {
        uint64_t left = entries - first;
        rc = load_leaf(load, pairs, first,
                       left < SORTED_LEAF_MAX ? (unsigned)left : SORTED_LEAF_MAX, room);
    }
    return rc;
}

/* One node over children [first, first + count) of the level. */
static int load_node(sorted_load *load, uint64_t first, unsigned count, uint64_t place)
{
    dh_word *words, ref;
    sorted_node node;
    uint64_t total = 0;
    int rc = load_cell(load, DH_T_SORTED_NODE, SORTED_NODE_BYTES, &ref, &words);
    if (rc != 0)
        return rc;
    sorted_node_place(words, &node);
    sorted_set_count(words, count);
    words[SORTED_CELL_ZERO] = dh_int(0);
    for (unsigned i = 0; i < count; i++) {
        node.refs[i] = load->refs[first + i];
        node.counts[i] = dh_int((int64_t)load->below[first + i]);
        node.separators[i] = i == 0 ? DH_EMPTY : load->separators[load->firsts[first + i]];
        total += load->below[first + i];
    }
    load->refs[place] = ref;
    load->below[place] = total;
    load->firsts[place] = load->firsts[first];
    return 0;
}

/* The level becomes the one above it. */
static int load_level(sorted_load *load)
{
    uint64_t place = 0;
    int rc = 0;
    for (uint64_t first = 0; first < load->count && rc == 0; first += SORTED_NODE_MAX, place++) {
        uint64_t left = load->count - first;
        rc = load_node(load, first, left < SORTED_NODE_MAX ? (unsigned)left : SORTED_NODE_MAX,
                       place);
    }
    load->count = place;
    return rc;
}

int dh_sorted_load(dh_heap *heap, dh_word sorted, const dh_word *pairs, uint64_t count)
{
    sorted_view view;
    sorted_load load;
    unsigned depth = 0;
    int rc = sorted_open(heap, sorted, &view);
    if (rc != 0 || count == 0)
        return rc;
    if (view.length != 0)
        return dhi_fail(heap, DH_E_LIMIT, "only an empty sorted dict can be loaded");
    rc = check_rising(heap, pairs, count);
    if (rc == 0)
        rc = load_begin(&load, heap, count);
    if (rc != 0)
        return rc;
    rc = load_leaves(&load, pairs, count);
    for (; rc == 0 && load.count > 1; depth++)
        rc = load_level(&load);
    if (rc == 0) {
        sorted_set_root(&view, load.refs[0], depth);
        sorted_set_length(&view, count);
    } else {
        load_undo(&load);
    }
    load_finish(&load);
    return rc;
}

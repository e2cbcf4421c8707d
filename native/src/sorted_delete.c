/* sorted_delete.c -- taking an entry out, and giving back what is hardly used.
 *
 * Contract: sorted_private.h. Deleting needs no memory: it works in a full heap. Neighbours are
 * merged, never levelled out, which would need a new separator; so a sparse leaf between two full
 * ones stays until it is empty. A smaller cell for the only leaf is tried and not insisted on.
 */
#include "sorted_private.h"

/* --- words in a row --------------------------------------------------------------------------- */

static void words_remove(dh_word *words, unsigned count, unsigned at)
{
    memmove(words + at, words + at + 1, (count - at - 1) * sizeof *words);
    dh_store(&words[count - 1], DH_EMPTY);
}

/* Take a child out; the separator on its left goes with it. */
static void node_remove(dh_heap *heap, sorted_node *node, unsigned child)
{
    unsigned separator = child > 0 ? child : 1;
    if (node->count > 1)
        dh_value_drop(heap, node->separators[separator]);
    words_remove(node->refs, node->count, child);
    words_remove(node->counts, node->count, child);
    if (node->count > 1)
        words_remove(node->separators, node->count, separator);
    sorted_set_count(node->words, --node->count);
}

/* --- merging ---------------------------------------------------------------------------------- */

/* Which of the children beside it a sparse child can be merged with; false: none. *left_out: the
 * left one of both. */
static bool merge_partner(const sorted_node *parent, unsigned child, unsigned max,
                          unsigned (*size)(const dh_heap *, dh_word), const dh_heap *heap,
                          unsigned *left_out)
{
    unsigned mine = size(heap, parent->refs[child]);
    if (!SORTED_IS_SPARSE(mine, max))
        return false;
    for (unsigned side = 0; side < 2; side++) {
        if (side == 0 ? child == 0 : child + 1 >= parent->count)
            continue;
        unsigned other = side == 0 ? child - 1 : child + 1;
        if (!SORTED_FITS_MERGED(mine + size(heap, parent->refs[other]), max))
            continue;
        *left_out = side == 0 ? other : child;
        return true;
    }
    return false;
}

/* Damaged ones are too large to merge. */
static unsigned leaf_size(const dh_heap *heap, dh_word w)
{
    sorted_leaf leaf;
    return sorted_leaf_open(heap, w, &leaf) && leaf.room == SORTED_LEAF_MAX ? leaf.count
                                                                            : SORTED_LEAF_MAX;
}

static unsigned node_size(const dh_heap *heap, dh_word w)
{
    sorted_node node;
    return sorted_node_open(heap, w, &node) ? node.count : SORTED_NODE_MAX;
}

/* memmove: in a damaged file both may overlap. */
static void merge_leaves(dh_heap *heap, sorted_node *parent, unsigned left)
{
    sorted_leaf into, from;
    dh_word gone = parent->refs[left + 1];
    if (!sorted_leaf_open(heap, parent->refs[left], &into) ||
        !sorted_leaf_open(heap, gone, &from) || gone == parent->refs[left])
        return;
    memmove(into.keys + into.count, from.keys, from.count * sizeof *from.keys);
    memmove(into.values + into.count, from.values, from.count * sizeof *from.values);
    sorted_set_count(into.words, into.count + from.count);
    sorted_add(&parent->counts[left], (int64_t)sorted_child_count(parent, left + 1));
    node_remove(heap, parent, left + 1);
    dh_cell_free(heap, dh_ref_off(gone));
}

static void merge_nodes(dh_heap *heap, sorted_node *parent, unsigned left)
{
    sorted_node into, from;
    dh_word gone = parent->refs[left + 1];
    if (!sorted_node_open(heap, parent->refs[left], &into) ||
        !sorted_node_open(heap, gone, &from) || gone == parent->refs[left])
        return;
    memmove(into.refs + into.count, from.refs, from.count * sizeof *from.refs);
    memmove(into.counts + into.count, from.counts, from.count * sizeof *from.counts);
    memmove(into.separators + into.count, from.separators, from.count * sizeof *from.separators);
    dh_store(&into.separators[into.count], parent->separators[left + 1]); /* comes down */
    dh_store(&parent->separators[left + 1], DH_EMPTY);
    sorted_set_count(into.words, into.count + from.count);
    sorted_add(&parent->counts[left], (int64_t)sorted_child_count(parent, left + 1));
    node_remove(heap, parent, left + 1);
    dh_cell_free(heap, dh_ref_off(gone));
}

/* A root with one child is none. */
static void shorten(dh_heap *heap, sorted_view *view)
{
    sorted_node root;
    while (view->depth > 0 && sorted_node_open(heap, view->root, &root) && root.count == 1) {
        dh_off gone = dh_ref_off(view->root);
        sorted_set_root(view, root.refs[0], view->depth - 1);
        dh_cell_free(heap, gone);
    }
}

/* The only leaf, hardly used: half the room. */
static void shrink_only_leaf(dh_heap *heap, sorted_view *view)
{
    sorted_leaf leaf;
    dh_off off;
    if (view->depth > 0 || !sorted_leaf_open(heap, view->root, &leaf) ||
        leaf.room <= SORTED_LEAF_FIRST || leaf.count > leaf.room / 4)
        return;
    unsigned room = leaf.room / 2 > SORTED_LEAF_FIRST ? leaf.room / 2 : SORTED_LEAF_FIRST;
    if (sorted_leaf_room(dh_cell_round(sorted_leaf_bytes(room))) >= leaf.room ||
        dh_cell_new(heap, sorted_leaf_bytes(room), DH_REFS, &off) != 0)
        return;
    dh_word *words = dh_at(heap, off);
    room = sorted_leaf_room(dh_cell_bytes(heap, off));
    memcpy(words + SORTED_CELL_WORDS, leaf.keys, leaf.count * sizeof *words);
    memcpy(words + SORTED_CELL_WORDS + room, leaf.values, leaf.count * sizeof *words);
    words[SORTED_CELL_ZERO] = dh_int(0);
    sorted_set_count(words, leaf.count);
    dh_off gone = dh_ref_off(view->root);
    sorted_set_root(view, dh_ref(DH_T_SORTED_LEAF, off), 0);
    dh_cell_free(heap, gone);
}

/* --- removing --------------------------------------------------------------------------------- */

/* Take the emptied leaf out, and every node that it leaves empty; *level_out: the lowest that is
 * left, or 0 when all are gone. */
static unsigned drop_empty(dh_heap *heap, sorted_path *path)
{
    unsigned level = path->view.depth;
    dh_cell_free(heap, dh_ref_off(path->leaf_word));
    for (; level > 0; level--) {
        sorted_node *node = &path->nodes[level - 1];
        dh_word ref =
            level > 1 ? path->nodes[level - 2].refs[path->children[level - 2]] : path->view.root;
        node_remove(heap, node, path->children[level - 1]);
        if (node->count > 0)
            return level;
        dh_cell_free(heap, dh_ref_off(ref));
    }
    return 0;
}

static void merge_upwards(dh_heap *heap, sorted_path *path, unsigned level, bool is_leaf_gone)
{
    unsigned left, depth = path->view.depth;
    if (!is_leaf_gone && level == depth && depth > 0 &&
        merge_partner(&path->nodes[depth - 1], path->children[depth - 1], SORTED_LEAF_MAX,
                      leaf_size, heap, &left))
        merge_leaves(heap, &path->nodes[depth - 1], left);
    for (; level > 1; level--) /* nodes[level - 1] may be sparse by now */
        if (merge_partner(&path->nodes[level - 2], path->children[level - 2], SORTED_NODE_MAX,
                          node_size, heap, &left))
            merge_nodes(heap, &path->nodes[level - 2], left);
}

int dhi_sorted_remove(dh_heap *heap, sorted_path *path)
{
    sorted_leaf *leaf = &path->leaf;
    unsigned level = path->view.depth;
    for (unsigned i = 0; i < path->view.depth; i++)
        sorted_add(&path->nodes[i].counts[path->children[i]], -1);
    words_remove(leaf->keys, leaf->count, path->slot);
    words_remove(leaf->values, leaf->count, path->slot);
    sorted_set_count(leaf->words, --leaf->count);
    bool is_leaf_gone = leaf->count == 0;
    if (is_leaf_gone)
        level = drop_empty(heap, path);
    if (is_leaf_gone && level == 0)
        sorted_set_root(&path->view, DH_EMPTY, 0);
    merge_upwards(heap, path, level, is_leaf_gone);
    shorten(heap, &path->view);
    sorted_set_length(&path->view, path->view.length - 1);
    if (!is_leaf_gone)
        shrink_only_leaf(heap, &path->view);
    return 0;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void drop_words(dh_heap *heap, const dh_word *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        dh_value_drop(heap, words[i]);
}

/* A cell goes before what it holds: what a damaged file links twice, or in a ring, is met as free
 * and not followed again. Freeing leaves the bytes alone (alloc.h). */
void dhi_sorted_free_tree(dh_heap *heap, dh_word root, unsigned depth)
{
    sorted_leaf leaf;
    sorted_node node;
    if (!dh_cell_is_allocated(heap, dh_ref_off(root)))
        return;
    if (depth == 0) {
        if (!sorted_leaf_open(heap, root, &leaf))
            return;
        dh_cell_free(heap, dh_ref_off(root));
        drop_words(heap, leaf.keys, leaf.count);
        drop_words(heap, leaf.values, leaf.count);
        return;
    }
    if (!sorted_node_open(heap, root, &node))
        return;
    dh_cell_free(heap, dh_ref_off(root));
    drop_words(heap, node.separators + 1, node.count - 1);
    for (unsigned child = 0; child < node.count; child++)
        dhi_sorted_free_tree(heap, node.refs[child], depth - 1);
}

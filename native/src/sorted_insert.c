/* sorted_insert.c -- putting an entry where a search ended, and splitting what is full.
 *
 * Contract: sorted_private.h. All cells that an insertion needs are made before its first store;
 * from then on nothing fails. A split moves the right half away, so that one page is new and the
 * full one keeps its place. At the very end of the tree nothing moves: what was appended in order
 * stays full.
 */
#include "sorted_private.h"

/* What an insertion will need, bottom up. */
typedef struct {
    dh_word leaf;
    dh_word separator;
    dh_word nodes[SORTED_DEPTH_MAX + 1]; /* of the lowest full level first, then a new root */
    unsigned nodes_count;
    unsigned split_at; /* first entry of the leaf that moves */
} sorted_plan;

/* --- words in a row --------------------------------------------------------------------------- */

static void words_insert(dh_word *words, unsigned count, unsigned at, dh_word word)
{
    memmove(words + at + 1, words + at, (count - at) * sizeof *words);
    dh_store(&words[at], word);
}

/* The words from `at` on go to `to`, and leave EMPTY behind. */
static void words_give(dh_word *words, unsigned count, unsigned at, dh_word *to)
{
    memcpy(to, words + at, (count - at) * sizeof *words);
    memset(words + at, 0, (count - at) * sizeof *words);
}

static void leaf_put(sorted_leaf *leaf, unsigned slot, dh_word key, dh_word value)
{
    words_insert(leaf->keys, leaf->count, slot, key);
    words_insert(leaf->values, leaf->count, slot, value);
    sorted_set_count(leaf->words, ++leaf->count);
}

/* Behind a child that has become `left` entries, one with `right`. */
static void node_put(sorted_node *node, unsigned child, dh_word separator, dh_word ref,
                     uint64_t right)
{
    words_insert(node->refs, node->count, child + 1, ref);
    words_insert(node->counts, node->count, child + 1, dh_int((int64_t)right));
    words_insert(node->separators, node->count, child + 1, separator);
    sorted_set_count(node->words, ++node->count);
}

/* --- making cells ----------------------------------------------------------------------------- */

static int leaf_new(dh_heap *heap, unsigned room, dh_word *leaf_out)
{
    dh_off off;
    int rc = dh_cell_new(heap, sorted_leaf_bytes(room), DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *words = dh_at(heap, off);
    words[SORTED_CELL_COUNT] = dh_int(0);
    words[SORTED_CELL_ZERO] = dh_int(0);
    *leaf_out = dh_ref(DH_T_SORTED_LEAF, off);
    return 0;
}

static int node_new(dh_heap *heap, dh_word *node_out)
{
    dh_off off;
    int rc = dh_cell_new(heap, SORTED_NODE_BYTES, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *words = dh_at(heap, off);
    words[SORTED_CELL_COUNT] = dh_int(0);
    words[SORTED_CELL_ZERO] = dh_int(0);
    *node_out = dh_ref(DH_T_SORTED_NODE, off);
    return 0;
}

/* A leaf of our own making, empty as it may be. */
static void leaf_place(dh_heap *heap, dh_word w, sorted_leaf *leaf_out)
{
    dh_word *words = dh_at(heap, dh_ref_off(w));
    leaf_out->words = words;
    leaf_out->room = sorted_leaf_room(dh_cell_bytes(heap, dh_ref_off(w)));
    leaf_out->count = (unsigned)dh_int_value(words[SORTED_CELL_COUNT]);
    leaf_out->keys = words + SORTED_CELL_WORDS;
    leaf_out->values = leaf_out->keys + leaf_out->room;
}

static void node_place(dh_heap *heap, dh_word w, sorted_node *node_out)
{
    dh_word *words = dh_at(heap, dh_ref_off(w));
    sorted_node_place(words, node_out);
    node_out->count = (unsigned)dh_int_value(words[SORTED_CELL_COUNT]);
}

static void plan_drop(dh_heap *heap, const sorted_plan *plan)
{
    for (unsigned i = 0; i < plan->nodes_count; i++)
        dh_cell_free(heap, dh_ref_off(plan->nodes[i]));
    if (plan->separator != DH_EMPTY)
        dh_value_drop(heap, plan->separator);
    if (plan->leaf != DH_EMPTY)
        dh_cell_free(heap, dh_ref_off(plan->leaf));
}

/* Is the path's place behind everything else? */
static bool path_is_at_end(const sorted_path *path)
{
    if (path->slot != path->leaf.count)
        return false;
    for (unsigned level = 0; level < path->view.depth; level++)
        if (path->children[level] + 1 != path->nodes[level].count)
            return false;
    return true;
}

static int plan_make(dh_heap *heap, const sorted_path *path, dh_word key, sorted_plan *plan)
{
    const sorted_leaf *leaf = &path->leaf;
    unsigned level = path->view.depth;
    int rc = 0;
    *plan = (sorted_plan){.split_at = path_is_at_end(path) ? leaf->count : leaf->count / 2};
    unsigned at = plan->split_at;
    while (level > 0 && path->nodes[level - 1].count == SORTED_NODE_MAX)
        level--;
    unsigned needed = path->view.depth - level + (level == 0);
    if (level == 0 && path->view.depth == SORTED_DEPTH_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a sorted dict is too deep");
    /* The entry goes to the left half when its place is up to the middle. */
    dh_word low = path->slot == at && at < leaf->count ? key : leaf->keys[at - 1];
    rc = dh_order_separator(heap, low, at == leaf->count ? key : leaf->keys[at], &plan->separator);
    if (rc == 0)
        rc = leaf_new(heap, SORTED_LEAF_MAX, &plan->leaf);
    for (; rc == 0 && plan->nodes_count < needed; plan->nodes_count += rc == 0)
        rc = node_new(heap, &plan->nodes[plan->nodes_count]);
    if (rc != 0)
        plan_drop(heap, plan);
    return rc;
}

/* --- splitting -------------------------------------------------------------------------------- */

static uint64_t node_total(const sorted_node *node)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < node->count; i++)
        total += sorted_child_count(node, i);
    return total;
}

/* The full leaf and the planned one, with the new entry in one of them. */
static void leaf_split(dh_heap *heap, sorted_path *path, const sorted_plan *plan, dh_word key,
                       dh_word value, uint64_t *right_count_out)
{
    sorted_leaf *leaf = &path->leaf, right;
    unsigned at = plan->split_at, full = leaf->count;
    leaf_place(heap, plan->leaf, &right);
    words_give(leaf->keys, full, at, right.keys);
    words_give(leaf->values, full, at, right.values);
    right.count = full - at;
    leaf->count = at;
    if (path->slot > at || at == full)
        leaf_put(&right, path->slot - at, key, value);
    else
        leaf_put(leaf, path->slot, key, value);
    if (at != full) /* at the end of the tree the full leaf stays clean */
        sorted_set_count(leaf->words, leaf->count);
    sorted_set_count(right.words, right.count);
    *right_count_out = right.count;
}

/* Make room behind `child` in a full node; the separator between both halves goes up. */
static void node_split(dh_heap *heap, sorted_node *node, unsigned child, bool is_at_end,
                       dh_word new_node, dh_word *separator, dh_word ref, uint64_t *right_count)
{
    sorted_node right;
    unsigned full = node->count, at = is_at_end ? full : full / 2;
    dh_word promoted;
    node_place(heap, new_node, &right);
    if (at == full) { /* the new child alone */
        right.count = 0;
        promoted = *separator;
        words_insert(right.refs, 0, 0, ref);
        words_insert(right.counts, 0, 0, dh_int((int64_t)*right_count));
        sorted_set_count(right.words, ++right.count);
    } else {
        words_give(node->refs, full, at, right.refs);
        words_give(node->counts, full, at, right.counts);
        words_give(node->separators, full, at, right.separators);
        promoted = right.separators[0];
        right.separators[0] = DH_EMPTY;
        right.count = full - at;
        node->count = at;
        if (child >= at)
            node_put(&right, child - at, *separator, ref, *right_count);
        else
            node_put(node, child, *separator, ref, *right_count);
        sorted_set_count(node->words, node->count);
        sorted_set_count(right.words, right.count);
    }
    *separator = promoted;
    *right_count = node_total(&right);
}

static void root_put(dh_heap *heap, sorted_path *path, dh_word new_root, dh_word separator,
                     dh_word ref, uint64_t right_count, uint64_t total)
{
    sorted_node root;
    node_place(heap, new_root, &root);
    root.refs[0] = path->view.root;
    root.counts[0] = dh_int((int64_t)(total - right_count));
    root.count = 1;
    node_put(&root, 0, separator, ref, right_count);
    sorted_set_root(&path->view, new_root, path->view.depth + 1);
}

static void insert_split(dh_heap *heap, sorted_path *path, const sorted_plan *plan, dh_word key,
                         dh_word value)
{
    dh_word separator = plan->separator, ref = plan->leaf;
    bool is_at_end = path_is_at_end(path);
    unsigned level = path->view.depth, used = 0;
    uint64_t right_count;
    leaf_split(heap, path, plan, key, value, &right_count);
    for (; level > 0; level--) {
        sorted_node *node = &path->nodes[level - 1];
        unsigned child = path->children[level - 1];
        sorted_add(&node->counts[child], 1 - (int64_t)right_count);
        if (node->count < SORTED_NODE_MAX) {
            node_put(node, child, separator, ref, right_count);
            break;
        }
        dh_word new_node = plan->nodes[used++];
        node_split(heap, node, child, is_at_end, new_node, &separator, ref, &right_count);
        ref = new_node;
    }
    if (level == 0) {
        root_put(heap, path, plan->nodes[used], separator, ref, right_count, path->view.length + 1);
        return;
    }
    while (--level > 0)
        sorted_add(&path->nodes[level - 1].counts[path->children[level - 1]], 1);
}

/* --- inserting -------------------------------------------------------------------------------- */

/* The only leaf is full and smaller than a page, or there is none yet. */
static int grow_only_leaf(dh_heap *heap, sorted_path *path)
{
    sorted_leaf *old = &path->leaf, bigger;
    unsigned room = old->room == 0 ? SORTED_LEAF_FIRST : old->room * 2;
    dh_word word;
    int rc = leaf_new(heap, room < SORTED_LEAF_MAX ? room : SORTED_LEAF_MAX, &word);
    if (rc != 0)
        return rc;
    leaf_place(heap, word, &bigger);
    if (old->room > 0) {
        memcpy(bigger.keys, old->keys, old->count * sizeof *old->keys);
        memcpy(bigger.values, old->values, old->count * sizeof *old->values);
        bigger.count = old->count;
        dh_cell_free(heap, dh_ref_off(path->leaf_word));
    }
    sorted_set_root(&path->view, word, 0);
    path->leaf = bigger;
    path->leaf_word = word;
    return 0;
}

/* The entry goes where there is room. */
static void insert_here(sorted_path *path, dh_word key, dh_word value)
{
    leaf_put(&path->leaf, path->slot, key, value);
    for (unsigned level = 0; level < path->view.depth; level++)
        sorted_add(&path->nodes[level].counts[path->children[level]], 1);
}

int dhi_sorted_insert(dh_heap *heap, sorted_path *path, dh_word key, dh_word value)
{
    sorted_plan plan;
    int rc = 0;
    bool is_full = path->leaf.count == path->leaf.room;
    if (path->leaf.room < SORTED_LEAF_MAX) {
        if (path->view.depth > 0)
            return dhi_sorted_corrupt(heap, "a small leaf below a node");
        if (is_full)
            rc = grow_only_leaf(heap, path);
        is_full = false;
    } else if (is_full) {
        rc = plan_make(heap, path, key, &plan);
    }
    if (rc != 0)
        return rc;
    if (is_full)
        insert_split(heap, path, &plan, key, value);
    else
        insert_here(path, key, value);
    sorted_set_length(&path->view, path->view.length + 1);
    return 0;
}

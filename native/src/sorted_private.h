/* sorted_private.h -- what the files of SortedDict share: layout, checked views, the path of a search.
 *
 * A view or a path points into the arena and is good until the next store. Opening one checks all
 * that memory safety needs; whether keys are in order is for sorted_check.c.
 */
#ifndef DH_SORTED_PRIVATE_H
#define DH_SORTED_PRIVATE_H

#include "sorted.h"
#include "span.h"

/* Tests make them small, to get deep trees of few entries. */
#ifndef SORTED_LEAF_MAX
#define SORTED_LEAF_MAX 255u /* 2 + 2 * 255 words: a page */
#define SORTED_NODE_MAX 170u /* 2 + 3 * 170 words: a page */
#endif
#define SORTED_DEPTH_MAX 16u
#define SORTED_LEAF_FIRST 4u /* entries of the first leaf */
#define SORTED_ENTRY_BYTES 16u
#define SORTED_NODE_BYTES DH_PAGE_BYTES

enum { SORTED_META, SORTED_LENGTH, SORTED_ROOT, SORTED_VERSION };
enum { SORTED_CELL_COUNT, SORTED_CELL_ZERO, SORTED_CELL_WORDS }; /* leaves and nodes begin so */

/* A leaf or node was merged away when this little was left in it; both together at most so full. */
#define SORTED_IS_SPARSE(count, max) ((count) < (max) / 4)
#define SORTED_FITS_MERGED(count, max) ((count) <= (max) - (max) / 4)

typedef struct {
    dh_word *words;
    dh_word *keys;
    dh_word *values;
    unsigned count;
    unsigned room;
} sorted_leaf;

typedef struct {
    dh_word *words;
    dh_word *refs;
    dh_word *counts;
    dh_word *separators;
    unsigned count;
} sorted_node;

typedef struct {
    dh_word *head;
    uint64_t length;
    dh_word root;
    unsigned depth;
} sorted_view;

/* From the root to a place in a leaf. nodes[0] is the root's, nodes[depth - 1] above the leaf. */
typedef struct {
    sorted_view view;
    sorted_node nodes[SORTED_DEPTH_MAX];
    unsigned children[SORTED_DEPTH_MAX]; /* which child the path takes */
    dh_word leaf_word;
    sorted_leaf leaf; /* room 0: there is none, the container is empty */
    unsigned slot;
    bool is_found;
} sorted_path;

/* DH_E_CORRUPT, with a sentence. */
static inline int dhi_sorted_corrupt(const dh_heap *heap, const char *what)
{
    (void)dhi_fail(heap, DH_E_CORRUPT, "a sorted dict is damaged: %s", what);
    return DH_E_CORRUPT;
}

static inline unsigned sorted_leaf_room(size_t bytes)
{
    size_t room = bytes / SORTED_ENTRY_BYTES - 1;
    return room < SORTED_LEAF_MAX ? (unsigned)room : SORTED_LEAF_MAX;
}
static inline size_t sorted_leaf_bytes(unsigned room)
{
    return (SORTED_CELL_WORDS + 2 * (size_t)room) * sizeof(dh_word);
}

/* False when damaged. An empty leaf is damaged too: the last entry takes its leaf along. */
static inline bool sorted_leaf_open(const dh_heap *heap, dh_word w, sorted_leaf *leaf_out)
{
    size_t bytes;
    dh_word *words = dhi_page_span(heap, w, DH_T_SORTED_LEAF, &bytes);
    if (DH_UNLIKELY(words == NULL || bytes < sorted_leaf_bytes(1)))
        return false;
    uint64_t count = (uint64_t)dh_int_value(dh_load(words));
    leaf_out->room = sorted_leaf_room(bytes);
    if (DH_UNLIKELY(count - 1 >= leaf_out->room))
        return false;
    leaf_out->words = words;
    leaf_out->keys = words + SORTED_CELL_WORDS;
    leaf_out->values = leaf_out->keys + leaf_out->room;
    leaf_out->count = (unsigned)count;
    return true;
}

static inline void sorted_node_place(dh_word *words, sorted_node *node_out)
{
    node_out->words = words;
    node_out->refs = words + SORTED_CELL_WORDS;
    node_out->counts = node_out->refs + SORTED_NODE_MAX;
    node_out->separators = node_out->counts + SORTED_NODE_MAX;
}

static inline bool sorted_node_open(const dh_heap *heap, dh_word w, sorted_node *node_out)
{
    dh_word *words = dh_deref(heap, w, DH_T_SORTED_NODE, SORTED_NODE_BYTES);
    if (DH_UNLIKELY(words == NULL))
        return false;
    uint64_t count = (uint64_t)dh_int_value(dh_load(words));
    if (DH_UNLIKELY(count - 1 >= SORTED_NODE_MAX))
        return false;
    sorted_node_place(words, node_out);
    node_out->count = (unsigned)count;
    return true;
}

static inline int sorted_open(const dh_heap *heap, dh_word sorted, sorted_view *view_out)
{
    dh_word *head = dh_deref(heap, sorted, DH_T_SORTED, DH_HEAD_BYTES);
    if (DH_UNLIKELY(head == NULL))
        return dhi_sorted_corrupt(heap, "head");
    view_out->head = head;
    view_out->length = (uint64_t)dh_int_value(dh_load(&head[SORTED_LENGTH]));
    view_out->root = dh_load(&head[SORTED_ROOT]);
    view_out->depth = dh_meta_flags(dh_load(&head[SORTED_META]));
    /* A count beyond what the heap can hold would make loops endless. */
    if (DH_UNLIKELY(view_out->depth > SORTED_DEPTH_MAX ||
                    (view_out->length == 0) != (view_out->root == DH_EMPTY) ||
                    (view_out->length == 0 && view_out->depth != 0) ||
                    view_out->length > heap->alloc.allocated_bytes / SORTED_ENTRY_BYTES))
        return dhi_sorted_corrupt(heap, "head");
    return 0;
}

static inline void sorted_set_count(dh_word *words, unsigned count)
{
    dh_store(&words[SORTED_CELL_COUNT], dh_int((int64_t)count));
}
static inline uint64_t sorted_child_count(const sorted_node *node, unsigned child)
{
    return (uint64_t)dh_int_value(dh_load(&node->counts[child]));
}
static inline void sorted_add(dh_word *count, int64_t more)
{
    if (more != 0) /* else the page may stay clean */
        dh_store(count, dh_int(dh_int_value(*count) + more));
}

static inline void sorted_set_root(sorted_view *view, dh_word root, unsigned depth)
{
    view->root = root;
    view->depth = depth;
    dh_store(&view->head[SORTED_ROOT], root);
    dh_word meta = dh_meta(dh_meta_serial(view->head[SORTED_META]), depth);
    if (view->head[SORTED_META] != meta)
        dh_store(&view->head[SORTED_META], meta);
}

/* Another length, and so another version. */
static inline void sorted_set_length(sorted_view *view, uint64_t length)
{
    view->length = length;
    dh_store(&view->head[SORTED_LENGTH], dh_int((int64_t)length));
    uint64_t version = (uint64_t)dh_int_value(view->head[SORTED_VERSION]) + 1;
    dh_store(&view->head[SORTED_VERSION], dh_int((int64_t)(version & (uint64_t)DH_INT_MAX)));
}

/* --- sorted_find.c ------------------------------------------------------------------------------ */
/* The way to a key: is_found, or the slot where it belongs. DH_E_UNORDERED. */
int dhi_sorted_find(const dh_heap *heap, dh_word sorted, const dh_key *key, sorted_path *path_out)
    DH_MUST_USE;
/* The way to a position. DH_E_ABSENT. */
int dhi_sorted_seek(const dh_heap *heap, dh_word sorted, uint64_t index, sorted_path *path_out)
    DH_MUST_USE;
/* The position that a path leads to. */
uint64_t dhi_sorted_position(const sorted_path *path);
/* --- sorted_insert.c, sorted_delete.c ----------------------------------------------------------- */
/* At the place where the path leads. Takes the words over, or fails and changes nothing. */
int dhi_sorted_insert(dh_heap *heap, sorted_path *path, dh_word key, dh_word value) DH_MUST_USE;
/* Take the entry out of the tree; its words are the caller's. */
int dhi_sorted_remove(dh_heap *heap, sorted_path *path) DH_MUST_USE;
/* Free a tree with all that it owns, whatever state it is in. */
void dhi_sorted_free_tree(dh_heap *heap, dh_word root, unsigned depth);

#endif

/* index_tree.c -- the walk over one B-tree of an LMDB file: pages, nodes, keys, values, counts.
 *
 * Must never follow a number that was not compared with the file's bounds, or go deeper than the
 * tree says it is. What is claimed by two trees, or twice by one, is damage (index_guard.c).
 */
#include "index_guard.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_BYTES_MAX 32u

/* One tree during its walk.
 *
 *   found.<counts> == said.<counts> when the walk has ended
 */
typedef struct {
    dhi_guard *g;
    dhi_tree_kind kind;
    char name[NAME_BYTES_MAX + 4];
    lmdb_db said;
    lmdb_db found;  /* counts only                                */
    uint8_t *pages; /* one page for each level, said.depth levels */
} tree;

/* A key in a page; bytes NULL: no bound. */
typedef struct {
    const uint8_t *bytes;
    size_t size;
} key_span;

static int DH_PRINTF(3, 4) page_fail(const tree *t, uint64_t pgno, const char *format, ...)
{
    char what[128];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    return dhi_guard_fail(t->g, DH_E_CORRUPT, "%s, page %llu: %s", t->name,
                          (unsigned long long)pgno, what);
}

/* False when the page was claimed before. */
static bool page_claim(dhi_guard *g, uint64_t pgno)
{
    bool is_first = !dhi_page_is_claimed(g, pgno);

    g->claimed[pgno / 8] |= (uint8_t)(1u << (pgno % 8));
    return is_first;
}

/* Pages that a tree is to read: in range of the pages handed out and of the file. */
static int pages_check(const tree *t, uint64_t from, uint64_t pgno, uint64_t count)
{
    const dhi_guard *g = t->g;

    if (pgno < LMDB_METAS_COUNT || pgno >= g->pgno_limit || count > g->pgno_limit - pgno)
        return page_fail(t, from, "leads to page %llu, which was never handed out",
                         (unsigned long long)pgno);
    if (pgno + count > g->file_bytes / LMDB_PAGE_BYTES)
        return page_fail(t, from, "leads to page %llu beyond the end: the file is truncated",
                         (unsigned long long)pgno);
    return 0;
}

static int pages_claim(const tree *t, uint64_t from, uint64_t pgno, uint64_t count)
{
    int rc = pages_check(t, from, pgno, count);

    for (uint64_t i = 0; rc == 0 && i < count; i++)
        if (!page_claim(t->g, pgno + i))
            rc = page_fail(t, from, "leads to page %llu, which is free or used elsewhere too",
                           (unsigned long long)(pgno + i));
    return rc;
}

/* --- the free list ----------------------------------------------------------------------------- */

/* Page numbers of one record; they descend from *above_pgno. */
static int free_ids_claim(const tree *t, uint64_t from, const uint8_t *bytes, size_t count,
                          uint64_t *above_pgno)
{
    dhi_guard *g = t->g;

    for (size_t i = 0; i < count; i++) {
        uint64_t pgno = lmdb_u64(bytes + i * 8);
        if (pgno < LMDB_METAS_COUNT || pgno >= g->pgno_limit)
            return page_fail(t, from, "lists page %llu, which was never handed out",
                             (unsigned long long)pgno);
        if (pgno >= *above_pgno)
            return page_fail(t, from, "page numbers are not in descending order");
        if (!page_claim(g, pgno))
            return page_fail(t, from, "lists page %llu as free, which is in use or listed twice",
                             (unsigned long long)pgno);
        *above_pgno = pgno;
    }
    return 0;
}

/* How many numbers follow the first word. The engine leaves a reserved record empty at times. */
static int free_count(const tree *t, uint64_t from, uint64_t first_word, uint64_t value_bytes,
                      uint64_t *count_out)
{
    if (value_bytes % 8 != 0 || (first_word != 0 && first_word != value_bytes / 8 - 1))
        return page_fail(t, from, "a list of %llu pages in %llu bytes",
                         (unsigned long long)first_word, (unsigned long long)value_bytes);
    *count_out = first_word;
    return 0;
}

static int free_inline_check(const tree *t, uint64_t from, const uint8_t *value, uint64_t bytes)
{
    uint64_t above_pgno = LMDB_NONE, count = 0;
    int rc;

    if (bytes < 8)
        return page_fail(t, from, "a list of free pages in %llu bytes", (unsigned long long)bytes);
    rc = free_count(t, from, lmdb_u64(value), bytes, &count);
    if (rc != 0)
        return rc;
    return free_ids_claim(t, from, value + 8, (size_t)count, &above_pgno);
}

static int free_overflow_check(const tree *t, uint64_t from, uint64_t pgno, uint64_t bytes)
{
    uint8_t part[LMDB_PAGE_BYTES];
    uint64_t offset = pgno * LMDB_PAGE_BYTES + LMDB_PAGE_HEADER_BYTES;
    uint64_t above_pgno = LMDB_NONE, count = 0;
    int rc;

    if (bytes < 8)
        return page_fail(t, from, "a list of free pages in %llu bytes", (unsigned long long)bytes);
    rc = dhi_guard_read(t->g, offset, part, 8);
    if (rc == 0)
        rc = free_count(t, from, lmdb_u64(part), bytes, &count);
    for (uint64_t done = 0; rc == 0 && done < count;) {
        size_t ids = count - done < sizeof(part) / 8 ? (size_t)(count - done) : sizeof(part) / 8;
        rc = dhi_guard_read(t->g, offset + 8 + done * 8, part, ids * 8);
        if (rc == 0)
            rc = free_ids_claim(t, from, part, ids, &above_pgno);
        done += ids;
    }
    return rc;
}

/* --- one page: its shape ------------------------------------------------------------------------ */

/* Bytes from the node's start to where the next one may start; 0 when it cannot be a node. */
static size_t node_bytes(const uint8_t *page, size_t offset, bool is_leaf)
{
    const uint8_t *node = page + offset;
    uint64_t bytes;

    if (offset + LMDB_NODE_HEADER_BYTES > LMDB_PAGE_BYTES)
        return 0;
    bytes = LMDB_NODE_HEADER_BYTES + (uint64_t)lmdb_u16(node + LMDB_NODE_KEY_SIZE);
    if (is_leaf && (lmdb_u16(node + LMDB_NODE_FLAGS) & LMDB_F_BIGDATA) != 0)
        bytes += 8;
    else if (is_leaf)
        bytes += lmdb_u32(node + LMDB_NODE_SIZE);
    if (bytes > LMDB_NODE_BYTES_MAX)
        return 0;
    bytes += bytes & 1; /* nodes start at even offsets */
    return offset + bytes <= LMDB_PAGE_BYTES ? (size_t)bytes : 0;
}

/* The nodes lie side by side from `upper` to the end of the page, each pointed to once. */
static int page_check_nodes(const tree *t, uint64_t pgno, const uint8_t *page, bool is_leaf)
{
    uint8_t is_start[LMDB_PAGE_BYTES] = {0};
    unsigned count = lmdb_nodes_count(page), met = 0;
    size_t at = lmdb_u16(page + LMDB_PAGE_UPPER);

    for (unsigned i = 0; i < count; i++) {
        unsigned offset = lmdb_node_offset(page, i);
        if (offset >= LMDB_PAGE_BYTES)
            return page_fail(t, pgno, "node %u lies outside the page", i);
        is_start[offset] = 1;
    }
    while (at < LMDB_PAGE_BYTES) {
        size_t bytes = is_start[at] ? node_bytes(page, at, is_leaf) : 0;
        if (bytes == 0)
            return page_fail(t, pgno, "no whole node at byte %zu", at);
        at += bytes;
        met++;
    }
    if (met != count)
        return page_fail(t, pgno, "%u nodes and pointers to %u", met, count);
    return 0;
}

static int page_check_header(const tree *t, uint64_t pgno, const uint8_t *page, bool is_leaf)
{
    unsigned lower = lmdb_u16(page + LMDB_PAGE_LOWER), upper = lmdb_u16(page + LMDB_PAGE_UPPER);
    unsigned flags = lmdb_u16(page + LMDB_PAGE_FLAGS);
    unsigned count_min = is_leaf || t->kind == TREE_FREE ? 1 : 2;

    if (lmdb_u64(page + LMDB_PAGE_PGNO) != pgno)
        return page_fail(t, pgno, "says that it is page %llu",
                         (unsigned long long)lmdb_u64(page + LMDB_PAGE_PGNO));
    if (flags != (is_leaf ? LMDB_P_LEAF : LMDB_P_BRANCH))
        return page_fail(t, pgno, "flags 0x%x where a %s page must be", flags,
                         is_leaf ? "leaf" : "branch");
    if (lower < LMDB_PAGE_HEADER_BYTES || lower % 2 != 0 || lower > upper ||
        upper > LMDB_PAGE_BYTES || upper % 2 != 0)
        return page_fail(t, pgno, "free space from byte %u to %u", lower, upper);
    if (lmdb_nodes_count(page) < count_min)
        return page_fail(t, pgno, "%u nodes, at least %u expected", lmdb_nodes_count(page),
                         count_min);
    return 0;
}

/* --- one page: its keys ------------------------------------------------------------------------- */

static key_span node_key(const uint8_t *page, unsigned index)
{
    const uint8_t *node = page + lmdb_node_offset(page, index);

    return (key_span){node + LMDB_NODE_HEADER_BYTES, lmdb_u16(node + LMDB_NODE_KEY_SIZE)};
}

/* mdb_cmp_long for the free list, mdb_cmp_memn for the others. */
static int keys_compare(const tree *t, key_span a, key_span b)
{
    int order;

    if (t->kind == TREE_FREE) {
        uint64_t x = lmdb_u64(a.bytes), y = lmdb_u64(b.bytes);
        return (x > y) - (x < y);
    }
    order = memcmp(a.bytes, b.bytes, a.size < b.size ? a.size : b.size);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static int key_check(const tree *t, uint64_t pgno, unsigned index, key_span key)
{
    if (t->kind != TREE_FREE)
        return key.size > 0 && key.size <= LMDB_KEY_BYTES_MAX
                   ? 0
                   : page_fail(t, pgno, "key %u has %zu bytes", index, key.size);
    if (key.size != 8)
        return page_fail(t, pgno, "transaction number %u has %zu bytes", index, key.size);
    if (lmdb_u64(key.bytes) == 0 || lmdb_u64(key.bytes) > t->g->txnid)
        return page_fail(t, pgno, "pages freed by transaction %llu, the last one is %llu",
                         (unsigned long long)lmdb_u64(key.bytes), (unsigned long long)t->g->txnid);
    return 0;
}

/* lower <= first key < ... < last key < upper. The first key of a branch stands for "everything
 * below" and is never compared; mostly it is empty. */
static int page_check_keys(const tree *t, uint64_t pgno, const uint8_t *page, bool is_leaf,
                           key_span lower, key_span upper)
{
    unsigned count = lmdb_nodes_count(page), first = is_leaf ? 0 : 1;
    int rc;

    if (!is_leaf && node_key(page, 0).size > LMDB_KEY_BYTES_MAX)
        return page_fail(t, pgno, "key 0 has %zu bytes", node_key(page, 0).size);
    for (unsigned i = first; i < count; i++) {
        key_span key = node_key(page, i);
        rc = key_check(t, pgno, i, key);
        if (rc != 0)
            return rc;
        if (i > first && keys_compare(t, node_key(page, i - 1), key) >= 0)
            return page_fail(t, pgno, "key %u is not above the one before it", i);
    }
    if (first < count && lower.bytes != NULL && keys_compare(t, node_key(page, first), lower) < 0)
        return page_fail(t, pgno, "a key is below the page's range");
    if (first < count && upper.bytes != NULL &&
        keys_compare(t, node_key(page, count - 1), upper) >= 0)
        return page_fail(t, pgno, "a key is above the page's range");
    return 0;
}

/* --- one tree ----------------------------------------------------------------------------------- */

/* A value in pages of its own: does it fit there? */
static int overflow_check(tree *t, uint64_t from, uint64_t pgno, uint64_t value_bytes)
{
    uint8_t header[LMDB_PAGE_HEADER_BYTES];
    uint64_t pages_count;
    int rc = pages_check(t, from, pgno, 1);

    if (rc == 0)
        rc = dhi_guard_read(t->g, pgno * LMDB_PAGE_BYTES, header, sizeof(header));
    if (rc != 0)
        return rc;
    pages_count = lmdb_u32(header + LMDB_PAGE_PAGES);
    if (lmdb_u64(header + LMDB_PAGE_PGNO) != pgno ||
        lmdb_u16(header + LMDB_PAGE_FLAGS) != LMDB_P_OVERFLOW)
        return page_fail(t, from, "leads to page %llu, which is not the start of a value",
                         (unsigned long long)pgno);
    if (pages_count < lmdb_overflow_pages(value_bytes)) /* more: a value made shorter in place */
        return page_fail(t, from, "a value of %llu bytes in %llu pages",
                         (unsigned long long)value_bytes, (unsigned long long)pages_count);
    rc = pages_claim(t, from, pgno, pages_count);
    if (rc != 0)
        return rc;
    t->found.overflow_pages += pages_count;
    return t->kind == TREE_FREE ? free_overflow_check(t, from, pgno, value_bytes) : 0;
}

/* Printable form of a named tree's key, cut to what a sentence can hold. */
static void name_print(key_span key, char out[NAME_BYTES_MAX + 4])
{
    size_t size = key.size < NAME_BYTES_MAX ? key.size : NAME_BYTES_MAX;

    out[0] = '\'';
    for (size_t i = 0; i < size; i++)
        out[i + 1] = key.bytes[i] >= 32 && key.bytes[i] < 127 ? (char)key.bytes[i] : '?';
    out[size + 1] = '\'';
    out[size + 2] = '\0';
}

static int subtree_check(const tree *t, uint64_t from, key_span key, const uint8_t *value,
                         uint64_t value_bytes)
{
    char name[NAME_BYTES_MAX + 4];
    lmdb_db said;

    if (t->kind != TREE_MAIN || value_bytes != LMDB_DB_BYTES)
        return page_fail(t, from, "a named tree in a record of %llu bytes",
                         (unsigned long long)value_bytes);
    name_print(key, name);
    said = lmdb_db_decode(value);
    return dhi_tree_walk(t->g, TREE_NAMED, name, &said);
}

static int value_check(tree *t, uint64_t pgno, const uint8_t *page, unsigned index)
{
    const uint8_t *node = page + lmdb_node_offset(page, index);
    key_span key = node_key(page, index);
    const uint8_t *value = key.bytes + key.size;
    uint64_t value_bytes = lmdb_u32(node + LMDB_NODE_SIZE);
    unsigned flags = lmdb_u16(node + LMDB_NODE_FLAGS);

    t->found.entries++;
    if (t->kind == TREE_FREE)
        t->g->freed_last = lmdb_u64(key.bytes);
    switch (flags) {
    case 0:
        return t->kind == TREE_FREE ? free_inline_check(t, pgno, value, value_bytes) : 0;
    case LMDB_F_BIGDATA:
        return overflow_check(t, pgno, lmdb_u64(value), value_bytes);
    case LMDB_F_SUBDATA:
        return subtree_check(t, pgno, key, value, value_bytes);
    default:
        return page_fail(t, pgno, "node %u has flags 0x%x", index, flags);
    }
}

static int leaf_check(tree *t, uint64_t pgno, const uint8_t *page)
{
    int rc = 0;

    t->found.leaf_pages++;
    for (unsigned i = 0; rc == 0 && i < lmdb_nodes_count(page); i++)
        rc = value_check(t, pgno, page, i);
    return rc;
}

static int page_walk(tree *t, uint64_t from, uint64_t pgno, unsigned level, key_span lower,
                     key_span upper);

static int branch_walk(tree *t, uint64_t pgno, unsigned level, key_span lower, key_span upper)
{
    const uint8_t *page = t->pages + level * (size_t)LMDB_PAGE_BYTES;
    unsigned count = lmdb_nodes_count(page);
    int rc = 0;

    t->found.branch_pages++;
    for (unsigned i = 0; rc == 0 && i < count; i++)
        rc = page_walk(t, pgno, lmdb_node_child(page + lmdb_node_offset(page, i)), level + 1,
                       i > 0 ? node_key(page, i) : lower,
                       i + 1 < count ? node_key(page, i + 1) : upper);
    return rc;
}

/* One page and what is below it; recursion is no deeper than said.depth. */
static int page_walk(tree *t, uint64_t from, uint64_t pgno, unsigned level, key_span lower,
                     key_span upper)
{
    uint8_t *page = t->pages + level * (size_t)LMDB_PAGE_BYTES;
    bool is_leaf = level + 1 == t->said.depth;
    int rc = pages_claim(t, from, pgno, 1);

    if (rc == 0)
        rc = dhi_guard_read(t->g, pgno * LMDB_PAGE_BYTES, page, LMDB_PAGE_BYTES);
    if (rc == 0)
        rc = page_check_header(t, pgno, page, is_leaf);
    if (rc == 0)
        rc = page_check_nodes(t, pgno, page, is_leaf);
    if (rc == 0)
        rc = page_check_keys(t, pgno, page, is_leaf, lower, upper);
    if (rc != 0)
        return rc;
    return is_leaf ? leaf_check(t, pgno, page) : branch_walk(t, pgno, level, lower, upper);
}

static int db_check(const tree *t)
{
    const lmdb_db *said = &t->said;
    bool is_free_list = t->kind == TREE_FREE;
    unsigned flags = is_free_list ? said->flags & ~LMDB_ENV_NOSUBDIR : said->flags;

    if (flags != (is_free_list ? LMDB_DB_INTEGERKEY : 0))
        return dhi_guard_fail(t->g, DH_E_FORMAT, "%s has flags 0x%x, which no heap uses", t->name,
                              said->flags);
    if (said->pad != (is_free_list ? LMDB_PAGE_BYTES : 0))
        return dhi_guard_fail(t->g, DH_E_CORRUPT, "%s has a key size of %u", t->name, said->pad);
    if (said->depth > LMDB_DEPTH_MAX || (said->depth == 0) != (said->root == LMDB_NONE))
        return dhi_guard_fail(t->g, DH_E_CORRUPT, "%s has depth %u and root %llu", t->name,
                              said->depth, (unsigned long long)said->root);
    return 0;
}

static int counts_check(const tree *t)
{
    const lmdb_db *said = &t->said, *found = &t->found;
    const struct {
        const char *what;
        uint64_t said, found;
    } counts[] = {{"branch pages", said->branch_pages, found->branch_pages},
                  {"leaf pages", said->leaf_pages, found->leaf_pages},
                  {"overflow pages", said->overflow_pages, found->overflow_pages},
                  {"entries", said->entries, found->entries}};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        if (counts[i].said != counts[i].found)
            return dhi_guard_fail(t->g, DH_E_CORRUPT, "%s: %llu %s counted, %llu found", t->name,
                                  (unsigned long long)counts[i].said, counts[i].what,
                                  (unsigned long long)counts[i].found);
    return 0;
}

int dhi_tree_walk(dhi_guard *g, dhi_tree_kind kind, const char *name, const lmdb_db *said)
{
    tree t = {.g = g, .kind = kind, .said = *said};
    key_span unbounded = {NULL, 0};
    int rc;

    snprintf(t.name, sizeof(t.name), "%s", name);
    rc = db_check(&t);
    if (rc != 0)
        return rc;
    if (said->depth > 0) {
        t.pages = malloc(said->depth * (size_t)LMDB_PAGE_BYTES);
        if (t.pages == NULL)
            return dhi_guard_fail(g, ENOMEM, "no memory for a walk of %u levels", said->depth);
        rc = page_walk(&t, 0, said->root, 0, unbounded, unbounded);
        free(t.pages);
    }
    return rc != 0 ? rc : counts_check(&t);
}

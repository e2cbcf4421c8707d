/* index_guard.c -- vouch for an LMDB data file before the engine opens it.
 *
 * The engine has no checksums and trusts what it maps: a damaged B-tree page makes it abort, a
 * truncated file ends in SIGBUS, a page that is both in use and free is overwritten by a later
 * commit. dh_index_check walks what the next transaction would start from: the meta page that the
 * engine would pick, the free list, the main tree and every named one, and refuses anything that
 * the engine would not itself have written. Layout: index_guard.h.
 *
 * Every page number met is claimed once, in one bitmap, by the tree that uses it or by the list
 * that says it is free; a second claim is damage. That bounds the walk by the file and finds
 * cycles, shared pages and pages both free and used in the same way.
 *
 * Must never map the file, follow a number that was not compared with the file's bounds, or read
 * the values in overflow pages (only their headers; the free list's are its own): those have
 * checksums of their own, and the cost stays that of the B-tree pages.
 */
#include "index_guard.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_BYTES_MAX 32u

typedef struct {
    int fd;
    uint64_t file_bytes;
    uint64_t txnid;      /* of the meta page that counts                          */
    uint64_t pgno_limit; /* mm_last_pg + 1                                        */
    uint8_t *claimed;    /* a bit for each page below pgno_limit: in use, or free */
    char *text;
    size_t text_size;
} guard;

typedef enum { TREE_FREE, TREE_MAIN, TREE_NAMED } tree_kind;

/* One tree during its walk.
 *
 *   found.<counts> == said.<counts> when the walk has ended
 */
typedef struct {
    guard *g;
    tree_kind kind;
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

static int DH_PRINTF(3, 4) guard_fail(const guard *g, int rc, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(g->text, g->text_size, format, arguments);
    va_end(arguments);
    return rc;
}

static int DH_PRINTF(3, 4) page_fail(const tree *t, uint64_t pgno, const char *format, ...)
{
    char what[128];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    return guard_fail(t->g, DH_E_CORRUPT, "%s, page %llu: %s", t->name, (unsigned long long)pgno,
                      what);
}

/* --- the file ---------------------------------------------------------------------------------- */

static int file_read(const guard *g, uint64_t offset, uint8_t *out, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = pread(g->fd, out + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return guard_fail(g, errno, "reading at byte %llu: %s", (unsigned long long)offset,
                              strerror(errno));
        if (got == 0)
            return guard_fail(g, DH_E_CORRUPT, "truncated: the file ends before byte %llu",
                              (unsigned long long)(offset + size));
        done += (size_t)got;
    }
    return 0;
}

static bool page_is_claimed(const guard *g, uint64_t pgno)
{
    return (g->claimed[pgno / 8] & 1u << (pgno % 8)) != 0;
}

/* False when the page was claimed before. */
static bool page_claim(guard *g, uint64_t pgno)
{
    bool is_first = !page_is_claimed(g, pgno);

    g->claimed[pgno / 8] |= (uint8_t)(1u << (pgno % 8));
    return is_first;
}

/* Pages that a tree is to read: in range of the pages handed out and of the file. */
static int pages_check(const tree *t, uint64_t from, uint64_t pgno, uint64_t count)
{
    const guard *g = t->g;

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
    guard *g = t->g;

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
    rc = file_read(t->g, offset, part, 8);
    if (rc == 0)
        rc = free_count(t, from, lmdb_u64(part), bytes, &count);
    for (uint64_t done = 0; rc == 0 && done < count;) {
        size_t ids = count - done < sizeof(part) / 8 ? (size_t)(count - done) : sizeof(part) / 8;
        rc = file_read(t->g, offset + 8 + done * 8, part, ids * 8);
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

static int tree_walk(guard *g, tree_kind kind, const char *name, const lmdb_db *said);

/* A value in pages of its own: does it fit there? */
static int overflow_check(tree *t, uint64_t from, uint64_t pgno, uint64_t value_bytes)
{
    uint8_t header[LMDB_PAGE_HEADER_BYTES];
    uint64_t pages_count;
    int rc = pages_check(t, from, pgno, 1);

    if (rc == 0)
        rc = file_read(t->g, pgno * LMDB_PAGE_BYTES, header, sizeof(header));
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
    return tree_walk(t->g, TREE_NAMED, name, &said);
}

static int value_check(tree *t, uint64_t pgno, const uint8_t *page, unsigned index)
{
    const uint8_t *node = page + lmdb_node_offset(page, index);
    key_span key = node_key(page, index);
    const uint8_t *value = key.bytes + key.size;
    uint64_t value_bytes = lmdb_u32(node + LMDB_NODE_SIZE);
    unsigned flags = lmdb_u16(node + LMDB_NODE_FLAGS);

    t->found.entries++;
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
        rc = file_read(t->g, pgno * LMDB_PAGE_BYTES, page, LMDB_PAGE_BYTES);
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
        return guard_fail(t->g, DH_E_FORMAT, "%s has flags 0x%x, which no heap uses", t->name,
                          said->flags);
    if (said->pad != (is_free_list ? LMDB_PAGE_BYTES : 0))
        return guard_fail(t->g, DH_E_CORRUPT, "%s has a key size of %u", t->name, said->pad);
    if (said->depth > LMDB_DEPTH_MAX || (said->depth == 0) != (said->root == LMDB_NONE))
        return guard_fail(t->g, DH_E_CORRUPT, "%s has depth %u and root %llu", t->name, said->depth,
                          (unsigned long long)said->root);
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
            return guard_fail(t->g, DH_E_CORRUPT, "%s: %llu %s counted, %llu found", t->name,
                              (unsigned long long)counts[i].said, counts[i].what,
                              (unsigned long long)counts[i].found);
    return 0;
}

static int tree_walk(guard *g, tree_kind kind, const char *name, const lmdb_db *said)
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
            return guard_fail(g, ENOMEM, "no memory for a walk of %u levels", said->depth);
        rc = page_walk(&t, 0, said->root, 0, unbounded, unbounded);
        free(t.pages);
    }
    return rc != 0 ? rc : counts_check(&t);
}

/* --- the whole file ----------------------------------------------------------------------------- */

typedef struct {
    uint8_t bytes[LMDB_METAS_COUNT][LMDB_META_LIMIT];
} meta_pair;

static bool meta_is_lmdb(const uint8_t *meta)
{
    return (lmdb_u16(meta + LMDB_PAGE_FLAGS) & LMDB_P_META) != 0 &&
           lmdb_u32(meta + LMDB_META_MAGIC) == LMDB_MAGIC &&
           lmdb_u32(meta + LMDB_META_VERSION) == LMDB_VERSION;
}

static int metas_read(const guard *g, meta_pair *metas_out)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < LMDB_METAS_COUNT; i++)
        rc = file_read(g, i * LMDB_PAGE_BYTES, metas_out->bytes[i], LMDB_META_LIMIT);
    return rc;
}

/* Is this the engine's file at all? Both pages missing the mark: it is something else. */
static int metas_check_format(const guard *g, const meta_pair *metas)
{
    bool is_first = meta_is_lmdb(metas->bytes[0]), is_second = meta_is_lmdb(metas->bytes[1]);
    uint32_t page_bytes = lmdb_u32(metas->bytes[0] + LMDB_META_FREE_DB);

    if (is_first && page_bytes != LMDB_PAGE_BYTES)
        return guard_fail(g, DH_E_FORMAT, "LMDB pages of %u bytes: only %u is supported",
                          page_bytes, LMDB_PAGE_BYTES);
    if (is_first && is_second)
        return 0;
    if (is_first || is_second)
        return guard_fail(g, DH_E_CORRUPT, "page %d is not a meta page of LMDB", is_first ? 1 : 0);
    return guard_fail(
        g, DH_E_FORMAT, "not an LMDB data file of the 0.9 engine (magic 0x%08x, version %u)",
        lmdb_u32(metas->bytes[0] + LMDB_META_MAGIC), lmdb_u32(metas->bytes[0] + LMDB_META_VERSION));
}

/* Transaction N writes page N % 2, so that the pages hold N - 1 and N. The engine picks by the
 * number when it opens and by the parity in a transaction: both must mean the same page. */
static int metas_pick(guard *g, const meta_pair *metas, const uint8_t **meta_out)
{
    uint64_t ids[] = {lmdb_u64(metas->bytes[0] + LMDB_META_TXNID),
                      lmdb_u64(metas->bytes[1] + LMDB_META_TXNID)};
    unsigned newest = ids[0] < ids[1];

    for (unsigned i = 0; i < LMDB_METAS_COUNT; i++)
        if (lmdb_u64(metas->bytes[i] + LMDB_PAGE_PGNO) != i ||
            lmdb_u16(metas->bytes[i] + LMDB_PAGE_FLAGS) != LMDB_P_META ||
            lmdb_u32(metas->bytes[i] + LMDB_META_FREE_DB) != LMDB_PAGE_BYTES)
            return guard_fail(g, DH_E_CORRUPT, "meta page %u is damaged", i);
    if ((ids[0] | ids[1]) != 0 && (ids[newest] % 2 != newest || ids[newest] - ids[!newest] != 1))
        return guard_fail(g, DH_E_CORRUPT, "the meta pages hold transactions %llu and %llu",
                          (unsigned long long)ids[0], (unsigned long long)ids[1]);
    g->txnid = ids[newest];
    *meta_out = metas->bytes[newest];
    return 0;
}

/* Pages handed out: those in the file and, where the last ones are free, some that need not be
 * there; a list of free pages takes 8 bytes for each. */
static int claimed_init(guard *g, const uint8_t *meta)
{
    uint64_t last_pgno = lmdb_u64(meta + LMDB_META_LAST_PGNO);

    if (last_pgno < LMDB_METAS_COUNT - 1 ||
        last_pgno > g->file_bytes / LMDB_PAGE_BYTES + g->file_bytes / 8)
        return guard_fail(g, DH_E_CORRUPT, "the last page is said to be %llu; truncated?",
                          (unsigned long long)last_pgno);
    g->pgno_limit = last_pgno + 1;
    g->claimed = calloc((size_t)(g->pgno_limit / 8 + 1), 1);
    if (g->claimed == NULL)
        return guard_fail(g, ENOMEM, "no memory for a map of %llu pages",
                          (unsigned long long)g->pgno_limit);
    return 0;
}

/* The engine may leave out the file's last pages when they are free (mm_last_pg), no others. */
static int tail_check(const guard *g)
{
    for (uint64_t pgno = g->file_bytes / LMDB_PAGE_BYTES; pgno < g->pgno_limit; pgno++)
        if (!page_is_claimed(g, pgno))
            return guard_fail(g, DH_E_CORRUPT, "truncated: page %llu of %llu is not in the file",
                              (unsigned long long)pgno, (unsigned long long)g->pgno_limit);
    return 0;
}

static int trees_walk(guard *g, const uint8_t *meta)
{
    lmdb_db free_list = lmdb_db_decode(meta + LMDB_META_FREE_DB);
    lmdb_db main_tree = lmdb_db_decode(meta + LMDB_META_MAIN_DB);
    int rc = claimed_init(g, meta);

    if (rc == 0)
        rc = tree_walk(g, TREE_FREE, "the free list", &free_list);
    if (rc == 0)
        rc = tree_walk(g, TREE_MAIN, "the main tree", &main_tree);
    if (rc == 0)
        rc = tail_check(g);
    free(g->claimed);
    return rc;
}

/* Damage seen while a writer was at work may be its work, or the size may be out of date. */
static bool is_changed_since(const guard *g, const meta_pair *metas)
{
    char nowhere[2];
    guard silent = *g;
    meta_pair now;
    struct stat file;

    silent.text = nowhere;
    silent.text_size = sizeof(nowhere);
    if (fstat(g->fd, &file) == 0 && (uint64_t)file.st_size != g->file_bytes)
        return true;
    return metas_read(&silent, &now) == 0 && memcmp(&now, metas, sizeof(now)) != 0;
}

static int file_check(guard *g)
{
    const uint8_t *meta = NULL;
    meta_pair metas;
    int rc;

    if (g->file_bytes < LMDB_METAS_COUNT * LMDB_PAGE_BYTES)
        return guard_fail(g, g->file_bytes == 0 ? DH_E_FORMAT : DH_E_CORRUPT,
                          "%llu bytes: too short for the meta pages of LMDB",
                          (unsigned long long)g->file_bytes);
    rc = metas_read(g, &metas);
    if (rc != 0)
        return rc;
    rc = metas_check_format(g, &metas);
    if (rc == 0)
        rc = metas_pick(g, &metas, &meta);
    if (rc == 0)
        rc = trees_walk(g, meta);
    if (rc == DH_E_CORRUPT && is_changed_since(g, &metas))
        return guard_fail(g, EAGAIN, "the file is being written: check it again");
    return rc;
}

int dh_index_check(int fd, uint64_t file_bytes, char *text_out, size_t text_size)
{
    char nowhere[2];
    guard g = {.fd = fd, .file_bytes = file_bytes, .text = text_out, .text_size = text_size};

    if (text_out == NULL || text_size == 0) {
        g.text = nowhere;
        g.text_size = sizeof(nowhere);
    }
    g.text[0] = '\0';
    return file_check(&g);
}

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

int dhi_guard_fail(const dhi_guard *g, int rc, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(g->text, g->text_size, format, arguments);
    va_end(arguments);
    return rc;
}

int dhi_guard_read(const dhi_guard *g, uint64_t offset, uint8_t *out, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = pread(g->fd, out + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return dhi_guard_fail(g, errno, "reading at byte %llu: %s", (unsigned long long)offset,
                                  strerror(errno));
        if (got == 0)
            return dhi_guard_fail(g, DH_E_CORRUPT, "truncated: the file ends before byte %llu",
                                  (unsigned long long)(offset + size));
        done += (size_t)got;
    }
    return 0;
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

static int metas_read(const dhi_guard *g, meta_pair *metas_out)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < LMDB_METAS_COUNT; i++)
        rc = dhi_guard_read(g, i * LMDB_PAGE_BYTES, metas_out->bytes[i], LMDB_META_LIMIT);
    return rc;
}

/* Is this the engine's file at all? Both pages missing the mark: it is something else. */
static int metas_check_format(const dhi_guard *g, const meta_pair *metas)
{
    bool is_first = meta_is_lmdb(metas->bytes[0]), is_second = meta_is_lmdb(metas->bytes[1]);
    uint32_t page_bytes = lmdb_u32(metas->bytes[0] + LMDB_META_FREE_DB);

    if (is_first && page_bytes != LMDB_PAGE_BYTES)
        return dhi_guard_fail(g, DH_E_FORMAT, "LMDB pages of %u bytes: only %u is supported",
                              page_bytes, LMDB_PAGE_BYTES);
    if (is_first && is_second)
        return 0;
    if (is_first || is_second)
        return dhi_guard_fail(g, DH_E_CORRUPT, "page %d is not a meta page of LMDB",
                              is_first ? 1 : 0);
    return dhi_guard_fail(
        g, DH_E_FORMAT, "not an LMDB data file of the 0.9 engine (magic 0x%08x, version %u)",
        lmdb_u32(metas->bytes[0] + LMDB_META_MAGIC), lmdb_u32(metas->bytes[0] + LMDB_META_VERSION));
}

static uint64_t meta_txnid(const meta_pair *metas, unsigned index)
{
    return lmdb_u64(metas->bytes[index] + LMDB_META_TXNID);
}

/* Transaction N writes page N % 2, so that the pages hold N - 1 and N. The engine picks by the
 * number when it opens and by the parity in a transaction: both must mean the same page. */
static int metas_pick(dhi_guard *g, const meta_pair *metas, unsigned *newest_out)
{
    uint64_t ids[] = {meta_txnid(metas, 0), meta_txnid(metas, 1)};
    unsigned newest = ids[0] < ids[1];

    for (unsigned i = 0; i < LMDB_METAS_COUNT; i++)
        if (lmdb_u64(metas->bytes[i] + LMDB_PAGE_PGNO) != i ||
            lmdb_u16(metas->bytes[i] + LMDB_PAGE_FLAGS) != LMDB_P_META ||
            lmdb_u32(metas->bytes[i] + LMDB_META_FREE_DB) != LMDB_PAGE_BYTES)
            return dhi_guard_fail(g, DH_E_CORRUPT, "meta page %u is damaged", i);
    if ((ids[0] | ids[1]) != 0 && (ids[newest] % 2 != newest || ids[newest] - ids[!newest] != 1))
        return dhi_guard_fail(g, DH_E_CORRUPT, "the meta pages hold transactions %llu and %llu",
                              (unsigned long long)ids[0], (unsigned long long)ids[1]);
    g->txnid = ids[newest];
    *newest_out = newest;
    return 0;
}

/* Pages handed out: those in the file and, where the last ones are free, some that need not be
 * there; a list of free pages takes 8 bytes for each. */
static int claimed_init(dhi_guard *g, const uint8_t *meta)
{
    uint64_t last_pgno = lmdb_u64(meta + LMDB_META_LAST_PGNO);

    if (last_pgno < LMDB_METAS_COUNT - 1 ||
        last_pgno > g->file_bytes / LMDB_PAGE_BYTES + g->file_bytes / 8)
        return dhi_guard_fail(g, DH_E_CORRUPT, "the last page is said to be %llu; truncated?",
                              (unsigned long long)last_pgno);
    g->pgno_limit = last_pgno + 1;
    g->claimed = calloc((size_t)(g->pgno_limit / 8 + 1), 1);
    if (g->claimed == NULL)
        return dhi_guard_fail(g, ENOMEM, "no memory for a map of %llu pages",
                              (unsigned long long)g->pgno_limit);
    return 0;
}

/* The engine may leave out the file's last pages when they are free (mm_last_pg), no others. */
static int tail_check(const dhi_guard *g)
{
    for (uint64_t pgno = g->file_bytes / LMDB_PAGE_BYTES; pgno < g->pgno_limit; pgno++)
        if (!dhi_page_is_claimed(g, pgno))
            return dhi_guard_fail(g, DH_E_CORRUPT,
                                  "truncated: page %llu of %llu is not in the file",
                                  (unsigned long long)pgno, (unsigned long long)g->pgno_limit);
    return 0;
}

/* Meta pages have no checksum, and a flipped bit of the older one's number can make it count: a commit
 * would be missing. But every transaction frees pages of the one before, under its own number, so that
 * the end of a page's free list tells that page's number again. A number that is too small is no
 * damage: a write of the page that was cut short leaves the one before it there (P2). */
static int txnid_check(const dhi_guard *g)
{
    if (g->freed_last == 0 || g->freed_last == g->txnid)
        return 0;
    return dhi_guard_fail(g, DH_E_CORRUPT,
                          "the newest meta page is of transaction %llu, its free list of %llu",
                          (unsigned long long)g->txnid, (unsigned long long)g->freed_last);
}

static int trees_walk(dhi_guard *g, const uint8_t *meta)
{
    lmdb_db free_list = lmdb_db_decode(meta + LMDB_META_FREE_DB);
    lmdb_db main_tree = lmdb_db_decode(meta + LMDB_META_MAIN_DB);
    int rc = claimed_init(g, meta);

    if (rc == 0)
        rc = dhi_tree_walk(g, TREE_FREE, "the free list", &free_list);
    if (rc == 0)
        rc = dhi_tree_walk(g, TREE_MAIN, "the main tree", &main_tree);
    if (rc == 0)
        rc = tail_check(g);
    free(g->claimed);
    return rc;
}

/* Damage seen while a writer was at work may be its work, or the size may be out of date. */
static bool is_changed_since(const dhi_guard *g, const meta_pair *metas)
{
    char nowhere[2];
    dhi_guard silent = *g;
    meta_pair now;
    struct stat file;

    silent.text = nowhere;
    silent.text_size = sizeof(nowhere);
    if (fstat(g->fd, &file) == 0 && (uint64_t)file.st_size != g->file_bytes)
        return true;
    return metas_read(&silent, &now) == 0 && memcmp(&now, metas, sizeof(now)) != 0;
}

static int file_check(dhi_guard *g)
{
    unsigned newest = 0;
    meta_pair metas;
    int rc;

    if (g->file_bytes < LMDB_METAS_COUNT * LMDB_PAGE_BYTES)
        return dhi_guard_fail(g, g->file_bytes == 0 ? DH_E_FORMAT : DH_E_CORRUPT,
                              "%llu bytes: too short for the meta pages of LMDB",
                              (unsigned long long)g->file_bytes);
    rc = metas_read(g, &metas);
    if (rc != 0)
        return rc;
    rc = metas_check_format(g, &metas);
    if (rc == 0)
        rc = metas_pick(g, &metas, &newest);
    if (rc == 0)
        rc = trees_walk(g, metas.bytes[newest]);
    if (rc == 0)
        rc = txnid_check(g);
    if (rc == DH_E_CORRUPT && is_changed_since(g, &metas))
        return dhi_guard_fail(g, EAGAIN, "the file is being written: check it again");
    return rc;
}

int dh_index_check(int fd, uint64_t file_bytes, char *text_out, size_t text_size)
{
    char nowhere[2];
    dhi_guard g = {.fd = fd, .file_bytes = file_bytes, .text = text_out, .text_size = text_size};

    if (text_out == NULL || text_size == 0) {
        g.text = nowhere;
        g.text_size = sizeof(nowhere);
    }
    g.text[0] = '\0';
    return file_check(&g);
}

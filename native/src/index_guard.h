/* index_guard.h -- the layout of an LMDB 0.9 data file, as far as its B-trees go.
 *
 * Facts from LMDB, libraries/liblmdb/mdb.c of the 0.9 series, 64-bit little-endian build; the
 * struct or macro of each is named beside it. Offsets are in bytes. dh_index_check, the function
 * of this module, is declared in dirtyheap.h.
 *
 *   page 0, 1   meta pages; transaction N wrote page N % 2, the larger N counts
 *   page        header (16) | pointers, 2 bytes a node, upwards | free | nodes, downwards
 *   node        value size or child (4 or 6 of 6) | flags (2, leaf only) | key size (2) | key | value
 *   overflow    header (16) | value, over as many whole pages as it takes
 */
#ifndef DH_INDEX_GUARD_H
#define DH_INDEX_GUARD_H

#include "base.h"

#define LMDB_MAGIC 0xBEEFC0DEu    /* MDB_MAGIC                                               */
#define LMDB_VERSION 1u           /* MDB_DATA_VERSION                                        */
#define LMDB_PAGE_BYTES 4096u     /* mm_psize; the engine takes the page size of the machine */
#define LMDB_METAS_COUNT 2u       /* NUM_METAS                                               */
#define LMDB_NONE (~(uint64_t)0)  /* P_INVALID: the root of an empty tree                    */
#define LMDB_DEPTH_MAX 32u        /* CURSOR_STACK                                            */
#define LMDB_KEY_BYTES_MAX 511u   /* MDB_MAXKEYSIZE                                          */
#define LMDB_NODE_BYTES_MAX 2038u /* me_nodemax: half a page, less a pointer                 */
#define LMDB_DB_BYTES 48u         /* sizeof(MDB_db)                                          */

/* MDB_page.mp_flags */
#define LMDB_P_BRANCH 0x01u
#define LMDB_P_LEAF 0x02u
#define LMDB_P_OVERFLOW 0x04u
#define LMDB_P_META 0x08u
/* MDB_node.mn_flags */
#define LMDB_F_BIGDATA 0x01u /* the value is a page number: where the value is */
#define LMDB_F_SUBDATA 0x02u /* the value is an MDB_db                         */
/* MDB_db.md_flags; those of the free list also hold the environment's (mm_flags) */
#define LMDB_DB_INTEGERKEY 0x08u
#define LMDB_ENV_NOSUBDIR 0x4000u

/* MDB_page */
enum {
    LMDB_PAGE_PGNO = 0,
    LMDB_PAGE_FLAGS = 10,
    LMDB_PAGE_LOWER = 12,
    LMDB_PAGE_UPPER = 14,
    LMDB_PAGE_PAGES = 12, /* overflow: 4 bytes in place of lower and upper */
    LMDB_PAGE_HEADER_BYTES = 16
};

/* MDB_node */
enum {
    LMDB_NODE_SIZE = 0,
    LMDB_NODE_FLAGS = 4,
    LMDB_NODE_KEY_SIZE = 6,
    LMDB_NODE_HEADER_BYTES = 8
};

/* MDB_meta, from the start of its page */
enum {
    LMDB_META_MAGIC = 16,
    LMDB_META_VERSION = 20,
    LMDB_META_FREE_DB = 40,
    LMDB_META_MAIN_DB = 88,
    LMDB_META_LAST_PGNO = 136,
    LMDB_META_TXNID = 144,
    LMDB_META_LIMIT = 152
};

/* MDB_db: what one tree says of itself. */
typedef struct {
    uint32_t pad; /* 0; for the free list the page size */
    uint16_t flags;
    uint16_t depth; /* levels, 0 when empty */
    uint64_t branch_pages;
    uint64_t leaf_pages;
    uint64_t overflow_pages;
    uint64_t entries;
    uint64_t root; /* LMDB_NONE when empty */
} lmdb_db;

static inline uint16_t lmdb_u16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof(v));
    return v;
}

static inline uint32_t lmdb_u32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof(v));
    return v;
}

static inline uint64_t lmdb_u64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof(v));
    return v;
}

static inline lmdb_db lmdb_db_decode(const uint8_t *at)
{
    return (lmdb_db){.pad = lmdb_u32(at),
                     .flags = lmdb_u16(at + 4),
                     .depth = lmdb_u16(at + 6),
                     .branch_pages = lmdb_u64(at + 8),
                     .leaf_pages = lmdb_u64(at + 16),
                     .overflow_pages = lmdb_u64(at + 24),
                     .entries = lmdb_u64(at + 32),
                     .root = lmdb_u64(at + 40)};
}

/* NUMKEYS */
static inline unsigned lmdb_nodes_count(const uint8_t *page)
{
    return (lmdb_u16(page + LMDB_PAGE_LOWER) - (unsigned)LMDB_PAGE_HEADER_BYTES) / 2;
}

/* NODEPTR, as an offset into the page. */
static inline unsigned lmdb_node_offset(const uint8_t *page, unsigned index)
{
    return lmdb_u16(page + LMDB_PAGE_HEADER_BYTES + index * (size_t)2);
}

/* NODEPGNO: the flags of a branch's node are the top of the page number. */
static inline uint64_t lmdb_node_child(const uint8_t *node)
{
    return lmdb_u32(node + LMDB_NODE_SIZE) | (uint64_t)lmdb_u16(node + LMDB_NODE_FLAGS) << 32;
}

/* OVPAGES */
static inline uint64_t lmdb_overflow_pages(uint64_t value_bytes)
{
    return (LMDB_PAGE_HEADER_BYTES - 1 + value_bytes) / LMDB_PAGE_BYTES + 1;
}

/* --- the walk: index_guard.c the file and its meta pages, index_tree.c the trees -------------- */

typedef struct {
    int fd;
    uint64_t file_bytes;
    uint64_t txnid;      /* of the meta page that counts                          */
    uint64_t pgno_limit; /* mm_last_pg + 1                                        */
    uint64_t freed_last; /* the last transaction in the free list; 0: none is     */
    uint8_t *claimed;    /* a bit for each page below pgno_limit: in use, or free */
    char *text;
    size_t text_size;
} dhi_guard;

typedef enum { TREE_FREE, TREE_MAIN, TREE_NAMED } dhi_tree_kind;

/* Say what is wrong; returns rc. */
int dhi_guard_fail(const dhi_guard *g, int rc, const char *format, ...) DH_PRINTF(3, 4);
int dhi_guard_read(const dhi_guard *g, uint64_t offset, uint8_t *out, size_t size) DH_MUST_USE;
/* Claim every page of one tree and hold its counts against what it says of itself. */
int dhi_tree_walk(dhi_guard *g, dhi_tree_kind kind, const char *name, const lmdb_db *said)
    DH_MUST_USE;

static inline bool dhi_page_is_claimed(const dhi_guard *g, uint64_t pgno)
{
    return (g->claimed[pgno / 8] & 1u << (pgno % 8)) != 0;
}

#endif

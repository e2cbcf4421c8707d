/* image.h -- the committed image of every page, without a second copy of the heap.
 *
 * A page's committed bytes are, in this order: what the overlay says (a diff against the base, a
 * whole page, or "freed"), else the page of the extent's base file, mapped read-only (page cache),
 * else zeros. The overlay holds what was committed since the extent was last written, as
 * cumulative diffs; a fold empties it. Pages of the table are their own image (table.h) and stand
 * in the overlay only as "newer than the base".
 *
 * An extent is DH_EXTENT_PAGES consecutive pages, of the arena or of the table.
 */
#ifndef DH_IMAGE_H
#define DH_IMAGE_H

#include "base.h"

#define DH_FILE_NAME_BYTES sizeof((dh_extent_row *)0)->file_name
#define DH_EXTENT_PAGES 1024u                   /* 4 MiB */
#define DH_EXTENT_WORDS (DH_EXTENT_PAGES / 64u) /* of a set of its pages */
#define DH_EXTENT_TABLE \
    (DH_PGNO_TABLE / DH_EXTENT_PAGES) /* extent numbers of the table start here */

static inline uint32_t dh_extent_of(dh_pgno pgno) { return pgno / DH_EXTENT_PAGES; }

typedef enum {
    DH_PAGE_DIFF = 1,  /* words that differ from the base, or from the parent's image in a delta */
    DH_PAGE_FRESH = 2, /* words that differ from zeros                                           */
    DH_PAGE_WHOLE = 3,
    DH_PAGE_FREED = 4 /* not allocated: bytes undefined, shown as zeros                          */
} dh_page_form;

/* One overlay entry. */
typedef struct {
    dh_pgno pgno; /* 0xffffffff: empty slot */
    uint8_t form;
    uint16_t size; /* bytes of payload      */
    uint8_t *bytes;
} dh_overlay_slot;

/* One mapped base file. */
typedef struct {
    const uint8_t *view; /* pages and trailer; NULL: no base (zeros), or not mapped yet */
    uint64_t view_bytes;
    uint32_t pages_count;               /* pages the file has                            */
    uint32_t shown_pages;               /* first pages of the memory that show a file    */
    uint64_t version;                   /* commit id it is the image of                  */
    uint32_t overlay_count;             /* overlay entries in this extent                */
    bool has_backlog;                   /* deltas speak of it, see backlog.h */
    char file_name[DH_FILE_NAME_BYTES]; /* while the view is not mapped      */
} dh_extent;

typedef struct {
    dh_extent *data; /* by extent number, grows            */
    size_t data_count;
    dh_extent *table;
    size_t table_count;
    dh_overlay_slot *slots; /* open addressing, power of two */
    size_t slots_count;
    size_t overlay_count;
    uint64_t overlay_bytes;
    uint64_t base_pages_count;
} dh_image;

int dh_image_init(dh_image *image);
void dh_image_finish(dh_image *image);
/* The committed bytes. Returns out, or the address of the base page itself when it is the image. */
const uint8_t *dh_image_read(const dh_heap *heap, dh_pgno pgno, uint8_t out[DH_PAGE_BYTES]);
/* What dh_image_read returns for a page that was never committed, or was freed. */
extern const uint8_t dh_zero_page[DH_PAGE_BYTES];
/* Is the page's image another than its base's? */
bool dh_image_is_newer(const dh_heap *heap, dh_pgno pgno);
/* True when the arena's page holds its committed bytes (what the compare tracker asks). */
bool dh_image_same(const dh_heap *heap, dh_pgno pgno);
/* The page is committed as these bytes now (NULL: freed). For pages of the table: noted only. */
int dh_image_store(dh_heap *heap, dh_pgno pgno, const uint8_t *bytes);
/* The page is committed with this diff against what it was; bytes is the whole result. Cheaper than
 * dh_image_store: the base is not read. */
int dh_image_advance(dh_heap *heap, dh_pgno pgno, const uint8_t *diff, size_t size,
                     const uint8_t *bytes);
dh_extent *dh_image_extent(const dh_heap *heap, uint32_t extent_no); /* NULL: never seen */
int dh_image_extent_make(dh_heap *heap, uint32_t extent_no, dh_extent **extent_out);
/* Whether two heap objects of one store read this extent's committed pages from the same base file,
 * and nowhere else. */
bool dh_images_share(const dh_heap *a, const dh_heap *b, uint32_t extent_no);
/* Drop the overlay entries of one extent. */
void dh_image_drop_overlay(dh_heap *heap, uint32_t extent_no);
/* Before an extent gets another base: entries of the pages in `newer` (one bit each) are made anew
 * upon it, so that their image stays what it is; the others are dropped, for the base has their
 * image. A failure (ENOMEM) leaves everything as it was. */
int dh_image_rebase(dh_heap *heap, uint32_t extent_no, const dh_extent *base,
                    const uint64_t newer[DH_EXTENT_WORDS]);
/* The overlay entry of a page, or NULL. */
dh_overlay_slot *dh_overlay_find(const dh_image *image, dh_pgno pgno);
/* What an entry makes of its base page: out, or the address of what is the image as it is. */
const uint8_t *dh_overlay_apply(const dh_overlay_slot *slot, const uint8_t *base,
                                uint8_t out[DH_PAGE_BYTES]);
/* A page of the base file; dh_zero_page where it has none. */
const uint8_t *dh_extent_page(const dh_extent *extent, uint32_t index);

#endif

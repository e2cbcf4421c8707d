/* fold.c -- writing the image of one commit while later ones are taken over.
 *
 * Contract: fold.h. Must never fail a commit: where memory for what it replaces is not to be had, the
 * fold is given up instead. Must never write a page that is newer than the fold's commit: deltas from
 * there on are applied to these files.
 */
#include "fold.h"

#include <stdlib.h>

#include "extent.h"
#include "gate.h"
#include "mapping.h"

/* One extent of the fold. */
typedef struct {
    uint32_t extent_no;
    bool is_written;
    bool is_replaced;                /* a later commit has given it another base, or the fold has */
    uint64_t newer[DH_EXTENT_WORDS]; /* pages whose image is of a later commit     */
    /* While it is not written, of each page in `newer`: its overlay entry when the fold began; form
     * 0: none. In the order of change. */
    dh_overlay_slot *kept;
    size_t kept_count, kept_room;
    dh_extent base; /* if it was replaced before it was written: what it rested on */
} folded_extent;

struct dh_fold {
    folded_extent *extents; /* ascending */
    size_t extents_count;
    dh_state state;
    uint64_t kept_bytes;
    bool is_given_up; /* something could not be kept */
};

static folded_extent *find(const dh_fold *fold, uint32_t extent_no)
{
    size_t from = 0, to = fold->extents_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (fold->extents[middle].extent_no < extent_no)
            from = middle + 1;
        else
            to = middle;
    }
    return from < fold->extents_count && fold->extents[from].extent_no == extent_no
               ? &fold->extents[from]
               : NULL;
}

static bool is_newer(const folded_extent *folded, uint32_t index)
{
    return folded->newer[index / 64] >> index % 64 & 1;
}

static void set_newer(folded_extent *folded, uint32_t index)
{
    folded->newer[index / 64] |= (uint64_t)1 << index % 64;
}

/* --- keeping --------------------------------------------------------------------------------- */

static void forget_kept(dh_fold *fold, folded_extent *folded)
{
    for (size_t i = 0; i < folded->kept_count; i++) {
        fold->kept_bytes -= folded->kept[i].size;
        free(folded->kept[i].bytes);
    }
    fold->kept_bytes -= folded->kept_room * sizeof *folded->kept;
    free(folded->kept);
    folded->kept = NULL;
    folded->kept_count = folded->kept_room = 0;
    dhi_view_unmap(&folded->base);
}

static int reserve_kept(dh_fold *fold, folded_extent *folded, size_t count)
{
    if (count <= folded->kept_room)
        return 0;
    size_t room = count < folded->kept_room * 2 ? folded->kept_room * 2 : count;
    dh_overlay_slot *kept = realloc(folded->kept, room * sizeof *kept);
    if (kept == NULL)
        return ENOMEM;
    fold->kept_bytes += (room - folded->kept_room) * sizeof *kept;
    folded->kept = kept;
    folded->kept_room = room;
    return 0;
}

static int copy_bytes(const uint8_t *bytes, size_t size, uint8_t **copy_out)
{
    *copy_out = NULL;
    if (size == 0)
        return 0;
    *copy_out = malloc(size);
    if (*copy_out == NULL)
        return ENOMEM;
    memcpy(*copy_out, bytes, size);
    return 0;
}

/* A copy of what a page's image is made of now, beside its base. */
static int keep_page(dh_heap *heap, folded_extent *folded, dh_pgno pgno)
{
    const dh_overlay_slot *slot = dh_overlay_find(&heap->image, pgno);
    dh_overlay_slot kept = {.pgno = pgno};
    const uint8_t *bytes = NULL;
    int rc = reserve_kept(heap->fold, folded, folded->kept_count + 1);

    if (pgno & DH_PGNO_TABLE) { /* its own image */
        kept.form = DH_PAGE_WHOLE;
        kept.size = DH_PAGE_BYTES;
        bytes = dh_table_page(&heap->table, pgno & ~DH_PGNO_TABLE);
    } else if (slot != NULL) {
        kept = *slot;
        bytes = slot->bytes;
    }
    if (rc == 0)
        rc = copy_bytes(bytes, kept.size, &kept.bytes);
    if (rc != 0)
        return rc;
    folded->kept[folded->kept_count++] = kept;
    heap->fold->kept_bytes += kept.size;
    return 0;
}

static void give_up(dh_fold *fold) { fold->is_given_up = true; }

void dhi_fold_page_slow(dh_heap *heap, dh_pgno pgno)
{
    folded_extent *folded = find(heap->fold, dh_extent_of(pgno));
    uint32_t index = pgno % DH_EXTENT_PAGES;

    if (folded == NULL || folded->is_replaced || is_newer(folded, index))
        return;
    set_newer(folded, index);
    if (!folded->is_written && keep_page(heap, folded, pgno) != 0)
        give_up(heap->fold);
}

/* All pages of the table: which of them will change is not known here. */
static int keep_table(dh_heap *heap, folded_extent *folded)
{
    dh_pgno first = folded->extent_no * DH_EXTENT_PAGES;
    uint64_t pages = dh_table_pages_for(heap->fold->state.hwm_pages);
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < DH_EXTENT_PAGES && (first & ~DH_PGNO_TABLE) + i < pages;
         i++) {
        if (!is_newer(folded, i)) {
            set_newer(folded, i);
            rc = keep_page(heap, folded, first + i);
        }
    }
    return rc;
}

/* The entries themselves: they are about to be dropped. */
static int take_overlay(dh_heap *heap, folded_extent *folded, const dh_extent *extent)
{
    int rc = reserve_kept(heap->fold, folded, folded->kept_count + extent->overlay_count);

    for (uint32_t i = 0; rc == 0 && i < DH_EXTENT_PAGES; i++) {
        dh_pgno pgno = folded->extent_no * DH_EXTENT_PAGES + i;
        dh_overlay_slot *slot = is_newer(folded, i) ? NULL : dh_overlay_find(&heap->image, pgno);
        if (slot == NULL)
            continue;
        set_newer(folded, i);
        folded->kept[folded->kept_count++] = *slot;
        heap->fold->kept_bytes += slot->size;
        slot->bytes = NULL; /* its size is still counted, until it is dropped */
    }
    return rc;
}

void dhi_fold_replaced(dh_heap *heap, uint32_t extent_no)
{
    folded_extent *folded = heap->fold != NULL ? find(heap->fold, extent_no) : NULL;
    dh_extent *extent = dh_image_extent(heap, extent_no);
    int rc = 0;

    if (folded == NULL || folded->is_replaced)
        return;
    if (!folded->is_written)
        rc = extent_no >= DH_EXTENT_TABLE ? keep_table(heap, folded)
                                          : take_overlay(heap, folded, extent);
    folded->is_replaced = true;
    if (folded->is_written)
        return;
    if (rc != 0)
        give_up(heap->fold);
    folded->base = *extent;
    extent->view = NULL; /* ours now */
}

/* --- writing --------------------------------------------------------------------------------- */

/* The extent as it was when the fold began. */
typedef struct {
    const dh_heap *heap;
    const folded_extent *folded;
    const dh_extent *base;
    uint16_t places[DH_EXTENT_PAGES]; /* of each page in `newer`: where it is kept */
} folded_image;

static const uint8_t *read_folded(const void *context, dh_pgno pgno, uint8_t *scratch)
{
    const folded_image *image = context;
    uint32_t index = pgno % DH_EXTENT_PAGES;
    const uint8_t *base = dh_extent_page(image->base, index);

    if (is_newer(image->folded, index)) {
        const dh_overlay_slot *kept = &image->folded->kept[image->places[index]];
        return kept->form == 0 ? base : dh_overlay_apply(kept, base, scratch);
    }
    return image->folded->is_replaced ? base : dh_image_read(image->heap, pgno, scratch);
}

int dh_fold_write(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                  uint64_t *file_bytes_out, uint32_t *checksum_out)
{
    int rc = dhi_verb_gate(heap);
    if (rc != 0)
        return rc;
    folded_extent *folded = heap->fold != NULL ? find(heap->fold, extent_no) : NULL;
    DH_ASSERT(folded != NULL && !folded->is_written);
    if (heap->fold->is_given_up)
        return dhi_fail(heap, ENOMEM, "no memory for what commits changed beside the fold");

    folded_image image = {.heap = heap, .folded = folded};
    image.base = folded->is_replaced ? &folded->base : dh_image_extent(heap, extent_no);
    for (size_t i = 0; i < folded->kept_count; i++)
        image.places[folded->kept[i].pgno % DH_EXTENT_PAGES] = (uint16_t)i;
    dh_page_source source = {read_folded, &image, image.base, &heap->fold->state};
    rc = dhi_extent_write(heap, &source, extent_no, version, fd, file_bytes_out, checksum_out);
    if (rc == 0) {
        folded->is_written = true;
        forget_kept(heap->fold, folded);
    }
    return rc;
}

/* --- switching ------------------------------------------------------------------------------- */

int dh_fold_switch(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint64_t file_bytes,
                   uint32_t checksum)
{
    folded_extent *folded = heap->fold != NULL ? find(heap->fold, extent_no) : NULL;
    dh_extent fresh, *extent = dh_image_extent(heap, extent_no);

    DH_ASSERT(folded != NULL && folded->is_written && extent != NULL);
    if (folded->is_replaced)
        return 0;
    int rc = dhi_view_open(heap, extent_no, version, fd, file_bytes, checksum, &fresh);
    if (rc != 0)
        return rc;
    rc = dh_image_rebase(heap, extent_no, &fresh, folded->newer);
    if (rc != 0) {
        dhi_view_unmap(&fresh);
        return rc;
    }
    dhi_view_take(heap, extent, &fresh);
    folded->is_replaced = true;
    return 0;
}

/* --- begin and end --------------------------------------------------------------------------- */

static int list_extents(dh_heap *heap, dh_fold *fold)
{
    size_t count = dh_extents_unfolded(heap, NULL, 0);
    uint32_t *numbers = malloc((count + 1) * sizeof *numbers);

    fold->extents = calloc(count + 1, sizeof *fold->extents);
    if (numbers == NULL || fold->extents == NULL) {
        free(numbers);
        return ENOMEM;
    }
    dh_extents_unfolded(heap, numbers, count);
    for (size_t i = 0; i < count; i++)
        fold->extents[i].extent_no = numbers[i];
    fold->extents_count = count;
    free(numbers);
    return 0;
}

int dh_fold_begin(dh_heap *heap, size_t *count_out)
{
    int rc = dhi_verb_gate(heap);

    dh_fold_end(heap);
    *count_out = 0;
    if (rc != 0)
        return rc;
    heap->fold = calloc(1, sizeof *heap->fold);
    if (heap->fold == NULL)
        return ENOMEM;
    heap->fold->state = heap->committed;
    rc = list_extents(heap, heap->fold);
    if (rc != 0)
        dh_fold_end(heap);
    else
        *count_out = heap->fold->extents_count;
    return rc;
}

uint32_t dh_fold_extent(const dh_heap *heap, size_t index)
{
    DH_ASSERT(heap->fold != NULL && index < heap->fold->extents_count);
    return heap->fold->extents[index].extent_no;
}

void dh_fold_end(dh_heap *heap)
{
    dh_fold *fold = heap->fold;

    if (fold == NULL)
        return;
    heap->fold = NULL;
    for (size_t i = 0; i < fold->extents_count; i++)
        forget_kept(fold, &fold->extents[i]);
    free(fold->extents);
    free(fold);
}

uint64_t dhi_fold_kept_bytes(const dh_heap *heap)
{
    return heap->fold != NULL ? heap->fold->kept_bytes : 0;
}

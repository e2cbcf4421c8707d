/* image.c -- the committed image: base views, and an overlay of what was committed since.
 *
 * Contract: image.h. Must never hold a whole copy of what a base file already holds, and must never
 * be asked about the present: what is here is what the last durable commit said.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "delta.h"
#include "fold.h"

#define SLOT_EMPTY 0xffffffffu
#define SLOTS_MIN 1024u
/* A cumulative diff beyond this costs more to apply than the page does to keep. */
#define OVERLAY_DIFF_BYTES_MAX 1536u

const uint8_t dh_zero_page[DH_PAGE_BYTES] __attribute__((aligned(64)));

int dh_image_init(dh_image *image)
{
    memset(image, 0, sizeof *image);
    image->slots = malloc(SLOTS_MIN * sizeof *image->slots);
    if (image->slots == NULL)
        return ENOMEM;
    image->slots_count = SLOTS_MIN;
    for (size_t i = 0; i < image->slots_count; i++)
        image->slots[i] = (dh_overlay_slot){SLOT_EMPTY, 0, 0, NULL};
    return 0;
}

static void extents_finish(dh_extent *extents, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (extents[i].view != NULL)
            munmap((void *)(uintptr_t)extents[i].view, extents[i].view_bytes);
    }
    free(extents);
}

void dh_image_finish(dh_image *image)
{
    extents_finish(image->data, image->data_count);
    extents_finish(image->table, image->table_count);
    for (size_t i = 0; i < image->slots_count; i++)
        free(image->slots[i].bytes);
    free(image->slots);
    memset(image, 0, sizeof *image);
}

/* --- extents --------------------------------------------------------------------------------------- */

dh_extent *dh_image_extent(const dh_heap *heap, uint32_t extent_no)
{
    const dh_image *image = &heap->image;
    if (extent_no >= DH_EXTENT_TABLE) {
        extent_no -= DH_EXTENT_TABLE;
        return extent_no < image->table_count ? &image->table[extent_no] : NULL;
    }
    return extent_no < image->data_count ? &image->data[extent_no] : NULL;
}

int dh_image_extent_make(dh_heap *heap, uint32_t extent_no, dh_extent **extent_out)
{
    bool is_table = extent_no >= DH_EXTENT_TABLE;
    dh_extent **extents = is_table ? &heap->image.table : &heap->image.data;
    size_t *count = is_table ? &heap->image.table_count : &heap->image.data_count;
    size_t index = is_table ? extent_no - DH_EXTENT_TABLE : extent_no;

    if (index >= *count) {
        size_t wanted = index + 1 > *count * 2 ? index + 1 : *count * 2;
        dh_extent *grown = realloc(*extents, wanted * sizeof *grown);
        if (grown == NULL)
            return ENOMEM;
        memset(grown + *count, 0, (wanted - *count) * sizeof *grown);
        *extents = grown;
        *count = wanted;
    }
    *extent_out = &(*extents)[index];
    return 0;
}

static bool is_newer(const dh_heap *heap, const dh_extent *extent)
{
    return extent->overlay_count != 0 || (heap->lazy != NULL && extent->has_backlog);
}

bool dh_images_share(const dh_heap *a, const dh_heap *b, uint32_t extent_no)
{
    const dh_extent *first = dh_image_extent(a, extent_no);
    const dh_extent *second = dh_image_extent(b, extent_no);

    return first != NULL && second != NULL && first->version != 0 &&
           first->version == second->version && !is_newer(a, first) && !is_newer(b, second);
}

const uint8_t *dh_extent_page(const dh_extent *extent, uint32_t index)
{
    if (extent == NULL || extent->view == NULL || index >= extent->pages_count)
        return dh_zero_page;
    return extent->view + (size_t)index * DH_PAGE_BYTES;
}

static const uint8_t *base_page(const dh_heap *heap, dh_pgno pgno)
{
    return dh_extent_page(dh_image_extent(heap, dh_extent_of(pgno)), pgno % DH_EXTENT_PAGES);
}

/* --- overlay: open addressing by page number, linear probing, backward-shift deletion ------------ */

/* Pages are asked for in ascending order: sixteen neighbours stand side by side, so that one miss
 * serves several; the groups are scattered, so that no two ranges of pages can pile up. */
static size_t slot_home(const dh_image *image, dh_pgno pgno)
{
    uint64_t group = (uint64_t)(pgno / 16) * 0x9e3779b97f4a7c15u >> 32;
    return (size_t)(group * 16 + pgno % 16) & (image->slots_count - 1);
}

static dh_overlay_slot *slot_find(const dh_image *image, dh_pgno pgno)
{
    size_t i = slot_home(image, pgno);
    while (image->slots[i].pgno != SLOT_EMPTY) {
        if (image->slots[i].pgno == pgno)
            return &image->slots[i];
        i = (i + 1) & (image->slots_count - 1);
    }
    return NULL;
}

dh_overlay_slot *dh_overlay_find(const dh_image *image, dh_pgno pgno)
{
    return slot_find(image, pgno);
}

static int slots_grow(dh_image *image)
{
    size_t old_count = image->slots_count;
    dh_overlay_slot *old = image->slots;
    dh_overlay_slot *slots = malloc(old_count * 2 * sizeof *slots);

    if (slots == NULL)
        return ENOMEM;
    image->slots = slots;
    image->slots_count = old_count * 2;
    for (size_t i = 0; i < image->slots_count; i++)
        slots[i] = (dh_overlay_slot){SLOT_EMPTY, 0, 0, NULL};
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].pgno == SLOT_EMPTY)
            continue;
        size_t at = slot_home(image, old[i].pgno);
        while (slots[at].pgno != SLOT_EMPTY)
            at = (at + 1) & (image->slots_count - 1);
        slots[at] = old[i];
    }
    free(old);
    return 0;
}

static int slot_make(dh_heap *heap, dh_pgno pgno, dh_overlay_slot **slot_out)
{
    dh_image *image = &heap->image;
    dh_overlay_slot *slot = slot_find(image, pgno);
    dh_extent *extent;
    int rc;

    if (slot != NULL) {
        *slot_out = slot;
        return 0;
    }
    rc = dh_image_extent_make(heap, dh_extent_of(pgno), &extent);
    if (rc == 0 && (image->overlay_count + 1) * 2 > image->slots_count)
        rc = slots_grow(image);
    if (rc != 0)
        return rc;
    size_t i = slot_home(image, pgno);
    while (image->slots[i].pgno != SLOT_EMPTY)
        i = (i + 1) & (image->slots_count - 1);
    image->slots[i] = (dh_overlay_slot){pgno, 0, 0, NULL};
    image->overlay_count++;
    extent->overlay_count++;
    *slot_out = &image->slots[i];
    return 0;
}

static void slot_remove(dh_heap *heap, dh_overlay_slot *slot)
{
    dh_image *image = &heap->image;
    size_t mask = image->slots_count - 1, hole = (size_t)(slot - image->slots);

    dh_image_extent(heap, dh_extent_of(slot->pgno))->overlay_count--;
    image->overlay_count--;
    image->overlay_bytes -= slot->size;
    free(slot->bytes);
    for (size_t i = (hole + 1) & mask; image->slots[i].pgno != SLOT_EMPTY; i = (i + 1) & mask) {
        size_t home = slot_home(image, image->slots[i].pgno);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            image->slots[hole] = image->slots[i];
            hole = i;
        }
    }
    image->slots[hole] = (dh_overlay_slot){SLOT_EMPTY, 0, 0, NULL};
}

static int slot_fill(dh_image *image, dh_overlay_slot *slot, unsigned form, const uint8_t *bytes,
                     size_t size)
{
    if (slot->size != size) {
        uint8_t *room = size ? malloc(size) : NULL;
        if (room == NULL && size != 0)
            return ENOMEM;
        free(slot->bytes);
        slot->bytes = room;
        image->overlay_bytes += size;
        image->overlay_bytes -= slot->size;
    }
    if (size != 0)
        memcpy(slot->bytes, bytes, size);
    slot->size = (uint16_t)size;
    slot->form = (uint8_t)form;
    return 0;
}

/* --- reading and storing ------------------------------------------------------------------------------ */

const uint8_t *dh_overlay_apply(const dh_overlay_slot *slot, const uint8_t *base,
                                uint8_t out[DH_PAGE_BYTES])
{
    switch (slot->form) {
    case DH_PAGE_WHOLE:
        return slot->bytes;
    case DH_PAGE_FREED:
        return dh_zero_page;
    default:
        memcpy(out, base, DH_PAGE_BYTES);
        int rc = dh_diff_apply(out, slot->bytes, slot->size);
        DH_ASSERT(rc == 0); /* we encoded it ourselves */
        return out;
    }
}

const uint8_t *dh_image_read(const dh_heap *heap, dh_pgno pgno, uint8_t out[DH_PAGE_BYTES])
{
    if (pgno & DH_PGNO_TABLE)
        return dh_table_page(&heap->table, pgno & ~DH_PGNO_TABLE);
    if (heap->lazy != NULL && heap->phase == DH_RUNNING)
        /* Its arena is the image (L2), once all is brought in. */
        return heap->alloc.kind[pgno] == DH_KIND_FREE ? dh_zero_page
                                                      : dh_arena_page(&heap->arena, pgno);
    const dh_overlay_slot *slot = slot_find(&heap->image, pgno);
    return slot == NULL ? base_page(heap, pgno)
                        : dh_overlay_apply(slot, base_page(heap, pgno), out);
}

bool dh_image_is_newer(const dh_heap *heap, dh_pgno pgno)
{
    return slot_find(&heap->image, pgno) != NULL;
}

bool dh_image_same(const dh_heap *heap, dh_pgno pgno)
{
    uint8_t scratch[DH_PAGE_BYTES];
    return memcmp(dh_image_read(heap, pgno, scratch), dh_arena_page(&heap->arena, pgno),
                  DH_PAGE_BYTES) == 0;
}

static int store_freed(dh_heap *heap, dh_pgno pgno)
{
    dh_overlay_slot *slot = slot_find(&heap->image, pgno);
    if (base_page(heap, pgno) == dh_zero_page) {
        if (slot != NULL)
            slot_remove(heap, slot);
        return 0;
    }
    int rc = slot_make(heap, pgno, &slot);
    return rc != 0 ? rc : slot_fill(&heap->image, slot, DH_PAGE_FREED, dh_zero_page, 0);
}

int dh_image_store(dh_heap *heap, dh_pgno pgno, const uint8_t *bytes)
{
    uint8_t diff[OVERLAY_DIFF_BYTES_MAX];
    dh_overlay_slot *slot;
    uint32_t words;
    int rc;

    dhi_fold_page(heap, pgno);
    if (pgno & DH_PGNO_TABLE) {
        rc = slot_make(heap, pgno, &slot);
        return rc != 0 ? rc : slot_fill(&heap->image, slot, DH_PAGE_DIFF, dh_zero_page, 0);
    }
    if (bytes == NULL)
        return store_freed(heap, pgno);
    size_t size = dh_diff_encode(base_page(heap, pgno), bytes, diff, sizeof diff, &words);
    if (size == 0) {
        slot = slot_find(&heap->image, pgno);
        if (slot != NULL)
            slot_remove(heap, slot);
        return 0;
    }
    rc = slot_make(heap, pgno, &slot);
    if (rc != 0)
        return rc;
    if (size == DH_DIFF_TOO_LARGE)
        return slot_fill(&heap->image, slot, DH_PAGE_WHOLE, bytes, DH_PAGE_BYTES);
    return slot_fill(&heap->image, slot, DH_PAGE_DIFF, diff, size);
}

int dh_image_advance(dh_heap *heap, dh_pgno pgno, const uint8_t *diff, size_t size,
                     const uint8_t *bytes)
{
    uint8_t merged[OVERLAY_DIFF_BYTES_MAX];
    dh_overlay_slot *slot = slot_find(&heap->image, pgno);

    dhi_fold_page(heap, pgno);
    if (slot != NULL && slot->form == DH_PAGE_WHOLE) {
        memcpy(slot->bytes, bytes, DH_PAGE_BYTES);
        return 0;
    }
    if (slot != NULL && slot->form == DH_PAGE_DIFF) {
        size_t merged_size =
            dh_diff_merge(slot->bytes, slot->size, diff, size, merged, sizeof merged);
        if (merged_size != DH_DIFF_TOO_LARGE)
            return slot_fill(&heap->image, slot, DH_PAGE_DIFF, merged, merged_size);
    }
    if (slot != NULL || size > OVERLAY_DIFF_BYTES_MAX)
        return dh_image_store(heap, pgno, bytes);
    int rc = slot_make(heap, pgno, &slot);
    return rc != 0 ? rc : slot_fill(&heap->image, slot, DH_PAGE_DIFF, diff, size);
}

void dh_image_drop_overlay(dh_heap *heap, uint32_t extent_no)
{
    dh_extent *extent = dh_image_extent(heap, extent_no);
    dh_pgno first = extent_no * DH_EXTENT_PAGES;

    for (uint32_t i = 0; i < DH_EXTENT_PAGES && extent->overlay_count > 0; i++) {
        dh_overlay_slot *slot = slot_find(&heap->image, first + i);
        if (slot != NULL)
            slot_remove(heap, slot);
    }
}

/* --- another base under the same image ---------------------------------------------------------------- */

/* The entry that a page needs upon another base; its form stays 0: none. */
static int entry_upon(const uint8_t *base, const uint8_t *bytes, dh_overlay_slot *entry_out)
{
    uint8_t diff[OVERLAY_DIFF_BYTES_MAX];
    uint32_t words;
    size_t size = dh_diff_encode(base, bytes, diff, sizeof diff, &words);
    const uint8_t *from = diff;

    if (size == 0)
        return 0;
    if (bytes == dh_zero_page) { /* free, or never in a file */
        entry_out->form = DH_PAGE_FREED;
        return 0;
    }
    if (size == DH_DIFF_TOO_LARGE) {
        from = bytes;
        size = DH_PAGE_BYTES;
    }
    entry_out->bytes = malloc(size);
    if (entry_out->bytes == NULL)
        return ENOMEM;
    memcpy(entry_out->bytes, from, size);
    entry_out->size = (uint16_t)size;
    entry_out->form = from == bytes ? DH_PAGE_WHOLE : DH_PAGE_DIFF;
    return 0;
}

/* New entries, and room for each. A slot that is made here says what its base says. */
static int make_entries(dh_heap *heap, uint32_t extent_no, const dh_extent *base,
                        const uint64_t *newer, dh_overlay_slot *entries)
{
    uint8_t scratch[DH_PAGE_BYTES];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < DH_EXTENT_PAGES; i++) {
        dh_pgno pgno = extent_no * DH_EXTENT_PAGES + i;
        dh_overlay_slot *slot;
        if (!(newer[i / 64] >> i % 64 & 1))
            continue;
        rc = entry_upon(dh_extent_page(base, i), dh_image_read(heap, pgno, scratch), &entries[i]);
        if (rc != 0 || entries[i].form == 0 || slot_find(&heap->image, pgno) != NULL)
            continue;
        rc = slot_make(heap, pgno, &slot);
        if (rc == 0)
            slot->form = DH_PAGE_DIFF;
    }
    return rc;
}

static void put_entries(dh_heap *heap, uint32_t extent_no, dh_overlay_slot *entries)
{
    dh_image *image = &heap->image;
    for (uint32_t i = 0; i < DH_EXTENT_PAGES; i++) {
        dh_overlay_slot *slot = slot_find(image, extent_no * DH_EXTENT_PAGES + i);
        if (slot == NULL)
            continue;
        if (entries[i].form == 0) {
            slot_remove(heap, slot);
            continue;
        }
        free(slot->bytes);
        image->overlay_bytes += entries[i].size;
        image->overlay_bytes -= slot->size;
        slot->bytes = entries[i].bytes;
        slot->size = entries[i].size;
        slot->form = entries[i].form;
        entries[i].bytes = NULL;
    }
}

/* Pages of the table are their own image: an entry says no more than "newer". */
static void drop_table_entries(dh_heap *heap, uint32_t extent_no, const uint64_t *newer)
{
    for (uint32_t i = 0; i < DH_EXTENT_PAGES; i++) {
        dh_overlay_slot *slot = slot_find(&heap->image, extent_no * DH_EXTENT_PAGES + i);
        if (slot != NULL && !(newer[i / 64] >> i % 64 & 1))
            slot_remove(heap, slot);
    }
}

int dh_image_rebase(dh_heap *heap, uint32_t extent_no, const dh_extent *base,
                    const uint64_t newer[DH_EXTENT_WORDS])
{
    if (extent_no >= DH_EXTENT_TABLE) {
        drop_table_entries(heap, extent_no, newer);
        return 0;
    }
    dh_overlay_slot *entries = calloc(DH_EXTENT_PAGES, sizeof *entries);
    if (entries == NULL)
        return ENOMEM;
    int rc = make_entries(heap, extent_no, base, newer, entries);
    if (rc == 0)
        put_entries(heap, extent_no, entries);
    for (uint32_t i = 0; i < DH_EXTENT_PAGES; i++)
        free(entries[i].bytes);
    free(entries);
    return rc;
}

/* compare.c -- how the committed states of two heap objects of one store differ.
 *
 * Looks at committed images only, never at an arena, and changes nothing. Extents that both read
 * from the same base file, and nowhere else, are passed over unread.
 */
#include "delta.h"
#include "heap.h"
#include "lazy.h"

static bool page_is_free(const dh_heap *heap, dh_pgno pgno)
{
    dh_table_entry entry;

    if (pgno >= heap->arena.hwm_pages)
        return true;
    dh_table_read(&heap->table, pgno, &entry);
    return entry.kind == DH_KIND_FREE;
}

/* The committed bytes; zeros where nothing is allocated. */
static const uint8_t *page_bytes(const dh_heap *heap, dh_pgno pgno, uint8_t *scratch)
{
    return page_is_free(heap, pgno) ? dh_zero_page : dh_image_read(heap, pgno, scratch);
}

static uint32_t words_that_differ(const uint8_t *a, const uint8_t *b)
{
    uint32_t words = 0;

    if (a == b || memcmp(a, b, DH_PAGE_BYTES) == 0)
        return 0;
    for (uint32_t at = 0; at < DH_PAGE_BYTES; at += 8)
        words += memcmp(a + at, b + at, 8) != 0;
    return words;
}

int dh_compare(const dh_heap *a, const dh_heap *b, uint64_t *pages_out, uint64_t *bytes_out)
{
    uint8_t scratch_a[DH_PAGE_BYTES], scratch_b[DH_PAGE_BYTES];
    uint64_t limit =
        a->arena.hwm_pages > b->arena.hwm_pages ? a->arena.hwm_pages : b->arena.hwm_pages;

    *pages_out = *bytes_out = 0;
    int rc = dhi_lazy_settle(a);
    if (rc == 0)
        rc = dhi_lazy_settle(b);
    if (rc != 0)
        return rc;
    for (uint64_t p = 1; p < limit; p++) {
        dh_pgno pgno = (dh_pgno)p;
        bool is_free = page_is_free(a, pgno), was_free = page_is_free(b, pgno);
        if ((is_free && was_free) ||
            (is_free == was_free && dh_images_share(a, b, dh_extent_of(pgno))))
            continue;
        uint32_t words =
            words_that_differ(page_bytes(a, pgno, scratch_a), page_bytes(b, pgno, scratch_b));
        *pages_out += words != 0;
        *bytes_out += words * (uint64_t)8;
    }
    return 0;
}

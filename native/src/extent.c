/* extent.c -- base files: one immutable file per extent version, pages then a trailer.
 *
 *   page 0 .. page n-1 (n x 4096 bytes, so that they can be mapped)
 *   trailer: magic u64, version u64, extent u32, pages u32, n x u32 page checksum, u32 checksum of
 *            the trailer up to here
 *
 * Must never write to a file that is mapped, and must never name a file: the caller opens it, syncs
 * it and its directory, and records it (write, locate, drop). How files come into memory:
 * mapping.c.
 */
#include <stdlib.h>
#include <unistd.h>

#include "crc32c.h"
#include "extent.h"
#include "gate.h"
#include "mapping.h"

#define WRITE_PAGES 256u

static uint32_t extent_pages(const dh_state *state, uint32_t extent_no)
{
    uint64_t pages = state->hwm_pages, first = (uint64_t)extent_no * DH_EXTENT_PAGES;
    if (extent_no >= DH_EXTENT_TABLE) {
        pages = dh_table_pages_for(pages);
        first = (uint64_t)(extent_no - DH_EXTENT_TABLE) * DH_EXTENT_PAGES;
    }
    uint64_t used = pages > first ? pages - first : 0;
    return (uint32_t)(used < DH_EXTENT_PAGES ? used : DH_EXTENT_PAGES);
}

int dhi_write_at(int fd, const uint8_t *bytes, size_t size, uint64_t place)
{
    while (size > 0) {
        int fault = dhi_fault("extent.write");
        ssize_t n = fault != 0 ? (errno = fault, -1) : pwrite(fd, bytes, size, (off_t)place);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EIO;
        bytes += n;
        place += (size_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static const uint8_t *read_page(const dh_page_source *source, dh_pgno pgno, uint8_t *scratch)
{
    return source->read(source->context, pgno, scratch);
}

/* Free pages at the end of an extent need no room in its file: beyond its end a base reads as
 * zeros. */
static uint32_t trim_pages(const dh_page_source *source, uint32_t extent_no, uint32_t pages)
{
    uint8_t scratch[DH_PAGE_BYTES];
    while (pages > 0 &&
           read_page(source, extent_no * DH_EXTENT_PAGES + pages - 1, scratch) == dh_zero_page)
        pages--;
    return pages;
}

/* A page that comes from the old base file must be what its trailer says: written anew, with a
 * checksum of its own, damage would pass for sound. */
static int check_base(dh_heap *heap, const dh_page_source *source, dh_pgno pgno,
                      const uint8_t *bytes, const uint8_t *scratch)
{
    uint32_t index = pgno % DH_EXTENT_PAGES;
    const uint8_t *base = dh_extent_page(source->base, index);

    if (base == dh_zero_page || (bytes != base && bytes != scratch) ||
        dh_page_checksum(base) == dh_view_checksum(source->base, index))
        return 0;
    return dhi_fail(heap, DH_E_CORRUPT, "base file of extent %u: page %u is damaged",
                    dh_extent_of(pgno), index);
}

/* Copy pages [from, from + count) and their checksums; says whether any holds something. */
static int gather_pages(dh_heap *heap, const dh_page_source *source, uint32_t extent_no,
                        uint32_t from, uint32_t count, uint8_t *buffer, uint8_t *checksums,
                        bool *any_out)
{
    int rc = 0;

    *any_out = false;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        uint8_t *at = buffer + i * (size_t)DH_PAGE_BYTES;
        dh_pgno pgno = extent_no * DH_EXTENT_PAGES + from + i;
        const uint8_t *bytes = read_page(source, pgno, at);
        rc = check_base(heap, source, pgno, bytes, at);
        *any_out |= bytes != dh_zero_page;
        if (bytes != at)
            memcpy(at, bytes, DH_PAGE_BYTES);
        uint32_t checksum = dh_page_checksum(at);
        memcpy(checksums + (from + i) * 4u, &checksum, 4);
    }
    return rc;
}

static int write_pages(dh_heap *heap, const dh_page_source *source, uint32_t extent_no,
                       uint32_t pages, int fd, uint8_t *checksums)
{
    uint8_t *buffer = malloc(WRITE_PAGES * (size_t)DH_PAGE_BYTES);
    int rc = buffer == NULL ? ENOMEM : 0;

    for (uint32_t from = 0; rc == 0 && from < pages; from += WRITE_PAGES) {
        uint32_t count = pages - from < WRITE_PAGES ? pages - from : WRITE_PAGES;
        bool any;
        rc = gather_pages(heap, source, extent_no, from, count, buffer, checksums, &any);
        if (rc == 0 && any) /* else a hole: free pages */
            rc = dhi_write_at(fd, buffer, count * (size_t)DH_PAGE_BYTES,
                              from * (uint64_t)DH_PAGE_BYTES);
    }
    free(buffer);
    return rc;
}

void dhi_trailer_head(uint8_t *trailer, uint64_t version, uint32_t extent_no, uint32_t pages)
{
    uint64_t magic = DH_TRAILER_MAGIC;
    memcpy(trailer, &magic, 8);
    memcpy(trailer + 8, &version, 8);
    memcpy(trailer + 16, &extent_no, 4);
    memcpy(trailer + 20, &pages, 4);
}

uint32_t dhi_trailer_seal(uint8_t *trailer, uint32_t pages)
{
    size_t size = dh_trailer_bytes(pages);
    uint32_t checksum = dh_crc32c(0, trailer, size - 4);
    memcpy(trailer + size - 4, &checksum, 4);
    return checksum;
}

int dhi_extent_write(dh_heap *heap, const dh_page_source *source, uint32_t extent_no,
                     uint64_t version, int fd, uint64_t *file_bytes_out, uint32_t *checksum_out)
{
    uint32_t pages = trim_pages(source, extent_no, extent_pages(source->state, extent_no));
    size_t size = dh_trailer_bytes(pages);
    uint8_t *trailer = malloc(size);

    if (trailer == NULL)
        return ENOMEM;
    dhi_trailer_head(trailer, version, extent_no, pages);
    int rc = write_pages(heap, source, extent_no, pages, fd, trailer + DH_TRAILER_HEAD_BYTES);
    if (rc == 0) {
        *checksum_out = dhi_trailer_seal(trailer, pages);
        rc = dhi_write_at(fd, trailer, size, pages * (uint64_t)DH_PAGE_BYTES);
        *file_bytes_out = pages * (uint64_t)DH_PAGE_BYTES + size;
    }
    free(trailer);
    return rc;
}

typedef struct {
    const dh_heap *heap;
    const dh_capture *capture; /* NULL: the last commit */
} captured_image;

/* The page as it is in the captured commit, or in the last one. */
static const uint8_t *read_captured(const void *context, dh_pgno pgno, uint8_t *scratch)
{
    const captured_image *image = context;
    const uint8_t *bytes = NULL;
    if (image->capture != NULL) {
        bytes = dh_capture_page(image->capture, pgno);
        if (bytes == NULL && dh_capture_has_freed(image->capture, pgno))
            bytes = dh_zero_page;
    }
    return bytes != NULL ? bytes : dh_image_read(image->heap, pgno, scratch);
}

int dh_extent_write(dh_heap *heap, const dh_capture *capture, uint32_t extent_no, uint64_t version,
                    int fd, uint64_t *file_bytes_out, uint32_t *checksum_out)
{
    captured_image image = {heap, capture};
    dh_page_source source = {.read = read_captured, .context = &image};
    int rc = dhi_verb_gate(heap);

    if (rc != 0)
        return rc;
    source.base = dh_image_extent(heap, extent_no);
    source.state = capture ? &capture->state : &heap->committed;
    return dhi_extent_write(heap, &source, extent_no, version, fd, file_bytes_out, checksum_out);
}

/* --- checking ------------------------------------------------------------------------------------- */

int dhi_trailer_read(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                     uint64_t file_bytes, uint32_t expected, uint8_t **trailer_out,
                     uint32_t *pages_out)
{
    uint32_t pages;

    if (!dh_trailer_pages(file_bytes, &pages))
        return dhi_fail(heap, DH_E_CORRUPT, "base file of extent %u: %llu bytes is no extent",
                        extent_no, (unsigned long long)file_bytes);
    size_t size = dh_trailer_bytes(pages);
    uint8_t *trailer = malloc(size);
    if (trailer == NULL)
        return ENOMEM;
    ssize_t n = pread(fd, trailer, size, (off_t)(pages * (uint64_t)DH_PAGE_BYTES));
    if (n < 0) {
        int rc = errno;
        free(trailer);
        return rc;
    }
    if (n != (ssize_t)size || !dh_trailer_is(trailer, pages, extent_no, version, expected)) {
        free(trailer);
        return dhi_fail(heap, DH_E_CORRUPT,
                        "base file of extent %u, version %llu: damaged, or "
                        "of another heap",
                        extent_no, (unsigned long long)version);
    }
    *trailer_out = trailer;
    *pages_out = pages;
    return 0;
}

size_t dh_extents_unfolded(const dh_heap *heap, uint32_t *extents_out, size_t max)
{
    const dh_image *image = &heap->image;
    size_t count = 0;

    DH_ASSERT(heap->lazy == NULL); /* or none would be told of */
    for (uint32_t i = 0; i < image->data_count; i++) {
        if (image->data[i].overlay_count > 0 && count++ < max)
            extents_out[count - 1] = i;
    }
    for (uint32_t i = 0; i < image->table_count; i++) {
        if (image->table[i].overlay_count > 0 && count++ < max)
            extents_out[count - 1] = i + DH_EXTENT_TABLE;
    }
    return count;
}

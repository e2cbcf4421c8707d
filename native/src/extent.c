/* extent.c -- base files: one immutable file per extent version, pages then a trailer.
 *
 *   page 0 .. page n-1 (n x 4096 bytes, so that they can be mapped)
 *   trailer: magic u64, version u64, extent u32, pages u32, n x u32 page checksum, u32 checksum of
 *            the trailer up to here
 *
 * Must never write to a file that is mapped, and must never name a file: the caller opens it, syncs
 * it and its directory, and records it (write, locate, drop).
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crc32c.h"
#include "extent.h"

#define TRAILER_MAGIC 0x3154584559524844u /* "DHRYEXT1" */
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

/* The page as it is in the captured commit, or in the last one. */
static const uint8_t *page_to_write(const dh_heap *heap, const dh_capture *capture, dh_pgno pgno,
                                    uint8_t *scratch)
{
    const uint8_t *bytes = NULL;
    if (capture != NULL) {
        bytes = dh_capture_page(capture, pgno);
        if (bytes == NULL && dh_capture_has_freed(capture, pgno))
            bytes = dh_zero_page;
    }
    return bytes != NULL ? bytes : dh_image_read(heap, pgno, scratch);
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

/* Free pages at the end of an extent need no room in its file: beyond its end a base reads as
 * zeros. */
static uint32_t trim_pages(const dh_heap *heap, const dh_capture *capture, uint32_t extent_no,
                           uint32_t pages)
{
    uint8_t scratch[DH_PAGE_BYTES];
    while (pages > 0 && page_to_write(heap, capture, extent_no * DH_EXTENT_PAGES + pages - 1,
                                      scratch) == dh_zero_page)
        pages--;
    return pages;
}

/* Copy pages [from, from + count) and their checksums; returns whether any holds something. */
static bool gather_pages(const dh_heap *heap, const dh_capture *capture, uint32_t extent_no,
                         uint32_t from, uint32_t count, uint8_t *buffer, uint8_t *checksums)
{
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *at = buffer + i * (size_t)DH_PAGE_BYTES;
        const uint8_t *bytes =
            page_to_write(heap, capture, extent_no * DH_EXTENT_PAGES + from + i, at);
        any |= bytes != dh_zero_page;
        if (bytes != at)
            memcpy(at, bytes, DH_PAGE_BYTES);
        uint32_t checksum = dh_page_checksum(at);
        memcpy(checksums + (from + i) * 4u, &checksum, 4);
    }
    return any;
}

static int write_pages(const dh_heap *heap, const dh_capture *capture, uint32_t extent_no,
                       uint32_t pages, int fd, uint8_t *checksums)
{
    uint8_t *buffer = malloc(WRITE_PAGES * (size_t)DH_PAGE_BYTES);
    int rc = buffer == NULL ? ENOMEM : 0;

    for (uint32_t from = 0; rc == 0 && from < pages; from += WRITE_PAGES) {
        uint32_t count = pages - from < WRITE_PAGES ? pages - from : WRITE_PAGES;
        size_t size = count * (size_t)DH_PAGE_BYTES;
        if (gather_pages(heap, capture, extent_no, from, count, buffer, checksums))
            rc = dhi_write_at(fd, buffer, size, from * (uint64_t)DH_PAGE_BYTES);
        /* else a hole: free pages */
    }
    free(buffer);
    return rc;
}

void dhi_trailer_head(uint8_t *trailer, uint64_t version, uint32_t extent_no, uint32_t pages)
{
    uint64_t magic = TRAILER_MAGIC;
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

int dh_extent_write(dh_heap *heap, const dh_capture *capture, uint32_t extent_no, uint64_t version,
                    int fd, uint64_t *file_bytes_out, uint32_t *checksum_out)
{
    uint32_t pages =
        trim_pages(heap, capture, extent_no,
                   extent_pages(capture ? &capture->state : &heap->committed, extent_no));
    size_t size = dh_trailer_bytes(pages);
    uint8_t *trailer = malloc(size);

    if (trailer == NULL)
        return ENOMEM;
    dhi_trailer_head(trailer, version, extent_no, pages);
    int rc = write_pages(heap, capture, extent_no, pages, fd, trailer + DH_TRAILER_HEAD_BYTES);
    if (rc == 0) {
        *checksum_out = dhi_trailer_seal(trailer, pages);
        rc = dhi_write_at(fd, trailer, size, pages * (uint64_t)DH_PAGE_BYTES);
        *file_bytes_out = pages * (uint64_t)DH_PAGE_BYTES + size;
    }
    free(trailer);
    return rc;
}

/* --- mapping and checking ------------------------------------------------------------------------ */

int dhi_trailer_read(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                     uint64_t file_bytes, uint32_t expected, uint8_t **trailer_out,
                     uint32_t *pages_out)
{
    uint64_t pages = file_bytes >= DH_TRAILER_HEAD_BYTES + 4
                         ? (file_bytes - DH_TRAILER_HEAD_BYTES - 4) / (DH_PAGE_BYTES + 4)
                         : UINT64_MAX;
    if (pages > DH_EXTENT_PAGES ||
        pages * DH_PAGE_BYTES + dh_trailer_bytes((uint32_t)pages) != file_bytes)
        return dhi_fail(heap, DH_E_CORRUPT, "base file of extent %u: %llu bytes is no extent",
                        extent_no, (unsigned long long)file_bytes);
    size_t size = dh_trailer_bytes((uint32_t)pages);
    uint8_t *trailer = malloc(size);
    if (trailer == NULL)
        return ENOMEM;
    ssize_t n = pread(fd, trailer, size, (off_t)(pages * DH_PAGE_BYTES));
    uint64_t magic = 0, found_version = 0;
    uint32_t found_extent = 0, found_pages = 0, checksum = 0;
    if (n == (ssize_t)size) {
        memcpy(&magic, trailer, 8);
        memcpy(&found_version, trailer + 8, 8);
        memcpy(&found_extent, trailer + 16, 4);
        memcpy(&found_pages, trailer + 20, 4);
        memcpy(&checksum, trailer + size - 4, 4);
    }
    if (n != (ssize_t)size || magic != TRAILER_MAGIC || found_version != version ||
        found_extent != extent_no || found_pages != pages || checksum != expected ||
        checksum != dh_crc32c(0, trailer, size - 4)) {
        free(trailer);
        return dhi_fail(heap, DH_E_CORRUPT,
                        "base file of extent %u, version %llu: damaged, or "
                        "of another heap",
                        extent_no, (unsigned long long)version);
    }
    *trailer_out = trailer;
    *pages_out = (uint32_t)pages;
    return 0;
}

static void unmap_view(dh_heap *heap, dh_extent *extent)
{
    if (extent->view != NULL)
        munmap((void *)(uintptr_t)extent->view, extent->view_bytes);
    heap->image.base_pages_count -= extent->pages_count;
    extent->view = NULL;
    extent->pages_count = 0;
}

static int map_view(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint32_t pages)
{
    dh_extent *extent;
    int rc = dh_image_extent_make(heap, extent_no, &extent);
    if (rc != 0)
        return rc;
    const uint8_t *view = NULL;
    if (pages > 0) {
        view = mmap(NULL, pages * (size_t)DH_PAGE_BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
        if (view == MAP_FAILED)
            return errno;
    }
    dh_image_drop_overlay(heap, extent_no);
    unmap_view(heap, extent);
    extent->view = view;
    extent->view_bytes = pages * (uint64_t)DH_PAGE_BYTES;
    extent->pages_count = pages;
    extent->version = version;
    heap->image.base_pages_count += pages;
    return 0;
}

int dh_extent_switch(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                     uint64_t file_bytes, uint32_t checksum)
{
    uint8_t *trailer;
    uint32_t pages;
    int rc = dhi_trailer_read(heap, extent_no, version, fd, file_bytes, checksum, &trailer, &pages);
    if (rc != 0)
        return rc;
    free(trailer);
    return map_view(heap, extent_no, version, fd, pages);
}

/* Where the pages of an extent live in this process. NULL: beyond the capacity. */
static uint8_t *extent_memory(dh_heap *heap, uint32_t extent_no, uint32_t pages)
{
    uint64_t first = (uint64_t)extent_no * DH_EXTENT_PAGES;
    if (extent_no < DH_EXTENT_TABLE)
        return first + pages <= heap->arena.capacity_pages
                   ? dh_arena_page(&heap->arena, (dh_pgno)first)
                   : NULL;
    first -= (uint64_t)DH_EXTENT_TABLE * DH_EXTENT_PAGES;
    return (first + pages) * DH_PAGE_BYTES <= heap->table.reserved_bytes
               ? dh_table_page(&heap->table, (uint32_t)first)
               : NULL;
}

static int read_pages(dh_heap *heap, uint32_t extent_no, int fd, uint32_t pages,
                      const uint8_t *checksums)
{
    uint8_t *memory = extent_memory(heap, extent_no, pages);
    size_t done = 0, size = pages * (size_t)DH_PAGE_BYTES;

    if (memory == NULL)
        return dhi_fail(heap, DH_E_FULL,
                        "the heap does not fit its capacity: pass a larger capacity=");
    while (done < size) {
        ssize_t n = pread(fd, memory + done, size - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        done += (size_t)n;
    }
    for (uint32_t i = 0; i < pages; i++) {
        uint32_t checksum;
        memcpy(&checksum, checksums + i * 4u, 4);
        if (checksum != dh_page_checksum(memory + i * (size_t)DH_PAGE_BYTES))
            return dhi_fail(heap, DH_E_CORRUPT, "base file of extent %u: page %u is damaged",
                            extent_no, i);
    }
    return 0;
}

int dh_load_extent(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint64_t file_bytes,
                   uint32_t checksum)
{
    uint8_t *trailer;
    uint32_t pages;
    int rc;

    DH_ASSERT(heap->phase == DH_LOADING);
    rc = dhi_trailer_read(heap, extent_no, version, fd, file_bytes, checksum, &trailer, &pages);
    if (rc != 0)
        return rc;
    rc = read_pages(heap, extent_no, fd, pages, trailer + DH_TRAILER_HEAD_BYTES);
    free(trailer);
    return rc != 0 ? rc : map_view(heap, extent_no, version, fd, pages);
}

size_t dh_extents_unfolded(const dh_heap *heap, uint32_t *extents_out, size_t max)
{
    const dh_image *image = &heap->image;
    size_t count = 0;
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

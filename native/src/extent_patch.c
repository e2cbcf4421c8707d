/* extent_patch.c -- put what a capture holds of an extent into a base file still under way.
 *
 * For files written ahead of a commit's stop (precopy.c): the caller has not synced the result and
 * nothing names it yet. Must never be called with a file that an index names.
 */
#include <stdlib.h>
#include <unistd.h>

#include "crc32c.h"
#include "delta.h"
#include "extent.h"

/* A file in the making: its trailer with room for a whole extent. */
typedef struct {
    int fd;
    uint32_t pages;
    uint8_t *trailer;
} patched_file;

static void note_checksum(patched_file *file, uint32_t index, const uint8_t *bytes)
{
    uint32_t checksum = dh_page_checksum(bytes);
    memcpy(file->trailer + DH_TRAILER_HEAD_BYTES + index * 4u, &checksum, 4);
}

/* Longer, by zeros: the old trailer must not shine through. */
static int lengthen(patched_file *file, uint32_t pages)
{
    if (ftruncate(file->fd, (off_t)file->pages * DH_PAGE_BYTES) != 0 ||
        ftruncate(file->fd, (off_t)pages * DH_PAGE_BYTES) != 0)
        return errno;
    for (uint32_t i = file->pages; i < pages; i++)
        note_checksum(file, i, dh_zero_page);
    file->pages = pages;
    return 0;
}

/* Captured pages [from, to) of the extent; neighbours in one call. */
static int put_pages(patched_file *file, const dh_capture *capture, size_t from, size_t to)
{
    int rc = 0;
    while (rc == 0 && from < to) {
        const uint8_t *bytes = capture->bytes + from * (size_t)DH_PAGE_BYTES;
        uint32_t first = capture->pages[from] % DH_EXTENT_PAGES, count = 0;
        while (from < to && capture->pages[from] % DH_EXTENT_PAGES == first + count) {
            note_checksum(file, first + count, bytes + count * (size_t)DH_PAGE_BYTES);
            from++, count++;
        }
        rc = dhi_write_at(file->fd, bytes, count * (size_t)DH_PAGE_BYTES,
                          first * (uint64_t)DH_PAGE_BYTES);
    }
    return rc;
}

static int put_freed(patched_file *file, const dh_capture *capture, size_t from, size_t to)
{
    int rc = 0;
    for (; rc == 0 && from < to; from++) {
        uint32_t index = capture->freed[from] % DH_EXTENT_PAGES;
        if (index >= file->pages)
            break; /* beyond its end a base reads as zeros */
        note_checksum(file, index, dh_zero_page);
        rc = dhi_write_at(file->fd, dh_zero_page, DH_PAGE_BYTES, index * (uint64_t)DH_PAGE_BYTES);
    }
    return rc;
}

static int put_captured(patched_file *file, const dh_capture *capture, uint32_t extent_no)
{
    size_t from, to, freed_from, freed_to;
    int rc = 0;

    dhi_capture_pages_of(capture, extent_no, &from, &to);
    dhi_capture_freed_of(capture, extent_no, &freed_from, &freed_to);
    if (from < to && capture->pages[to - 1] % DH_EXTENT_PAGES >= file->pages)
        rc = lengthen(file, capture->pages[to - 1] % DH_EXTENT_PAGES + 1);
    if (rc == 0)
        rc = put_pages(file, capture, from, to);
    return rc != 0 ? rc : put_freed(file, capture, freed_from, freed_to);
}

int dh_extent_patch(dh_heap *heap, const dh_capture *capture, uint32_t extent_no, uint64_t version,
                    int fd, uint64_t *file_bytes_inout, uint32_t *checksum_inout)
{
    patched_file file = {.fd = fd};
    uint8_t *read;
    int rc = dhi_trailer_read(heap, extent_no, version, fd, *file_bytes_inout, *checksum_inout,
                              &read, &file.pages);
    if (rc != 0)
        return rc;
    file.trailer = malloc(dh_trailer_bytes(DH_EXTENT_PAGES));
    if (file.trailer == NULL) {
        free(read);
        return ENOMEM;
    }
    memcpy(file.trailer, read, dh_trailer_bytes(file.pages));
    free(read);
    rc = put_captured(&file, capture, extent_no);
    if (rc == 0) {
        dhi_trailer_head(file.trailer, version, extent_no, file.pages);
        *checksum_inout = dhi_trailer_seal(file.trailer, file.pages);
        *file_bytes_inout = file.pages * (uint64_t)DH_PAGE_BYTES + dh_trailer_bytes(file.pages);
        rc = dhi_write_at(fd, file.trailer, dh_trailer_bytes(file.pages),
                          file.pages * (uint64_t)DH_PAGE_BYTES);
    }
    free(file.trailer);
    return rc;
}

/* extent_trailer.h -- the end of a base file: what extent.c writes and all readers check.
 *
 *   magic u64, version u64, extent u32, pages u32, pages x u32 page checksum, u32 checksum of the
 *   trailer up to here
 */
#ifndef DH_EXTENT_TRAILER_H
#define DH_EXTENT_TRAILER_H

#include "crc32c.h"
#include "image.h"

#define DH_TRAILER_MAGIC 0x3154584559524844u /* "DHRYEXT1" */
#define DH_TRAILER_HEAD_BYTES 24u
#define DH_TRAILER_BYTES_MAX (DH_TRAILER_HEAD_BYTES + DH_EXTENT_PAGES * 4u + 4u)

static inline size_t dh_trailer_bytes(uint32_t pages)
{
    return DH_TRAILER_HEAD_BYTES + pages * (size_t)4 + 4;
}

/* How many pages a file of that size has; false: no extent has that size. */
static inline bool dh_trailer_pages(uint64_t file_bytes, uint32_t *pages_out)
{
    if (file_bytes < DH_TRAILER_HEAD_BYTES + 4)
        return false;
    uint64_t pages = (file_bytes - DH_TRAILER_HEAD_BYTES - 4) / (DH_PAGE_BYTES + 4);
    *pages_out = (uint32_t)pages;
    return pages <= DH_EXTENT_PAGES &&
           pages * DH_PAGE_BYTES + dh_trailer_bytes((uint32_t)pages) == file_bytes;
}

/* Whether these dh_trailer_bytes(pages) are the trailer that the index speaks of. */
static inline bool dh_trailer_is(const uint8_t *trailer, uint32_t pages, uint32_t extent_no,
                                 uint64_t version, uint32_t checksum)
{
    uint64_t magic, found_version;
    uint32_t found_extent, found_pages, found_checksum;
    size_t size = dh_trailer_bytes(pages);

    memcpy(&magic, trailer, 8);
    memcpy(&found_version, trailer + 8, 8);
    memcpy(&found_extent, trailer + 16, 4);
    memcpy(&found_pages, trailer + 20, 4);
    memcpy(&found_checksum, trailer + size - 4, 4);
    return magic == DH_TRAILER_MAGIC && found_version == version && found_extent == extent_no &&
           found_pages == pages && found_checksum == checksum &&
           checksum == dh_crc32c(0, trailer, size - 4);
}

#endif

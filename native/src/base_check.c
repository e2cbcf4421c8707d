/* base_check.c -- a base file without a heap: is it what its row says, and which pages are wrong?
 *
 * Layout: extent.c. Reads, never maps: a file that somebody truncates is an answer here, no signal.
 * Must trust nothing but the row that it was given.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "crc32c.h"
#include "extent_trailer.h"
#include "image.h"

#define READ_PAGES 64u

DH_PRINTF(3, 4) static int say(char *text_out, size_t text_size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text_out, text_size, format, arguments);
    va_end(arguments);
    return DH_E_CORRUPT;
}

/* 0, an errno, or -1 when the file ends before. */
static int read_at(int fd, uint8_t *to, size_t size, uint64_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, to + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : -1;
        done += (size_t)n;
    }
    return 0;
}

static int trailer_read(int fd, uint64_t file_bytes, uint8_t *trailer, size_t size, char *text_out,
                        size_t text_size)
{
    int rc = read_at(fd, trailer, size, file_bytes - size);
    return rc == -1 ? say(text_out, text_size, "shorter than its row says") : rc;
}

static int pages_check(int fd, uint32_t pages, const uint8_t *checksums, uint32_t *bad_out,
                       size_t max_count, size_t *bad_count_out)
{
    uint8_t *buffer = malloc(READ_PAGES * (size_t)DH_PAGE_BYTES);
    int rc = buffer == NULL ? ENOMEM : 0;

    for (uint32_t from = 0; rc == 0 && from < pages; from += READ_PAGES) {
        uint32_t count = pages - from < READ_PAGES ? pages - from : READ_PAGES;
        rc = read_at(fd, buffer, count * (size_t)DH_PAGE_BYTES, from * (uint64_t)DH_PAGE_BYTES);
        for (uint32_t i = 0; rc == 0 && i < count; i++) {
            uint32_t checksum;
            memcpy(&checksum, checksums + (from + i) * 4u, 4);
            if (checksum == dh_page_checksum(buffer + i * (size_t)DH_PAGE_BYTES))
                continue;
            if ((*bad_count_out)++ < max_count)
                bad_out[*bad_count_out - 1] = from + i;
        }
    }
    free(buffer);
    return rc == -1 ? EIO : rc;
}

int dh_base_check(int fd, uint64_t file_bytes, uint32_t extent_no, uint64_t version,
                  uint32_t checksum, uint32_t *bad_out, size_t max_count, size_t *bad_count_out,
                  char *text_out, size_t text_size)
{
    uint8_t trailer[DH_TRAILER_BYTES_MAX];
    uint32_t pages;

    *bad_count_out = 0;
    if (!dh_trailer_pages(file_bytes, &pages))
        return say(text_out, text_size, "%llu bytes is no size of an extent",
                   (unsigned long long)file_bytes);
    size_t size = dh_trailer_bytes(pages);
    int rc = trailer_read(fd, file_bytes, trailer, size, text_out, text_size);
    if (rc != 0)
        return rc;
    if (!dh_trailer_is(trailer, pages, extent_no, version, checksum))
        return say(text_out, text_size,
                   "its trailer is damaged, or of another extent, version or heap");
    return pages_check(fd, pages, trailer + DH_TRAILER_HEAD_BYTES, bad_out, max_count,
                       bad_count_out);
}

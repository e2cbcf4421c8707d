/* fuzz_base.c -- hostile bytes for base files: trailer and pages, and a heap that maps them.
 *
 * The input is the file. A trailer carries a checksum, so each input is tried as it is and once more
 * with magic, sizes and checksum made right, for an extent and version that it names itself.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../src/extent_trailer.h"
#include "../tests/check.h"
#include "fuzzer.h"

static uint32_t checksum_at_end(const uint8_t *bytes, size_t size)
{
    uint32_t checksum = 0;
    if (size >= 4)
        memcpy(&checksum, bytes + size - 4, 4);
    return checksum;
}

static void try_file(const uint8_t *bytes, size_t size, uint32_t extent_no, uint64_t version)
{
    static int fd = -1;
    uint32_t bad[8];
    size_t bad_count;
    char text[128] = "";
    dh_replay *replay;

    if (fd < 0)
        fd = memfd_create("base", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size);
    int rc = dh_base_check(fd, size, extent_no, version, checksum_at_end(bytes, size), bad, 8,
                           &bad_count, text, sizeof text);
    CHECK(rc == 0 || (rc == DH_E_CORRUPT && text[0] != '\0'));
    CHECK_EQ(dh_replay_new(&replay), 0);
    CHECK_EQ(dh_replay_base(replay, extent_no, version, fd, 3), 0);
    dh_replay_free(replay);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    uint32_t pages = 0, extent_no = 0;
    uint64_t version = 1, magic = DH_TRAILER_MAGIC;

    try_file(bytes, size, extent_no, version);
    if (!dh_trailer_pages(size, &pages))
        return 0;
    uint8_t *copy = malloc(size);
    CHECK(copy != NULL);
    memcpy(copy, bytes, size);
    uint8_t *trailer = copy + pages * (size_t)DH_PAGE_BYTES;
    memcpy(&extent_no, trailer + 16, 4);
    memcpy(&version, trailer + 8, 8);
    memcpy(trailer, &magic, 8);
    memcpy(trailer + 20, &pages, 4);
    uint32_t checksum = dh_crc32c(0, trailer, dh_trailer_bytes(pages) - 4);
    memcpy(copy + size - 4, &checksum, 4);
    try_file(copy, size, extent_no, version);
    free(copy);
    return 0;
}

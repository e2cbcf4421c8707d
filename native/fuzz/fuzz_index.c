/* fuzz_index.c -- hostile bytes for the walk over the engine's B-trees.
 *
 * The input is the data file. Whatever it holds, the guard ends, within the file, with an answer.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "../include/dirtyheap.h"
#include "../tests/check.h"
#include "fuzzer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static int fd = -1;
    char text[128];

    if (fd < 0)
        fd = memfd_create("index", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size);
    int rc = dh_index_check(fd, size, text, sizeof text);
    CHECK(rc == 0 || rc == DH_E_CORRUPT || rc == DH_E_FORMAT);
    CHECK((rc == 0) == (text[0] == '\0'));
    return 0;
}

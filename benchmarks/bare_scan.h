/* bare_scan.h -- the shortest loop around PAGEMAP_SCAN: what every layer above is measured against. */
#ifndef BARE_SCAN_H
#define BARE_SCAN_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../native/src/pagemap.h"

#define BARE_VEC_LEN 16384u

static void check(int rc, const char *what)
{
    if (rc != 0) {
        fprintf(stderr, "bare_scan: %s fails: %d (%s)\n", what, rc, rc > 0 ? strerror(rc) : "");
        exit(1);
    }
}

typedef struct {
    uint8_t *base;
    uint64_t pages_count;
    int uffd;
    int pagemap;
    dhk_page_region *vec;
} bare;

static void bare_open(bare *b, uint64_t pages_count)
{
    dhk_uffdio_api api = {
        .api = DHK_UFFD_API,
        .features = DHK_UFFD_FEATURE_WP_ASYNC | DHK_UFFD_FEATURE_WP_UNPOPULATED,
    };
    dhk_uffdio_register range = {.mode = DHK_UFFDIO_REGISTER_MODE_WP};

    b->pages_count = pages_count;
    b->base = mmap(NULL, pages_count << DH_PAGE_SHIFT, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(b->base == MAP_FAILED ? errno : 0, "mmap");
    check(madvise(b->base, pages_count << DH_PAGE_SHIFT, MADV_NOHUGEPAGE) ? errno : 0, "madvise");
    b->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | DHK_UFFD_USER_MODE_ONLY);
    check(b->uffd < 0 ? errno : 0, "userfaultfd");
    check(ioctl(b->uffd, DHK_UFFDIO_API, &api) ? errno : 0, "UFFDIO_API");
    range.start = (uint64_t)(uintptr_t)b->base;
    range.len = pages_count << DH_PAGE_SHIFT;
    check(ioctl(b->uffd, DHK_UFFDIO_REGISTER, &range) ? errno : 0, "UFFDIO_REGISTER");
    b->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    check(b->pagemap < 0 ? errno : 0, "open pagemap");
    b->vec = calloc(BARE_VEC_LEN, sizeof(*b->vec));
    check(b->vec == NULL ? ENOMEM : 0, "calloc");
}

static uint64_t bare_scan(const bare *b)
{
    uint64_t start = (uint64_t)(uintptr_t)b->base;
    uint64_t end = start + (b->pages_count << DH_PAGE_SHIFT);
    uint64_t found = 0;

    while (start < end) {
        dhk_pm_scan_arg arg = {
            .size = sizeof(arg),
            .flags = DHK_PM_SCAN_WP_MATCHING | DHK_PM_SCAN_CHECK_WPASYNC,
            .start = start,
            .end = end,
            .vec = (uint64_t)(uintptr_t)b->vec,
            .vec_len = BARE_VEC_LEN,
            .category_mask = DHK_PAGE_IS_WRITTEN,
            .return_mask = DHK_PAGE_IS_WRITTEN,
        };
        int regions_count = ioctl(b->pagemap, DHK_PAGEMAP_SCAN, &arg);

        check(regions_count < 0 ? errno : 0, "PAGEMAP_SCAN");
        for (int i = 0; i < regions_count; i++)
            found += (b->vec[i].end - b->vec[i].start) >> DH_PAGE_SHIFT;
        start = arg.walk_end;
    }
    return found;
}

/* The same pages in both arenas: a pseudo-random walk over distinct pages, or one run. */
static void dirty(uint8_t *base, uint64_t pages_count, uint64_t dirty_count, bool is_random,
                  uint8_t value)
{
    uint64_t step = is_random ? 2654435761u % pages_count | 1u : 1u; /* odd: coprime to 2^n */

    for (uint64_t i = 0; i < dirty_count; i++)
        base[(i * step % pages_count) << DH_PAGE_SHIFT] = value;
}

#endif

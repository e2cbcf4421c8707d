/* pagemap.c -- the loop around PAGEMAP_SCAN. Used by watch_uffd.c, under the watch's lock.
 *
 * What makes it subtle (measured; docs/design.md, "What the kernel does"):
 *  - Only walk_end says whether the range is done. The vector may hold regions beyond walk_end, and
 *    a scan that re-arms nothing returns those again. So a chunk's pages are gathered in a bitmap.
 *  - An error destroys information: pages before it are re-armed, and which ones is not said.
 *    Never scan again and trust the result: the whole chunk counts as written.
 *  - A scan without re-arming first, to notice such errors while they cost nothing, is not made: it
 *    would double the time for which the world stands still, and the chunk bounds the damage.
 *  - Category and return mask are exactly PAGE_IS_WRITTEN and the vector is never empty: kernels
 *    before 7.2 take a slower and wrong path for any other mask, and those before 6.18 crash on an
 *    empty vector.
 *  - CHECK_WPASYNC always: without it an untracked piece is passed over in silence. A hole in the
 *    mapping is passed over even so: nobody may unmap a part of the arena.
 */
#include "pagemap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define CHUNK_EDGE_BYTES ((uint64_t)2 << 20)

/* One call of dhi_pagemap_scan. */
typedef struct {
    dhi_pagemap *pagemap;
    uint64_t base;
    uint64_t limit; /* address of the end, exclusive */
    uint64_t flags;
    dh_watch_report report;
    void *context;
} scan;

int dhi_pagemap_open(dhi_pagemap *pagemap, uint64_t vec_len)
{
    dhi_pagemap opened = {.fd = -1, .vec_len = vec_len};
    int rc;

    DH_ASSERT(vec_len > 0);
    opened.vec = calloc(vec_len, sizeof(*opened.vec));
    if (opened.vec == NULL)
        return ENOMEM;
    rc = dh_bits_init(&opened.chunk, DHI_SCAN_CHUNK_PAGES);
    if (rc != 0)
        goto fail_vec;
    opened.fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (opened.fd < 0) {
        rc = errno;
        goto fail_chunk;
    }
    *pagemap = opened;
    return 0;

fail_chunk:
    dh_bits_finish(&opened.chunk);
fail_vec:
    free(opened.vec);
    return rc;
}

void dhi_pagemap_close(dhi_pagemap *pagemap)
{
    if (pagemap->fd >= 0)
        close(pagemap->fd);
    dh_bits_finish(&pagemap->chunk);
    free(pagemap->vec);
    *pagemap = (dhi_pagemap){.fd = -1};
}

/* Enter the regions of one call, cut to [start, limit), as pages of the chunk that begins there. */
static void chunk_add(dhi_pagemap *pagemap, uint64_t regions_count, uint64_t start, uint64_t limit)
{
    for (uint64_t i = 0; i < regions_count; i++) {
        const dhk_page_region *region = &pagemap->vec[i];
        uint64_t from = region->start > start ? region->start : start;
        uint64_t to = region->end < limit ? region->end : limit;

        if (from < to)
            dh_bits_set_run(&pagemap->chunk, (from - start) >> DH_PAGE_SHIFT,
                            (to - from) >> DH_PAGE_SHIFT);
    }
}

/* Walk from one address on: an errno, or 0 with what was found and where the walk stopped. */
static int chunk_step(const scan *s, uint64_t from, uint64_t limit, uint64_t *walk_end_out,
                      uint64_t *regions_count_out)
{
    int few = dhi_fault("watch.vec_len");
    uint64_t vec_len = few > 0 ? (uint64_t)few : s->pagemap->vec_len;
    dhk_pm_scan_arg arg = {
        .size = sizeof(arg),
        .flags = s->flags,
        .start = from,
        .end = limit,
        .vec = (uint64_t)(uintptr_t)s->pagemap->vec,
        .vec_len = vec_len < s->pagemap->vec_len ? vec_len : s->pagemap->vec_len,
        .category_mask = DHK_PAGE_IS_WRITTEN,
        .return_mask = DHK_PAGE_IS_WRITTEN,
    };
    int regions_count = ioctl(s->pagemap->fd, DHK_PAGEMAP_SCAN, &arg);
    int fault;

    if (regions_count < 0)
        return errno;
    /* The kernel has done its part: the pages are armed. */
    fault = (s->flags & DHK_PM_SCAN_WP_MATCHING) != 0 ? dhi_fault("watch.scan") : 0;
    if (fault != 0)
        return fault;
    if (arg.walk_end <= from || (uint64_t)regions_count > s->pagemap->vec_len)
        return EIO;
    *walk_end_out = arg.walk_end;
    *regions_count_out = (uint64_t)regions_count;
    return 0;
}

/* Gather a chunk's pages; after any error all of them. */
static int chunk_gather(const scan *s, uint64_t start, uint64_t limit)
{
    uint64_t from = start;

    while (from < limit) {
        uint64_t regions_count = 0;
        int rc = chunk_step(s, from, limit, &from, &regions_count);

        if (rc != 0) {
            dh_bits_set_run(&s->pagemap->chunk, 0, (limit - start) >> DH_PAGE_SHIFT);
            return rc;
        }
        chunk_add(s->pagemap, regions_count, start, limit);
    }
    return 0;
}

static void chunk_report(const scan *s, uint64_t start, uint64_t limit)
{
    const dh_bits *chunk = &s->pagemap->chunk;
    dh_pgno chunk_pgno = (dh_pgno)((start - s->base) >> DH_PAGE_SHIFT);
    uint64_t pages_count = (limit - start) >> DH_PAGE_SHIFT;
    uint64_t first = dh_bits_next(chunk, 0, pages_count);

    while (first < pages_count) {
        uint64_t end = dh_bits_next_clear(chunk, first, pages_count);

        s->report(s->context, chunk_pgno + (dh_pgno)first, end - first);
        first = dh_bits_next(chunk, end, pages_count);
    }
}

static int chunk_scan(const scan *s, uint64_t start, uint64_t limit)
{
    int rc;

    dh_bits_clear_all(&s->pagemap->chunk, DHI_SCAN_CHUNK_PAGES);
    rc = chunk_gather(s, start, limit);
    if (s->report != NULL)
        chunk_report(s, start, limit);
    return rc;
}

/* The last multiple of 2 MiB that the chunk may reach, or the end of the range. */
static uint64_t chunk_limit(uint64_t start, uint64_t limit)
{
    uint64_t edge = (start + DHI_SCAN_CHUNK_BYTES) & ~(CHUNK_EDGE_BYTES - 1);

    return edge < limit ? edge : limit;
}

int dhi_pagemap_scan(dhi_pagemap *pagemap, const uint8_t *base, dh_pgno first, uint64_t count,
                     dh_scan_mode mode, dh_watch_report report, void *context)
{
    scan s = {
        .pagemap = pagemap,
        .base = (uint64_t)(uintptr_t)base,
        .limit = (uint64_t)(uintptr_t)base + ((first + count) << DH_PAGE_SHIFT),
        .flags = DHK_PM_SCAN_CHECK_WPASYNC | (mode == DH_SCAN_TAKE ? DHK_PM_SCAN_WP_MATCHING : 0),
        .report = report,
        .context = context,
    };
    int rc_first = 0;

    uint64_t start = s.base + ((uint64_t)first << DH_PAGE_SHIFT);

    for (; start < s.limit; start = chunk_limit(start, s.limit)) {
        int rc = chunk_scan(&s, start, chunk_limit(start, s.limit));

        /* An interrupted walk lost its findings but not the tracking: the chunk is reported. */
        if (rc != 0 && rc != EINTR && rc_first == 0)
            rc_first = rc;
    }
    return rc_first == EPERM ? DH_E_WATCH : rc_first;
}

/* pagemap.c -- the loop around PAGEMAP_SCAN. Used by watch_uffd.c, under the watch's lock.
 *
 * What makes it subtle (measured; docs/design.md, "What the kernel does"):
 *  - Only walk_end says whether the range is done. It may lie before regions that were returned:
 *    after its bounce buffer was full once, the kernel walks on and leaves walk_end where it was.
 *    What lies before a returned region was walked, so the next call begins behind the last one: a
 *    page is told once, and pages ascend.
 *  - An error destroys information: pages before it are re-armed, and which ones is not said.
 *    Never scan again and trust the result: all of the chunk that was not told before the call that
 *    failed counts as written.
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
    uint64_t chunk_bytes;
    dh_watch_report report;
    void *context;
} scan;

int dhi_pagemap_open(dhi_pagemap *pagemap, uint64_t vec_len)
{
    dhi_pagemap opened = {.fd = -1, .vec_len = vec_len};

    DH_ASSERT(vec_len > 0);
    opened.vec = calloc(vec_len, sizeof(*opened.vec));
    if (opened.vec == NULL)
        return ENOMEM;
    opened.fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (opened.fd < 0) {
        int rc = errno;

        free(opened.vec);
        return rc;
    }
    *pagemap = opened;
    return 0;
}

void dhi_pagemap_close(dhi_pagemap *pagemap)
{
    if (pagemap->fd >= 0)
        close(pagemap->fd);
    free(pagemap->vec);
    *pagemap = (dhi_pagemap){.fd = -1};
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

/* Tell the regions of one call, cut to [from, limit). Returns up to where all pages are told. */
static uint64_t step_report(const scan *s, uint64_t regions_count, uint64_t from, uint64_t limit)
{
    for (uint64_t i = 0; i < regions_count; i++) {
        const dhk_page_region *region = &s->pagemap->vec[i];
        uint64_t start = region->start > from ? region->start : from;
        uint64_t end = region->end < limit ? region->end : limit;

        if (start >= end)
            continue;
        if (s->report != NULL)
            s->report(s->context, (dh_pgno)((start - s->base) >> DH_PAGE_SHIFT),
                      (end - start) >> DH_PAGE_SHIFT);
        from = end;
    }
    return from;
}

/* Tell the pages of [start, limit). After an error all from there on that were not told. */
static int chunk_scan(const scan *s, uint64_t start, uint64_t limit)
{
    uint64_t from = start;

    while (from < limit) {
        uint64_t regions_count = 0;
        uint64_t walk_end = from;
        int rc = chunk_step(s, from, limit, &walk_end, &regions_count);
        uint64_t told_end = rc == 0 ? step_report(s, regions_count, from, limit) : from;

        if (rc != 0) {
            if (s->report != NULL)
                s->report(s->context, (dh_pgno)((from - s->base) >> DH_PAGE_SHIFT),
                          (limit - from) >> DH_PAGE_SHIFT);
            return rc;
        }
        from = walk_end > told_end ? walk_end : told_end;
    }
    return 0;
}

/* The last multiple of 2 MiB that the chunk may reach, or the end of the range. */
static uint64_t chunk_limit(const scan *s, uint64_t start)
{
    uint64_t edge = (start + s->chunk_bytes) & ~(CHUNK_EDGE_BYTES - 1);

    return edge < s->limit ? edge : s->limit;
}

static uint64_t chunk_bytes_for(uint64_t pages_count)
{
    uint64_t bytes = (pages_count << DH_PAGE_SHIFT) / 8;

    if (bytes < DHI_SCAN_CHUNK_BYTES_MIN)
        return DHI_SCAN_CHUNK_BYTES_MIN;
    return bytes < DHI_SCAN_CHUNK_BYTES_MAX ? bytes : DHI_SCAN_CHUNK_BYTES_MAX;
}

int dhi_pagemap_scan(dhi_pagemap *pagemap, const uint8_t *base, dh_pgno first, uint64_t count,
                     dh_scan_mode mode, dh_watch_report report, void *context)
{
    scan s = {
        .pagemap = pagemap,
        .base = (uint64_t)(uintptr_t)base,
        .limit = (uint64_t)(uintptr_t)base + ((first + count) << DH_PAGE_SHIFT),
        .flags = DHK_PM_SCAN_CHECK_WPASYNC | (mode == DH_SCAN_TAKE ? DHK_PM_SCAN_WP_MATCHING : 0),
        .chunk_bytes = chunk_bytes_for(count),
        .report = report,
        .context = context,
    };
    int rc_first = 0;

    uint64_t start = s.base + ((uint64_t)first << DH_PAGE_SHIFT);

    for (; start < s.limit; start = chunk_limit(&s, start)) {
        int rc = chunk_scan(&s, start, chunk_limit(&s, start));

        /* An interrupted walk lost its findings but not the tracking: the chunk is reported. */
        if (rc != 0 && rc != EINTR && rc_first == 0)
            rc_first = rc;
    }
    return rc_first == EPERM ? DH_E_WATCH : rc_first;
}

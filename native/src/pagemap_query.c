/* pagemap_query.c -- the PAGEMAP_SCAN ioctl as it is, for whoever wants to know more than "written".
 *
 * The declarations are in dirtyheap.h. Heaps do not use it: their scans are pagemap.c, which never
 * asks for anything but written pages, for reasons said there. Documentation/admin-guide/mm/
 * pagemap.rst.
 *
 * A call of the kernel ends where its vector is full, or earlier, and walk_end says where. It may lie
 * before regions that were returned (see pagemap.c), and a scan from there on that protects nothing
 * would return these again. What lies before a returned region was walked: so the walk ended behind
 * the last one, here and for who asked.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "pagemap.h"

#define VEC_LEN 1024u /* regions per call: more do not make it faster */
#define REGIONS_ROOM_MIN 64u

_Static_assert(sizeof(dh_page_region) == sizeof(dhk_page_region), "handed to the kernel as it is");

static int regions_reserve(dh_page_regions *found, uint64_t more_count)
{
    size_t room = found->regions_room > 0 ? found->regions_room : REGIONS_ROOM_MIN;
    dh_page_region *regions;

    if (more_count > SIZE_MAX / sizeof(*regions) / 4)
        return ENOMEM;
    while (room < found->regions_count + more_count)
        room *= 2;
    if (room == found->regions_room)
        return 0;
    regions = realloc(found->regions, room * sizeof(*regions));
    if (regions == NULL)
        return ENOMEM;
    found->regions = regions;
    found->regions_room = room;
    return 0;
}

/* Put one more region behind those that are told, joined to its like. */
static void regions_add(dh_page_regions *found, dh_page_region region)
{
    dh_page_region *last =
        found->regions_count > 0 ? &found->regions[found->regions_count - 1] : NULL;

    found->pages_count += (region.end - region.start) >> DH_PAGE_SHIFT;
    if (last != NULL && last->end == region.start && last->categories == region.categories)
        last->end = region.end;
    else
        found->regions[found->regions_count++] = region;
}

/* One call of the kernel, which writes behind what is told already. */
static int query_step(int fd, const dh_pagemap_query *query, uint64_t vec_len,
                      dh_page_regions *found)
{
    dh_page_region *vec;
    dhk_pm_scan_arg arg = {
        .size = sizeof(arg),
        .flags = query->flags,
        .start = found->walk_end,
        .end = query->end,
        .vec_len = vec_len,
        .max_pages = query->max_pages > 0 ? query->max_pages - found->pages_count : 0,
        .category_inverted = query->category_inverted,
        .category_mask = query->category_mask,
        .category_anyof_mask = query->category_anyof_mask,
        .return_mask = query->return_mask,
    };
    int rc = regions_reserve(found, vec_len);
    int regions_count;

    if (rc != 0)
        return rc;
    vec = found->regions + found->regions_count;
    arg.vec = (uint64_t)(uintptr_t)vec;
    regions_count = ioctl(fd, DHK_PAGEMAP_SCAN, &arg);
    if (regions_count < 0)
        return errno;
    rc = dhi_fault("pagemap.query");
    if (rc != 0)
        return rc;
    if (arg.walk_end < found->walk_end || (uint64_t)regions_count > vec_len)
        return EIO;
    if (regions_count > 0 && vec[regions_count - 1].end > arg.walk_end)
        arg.walk_end = vec[regions_count - 1].end;
    found->is_stuck = arg.walk_end == found->walk_end;
    found->walk_end = arg.walk_end;
    for (int i = 0; i < regions_count; i++)
        regions_add(found, vec[i]);
    return 0;
}

static bool is_complete(const dh_pagemap_query *query, const dh_page_regions *found)
{
    return found->walk_end >= query->end || found->is_stuck ||
           (query->max_pages > 0 && found->pages_count >= query->max_pages);
}

int dh_pagemap_query_run(int fd, const dh_pagemap_query *query, dh_page_regions **found_out)
{
    dh_page_regions *found = calloc(1, sizeof(*found));
    int rc;

    if (found == NULL)
        return ENOMEM;
    found->walk_end = query->start;
    do
        rc = query_step(fd, query, query->vec_len > 0 ? query->vec_len : VEC_LEN, found);
    while (rc == 0 && query->vec_len == 0 && !is_complete(query, found));
    if (rc != 0) {
        dh_page_regions_free(found);
        return rc;
    }
    *found_out = found;
    return 0;
}

void dh_page_regions_free(dh_page_regions *found)
{
    if (found == NULL)
        return;
    free(found->regions);
    free(found);
}

/* --- which categories there are ------------------------------------------------------------------ */

/* The categories among mask that the page has, or 0 when the kernel does not know one of them. */
static int categories_of(int fd, const uint8_t *page, uint64_t mask, uint64_t *categories_out)
{
    dh_page_region region = {0};
    dhk_pm_scan_arg arg = {
        .size = sizeof(arg),
        .start = (uint64_t)(uintptr_t)page,
        .end = (uint64_t)(uintptr_t)page + DH_PAGE_BYTES,
        .vec = (uint64_t)(uintptr_t)&region,
        .vec_len = 1,
        .return_mask = mask,
    };

    if (ioctl(fd, DHK_PAGEMAP_SCAN, &arg) < 0)
        return errno;
    *categories_out = region.categories;
    return 0;
}

/* A page that was just written is soft-dirty, where the kernel keeps these notes at all. */
int dh_pagemap_categories(int fd, uint64_t *known_out)
{
    uint64_t known = 0;
    uint64_t has = 0;
    volatile uint8_t *page =
        mmap(NULL, DH_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (page == MAP_FAILED)
        return errno;
    *page = 1;
    rc = categories_of(fd, (const uint8_t *)page, DHK_PAGE_IS_WRITTEN, &has);
    for (unsigned bit = 0; rc == 0 && bit < 64; bit++) {
        uint64_t category = (uint64_t)1 << bit;

        if (categories_of(fd, (const uint8_t *)page, category, &has) != 0)
            continue;
        if (category != DHK_PAGE_IS_SOFT_DIRTY || has != 0)
            known |= category;
    }
    (void)munmap((void *)(uintptr_t)page, DH_PAGE_BYTES);
    if (rc == 0)
        *known_out = known;
    return rc;
}

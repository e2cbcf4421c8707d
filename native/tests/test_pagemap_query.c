/* test_pagemap_query.c -- PAGEMAP_SCAN as it is: against mincore-like knowledge of our own pages. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "pagemap.h"

#define PAGES_COUNT 6000u
#define PRESENT ((uint64_t)1 << 3)
#define HUGE ((uint64_t)1 << 6)

static int fd;
static uint8_t *memory;
static bool is_touched[PAGES_COUNT];

static dh_pagemap_query everything(void)
{
    uint64_t start = (uint64_t)(uintptr_t)memory;

    return (dh_pagemap_query){.start = start,
                              .end = start + (uint64_t)PAGES_COUNT * DH_PAGE_BYTES,
                              .category_mask = PRESENT,
                              .return_mask = PRESENT};
}

static void begin(void)
{
    memory = mmap(NULL, (size_t)PAGES_COUNT * DH_PAGE_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    (void)madvise(memory, (size_t)PAGES_COUNT * DH_PAGE_BYTES, MADV_NOHUGEPAGE);
    memset(is_touched, 0, sizeof(is_touched));
}

static void end(void) { CHECK_EQ(munmap(memory, (size_t)PAGES_COUNT * DH_PAGE_BYTES), 0); }

static void touch(uint64_t page)
{
    memory[page * DH_PAGE_BYTES] = 1;
    is_touched[page] = true;
}

static uint64_t page_of(uint64_t address)
{
    return (address - (uint64_t)(uintptr_t)memory) / DH_PAGE_BYTES;
}

/* The regions are exactly the touched pages of [first, limit), ascending, each once. */
static void check_found(const dh_page_regions *found, uint64_t first, uint64_t limit)
{
    uint64_t at = first;

    for (size_t i = 0; i < found->regions_count; i++) {
        const dh_page_region *region = &found->regions[i];

        CHECK(page_of(region->start) >= at && region->start < region->end);
        CHECK_EQ(region->categories, PRESENT);
        for (; at < page_of(region->start); at++)
            CHECK(!is_touched[at]);
        for (; at < page_of(region->end); at++)
            CHECK(is_touched[at]);
    }
    for (; at < limit; at++)
        CHECK(!is_touched[at]);
}

/* Alternating pages: many calls, and regions beyond the walk_end of the kernel. */
static void every_page_is_told_once(void)
{
    begin();
    for (int round = 0; round < 4; round++) {
        dh_pagemap_query query = everything();
        dh_page_regions *found;

        for (uint64_t page = 0; page < PAGES_COUNT; page++)
            if (round == 3 ? true : page % 2 == (unsigned)round % 2 && check_random_below(5) > 0)
                touch(page);
        CHECK_EQ(dh_pagemap_query_run(fd, &query, &found), 0);
        check_found(found, 0, PAGES_COUNT);
        CHECK_EQ(found->walk_end, query.end);
        if (round == 3)
            CHECK_EQ(found->regions_count, 1);
        dh_page_regions_free(found);
    }
    end();
}

static void max_pages_goes_on_at_walk_end(void)
{
    begin();
    for (uint64_t page = 0; page < PAGES_COUNT; page += 1 + check_random_below(4))
        touch(page);
    for (uint64_t max_pages = 1; max_pages < 5000; max_pages = max_pages * 3 + 1) {
        dh_pagemap_query query = everything();
        uint64_t total = 0, expected = 0;

        query.max_pages = max_pages;
        while (query.start < query.end) {
            dh_page_regions *found;

            CHECK_EQ(dh_pagemap_query_run(fd, &query, &found), 0);
            CHECK(found->pages_count <= max_pages);
            check_found(found, page_of(query.start), page_of(found->walk_end));
            CHECK(found->walk_end > query.start);
            total += found->pages_count;
            query.start = found->walk_end;
            dh_page_regions_free(found);
        }
        for (uint64_t page = 0; page < PAGES_COUNT; page++)
            expected += is_touched[page];
        CHECK_EQ(total, expected);
    }
    end();
}

static void one_call_gives_so_many_regions(void)
{
    begin();
    for (uint64_t page = 0; page < 100; page += 2)
        touch(page);
    dh_pagemap_query query = everything();
    dh_page_regions *found;

    query.vec_len = 7;
    CHECK_EQ(dh_pagemap_query_run(fd, &query, &found), 0);
    CHECK_EQ(found->regions_count, 7);
    CHECK(found->walk_end < query.end);
    dh_page_regions_free(found);
    end();
}

static void failures_give_nothing_back(void)
{
    dh_page_regions *found = NULL;
    dh_pagemap_query query;

    begin();
    query = everything();
    query.flags = DHK_PM_SCAN_CHECK_WPASYNC;
    CHECK_EQ(dh_pagemap_query_run(fd, &query, &found), EPERM);
    query.flags = 1u << 30;
    CHECK_EQ(dh_pagemap_query_run(fd, &query, &found), EINVAL);
    query = everything();
    CHECK_EQ(dh_pagemap_query_run(-1, &query, &found), EBADF);
    query.vec_len = UINT64_MAX / 8;
    CHECK_EQ(dh_pagemap_query_run(fd, &query, &found), ENOMEM);
    query = everything();
    CHECK_EQ(dh_fault_set("pagemap.query", 0, EFAULT), 0);
    CHECK_EQ(dh_pagemap_query_run(fd, &query, &found), EFAULT);
    dh_fault_set("", 0, 0);
    CHECK(found == NULL);
    end();
}

static void categories_are_tried(void)
{
    uint64_t known = 0;

    CHECK_EQ(dh_pagemap_categories(fd, &known), 0);
    CHECK((known & DHK_PAGE_IS_WRITTEN) != 0 && (known & PRESENT) != 0 && (known & HUGE) != 0);
    CHECK((known >> 62) == 0); /* the kernel does not take everything */
    CHECK(dh_pagemap_categories(-1, &known) != 0);
}

int main(int argc, char **argv)
{
    char why[512];

    check_begin(argc, argv);
    if (dh_probe(DH_TRACKER_AUTO, why, sizeof(why)) != 0)
        SKIP("%s", why);
    fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    every_page_is_told_once();
    max_pages_goes_on_at_walk_end();
    one_call_gives_so_many_regions();
    failures_give_nothing_back();
    categories_are_tried();
    close(fd);
    return 0;
}

/* scan_compare.c -- the watch of the core against the bare PAGEMAP_SCAN ioctl, taking turns.
 *
 * Built by bench_scan.py together with native/src. Two arenas of the same size with the same pages
 * written: one scanned and taken as a commit does, one by the shortest C loop around the ioctl.
 * Prints one line per pattern: dirty pages, ours ns, bare ns (medians), and both counts.
 *
 *   scan_compare PAGES DIRTY random|run ROUNDS
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../native/src/arena.h"
#include "../native/src/pagemap.h"

#define BARE_VEC_LEN 16384u
#define ROUNDS_MAX 1000u

static void check(int rc, const char *what)
{
    if (rc != 0) {
        fprintf(stderr, "scan_compare: %s fails: %d (%s)\n", what, rc, rc > 0 ? strerror(rc) : "");
        exit(1);
    }
}

/* --- the bare loop ---------------------------------------------------------------------------- */

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

/* --- the core's watch ------------------------------------------------------------------------- */

typedef struct {
    dh_arena arena;
    dh_watch *watch;
    int cursor;
    dh_bits flight;
} ours;

static void ours_open(ours *o, uint64_t pages_count)
{
    char why[512] = "";
    dh_range range;

    check(dh_arena_init(&o->arena, pages_count << DH_PAGE_SHIFT), "dh_arena_init");
    range = dh_arena_range(&o->arena);
    if (dh_watch_open(&range, DH_TRACKER_AUTO, NULL, &o->watch, why, sizeof(why)) != 0 ||
        dh_watch_tracker(o->watch) == DH_TRACKER_SHADOW) {
        fprintf(stderr, "scan_compare: no kernel tracker here: %s\n", why);
        exit(2);
    }
    o->cursor = dh_watch_cursor_open(o->watch);
    check(o->cursor < 0 ? o->cursor : 0, "dh_watch_cursor_open");
    check(dh_bits_init(&o->flight, pages_count), "dh_bits_init");
}

/* As a commit does it: scan into every cursor, then take this one's pages. */
static void ours_scan(ours *o, uint64_t pages_count)
{
    check(dh_watch_scan(o->watch, pages_count, NULL), "dh_watch_scan");
    dh_watch_take(o->watch, o->cursor, &o->flight, pages_count);
}

/* --- both ------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

/* The same pages in both arenas: a pseudo-random walk over distinct pages, or one run. */
static void dirty(uint8_t *base, uint64_t pages_count, uint64_t dirty_count, bool is_random,
                  uint8_t value)
{
    uint64_t step = is_random ? 2654435761u % pages_count | 1u : 1u; /* odd: coprime to 2^n */

    for (uint64_t i = 0; i < dirty_count; i++)
        base[(i * step % pages_count) << DH_PAGE_SHIFT] = value;
}

int main(int argc, char **argv)
{
    static uint64_t ours_ns[ROUNDS_MAX], bare_ns[ROUNDS_MAX];
    uint64_t pages_count, dirty_count, found_ours = 0, found_bare = 0;
    unsigned rounds;
    bool is_random;
    ours o;
    bare b;

    if (argc != 5)
        check(EINVAL, "usage: scan_compare PAGES DIRTY random|run ROUNDS;");
    pages_count = strtoull(argv[1], NULL, 10);
    dirty_count = strtoull(argv[2], NULL, 10);
    is_random = strcmp(argv[3], "random") == 0;
    rounds = (unsigned)strtoul(argv[4], NULL, 10);
    if (rounds == 0 || rounds > ROUNDS_MAX || (pages_count & (pages_count - 1)) != 0)
        check(EINVAL, "PAGES must be a power of two, ROUNDS 1 to 1000;");

    ours_open(&o, pages_count);
    bare_open(&b, pages_count);
    dirty(o.arena.base, pages_count, pages_count, false, 1);
    dirty(b.base, pages_count, pages_count, false, 1);
    ours_scan(&o, pages_count);
    bare_scan(&b);
    dh_bits_clear_all(&o.flight, pages_count);
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t start;

        dirty(o.arena.base, pages_count, dirty_count, is_random, (uint8_t)round);
        start = dhi_clock_ns();
        ours_scan(&o, pages_count);
        ours_ns[round] = dhi_clock_ns() - start;
        found_ours = dh_bits_count(&o.flight, pages_count);
        dh_bits_clear_all(&o.flight, pages_count);

        dirty(b.base, pages_count, dirty_count, is_random, (uint8_t)round);
        start = dhi_clock_ns();
        found_bare = bare_scan(&b);
        bare_ns[round] = dhi_clock_ns() - start;
    }
    printf("%llu %llu %llu %llu\n", (unsigned long long)median(ours_ns, rounds),
           (unsigned long long)median(bare_ns, rounds), (unsigned long long)found_ours,
           (unsigned long long)found_bare);
    return 0;
}

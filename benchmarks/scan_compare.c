/* scan_compare.c -- the watch of the core against the bare PAGEMAP_SCAN ioctl, taking turns.
 *
 * Built by bench_scan.py together with native/src. Two arenas of the same size with the same pages
 * written: one scanned and taken as a commit does, one by the shortest C loop around the ioctl.
 * Prints one line per pattern: dirty pages, ours ns, bare ns (medians), and both counts.
 *
 *   scan_compare PAGES DIRTY random|run ROUNDS
 */
#include <stdio.h>
#include <stdlib.h>

#include "../native/src/arena.h"
#include "bare_scan.h"

#define ROUNDS_MAX 1000u

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

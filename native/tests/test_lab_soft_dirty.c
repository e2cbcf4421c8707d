/* The technique by the soft-dirty bit, over a kernel played by this test: few real ones have the
 * bit. pread of pagemap and pwrite of clear_refs are wrapped; a page is soft-dirty when its bytes
 * are not those of the last clearing. Where the kernel has the bit, test_lab.c runs over it. */
#include <sys/mman.h>
#include <unistd.h>

#include "../lab/lab.h"
#include "../src/arena.h"
#include "check.h"

#define KNOWN_MAX 65536u
#define PAGES 5000u

typedef struct {
    uint64_t pgno; /* by address */
    uint64_t sum;  /* of the bytes at the last clearing */
} known_page;

static known_page known[KNOWN_MAX];
static bool is_absent; /* the bit never appears        */
static bool is_stuck;  /* the bit never goes           */
static int read_rc;    /* errno of the next pread      */
static int clear_rc;   /* errno of every pwrite        */
static int clears_count;

/* --- the kernel ------------------------------------------------------------------------------- */

static uint64_t page_sum(uint64_t pgno)
{
    const uint8_t *bytes = (const uint8_t *)(uintptr_t)(pgno << DH_PAGE_SHIFT);
    uint64_t sum = 0;

    for (size_t i = 0; i < DH_PAGE_BYTES; i++)
        sum = sum * 31u + bytes[i];
    return sum;
}

/* A page nobody asked for before is clean from now on. Pages that share a place do so by chance:
 * the ranges here are small and lie together. */
static known_page *page_known(uint64_t pgno)
{
    known_page *page = &known[pgno % KNOWN_MAX];

    if (page->pgno != pgno)
        *page = (known_page){.pgno = pgno, .sum = page_sum(pgno)};
    return page;
}

ssize_t __wrap_pread(int fd, void *into, size_t size, off_t at);
ssize_t __wrap_pread(int fd, void *into, size_t size, off_t at)
{
    uint64_t *entries = into;

    CHECK(fd >= 0);
    if (read_rc != 0) {
        errno = read_rc;
        read_rc = 0;
        return -1;
    }
    for (size_t i = 0; i < size / 8; i++) {
        uint64_t pgno = (uint64_t)at / 8 + i;
        bool is_dirty = page_known(pgno)->sum != page_sum(pgno);

        entries[i] = (is_stuck || (is_dirty && !is_absent)) ? (uint64_t)1 << 55 : 0;
        entries[i] |= (uint64_t)1 << 63 | 0x1234; /* present, and a frame's number */
    }
    return (ssize_t)size;
}

static void process_clear(void)
{
    for (size_t i = 0; i < KNOWN_MAX; i++) {
        void *page = (void *)(uintptr_t)(known[i].pgno << DH_PAGE_SHIFT);
        unsigned char is_there;

        if (page != NULL && mincore(page, DH_PAGE_BYTES, &is_there) == 0)
            known[i].sum = page_sum(known[i].pgno);
        else
            known[i].pgno = 0; /* it was unmapped */
    }
    clears_count++;
}

ssize_t __wrap_pwrite(int fd, const void *from, size_t size, off_t at);
ssize_t __wrap_pwrite(int fd, const void *from, size_t size, off_t at)
{
    CHECK(fd >= 0 && size == 1 && at == 0 && *(const char *)from == '4');
    if (clear_rc != 0) {
        errno = clear_rc;
        return -1;
    }
    process_clear();
    return 1;
}

/* --- helpers ---------------------------------------------------------------------------------- */

typedef struct {
    dh_range range;
    void *state;
    dh_bits found;
} watched;

static const dh_tracker *const tracker = &dhl_tracker_soft_dirty;

static void note(void *context, dh_pgno first, uint64_t count)
{
    dh_bits_set_run(context, first, count);
}

static void begin(watched *w, uint64_t pages_count)
{
    char why[300] = "";
    void *base;

    CHECK_EQ(dh_reserve(pages_count << DH_PAGE_SHIFT, &base), 0);
    *w = (watched){.range = {.base = base, .pages_count = pages_count}};
    CHECK_EQ(dh_bits_init(&w->found, pages_count), 0);
    CHECK_EQ(tracker->open(&w->range, NULL, &w->state, why, sizeof(why)), 0);
    CHECK_EQ(tracker->arm(w->state, pages_count), 0);
}

static void end(watched *w)
{
    tracker->close(w->state);
    dh_bits_finish(&w->found);
    dh_unreserve(w->range.base, w->range.pages_count << DH_PAGE_SHIFT);
}

static int scan(watched *w, uint64_t first, uint64_t limit, dh_scan_mode mode, uint64_t *pages_out)
{
    int rc;

    dh_bits_clear_all(&w->found, w->range.pages_count);
    rc = tracker->scan(w->state, (dh_pgno)first, limit - first, mode, note, &w->found);
    *pages_out = dh_bits_count(&w->found, w->range.pages_count);
    return rc;
}

static uint64_t take(watched *w)
{
    uint64_t count;

    CHECK_EQ(scan(w, 0, w->range.pages_count, DH_SCAN_TAKE, &count), 0);
    return count;
}

static void write_page(const watched *w, uint64_t pgno) { (*dh_range_page(&w->range, pgno))++; }

/* --- cases ------------------------------------------------------------------------------------ */

static void a_kernel_without_the_bit_is_refused(bool *fault, const char *reason)
{
    char why[300] = "";
    dh_range range;
    void *base, *state;

    CHECK_EQ(dh_reserve(10 * DH_PAGE_BYTES, &base), 0);
    range = (dh_range){.base = base, .pages_count = 10};
    *fault = true;
    CHECK_EQ(tracker->open(&range, NULL, &state, why, sizeof(why)), DH_E_TRACKER);
    *fault = false;
    CHECK(strstr(why, reason) != NULL);
    dh_unreserve(base, 10 * DH_PAGE_BYTES);
}

static void exactly_the_written_pages_are_reported(void)
{
    watched w;
    uint64_t count;

    begin(&w, PAGES);
    write_page(&w, 0);
    write_page(&w, 4095);
    write_page(&w, 4096);
    write_page(&w, PAGES - 1);
    for (int round = 0; round < 2; round++) {
        CHECK_EQ(scan(&w, 0, PAGES, DH_SCAN_PEEK, &count), 0);
        CHECK_EQ(count, 4);
    }
    CHECK_EQ(take(&w), 4);
    CHECK(dh_bits_test(&w.found, 0) && dh_bits_test(&w.found, 4095) &&
          dh_bits_test(&w.found, 4096) && dh_bits_test(&w.found, PAGES - 1));
    CHECK_EQ(take(&w), 0);
    end(&w);
}

/* Clearing is for the whole process: what else was written must be kept, here and elsewhere. */
static void what_a_clearing_takes_from_others_is_kept(void)
{
    watched a, b;
    uint64_t count;

    begin(&a, 200);
    begin(&b, 200);
    write_page(&a, 5);
    write_page(&a, 150);
    write_page(&b, 7);
    CHECK_EQ(scan(&a, 0, 100, DH_SCAN_TAKE, &count), 0);
    CHECK_EQ(count, 1);
    CHECK_EQ(take(&b), 1);
    CHECK(dh_bits_test(&b.found, 7));
    CHECK_EQ(take(&a), 1);
    CHECK(dh_bits_test(&a.found, 150));
    write_page(&b, 8);
    write_page(&a, 9);
    end(&a);
    write_page(&b, 9);
    end(&b);
}

/* Opening proves the bit, which clears it for all. */
static void opening_another_watch_loses_nothing(void)
{
    watched a, b;

    begin(&a, 100);
    write_page(&a, 5);
    begin(&b, 10);
    CHECK_EQ(take(&a), 1);
    end(&b);
    end(&a);
}

/* What the technique cannot do: another user of the bit clears it, and nobody knows. */
static void another_user_of_the_bit_robs_us(void)
{
    watched w;

    begin(&w, 100);
    write_page(&w, 5);
    process_clear();
    CHECK_EQ(take(&w), 0);
    end(&w);
}

static void errors_forget_nothing(void)
{
    watched w;
    uint64_t count;

    begin(&w, PAGES);
    write_page(&w, 4500);
    read_rc = EIO;
    CHECK_EQ(scan(&w, 0, PAGES, DH_SCAN_TAKE, &count), EIO);
    CHECK_EQ(count, 4096 + 1); /* the part that could not be read, and what was written */
    CHECK(dh_bits_test(&w.found, 4500));
    CHECK_EQ(take(&w), 4096 + 1);
    CHECK_EQ(take(&w), 0);

    write_page(&w, 3);
    clear_rc = EACCES;
    CHECK_EQ(scan(&w, 0, PAGES, DH_SCAN_TAKE, &count), EACCES);
    CHECK_EQ(count, 1);
    clear_rc = 0;
    CHECK_EQ(take(&w), 1);
    CHECK_EQ(take(&w), 0);
    end(&w);
}

static void a_look_clears_nothing(void)
{
    watched w;
    uint64_t count;
    int before;

    begin(&w, 100);
    before = clears_count;
    CHECK_EQ(scan(&w, 0, 100, DH_SCAN_PEEK, &count), 0);
    CHECK_EQ(clears_count, before);
    end(&w);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    a_kernel_without_the_bit_is_refused(&is_absent, "CONFIG_MEM_SOFT_DIRTY");
    a_kernel_without_the_bit_is_refused(&is_stuck, "bit 55 of pagemap does not follow stores");
    exactly_the_written_pages_are_reported();
    what_a_clearing_takes_from_others_is_kept();
    opening_another_watch_loses_nothing();
    another_user_of_the_bit_robs_us();
    errors_forget_nothing();
    a_look_clears_nothing();
    return 0;
}

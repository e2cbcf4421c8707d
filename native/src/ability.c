/* ability.c -- what this kernel can do, one question at a time: asked by doing it, never by version.
 *
 * Each question makes a small mapping and descriptors of its own and leaves nothing behind. What a
 * question found is a sentence. "Not tested" is an answer: a question whose means are missing here
 * (no userfaultfd, no huge page to be had, no descriptor left) says which. What could only be tested
 * at the risk of the kernel is not tested at all. Must change nothing that anybody else in the process can see: so
 * soft-dirty bits are cleared in a child that shares no memory with it.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "forkguard.h"
#include "pagemap.h"

#define YES 1
#define NO 0
#define UNTESTED (-1)

#define HUGE_BYTES ((size_t)2 << 20)
#define HUGE_PAGES (HUGE_BYTES / DH_PAGE_BYTES)
#define REGIONS_MAX 16u
#define SOFT_DIRTY_BIT ((uint64_t)1 << 55)
#define ADVICE_GUARD_INSTALL 102 /* MADV_GUARD_INSTALL, Linux 6.13 */

enum { /* PAGE_IS_*, Documentation/admin-guide/mm/pagemap.rst */
       IS_WPALLOWED = 1 << 0,
       IS_WRITTEN = 1 << 1,
       IS_PRESENT = 1 << 3,
       IS_HUGE = 1 << 6,
       IS_GUARD = 1 << 8
};

/* What a question works with; absent parts are NULL or -1. */
typedef struct {
    uint8_t *map; /* of map_bytes; base is its first page at a multiple of 2 MiB */
    size_t map_bytes;
    uint8_t *base;
    size_t pages_count;
    int uffd, pagemap;
    char *text;
    size_t text_size;
} bench;

typedef struct {
    uint64_t pages_count;
    uint64_t first; /* of the first region, as a page of the bench */
} found_pages;

static int answer(const bench *b, int verdict, const char *format, ...) DH_PRINTF(3, 4);
static int answer(const bench *b, int verdict, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(b->text, b->text_size, format, arguments);
    va_end(arguments);
    return verdict;
}

/* What an errno says. Memory or descriptors that have run out say nothing of the kernel. */
static int answer_by(const bench *b, int rc, int verdict, const char *what)
{
    if (rc == EMFILE || rc == ENFILE)
        return answer(b, UNTESTED, "%s, see ulimit -n", strerror(rc));
    answer(b, verdict, "%s: %s", what, strerror(rc));
    return dhi_is_shortage(rc) ? UNTESTED : verdict;
}

/* --- the means -------------------------------------------------------------------------------- */

static int map_pages(bench *b, size_t pages_count, int advice)
{
    b->pages_count = pages_count;
    b->map_bytes = pages_count * DH_PAGE_BYTES + HUGE_BYTES;
    b->map = mmap(NULL, b->map_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b->map == MAP_FAILED) {
        b->map = NULL;
        return errno;
    }
    b->base = (uint8_t *)(((uintptr_t)b->map + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    (void)madvise(b->map, b->map_bytes, advice); /* a kernel without huge pages refuses */
    return 0;
}

static void touch(const bench *b, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        *(volatile uint8_t *)(b->base + i * DH_PAGE_BYTES) = 1;
}

static int open_uffd_by_device(bench *b)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int rc;

    if (device < 0)
        return errno;
    b->uffd =
        ioctl(device, DHK_USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK | DHK_UFFD_USER_MODE_ONLY);
    rc = errno;
    close(device);
    return b->uffd >= 0 ? 0 : rc;
}

/* One way or the other; when both are closed, why the first is. */
static int open_uffd(bench *b)
{
    int rc, rc_device;

    b->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | DHK_UFFD_USER_MODE_ONLY);
    if (b->uffd >= 0)
        return 0;
    rc = errno;
    if (dhi_is_shortage(rc))
        return rc;
    rc_device = open_uffd_by_device(b);
    return rc_device == 0 || dhi_is_shortage(rc_device) ? rc_device : rc;
}

static int negotiate(const bench *b)
{
    dhk_uffdio_api api = {
        .api = DHK_UFFD_API,
        .features = DHK_UFFD_FEATURE_WP_ASYNC | DHK_UFFD_FEATURE_WP_UNPOPULATED,
    };
    return ioctl(b->uffd, DHK_UFFDIO_API, &api) == 0 ? 0 : errno;
}

static int register_all(const bench *b)
{
    dhk_uffdio_register range = {
        .start = (uint64_t)(uintptr_t)b->base,
        .len = b->pages_count * DH_PAGE_BYTES,
        .mode = DHK_UFFDIO_REGISTER_MODE_WP,
    };
    return ioctl(b->uffd, DHK_UFFDIO_REGISTER, &range) == 0 ? 0 : errno;
}

static int open_pagemap(bench *b)
{
    b->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return b->pagemap >= 0 ? 0 : errno;
}

/* Pages in all of the categories. An errno, or 0 with what was found. */
static int scan(const bench *b, uint64_t category_mask, uint64_t return_mask, uint64_t flags,
                found_pages *found_out)
{
    dhk_page_region regions[REGIONS_MAX];
    uint64_t start = (uint64_t)(uintptr_t)b->base;
    uint64_t end = start + b->pages_count * DH_PAGE_BYTES;
    found_pages found = {0, UINT64_MAX};

    for (uint64_t at = start; at < end;) {
        dhk_pm_scan_arg arg = {
            .size = sizeof(arg),
            .flags = flags,
            .start = at,
            .end = end,
            .vec = (uint64_t)(uintptr_t)regions,
            .vec_len = REGIONS_MAX,
            .category_mask = category_mask,
            .return_mask = return_mask,
        };
        int count = ioctl(b->pagemap, DHK_PAGEMAP_SCAN, &arg);
        if (count < 0)
            return errno;
        if (arg.walk_end <= at || (uint64_t)count > REGIONS_MAX)
            return EIO;
        for (int i = 0; i < count; i++) {
            if (found.first == UINT64_MAX)
                found.first = (regions[i].start - start) / DH_PAGE_BYTES;
            found.pages_count += (regions[i].end - regions[i].start) / DH_PAGE_BYTES;
        }
        at = arg.walk_end;
    }
    *found_out = found;
    return 0;
}

static int scan_written(const bench *b, uint64_t flags, found_pages *found_out)
{
    return scan(b, IS_WRITTEN, IS_WRITTEN, flags, found_out);
}

/* A mapping, registered, and a pagemap; else why not, as the answer UNTESTED. */
static int begin_watch(bench *b, size_t pages_count, int advice)
{
    int rc = open_uffd(b);

    if (rc != 0)
        return answer_by(b, rc, UNTESTED, "userfaultfd is refused");
    if (negotiate(b) != 0)
        return answer(b, UNTESTED, "userfaultfd has no asynchronous write protection");
    rc = open_pagemap(b);
    if (rc != 0)
        return answer_by(b, rc, UNTESTED, "/proc/self/pagemap cannot be opened");
    if (map_pages(b, pages_count, advice) != 0 || register_all(b) != 0)
        return answer(b, UNTESTED, "no memory could be registered");
    return YES;
}

/* A few pages that are not watched, and a pagemap; else why not, as the answer UNTESTED. */
static int begin_look(bench *b)
{
    int rc = open_pagemap(b);

    if (rc != 0)
        return answer_by(b, rc, UNTESTED, "/proc/self/pagemap cannot be opened");
    rc = map_pages(b, 4, MADV_NOHUGEPAGE);
    return rc == 0 ? YES : answer_by(b, rc, UNTESTED, "no memory could be mapped");
}

/* --- the questions ---------------------------------------------------------------------------- */

static int ask_syscall(bench *b)
{
    b->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | DHK_UFFD_USER_MODE_ONLY);
    if (b->uffd >= 0)
        return answer(b, YES, "the system call gives a descriptor");
    return answer_by(b, errno, NO, "the system call fails");
}

static int ask_device(bench *b)
{
    int rc = open_uffd_by_device(b);

    if (rc == 0)
        return answer(b, YES, "/dev/userfaultfd gives a descriptor");
    return answer_by(b, rc, NO, "/dev/userfaultfd gives no descriptor");
}

static int ask_wp_async(bench *b)
{
    int rc = open_uffd(b);

    if (rc != 0)
        return answer_by(b, rc, UNTESTED, "userfaultfd is refused");
    rc = negotiate(b);
    if (rc != 0)
        return answer(b, NO, "userfaultfd refuses the feature: %s", strerror(rc));
    return answer(b, YES, "userfaultfd has WP_ASYNC and WP_UNPOPULATED");
}

static int ask_pagemap(bench *b)
{
    int rc = open_pagemap(b);

    if (rc != 0)
        return answer_by(b, rc, NO, "/proc/self/pagemap cannot be opened");
    return answer(b, YES, "/proc/self/pagemap can be opened");
}

static int ask_scan(bench *b)
{
    found_pages found;

    if (begin_look(b) != YES)
        return UNTESTED;
    touch(b, 1, 2);
    int rc = scan(b, IS_PRESENT, IS_PRESENT, 0, &found);
    if (rc != 0)
        return answer(b, NO, "the ioctl PAGEMAP_SCAN fails: %s", strerror(rc));
    if (found.first != 1 || found.pages_count != 2)
        return answer(b, NO, "PAGEMAP_SCAN finds other pages than those that are present");
    return answer(b, YES, "PAGEMAP_SCAN finds exactly the pages that are present");
}

static int ask_wpallowed(bench *b)
{
    found_pages found;

    if (begin_watch(b, 4, MADV_NOHUGEPAGE) != YES)
        return UNTESTED;
    touch(b, 0, 4);
    int rc = scan(b, IS_WPALLOWED, IS_WPALLOWED, 0, &found);
    if (rc != 0)
        return answer(b, NO, "PAGEMAP_SCAN refuses the category WPALLOWED: %s", strerror(rc));
    if (found.pages_count != 4)
        return answer(b, NO, "%llu of 4 registered pages are told to be WPALLOWED",
                      (unsigned long long)found.pages_count);
    return answer(b, YES, "pages that can be watched are told from others (WPALLOWED)");
}

static int ask_guard(bench *b)
{
    found_pages found;

    if (begin_look(b) != YES)
        return UNTESTED;
    touch(b, 0, 4);
    if (madvise(b->base + DH_PAGE_BYTES, DH_PAGE_BYTES, ADVICE_GUARD_INSTALL) != 0)
        return answer(b, NO, "this kernel has no guard pages: %s", strerror(errno));
    int rc = scan(b, IS_GUARD, IS_GUARD, 0, &found);
    if (rc != 0)
        return answer(b, NO, "there are guard pages, but no category GUARD: %s", strerror(rc));
    if (found.pages_count != 1 || found.first != 1)
        return answer(b, NO, "the category GUARD does not find the guard page");
    return answer(b, YES, "the category GUARD finds guard pages");
}

static bool bit_is(int pagemap, const bench *b, bool expected)
{
    uint64_t entry = 0;
    off_t place = (off_t)((uintptr_t)b->base / DH_PAGE_BYTES * sizeof(entry));

    return pread(pagemap, &entry, sizeof(entry), place) == (ssize_t)sizeof(entry) &&
           ((entry & SOFT_DIRTY_BIT) != 0) == expected;
}

enum { TOGGLES, CANNOT_CLEAR, STAYS_SET, STAYS_CLEAR, OUT_OF_FILES };

/* In a child: async-signal-safe calls only. */
static int toggle_soft_dirty(const bench *b)
{
    int clear_refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    if ((clear_refs < 0 || pagemap < 0) && dhi_is_shortage(errno))
        return OUT_OF_FILES;
    if (clear_refs < 0 || pagemap < 0 || write(clear_refs, "4", 1) != 1)
        return CANNOT_CLEAR;
    if (!bit_is(pagemap, b, false))
        return STAYS_SET;
    *(volatile uint8_t *)b->base = 2;
    return bit_is(pagemap, b, true) ? TOGGLES : STAYS_CLEAR;
}

/* A clone past the fork handlers of whatever is loaded here; no signal tells of its end. */
static int in_child(const bench *b)
{
    int status = 0;
    pid_t child = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);

    if (child == 0) {
        (void)alarm(10);
        _exit(toggle_soft_dirty(b));
    }
    if (child < 0)
        return -1;
    while (waitpid(child, &status, (int)__WCLONE) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* That clear_refs takes a 4 proves nothing: kernels without the option take it too. A page that was
 * just written has the bit where there is one; only then is a child worth its price. */
static int ask_soft_dirty(bench *b)
{
    if (begin_look(b) != YES)
        return UNTESTED;
    touch(b, 0, 1);
    if (!bit_is(b->pagemap, b, true))
        return answer(b, NO, "bit 55 is clear after a store: built without CONFIG_MEM_SOFT_DIRTY");
    switch (in_child(b)) {
    case TOGGLES:
        return answer(b, YES, "bit 55 is cleared by clear_refs and set by a store");
    case CANNOT_CLEAR:
        return answer(b, NO, "/proc/self/clear_refs cannot be written");
    case STAYS_SET:
        return answer(b, NO, "clear_refs takes the order and clears nothing");
    case STAYS_CLEAR:
        return answer(b, NO, "bit 55 stays clear after a store to a cleared page");
    case OUT_OF_FILES:
        return answer_by(b, EMFILE, UNTESTED, "");
    default:
        return answer(b, UNTESTED, "no child process could be made for it");
    }
}

/* 2 MiB of armed pages given back as a whole: the page table may go with them. */
static int check_dropped(bench *b)
{
    found_pages found;

    if (scan_written(b, DHK_PM_SCAN_WP_MATCHING | DHK_PM_SCAN_CHECK_WPASYNC, &found) != 0 ||
        scan_written(b, 0, &found) != 0)
        return answer(b, UNTESTED, "pages cannot be armed");
    if (found.pages_count != 0)
        return answer(b, NO, "armed pages read as written");
    if (madvise(b->base, HUGE_BYTES, MADV_DONTNEED) != 0)
        return answer(b, UNTESTED, "the pages cannot be given back: %s", strerror(errno));
    if (scan_written(b, 0, &found) != 0)
        return answer(b, UNTESTED, "the scan fails");
    if (found.pages_count != HUGE_PAGES)
        return answer(b, NO, "%llu of %zu pages given back are reported",
                      (unsigned long long)found.pages_count, HUGE_PAGES);
    return answer(b, YES, "all pages given back are reported");
}

static int ask_dropped_pages(bench *b)
{
    if (begin_watch(b, HUGE_PAGES, MADV_NOHUGEPAGE) != YES)
        return UNTESTED;
    touch(b, 0, HUGE_PAGES);
    return check_dropped(b);
}

static int ask_dropped_huge(bench *b)
{
    found_pages found;

    if (begin_watch(b, HUGE_PAGES, MADV_HUGEPAGE) != YES)
        return UNTESTED;
    touch(b, 0, HUGE_PAGES);
    if (scan(b, IS_HUGE, IS_HUGE, 0, &found) != 0 || found.pages_count != HUGE_PAGES)
        return answer(b, UNTESTED, "no transparent huge page was to be had");
    return check_dropped(b);
}

/* Masks beyond WRITTEN take the scan's general path. */
static int ask_rich_masks(bench *b)
{
    found_pages fast, general;

    if (begin_watch(b, 64, MADV_NOHUGEPAGE) != YES)
        return UNTESTED;
    touch(b, 10, 1); /* a page table with holes */
    if (scan_written(b, 0, &fast) != 0 ||
        scan(b, IS_WRITTEN, IS_WRITTEN | IS_PRESENT, 0, &general) != 0)
        return answer(b, UNTESTED, "the scan fails");
    if (fast.pages_count == general.pages_count)
        return answer(b, YES, "a scan for more than WRITTEN finds the same written pages");
    return answer(b, NO,
                  "a scan for more than WRITTEN calls %llu of 64 pages written, the plain one %llu",
                  (unsigned long long)general.pages_count, (unsigned long long)fast.pages_count);
}

static int ask_unregistered(bench *b)
{
    found_pages found;

    if (begin_look(b) != YES)
        return UNTESTED;
    touch(b, 0, 4);
    int rc = scan_written(b, 0, &found);
    if (rc != 0)
        return answer(b, UNTESTED, "PAGEMAP_SCAN fails: %s", strerror(rc));
    if (found.pages_count == 4)
        return answer(b, YES, "memory that is not watched reads as written");
    return answer(b, NO, "memory that is not watched reads as clean: only CHECK_WPASYNC tells");
}

static int (*const questions[])(bench *) = {
    [DH_ABILITY_UFFD_SYSCALL] = ask_syscall,
    [DH_ABILITY_UFFD_DEVICE] = ask_device,
    [DH_ABILITY_WP_ASYNC] = ask_wp_async,
    [DH_ABILITY_PAGEMAP] = ask_pagemap,
    [DH_ABILITY_PAGEMAP_SCAN] = ask_scan,
    [DH_ABILITY_WPALLOWED] = ask_wpallowed,
    [DH_ABILITY_GUARD] = ask_guard,
    [DH_ABILITY_SOFT_DIRTY] = ask_soft_dirty,
    [DH_ABILITY_DROPPED_PAGES] = ask_dropped_pages,
    [DH_ABILITY_DROPPED_HUGE] = ask_dropped_huge,
    [DH_ABILITY_RICH_MASKS] = ask_rich_masks,
    [DH_ABILITY_UNREGISTERED] = ask_unregistered,
};

int dh_ability(int ability, char *text_out, size_t text_size)
{
    bench b = {.uffd = -1, .pagemap = -1, .text = text_out, .text_size = text_size};
    int verdict;

    DH_ASSERT(text_size > 0);
    text_out[0] = '\0';
    if (ability < 0 || (size_t)ability >= sizeof(questions) / sizeof(questions[0]))
        return answer(&b, UNTESTED, "there is no question number %d", ability);
    dh_fork_guard_hold(); /* a child must not inherit what is open here */
    verdict = questions[ability](&b);
    if (b.uffd >= 0)
        close(b.uffd);
    if (b.pagemap >= 0)
        close(b.pagemap);
    dh_fork_guard_release();
    if (b.map != NULL)
        (void)munmap(b.map, b.map_bytes);
    return verdict;
}

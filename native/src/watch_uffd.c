/* watch_uffd.c -- write-watch over userfaultfd in asynchronous write-protect mode.
 *
 * Contract: watch.h. The kernel lifts the protection of a page at its first write and nobody is
 * woken; we learn of it in the scan, which reports and protects again in one step (pagemap.c), so a
 * write falls before or after it, never between. The whole arena is registered once, when tracking
 * begins (until then the kernel maps pages of files sixteen at a time, afterwards one by one), and pages
 * become armed by the scans that take them; untouched memory is never armed, for that would cost
 * page tables. A page that was never armed reads as written.
 *
 * Never unregister, move, lock or MADV_FREE a part of the arena, and never use the descriptors in
 * another process: they act on the memory of the one that opened them
 * (Documentation/admin-guide/mm/userfaultfd.rst).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pagemap.h"

#define UFFD_SIG 0x4446465548435457u /* "WTCHUFFD" in a hex dump */
#define UFFD_DEVICE "/dev/userfaultfd"
#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK | DHK_UFFD_USER_MODE_ONLY)

typedef struct {
    uint64_t sig;
    uint8_t *base;
    uint64_t capacity_pages;
    pid_t owner;
    int uffd; /* -1 in a forked child */
    dhi_pagemap pagemap;
} uffd_watch;

/* --- opening ---------------------------------------------------------------------------------- */

static int uffd_from_syscall(int *uffd_out, char *why_out, size_t why_size)
{
    int uffd = (int)syscall(SYS_userfaultfd, UFFD_FLAGS);
    int rc = errno;

    if (uffd >= 0) {
        *uffd_out = uffd;
        return 0;
    }
    if (rc == EPERM || rc == EACCES)
        snprintf(why_out, why_size,
                 "the userfaultfd system call is refused (%s): allow it in the container's "
                 "seccomp profile or pass " UFFD_DEVICE " into the container (the sysctl "
                 "vm.unprivileged_userfaultfd is not needed)",
                 strerror(rc));
    else if (rc == ENOSYS)
        snprintf(why_out, why_size,
                 "the userfaultfd system call does not exist here (%s): not in this kernel, or "
                 "hidden by a sandbox or seccomp profile",
                 strerror(rc));
    else
        snprintf(why_out, why_size, "the userfaultfd system call fails: %s", strerror(rc));
    return rc;
}

static int uffd_from_device(int *uffd_out, char *why_out, size_t why_size)
{
    int device = open(UFFD_DEVICE, O_RDWR | O_CLOEXEC);
    int uffd;
    int rc;

    if (device < 0) {
        rc = errno;
        snprintf(why_out, why_size, UFFD_DEVICE " cannot be opened (%s): %s", strerror(rc),
                 rc == EACCES || rc == EPERM
                     ? "give this user read and write permission on it"
                     : "it needs Linux 6.1, and a container needs it passed in as a device");
        return rc;
    }
    uffd = ioctl(device, DHK_USERFAULTFD_IOC_NEW, UFFD_FLAGS);
    rc = errno;
    close(device);
    if (uffd < 0) {
        snprintf(why_out, why_size, UFFD_DEVICE " makes no descriptor: %s", strerror(rc));
        return rc;
    }
    *uffd_out = uffd;
    return 0;
}

static int uffd_negotiate(int uffd, char *why_out, size_t why_size)
{
    dhk_uffdio_api api = {
        .api = DHK_UFFD_API,
        .features = DHK_UFFD_FEATURE_WP_ASYNC | DHK_UFFD_FEATURE_WP_UNPOPULATED,
    };
    int rc;

    if (ioctl(uffd, DHK_UFFDIO_API, &api) == 0)
        return 0;
    rc = errno;
    snprintf(why_out, why_size,
             "this kernel has no asynchronous write protection (%s): it needs Linux 6.7 with "
             "CONFIG_PTE_MARKER_UFFD_WP",
             strerror(rc));
    return rc;
}

static int uffd_register(int uffd, const uint8_t *base, uint64_t pages_count)
{
    dhk_uffdio_register range = {
        .start = (uint64_t)(uintptr_t)base,
        .len = pages_count << DH_PAGE_SHIFT,
        .mode = DHK_UFFDIO_REGISTER_MODE_WP,
    };

    return ioctl(uffd, DHK_UFFDIO_REGISTER, &range) == 0 ? 0 : errno;
}

static int uffd_open_pagemap(dhi_pagemap *pagemap, char *why_out, size_t why_size)
{
    int rc = dhi_pagemap_open(pagemap, DHI_SCAN_VEC_LEN);

    if (rc != 0)
        snprintf(why_out, why_size, "/proc/self/pagemap cannot be opened (%s)%s", strerror(rc),
                 rc == EACCES ? ": the process is not dumpable (PR_SET_DUMPABLE)" : "");
    return rc;
}

/* Everything after the descriptor, which the new state owns on success. */
static int uffd_begin(const dh_range *range, int uffd, void **state_out, char *why_out,
                      size_t why_size)
{
    uffd_watch *watch = calloc(1, sizeof(*watch));
    int rc;

    if (watch == NULL)
        return ENOMEM;
    rc = uffd_negotiate(uffd, why_out, why_size);
    if (rc != 0)
        goto fail_watch;
    rc = uffd_open_pagemap(&watch->pagemap, why_out, why_size);
    if (rc != 0)
        goto fail_watch;
    watch->base = range->base;
    watch->capacity_pages = range->pages_count;
    watch->owner = getpid();
    watch->uffd = uffd;
    watch->sig = UFFD_SIG;
    *state_out = watch;
    return 0;

fail_watch:
    free(watch);
    return rc;
}

typedef int (*uffd_source)(int *uffd_out, char *why_out, size_t why_size);

static int uffd_open_from(uffd_source source, const dh_range *range, void **state_out,
                          char *why_out, size_t why_size)
{
    int uffd = -1;
    int rc = source(&uffd, why_out, why_size);

    if (rc != 0)
        return rc;
    rc = uffd_begin(range, uffd, state_out, why_out, why_size);
    if (rc != 0)
        close(uffd);
    return rc;
}

static int uffd_open(const dh_range *range, const void *argument, void **state_out, char *why_out,
                     size_t why_size)
{
    (void)argument;
    return uffd_open_from(uffd_from_syscall, range, state_out, why_out, why_size);
}

static int uffd_dev_open(const dh_range *range, const void *argument, void **state_out,
                         char *why_out, size_t why_size)
{
    (void)argument;
    return uffd_open_from(uffd_from_device, range, state_out, why_out, why_size);
}

/* --- the rest of the contract ----------------------------------------------------------------- */

static uffd_watch *uffd_state(void *state)
{
    uffd_watch *watch = state;

    DH_ASSERT(watch->sig == UFFD_SIG);
    return watch;
}

/* Closing the descriptor ends the registration and lifts all protection. */
static void uffd_close(void *state)
{
    uffd_watch *watch = uffd_state(state);

    watch->sig = 0;
    if (watch->uffd >= 0)
        close(watch->uffd);
    dhi_pagemap_close(&watch->pagemap);
    free(watch);
}

/* An inherited pagemap descriptor scans, and robs, the parent. The fork guard closes it, but a raw
 * clone passes the guard by. */
static bool uffd_is_foreign(const uffd_watch *watch)
{
    return watch->uffd < 0 || watch->owner != getpid();
}

static int uffd_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                     dh_watch_report report, void *context)
{
    uffd_watch *watch = uffd_state(state);

    DH_ASSERT(first <= watch->capacity_pages && count <= watch->capacity_pages - first);
    if (uffd_is_foreign(watch))
        return DH_E_FORKED;
    return dhi_pagemap_scan(&watch->pagemap, watch->base, first, count, mode, report, context);
}

/* A scan that tells nobody: cheaper than UFFDIO_WRITEPROTECT on populated memory (50 against 140 ns
 * a page) and far cheaper where pages are armed already. */
static int uffd_arm(void *state, uint64_t pages_count)
{
    return uffd_scan(state, 0, pages_count, DH_SCAN_TAKE, NULL, NULL);
}

static int uffd_start(void *state)
{
    uffd_watch *watch = uffd_state(state);
    if (uffd_is_foreign(watch))
        return DH_E_FORKED;
    /* One range, however many mappings it has by now. */
    return uffd_register(watch->uffd, watch->base, watch->capacity_pages);
}

/* A new mapping lost its registration; a range that kept it may be registered again. */
static int uffd_remapped(void *state, dh_pgno first, uint64_t count)
{
    uffd_watch *watch = uffd_state(state);

    DH_ASSERT(first <= watch->capacity_pages && count <= watch->capacity_pages - first);
    if (uffd_is_foreign(watch))
        return DH_E_FORKED;
    if (uffd_register(watch->uffd, watch->base + ((uint64_t)first << DH_PAGE_SHIFT), count) != 0)
        return DH_E_WATCH;
    return uffd_scan(state, first, count, DH_SCAN_TAKE, NULL, NULL);
}

static void uffd_fork_child(void *state)
{
    uffd_watch *watch = state;

    if (watch->uffd >= 0)
        close(watch->uffd);
    if (watch->pagemap.fd >= 0)
        close(watch->pagemap.fd);
    watch->uffd = -1;
    watch->pagemap.fd = -1;
}

const dh_tracker dh_tracker_uffd = {
    .id = DH_TRACKER_UFFD,
    .name = "uffd",
    .open = uffd_open,
    .close = uffd_close,
    .begin = uffd_start,
    .scan = uffd_scan,
    .arm = uffd_arm,
    .remapped = uffd_remapped,
    .fork_child = uffd_fork_child,
};

const dh_tracker dh_tracker_uffd_dev = {
    .id = DH_TRACKER_UFFD_DEV,
    .name = "uffd-dev",
    .open = uffd_dev_open,
    .close = uffd_close,
    .begin = uffd_start,
    .scan = uffd_scan,
    .arm = uffd_arm,
    .remapped = uffd_remapped,
    .fork_child = uffd_fork_child,
};

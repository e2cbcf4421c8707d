/* lab_uffd_sync.c -- userfaultfd write protection: a first store waits for a handler thread.
 *
 * Contract: watch.h. For: who must act before a store happens (copy the old page, ask a policy).
 * Anonymous and shared memory, Linux 5.7; for pages never touched 6.4
 * (Documentation/admin-guide/mm/userfaultfd.rst).
 *
 * Cannot see: shared memory changed by another way than this mapping; devices into pinned pages;
 * pages given back (MADV_DONTNEED).
 *
 * Breaks: system calls that store into a protected page fail with EFAULT, as the descriptor is for
 * faults of user mode only (the other kind needs a privilege). A store costs two switches of
 * threads. When the thread is stuck, so is every writer: it may wait for nothing but its lock,
 * whose holders touch no watched memory. Files cannot be watched.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../src/pagemap.h"
#include "lab.h"

/* --- uapi/linux/userfaultfd.h, what the asynchronous mode does not need ---------------------- */

typedef struct {
    uint64_t start;
    uint64_t len;
    uint64_t mode;
} sync_writeprotect;

typedef struct {
    uint64_t start;
    uint64_t len;
} sync_range;

typedef struct {
    uint8_t event;
    uint8_t reserved[7];
    uint64_t flags;
    uint64_t address;
    uint64_t thread;
} sync_message;

_Static_assert(sizeof(sync_writeprotect) == 24, "layout of struct uffdio_writeprotect");
_Static_assert(sizeof(sync_message) == 32, "layout of struct uffd_msg");

#define UFFDIO_WRITEPROTECT_ _IOWR(0xAA, 0x06, sync_writeprotect)
#define UFFDIO_UNREGISTER_ _IOR(0xAA, 0x01, sync_range)
#define WRITEPROTECT_MODE_WP ((uint64_t)1)
#define EVENT_PAGEFAULT 0x12
#define FEATURE_PAGEFAULT_FLAG_WP ((uint64_t)1)

#define MESSAGES_MAX 16u
/* A call costs what protecting so many protected pages does. */
#define GAP_PAGES 16u

typedef struct {
    dhl_pages pages; /* one that is not written is protected, once armed              */
    int uffd;        /* -1 in a forked child                                          */
    int stop;        /* eventfd: the thread shall end                                 */
    bool is_serving;
    pthread_t thread;
    pthread_mutex_t lock; /* guards pages.written, and protection with it        */
    bool is_lost;         /* the thread has given up; guarded by lock            */
    dh_bits chunk;        /* pages of a chunk, to be reported without the lock */
} sync_watch;

/* --- protection ------------------------------------------------------------------------------- */

/* Lifting it wakes who waits for the page. */
static int protect(const sync_watch *watch, uint64_t first, uint64_t count, bool is_protected)
{
    sync_writeprotect arg = {
        .start = (uint64_t)(uintptr_t)watch->pages.base + (first << DH_PAGE_SHIFT),
        .len = count << DH_PAGE_SHIFT,
        .mode = is_protected ? WRITEPROTECT_MODE_WP : 0,
    };

    while (ioctl(watch->uffd, UFFDIO_WRITEPROTECT_, &arg) != 0)
        if (errno != EAGAIN && errno != EINTR)
            return errno;
    return 0;
}

static int protect_register(const sync_watch *watch)
{
    dhk_uffdio_register arg = {
        .start = (uint64_t)(uintptr_t)watch->pages.base,
        .len = watch->pages.count << DH_PAGE_SHIFT,
        .mode = DHK_UFFDIO_REGISTER_MODE_WP,
    };

    return ioctl(watch->uffd, DHK_UFFDIO_REGISTER, &arg) == 0 ? 0 : errno;
}

/* --- the handler thread ----------------------------------------------------------------------- */

static int serve_fault(sync_watch *watch, uint64_t address)
{
    uint64_t pgno = (address - (uint64_t)(uintptr_t)watch->pages.base) >> DH_PAGE_SHIFT;
    int rc;

    if (pgno >= watch->pages.count)
        return ERANGE;
    pthread_mutex_lock(&watch->lock);
    dh_bits_set(&watch->pages.written, pgno);
    rc = protect(watch, pgno, 1, false);
    pthread_mutex_unlock(&watch->lock);
    return rc;
}

/* Everything that waits now. */
static int serve_messages(sync_watch *watch)
{
    sync_message messages[MESSAGES_MAX];
    ssize_t size = read(watch->uffd, messages, sizeof(messages));

    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : errno;
    for (size_t i = 0; i < (size_t)size / sizeof(messages[0]); i++) {
        int rc = messages[i].event == EVENT_PAGEFAULT ? serve_fault(watch, messages[i].address) : 0;

        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Nobody may wait for a thread that is gone: end the protection, which wakes all writers. */
static void serve_give_up(sync_watch *watch)
{
    sync_range all = {(uint64_t)(uintptr_t)watch->pages.base, watch->pages.count << DH_PAGE_SHIFT};

    pthread_mutex_lock(&watch->lock);
    watch->is_lost = true;
    (void)ioctl(watch->uffd, UFFDIO_UNREGISTER_, &all);
    pthread_mutex_unlock(&watch->lock);
}

static void *serve(void *context)
{
    sync_watch *watch = context;
    struct pollfd ends[2] = {{.fd = watch->uffd, .events = POLLIN},
                             {.fd = watch->stop, .events = POLLIN}};
    int rc = 0;

    while (rc == 0) {
        if (poll(ends, 2, -1) < 0)
            rc = errno == EINTR ? 0 : errno;
        else if (ends[1].revents != 0)
            return NULL;
        else if ((ends[0].revents & POLLIN) != 0)
            rc = serve_messages(watch);
        else if (ends[0].revents != 0)
            rc = EIO;
    }
    serve_give_up(watch);
    return NULL;
}

static int serve_start(sync_watch *watch)
{
    sigset_t mask;
    int rc;

    dhl_signals_block(&mask);
    rc = pthread_create(&watch->thread, NULL, serve, watch);
    dhl_signals_unblock(&mask);
    watch->is_serving = rc == 0;
    return rc;
}

/* --- opening and closing ---------------------------------------------------------------------- */

static int descriptor_open(int *uffd_out, char *why_out, size_t why_size)
{
    dhk_uffdio_api api = {
        .api = DHK_UFFD_API,
        .features = FEATURE_PAGEFAULT_FLAG_WP | DHK_UFFD_FEATURE_WP_UNPOPULATED,
    };
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | DHK_UFFD_USER_MODE_ONLY);
    int rc = errno;

    if (uffd < 0) {
        snprintf(why_out, why_size, "the userfaultfd system call fails: %s", strerror(rc));
        return rc;
    }
    if (ioctl(uffd, DHK_UFFDIO_API, &api) != 0) {
        rc = errno;
        close(uffd);
        snprintf(why_out, why_size,
                 "this kernel cannot write-protect memory that was never touched (%s): it needs "
                 "Linux 6.4",
                 strerror(rc));
        return rc;
    }
    *uffd_out = uffd;
    return 0;
}

static int sync_open(const dh_range *range, const void *argument, void **state_out, char *why_out,
                     size_t why_size)
{
    sync_watch *watch = calloc(1, sizeof(*watch));
    int rc;

    (void)argument;
    if (watch == NULL)
        return ENOMEM;
    rc = dhl_pages_init(&watch->pages, range);
    if (rc != 0)
        goto fail_watch;
    rc = dh_bits_init(&watch->chunk, DHL_CHUNK_PAGES);
    if (rc != 0)
        goto fail_pages;
    rc = pthread_mutex_init(&watch->lock, NULL);
    if (rc != 0)
        goto fail_chunk;
    watch->stop = eventfd(0, EFD_CLOEXEC);
    if (watch->stop < 0) {
        rc = errno;
        goto fail_lock;
    }
    rc = descriptor_open(&watch->uffd, why_out, why_size);
    if (rc != 0)
        goto fail_stop;
    rc = protect_register(watch);
    if (rc != 0) {
        snprintf(why_out, why_size,
                 "this memory cannot be watched (%s): files cannot, nor what another userfaultfd "
                 "watches",
                 strerror(rc));
        goto fail_uffd;
    }
    *state_out = watch;
    return 0;

fail_uffd:
    close(watch->uffd);
fail_stop:
    close(watch->stop);
fail_lock:
    pthread_mutex_destroy(&watch->lock);
fail_chunk:
    dh_bits_finish(&watch->chunk);
fail_pages:
    dhl_pages_finish(&watch->pages);
fail_watch:
    free(watch);
    return rc;
}

/* May be called again to take up what was mapped anew. */
static int sync_begin(void *state)
{
    sync_watch *watch = state;
    int rc;

    if (!dhl_pages_are_ours(&watch->pages))
        return DH_E_FORKED;
    rc = protect_register(watch);
    if (rc == 0 && !watch->is_serving)
        rc = serve_start(watch);
    return rc == 0 || rc == ENOMEM ? rc : DH_E_WATCH;
}

/* The thread ends first, then the registration with its descriptor, which wakes who waits. In a
 * child there is no thread, and the lock may be held for good. */
static void sync_close(void *state)
{
    sync_watch *watch = state;
    bool is_ours = dhl_pages_are_ours(&watch->pages);

    if (is_ours && watch->is_serving) {
        eventfd_write(watch->stop, 1);
        pthread_join(watch->thread, NULL);
    }
    dhl_close(&watch->uffd);
    dhl_close(&watch->stop);
    if (is_ours)
        pthread_mutex_destroy(&watch->lock);
    dh_bits_finish(&watch->chunk);
    dhl_pages_finish(&watch->pages);
    free(watch);
}

static void sync_fork_child(void *state)
{
    sync_watch *watch = state;

    dhl_close(&watch->uffd);
    dhl_close(&watch->stop);
}

/* --- scanning --------------------------------------------------------------------------------- */

/* Lock held. Protect again the pages of the chunk, and what lies between two that are close. */
static int chunk_protect(sync_watch *watch, uint64_t first, uint64_t count)
{
    uint64_t from = dh_bits_next(&watch->chunk, 0, count);

    while (from < count) {
        uint64_t last = from, next = dh_bits_next(&watch->chunk, from + 1, count);
        int rc;

        while (next < count && next - last <= GAP_PAGES) {
            last = next;
            next = dh_bits_next(&watch->chunk, next + 1, count);
        }
        rc = protect(watch, first + from, last + 1 - from, true);
        if (rc != 0)
            return rc;
        from = next;
    }
    return 0;
}

/* Lock held. What could not be protected stays written. */
static int chunk_take(sync_watch *watch, uint64_t first, uint64_t count)
{
    int rc = chunk_protect(watch, first, count);

    if (rc == 0)
        dh_bits_clear_run(&watch->pages.written, first, count);
    return rc;
}

static int chunk_scan(void *state, dh_bits *chunk, uint64_t first, uint64_t count,
                      dh_scan_mode mode)
{
    sync_watch *watch = state;
    int rc = 0;

    pthread_mutex_lock(&watch->lock);
    dhl_chunk_copy(chunk, &watch->pages.written, first, count);
    if (watch->is_lost) {
        dh_bits_set_run(chunk, 0, count);
        rc = DH_E_WATCH;
    } else if (mode == DH_SCAN_TAKE) {
        rc = chunk_take(watch, first, count);
    }
    pthread_mutex_unlock(&watch->lock);
    return rc;
}

static int sync_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                     dh_watch_report report, void *context)
{
    sync_watch *watch = state;

    DH_ASSERT(first + count <= watch->pages.count);
    if (!dhl_pages_are_ours(&watch->pages))
        return DH_E_FORKED;
    return dhl_scan_in_chunks(watch, chunk_scan, &watch->chunk, first, count, mode, report,
                              context);
}

static int sync_arm(void *state, uint64_t pages_count)
{
    return sync_scan(state, 0, pages_count, DH_SCAN_TAKE, NULL, NULL);
}

/* A new mapping lost its registration. */
static int sync_register_anew(void *state, dh_pgno first, uint64_t count)
{
    sync_watch *watch = state;

    if (!dhl_pages_are_ours(&watch->pages))
        return DH_E_FORKED;
    pthread_mutex_lock(&watch->lock);
    dh_bits_set_run(&watch->pages.written, first, count);
    pthread_mutex_unlock(&watch->lock);
    return protect_register(watch) == 0 ? 0 : DH_E_WATCH;
}

static int sync_remapped(void *state, dh_pgno first, uint64_t count)
{
    int rc = sync_register_anew(state, first, count);

    return rc != 0 ? rc : sync_scan(state, first, count, DH_SCAN_TAKE, NULL, NULL);
}

const dh_tracker dhl_tracker_uffd_sync = {
    .id = DHL_TRACKER_UFFD_SYNC,
    .name = "uffd-sync",
    .open = sync_open,
    .close = sync_close,
    .begin = sync_begin,
    .scan = sync_scan,
    .arm = sync_arm,
    .remapped = sync_remapped,
    .fork_child = sync_fork_child,
};

const dh_lab_technique dhl_about_uffd_sync = {
    .name = "uffd-sync",
    .idea = "userfaultfd write protection: a store waits for a thread that lifts it",
    .cannot_see = "shared memory changed by another way than this mapping; devices; pages given "
                  "back (MADV_DONTNEED)",
    .breaks = "system calls that store into a protected page (EFAULT); memory of files; all "
              "writers, if the thread is stuck",
};

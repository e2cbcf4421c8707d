/* lab_fork.c -- a forked child keeps the old image; what differs between two of them was written.
 *
 * Contract: watch.h. For: a consistent cut of a large memory without stopping anybody for longer
 * than a fork; what databases without a log of their own do for their backups. A scan that takes
 * makes the next child first and compares the two: both stand still, so writers need not.
 *
 * Cannot see: shared memory, which is the same in the child (refused); what is kept from children
 * (MADV_DONTFORK, MADV_WIPEONFORK: an error); a store of the same bytes; a page that went A, B, A
 * between two scans, so that writers must stand still while reported pages are copied.
 *
 * Breaks: nothing by itself, but it costs: each scan copies the page tables of the whole process,
 * while every page fault and mmap waits, and reads the whole range twice; each first store copies a
 * page; memory up to twice the range, which strict overcommit refuses at once; one process a watch.
 *
 * The child runs in a copy of a process whose other threads are gone: it may do nothing but system
 * calls. It is cloned without handlers, without a signal at its end, and invisible to wait(): the
 * program does not learn of it. It keeps no descriptor but the end of a pipe, and ends when the
 * other end is closed, by us or with us.
 *
 * Its memory is read through /proc/pid/mem. process_vm_readv pins what it reads, and since Linux
 * 5.19 pinning a page that is shared after a fork copies it: each scan would copy everything, at
 * some 10 us a page.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../src/arena.h"
#include "lab.h"

#define CHUNK_PAGES 256u
#define CHUNK_BYTES ((size_t)CHUNK_PAGES * DH_PAGE_BYTES)

/* A child with the memory as it was. */
typedef struct {
    pid_t pid;  /* 0: none                        */
    int end;    /* the child lives while it is open */
    int memory; /* its, for reading               */
} fork_image;

typedef struct {
    dhl_pages pages; /* written: differed between two images */
    fork_image image;
    uint8_t *buffers; /* [2][CHUNK_BYTES]                     */
} fork_watch;

/* --- images ----------------------------------------------------------------------------------- */

/* In the child. Every signal that can be blocked is. */
_Noreturn static void image_live(int end)
{
    char byte;

    dup2(end, STDIN_FILENO);
    if (syscall(SYS_close_range, STDIN_FILENO + 1, ~0u, 0) != 0) /* before Linux 5.9 */
        for (int fd = STDIN_FILENO + 1; fd < 65536; fd++)
            close(fd);
    while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

static int image_clone(fork_image *image)
{
    sigset_t mask;
    int ends[2];
    long pid;
    int rc;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    dhl_signals_block(&mask);
    pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (pid == 0)
        image_live(ends[0]);
    rc = errno;
    dhl_signals_unblock(&mask);
    close(ends[0]);
    if (pid < 0) {
        close(ends[1]);
        return rc;
    }
    *image = (fork_image){.pid = (pid_t)pid, .end = ends[1], .memory = -1};
    return 0;
}

/* Killed, not only told: a child of the program may hold a copy of the pipe. That the number is
 * still our child's is sure as long as nobody has waited for it. */
static void image_drop(fork_image *image)
{
    if (image->pid == 0)
        return;
    if (image->memory >= 0)
        close(image->memory);
    close(image->end);
    if (waitpid(image->pid, NULL, WNOHANG | __WALL) == 0) {
        kill(image->pid, SIGKILL);
        while (waitpid(image->pid, NULL, __WALL) < 0 && errno == EINTR)
            continue;
    }
    *image = (fork_image){.pid = 0};
}

static int image_make(fork_image *image_out)
{
    char path[40];
    fork_image image = {.pid = 0};
    int rc = image_clone(&image);

    if (rc != 0)
        return rc;
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)image.pid);
    image.memory = open(path, O_RDONLY | O_CLOEXEC);
    if (image.memory < 0) {
        rc = errno;
        image_drop(&image);
        return rc;
    }
    *image_out = image;
    return 0;
}

static int image_read(const fork_image *image, const uint8_t *from, size_t bytes, uint8_t *into)
{
    ssize_t got = pread(image->memory, into, bytes, (off_t)(uintptr_t)from);

    return got == (ssize_t)bytes ? 0 : got < 0 ? errno : EFAULT;
}

/* --- comparing -------------------------------------------------------------------------------- */

/* One chunk of the old image with the new one, or with the memory of now (new NULL). */
static int chunk_compare(fork_watch *watch, const fork_image *newer, uint64_t first, uint64_t count,
                         dh_bits *found)
{
    const uint8_t *memory = watch->pages.base + (first << DH_PAGE_SHIFT);
    size_t bytes = (size_t)count << DH_PAGE_SHIFT;
    const uint8_t *now = memory;
    int rc = image_read(&watch->image, memory, bytes, watch->buffers);

    if (rc == 0 && newer != NULL) {
        now = watch->buffers + CHUNK_BYTES;
        rc = image_read(newer, memory, bytes, watch->buffers + CHUNK_BYTES);
    }
    if (rc != 0) {
        dh_bits_set_run(found, first, count);
        return rc;
    }
    for (uint64_t i = 0; i < count; i++)
        if (memcmp(watch->buffers + (i << DH_PAGE_SHIFT), now + (i << DH_PAGE_SHIFT),
                   DH_PAGE_BYTES) != 0)
            dh_bits_set(found, first + i);
    return 0;
}

/* What cannot be compared counts as written: a child that was killed, say. */
static int range_compare(fork_watch *watch, const fork_image *newer, uint64_t first, uint64_t limit,
                         dh_bits *found)
{
    int rc_first = 0;

    for (; first < limit; first += CHUNK_PAGES) {
        uint64_t count = limit - first < CHUNK_PAGES ? limit - first : CHUNK_PAGES;
        int rc = chunk_compare(watch, newer, first, count, found);

        if (rc != 0)
            rc_first = DH_E_WATCH;
    }
    return rc_first;
}

/* --- the contract ----------------------------------------------------------------------------- */

static int memory_refuse(const dh_range *range, char *why_out, size_t why_size)
{
    dhl_memory memory;
    int rc = dhl_memory_read(range, &memory);

    if (rc != 0)
        return rc;
    if (!memory.is_shared && !memory.has_hole)
        return 0;
    snprintf(why_out, why_size,
             "all of the memory must be private: a child shares what is shared, and would show no "
             "older image");
    return DH_E_TRACKER;
}

static int fork_open(const dh_range *range, const void *argument, void **state_out, char *why_out,
                     size_t why_size)
{
    fork_watch *watch;
    void *buffers;
    int rc = memory_refuse(range, why_out, why_size);

    (void)argument;
    if (rc != 0)
        return rc;
    watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return ENOMEM;
    rc = dhl_pages_init(&watch->pages, range);
    if (rc != 0)
        goto fail_watch;
    rc = dh_reserve(2 * CHUNK_BYTES, &buffers);
    if (rc != 0)
        goto fail_pages;
    watch->buffers = buffers;
    *state_out = watch;
    return 0;

fail_pages:
    dhl_pages_finish(&watch->pages);
fail_watch:
    free(watch);
    return rc;
}

/* A child's images are its parent's. */
static void fork_close(void *state)
{
    fork_watch *watch = state;

    if (dhl_pages_are_ours(&watch->pages))
        image_drop(&watch->image);
    dh_unreserve(watch->buffers, 2 * CHUNK_BYTES);
    dhl_pages_finish(&watch->pages);
    free(watch);
}

/* The new image replaces the old one for the whole range, so pages outside the part asked for are
 * kept for whoever asks for them. */
static int fork_take(fork_watch *watch, uint64_t first, uint64_t limit, dh_watch_report report,
                     void *context)
{
    fork_image newer;
    int rc = image_make(&newer);

    if (rc != 0) { /* the old image stays: nothing is forgotten */
        if (report != NULL)
            report(context, (dh_pgno)first, limit - first);
        return rc;
    }
    if (watch->image.pid != 0)
        rc = range_compare(watch, &newer, 0, watch->pages.count, &watch->pages.written);
    image_drop(&watch->image);
    watch->image = newer;
    dhl_report(&watch->pages.written, first, limit, 0, report, context);
    dh_bits_clear_run(&watch->pages.written, first, limit - first);
    return rc;
}

/* Compared with the memory of now; the image stays, so what is found need not be kept. */
static int fork_peek(fork_watch *watch, uint64_t first, uint64_t limit, dh_watch_report report,
                     void *context)
{
    dh_bits found;
    int rc = dh_bits_init(&found, watch->pages.count);

    if (rc != 0) {
        report(context, (dh_pgno)first, limit - first);
        return rc;
    }
    dh_bits_or(&found, &watch->pages.written, watch->pages.count);
    if (watch->image.pid != 0)
        rc = range_compare(watch, NULL, first, limit, &found);
    dhl_report(&found, first, limit, 0, report, context);
    dh_bits_finish(&found);
    return rc;
}

static int fork_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                     dh_watch_report report, void *context)
{
    fork_watch *watch = state;

    DH_ASSERT(first + count <= watch->pages.count);
    if (!dhl_pages_are_ours(&watch->pages))
        return DH_E_FORKED;
    return mode == DH_SCAN_TAKE ? fork_take(watch, first, first + count, report, context)
                                : fork_peek(watch, first, first + count, report, context);
}

/* As a scan that tells nobody, but without comparing what is forgotten anyway. */
static int fork_arm(void *state, uint64_t pages_count)
{
    fork_watch *watch = state;
    fork_image newer;
    int rc;

    if (!dhl_pages_are_ours(&watch->pages))
        return DH_E_FORKED;
    rc = image_make(&newer);
    if (rc != 0)
        return rc;
    if (watch->image.pid != 0 && pages_count < watch->pages.count)
        rc = range_compare(watch, &newer, pages_count, watch->pages.count, &watch->pages.written);
    image_drop(&watch->image);
    watch->image = newer;
    dh_bits_clear_run(&watch->pages.written, 0, pages_count);
    return rc;
}

static void fork_fork_child(void *state)
{
    fork_watch *watch = state;

    if (watch->image.pid != 0) {
        close(watch->image.end);
        close(watch->image.memory);
    }
    watch->image = (fork_image){.pid = 0};
}

const dh_tracker dhl_tracker_fork = {
    .id = DHL_TRACKER_FORK,
    .name = "fork",
    .open = fork_open,
    .close = fork_close,
    .scan = fork_scan,
    .arm = fork_arm,
    .fork_child = fork_fork_child,
};

const dh_lab_technique dhl_about_fork = {
    .name = "fork",
    .idea = "a forked child keeps the old image; two such images are compared",
    .cannot_see = "shared memory, and what is kept from children (MADV_DONTFORK); a store of the "
                  "same bytes; a page that went A, B, A between two scans, so that writers must "
                  "stand still while reported pages are copied",
    .breaks = "memory: up to twice the range; every page fault of the process waits while a scan "
              "forks it; every first store copies a page; a child process for each watch",
};

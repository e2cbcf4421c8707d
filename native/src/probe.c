/* probe.c -- does the kernel really do what a tracker needs? Asked by trying it, never by version.
 *
 * A small mapping of its own is written in the ways in which an arena is: by a store, by a system
 * call, by giving a page back. Exactly these pages must be reported, once. Anything else, and the
 * tracker is refused: one that leaves out a write loses data without a word. The text says what a
 * person can do about it. When memory or descriptors run out meanwhile nothing was learned of the
 * kernel, and the code says so. May be called at any time, by any thread.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "forkguard.h"
#include "watch.h"

#define PROBE_PAGES 64u

enum { PAGE_READ = 20, PAGE_STORED = 3, PAGE_SYSCALL = 7, PAGE_DROPPED = 11 };

typedef struct {
    const dh_tracker *tracker;
    dh_arena arena;
    void *state;
    char *text;
    size_t text_size;
} probe;

/* Which pages one scan reported, and how many. */
typedef struct {
    uint8_t is_written[PROBE_PAGES];
    uint64_t count;
} probe_found;

static int probe_fail(const probe *p, const char *what)
{
    snprintf(p->text, p->text_size,
             "%s: %s; this kernel or sandbox does not track writes as Linux 6.7 and later do",
             p->tracker->name, what);
    return DH_E_TRACKER;
}

/* The same, when a code says why: a shortage is the machine's, not the tracker's. */
static int probe_fail_by(const probe *p, int rc, const char *what)
{
    if (!dhi_is_shortage(rc))
        return probe_fail(p, what);
    snprintf(p->text, p->text_size, "%s", dh_error_name(rc));
    dhi_explain_shortage(rc, p->text, p->text_size);
    return rc;
}

static void probe_note(void *context, dh_pgno first, uint64_t count)
{
    probe_found *found = context;

    memset(found->is_written + first, 1, (size_t)count);
    found->count += count;
}

static int probe_scan(const probe *p, dh_scan_mode mode, probe_found *found_out)
{
    int rc;

    *found_out = (probe_found){.count = 0};
    rc = p->tracker->scan(p->state, 0, PROBE_PAGES, mode, probe_note, found_out);
    return rc == 0 ? 0 : probe_fail_by(p, rc, "the scan for written pages is refused");
}

static int probe_read_into(uint8_t *page)
{
    static const char text[] = "by the kernel";
    int ends[2];
    bool is_done;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    is_done = write(ends[1], text, sizeof(text)) == (ssize_t)sizeof(text) &&
              read(ends[0], page + 1, sizeof(text)) == (ssize_t)sizeof(text);
    close(ends[0]);
    close(ends[1]);
    return is_done ? 0 : EFAULT;
}

static int probe_write(const probe *p)
{
    uint8_t *dropped = dh_arena_page(&p->arena, PAGE_DROPPED);
    volatile uint8_t *stored = dh_arena_page(&p->arena, PAGE_STORED);
    volatile uint8_t *only_read = dh_arena_page(&p->arena, PAGE_READ);
    int rc;

    *stored = (uint8_t)(*only_read + 1u);
    rc = probe_read_into(dh_arena_page(&p->arena, PAGE_SYSCALL));
    if (rc != 0)
        return probe_fail_by(p, rc, "a system call cannot write to a watched page");
    if (madvise(dropped, DH_PAGE_BYTES, MADV_DONTNEED) != 0)
        return probe_fail(p, "a watched page cannot be given back");
    return 0;
}

static int probe_expect_none(const probe *p, dh_scan_mode mode, const char *what)
{
    probe_found found;
    int rc = probe_scan(p, mode, &found);

    if (rc != 0)
        return rc;
    return found.count == 0 ? 0 : probe_fail(p, what);
}

static int probe_expect_writes(const probe *p, dh_scan_mode mode)
{
    probe_found found;
    int rc = probe_scan(p, mode, &found);

    if (rc != 0)
        return rc;
    if (!found.is_written[PAGE_STORED])
        return probe_fail(p, "a store is not reported");
    if (!found.is_written[PAGE_SYSCALL])
        return probe_fail(p, "a write by a system call is not reported");
    if (!found.is_written[PAGE_DROPPED])
        return probe_fail(p, "a page given back is not reported");
    if (found.count != 3)
        return probe_fail(p, "pages are reported that nobody wrote");
    return 0;
}

static int probe_expect_again(const probe *p)
{
    probe_found found;
    int rc;

    *(volatile uint8_t *)dh_arena_page(&p->arena, PAGE_STORED) = 9;
    rc = probe_scan(p, DH_SCAN_TAKE, &found);
    if (rc != 0)
        return rc;
    if (found.count != 1 || !found.is_written[PAGE_STORED])
        return probe_fail(p, "the second store to a page is not reported");
    return 0;
}

static int probe_track(const probe *p)
{
    int rc;

    memset(p->arena.base, 1, PROBE_PAGES * DH_PAGE_BYTES);
    rc = p->tracker->begin(p->state);
    if (rc != 0)
        return probe_fail_by(p, rc, "memory cannot be registered with userfaultfd");
    rc = p->tracker->arm(p->state, PROBE_PAGES);
    if (rc != 0)
        return probe_fail_by(p, rc, "pages cannot be armed");
    rc = probe_expect_none(p, DH_SCAN_PEEK, "armed pages read as written");
    if (rc == 0)
        rc = probe_write(p);
    if (rc == 0)
        rc = probe_expect_writes(p, DH_SCAN_PEEK);
    if (rc == 0)
        rc = probe_expect_writes(p, DH_SCAN_TAKE);
    if (rc == 0)
        rc = probe_expect_none(p, DH_SCAN_TAKE, "pages taken once are reported again");
    if (rc == 0)
        rc = probe_expect_again(p);
    return rc;
}

/* A mapping and a tracker that live only as long as the question. */
static int probe_tracker(const dh_tracker *tracker, char *text, size_t text_size)
{
    probe p = {.tracker = tracker, .text = text, .text_size = text_size};
    int rc = dh_arena_init(&p.arena, (uint64_t)PROBE_PAGES * DH_PAGE_BYTES);
    dh_range range;

    if (rc != 0) {
        snprintf(text, text_size, "no memory to try the tracker on: %s", dh_error_name(rc));
        return rc;
    }
    range = dh_arena_range(&p.arena);
    dh_fork_guard_hold(); /* a child must not inherit what is open here */
    rc = tracker->open(&range, NULL, &p.state, text, text_size);
    if (rc == 0) {
        rc = probe_track(&p);
        tracker->close(p.state);
    } else {
        if (text[0] == '\0')
            snprintf(text, text_size, "%s", dh_error_name(rc));
        dhi_explain_shortage(rc, text, text_size);
    }
    dh_fork_guard_release();
    dh_arena_finish(&p.arena);
    return rc;
}

static int probe_first(char *text, size_t text_size)
{
    int rc = probe_tracker(&dh_tracker_uffd, text, text_size);

    if (rc == 0 || dhi_is_shortage(rc))
        return rc;
    return probe_tracker(&dh_tracker_uffd_dev, text, text_size);
}

int dh_probe(int tracker, char *text_out, size_t text_size)
{
    char nowhere[2];

    if (text_out == NULL || text_size == 0) {
        text_out = nowhere;
        text_size = sizeof(nowhere);
    }
    text_out[0] = '\0';
    switch (tracker) {
    case DH_TRACKER_AUTO:
        return probe_first(text_out, text_size);
    case DH_TRACKER_UFFD:
        return probe_tracker(&dh_tracker_uffd, text_out, text_size);
    case DH_TRACKER_UFFD_DEV:
        return probe_tracker(&dh_tracker_uffd_dev, text_out, text_size);
    case DH_TRACKER_COMPARE:
    case DH_TRACKER_SHADOW:
    case DH_TRACKER_SCRIPT:
        return 0; /* ask nothing of the kernel */
    default:
        snprintf(text_out, text_size, "there is no tracker number %d", tracker);
        return DH_E_TRACKER;
    }
}

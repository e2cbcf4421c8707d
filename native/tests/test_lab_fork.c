/* The technique by a forked child: nobody learns of it, it outlives nobody, its loss is told. */
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lab/lab.h"
#include "../src/arena.h"
#include "check.h"

#define PAGES 600u

static void *state;
static dh_range range;
static dh_bits found;
static const dh_tracker *const tracker = &dhl_tracker_fork;

static void note(void *context, dh_pgno first, uint64_t count)
{
    (void)context;
    dh_bits_set_run(&found, first, count);
}

static void begin(void)
{
    char why[300];
    void *base;

    CHECK_EQ(dh_reserve(PAGES << DH_PAGE_SHIFT, &base), 0);
    range = (dh_range){.base = base, .pages_count = PAGES};
    CHECK_EQ(dh_bits_init(&found, PAGES), 0);
    CHECK_EQ(tracker->open(&range, NULL, &state, why, sizeof(why)), 0);
    CHECK_EQ(tracker->arm(state, PAGES), 0);
}

static void end(void)
{
    tracker->close(state);
    dh_bits_finish(&found);
    dh_unreserve(range.base, PAGES << DH_PAGE_SHIFT);
}

static int take(uint64_t *pages_out)
{
    int rc;

    dh_bits_clear_all(&found, PAGES);
    rc = tracker->scan(state, 0, PAGES, DH_SCAN_TAKE, note, NULL);
    *pages_out = dh_bits_count(&found, PAGES);
    return rc;
}

static void write_page(uint64_t pgno) { (*(volatile uint8_t *)dh_range_page(&range, pgno))++; }

/* A child of this process, by the kernel's list; 0: none. */
static pid_t some_child(void)
{
    char path[100];
    FILE *file;
    int pid = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    file = fopen(path, "r");
    CHECK(file != NULL);
    if (fscanf(file, "%d", &pid) != 1)
        pid = 0;
    fclose(file);
    return pid;
}

static int fds_count(const char *folder)
{
    DIR *directory = opendir(folder);
    int count = 0;

    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static volatile sig_atomic_t child_signals;

static void on_child(int signal_no)
{
    (void)signal_no;
    child_signals++;
}

static void nobody_learns_of_the_child(void)
{
    int before = fds_count("/proc/self/fd");
    char folder[100];
    uint64_t count;

    signal(SIGCHLD, on_child);
    begin();
    for (int round = 0; round < 5; round++) {
        write_page(3);
        CHECK_EQ(take(&count), 0);
        CHECK_EQ(count, 1);
        CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
        CHECK_EQ(errno, ECHILD);
    }
    CHECK_EQ(fds_count("/proc/self/fd"), before + 2); /* the pipe, and its memory */
    CHECK(some_child() > 0);
    /* Of the program's descriptors it keeps none: ".", "..", the pipe. It may not be so far yet. */
    snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)some_child());
    while (fds_count(folder) != 3)
        sched_yield();
    end();
    CHECK_EQ(some_child(), 0);
    CHECK_EQ(child_signals, 0);
    CHECK_EQ(fds_count("/proc/self/fd"), before);
    signal(SIGCHLD, SIG_DFL);
}

static bool is_gone(pid_t pid)
{
    char path[100], text[200] = "";
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "r");
    if (file == NULL)
        return true;
    if (fread(text, 1, sizeof(text) - 1, file) == 0)
        text[0] = '\0';
    fclose(file);
    return text[0] == '\0' || strstr(text, ") Z") != NULL; /* its new parent may be slow to wait */
}

static void wait_until_gone(pid_t pid)
{
    alarm(60); /* never is a failure, not a hang */
    while (!is_gone(pid))
        sched_yield();
    alarm(0);
}

/* Whoever kills the child takes the image with him: everything counts as written. */
static void a_lost_image_is_told(void)
{
    uint64_t count;

    begin();
    write_page(3);
    CHECK_EQ(kill(some_child(), SIGKILL), 0);
    wait_until_gone(some_child());
    CHECK_EQ(take(&count), DH_E_WATCH);
    CHECK_EQ(count, PAGES);
    write_page(4);
    CHECK_EQ(take(&count), 0); /* a new image was made */
    CHECK_EQ(count, 1);
    end();
}

static void the_child_does_not_outlive_us(void)
{
    pid_t child, image = 0;
    int ends[2];

    CHECK_EQ(pipe(ends), 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        begin();
        image = some_child();
        if (write(ends[1], &image, sizeof(image)) == (ssize_t)sizeof(image))
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    CHECK_EQ(read(ends[0], &image, sizeof(image)), sizeof(image));
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK(image > 0);
    wait_until_gone(image);
    close(ends[0]);
    close(ends[1]);
}

static void memory_that_is_kept_from_children_is_an_error(void)
{
    uint64_t count;

    begin();
    CHECK_EQ(madvise(range.base, DH_PAGE_BYTES, MADV_DONTFORK), 0);
    CHECK_EQ(tracker->arm(state, PAGES), 0);
    CHECK_EQ(take(&count), DH_E_WATCH);
    CHECK(dh_bits_test(&found, 0) && count < PAGES); /* its chunk */
    end();
}

int main(int argc, char **argv)
{
    char why[300];

    check_begin(argc, argv);
    if (dh_lab_probe((size_t)dhl_technique_find("fork"), why, sizeof(why)) != 0)
        SKIP("%s", why);
    nobody_learns_of_the_child();
    a_lost_image_is_told();
    the_child_does_not_outlive_us();
    memory_that_is_kept_from_children_is_an_error();
    return 0;
}

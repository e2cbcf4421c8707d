/* test_probe.c -- what is said and chosen where the kernel feature is forbidden.
 *
 * Each case runs in a child of its own, for none of these prohibitions can be lifted again. Nor is
 * anything else chosen where descriptors have run out.
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "arena.h"
#include "watch.h"

#define NOBODY 65534
#define PROBE_DESCRIPTORS 4 /* userfaultfd, pagemap, a pipe */

static char text[400];

static bool same(void *context, dh_pgno pgno)
{
    (void)context, (void)pgno;
    return true;
}

static const dh_compare_source source = {same, NULL};

static void in_child(void (*check)(int argument), int argument)
{
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(60);
        check(argument);
        fflush(stdout);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

/* Which tracker AUTO takes here; the reason lands in text. */
static int chosen_tracker(void)
{
    dh_arena arena;
    dh_watch *watch;
    int tracker;

    CHECK_EQ(dh_arena_init(&arena, 100 * DH_PAGE_BYTES), 0);
    const dh_range range = dh_arena_range(&arena);
    CHECK_EQ(dh_watch_open(&range, DH_TRACKER_AUTO, &source, &watch, text, sizeof(text)), 0);
    tracker = dh_watch_tracker(watch);
    CHECK(strcmp(text, dh_watch_reason(watch)) == 0);
    CHECK((tracker == DH_TRACKER_UFFD) == (text[0] == '\0'));
    dh_watch_close(watch);
    dh_arena_finish(&arena);
    return tracker;
}

static void forbid_syscall(int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};

    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

/* The other way in stays open, if the device node is there and this user may use it. */
static void check_without_syscall(int error)
{
    bool has_device = access("/dev/userfaultfd", R_OK | W_OK) == 0;

    forbid_syscall(error);
    CHECK(dh_probe(DH_TRACKER_UFFD, text, sizeof(text)) != 0);
    CHECK(strstr(text, "seccomp") != NULL);
    printf("%s\n", text);
    CHECK_EQ(dh_probe(DH_TRACKER_UFFD_DEV, text, sizeof(text)) == 0, has_device);
    CHECK_EQ(dh_probe(DH_TRACKER_AUTO, text, sizeof(text)) == 0, has_device);
    CHECK_EQ(chosen_tracker(), has_device ? DH_TRACKER_UFFD_DEV : DH_TRACKER_COMPARE);
    CHECK(strstr(text, "seccomp") != NULL);
}

static void become_nobody(void)
{
    CHECK_EQ(setgid(NOBODY), 0);
    CHECK_EQ(setuid(NOBODY), 0);
    CHECK_EQ(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0); /* as after exec */
}

static void check_ordinary_user(int argument)
{
    (void)argument;
    become_nobody();
    CHECK_EQ(dh_probe(DH_TRACKER_UFFD, text, sizeof(text)), 0);
    CHECK_EQ(chosen_tracker(), DH_TRACKER_UFFD);
}

static void check_ordinary_user_without_syscall(int error)
{
    become_nobody();
    check_without_syscall(error);
    printf("%s\n", text);
}

static void check_not_dumpable(int argument)
{
    (void)argument;
    become_nobody();
    CHECK_EQ(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
    CHECK(dh_probe(DH_TRACKER_UFFD, text, sizeof(text)) != 0);
    CHECK(strstr(text, "dumpable") != NULL);
    CHECK_EQ(chosen_tracker(), DH_TRACKER_COMPARE);
}

/* Losing the right to open pagemap later does not end a watch that has it open. */
static void check_not_dumpable_later(int argument)
{
    dh_arena arena;
    dh_watch *watch;
    uint64_t pages_count;

    (void)argument;
    become_nobody();
    CHECK_EQ(dh_arena_init(&arena, 100 * DH_PAGE_BYTES), 0);
    const dh_range range = dh_arena_range(&arena);
    CHECK_EQ(dh_watch_open(&range, DH_TRACKER_UFFD, NULL, &watch, NULL, 0), 0);
    CHECK_EQ(dh_watch_arm(watch, 100), 0);
    CHECK_EQ(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
    arena.base[5 * DH_PAGE_BYTES] = 1;
    CHECK_EQ(dh_watch_scan(watch, 100, &pages_count), 0);
    CHECK_EQ(pages_count, 1);
    dh_watch_close(watch);
    dh_arena_finish(&arena);
}

/* A tracker that leaves out a write, or fails, is refused, whatever the kernel is called. */
static void check_failing_scan(int argument)
{
    (void)argument;
    CHECK_EQ(dh_fault_set("watch.scan", 1, EPERM), 0);
    CHECK(dh_probe(DH_TRACKER_UFFD, text, sizeof(text)) != 0);
    CHECK(text[0] != '\0');
    CHECK_EQ(chosen_tracker(), DH_TRACKER_COMPARE);
}

/* Out of descriptors: an errno and what to do, never another tracker. */
static void check_shortage(int error, const char *remedy)
{
    dh_arena arena;
    dh_watch *watch;

    CHECK_EQ(dh_arena_init(&arena, 100 * DH_PAGE_BYTES), 0);
    const dh_range range = dh_arena_range(&arena);
    for (int tracker = DH_TRACKER_AUTO; tracker <= DH_TRACKER_UFFD; tracker++) {
        CHECK_EQ(dh_probe(tracker, text, sizeof(text)), error);
        CHECK(strstr(text, remedy) != NULL);
        text[0] = '\0';
        CHECK_EQ(dh_watch_open(&range, tracker, &source, &watch, text, sizeof(text)), error);
        CHECK(strstr(text, remedy) != NULL);
        CHECK_EQ(dh_watch_open(&range, tracker, NULL, &watch, text, sizeof(text)), error);
    }
    CHECK_EQ(dh_watch_open(&range, DH_TRACKER_COMPARE, &source, &watch, text, sizeof(text)), 0);
    dh_watch_close(watch);
    dh_arena_finish(&arena);
}

/* The first steps succeed: the more, the more descriptors are free. */
static void check_few_descriptors(int free_count)
{
    int first = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct rlimit few = {(rlim_t)(first + free_count), (rlim_t)(first + free_count)};

    CHECK(first >= 0);
    close(first);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    if (free_count < PROBE_DESCRIPTORS)
        check_shortage(EMFILE, "ulimit -n");
    else
        CHECK_EQ(chosen_tracker(), DH_TRACKER_UFFD);
}

static void check_full_system(int error)
{
    forbid_syscall(error);
    check_shortage(error, error == ENFILE ? "fs.file-max" : "allocate memory");
}

static void check_small_text(int argument)
{
    char small[8] = "xxxxxxx";

    (void)argument;
    forbid_syscall(EPERM);
    CHECK(dh_probe(DH_TRACKER_UFFD, NULL, 0) != 0);
    CHECK(dh_probe(DH_TRACKER_UFFD, small, sizeof(small)) != 0);
    CHECK_EQ(strlen(small), sizeof(small) - 1);
    CHECK(dh_probe(99, small, sizeof(small)) == DH_E_TRACKER);
    CHECK_EQ(dh_probe(DH_TRACKER_COMPARE, small, sizeof(small)), 0);
    CHECK_EQ(small[0], '\0');
}

static void a_probe_is_quick(void)
{
    uint64_t start_ns = dhi_clock_ns();

    for (int i = 0; i < 20; i++)
        CHECK_EQ(dh_probe(DH_TRACKER_AUTO, text, sizeof(text)), 0);
    printf("probe: %llu us\n", (unsigned long long)(dhi_clock_ns() - start_ns) / 20000);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    in_child(check_small_text, 0);
    in_child(check_without_syscall, EPERM);
    in_child(check_without_syscall, ENOSYS);
    if (dh_probe(DH_TRACKER_UFFD, text, sizeof(text)) != 0)
        SKIP("%s", text);
    a_probe_is_quick();
    in_child(check_failing_scan, 0);
    for (int free_count = 0; free_count <= PROBE_DESCRIPTORS; free_count++)
        in_child(check_few_descriptors, free_count);
    in_child(check_full_system, ENFILE);
    in_child(check_full_system, ENOMEM);
    if (geteuid() != 0)
        SKIP("only root can become another user");
    in_child(check_ordinary_user, 0);
    in_child(check_ordinary_user_without_syscall, EPERM);
    in_child(check_not_dumpable, 0);
    in_child(check_not_dumpable_later, 0);
    return 0;
}

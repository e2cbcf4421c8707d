/* test_ability.c -- every question about the kernel, as it is and with its means taken away: an answer
 * with a text, and nothing left behind. What the answers should be is for tests/sandbox/test_probe.py.
 */
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base.h"
#include "check.h"

static size_t descriptors_count(void)
{
    DIR *directory = opendir("/proc/self/fd");
    size_t count = 0;

    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void ask_all(int verdicts_out[DH_ABILITIES_COUNT])
{
    size_t before = descriptors_count();

    for (int ability = 0; ability < DH_ABILITIES_COUNT; ability++) {
        char text[256];
        memset(text, 'x', sizeof text);
        verdicts_out[ability] = dh_ability(ability, text, sizeof text);
        CHECK(verdicts_out[ability] >= -1 && verdicts_out[ability] <= 1);
        CHECK(memchr(text, 0, sizeof text) != NULL && text[0] != '\0');
        printf("%2d %2d %s\n", ability, verdicts_out[ability], text);
    }
    CHECK_EQ(descriptors_count(), before);
    CHECK(waitpid(-1, NULL, WNOHANG | (int)__WALL) == -1 && errno == ECHILD);
}

static void in_child(void (*check)(void))
{
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(60);
        check();
        fflush(stdout);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

static void forbid(long number, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};

    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

static void check_without_userfaultfd(void)
{
    int verdicts[DH_ABILITIES_COUNT];
    char text[256];

    forbid(SYS_userfaultfd, EPERM);
    ask_all(verdicts);
    CHECK_EQ(verdicts[DH_ABILITY_UFFD_SYSCALL], 0);
    CHECK_EQ(dh_ability(DH_ABILITY_UFFD_SYSCALL, text, sizeof text), 0);
    CHECK(strstr(text, "not permitted") != NULL);
}

/* Not even a pagemap, a descriptor of the device, or the list of mappings. */
static void check_without_ioctl(void)
{
    int verdicts[DH_ABILITIES_COUNT];

    forbid(SYS_ioctl, ENOTTY);
    ask_all(verdicts);
    CHECK_EQ(verdicts[DH_ABILITY_PAGEMAP], 1);
    CHECK_EQ(verdicts[DH_ABILITY_PAGEMAP_SCAN], 0);
    CHECK(verdicts[DH_ABILITY_WP_ASYNC] <= 0);
    CHECK_EQ(verdicts[DH_ABILITY_DROPPED_PAGES], -1);
    CHECK_EQ(verdicts[DH_ABILITY_UNREGISTERED], -1);
}

static void check_without_descriptors(void)
{
    struct rlimit none = {3, 3};
    char text[256];

    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int ability = 0; ability < DH_ABILITIES_COUNT; ability++) {
        CHECK_EQ(dh_ability(ability, text, sizeof text), -1);
        CHECK(strstr(text, "ulimit -n") != NULL);
    }
}

/* In vain: the sanitizers need all of it themselves. */
static void check_without_memory(void)
{
#ifndef __SANITIZE_ADDRESS__
    struct rlimit little = {64 << 20, 64 << 20};
    char text[256];

    CHECK_EQ(setrlimit(RLIMIT_AS, &little), 0);
    void *rest;
    size_t bytes = 32 << 20;
    while (bytes > 4096) /* until nothing is left */
        if (dh_fault_set(NULL, 0, 0) == 0 && (rest = malloc(bytes)) == NULL)
            bytes /= 2;
    for (int ability = 0; ability < DH_ABILITIES_COUNT; ability++)
        CHECK(dh_ability(ability, text, sizeof text) <= 1);
    CHECK(dh_ability(DH_ABILITY_UNREGISTERED, text, sizeof text) == -1);
#endif
}

static void small_texts_and_questions_that_are_none(void)
{
    char one[1] = {'x'}, small[8];

    (void)dh_ability(DH_ABILITY_PAGEMAP, one, 1);
    CHECK_EQ(one[0], '\0');
    (void)dh_ability(DH_ABILITY_PAGEMAP, small, sizeof small);
    CHECK_EQ(strlen(small), sizeof small - 1);
    CHECK_EQ(dh_ability(DH_ABILITIES_COUNT, small, sizeof small), -1);
    CHECK_EQ(dh_ability(-1, small, sizeof small), -1);
}

int main(int argc, char **argv)
{
    int first[DH_ABILITIES_COUNT], again[DH_ABILITIES_COUNT];

    check_begin(argc, argv);
    small_texts_and_questions_that_are_none();
    ask_all(first);
    ask_all(again);
    for (int ability = 0; ability < DH_ABILITIES_COUNT; ability++)
        if (ability != DH_ABILITY_DROPPED_HUGE) /* which needs a huge page to be free */
            CHECK_EQ(first[ability], again[ability]);
    in_child(check_without_userfaultfd);
    in_child(check_without_ioctl);
    in_child(check_without_descriptors);
    in_child(check_without_memory);
    return 0;
}

/* test_forkguard.c -- guards run in every forked child, also while others open and close. */
#include "forkguard.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define FD_FIRST 500 /* descriptors at or beyond it are the thread's */

static void count_call(void *context) { ++*(int *)context; }

/* Run check in a child and demand that it comes to an end in peace. */
static void in_child(void (*check)(void *context), void *context)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        alarm(20); /* a deadlock is a failure, not a hang */
        check(context);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

static int calls[3];

static void check_first_and_last_ran(void *context)
{
    dh_fork_guard *guard;

    (void)context;
    CHECK_EQ(calls[0], 1);
    CHECK_EQ(calls[1], 0);
    CHECK_EQ(calls[2], 1);
    CHECK_EQ(dh_fork_guard_open(count_call, &calls[1], &guard), 0); /* the lock is free */
    dh_fork_guard_close(guard);
}

static void only_open_guards_run_and_only_in_the_child(void)
{
    dh_fork_guard *guards[3];

    for (int i = 0; i < 3; i++)
        CHECK_EQ(dh_fork_guard_open(count_call, &calls[i], &guards[i]), 0);
    dh_fork_guard_close(guards[1]);
    in_child(check_first_and_last_ran, NULL);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(calls[i], 0);
    dh_fork_guard_close(guards[0]);
    dh_fork_guard_close(guards[2]);
    dh_fork_guard_close(NULL);
}

/* A descriptor that is opened and closed all the time, the way a watch does it. */
typedef struct {
    int fd;
    bool is_over;
} busy;

static void busy_child(void *context)
{
    busy *b = context;

    if (b->fd >= 0)
        close(b->fd);
    b->fd = -1;
}

static void *busy_thread(void *context)
{
    busy *b = context;

    while (!__atomic_load_n(&b->is_over, __ATOMIC_RELAXED)) {
        dh_fork_guard *guard;
        int fd;

        CHECK_EQ(dh_fork_guard_open(busy_child, b, &guard), 0);
        dh_fork_guard_hold();
        fd = fcntl(0, F_DUPFD, FD_FIRST);
        CHECK(fd >= FD_FIRST);
        b->fd = fd;
        dh_fork_guard_release();
        dh_fork_guard_hold();
        close(b->fd);
        b->fd = -1;
        dh_fork_guard_release();
        dh_fork_guard_close(guard);
    }
    return NULL;
}

static void check_nothing_was_inherited(void *context)
{
    (void)context;
    for (int fd = FD_FIRST; fd < FD_FIRST + 20; fd++)
        CHECK(close(fd) != 0);
}

static void a_fork_during_open_and_close_leaks_nothing(void)
{
    busy b = {.fd = -1};
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, busy_thread, &b), 0);
    for (int round = 0; round < 200; round++)
        in_child(check_nothing_was_inherited, NULL);
    __atomic_store_n(&b.is_over, true, __ATOMIC_RELAXED);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    only_open_guards_run_and_only_in_the_child();
    a_fork_during_open_and_close_leaks_nothing();
    return 0;
}

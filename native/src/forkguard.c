/* forkguard.c -- one list of guards for the process, walked in every forked child.
 *
 * Fork takes the list's lock in its prepare handler and gives it back on both sides, so no fork
 * falls into the middle of an open or close, neither of a guard nor of the descriptors that are
 * opened between dh_fork_guard_hold and dh_fork_guard_release. In the child nothing is allocated,
 * freed or waited for: another thread of the parent may have held any other lock
 * (pthread_atfork, POSIX.1-2017). vfork and raw clone run no handlers: whoever owns a descriptor
 * that acts on its opener's memory also compares process ids.
 */
#include "forkguard.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct dh_fork_guard {
    dh_fork_child child;
    void *context;
    dh_fork_guard *next;
    dh_fork_guard *previous;
};

static pthread_mutex_t guards_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t guards_once = PTHREAD_ONCE_INIT;
static dh_fork_guard *guards_first;
static int guards_rc; /* what pthread_atfork said */

static void guards_prepare(void) { pthread_mutex_lock(&guards_lock); }
static void guards_parent(void) { pthread_mutex_unlock(&guards_lock); }

static void guards_child(void)
{
    for (dh_fork_guard *guard = guards_first; guard != NULL; guard = guard->next)
        guard->child(guard->context);
    pthread_mutex_unlock(&guards_lock);
}

static void guards_register(void)
{
    guards_rc = pthread_atfork(guards_prepare, guards_parent, guards_child);
}

int dh_fork_guard_open(dh_fork_child child, void *context, dh_fork_guard **guard_out)
{
    dh_fork_guard *guard;

    DH_ASSERT(child != NULL);
    pthread_once(&guards_once, guards_register);
    if (guards_rc != 0)
        return guards_rc;
    guard = malloc(sizeof(*guard));
    if (guard == NULL)
        return ENOMEM;
    *guard = (dh_fork_guard){.child = child, .context = context};
    dh_fork_guard_hold();
    guard->next = guards_first;
    if (guards_first != NULL)
        guards_first->previous = guard;
    guards_first = guard;
    dh_fork_guard_release();
    *guard_out = guard;
    return 0;
}

void dh_fork_guard_close(dh_fork_guard *guard)
{
    if (guard == NULL)
        return;
    dh_fork_guard_hold();
    if (guard->previous != NULL)
        guard->previous->next = guard->next;
    else
        guards_first = guard->next;
    if (guard->next != NULL)
        guard->next->previous = guard->previous;
    dh_fork_guard_release();
    free(guard);
}

void dh_owned_fd_close(dh_owned_fd *owned)
{
    int fd = owned->fd;
    owned->fd = -1;
    if (fd >= 0 && owned->pid == getpid())
        (void)close(fd);
}

void dh_fork_guard_hold(void) { pthread_mutex_lock(&guards_lock); }
void dh_fork_guard_release(void) { pthread_mutex_unlock(&guards_lock); }

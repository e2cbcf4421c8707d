/* forkguard.h -- what must not live on in a forked child.
 *
 * An inherited pagemap descriptor scans, and robs, the parent (kernel pagemap documentation: bits
 * are per mm of the opener); an inherited lock descriptor keeps a dead parent's heap locked. The
 * guard is registered with pthread_atfork, so that forks made by C code count too.
 */
#ifndef DH_FORKGUARD_H
#define DH_FORKGUARD_H

#include "base.h"

typedef struct dh_fork_guard dh_fork_guard;
/* Called in the child, async-signal-safe. */
typedef void (*dh_fork_child)(void *context);

int dh_fork_guard_open(dh_fork_child child, void *context, dh_fork_guard **guard_out);
void dh_fork_guard_close(dh_fork_guard *guard);
/* No fork() happens between the two: open or close a descriptor and publish it to the guard's
 * context in there. Not nested; open and close no guard and wait for no other lock inside. */
void dh_fork_guard_hold(void);
void dh_fork_guard_release(void);

#endif

/* preload.h -- what the three files of the preload library share.
 *
 *   interpose.c  the calls of the C library that are taken over, one small function each
 *   log.c        the record: one entry a call, with the bytes that were written
 *   inject.c     the n-th call of a kind fails, is cut short, or is the last thing the process does
 *
 * Everything concerns files below RECORDER_ROOT only; other calls pass through. The real work is done
 * by system calls made here, so that the order of entries is the order of effects: a call and its
 * entry are one step under one lock.
 */
#ifndef PRELOAD_H
#define PRELOAD_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* What happened; recording.py has the same numbers. */
enum {
    OP_CREATE_FILE = 1,
    OP_CREATE_DIRECTORY,
    OP_WRITE,
    OP_TRUNCATE,
    OP_SYNC,
    OP_RENAME,
    OP_UNLINK,
    OP_REMOVE_DIRECTORY,
    OP_MARK,       /* the workload says something                                        */
    OP_MAP_SHARED, /* stores to this file from now on are not in the record              */
    OP_UNMODELLED, /* a call whose effect is not in the record: path says which          */
};
#define FLAG_SYNCHRONOUS 1u /* of a write: durable when the call returns                      */

/* Kinds of calls that can be made to fail; injecting.py has the same numbers. */
enum {
    CALL_WRITE = 0,
    CALL_SYNC,
    CALL_OPEN,
    CALL_NAME, /* mkdir, rmdir, unlink, rename */
    CALL_TRUNCATE,
    CALL_READ,
    CALL_MAP,   /* mmap by a chosen module */
    CALL_ALLOC, /* malloc, calloc, realloc, posix_memalign by a chosen module */
    CALL_KINDS,
};

typedef enum {
    ACT_GO_ON = 0,
    ACT_FAIL,  /* errno is set */
    ACT_SHORT, /* a write or read: do the first half */
    ACT_DIE_AFTER,
    ACT_DIE_TORN, /* a write: die after the first half */
} preload_act;

/* --- log.c --- */
typedef struct {
    uint32_t op, flags;
    uint64_t inode;
    int64_t offset;
    const char *path, *other_path; /* relative to the root */
    const struct iovec *parts;
    int parts_count;
    uint64_t data_bytes; /* of the parts; may be less than they hold */
} preload_entry;

bool preload_skips_syncs(void);
void preload_lock(void);
void preload_unlock(void);
void preload_log(const preload_entry *entry);
/* The part of an absolute path below the root, empty for the root; NULL: it is not there. */
const char *preload_below_root(const char *path);
/* As above for a name as an *at call takes it; the text is kept in path_out. */
const char *preload_locate(int directory_fd, const char *name, char path_out[PATH_MAX]);
const char *preload_locate_fd(int fd, char path_out[PATH_MAX]);

/* --- inject.c --- */
/* To be asked before each call of a kind. A process that is to die before the call dies here. */
preload_act preload_decide(int kind);
_Noreturn void preload_die(void);
/* Whether calls from that address count: see preload_arm. */
bool preload_is_chosen(const void *caller);
bool preload_is_armed(int kind);

/* --- for the workload, through dlsym --- */
/* Write a mark into the record. */
void preload_mark(const char *text);
/* Call number n of these kinds (a bit each; the first is 0) meets `act`: "fail" once, "fail-on" also
 * all after it, "short", "die-before", "die-after", "die-torn". `modules`: parts of the names of the
 * shared objects whose mmap and malloc count, separated by commas; empty: all. 0, or -1. */
int preload_arm(unsigned kinds, long n, const char *act, int error, const char *modules);
/* No more of it; returns how many calls were counted since it was armed. */
long preload_disarm(void);

#endif

/* log.c -- the record: where it goes, and which files it is about.
 *
 * RECORDER_LOG names the record (none: nothing is written), RECORDER_ROOT the directory whose files
 * it is about. With RECORDER_SKIP_SYNCS=1 syncs are counted and not done: who only kills processes or
 * makes calls fail need not wait for the disk. An entry that cannot be written ends the process: an incomplete record proves nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

#define ENTRY_MAGIC 0x43524844u /* "DHRC" */

typedef struct {
    uint32_t magic, op, flags, path_bytes, other_path_bytes, zero;
    uint64_t inode, data_bytes;
    int64_t offset;
} entry_head; /* recording.py reads the same 48 bytes */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_bytes;
static bool skips_syncs;

__attribute__((constructor)) static void log_open(void)
{
    const char *path = getenv("RECORDER_LOG"), *directory = getenv("RECORDER_ROOT");

    if (directory != NULL && realpath(directory, root) != NULL)
        root_bytes = strlen(root);
    skips_syncs = getenv("RECORDER_SKIP_SYNCS") != NULL;
    if (path != NULL)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                              0600);
    pthread_atfork(preload_lock, preload_unlock, preload_unlock);
}

bool preload_skips_syncs(void) { return skips_syncs; }
void preload_lock(void) { pthread_mutex_lock(&lock); }
void preload_unlock(void) { pthread_mutex_unlock(&lock); }

static void append(const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        long done = syscall(SYS_write, log_fd, at, size);
        if (done <= 0)
            abort();
        at += done;
        size -= (size_t)done;
    }
}

void preload_log(const preload_entry *entry)
{
    const char *path = entry->path != NULL ? entry->path : "";
    const char *other_path = entry->other_path != NULL ? entry->other_path : "";
    entry_head head = {.magic = ENTRY_MAGIC,
                       .op = entry->op,
                       .flags = entry->flags,
                       .path_bytes = (uint32_t)strlen(path),
                       .other_path_bytes = (uint32_t)strlen(other_path),
                       .inode = entry->inode,
                       .data_bytes = entry->data_bytes,
                       .offset = entry->offset};
    uint64_t left = entry->data_bytes;
    int saved = errno;

    if (log_fd >= 0) {
        append(&head, sizeof(head));
        append(path, head.path_bytes);
        append(other_path, head.other_path_bytes);
        for (int i = 0; i < entry->parts_count && left > 0; i++) {
            size_t size = entry->parts[i].iov_len < left ? entry->parts[i].iov_len : (size_t)left;
            append(entry->parts[i].iov_base, size);
            left -= size;
        }
    }
    errno = saved;
}

void preload_mark(const char *text)
{
    preload_lock();
    preload_log(&(preload_entry){.op = OP_MARK, .path = text});
    preload_unlock();
}

/* --- which files ------------------------------------------------------------------------------ */

const char *preload_below_root(const char *path)
{
    if (root_bytes == 0 || strncmp(path, root, root_bytes) != 0)
        return NULL;
    if (path[root_bytes] == '\0')
        return path + root_bytes;
    return path[root_bytes] == '/' ? path + root_bytes + 1 : NULL;
}

/* Path behind a descriptor; for what has none (pipes, sockets) something like "pipe:[1]". */
static bool path_of(int fd, char path_out[PATH_MAX])
{
    char link[64];
    int saved = errno;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path_out, PATH_MAX - 1);
    path_out[length < 0 ? 0 : length] = '\0';
    errno = saved;
    return length > 0;
}

const char *preload_locate_fd(int fd, char path_out[PATH_MAX])
{
    return root_bytes > 0 && path_of(fd, path_out) ? preload_below_root(path_out) : NULL;
}

const char *preload_locate(int directory_fd, const char *name, char path_out[PATH_MAX])
{
    char base[PATH_MAX];
    int saved = errno;
    bool is_known = name != NULL && root_bytes > 0;

    if (is_known && name[0] == '/') {
        is_known = snprintf(path_out, PATH_MAX, "%s", name) < PATH_MAX;
    } else if (is_known) {
        is_known = directory_fd == AT_FDCWD ? getcwd(base, sizeof(base)) != NULL
                                            : path_of(directory_fd, base);
        is_known = is_known && snprintf(path_out, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
    }
    errno = saved;
    return is_known ? preload_below_root(path_out) : NULL;
}

/* recorder.c -- LD_PRELOAD library: writes down every write, sync and naming call, in order.
 *
 * test_sync_order.py compiles it, runs a writer under it and reads the record. One line a call:
 *
 *   name <tab> path <tab> offset <tab> size <tab> flags
 *
 * A call and its line are one step under a lock, so the order of lines is the order of effects.
 * RECORDER_LOG names the record. RECORDER_DROP, for negative controls, names what to leave out:
 * any of the words "files", "directories": their syncs report success and do nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) real_##name = (__typeof__(real_##name))dlsym(RTLD_NEXT, #name)

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_msync)(void *, size_t, int);
static int (*real_rename)(const char *, const char *);
static int (*real_renameat)(int, const char *, int, const char *);
static int (*real_unlink)(const char *);
static int (*real_unlinkat)(int, const char *, int);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_mkdirat)(int, const char *, mode_t);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

__attribute__((constructor)) static void recorder_open(void)
{
    const char *path = getenv("RECORDER_LOG");

    REAL(open);
    REAL(openat);
    REAL(write);
    REAL(writev);
    REAL(pwrite);
    REAL(pwritev);
    REAL(fsync);
    REAL(fdatasync);
    REAL(msync);
    REAL(rename);
    REAL(renameat);
    REAL(unlink);
    REAL(unlinkat);
    REAL(mkdir);
    REAL(mkdirat);
    if (path != NULL)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                              0600);
}

/* --- the record ------------------------------------------------------------------------------- */

static void note(const char *name, const char *path, long long offset, long long size, int flags)
{
    char line[PATH_MAX + 128];
    int length = snprintf(line, sizeof(line), "%s\t%s\t%lld\t%lld\t%s\n", name, path, offset, size,
                          flags & (O_SYNC | O_DSYNC) ? "sync" : "-");

    if (log_fd < 0 || syscall(SYS_write, log_fd, line, (size_t)length) != length)
        abort(); /* an incomplete record proves nothing */
}

/* Path behind a descriptor; for what has none (pipes, sockets) something like "pipe:[1]". */
static void path_of(int fd, char path_out[PATH_MAX])
{
    char link[64];
    ssize_t length;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    length = readlink(link, path_out, PATH_MAX - 1);
    path_out[length < 0 ? 0 : length] = '\0';
}

static void note_fd(const char *name, int fd, long long offset, long long size)
{
    char path[PATH_MAX];
    int saved = errno;
    int flags = fcntl(fd, F_GETFL);

    path_of(fd, path);
    note(name, path, offset, size, flags < 0 ? 0 : flags);
    errno = saved;
}

/* The name an *at call means, absolute. */
static void note_name(const char *name, int directory, const char *path)
{
    char base[PATH_MAX], whole[2 * PATH_MAX];
    int saved = errno;

    if (path[0] == '/') {
        note(name, path, 0, 0, 0);
    } else {
        if (directory == AT_FDCWD)
            base[0] = '\0', (void)!getcwd(base, sizeof(base));
        else
            path_of(directory, base);
        snprintf(whole, sizeof(whole), "%s/%s", base, path);
        note(name, whole, 0, 0, 0);
    }
    errno = saved;
}

static bool is_directory(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_dropped(const char *kind)
{
    const char *drop = getenv("RECORDER_DROP");

    return drop != NULL && strstr(drop, kind) != NULL;
}

/* --- naming calls ----------------------------------------------------------------------------- */

static int open_noted(int directory, const char *path, int flags, mode_t mode)
{
    bool is_new = (flags & O_CREAT) && faccessat(directory, path, F_OK, 0) != 0;
    int fd;

    pthread_mutex_lock(&lock);
    fd = real_openat(directory, path, flags, mode);
    if (fd >= 0 && is_new)
        note_name("create", directory, path);
    if (fd >= 0 && (flags & O_TRUNC) && !is_new)
        note_fd("truncate", fd, 0, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(arguments, int) : 0;
}

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...)          \
    {                                                   \
        va_list arguments;                              \
        va_start(arguments, flags);                     \
        mode_t mode = mode_of(flags, arguments);        \
        va_end(arguments);                              \
        return open_noted(AT_FDCWD, path, flags, mode); \
    }
#define OPENAT(name)                                          \
    int name(int directory, const char *path, int flags, ...) \
    {                                                         \
        va_list arguments;                                    \
        va_start(arguments, flags);                           \
        mode_t mode = mode_of(flags, arguments);              \
        va_end(arguments);                                    \
        return open_noted(directory, path, flags, mode);      \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define NOTED(call, noting)           \
    pthread_mutex_lock(&lock);        \
    __typeof__(call) result = (call); \
    if (result >= 0)                  \
        noting;                       \
    pthread_mutex_unlock(&lock);      \
    return result

int rename(const char *from, const char *to)
{
    NOTED(real_rename(from, to), note_name("rename", AT_FDCWD, to));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    NOTED(real_renameat(from_fd, from, to_fd, to), note_name("rename", to_fd, to));
}

int unlink(const char *path) { NOTED(real_unlink(path), note_name("unlink", AT_FDCWD, path)); }

int unlinkat(int directory, const char *path, int flags)
{
    NOTED(real_unlinkat(directory, path, flags), note_name("unlink", directory, path));
}

int mkdir(const char *path, mode_t mode)
{
    NOTED(real_mkdir(path, mode), note_name("create", AT_FDCWD, path));
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    NOTED(real_mkdirat(directory, path, mode), note_name("create", directory, path));
}

/* --- writes ----------------------------------------------------------------------------------- */

/* Where the bytes just written at the file's own position went; negative for pipes and the like. */
static long long written_at(int fd, ssize_t size)
{
    int saved = errno;
    off_t end = lseek(fd, 0, SEEK_CUR);

    errno = saved;
    return end < 0 ? -1 : (long long)end - (long long)size;
}

ssize_t write(int fd, const void *data, size_t size)
{
    NOTED(real_write(fd, data, size), note_fd("write", fd, written_at(fd, result), result));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    NOTED(real_writev(fd, parts, count), note_fd("write", fd, written_at(fd, result), result));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    NOTED(real_pwrite(fd, data, size, offset), note_fd("write", fd, offset, result));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    NOTED(real_pwritev(fd, parts, count, offset), note_fd("write", fd, offset, result));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return pwritev(fd, parts, count, offset);
}

/* --- syncs ------------------------------------------------------------------------------------ */

static int sync_noted(int fd, int (*real)(int))
{
    if (is_dropped(is_directory(fd) ? "directories" : "files"))
        return 0;
    NOTED(real(fd), note_fd("sync", fd, 0, 0));
}

int fsync(int fd) { return sync_noted(fd, real_fsync); }
int fdatasync(int fd) { return sync_noted(fd, real_fdatasync); }

int msync(void *address, size_t size, int flags)
{
    NOTED(real_msync(address, size, flags), note("msync", "", 0, (long long)size, 0));
}

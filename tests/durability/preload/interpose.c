/* interpose.c -- the calls of the C library that are taken over.
 *
 * Writing, syncing and naming calls below the root are recorded; a call there whose effect cannot be
 * recorded leaves an entry that says so. Must never call what it takes over: the work is done by
 * system calls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

#define PARTS_MAX 1024

static uint64_t inode_of(int fd)
{
    struct stat status;
    int saved = errno;
    uint64_t inode = fstat(fd, &status) == 0 ? (uint64_t)status.st_ino : 0;

    errno = saved;
    return inode;
}

static uint64_t inode_at(int directory, const char *path)
{
    struct stat status;
    int saved = errno;
    uint64_t inode =
        fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)status.st_ino : 0;

    errno = saved;
    return inode;
}

/* The call went by unrecorded, if it was about a file of ours. */
static void note_unmodelled_fd(int fd, const char *call)
{
    char path[PATH_MAX];

    if (preload_locate_fd(fd, path) == NULL)
        return;
    preload_lock();
    preload_log(&(preload_entry){.op = OP_UNMODELLED, .path = call, .other_path = path});
    preload_unlock();
}

static void note_unmodelled_name(int directory, const char *name, const char *call)
{
    char path[PATH_MAX];

    if (preload_locate(directory, name, path) == NULL)
        return;
    preload_lock();
    preload_log(&(preload_entry){.op = OP_UNMODELLED, .path = call, .other_path = path});
    preload_unlock();
}

/* --- opening ---------------------------------------------------------------------------------- */

static int open_there(int directory, const char *name, int flags, mode_t mode, const char *below)
{
    preload_act act = preload_decide(CALL_OPEN);
    if (act == ACT_FAIL)
        return -1;
    bool is_new = (flags & O_CREAT) && inode_at(directory, name) == 0;
    if (preload_skips_syncs())
        flags &= ~O_SYNC; /* O_DSYNC is in it */
    int fd = (int)syscall(SYS_openat, directory, name, flags, mode);
    if (fd >= 0 && (flags & O_TMPFILE) == O_TMPFILE)
        preload_log(&(preload_entry){.op = OP_UNMODELLED, .path = "O_TMPFILE"});
    else if (fd >= 0 && is_new)
        preload_log(&(preload_entry){.op = OP_CREATE_FILE, .inode = inode_of(fd), .path = below});
    else if (fd >= 0 && (flags & O_TRUNC))
        preload_log(&(preload_entry){.op = OP_TRUNCATE, .inode = inode_of(fd), .path = below});
    if (act == ACT_DIE_AFTER || act == ACT_DIE_TORN)
        preload_die();
    return fd;
}

static int open_any(int directory, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    const char *below = preload_locate(directory, name, path);

    if (below == NULL)
        return (int)syscall(SYS_openat, directory, name, flags, mode);
    preload_lock();
    int fd = open_there(directory, name, flags, mode, below);
    preload_unlock();
    return fd;
}

#define MODE_OF(flags)                              \
    mode_t mode = 0;                                \
    if ((flags) & (O_CREAT | O_TMPFILE)) {          \
        va_list arguments;                          \
        va_start(arguments, flags);                 \
        mode = (mode_t)va_arg(arguments, unsigned); \
        va_end(arguments);                          \
    }

int open(const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_any(AT_FDCWD, name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_any(AT_FDCWD, name, flags, mode);
}

int openat(int directory, const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_any(directory, name, flags, mode);
}

int openat64(int directory, const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_any(directory, name, flags, mode);
}

int creat(const char *name, mode_t mode)
{
    return open_any(AT_FDCWD, name, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

int creat64(const char *name, mode_t mode) { return creat(name, mode); }

/* --- writing ---------------------------------------------------------------------------------- */

#define AT_POSITION (-1)

static ssize_t write_really(int fd, const struct iovec *parts, int count, off_t offset)
{
    return offset == AT_POSITION ? syscall(SYS_writev, fd, parts, count)
                                 : syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

/* The first half of what the parts hold. */
static int halve(const struct iovec *parts, int count, struct iovec half_out[PARTS_MAX])
{
    size_t size = 0, done = 0;
    int halves = 0;

    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    for (int i = 0; i < count && halves < PARTS_MAX && done < size / 2; i++) {
        size_t take = parts[i].iov_len < size / 2 - done ? parts[i].iov_len : size / 2 - done;
        half_out[halves++] = (struct iovec){parts[i].iov_base, take};
        done += take;
    }
    return halves;
}

static void note_write(int fd, const char *below, const struct iovec *parts, int count,
                       off_t offset, ssize_t size)
{
    int saved = errno, mode = fcntl(fd, F_GETFL);

    /* The end, less what was written: right for O_APPEND too. */
    if (offset == AT_POSITION)
        offset = lseek(fd, 0, SEEK_CUR) - size;
    preload_log(&(preload_entry){.op = OP_WRITE,
                                 .flags = mode & O_DSYNC ? FLAG_SYNCHRONOUS : 0, /* in O_SYNC */
                                 .inode = inode_of(fd),
                                 .offset = offset,
                                 .path = below,
                                 .parts = parts,
                                 .parts_count = count,
                                 .data_bytes = (uint64_t)size});
    errno = saved;
}

static ssize_t write_there(int fd, const struct iovec *parts, int count, off_t offset,
                           const char *below)
{
    struct iovec half[PARTS_MAX];
    preload_act act = preload_decide(CALL_WRITE);

    if (act == ACT_FAIL)
        return -1;
    if (act == ACT_SHORT || act == ACT_DIE_TORN) {
        count = halve(parts, count, half);
        parts = half;
    }
    ssize_t size = write_really(fd, parts, count, offset);
    if (size > 0)
        note_write(fd, below, parts, count, offset, size);
    if (act == ACT_DIE_AFTER || act == ACT_DIE_TORN)
        preload_die();
    return size;
}

static ssize_t write_any(int fd, const struct iovec *parts, int count, off_t offset)
{
    char path[PATH_MAX];
    const char *below = preload_locate_fd(fd, path);

    if (below == NULL)
        return write_really(fd, parts, count, offset);
    preload_lock();
    ssize_t size = write_there(fd, parts, count, offset, below);
    preload_unlock();
    return size;
}

static ssize_t write_one(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec part = {(void *)(uintptr_t)data, size};

    return write_any(fd, &part, 1, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return write_one(fd, data, size, AT_POSITION);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return write_one(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return write_one(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return write_any(fd, parts, count, AT_POSITION);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return write_any(fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return write_any(fd, parts, count, offset);
}

static int resize_any(int fd, off_t size)
{
    char path[PATH_MAX];
    const char *below = preload_locate_fd(fd, path);

    if (below == NULL)
        return (int)syscall(SYS_ftruncate, fd, size);
    preload_lock();
    preload_act act = preload_decide(CALL_TRUNCATE);
    int rc = act == ACT_FAIL ? -1 : (int)syscall(SYS_ftruncate, fd, size);
    if (rc == 0)
        preload_log(&(preload_entry){
            .op = OP_TRUNCATE, .inode = inode_of(fd), .offset = size, .path = below});
    if (act == ACT_DIE_AFTER || act == ACT_DIE_TORN)
        preload_die();
    preload_unlock();
    return rc;
}

int ftruncate(int fd, off_t size) { return resize_any(fd, size); }
int ftruncate64(int fd, off_t size) { return resize_any(fd, size); }

/* --- syncing ---------------------------------------------------------------------------------- */

static int sync_any(int fd, long number)
{
    char path[PATH_MAX];
    const char *below = preload_locate_fd(fd, path);

    if (below == NULL)
        return (int)syscall(number, fd);
    preload_lock();
    preload_act act = preload_decide(CALL_SYNC);
    int rc = act == ACT_FAIL ? -1 : preload_skips_syncs() ? 0 : (int)syscall(number, fd);
    if (rc == 0)
        preload_log(&(preload_entry){.op = OP_SYNC, .inode = inode_of(fd), .path = below});
    if (act == ACT_DIE_AFTER || act == ACT_DIE_TORN)
        preload_die();
    preload_unlock();
    return rc;
}

int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

/* --- naming ----------------------------------------------------------------------------------- */

static void name_changed(preload_act act, int rc, const preload_entry *entry)
{
    if (rc == 0)
        preload_log(entry);
    if (act == ACT_DIE_AFTER || act == ACT_DIE_TORN)
        preload_die();
    preload_unlock();
}

static int unlink_any(int directory, const char *name, int flags)
{
    char path[PATH_MAX];
    const char *below = preload_locate(directory, name, path);

    if (below == NULL)
        return (int)syscall(SYS_unlinkat, directory, name, flags);
    preload_lock();
    preload_act act = preload_decide(CALL_NAME);
    int rc = act == ACT_FAIL ? -1 : (int)syscall(SYS_unlinkat, directory, name, flags);
    name_changed(act, rc,
                 &(preload_entry){.op = flags & AT_REMOVEDIR ? OP_REMOVE_DIRECTORY : OP_UNLINK,
                                  .path = below});
    return rc;
}

int unlink(const char *name) { return unlink_any(AT_FDCWD, name, 0); }
int unlinkat(int directory, const char *name, int flags)
{
    return unlink_any(directory, name, flags);
}
int rmdir(const char *name) { return unlink_any(AT_FDCWD, name, AT_REMOVEDIR); }

static int mkdir_any(int directory, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    const char *below = preload_locate(directory, name, path);

    if (below == NULL)
        return (int)syscall(SYS_mkdirat, directory, name, mode);
    preload_lock();
    preload_act act = preload_decide(CALL_NAME);
    int rc = act == ACT_FAIL ? -1 : (int)syscall(SYS_mkdirat, directory, name, mode);
    name_changed(act, rc,
                 &(preload_entry){
                     .op = OP_CREATE_DIRECTORY, .inode = inode_at(directory, name), .path = below});
    return rc;
}

int mkdir(const char *name, mode_t mode) { return mkdir_any(AT_FDCWD, name, mode); }
int mkdirat(int directory, const char *name, mode_t mode)
{
    return mkdir_any(directory, name, mode);
}

static int rename_any(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    char from_path[PATH_MAX], to_path[PATH_MAX];
    const char *from_below = preload_locate(from_fd, from, from_path);
    const char *to_below = preload_locate(to_fd, to, to_path);

    if (from_below == NULL && to_below == NULL)
        return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    preload_lock();
    preload_act act = preload_decide(CALL_NAME);
    int rc = act == ACT_FAIL ? -1 : (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    bool is_modelled = from_below != NULL && to_below != NULL && flags == 0;
    name_changed(act, rc,
                 &(preload_entry){.op = is_modelled ? OP_RENAME : OP_UNMODELLED,
                                  .path = is_modelled ? from_below : "rename",
                                  .other_path = to_below});
    return rc;
}

int rename(const char *from, const char *to) { return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return rename_any(from_fd, from, to_fd, to, 0);
}
int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    return rename_any(from_fd, from, to_fd, to, flags);
}

/* --- reading ---------------------------------------------------------------------------------- */

static ssize_t read_any(int fd, void *data, size_t size, off_t offset)
{
    char path[PATH_MAX];
    preload_act act = ACT_GO_ON;

    if (preload_is_armed(CALL_READ) && preload_locate_fd(fd, path) != NULL)
        act = preload_decide(CALL_READ);
    if (act == ACT_FAIL)
        return -1;
    if (act == ACT_SHORT)
        size = (size + 1) / 2;
    return offset == AT_POSITION ? syscall(SYS_read, fd, data, size)
                                 : syscall(SYS_pread64, fd, data, size, offset);
}

ssize_t read(int fd, void *data, size_t size) { return read_any(fd, data, size, AT_POSITION); }
ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return read_any(fd, data, size, offset);
}
ssize_t pread64(int fd, void *data, size_t size, off_t offset)
{
    return read_any(fd, data, size, offset);
}

/* --- memory ----------------------------------------------------------------------------------- */

static bool is_refused(int kind, const void *caller)
{
    return preload_is_armed(kind) && preload_is_chosen(caller) && preload_decide(kind) == ACT_FAIL;
}

static void *map_any(void *address, size_t size, int protection, int flags, int fd, off_t offset,
                     const void *caller)
{
    char path[PATH_MAX];

    if (is_refused(CALL_MAP, caller))
        return MAP_FAILED;
    if (fd >= 0 && (flags & MAP_TYPE) != MAP_PRIVATE && (protection & PROT_WRITE)) {
        const char *below = preload_locate_fd(fd, path);
        preload_lock();
        if (below != NULL)
            preload_log(
                &(preload_entry){.op = OP_MAP_SHARED, .inode = inode_of(fd), .path = below});
        preload_unlock();
    }
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return map_any(address, size, protection, flags, fd, offset, __builtin_return_address(0));
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return map_any(address, size, protection, flags, fd, offset, __builtin_return_address(0));
}

/* glibc's own, under the names by which they can be reached from here. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t size)
{
    if (is_refused(CALL_ALLOC, __builtin_return_address(0)))
        return NULL;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    if (is_refused(CALL_ALLOC, __builtin_return_address(0)))
        return NULL;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    if (is_refused(CALL_ALLOC, __builtin_return_address(0)))
        return NULL;
    return __libc_realloc(old, size);
}

int posix_memalign(void **memory_out, size_t alignment, size_t size)
{
    if (is_refused(CALL_ALLOC, __builtin_return_address(0)))
        return ENOMEM;
    *memory_out = __libc_memalign(alignment, size);
    return *memory_out != NULL ? 0 : ENOMEM;
}

/* --- what the record cannot tell -------------------------------------------------------------- */

int truncate(const char *name, off_t size)
{
    int fd = open_any(AT_FDCWD, name, O_WRONLY, 0);
    if (fd < 0)
        return -1;
    int rc = resize_any(fd, size), saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

int truncate64(const char *name, off_t size) { return truncate(name, size); }

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    note_unmodelled_fd(fd, "fallocate");
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

int fallocate64(int fd, int mode, off_t offset, off_t size)
{
    return fallocate(fd, mode, offset, size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    return fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off_t offset, off_t size)
{
    return posix_fallocate(fd, offset, size);
}

int link(const char *from, const char *to)
{
    note_unmodelled_name(AT_FDCWD, to, "link");
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    note_unmodelled_name(to_fd, to, "linkat");
    return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

int symlink(const char *target, const char *name)
{
    note_unmodelled_name(AT_FDCWD, name, "symlink");
    return (int)syscall(SYS_symlinkat, target, AT_FDCWD, name);
}

ssize_t sendfile64(int to_fd, int from_fd, off64_t *offset, size_t size)
{
    note_unmodelled_fd(to_fd, "sendfile");
    return syscall(SYS_sendfile, to_fd, from_fd, offset, size);
}

ssize_t sendfile(int to_fd, int from_fd, off_t *offset, size_t size)
{
    return sendfile64(to_fd, from_fd, offset, size);
}

ssize_t copy_file_range(int from_fd, off64_t *from, int to_fd, off64_t *to, size_t size,
                        unsigned flags)
{
    note_unmodelled_fd(to_fd, "copy_file_range");
    return syscall(SYS_copy_file_range, from_fd, from, to_fd, to, size, flags);
}

ssize_t splice(int from_fd, off64_t *from, int to_fd, off64_t *to, size_t size, unsigned flags)
{
    note_unmodelled_fd(to_fd, "splice");
    return syscall(SYS_splice, from_fd, from, to_fd, to, size, flags);
}

int msync(void *address, size_t size, int flags)
{
    /* Of a mapping whose stores are not in the record: see OP_MAP_SHARED. */
    return (int)syscall(SYS_msync, address, size, flags);
}

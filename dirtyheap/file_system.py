"""What the file system at a path does with what a heap needs of it: tried on an unnamed file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from .findings import Finding, Verdict
from .surroundings import is_shortage_of_files, read_text

_PAGE_BYTES: Final = 4096
_SPACE_MIN: Final = 64 << 20
_LOCAL: Final = frozenset(
    ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "xfs", "zfs"]
)
_IN_MEMORY: Final = frozenset(["devtmpfs", "hugetlbfs", "ramfs", "tmpfs"])
_ON_A_NETWORK: Final = frozenset(
    [
        "9p",
        "afs",
        "ceph",
        "cifs",
        "fuse.ceph-fuse",
        "fuse.glusterfs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
        "virtiofs",
    ]
)
_GROUP: Final = "files"


def findings(path: str | os.PathLike[str]) -> Iterator[Finding]:
    """All of them; ``path``: a heap, or where one is to be made."""
    try:
        directory = _nearest_directory(Path(path).absolute())
    except OSError as error:
        yield Finding(
            _GROUP,
            "writable",
            Verdict.WARNING,
            f"{path} cannot be looked at: {error.strerror}; nothing was tested there",
            "permission to enter the directories above it",
        )
        return
    yield _kind(directory)
    yield from _space(directory)
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            for name, trial in _TRIALS.items():
                yield _try(name, trial, file)
    except OSError as error:
        if is_shortage_of_files(error):
            yield _untested("writable", error)
            return
        yield Finding(
            _GROUP,
            "writable",
            Verdict.WARNING,
            f"no file can be made in {directory}: {error.strerror}; the rest was not tested",
            "permission to write there; read-only heaps do without",
        )
    else:
        yield _try_directory_sync(directory)


def _nearest_directory(path: Path) -> Path:
    """The path itself, or the nearest directory above it."""
    while not path.is_dir():
        path = path.parent
    return path


# --- what it is -----------------------------------------------------------------------------------


def _mount_of(directory: Path) -> tuple[str, str]:
    """Where the file system is mounted and its type: proc_pid_mountinfo(5)."""
    real = os.path.realpath(directory)
    best = ("", "unknown")
    for line in read_text("/proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        # Spaces and the like are octal escapes there.
        place = fields.split()[4].encode().decode("unicode_escape")
        is_above = place == "/" or real == place or real.startswith(place + "/")
        if is_above and len(place) >= len(best[0]):
            best = (place, rest.split()[0])
    return best


def _kind(directory: Path) -> Finding:
    place, kind = _mount_of(directory)
    if not place:
        return Finding(
            _GROUP,
            "file-system",
            Verdict.UNTESTED,
            "/proc/self/mountinfo, which says what is mounted, cannot be read",
        )
    text = f"{kind}, mounted at {place}"
    if kind in _IN_MEMORY:
        return Finding(
            _GROUP,
            "file-system",
            Verdict.WARNING,
            f"{text}: it is memory, nothing outlives a reboot",
            "a directory on a disk",
        )
    if kind in _ON_A_NETWORK:
        return Finding(
            _GROUP,
            "file-system",
            Verdict.WARNING,
            f"{text}: locks, mapped files and fsync may not mean across machines what they mean "
            "here",
            "a directory on a local disk",
        )
    if kind == "overlay":
        return Finding(
            _GROUP,
            "file-system",
            Verdict.WARNING,
            f"{text}: a container's own layer goes with the container",
            "a volume of a local disk",
        )
    if kind in _LOCAL:
        return Finding(_GROUP, "file-system", Verdict.YES, text)
    return Finding(_GROUP, "file-system", Verdict.FACT, f"{text}: not one that we know")


def _space(directory: Path) -> Iterator[Finding]:
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        yield Finding(
            _GROUP, "read-only", Verdict.WARNING, "mounted read-only", "mount it for writing"
        )
    yield Finding(
        _GROUP,
        "free-space",
        Verdict.YES if free >= _SPACE_MIN else Verdict.WARNING,
        f"{free >> 20} MiB",
        "" if free >= _SPACE_MIN else "a fold needs room for the heap once more",
    )


# --- what it does ---------------------------------------------------------------------------------


def _try(name: str, trial: Callable[[IO[bytes]], Finding], file: IO[bytes]) -> Finding:
    try:
        return trial(file)
    except OSError as error:
        if is_shortage_of_files(error):
            return _untested(name, error)
        return Finding(
            _GROUP, name, Verdict.WARNING, f"refused: {error.strerror}", "another file system"
        )


def _untested(name: str, error: OSError) -> Finding:
    return Finding(_GROUP, name, Verdict.UNTESTED, f"{error.strerror}, see ulimit -n")


def _reopen(file: IO[bytes], flags: int) -> int:
    """The unnamed file once more, as another open file."""
    return os.open(f"/proc/self/fd/{file.fileno()}", flags | os.O_CLOEXEC)


def _try_mapping(file: IO[bytes]) -> Finding:
    """As base files are: a private mapping shows the file, and what is stored stays private."""
    file.write(b"f" * (2 * _PAGE_BYTES))
    with mmap.mmap(file.fileno(), 2 * _PAGE_BYTES, access=mmap.ACCESS_COPY) as memory:
        shown = memory[_PAGE_BYTES]
        memory[0] = ord("m")
        stored = memory[0]
    is_right = (shown, stored, os.pread(file.fileno(), 1, 0)) == (ord("f"), ord("m"), b"f")
    return Finding(
        _GROUP,
        "private-mapping",
        Verdict.YES if is_right else Verdict.WARNING,
        "a file can be mapped privately" if is_right else "a private mapping shows wrong bytes",
        "" if is_right else "another file system",
    )


def _try_sync(file: IO[bytes]) -> Finding:
    os.fsync(file.fileno())
    os.fdatasync(file.fileno())
    return Finding(
        _GROUP,
        "fsync",
        Verdict.YES,
        "accepted; whether bytes then outlive a power failure cannot be tested from here",
    )


def _try_lock(file: IO[bytes]) -> Finding:
    """Two open files, one writer."""
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    other = _reopen(file, os.O_RDWR)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding(_GROUP, "flock", Verdict.YES, "a second writer is refused")
    finally:
        os.close(other)
    return Finding(
        _GROUP,
        "flock",
        Verdict.WARNING,
        "a lock that is held is given once more: two writers would destroy a heap",
        "another file system",
    )


def _try_direct(file: IO[bytes]) -> Finding:
    """For those who read into Buffers past the page cache; heaps do not."""
    try:
        fd = _reopen(file, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return Finding(
            _GROUP, "o-direct", Verdict.NO, "refused by this file system", "heaps do not use it"
        )
    try:
        with mmap.mmap(-1, _PAGE_BYTES) as memory:
            is_read = os.preadv(fd, [memory], 0) == _PAGE_BYTES and memory[:1] == b"f"
    finally:
        os.close(fd)
    return Finding(
        _GROUP,
        "o-direct",
        Verdict.YES if is_read else Verdict.NO,
        "a page was read past the page cache" if is_read else "a page came short",
    )


_TRIALS: Final[dict[str, Callable[[IO[bytes]], Finding]]] = {
    "private-mapping": _try_mapping,
    "fsync": _try_sync,
    "flock": _try_lock,
    "o-direct": _try_direct,
}


def _try_directory_sync(directory: Path) -> Finding:
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            os.fsync(fd)
        except OSError as error:
            if is_shortage_of_files(error):
                return _untested("fsync-directory", error)
            return Finding(
                _GROUP,
                "fsync-directory",
                Verdict.WARNING,
                f"a directory cannot be synced: {error.strerror}",
                "another file system",
            )
    return Finding(_GROUP, "fsync-directory", Verdict.YES, "accepted")

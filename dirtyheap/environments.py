"""LMDB environments: one for each data file and process, shared by who writes and who looks.

The engine refuses to open one file twice in a process, and its locks would break if it did not. So
a snapshot beside the writer borrows the writer's environment; without a writer it opens one for
reading, for as long as the call takes. Whoever opens for writing waits until such calls are over.

A forked child inherits the parent's environments and must never use them: it closes its copy,
which touches nothing that the parent sees, and opens its own; unless the fork fell into a write,
when what was inherited is half changed.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import lmdb

from .errors import HeapCorruptError, HeapError, HeapLockedError
from .syncing import is_sync_enabled
from .writer_lock import LOCK_NAME

DATA_NAME: Final = "data.mdb"
READERS_NAME: Final = "lock.mdb"  # the engine's table of readers
# Chosen once for the life of the file, never resized while open: sparse, address space only.
_MAP_BYTES: Final = (1 << 40, 1 << 37, 1 << 34, 1 << 31)
_READERS_MAX: Final = 510
_DATABASES_MAX: Final = 8
_WAIT_S_MAX: Final = 60  # opening a snapshot takes milliseconds, of a huge heap seconds

_Key = tuple[int, int]  # device, inode of the data file
Prepare = Callable[[lmdb.Environment], tuple[Any, dict[str, Any]]]


class Environment:
    """One open environment of this process, and who uses it."""

    def __init__(self, env: lmdb.Environment, key: _Key, *, is_writable: bool) -> None:
        self.env = env
        self.key = key
        self.is_writable = is_writable
        self.databases: Any = None  # handles and description, once they are open and checked:
        self.meta: dict[str, Any] = {}  # opened once, for the engine forbids to do so side by side
        self.pid = os.getpid()
        # Held around write transactions, so that a child sees whether the fork fell into one.
        # A lock, because its `with` has no Python code that an interrupt could leave out.
        self.writing = threading.Lock()
        # Weak: a use that an interrupt cut off before it could end by itself ends with its frame.
        self.leases: weakref.WeakSet[object] = weakref.WeakSet()


class _Lease:
    """One use of an environment that ends with the call."""


class _Registry:
    """All environments of this process, by data file."""

    def __init__(self) -> None:
        self.environments: dict[_Key, Environment] = {}
        self.renew()

    def renew(self) -> None:
        """At the beginning, and in a forked child, where the lock's owner may not exist."""
        # Taken by itself and never through the condition, whose `with` is Python code: an interrupt
        # could leave its end out, and every other thread waiting for ever.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def find(self, key: _Key) -> Environment | None:
        """The environment of a data file, if this process has one open. Under the lock."""
        self._sweep()
        found = self.environments.get(key)
        if found is None or found.pid == os.getpid():
            return found
        if found.writing.locked():
            raise HeapError(
                "this process was forked in the middle of a commit of this heap: open the heap "
                "from a process of its own (subprocess, or multiprocessing with 'spawn')"
            )
        found.env.close()
        del self.environments[key]
        return None

    def release(self, environment: Environment, lease: object) -> None:
        """The end of one use; harmless when done before."""
        with self.lock:
            environment.leases.discard(lease)
            if not environment.leases:
                environment.env.close()
            self._sweep()
            self.changed.notify_all()

    def _sweep(self) -> None:
        """Close and forget what nobody uses any more."""
        for key, environment in list(self.environments.items()):
            if environment.pid == os.getpid() and not environment.leases:
                environment.env.close()
                del self.environments[key]


_registry = _Registry()
os.register_at_fork(after_in_child=_registry.renew)


class WriterLease:
    """The environment of a heap that this process writes. The writer's lock is held before."""

    def __init__(self, directory: Path) -> None:
        registry = _registry
        with registry.lock:
            # Snapshots are being opened: until they are.
            if not registry.changed.wait_for(lambda: _is_free(directory), _WAIT_S_MAX):
                raise HeapLockedError(
                    f"a snapshot of {directory} is being opened in this process: try again"
                )
            shared = _find(directory)
            if shared is None:
                env = _open(directory, readonly=False)
                key = _key_of(directory)
                assert key is not None
                shared = Environment(env, key, is_writable=True)
                registry.environments[key] = shared
            shared.leases.add(self)
        self.environment = shared

    def publish(self, databases: Any, meta: dict[str, Any]) -> None:
        """The databases are open: others may borrow."""
        with _registry.lock:
            self.environment.meta = meta
            self.environment.databases = databases
            _registry.changed.notify_all()

    def release(self) -> None:
        """Close it, or leave that to the last snapshot that is being opened."""
        _registry.release(self.environment, self)


@contextmanager
def borrow(directory: Path, prepare: Prepare) -> Iterator[Environment]:
    """The environment of a heap for one call that reads: the writer's if this process has it,
    else one of its own, whose databases ``prepare`` opens. It creates nothing.

    Raises:
        FileNotFoundError: there is no heap.
        HeapError: it cannot be read beside a writer from here; the message says what to do.
    """
    lease = _Lease()
    shared = _share(directory, lease)
    if shared is not None:
        try:
            yield shared
        finally:
            _registry.release(shared, lease)
        return
    with _stand_in_for_readers(directory) as has_readers:
        own = _share(directory, lease, partial(_open_for_reading, directory, has_readers, prepare))
        assert own is not None
        try:
            yield own
        finally:
            _registry.release(own, lease)


def _share(
    directory: Path, lease: object, make: Callable[[], Environment] | None = None
) -> Environment | None:
    """Use the environment that is there, or the one that ``make`` makes."""
    registry = _registry
    with registry.lock:
        if not registry.changed.wait_for(lambda: _is_ready(directory), _WAIT_S_MAX):
            raise HeapLockedError(f"{directory} is being opened in this process: try again")
        shared = _find(directory)
        if shared is None and make is not None:
            shared = make()
            registry.environments[shared.key] = shared
        if shared is not None:
            shared.leases.add(lease)
        return shared


def _open_for_reading(directory: Path, has_readers: bool, prepare: Prepare) -> Environment:
    env = _open(directory, readonly=True, lock=has_readers, create=False)
    try:
        key = _key_of(directory)
        assert key is not None
        own = Environment(env, key, is_writable=False)
        own.databases, own.meta = prepare(env)
    except BaseException:
        env.close()
        raise
    return own


@contextmanager
def _stand_in_for_readers(directory: Path) -> Iterator[bool]:
    """Whether the engine's table of readers can be used. Where it cannot be written, no writer may
    be there, or come, as long as we read: it would not know of us and use our pages again."""
    try:
        fd = os.open(directory / READERS_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        pass
    else:
        os.close(fd)
        yield True
        return
    try:
        fd = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False  # no writer was ever there
        return
    except OSError as error:
        raise HeapError(f"cannot open {directory} for reading: {error}") from error
    try:
        _refuse_beside_writer(directory, fd)
        yield False
    finally:
        os.close(fd)


def _refuse_beside_writer(directory: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeapError(
            f"{directory} is open for writing, and {READERS_NAME}, by which readers are known to "
            "the writer, cannot be written from here: give this user write access to that file, "
            "or open a backup"
        ) from None


def _is_free(directory: Path) -> bool:
    shared = _find(directory)
    return shared is None or shared.is_writable


def _is_ready(directory: Path) -> bool:
    shared = _find(directory)
    return shared is None or shared.databases is not None


def _find(directory: Path) -> Environment | None:
    key = _key_of(directory)
    return None if key is None else _registry.find(key)


def _key_of(directory: Path) -> _Key | None:
    try:
        status = (directory / DATA_NAME).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _open(directory: Path, **options: Any) -> lmdb.Environment:
    """Open LMDB with the largest map that the address space allows."""
    for map_bytes in _MAP_BYTES:
        try:
            return lmdb.open(
                str(directory),
                map_size=map_bytes,
                max_dbs=_DATABASES_MAX,
                max_readers=_READERS_MAX,
                readahead=False,
                sync=is_sync_enabled(),
                mode=0o644,
                **options,
            )
        except (lmdb.MemoryError, MemoryError):
            continue
        except lmdb.InvalidError as error:
            raise HeapError(f"{directory} is not a dirtyheap heap: {error}") from error
        except lmdb.Error as error:
            raise HeapError(f"cannot open {directory}: {error}") from error
    raise HeapError("no address space for the index: raise 'ulimit -v'")


def refuse_links(directory: Path) -> None:
    """The engine would follow one: into somebody's file, or a heap with a lock of its own."""
    for name in (DATA_NAME, READERS_NAME):
        path = directory / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise HeapError(f"{path} is no regular file (a link?): refused")
        if status.st_nlink > 1:
            raise HeapError(f"{path} has other names (hard links): open a copy of the heap instead")


def require_data(directory: Path) -> None:
    """Tell a heap from what is none, before the engine sees it; for those who only read."""
    if not directory.exists():
        raise FileNotFoundError(f"there is no heap at {directory}")
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file: a heap is a directory")
    data = directory / DATA_NAME
    if not data.exists():
        raise FileNotFoundError(f"there is no heap at {directory}: it has no {DATA_NAME}")
    if data.stat().st_size == 0:
        raise HeapCorruptError(f"{data} is empty: what the heap held is not known")

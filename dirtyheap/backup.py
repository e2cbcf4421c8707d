"""Backup: a copy of a heap that is whole whatever a writer does meanwhile.

The index is copied as one transaction of the engine shows it; then the base files that this copy
names. They are immutable, and their names are never used again; but a writer that folds removes
those that it has replaced. When one is gone before it was copied, the index is copied again: what
was copied already is kept, so each round is shorter. No lock is taken: a writer is never held up.

The copy is made beside its place and renamed when all of it is durable: what has the name that was
asked for is whole. It shares no file with the heap, hard links least of all: the engine writes into
its file in place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb

from . import environments, rows
from .base_files import BASE_NAME, BaseFiles, Extent, is_file_name
from .environments import DATA_NAME
from .errors import HeapCorruptError, HeapError
from .index import Databases, check_index, open_databases
from .results import Backup
from .snapshots import check_beside_writer
from .syncing import sync_directory, sync_file

_ROUNDS_MAX: Final = 100
_COPY_BYTES: Final = 64 << 20
_FICLONE: Final = 0x40049409  # linux/fs.h: let two files share their blocks until one is written to
_CANNOT_COPY_IN_KERNEL: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Named:
    """What a copied index names."""

    commit: int
    extents: list[Extent]


def backup(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> Backup:
    """Copy a heap as of its last commit, with its history and tags; also while it is written.

    Args:
        source: the heap's directory; of this format or an older one.
        target: the copy's directory, which must not exist; its parent must.
        progress: called with the bytes copied so far and those to be copied.

    Raises:
        FileExistsError: the target exists.
        FileNotFoundError: there is no heap, or no parent of the target.
        HeapCorruptError: the heap is damaged. Pages are not looked at: verify the copy.
        HeapError: the writer folds faster than files can be copied.
        OSError: reading or writing failed, the disk is full.

    Cost: reads and writes every file once, or shares blocks where the file system can.

    >>> import dirtyheap as dh
    >>> from dirtyheap.backup import backup
    >>> with dh.open("orders") as heap:
    ...     heap.root["open"] = 3
    ...     first = heap.commit()
    ...     copy = backup("orders", "orders.copy")
    >>> with dh.open("orders.copy") as heap:
    ...     heap.root["open"], copy.commit
    (3, 1)
    """
    heap, place = Path(source).absolute(), Path(target).absolute()
    environments.require_data(heap)
    environments.refuse_links(heap)
    _check_place(heap, place)
    partial = place.with_name(f"{place.name}.partial-{secrets.token_hex(4)}")
    (partial / BASE_NAME).mkdir(parents=True)
    try:
        named = _Copying(heap, partial, progress or _say_nothing).run()
        sync_directory(partial / BASE_NAME)
        sync_directory(partial)
        os.rename(partial, place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_directory(place.parent)
    sizes = [extent.file_bytes for extent in named.extents]
    size = sum(sizes) + (place / DATA_NAME).stat().st_size
    return Backup(place, named.commit, len(sizes), size)


def _say_nothing(done: int, total: int) -> None:
    pass


def _check_place(heap: Path, place: Path) -> None:
    if os.path.lexists(place):
        raise FileExistsError(f"{place} exists already: give a new path for the copy")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"{place.parent} is no directory: make it first")
    if heap.resolve() in (place.parent.resolve(), *place.parent.resolve().parents):
        raise HeapError(f"{place} is inside the heap itself: give a path outside of it")


class _Copying:
    """One copy under way; what was copied stays from round to round."""

    def __init__(self, heap: Path, partial: Path, progress: Progress) -> None:
        self._heap = heap
        self._partial = partial
        self._base = BaseFiles(heap)
        self._progress = progress
        self._copied: dict[str, int] = {}

    def run(self) -> _Named:
        """Rounds until index and base files belong together."""
        gone = ""
        for _ in range(_ROUNDS_MAX):
            index_bytes = _copy_index(self._heap, self._partial)
            named = _read_named(self._partial)
            names = {extent.file_name for extent in named.extents}
            if gone in names:  # files go after the index has ceased to name them: this one is lost
                raise HeapCorruptError(f"the base file {gone} is missing")
            self._forget_all_but(names)
            total = index_bytes + sum(extent.file_bytes for extent in named.extents)
            gone = self._copy_base(named.extents, total)
            if not gone:
                self._progress(total, total)
                return named
        raise HeapError(
            f"{self._heap} was folded {_ROUNDS_MAX} times while it was copied: try again when it "
            "is written to less"
        )

    def _forget_all_but(self, names: set[str]) -> None:
        for name in self._copied.keys() - names:  # replaced since the round before
            (self._partial / BASE_NAME / name).unlink()
            del self._copied[name]

    def _copy_base(self, extents: list[Extent], total: int) -> str:
        """Copy what is not there yet. Returns "", or the name of a file that is gone: the index
        that named it is out of date."""
        for extent in extents:
            name = extent.file_name
            if name in self._copied:
                continue
            try:
                fd = self._base.locate(extent)
            except FileNotFoundError:
                return name
            try:
                if os.fstat(fd).st_size != extent.file_bytes:
                    raise HeapCorruptError(f"the base file {name} has a wrong size")
                _copy_file(fd, self._partial / BASE_NAME / name, extent.file_bytes)
            finally:
                os.close(fd)
            self._copied[name] = extent.file_bytes
            self._progress(sum(self._copied.values()), total)
        return ""


def _copy_index(heap: Path, partial: Path) -> int:
    """The index as of now, without its free pages; returns its size."""
    data = partial / DATA_NAME
    data.unlink(missing_ok=True)
    fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with environments.borrow(heap, lambda env: _prepare(env, heap)) as environment:
            environment.env.copyfd(fd, compact=True)
        sync_file(fd)
        return os.fstat(fd).st_size
    except lmdb.Error as error:
        raise HeapError(f"the index of {heap} could not be copied: {error}") from error
    finally:
        os.close(fd)


def _prepare(env: lmdb.Environment, heap: Path) -> tuple[Databases | None, dict[str, Any]]:
    """Check an index that nobody in this process has opened yet; as snapshots do, but also of
    formats that cannot be opened any more."""
    with env.begin():
        check_beside_writer(heap / DATA_NAME)
        try:
            return open_databases(env, heap)
        except HeapCorruptError:
            raise
        except HeapError:
            return None, {}


def _read_named(partial: Path) -> _Named:
    """What the copy of the index names, in any format that had base files."""
    check_index(partial / DATA_NAME)
    with lmdb.open(str(partial), readonly=True, lock=False, max_dbs=8) as env:
        try:
            commits, extents = (
                env.open_db(name, create=False) for name in (b"commits", b"extents")
            )
        except lmdb.NotFoundError:
            raise HeapError("the index is an LMDB database that is not a dirtyheap heap") from None
        with env.begin() as txn:
            cursor = txn.cursor(db=commits)
            commit = rows.commit_of_key(cursor.key()) if cursor.last() else 0
            found = [_named_extent(key, row) for key, row in txn.cursor(db=extents)]
    return _Named(commit, found)


def _named_extent(key: bytes, row: bytes) -> Extent:
    number = int.from_bytes(key[:4], "big")
    fields = rows.unseal(row, f"the row of extent {number}")
    name, size = fields.get("file_name"), fields.get("file_bytes")
    if not is_file_name(name) or type(size) is not int or size < 0:
        raise HeapCorruptError(f"the row of extent {number} is damaged")
    return Extent(number, 0, size, 0, name)


# --- base files -----------------------------------------------------------------------------------


def _copy_file(source: int, path: Path, size: int) -> None:
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        if not _share_blocks(source, target):
            _copy_data(source, target, size)
        sync_file(target)
    finally:
        os.close(target)


def _share_blocks(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # the file system cannot, or the two are on different ones
        return False
    return True


def _copy_data(source: int, target: int, size: int) -> None:
    """All but the holes: free pages take no room in a base file, nor in its copy."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole behind here
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            at += _copy_some(source, target, at, min(end - at, _COPY_BYTES))


def _copy_some(source: int, target: int, at: int, count: int) -> int:
    try:
        done = os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        if error.errno not in _CANNOT_COPY_IN_KERNEL:
            raise
        done = os.pwrite(target, os.pread(source, min(count, 1 << 20), at), at)
    if done == 0:
        raise HeapCorruptError("a base file became shorter while it was copied")
    return done

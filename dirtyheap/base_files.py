"""Base files: one immutable file per extent version, in ``base/`` beside the index.

Three calls: write (or begin, which leaves the sync to the caller), locate, drop. Order is the
caller's promise: a file is written and synced, and so is its directory, before the index names it;
it is dropped only after the index has ceased to. Files that the index does not name are leftovers
of a crash and are removed at open.

A heap may come from anybody: ``base`` must be a directory, never a link to one, and nothing in it
is opened or removed but regular files with names of our own making.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from .errors import HeapCorruptError, HeapError
from .syncing import sync_directory, sync_file

BASE_NAME = "base"
_NAME = re.compile(r"[0-9a-f]{8}\.[0-9a-f]{16}\.[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Extent:
    """What the index says of one extent: which version of it is the base, and its file."""

    number: int
    version: int
    file_bytes: int
    checksum: int
    file_name: str


def is_file_name(name: object) -> TypeGuard[str]:
    """Whether an index may name a base file so: never a path that leads elsewhere."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


class BaseFiles:
    """The files of one heap."""

    def __init__(self, heap_directory: Path) -> None:
        self._directory = heap_directory / BASE_NAME

    def create(self) -> bool:
        """Make the directory unless it is there; returns whether it was made."""
        try:
            mode = self._directory.lstat().st_mode
        except FileNotFoundError:
            self._directory.mkdir()
            return True
        if not stat.S_ISDIR(mode):
            raise HeapError(f"{self._directory} is no directory, or a link to one: refused")
        return False

    def is_empty(self) -> bool:
        """Whether there is no file, or not even the directory."""
        return not self._directory.is_dir() or not any(self._own_files())

    def _own_files(self) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if is_file_name(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry

    def write(self, number: int, version: int, fill: Callable[[int], tuple[int, int]]) -> Extent:
        """Make one file: ``fill(fd)`` writes it and returns (bytes, checksum). Synced, except
        for the directory: see :meth:`sync`. A failure leaves no file behind."""
        extent, fd = self.begin(number, version, fill)
        try:
            sync_file(fd)
        except BaseException:
            (self._directory / extent.file_name).unlink()
            raise
        finally:
            os.close(fd)
        return extent

    def begin(
        self, number: int, version: int, fill: Callable[[int], tuple[int, int]]
    ) -> tuple[Extent, int]:
        """As :meth:`write`, but not synced yet: the caller syncs and closes the descriptor, the
        one by which it was written, for another might not be told that writing failed."""
        # The random part: a name is never used twice, whatever became of an earlier attempt.
        name = f"{number:08x}.{version:016x}.{secrets.token_hex(4)}"
        path = self._directory / name
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            file_bytes, checksum = fill(fd)
            return Extent(number, version, file_bytes, checksum, name), fd
        except BaseException:
            path.unlink()
            os.close(fd)
            raise

    def patch(self, extent: Extent, fill: Callable[[int], tuple[int, int]]) -> Extent:
        """Change a file that the index does not name yet; synced again."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._directory / extent.file_name, flags)
        try:
            file_bytes, checksum = fill(fd)
            sync_file(fd)
        finally:
            os.close(fd)
        return replace(extent, file_bytes=file_bytes, checksum=checksum)

    def sync(self) -> None:
        """Make the names of the files just written durable."""
        sync_directory(self._directory)

    def open_directory(self) -> int:
        """A descriptor of the directory, by which files are opened; the caller closes it."""
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def locate(self, extent: Extent) -> int:
        """Open the file for reading; the caller closes the descriptor."""
        path = self._directory / extent.file_name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise HeapCorruptError(f"{path} is a symbolic link: refused") from None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise HeapCorruptError(f"{path} is no regular file")
        return fd

    def drop(self, extents: Collection[Extent]) -> None:
        """Remove files. Memory that still maps one keeps it alive until it is unmapped."""
        for extent in extents:
            (self._directory / extent.file_name).unlink(missing_ok=True)

    def drop_orphans(self, named: Collection[Extent]) -> int:
        """Remove every base file that the index does not name; returns how many."""
        keep = {extent.file_name for extent in named}
        if keep.issuperset(os.listdir(self._directory)):
            return 0  # as a rule; looking at each costs more than opening it
        orphans = [entry for entry in self._own_files() if entry.name not in keep]
        for entry in orphans:
            os.unlink(entry.path)
        return len(orphans)

"""Base files: one immutable file per extent version, in ``base/`` beside the index.

Three calls: write, locate, drop. Order is the caller's promise: a file is written and synced, and
so is its directory, before the index names it; it is dropped only after the index has ceased to.
Files that the index does not name are leftovers of a crash and are removed at open.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from .syncing import sync_directory, sync_file

BASE_NAME = "base"
_NAME = re.compile(r"[0-9a-f.]{1,64}")


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
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and ".." not in name


class BaseFiles:
    """The files of one heap."""

    def __init__(self, heap_directory: Path) -> None:
        self._directory = heap_directory / BASE_NAME

    def create(self) -> None:
        """Make the directory; harmless when it is there."""
        self._directory.mkdir(exist_ok=True)

    def is_empty(self) -> bool:
        """Whether there is no file yet."""
        return not any(self._directory.iterdir())

    def write(self, number: int, version: int, fill: Callable[[int], tuple[int, int]]) -> Extent:
        """Make one file: ``fill(fd)`` writes it and returns (bytes, checksum). Synced, except
        for the directory: see :meth:`sync`. A failure leaves no file behind."""
        # The random part: a name is never used twice, whatever became of an earlier attempt.
        name = f"{number:08x}.{version:016x}.{secrets.token_hex(4)}"
        path = self._directory / name
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            file_bytes, checksum = fill(fd)
            sync_file(fd)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)
        return Extent(number, version, file_bytes, checksum, name)

    def sync(self) -> None:
        """Make the names of the files just written durable."""
        sync_directory(self._directory)

    def locate(self, extent: Extent) -> int:
        """Open the file for reading; the caller closes the descriptor."""
        return os.open(self._directory / extent.file_name, os.O_RDONLY | os.O_CLOEXEC)

    def drop(self, extents: Collection[Extent]) -> None:
        """Remove files. Memory that still maps one keeps it alive until it is unmapped."""
        for extent in extents:
            (self._directory / extent.file_name).unlink(missing_ok=True)

    def drop_orphans(self, named: Collection[Extent]) -> int:
        """Remove every file that the index does not name; returns how many."""
        keep = {extent.file_name for extent in named}
        orphans = [entry for entry in os.scandir(self._directory) if entry.name not in keep]
        for entry in orphans:
            os.unlink(entry.path)
        return len(orphans)

"""What may be on a disk after the power fails: a model of files, directories, pending changes.

Every change is *pending* until a barrier: fsync of the file for its bytes and size, fsync of the
directory for names in it, a write through a synchronous descriptor for its own bytes. What is
behind a barrier is there; of what is pending any part may be, in any order:

- each 512-byte sector of a write for itself (docs/design.md, 12: a sector is whole or not at all);
- the size, or a part of it, without the bytes, filled with zeros or with what the blocks held
  before; the bytes without the size;
- each name that was made, renamed or removed, for itself.

The model knows nothing of heaps.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from recording import Event, Op

SECTOR_BYTES = 512

# --- changes that are pending --------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Change:
    """A write into a file, or (``data`` is None) a new size of it."""

    offset: int
    data: bytes | None
    number: int = 0  # of all changes of the disk, in order
    is_durable: bool = False

    @property
    def end(self) -> int:
        """The size that the file has at least afterwards; of a resize: exactly."""
        return self.offset + (len(self.data) if self.data is not None else 0)

    @property
    def sectors_count(self) -> int:
        """How many sectors it touches."""
        if not self.data:
            return 0
        return (self.end - 1) // SECTOR_BYTES - self.offset // SECTOR_BYTES + 1

    def sector_part(self, index: int) -> tuple[int, bytes]:
        """(offset in the file, bytes) of what goes into one of the sectors."""
        assert self.data is not None
        first = self.offset // SECTOR_BYTES + index
        start = max(self.offset, first * SECTOR_BYTES)
        end = min(self.end, (first + 1) * SECTOR_BYTES)
        return start, self.data[start - self.offset : end - self.offset]


@dataclass(slots=True, eq=False)
class NameChange:
    """A name made (``node``), removed (``node`` is None), or moved from ``old_name``."""

    name: str
    node: File | Directory | None
    old_name: str = ""
    number: int = 0


@dataclass(slots=True, eq=False)
class File:
    """Bytes that are on the disk for certain, and changes since the last barrier."""

    durable: bytes = b""
    pending: list[Change] = field(default_factory=list)

    def sync(self) -> None:
        """Everything pending is on the disk."""
        for change in self.pending:
            change.is_durable = True
        self.durable = file_content(self, KeepAll())
        self.pending.clear()


@dataclass(slots=True, eq=False)
class Directory:
    """Names that are on the disk for certain, and changes of names since."""

    durable: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[NameChange] = field(default_factory=list)

    def sync(self) -> None:
        """Everything pending is on the disk."""
        self.durable = entries(self, KeepAll())
        self.pending.clear()


# --- fates ---------------------------------------------------------------------------------------


class Fates(Protocol):
    """Decides what becomes of each pending change."""

    def sectors(self, change: Change) -> Iterable[int] | None:
        """Which sectors of a write are on the disk; None: all."""

    def size(self, change: Change) -> int:
        """The size that is on the disk of what a write or resize gave the file; -1: none."""

    def keeps_name(self, change: NameChange) -> bool:
        """Whether a change of a name is on the disk."""

    def filler(self) -> bytes:
        """What stands in sectors within the size that nothing was written to, one byte."""


class KeepAll:
    """Nothing is lost: a process was killed."""

    def sectors(self, change: Change) -> Iterable[int] | None:
        return None

    def size(self, change: Change) -> int:
        return change.end

    def keeps_name(self, change: NameChange) -> bool:
        return True

    def filler(self) -> bytes:
        return b"\0"


class LoseAll(KeepAll):
    """All that is pending is lost."""

    def sectors(self, change: Change) -> Iterable[int] | None:
        return ()

    def size(self, change: Change) -> int:
        return -1

    def keeps_name(self, change: NameChange) -> bool:
        return False


class LoseBytes(KeepAll):
    """Names and sizes are on the disk, bytes are not."""

    def sectors(self, change: Change) -> Iterable[int] | None:
        return ()


class OneOut(KeepAll):
    """One pending change is kept and all others lost, or the other way round."""

    def __init__(self, one: Change | NameChange, *, is_kept: bool) -> None:
        self._one, self._is_kept = one, is_kept

    def _keeps(self, change: Change | NameChange) -> bool:
        return (change is self._one) == self._is_kept

    def sectors(self, change: Change) -> Iterable[int] | None:
        return None if self._keeps(change) else ()

    def size(self, change: Change) -> int:
        return change.end if self._keeps(change) else -1

    def keeps_name(self, change: NameChange) -> bool:
        return self._keeps(change)


class RandomFates:
    """Each change is kept, lost or torn, by a generator; one image leans towards one of these."""

    def __init__(self, rng: random.Random, *, has_garbage: bool = True) -> None:
        self._rng = rng
        self._kept_share = rng.choice([0.1, 0.5, 0.9])
        self._torn_share = rng.choice([0.0, 0.2, 0.7])
        self._filler = rng.choice([b"\0", b"\0", b"\xa5"]) if has_garbage else b"\0"

    def sectors(self, change: Change) -> Iterable[int] | None:
        count, rng = change.sectors_count, self._rng
        if count > 1 and rng.random() < self._torn_share:
            cut = rng.randrange(1, count)
            form = rng.randrange(3)
            if form == 0:
                return range(cut)
            if form == 1:
                return range(cut, count)
            return [index for index in range(count) if rng.random() < 0.5]
        return None if rng.random() < self._kept_share else ()

    def size(self, change: Change) -> int:
        if change.sectors_count > 1 and self._rng.random() < self._torn_share:
            index = self._rng.randrange(1, change.sectors_count)
            return change.sector_part(index)[0]
        return change.end if self._rng.random() < self._kept_share else -1

    def keeps_name(self, change: NameChange) -> bool:
        return self._rng.random() < self._kept_share

    def filler(self) -> bytes:
        return self._filler


# --- what is on the disk -------------------------------------------------------------------------


def file_content(file: File, fates: Fates) -> bytes:
    """The file's bytes when its pending changes meet these fates."""
    if not file.pending:
        return file.durable
    content = bytearray(file.durable)
    size = len(content)
    for change in file.pending:
        kept_size = change.end if change.is_durable else fates.size(change)
        if change.data is None:
            if kept_size >= 0:
                del content[kept_size:]
                size = kept_size
            continue
        size = max(size, kept_size)
        chosen = None if change.is_durable else fates.sectors(change)
        if chosen is None:
            _put(content, change.offset, change.data, fates)
        else:
            for index in chosen:
                _put(content, *change.sector_part(index), fates)
    if len(content) < size:
        content += fates.filler() * (size - len(content))
    del content[size:]
    return bytes(content)


def _put(content: bytearray, offset: int, data: bytes, fates: Fates) -> None:
    if len(content) < offset:
        content += fates.filler() * (offset - len(content))
    content[offset : offset + len(data)] = data


def entries(directory: Directory, fates: Fates) -> dict[str, File | Directory]:
    """The directory's names when its pending changes meet these fates."""
    names = dict(directory.durable)
    for change in directory.pending:
        if not fates.keeps_name(change):
            continue
        names.pop(change.old_name, None)
        if change.node is None:
            names.pop(change.name, None)
        else:
            names[change.name] = change.node
    return names


class Disk:
    """The recorded directory, one event after the other."""

    def __init__(self) -> None:
        self.root = Directory()
        self._nodes: dict[int, File | Directory] = {}  # by inode: a descriptor outlives a name
        self._changes = 0
        self.mapped: set[str] = set()  # files whose bytes the record does not know

    def apply(self, event: Event) -> None:
        """Let one call happen. A synchronous write is pending until :meth:`finish`."""
        self._changes += 1
        if event.op is Op.UNMODELLED:
            raise AssertionError(f"{event.path}({event.other_path}): a call that is not modelled")
        if event.op is Op.WRITE:
            self._file(event).pending.append(Change(event.offset, event.data, self._changes))
        elif event.op is Op.TRUNCATE:
            self._file(event).pending.append(Change(event.offset, None, self._changes))
        elif event.op is Op.SYNC:
            (self._nodes[event.inode] if event.path else self.root).sync()
        elif event.op is Op.MAP_SHARED:
            self.mapped.add(event.path)
        elif event.op is not Op.MARK:
            self._rename(event)

    def finish(self, event: Event) -> None:
        """The call returns."""
        if event.is_synchronous:
            self._file(event).pending[-1].is_durable = True

    def _file(self, event: Event) -> File:
        node = self._nodes[event.inode]
        assert isinstance(node, File), event.path
        return node

    def _rename(self, event: Event) -> None:
        parent, name = self._parent(event.path)
        if event.op in (Op.CREATE_FILE, Op.CREATE_DIRECTORY):
            node = File() if event.op is Op.CREATE_FILE else Directory()
            self._nodes[event.inode] = node
            parent.pending.append(NameChange(name, node, number=self._changes))
        elif event.op is Op.RENAME:
            new_parent, new_name = self._parent(event.other_path)
            assert new_parent is parent, "a rename between directories is not modelled"
            moved = entries(parent, KeepAll())[name]
            parent.pending.append(NameChange(new_name, moved, name, self._changes))
        else:
            parent.pending.append(NameChange(name, None, number=self._changes))

    def _parent(self, path: str) -> tuple[Directory, str]:
        *parts, name = path.split("/")
        node = self.root
        for part in parts:
            below = entries(node, KeepAll())[part]
            assert isinstance(below, Directory), path
            node = below
        return node, name

    def pending(self) -> list[Change | NameChange]:
        """Every change that could be lost now, of files and directories that have a name or may."""
        found: list[Change | NameChange] = []
        seen: set[int] = set()
        todo: list[File | Directory] = [self.root]
        while todo:
            node = todo.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Directory):
                found += node.pending
                todo += node.durable.values()
                todo += [change.node for change in node.pending if change.node is not None]
            else:
                found += [change for change in node.pending if not change.is_durable]
        return found

    def image(self, fates: Fates) -> dict[str, bytes | None]:
        """What is on the disk: path -> bytes, None for a directory; parents before children."""
        found: dict[str, bytes | None] = {}

        def walk(directory: Directory, prefix: str) -> None:
            for name, node in sorted(entries(directory, fates).items()):
                path = f"{prefix}{name}"
                if isinstance(node, Directory):
                    found[path] = None
                    walk(node, path + "/")
                else:
                    found[path] = file_content(node, fates)

        walk(self.root, "")
        return found

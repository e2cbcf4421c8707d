"""The index as one transaction shows it: records, chains, deltas, extents and tags, all checked.

Shared by the writer's store and by snapshots. It holds the transaction that it was given and never
begins, ends or keeps one; it writes nothing.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from . import retention, rows
from ._ffi import ffi, lib
from .base_files import Extent
from .errors import HeapCorruptError, HeapError
from .rows import Record, Tag

DATABASES: Final = (b"meta", b"commits", b"deltas", b"extents", b"tags")
# Of the engine's meta pages: where their magic number and the number of their transaction are.
_META_MAGIC: Final = slice(16, 20)
_META_TRANSACTION: Final = slice(144, 152)
_MAGIC: Final = (0xBEEFC0DE).to_bytes(4, sys.byteorder)
_FIRST_COMMIT: Final = 2  # transaction number 1 makes the databases
_NEW_BYTES_MAX: Final = 1 << 16


class Databases(NamedTuple):
    """Handles of the engine, valid as long as their environment."""

    meta: Any
    commits: Any
    deltas: Any
    extents: Any
    tags: Any


def open_databases(env: lmdb.Environment, directory: Path) -> tuple[Databases, dict[str, Any]]:
    """The databases of a heap that is there, and its description.

    Raises:
        HeapError: it is none, or another version's.
        HeapCorruptError: it is damaged.
    """
    try:
        meta = env.open_db(b"meta", create=False)
    except lmdb.NotFoundError:
        raise HeapError(
            f"{directory} holds an LMDB database that is not a dirtyheap heap"
        ) from None
    with env.begin() as txn:
        row = txn.get(rows.META_KEY, db=meta)
    if row is None:
        raise HeapCorruptError(f"{directory} has lost its description")
    what = rows.check_meta(
        bytes(row), directory
    )  # before the rest: other formats have other databases
    try:
        others = [env.open_db(name, create=False) for name in DATABASES[1:]]
    except lmdb.NotFoundError:
        raise HeapCorruptError(f"{directory} has lost a database of its index") from None
    return Databases(meta, *others), what


def create_databases(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    """Make those of a new heap, all or nothing."""
    meta = None
    for name in DATABASES:
        handle = env.open_db(name, txn=txn)
        meta = meta or handle
    txn.put(rows.META_KEY, rows.new_meta(), db=meta)
    txn.put(rows.HISTORY_KEY, rows.pack_history(1), db=meta)


class Index:
    """What one transaction shows."""

    def __init__(self, databases: Databases, txn: lmdb.Transaction) -> None:
        self._databases = databases
        self._txn = txn

    # --- commits -----------------------------------------------------------------------------

    def last(self) -> tuple[Record | None, bytes]:
        """The newest record and its hash."""
        cursor = self._txn.cursor(db=self._databases.commits)
        if not cursor.last():
            return None, rows.NO_HASH
        key, row = map(bytes, cursor.item())
        return Record.unpack_hashed(row, rows.commit_of_key(key))

    def commit_ids(self) -> list[int]:
        """Of every record that is stored, ascending, kept or not."""
        cursor = self._txn.cursor(db=self._databases.commits)
        return [rows.commit_of_key(bytes(key)) for key in cursor.iternext(keys=True, values=False)]

    def record(self, commit: int) -> Record:
        """One record; HeapCorruptError when it is not stored."""
        return Record.unpack(self._record_row(commit), commit)

    def _record_row(self, commit: int) -> bytes:
        if 0 < commit < 1 << 64:
            row = self._txn.get(rows.commit_key(commit), db=self._databases.commits)
            if row is not None:
                return bytes(row)
        raise HeapCorruptError(f"the record of commit {commit} is missing")

    def chain(self, record: Record) -> list[Record]:
        """The records from ``record``'s fold point to it, each the child of the one before by id
        and hash (S5)."""
        chain: list[Record] = []
        parent_hash = rows.NO_HASH
        for commit in range(max(record.fold, 1), record.id + 1):
            link, link_hash = Record.unpack_hashed(self._record_row(commit), commit)
            is_start = link.is_fold_point if record.fold else link.parent_hash == parent_hash
            if not (link.parent_hash == parent_hash if chain else is_start):
                raise HeapCorruptError(f"the commit before commit {commit} is missing")
            if link.fold != record.fold:
                raise HeapCorruptError(f"commit {commit} does not rest on commit {record.fold}")
            chain.append(link)
            parent_hash = link_hash
        return chain

    def deltas(self, record: Record) -> Iterator[bytes]:
        """Every chunk between ``record``'s fold point and it, in the order of commits, held
        against the records and their hashes. The last hash of a commit comes after its chunks: use
        nothing of it before the iterator is exhausted."""
        for link in self.chain(record):
            if link.body:  # under the seal of its row
                yield from link.body
                continue
            body = rows.body_hasher()
            for number in range(link.chunks):
                chunk = self._txn.get(rows.delta_key(link.id, number), db=self._databases.deltas)
                if chunk is None:
                    raise HeapCorruptError(f"commit {link.id}: chunk {number} is missing")
                body.update(chunk)
                yield bytes(chunk)  # the same object: nothing is copied
            if link.chunks and body.digest() != link.body_hash:
                raise HeapCorruptError(f"commit {link.id}: the body's hash is wrong")

    def delta_bytes(self, record: Record) -> int:
        """Bytes of the rows that :meth:`deltas` would read; reads no chunk."""
        return self._bytes_between(
            self._databases.commits, rows.commit_key(record.fold + 1), rows.commit_key(record.id)
        ) + self._bytes_between(
            self._databases.deltas,
            rows.delta_key(record.fold + 1, 0),
            rows.delta_key(record.id, rows.CHUNKS_MAX),
        )

    def _bytes_between(self, database: Any, first: bytes, last: bytes) -> int:
        total = 0
        cursor = self._txn.cursor(db=database)
        more = cursor.set_range(first)
        while more and bytes(cursor.key()) <= last:
            total += len(cursor.value())
            more = cursor.next()
        return total

    # --- extents -----------------------------------------------------------------------------

    def extents(self, last: int) -> dict[int, list[Extent]]:
        """All versions of every extent, ascending. ``last``: the newest commit."""
        versions: dict[int, list[Extent]] = {}
        for key, row in self._txn.cursor(db=self._databases.extents):
            extent = rows.unpack_extent(bytes(key), bytes(row))
            if not 1 <= extent.version <= last:
                raise HeapCorruptError(
                    f"extent {extent.number} is of commit {extent.version}, which is not there"
                )
            versions.setdefault(extent.number, []).append(extent)
        return versions

    # --- what is kept ------------------------------------------------------------------------

    def oldest(self, last: int) -> int:
        """The oldest commit that is kept, tags aside."""
        row = self._txn.get(rows.HISTORY_KEY, db=self._databases.meta)
        return rows.unpack_history(None if row is None else bytes(row), last)

    def tags(self) -> dict[str, Tag]:
        """All tags by name, in the order of their UTF-8."""
        cursor = self._txn.cursor(db=self._databases.tags)
        tags = [Tag.unpack(bytes(key), bytes(row)) for key, row in cursor]
        return {tag.name: tag for tag in tags}

    def tag(self, name: str) -> Tag:
        """One tag; KeyError with the names there are."""
        tags = self.tags()
        if name not in tags:
            raise KeyError(f"there is no tag {name!r}; {_list_tags(tags)}")
        return tags[name]

    def kept_ids(self) -> list[int]:
        """Ids of the commits that can be opened, ascending."""
        ids = self.commit_ids()
        if not ids:
            return []
        oldest = self.oldest(ids[-1])
        tagged = {tag.commit for tag in self.tags().values()}
        return [commit for commit in ids if commit >= oldest or commit in tagged]

    def history(self) -> tuple[list[Record], list[Tag]]:
        """The records of all commits that can be opened, ascending, and all tags."""
        return [self.record(commit) for commit in self.kept_ids()], list(self.tags().values())

    def tagged(self) -> tuple[dict[int, Record], list[Tag]]:
        """The records of all tagged commits by id, and all tags."""
        tags = list(self.tags().values())
        return {tag.commit: self.record(tag.commit) for tag in tags}, tags

    def find(self, at: int | str | None) -> Record | None:
        """The record of a kept commit by its id or tag; None for the newest: the newest record,
        or None when there is no commit.

        Raises:
            KeyError: there is no such tag.
            HeapError: there is no such commit, or it is not kept.
        """
        if at is None:
            return self.last()[0]
        if isinstance(at, str):
            at = self.tag(at).commit
        ids = self.kept_ids()
        if at not in ids:
            raise HeapError(_why_not_kept(at, ids))
        return self.record(at)

    def needs(self, last: int, oldest: int) -> retention.Needs:
        """What must stay when everything from ``oldest`` on is kept, and what is tagged."""
        tagged = {tag.commit for tag in self.tags().values()}
        folds = {commit: self.record(commit).fold for commit in tagged}  # each must be there
        folds[oldest] = self.record(oldest).fold
        return retention.needs(oldest, last, tagged, folds)

    def oldest_to_keep(self, last: int, keep: retention.Keep, now: float) -> int:
        """The oldest commit that ``keep`` asks for, of those that are still kept."""
        oldest = self.oldest(last)
        if isinstance(keep, int):
            return retention.oldest_by_count(oldest, last, keep)
        times = ((commit, self.record(commit).time) for commit in range(oldest, last + 1))
        return retention.oldest_by_age(oldest, last, times, now - keep.total_seconds())


def _list_tags(tags: dict[str, Tag]) -> str:
    if not tags:
        return "the heap has no tags"
    names = sorted(tags)
    rest = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"there are {', '.join(map(repr, names[:20]))}{rest}"


def _why_not_kept(commit: int, ids: list[int]) -> str:
    if not ids:
        return f"there is no commit {commit}: nothing was committed yet"
    if 0 < commit < ids[-1]:
        return (
            f"commit {commit} is no longer kept (heap.history() lists those that are; keep more "
            "with dh.open(..., keep=...) or heap.tag())"
        )
    return f"there is no commit {commit}: the newest is {ids[-1]}"


def check_index(data: Path) -> int:
    """Vouch for the engine's B-trees before the engine sees them: it aborts on damaged ones.
    Returns 0, or EAGAIN: somebody wrote meanwhile, ask again.

    Raises:
        HeapError: not the index of a heap.
        HeapCorruptError: it is damaged.
        MemoryError, OSError: it could not be read.
    """
    fd = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = ffi.new("char[]", 256)
        rc = lib.dh_index_check(fd, os.fstat(fd).st_size, text, 256)
    finally:
        os.close(fd)
    why = ffi.string(text).decode("utf-8", "replace")
    if rc == lib.DH_E_FORMAT:
        raise HeapError(f"{data} is not a dirtyheap index: {why}")
    if rc == errno.ENOMEM:
        raise MemoryError(f"{data}: {why}")
    if rc > 0 and rc != errno.EAGAIN:
        raise OSError(rc, why or os.strerror(rc), str(data))
    if rc < 0:
        raise HeapCorruptError(f"{data}: {why}")
    return int(rc)


def is_cut_short(data: Path) -> bool:
    """Whether an index that is not sound is one whose making was cut short: it is no larger than a
    new one, and no commit is in either of its meta pages. These are written before anything else,
    and not synced before the first transaction, which makes the databases.
    """
    with data.open("rb") as file:
        content = file.read(_NEW_BYTES_MAX + 1)
    if len(content) > _NEW_BYTES_MAX:
        return False
    for start in (0, rows.PAGE_BYTES):
        meta = content[start : start + rows.PAGE_BYTES]
        transaction = int.from_bytes(meta[_META_TRANSACTION], sys.byteorder)
        is_blank = not any(meta)
        if not is_blank and (meta[_META_MAGIC] != _MAGIC or transaction >= _FIRST_COMMIT):
            return False
    return True

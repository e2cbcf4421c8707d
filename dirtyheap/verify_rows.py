"""The index for verify: every row looked at by itself, and what the good ones say together.

Where :mod:`.index` stops at the first row that is wrong, this notes it and goes on. Reads through
one transaction that it is given; writes nothing, keeps nothing open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import lmdb

from . import rows
from .base_files import Extent
from .errors import HeapCorruptError
from .index import Databases
from .rows import Record

Note = Callable[[str, object], object]
"""Called with the path of a row and what is wrong with it."""

_NO_RECORD: Final = "its record is missing or damaged"


@dataclass
class Contents:
    """What the good rows say.

    Attributes:
        hash_key: of the heap.
        records: all that are whole, by id.
        extents: rows of base files, by number and version.
        kept: the commits that can be opened, ascending, with their records whole.
    """

    hash_key: bytes
    records: dict[int, Record] = field(default_factory=dict)
    extents: list[Extent] = field(default_factory=list)
    kept: list[Record] = field(default_factory=list)
    _by_version: list[Extent] = field(default_factory=list)
    _versions: list[int] = field(default_factory=list)

    def set_extents(self, extents: list[Extent]) -> None:
        """Take the rows of base files, ascending by number and version."""
        self.extents = extents
        self._by_version = sorted(extents, key=lambda extent: extent.version)
        self._versions = [extent.version for extent in self._by_version]

    def between(self, after: int, last: int) -> Iterator[Record]:
        """Records of the commits behind ``after`` up to ``last``."""
        for commit in range(after + 1, last + 1):
            if commit in self.records:
                yield self.records[commit]

    def bases(self, commit: int, after: int = 0) -> dict[int, Extent]:
        """The version of each extent that a commit sees; only those newer than ``after``."""
        first, end = (bisect_right(self._versions, version) for version in (after, commit))
        seen: dict[int, Extent] = {}
        for extent in self._by_version[first:end]:  # ascending: later ones replace
            seen[extent.number] = extent
        return seen


class RowReader:
    """The rows of one transaction."""

    def __init__(self, databases: Databases, txn: lmdb.Transaction, meta: dict[str, Any]) -> None:
        self._databases = databases
        self._txn = txn
        self._meta = meta

    def chunk(self, record: Record, number: int) -> bytes | None:
        """One chunk of a commit's delta."""
        if record.body:
            return record.body[number]
        found = self._txn.get(rows.delta_key(record.id, number), db=self._databases.deltas)
        return None if found is None else bytes(found)

    def _rows(self, database: Any) -> Iterator[tuple[bytes, bytes]]:
        for key, row in self._txn.cursor(db=database):
            yield bytes(key), bytes(row)

    def read(self, note: Note) -> Contents:
        """All rows but the chunks; what is wrong with them goes to ``note``."""
        contents = Contents(self._meta["hash_key"])
        hashes = self._read_records(contents, note)
        last = max(hashes, default=0)
        contents.set_extents(self._read_extents(last, note))
        needed = self._find_kept(contents, last, note)
        _check_chain(contents, hashes, needed, note)
        self._check_delta_keys(contents, note)
        return contents

    def _read_records(self, contents: Contents, note: Note) -> dict[int, bytes]:
        """Fills the records; returns the hash of every row, also of those that are damaged."""
        hashes: dict[int, bytes] = {}
        for key, row in self._rows(self._databases.commits):
            try:
                commit = rows.commit_of_key(key)
            except HeapCorruptError as error:
                note("commits", error)
                continue
            hashes[commit] = rows.record_hash(row)
            try:
                contents.records[commit] = Record.unpack(row, commit)
            except HeapCorruptError as error:
                note(f"commits[{commit}]", error)
        return hashes

    def _read_extents(self, last: int, note: Note) -> list[Extent]:
        found = []
        for key, row in self._rows(self._databases.extents):
            where = f"extents[{int.from_bytes(key[:4], 'big')}]"
            try:
                extent = rows.unpack_extent(key, row)
            except HeapCorruptError as error:
                note(where, error)
                continue
            if not 1 <= extent.version <= last:
                note(where, f"is of commit {extent.version}, which is not there")
            else:
                found.append(extent)
        return found

    # --- what is kept ------------------------------------------------------------------------

    def _find_kept(self, contents: Contents, last: int, note: Note) -> set[int]:
        """Fills the commits that can be opened; returns those that they need."""
        oldest = self._oldest(last, note)
        kept = {commit for commit in contents.records if commit >= oldest}
        kept |= self._tagged(contents, note)
        needed: set[int] = set()
        fold, done = -1, 0
        for commit in sorted(kept):
            record = contents.records[commit]
            first = done + 1 if record.fold == fold else max(record.fold, 1)
            needed.update(range(first, commit + 1))
            fold, done = record.fold, commit
            _check_fold(contents, record, note)
            contents.kept.append(record)
        for commit in sorted(needed - contents.records.keys()):
            note(f"commits[{commit}]", _NO_RECORD)
        return needed

    def _oldest(self, last: int, note: Note) -> int:
        try:
            row = self._txn.get(rows.HISTORY_KEY, db=self._databases.meta)
            return rows.unpack_history(None if row is None else bytes(row), last)
        except HeapCorruptError as error:
            note("meta['history']", error)
            return last

    def _tagged(self, contents: Contents, note: Note) -> set[int]:
        tagged = set()
        for key, row in self._rows(self._databases.tags):
            try:
                tag = rows.Tag.unpack(key, row)
            except HeapCorruptError as error:
                note("tags", error)
                continue
            if tag.commit in contents.records:
                tagged.add(tag.commit)
            else:
                note(f"tags[{tag.name!r}]", f"names commit {tag.commit}: {_NO_RECORD}")
        return tagged

    def _check_delta_keys(self, contents: Contents, note: Note) -> None:
        """Chunks of no record: space that nobody gives back."""
        strange: set[int] = set()
        cursor = self._txn.cursor(db=self._databases.deltas)
        for key in map(bytes, cursor.iternext(keys=True, values=False)):
            if len(key) != 12:
                note("deltas", "a chunk stands under a damaged key")
                continue
            commit, number = rows.commit_of_delta_key(key), int.from_bytes(key[8:], "big")
            record = contents.records.get(commit)
            is_strange = record is None or number >= record.chunks or record.body
            if is_strange and commit not in strange:
                strange.add(commit)
                note(f"deltas[{commit}]", f"chunk {number} belongs to no commit")


def _check_fold(contents: Contents, record: Record, note: Note) -> None:
    """A commit rests on a fold point, or on nothing from the first commit on."""
    base = contents.records.get(record.fold)
    if record.fold and base is not None and not base.is_fold_point:
        note(f"commits[{record.id}]", f"rests on commit {record.fold}, which was not folded")


def _check_chain(
    contents: Contents, hashes: dict[int, bytes], needed: set[int], note: Note
) -> None:
    """S5: each record is the child of the one before, by id and hash, or was folded, or is the
    first of all. Those that nothing needs any more go one by one: pruning.py."""
    for commit, record in sorted(contents.records.items()):
        if commit not in needed:
            continue
        before = rows.NO_HASH if commit == 1 else hashes.get(commit - 1)
        if record.is_fold_point and before is None:
            continue  # those before it were given up
        if before is None:
            note(f"commits[{commit}]", "the commit before it is missing")
        elif record.parent_hash != before and not record.is_fold_point:
            note(f"commits[{commit}]", "is not the child of the commit before it")

"""Upgrade: the rows of a heap of an older format, written anew for the format of today.

Pages, deltas and base files are the same in format 1 and 2 (docs/format.md, "Format 1"), so nothing
but rows of the index changes, and one transaction does it: whoever is killed, or whatever fails,
the heap is wholly of the old format or wholly of the new one. Upgrading what is new already changes
nothing. Reads no page and needs no memory for the heap's contents.

Must never write a row that it could not have read: the heap may be damaged, and is then left alone.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb

from . import environments, rows
from .base_files import BaseFiles, Extent, is_file_name
from .errors import HeapCorruptError, HeapError
from .index import DATABASES, check_index
from .rows import FORMAT, Record
from .writer_lock import WriterLock

_OLDEST_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What an upgrade did, or would do.

    Attributes:
        path: the heap's directory.
        format_before: the format that was found.
        format_after: the format that this version writes.
        commits: records that are (to be) written anew; 0 when nothing is to be done.
        base_files: rows of base files, likewise.
        is_done: whether the heap is of ``format_after`` now.
    """

    path: Path
    format_before: int
    format_after: int
    commits: int
    base_files: int
    is_done: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """All rows that format 2 has in other words, ready to be written."""

    meta: bytes
    history: bytes
    commits: list[tuple[bytes, bytes]]
    extents: list[tuple[bytes, bytes]]
    old_extents: list[bytes]


def upgrade(path: str | os.PathLike[str], *, dry_run: bool = False) -> UpgradeReport:
    """Bring a heap to the format of this version.

    Only the newest commit of the heap can be opened afterwards, as before: format 1 kept no others.
    There is no way back; make a copy first (``python -m dirtyheap backup``), and keep it until you
    have seen the upgraded heap work.

    Args:
        path: the heap's directory. Nobody may have it open.
        dry_run: True: read and check everything, write nothing.

    Raises:
        HeapLockedError: another process (or this one) has it open for writing.
        HeapCorruptError: it is damaged; nothing was changed.
        HeapError: it is no heap, or of a newer format; or writing failed, and nothing was changed.
        FileNotFoundError: there is no heap.

    Cost: reads the deltas once; writes a few hundred bytes for each commit and base file.

    >>> import dirtyheap as dh, tempfile, os
    >>> from dirtyheap.upgrade import upgrade
    >>> path = os.path.join(tempfile.mkdtemp(), "heap")
    >>> dh.open(path).close()
    >>> upgrade(path).commits
    0
    """
    directory = Path(path).absolute()
    environments.require_data(directory)
    environments.refuse_links(directory)
    lock = WriterLock(directory)
    try:
        if check_index(directory / environments.DATA_NAME) != 0:
            raise HeapError(f"{directory} is being written to by somebody without its lock")
        lease = environments.WriterLease(directory)
        try:
            return _upgrade(directory, lease.environment, dry_run=dry_run)
        except lmdb.Error as error:
            raise HeapError(
                f"{directory} was not upgraded: {error}; nothing was changed"
            ) from error
        finally:
            lease.release()
    finally:
        lock.release()


def _upgrade(
    directory: Path, environment: environments.Environment, *, dry_run: bool
) -> UpgradeReport:
    env = environment.env
    try:
        databases = [env.open_db(name, create=False) for name in DATABASES[:-1]]
    except lmdb.NotFoundError:
        raise HeapError(
            f"{directory} holds an LMDB database that is not a dirtyheap heap"
        ) from None
    with env.begin() as txn:
        meta = _read_meta(txn, databases[0], directory)
        found = meta["format"]
        if found == FORMAT:
            return UpgradeReport(directory, found, FORMAT, 0, 0, is_done=True)
        plan = _plan(txn, databases, meta, directory)
    if not dry_run:
        _write(environment, databases, plan)
    return UpgradeReport(
        directory, found, FORMAT, len(plan.commits), len(plan.extents), is_done=not dry_run
    )


def _read_meta(txn: lmdb.Transaction, database: Any, directory: Path) -> dict[str, Any]:
    found = txn.get(rows.META_KEY, db=database)
    if found is None:
        raise HeapCorruptError(f"{directory} has lost its description")
    row = bytes(found)
    meta = rows.unseal(row, "the heap's description")
    number = meta.get("format")
    if type(number) is not int or number >= FORMAT or meta.get("features_required"):
        rows.check_meta(row, directory)  # of today, or says what is wrong
    elif number < _OLDEST_FORMAT:
        raise HeapCorruptError("the heap's description is damaged")
    return meta


# --- format 1 to 2 --------------------------------------------------------------------------------


def _plan(
    txn: lmdb.Transaction, databases: list[Any], meta: dict[str, Any], directory: Path
) -> _Plan:
    _, commits, deltas, extents = databases
    old_records = [_fields_of_record(key, row) for key, row in _rows_of(txn, commits)]
    _check_deltas(txn, deltas, old_records)
    new_commits = _upgraded_records(old_records)
    last = old_records[-1]["id"] if old_records else 0
    found = [_old_extent(key, row, last) for key, row in _rows_of(txn, extents)]
    _check_files(directory, found)
    new_meta = rows.seal({**meta, "format": FORMAT})
    rows.check_meta(new_meta, directory)
    return _Plan(
        new_meta,
        rows.pack_history(max(last, 1)),
        new_commits,
        [(rows.extent_key(e.number, e.version), rows.pack_extent(e)) for e in found],
        [e.number.to_bytes(4, "big") for e in found],
    )


def _rows_of(txn: lmdb.Transaction, database: Any) -> list[tuple[bytes, bytes]]:
    return [(bytes(key), bytes(row)) for key, row in txn.cursor(db=database)]


def _fields_of_record(key: bytes, row: bytes) -> dict[str, Any]:
    """The fields of one record of format 1, and the hash of its row."""
    commit_id = rows.commit_of_key(key)
    fields = rows.unseal(row, f"the record of commit {commit_id}")
    Record.unpack(rows.seal({**fields, "fold": 0}), commit_id)  # of the right types, or says so
    return {**fields, "row_hash": rows.record_hash(row)}


def _check_deltas(txn: lmdb.Transaction, database: Any, records: list[dict[str, Any]]) -> None:
    """The chain of format 1: it begins at the first commit of all, or where it was folded."""
    before: dict[str, Any] | None = None
    for record in records:
        if before is None:
            is_child = record["parent"] == 0 or record["chunks"] == 0
        else:
            is_child = (record["parent"], record["parent_hash"]) == (
                before["id"],
                before["row_hash"],
            )
        if not is_child:
            raise HeapCorruptError(f"the commit before commit {record['id']} is missing")
        _check_body(txn, database, record)
        before = record


def _check_body(txn: lmdb.Transaction, database: Any, record: dict[str, Any]) -> None:
    body = rows.body_hasher()
    for number in range(record["chunks"]):
        chunk = txn.get(rows.delta_key(record["id"], number), db=database)
        if chunk is None:
            raise HeapCorruptError(f"commit {record['id']}: chunk {number} is missing")
        body.update(chunk)
    if record["chunks"] and body.digest() != record["body_hash"]:
        raise HeapCorruptError(f"commit {record['id']}: the body's hash is wrong")


def _upgraded_records(old_records: list[dict[str, Any]]) -> list[tuple[bytes, bytes]]:
    """The same commits, all on the same base files; each names its parent by the new row's hash."""
    made: list[tuple[bytes, bytes]] = []
    fold = 0
    for fields in old_records:
        if not made and fields["chunks"] == 0:
            fold = fields["id"]
        known = {name: fields[name] for name in fields if name in Record.__slots__}
        if made:
            known["parent_hash"] = rows.record_hash(made[-1][1])
        row = Record(**known, fold=fold).pack()
        made.append((rows.commit_key(fields["id"]), row))
    return made


def _old_extent(key: bytes, row: bytes, last: int) -> Extent:
    if len(key) != 4:
        raise HeapCorruptError("an extent row stands under a damaged key")
    (number,) = struct.unpack(">I", key)
    fields = rows.unseal(row, f"the row of extent {number}")
    version, file_bytes, checksum, name = (
        fields.get(field) for field in ("version", "file_bytes", "checksum", "file_name")
    )
    if not (type(version) is int and 1 <= version <= last and is_file_name(name)):
        raise HeapCorruptError(f"the row of extent {number} is damaged")
    extent = Extent(number, version, file_bytes, checksum, name)  # type: ignore[arg-type]  # looked at below
    return rows.unpack_extent(rows.extent_key(number, version), rows.pack_extent(extent))


def _check_files(directory: Path, extents: list[Extent]) -> None:
    base = BaseFiles(directory)
    for extent in extents:
        try:
            fd = base.locate(extent)
        except FileNotFoundError:
            raise HeapCorruptError(f"the base file {extent.file_name} is missing") from None
        try:
            if os.fstat(fd).st_size != extent.file_bytes:
                raise HeapCorruptError(f"the base file {extent.file_name} has a wrong size")
        finally:
            os.close(fd)


def _write(environment: environments.Environment, databases: list[Any], plan: _Plan) -> None:
    """All of it or nothing."""
    env = environment.env
    with environment.writing, env.begin(write=True) as txn:
        env.open_db(DATABASES[-1], txn=txn)
        _write_rows(txn, databases, plan)


def _write_rows(txn: lmdb.Transaction, databases: list[Any], plan: _Plan) -> None:
    meta, commits, _, extents = databases
    for key in plan.old_extents:
        txn.delete(key, db=extents)
    for key, row in plan.extents:
        txn.put(key, row, db=extents)
    for key, row in plan.commits:
        txn.put(key, row, db=commits)
    txn.put(rows.HISTORY_KEY, plan.history, db=meta)
    txn.put(rows.META_KEY, plan.meta, db=meta)

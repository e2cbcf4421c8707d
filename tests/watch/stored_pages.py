"""An independent reader of what a heap's directory says about every page.

Written from docs/design.md sections 6 and 7 alone, in plain Python, over a copy of the index; it
shares no code with the library. It checks what can be checked (sizes, page checksums) and keeps the
image that results, so that the tests can hold memory and their own addresses against it.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import msgpack

PAGE_BYTES = 4096
EXTENT_PAGES = 1024
TABLE_BIT = 1 << 31
ENTRY_BYTES, ENTRIES_PER_TABLE_PAGE = 36, 113
CHUNK_MAGIC = 0x314B4E4843594844
DIFF, FRESH, WHOLE, FREED = 1, 2, 3, 4
FREE, RESERVED = 0, 1
ZEROS = bytes(PAGE_BYTES)


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc32c_table()


def crc32c(data: bytes) -> int:
    """The Castagnoli polynomial, one byte at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def page_checksum(page: bytes) -> int:
    """The CRC over the CRCs of the page's four quarters."""
    quarters = [page[i : i + 1024] for i in range(0, PAGE_BYTES, 1024)]
    return crc32c(b"".join(struct.pack("<I", crc32c(quarter)) for quarter in quarters))


@dataclass
class StoredCommit:
    """What one commit stored: page numbers by form, and what its record says of it."""

    id: int
    root: int
    hwm_pages: int
    changed: set[int] = field(default_factory=set)  # pages of the arena with new bytes
    freed: set[int] = field(default_factory=set)
    table: set[int] = field(default_factory=set)
    whole: set[int] = field(default_factory=set)


class StoredPages:
    """The pages of a heap as its directory has them; :meth:`read_on` takes in new commits."""

    def __init__(self, directory: Path, *, check_sums: bool = True) -> None:
        self.directory = directory
        self.check_sums = check_sums
        self.pages: dict[int, bytes] = {}
        self.commits: dict[int, StoredCommit] = {}
        self._bases: dict[int, int] = {}  # extent -> version taken in

    def read_on(self) -> StoredCommit:
        """Take in every commit that is new; returns the last one."""
        with tempfile.TemporaryDirectory() as copy:
            shutil.copy(self.directory / "data.mdb", copy)
            environment = lmdb.open(copy, readonly=True, lock=False, max_dbs=8)
            with environment, environment.begin() as txn:
                self._read_commits(txn, environment)
        return self.commits[max(self.commits)]

    def _read_commits(self, txn: lmdb.Transaction, environment: lmdb.Environment) -> None:
        databases = {
            name: environment.open_db(name.encode(), txn=txn, create=False)
            for name in ("commits", "deltas", "extents")
        }
        extents: dict[int, int] = {}  # the newest version of each: keys ascend
        names: dict[int, str] = {}
        for key, value in txn.cursor(db=databases["extents"]):
            extent, version = struct.unpack(">IQ", key)
            extents[extent] = version
            names[extent] = msgpack.unpackb(unsealed(value))["file_name"]
        for key, value in txn.cursor(db=databases["commits"]):
            number = int.from_bytes(key, "big")
            if number in self.commits:
                continue
            record = msgpack.unpackb(unsealed(value))
            commit = StoredCommit(number, record["root"], record["hwm_pages"])
            for index in range(record["chunks"]):
                if "body" in record:
                    chunk = record["body"][index]
                else:
                    chunk = txn.get(key + struct.pack(">I", index), db=databases["deltas"])
                self._apply_chunk(commit, chunk, extents)
            self.commits[number] = commit
            for extent, version in extents.items():
                if version == number and self._bases.get(extent) != version:
                    self._apply_base(commit, extent, version, names[extent])

    def _apply_chunk(self, commit: StoredCommit, chunk: bytes, extents: dict[int, int]) -> None:
        magic, parent, number, _, entries, payload_bytes, zero = struct.unpack_from(
            "<QQQIIII", chunk
        )
        assert magic == CHUNK_MAGIC and number == commit.id and zero == 0
        assert parent < number
        assert len(chunk) == 48 + 12 * entries + payload_bytes
        at = 48 + 12 * entries
        for i in range(entries):
            page, checksum, size, form, _ = struct.unpack_from("<IIHBB", chunk, 48 + 12 * i)
            payload = chunk[at : at + size]
            at += size
            if extents.get(page // EXTENT_PAGES, 0) >= number:
                continue
            self._apply_entry(commit, page, form, payload, checksum)
        assert at == len(chunk)

    def _apply_entry(
        self, commit: StoredCommit, page: int, form: int, payload: bytes, checksum: int
    ) -> None:
        if form == FREED:
            self.pages.pop(page, None)
            commit.freed.add(page)
            return
        if form == WHOLE:
            assert len(payload) == PAGE_BYTES
            self.pages[page] = payload
            commit.whole.add(page)
        else:
            start = ZEROS if form == FRESH else self.pages.get(page, ZEROS)
            assert form in (DIFF, FRESH)
            self.pages[page] = apply_diff(start, payload)
        if self.check_sums:
            assert page_checksum(self.pages[page]) == checksum, f"checksum of page {page}"
        (commit.table if page & TABLE_BIT else commit.changed).add(page & ~TABLE_BIT)

    def _apply_base(self, commit: StoredCommit, extent: int, version: int, name: str) -> None:
        data = (self.directory / "base" / name).read_bytes()
        count = (len(data) - 28) // (PAGE_BYTES + 4)
        for index in range(EXTENT_PAGES):
            page = extent * EXTENT_PAGES + index
            before = self.pages.pop(page, ZEROS)
            now = data[index * PAGE_BYTES : (index + 1) * PAGE_BYTES] if index < count else ZEROS
            if now != ZEROS:
                self.pages[page] = now
            if now != before:
                (commit.table if page & TABLE_BIT else commit.changed).add(page & ~TABLE_BIT)
        self._bases[extent] = version

    def kind(self, page: int) -> int:
        """What the allocation table says of a page."""
        table = self.pages.get(page // ENTRIES_PER_TABLE_PAGE | TABLE_BIT, ZEROS)
        return table[page % ENTRIES_PER_TABLE_PAGE * ENTRY_BYTES]

    def allocated(self, commit: StoredCommit) -> list[int]:
        """Pages that hold something."""
        return [p for p in range(commit.hwm_pages) if self.kind(p) not in (FREE, RESERVED)]


def apply_diff(page: bytes, diff: bytes) -> bytes:
    """Runs of 8-byte words: u16 (first word, words - 1 in the upper 7 bits), then the words."""
    result, at = bytearray(page), 0
    while at < len(diff):
        (head,) = struct.unpack_from("<H", diff, at)
        first, words = head & 511, (head >> 9) + 1
        assert first + words <= 512 and at + 2 + words * 8 <= len(diff)
        result[first * 8 : (first + words) * 8] = diff[at + 2 : at + 2 + words * 8]
        at += 2 + words * 8
    return bytes(result)


def unsealed(value: bytes) -> bytes:
    """The msgpack map of a row, without the hash behind it."""
    packed, seal = value[:-16], value[-16:]
    assert hashlib.blake2b(packed, digest_size=16).digest() == seal
    return packed

"""A hostile author: changes inside pages of a heap, with every checksum made right again.

A second, independent implementation of the checksums: CRC-32C (Castagnoli) by table, a page's as
the CRC of the CRCs of its quarters, a base file's trailer, and the hash behind a row of the index.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import msgpack

PAGE = 4096
EXTENT_PAGES = 1024
TABLE_EXTENT = (1 << 31) // EXTENT_PAGES  # extents of the allocation table are numbered from here
ENTRY_BYTES, ENTRIES_PER_PAGE = 36, 113
KIND_CELLS = 8
RUN_REFS, RUN_RAW = 4, 5
CELL_BYTES = (
    *(16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224),
    *(256, 320, 384, 448, 512, 576, 672, 816, 1024, 1360, 2048),
)


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _make_table()


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def page_checksum(page: bytes) -> int:
    """Of one page: the CRC of the CRCs of its quarters."""
    quarters = [crc32c(page[at : at + PAGE // 4]) for at in range(0, PAGE, PAGE // 4)]
    return crc32c(struct.pack("<4I", *quarters))


def seal(packed: bytes) -> bytes:
    """A row with its hash."""
    return packed + hashlib.blake2b(packed, digest_size=16).digest()


@dataclass(frozen=True)
class Cell:
    """An allocated cell: where, how large, words or bytes."""

    offset: int
    size: int
    has_words: bool


@dataclass
class Image:
    """A heap whose newest state stands in base files alone, to be changed and sealed again."""

    directory: Path
    files: dict[int, Path] = field(default_factory=dict)
    data: dict[int, bytearray] = field(default_factory=dict)
    changed: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path in sorted((self.directory / "base").iterdir()):
            number, version = (int(part, 16) for part in path.name.split(".")[:2])
            newest = self.files.get(number)
            if newest is None or int(newest.name.split(".")[1], 16) < version:
                self.files[number] = path
        for number, path in self.files.items():
            self.data[number] = bytearray(path.read_bytes())

    # --- reading -----------------------------------------------------------------------------

    def pages(self, extent: int) -> int:
        """Of a base file."""
        return len(self.data[extent]) // (PAGE + 4) if extent in self.data else 0

    def cells(self) -> list[Cell]:
        """All that the table says is allocated."""
        found = []
        for extent in sorted(number for number in self.data if number >= TABLE_EXTENT):
            for page in range(self.pages(extent)):
                first = ((extent - TABLE_EXTENT) * EXTENT_PAGES + page) * ENTRIES_PER_PAGE
                for slot in range(ENTRIES_PER_PAGE):
                    found += self._cells_of(extent, page, slot, first + slot)
        return found

    def _cells_of(self, extent: int, page: int, slot: int, pgno: int) -> list[Cell]:
        at = page * PAGE + slot * ENTRY_BYTES
        kind = self.data[extent][at]
        if kind in (RUN_REFS, RUN_RAW):
            pages = int.from_bytes(self.data[extent][at + 4 : at + 12], "little")
            return [Cell(pgno * PAGE, pages * PAGE, kind == RUN_REFS)]
        if kind < KIND_CELLS:
            return []
        bits = int.from_bytes(self.data[extent][at + 4 : at + 36], "little")
        size = CELL_BYTES[(kind - KIND_CELLS) // 2]
        return [
            Cell(pgno * PAGE + granule * 16, size, kind % 2 == 0)
            for granule in range(256)
            if bits >> granule & 1
        ]

    def word(self, offset: int) -> int:
        """The word at an offset of the arena."""
        extent, at = divmod(offset, EXTENT_PAGES * PAGE)
        return int.from_bytes(self.data[extent][at : at + 8], "little")

    # --- changing ----------------------------------------------------------------------------

    def patch(self, offset: int, data: bytes, *, extent_from: int = 0) -> None:
        """Write bytes at an offset of the arena, or (extent_from=TABLE_EXTENT) of the table."""
        extent, at = divmod(offset, EXTENT_PAGES * PAGE)
        extent += extent_from
        if at + len(data) > self.pages(extent) * PAGE:
            return  # a free page at the end that the file need not have
        self.data[extent][at : at + len(data)] = data
        self.changed.update((extent, (at + i) // PAGE) for i in (0, len(data) - 1))

    def patch_word(self, offset: int, word: int) -> None:
        """Write one word."""
        self.patch(offset, (word & (1 << 64) - 1).to_bytes(8, "little"))

    def seal(self) -> None:
        """Make all checksums right and write the files and rows."""
        for extent in {extent for extent, _ in self.changed}:
            data, pages = self.data[extent], self.pages(extent)
            for page in sorted(page for number, page in self.changed if number == extent):
                at = pages * PAGE + 24 + 4 * page
                data[at : at + 4] = struct.pack(
                    "<I", page_checksum(bytes(data[page * PAGE : page * PAGE + PAGE]))
                )
            checksum = crc32c(bytes(data[pages * PAGE : -4]))
            data[-4:] = struct.pack("<I", checksum)
            self.files[extent].write_bytes(data)
            self._seal_row(extent, checksum)

    def _seal_row(self, extent: int, checksum: int) -> None:
        with lmdb.open(str(self.directory), map_size=1 << 30, max_dbs=8, sync=False) as env:
            extents = env.open_db(b"extents", create=False)
            with env.begin(write=True, db=extents) as txn:
                for key, row in list(txn.cursor()):
                    fields = msgpack.unpackb(row[:-16])
                    if fields["file_name"] == self.files[extent].name:
                        fields["checksum"] = checksum
                        txn.put(key, seal(msgpack.packb(fields)))

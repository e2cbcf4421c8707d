"""Seeds for the fuzzers of native/fuzz: what real heaps are made of, one file for each input."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import msgpack
from reseal import PAGE, TABLE_EXTENT, Image

import dirtyheap as dh


def _small_heaps(directory: Path) -> list[Path]:
    """A heap for each kind of container, with deltas, and folded."""
    contents = {
        "dict": lambda heap: {"a": 1, "text": "x" * 40, (1, 2): b"bytes" * 4},
        "large": lambda heap: {i: i for i in range(400)},
        "shaped": lambda heap: [{"id": i, "name": f"user {i} of many"} for i in range(9)],
        "list": lambda heap: list(range(1500)),
        "relaxed": lambda heap: [],
        "deque": lambda heap: heap.deque(range(40), 50),
        "set": lambda heap: heap.set(range(100)),
        "sorted": lambda heap: heap.sorted_dict({f"{i:04}": i for i in range(600)}),
        "values": lambda heap: [(1, ("x" * 9, 2.5e300)), 1 << 90, frozenset({1}), 1 + 2j],
        "buffer": lambda heap: heap.buffer(b"x" * 5000),
    }
    made = []
    for name, make in contents.items():
        path = directory / name
        with dh.open(path, keep=3) as heap:
            heap.root["v"] = make(heap)
            if name == "relaxed":
                heap.root["v"].extend(range(1200))
                for i in range(20):
                    heap.root["v"].insert(300 + 20 * i, i)
            heap.commit()
            heap.fold()
            heap.root["more"] = "a text in a delta"
            heap.commit()
            heap.root["more"] = [1]
            heap.commit()
        made.append(path)
    return made


@contextmanager
def _rows(path: Path, database: bytes) -> Iterator[lmdb.Cursor]:
    options = {"map_size": 1 << 30, "max_dbs": 8, "readonly": True, "lock": False}
    with lmdb.open(str(path), **options) as env, env.begin() as txn:
        yield txn.cursor(env.open_db(database, txn, create=False))


def _chunks(path: Path) -> list[bytes]:
    with _rows(path, b"deltas") as cursor:
        chunks = [bytes(chunk) for _, chunk in cursor]
    with _rows(path, b"commits") as cursor:
        for _, row in cursor:
            chunks += msgpack.unpackb(row[:-16]).get("body", [])
    return chunks


def _last_record(path: Path) -> dict[str, int]:
    with _rows(path, b"commits") as cursor:
        assert cursor.last()
        record: dict[str, int] = msgpack.unpackb(cursor.value()[:-16])
        return record


def _pages(path: Path) -> bytes:
    """As fuzz_heap.c wants them: a heap as its newest base files have it."""
    record, image = _last_record(path), Image(path)
    table_pages = -(-record["hwm_pages"] // 113)
    table = bytes(image.data[TABLE_EXTENT][: image.pages(TABLE_EXTENT) * PAGE])
    arena = bytes(image.data[0][PAGE : image.pages(0) * PAGE])
    head = struct.pack("<3Q", record["hwm_pages"] - 1, record["root"], record["serial_next"])
    return head + table.ljust(table_pages * PAGE, b"\0") + arena


def write_seeds(directory: Path) -> dict[str, Path]:
    """Make the heaps and take them apart; returns the folder of seeds of each fuzzer."""
    folders = {name: directory / f"seeds-{name}" for name in ("delta", "index", "base", "heap")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for path in _small_heaps(directory):
        for number, chunk in enumerate(_chunks(path)):
            (folders["delta"] / f"{path.name}-{number}").write_bytes(chunk)
        (folders["index"] / path.name).write_bytes((path / "data.mdb").read_bytes())
        for file in (path / "base").iterdir():
            (folders["base"] / f"{path.name}-{file.name}").write_bytes(file.read_bytes())
        with dh.open(path) as heap:
            heap.fold()
        (folders["heap"] / path.name).write_bytes(_pages(path))
    return folders

"""What a million records of six fields take in memory: {id, name, price, qty, code, ok}.

Each contestant saves the records in one process; a fresh one opens them, reads every field of every
record once, and tells its PSS minus that of the interpreter with the same modules before it opened
anything. Python's own objects are made anew there, by unpickling or by a loop. Then a million
fields are read at random: what a library keeps beside its data would show as growth.

  plain dicts        a list of dicts; keys shared as string objects
  dirtyheap dicts    a List of Dicts, copied in as plain dicts; folded, as a heap at rest is
  dirtyheap records  instances of a class under @dh.record; folded
  ZODB mappings      one PersistentMapping for each record in an IOBTree; the cache holds them all
  ZODB dicts         plain dicts in an IOBTree: a bucket of them is one object of the database
"""

from __future__ import annotations

import gc
import json
import pickle
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transaction
import ZODB
import ZODB.FileStorage
from BTrees.IOBTree import IOBTree
from common import (
    Row,
    arguments,
    disk_bytes,
    hand_back,
    header,
    in_fresh_process,
    judge,
    mb,
    print_table,
    pss_bytes,
    work_directory,
    write_csv,
)
from persistent.mapping import PersistentMapping

import dirtyheap as dh

FIELDS = ("id", "name", "price", "qty", "code", "ok")
COLUMNS = ["method", "PSS MB", "bytes/record", "ratio", "grown MB", "disk MB"]


def record(number: int) -> dict[str, Any]:
    return {
        "id": 1_000_000 + number,
        "name": f"item{number % 1_000_000:06}",
        "price": number / 7 + 0.5,
        "qty": number % 100,
        "code": f"c{number * 7919 % 1_000_000:06}",
        "ok": number % 3 != 0,
    }


if hasattr(dh, "record"):

    @dh.record
    class Item:
        id: int
        name: str
        price: float
        qty: int
        code: str
        ok: bool


# --- contestants ----------------------------------------------------------------------------------


class Kept(ABC):
    """One way to keep the records: saved by one process, read by the next."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def save(self, count: int) -> None: ...

    @abstractmethod
    def open(self) -> Any:
        """What `records[number]` gives a record of."""

    def field(self, one: Any, name: str) -> Any:
        return one[name]


class PlainDicts(Kept):
    def save(self, count: int) -> None:
        (self.directory / "count").write_text(str(count))

    def open(self) -> Any:
        return [record(number) for number in range(int((self.directory / "count").read_text()))]


class UnpickledDicts(Kept):
    def save(self, count: int) -> None:
        with (self.directory / "records.pickle").open("wb") as file:
            pickle.dump([record(number) for number in range(count)], file, protocol=5)

    def open(self) -> Any:
        with (self.directory / "records.pickle").open("rb") as file:
            return pickle.load(file)


class HeapDicts(Kept):
    def save(self, count: int) -> None:
        with dh.open(self.directory / "heap") as heap:
            heap.root["records"] = [record(number) for number in range(count)]
            heap.commit()
            heap.fold()

    def open(self) -> Any:
        self.heap = dh.open(self.directory / "heap")
        return self.heap.root["records"]


class HeapRecords(HeapDicts):
    def save(self, count: int) -> None:
        with dh.open(self.directory / "heap") as heap:
            records = heap.root["records"] = heap.list()
            for number in range(count):
                records.append(heap.new(Item, **record(number)))
            heap.commit()
            heap.fold()

    def field(self, one: Any, name: str) -> Any:
        return getattr(one, name)


class ZodbMappings(Kept):
    def make(self, number: int) -> Any:
        return PersistentMapping(record(number))

    def _root(self) -> Any:
        storage = ZODB.FileStorage.FileStorage(str(self.directory / "data.fs"))
        self._db = ZODB.DB(storage, cache_size=4_000_000)
        return self._db.open().root()

    def save(self, count: int) -> None:
        tree = self._root()["records"] = IOBTree()
        for number in range(count):
            tree[number] = self.make(number)
        transaction.commit()
        self._db.close()

    def open(self) -> Any:
        return self._root()["records"]


class ZodbDicts(ZodbMappings):
    def make(self, number: int) -> Any:
        return record(number)


CONTESTANTS: dict[str, type[Kept]] = {
    "plain dicts": PlainDicts,
    "unpickled dicts": UnpickledDicts,
    "dirtyheap dicts": HeapDicts,
    "dirtyheap records": HeapRecords,
    "ZODB mappings": ZodbMappings,
    "ZODB dicts": ZodbDicts,
}


# --- one process each -----------------------------------------------------------------------------


def fields(kept: Kept, records: Any, numbers: Iterable[int]) -> int:
    """Read every field of these records; the number of fields that are right."""
    right = 0
    for number in numbers:
        one, expected = records[number], record(number)
        for name in FIELDS:
            right += kept.field(one, name) == expected[name]
    return right


def measure(kept: Kept, count: int) -> Row:
    before = pss_bytes()
    records = kept.open()
    right = fields(kept, records, range(count))
    if right != count * len(FIELDS):
        raise RuntimeError(f"{count * len(FIELDS) - right} fields are wrong")
    opened = pss_bytes()
    rng = random.Random(1)
    reads = 1_000_000 // len(FIELDS) + 1
    fields(kept, records, (rng.randrange(count) for _ in range(reads)))
    after = pss_bytes()
    return {"pss": opened - before, "grown": after - opened}


def run_part(part: Row) -> None:
    kept = CONTESTANTS[part["method"]](Path(part["directory"]))
    if part["step"] == "save":
        kept.save(part["count"])
        hand_back({})
    else:
        hand_back(measure(kept, part["count"]))


# --- all ------------------------------------------------------------------------------------------


def compare(directory: Path, count: int) -> list[Row]:
    rows: list[Row] = []
    for method in CONTESTANTS:
        if method == "dirtyheap records" and not hasattr(dh, "record"):
            continue
        own = directory / method.replace(" ", "-")
        own.mkdir()
        part = {"method": method, "directory": str(own), "count": count}
        in_fresh_process(__file__, {**part, "step": "save"})
        found = in_fresh_process(__file__, {**part, "step": "read"})
        rows.append(
            {
                "method": method,
                "PSS MB": mb(found["pss"]),
                "bytes/record": found["pss"] / count,
                "ratio": found["pss"] / count / (rows[0]["bytes/record"] if rows else 1),
                "grown MB": mb(found["grown"]),
                "disk MB": mb(disk_bytes(own)),
            }
        )
    rows[0]["ratio"] = 1.0
    return rows


def main() -> int:
    options = arguments(__doc__ or "")
    if options.part:
        run_part(json.loads(options.part))
        return 0
    count = 50_000 if options.quick else 1_000_000
    facts = header(f"memory of {count:,} records of six fields", ["ZODB", "persistent", "BTrees"])
    with work_directory(options.dir) as directory:
        rows = compare(directory, count)
    print_table(rows, COLUMNS)
    for row in rows:
        if row["method"].startswith("dirtyheap"):
            aim = 1 / 4 if row["method"] == "dirtyheap dicts" else 1 / 6
            judge(f"{row['method']}: PSS / plain dicts'", row["ratio"], aim)
            grown = row["grown MB"] / row["PSS MB"]
            unchanged = "unchanged" if abs(grown) < 0.01 else f"changed by {grown:.1%}"
            print(f"{row['method']}: after a million reads PSS is {unchanged}", flush=True)
    write_csv("memory", facts, rows)
    return 0


if __name__ == "__main__":
    gc.collect()
    sys.exit(main())

"""The contestants of bench_commit: ways to keep a million records, id -> six fields, on disk.

Each builds the same records, lets them be changed in place and saves them durably. What differs is
what an application would have to write to use it; the heap and ZODB keep their own containers.
"""

from __future__ import annotations

import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import transaction
import ZODB
import ZODB.FileStorage
from BTrees.IOBTree import IOBTree
from persistent.mapping import PersistentMapping

import dirtyheap as dh

Record = MutableMapping[str, Any]

CITIES = ["Amsterdam", "Berlin", "Cairo", "Delhi", "Essen", "Florence", "Geneva", "Helsinki"]


def record(number: int) -> dict[str, Any]:
    return {
        "name": f"customer {number:07}",
        "city": CITIES[number % len(CITIES)],
        "age": 18 + number % 70,
        "visits": number,
        "score": number / 7,
        "is_active": number % 3 == 0,
    }


def change(records: MutableMapping[int, Record], chosen: Iterable[int]) -> None:
    """Two of six fields of each chosen record get another value."""
    for number in chosen:
        one = records[number]
        one["visits"] += 1
        one["score"] = one["score"] + 0.5


class Store(ABC):
    """One contestant. `written_bytes` is set by save() where the kernel's count cannot show it."""

    records: Any
    pages: int | None = None
    written_bytes: int | None = None

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def build(self, count: int) -> None:
        """Make `count` records and save them."""

    @abstractmethod
    def save(self) -> None:
        """Make every change so far durable."""

    def close(self) -> None:  # noqa: B027 - nothing to give back is a right answer
        """Give everything back."""


class DirtyHeap(Store):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.heap = dh.open(directory / "heap")

    def build(self, count: int) -> None:
        self.heap.root["records"] = {}
        self.records = self.heap.root["records"]
        for number in range(count):
            self.records[number] = record(number)
        self.save()

    def save(self) -> None:
        self.pages = self.heap.commit().pages

    def close(self) -> None:
        self.heap.close()


class Pickle(Store):
    """Protocol 5 into a new file, synced, renamed over the old one, directory synced."""

    def build(self, count: int) -> None:
        self.records = {number: record(number) for number in range(count)}
        self.save()

    def save(self) -> None:
        dump_durably(self.records, self.directory / "state.pickle")


class ForkPickle(Pickle):
    """The same in a forked child while the parent goes on; done when the child is."""

    def save(self) -> None:
        path = self.directory / "state.pickle"
        child = os.fork()
        if child == 0:
            dump_durably(self.records, path)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise RuntimeError(f"the pickling child ended with status {status}")
        self.written_bytes = path.stat().st_size


class Zodb(Store):
    """FileStorage, one persistent mapping per record in an IOBTree; the cache holds them all."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        storage = ZODB.FileStorage.FileStorage(str(directory / "data.fs"))
        self._db = ZODB.DB(storage, cache_size=4_000_000)
        self._connection = self._db.open()

    def build(self, count: int) -> None:
        self.records = self._connection.root()["records"] = IOBTree()
        for number in range(count):
            self.records[number] = PersistentMapping(record(number))
        self.save()

    def save(self) -> None:
        transaction.commit()

    def pack(self) -> None:
        """Drop what is no longer current: into a new file, as FileStorage does it."""
        self._db.pack()

    def close(self) -> None:
        transaction.abort()
        self._connection.close()
        self._db.close()


STORES: dict[str, type[Store]] = {
    "dirtyheap": DirtyHeap,
    "pickle": Pickle,
    "fork + pickle": ForkPickle,
    "ZODB": Zodb,
}


def dump_durably(state: Any, path: Path) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        pickle.dump(state, file, protocol=5)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Heaps to damage: every container type, records, arrays, packed values, commits, folds, tags.

Made anew in each process from fixed seeds, and kept as bytes: a case writes them out, damaged.
"""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import random
import uuid
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from walk import fingerprint

import dirtyheap as dh


@dh.register
class Suit(enum.Enum):
    """Members are values of a type that the program registered."""

    HEARTS = 1
    SPADES = 2


@dh.record
class Point:
    """A record with fields of several kinds."""

    x: int
    y: float
    name: str
    is_open: bool = False
    more: Any = None


@dataclass
class Specimen:
    """A sound heap: its files, what they were after earlier commits, and what is in it."""

    name: str
    files: dict[str, bytes]
    older: list[dict[str, bytes]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)  # fingerprints, the newest last


def snapshot(directory: Path) -> dict[str, bytes]:
    """All files of a heap by their name in its directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def restore(files: dict[str, bytes], directory: Path) -> None:
    """Write them out again."""
    (directory / "base").mkdir(parents=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)


def rich_contents(heap: dh.Heap, scale: int) -> None:
    """One of everything; some of it large enough to have inner nodes."""
    root, rng = heap.root, random.Random(scale)
    root["shaped"] = [{"id": i, "name": f"user number {i}", "mail": None} for i in range(20)]
    root["small"] = {"a": 1, "b": "a text of its own", 3: 2.5, None: (), (1, "x"): b"bytes" * 5}
    root["large"] = {f"key {i:06}": i * i for i in range(600 * scale)}
    root["floats"] = [rng.random() * 1e300 for _ in range(40)]
    root["long list"] = list(range(700 * scale))
    middle = root["relaxed"] = [f"entry {i}" for i in range(1400 * scale)]
    for i in range(30):
        root["relaxed"].insert(500 + i * 17, [i])
    del middle
    root["deque"] = heap.deque(deque(range(50)), maxlen=60)
    root["set"] = heap.set({f"member {i}" for i in range(300)} | {1, 2.5, None, (1, (2, 3))})
    root["sorted"] = heap.sorted_dict({f"{i:05}": i for i in range(600 * scale)})
    root["numbers"] = heap.sorted_dict({Decimal(i) / 7: i for i in range(50)})
    root["buffer"] = heap.buffer(rng.randbytes(9000))
    root["array"] = heap.array((30, 20), "f8", fill=1.5)
    root["row"] = root["array"][3]
    root["structured"] = np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])
    points = [heap.new(Point, i, i / 3, f"point {i}", i % 2 == 0) for i in range(30)]
    root["points"] = points
    points[0].more = {"self": points[1], "list": [points[2]]}
    root["packed"] = [
        *(complex(1, 2), dt.datetime(2024, 2, 29, 12), dt.date(1999, 1, 1), dt.time(1, 2, 3)),
        *(dt.timedelta(days=3), Decimal("1.5"), Fraction(1, 3), uuid.UUID(int=5), range(3, 9)),
        *(PurePosixPath("/a/b"), Suit.HEARTS, 1 << 200, -(1 << 70)),
    ]
    root["tuples"] = (1, ("nested tuple", (2.5, b"bytes" * 4)), frozenset({"x" * 20, 3}))
    chain: Any = []
    root["chain"] = chain = heap.list()
    for i in range(60):
        chain.append({"link": heap.list()} if i % 2 else [heap.list()])
        last = chain[-1]
        chain = last["link"] if i % 2 else last[0]
    root["cycle"] = [root, root["small"]]


def change_contents(heap: dh.Heap, rng: random.Random) -> None:
    """Something in every container."""
    root = heap.root
    for _ in range(6):
        root["large"][f"key {rng.randrange(700):06}"] = rng.random()
        root["long list"][rng.randrange(500)] = f"text {rng.random()}"
        root["sorted"][f"{rng.randrange(900):05}"] = "changed"
    root["relaxed"].insert(rng.randrange(1000), {"new": rng.random()})
    root["set"].add(rng.randrange(1 << 70))
    root["deque"].appendleft(f"left {rng.random()}")
    root["points"][rng.randrange(20)].y = rng.random()
    root["buffer"][rng.randrange(9000)] = rng.randrange(256)
    root["array"][rng.randrange(30)] += 1
    root["small"]["b"] = f"a text of its own {rng.random()}"
    root["shaped"].append({"id": 99, "name": "one more user", "mail": f"{rng.random()}@x"})


def _open(path: Path, **options: Any) -> dh.Heap:
    """With what this version knows of the options."""
    known = inspect.signature(dh.open).parameters
    return dh.open(path, **{name: v for name, v in options.items() if name in known})


def _make(path: Path, name: str, *, scale: int, fold_after: tuple[int, ...], **options: Any):
    specimen = Specimen(name, {})
    rng = random.Random(name)
    with _open(path, **options) as heap:
        rich_contents(heap, scale)
        for commit in range(6):
            heap.commit(f"commit {commit}")
            specimen.states.append(fingerprint(heap.root))
            if commit in fold_after:
                heap.fold()
            if commit == 2 and hasattr(heap, "tag"):
                heap.tag("the third")
            specimen.older.append(snapshot(path))
            if commit < 5:
                change_contents(heap, rng)
    specimen.files = snapshot(path)
    return specimen


def make_specimens(directory: Path) -> list[Specimen]:
    """All of them."""
    return [
        _make(directory / "deltas", "deltas only", scale=1, fold_after=()),
        _make(directory / "folded", "base and deltas", scale=1, fold_after=(0, 3)),
        _make(directory / "bases", "all folded", scale=1, fold_after=(1, 5)),
        _make(directory / "history", "history and a tag", scale=1, fold_after=(1, 4), keep=4),
    ]

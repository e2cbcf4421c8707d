"""Make a golden heap with the installed dirtyheap: ``python make_golden.py DIRECTORY``.

Writes ``DIRECTORY/formatN.tar.xz`` and ``DIRECTORY/formatN.json``, what the library reads from it.
Run once for each format, with the last version that writes it; see README.md here.
"""

from __future__ import annotations

import enum
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import described
import numpy as np

import dirtyheap as dh
from dirtyheap import rows

TAGS = {"before the fold": 1, "größer": 4}
LONG = "a string that needs a cell of its own"


class Point:
    """Registered under a name that no other test has."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


class Colour(enum.Enum):
    """An enum of the same kind."""

    RED = 1
    BLUE = "blue"


class Level(enum.IntFlag):
    """Its members equal ints."""

    LOW = 1
    HIGH = 2


dh.register(Point, lambda p: [p.x, p.y], lambda xy: Point(*xy), name="golden.point")
dh.register(Colour, name="golden.colour")
dh.register(Level, name="golden.level")


@dh.record(name="golden.Item")
class Item:
    """Six fields, of which the bools are bits."""

    id: int
    name: str
    price: float
    ok: bool
    stock: int | None = None
    also: bool = False


@dh.record(name="golden.Owner")
class Owner:
    """Refers to records and containers."""

    name: str
    items: list[Item]
    notes: Any = None


def write(path: Path) -> list[dh.Commit]:
    """All that a heap can hold, over several commits, with a fold between them."""
    commits = []
    with dh.open(path, keep=100) as heap:
        values(heap)
        commits.append(heap.commit("values"))
        containers(heap)
        commits.append(heap.commit("containers"))
        heap.fold()
        records(heap)
        evolve(heap)
        commits.append(heap.commit("records"))
        arrays(heap)
        commits.append(heap.commit())
        changes(heap)
        heap.collect()
        commits.append(heap.commit("änderungen"))
        heap.root["last"] = "the last commit"
        commits.append(heap.commit())
        for name, commit in TAGS.items():
            heap.tag(name, commit)
        report = heap.verify()
        assert report.ok, report
    return commits


def values(heap: dh.Heap) -> None:
    """Every kind of value."""
    root = heap.root
    root["constants"] = [None, True, False]
    root["ints"] = [0, 1, -1, 2**62 - 1, 2**62, -(2**62), -(2**62) - 1, 2**63, 2**64, -(2**200)]
    root["floats"] = [0.0, -0.0, 1.5, -1e-300, 1e300, 5e-324, float("inf"), float("-inf")]
    root["nan"] = float("nan")
    root["texts"] = ["", "a", "1234567", "12345678", "äöüß", LONG, "\ud800", "x" * 5000]
    root["bytes"] = [b"", b"\0", b"1234567", b"12345678", bytes(range(256)) * 10]
    root["tuples"] = [(), (1,), (1, (LONG, (None, b"bytes of a tuple"))), ("a", [1, 2])]
    shared = (LONG, 1 << 80)
    root["shared"] = [shared, shared, {"again": shared}]
    root["frozensets"] = [frozenset(), frozenset({1, LONG, frozenset({2})})]
    root["numbers"] = [1 + 2j, Decimal("1.50"), Decimal("NaN"), Fraction(-1, 3), range(3, 30, 5)]
    offset, zone = timezone(timedelta(hours=-3, minutes=30)), ZoneInfo("Europe/Berlin")
    root["moments"] = [
        datetime(2026, 11, 23, 17, 5, 1, 123456),
        datetime(2026, 11, 23, tzinfo=UTC),
        datetime(2026, 11, 23, tzinfo=offset),
        datetime(2026, 11, 23, tzinfo=timezone(timedelta(hours=1), "named")),
        datetime(2026, 10, 25, 2, 30, tzinfo=zone),
        datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=1),
    ]
    root["times"] = [date(2026, 2, 3), time(1, 2, 3, 4), time(1, 2, tzinfo=offset, fold=1)]
    root["spans"] = [timedelta(0), timedelta(-3, 4, 5), timedelta(99999, 86399, 999999)]
    root["ids"] = [UUID(int=1 << 100), Path("/a/b"), PurePosixPath("c/d")]
    root["own types"] = [Point(1, -2), Colour.RED, Colour.BLUE, Level.LOW, Level.LOW | Level.HIGH]
    root["pickled"] = dh.Pickled(re.compile("a+", re.IGNORECASE))


def containers(heap: dh.Heap) -> None:
    """Every container, in all of its forms."""
    root = heap.root
    root["dict of 3"] = {"a": 1, 2: "b", (3, LONG): [None]}
    root["dict of 40"] = {f"key number {i}": i for i in range(40)}
    root["dict of 4200"] = {i * 7: -i for i in range(4200)}
    root["shaped"] = [{"id": i, "name": f"name {i}", LONG: i % 3 == 0} for i in range(20)]
    root["keys"] = {1: "int", "1": "str", b"1": "bytes", None: "none", 0.5: "float", 2**70: "big"}
    root["keys"].update({(1, (2,)): "tuple", frozenset({1, 2}): "frozenset", date(2026, 1, 1): 1})
    root["keys"].update({Decimal("0.1"): "ratio", Point(5, 6): "point", Colour.RED: "colour"})
    root["list of 5200"] = list(range(5200))
    root["list of 5200"].insert(900, "in the middle")  # relaxes the tree
    del root["list of 5200"][1500]
    root["list at the front"] = [1, 2, 3]
    root["list at the front"].insert(0, "before the first")
    root["plain list of 1500"] = [i * i for i in range(1500)]
    root["set"] = {1, "two", LONG, (3, 4)}
    root["set of 4200"] = heap.set(range(0, 12600, 3))
    root["deque"] = deque([1, 2, 3])
    root["deque"].rotate(1)
    root["bounded"] = heap.deque(range(10), maxlen=4)
    root["sorted"] = heap.sorted_dict({date(2026, 1, day): day for day in range(31, 0, -1)})
    root["sorted of 900"] = heap.sorted_dict({f"{i:03} {LONG}": i for i in range(900)})
    root["empty"] = [{}, [], set(), deque(), heap.sorted_dict(), heap.buffer(0)]
    root["buffer"] = heap.buffer(bytes(range(256)) * 20)
    root["cycle"] = [1]
    root["cycle"].append(root["cycle"])
    root["same"] = [root["set"], root["cycle"], root["set"]]


def records(heap: dh.Heap) -> None:
    """Records, numbered and wide, and of a class that changed."""
    root = heap.root
    items = [heap.new(Item, i, f"item {i}: {LONG}", i / 4, i % 2 == 0) for i in range(30)]
    root["items"] = items
    root["owner"] = heap.new(Owner, "ada", items[:3], {"first": items[0]})
    root["by record"] = heap.dict({items[1]: "one", items[2]: "two"})
    for number in range(260):  # classes after the first 255 have no number
        filler = type("Filler", (), {"__annotations__": {f"field{number}": int, "on": bool}})
        made = heap.new(dh.record(filler, name=f"golden.Filler{number}"), number, number % 2 == 0)
        if number in (0, 259):
            root[f"filler {number}"] = made


def evolve(heap: dh.Heap) -> None:
    """Another class under the same name: records get its fields when one is assigned."""
    newer = type(
        "Item",
        (),
        {
            "__annotations__": {"id": int, "name": str, "price": Any, "added": bool, "tags": list},
            "__qualname__": Item.__qualname__,
            "added": True,
            "tags": dh.field(default_factory=list),
        },
    )
    newer = dh.record(newer, name="golden.Item")
    again = heap.root["items"][4]
    assert type(again) is newer
    again.tags.append("moved")
    heap.root["items"][5].price = "free"
    heap.root["items"].append(heap.new(newer, 100, "of the newer class", price=None))


def arrays(heap: dh.Heap) -> None:
    """Arrays of several dtypes, and views that share memory."""
    root = heap.root
    field = root["field"] = heap.array((6, 5), "<f4", fill=1.5)
    field[2] = np.arange(5)
    root["edge"], root["backwards"] = field[:, -1], field[::-2, ::2]
    pair = np.dtype({"names": ["a", "b"], "formats": ["<i2", ("<f8", (2,))], "offsets": [0, 8]})
    root["structure"] = np.array([(1, (2.0, 3.0)), (4, (5.0, 6.0))], pair)
    root["text array"] = np.array([["ab", "cdé"]], "<U4")
    root["fortran"] = np.asfortranarray(np.arange(6, dtype="<i8").reshape(2, 3))
    root["scalar array"] = np.array(7, "u1")
    root["no items"] = np.zeros((0, 3), "<c16")


def changes(heap: dh.Heap) -> None:
    """What deltas are for: little of much, and freed pages."""
    root = heap.root
    for key in range(0, 29400, 700):
        del root["dict of 4200"][key]
    root["dict of 4200"]["new"] = "at the end"
    del root["dict of 40"]["key number 0"], root["dict of 40"]["key number 7"]
    del root["shaped"][3]["name"]
    root["shaped"][4]["id"] = LONG
    root["sorted of 900"].pop(f"450 {LONG}")
    root["set of 4200"].discard(0)
    root["buffer"][100:104] = b"four"
    root["field"][0, 0] = -1
    root["list of 5200"][4000] = (LONG, 1)
    root["items"][0].id = 1000
    root["texts"][7] = "y" * 300
    del root["plain list of 1500"]


def make(directory: Path) -> None:
    """The heap, packed, and its description."""
    name = f"format{rows.FORMAT}"
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "heap"
        commits = [
            {"id": commit.id, "parent": commit.parent, "note": commit.note, "time": commit.time}
            for commit in write(path)
        ]
        # By another process: one that has not defined the classes.
        done = subprocess.run(
            [sys.executable, described.__file__, path], check=True, stdout=subprocess.PIPE
        )
        pack(path, directory / f"{name}.tar.xz", name)
    expected = {"commits": commits, "tags": TAGS, "root": json.loads(done.stdout)}
    (directory / f"{name}.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


def pack(path: Path, archive_path: Path, name: str) -> None:
    """Index and base files; the locks say nothing that lasts."""

    def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime = 0
        return None if "lock" in info.name else info

    with tarfile.open(archive_path, "w:xz", preset=9) as archive:
        archive.add(path, name, filter=anonymous)


if __name__ == "__main__":
    make(Path(sys.argv[1]))

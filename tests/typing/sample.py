"""What a user's type checker must understand; checked by `make types`, never run.

Each assert_type is a promise about an annotation of the public API.
"""

from __future__ import annotations

import enum
from collections import deque
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import dirtyheap as dh


def open_and_commit(path: Path) -> int:
    with dh.open(path) as heap:
        assert_type(heap, dh.Heap)
        assert_type(heap.root, dh.Dict)
        heap.root["count"] = 1
        commit = heap.commit(note="one")
        assert_type(commit, dh.Commit)
        assert_type(commit.bytes_written, int)
        return commit.id


def history(path: Path) -> list[str]:
    with dh.open(path, keep=timedelta(days=1)) as heap, heap.savepoint() as savepoint:
        assert_type(savepoint, dh.Savepoint)
        assert_type(savepoint.rollback(), int)
        commit = heap.tag("first", heap.history()[0])
        assert_type(commit, dh.Commit)
        assert_type(heap.tags(), dict[str, dh.Commit])
        assert_type(heap.restore("first"), dh.Commit)
        heap.untag("first")
        diff = heap.diff(1, commit, limit=10)
        assert_type(diff, dh.Diff)
    with dh.open(path, read_only=True, at=commit) as snapshot:
        assert_type(snapshot.read_only, bool)
    return [str(change) for change in diff.changes if change.kind == "added"]


def leaks(path: Path) -> str:
    with dh.open(path, keep=10) as heap:
        census = heap.census()
        assert_type(census, dh.Census)
        assert_type(census.types, tuple[dh.TypeCount, ...])
        assert_type(census.of("dict").bytes, int)
        assert_type(census.fragmentation, float)
        why = heap.why(heap.root)
        assert_type(why.steps, tuple[dh.Step, ...])
        assert_type(why.path, str)
        growth = heap.growth(1, limit=5)
        assert_type(growth.containers, tuple[dh.ContainerGrowth, ...])
        return why.held_by if why else growth.types[0].type


def proof_and_probe(path: Path) -> list[str]:
    with dh.open(path, proof=True) as heap:
        assert_type(heap.stats().proof, bool)
    found = dh.probe(path)
    assert_type(found[0], dh.ProbeResult)
    assert_type(found.tracker, str)
    assert_type(found.finding("mlockall").verdict, dh.Verdict)
    reasons = [result.reason for result in found if not result.works]
    return reasons + [f"{each.text}: {each.remedy}" for each in found.warnings]


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class Colour(enum.Enum):
    RED = 1


def register_types(path: Path) -> object:
    assert_type(dh.register(Money, lambda money: money.cents, Money), type[Money])
    assert_type(dh.register(Colour, name="colour"), type[Colour])
    with dh.open(path, allow_pickle=True) as heap:
        heap.root["at"] = Money(1)
        heap.root["any"] = dh.Pickled({1, 2})
        found = heap.root["at"]
        return found.name if isinstance(found, dh.Unknown) else found


def containers(heap: dh.Heap) -> list[Any]:
    users = heap.dict({"ada": 36})
    assert_type(users, dh.Dict)
    names = heap.list(["ada"])
    assert_type(names, dh.List)
    scores = heap.sorted_dict({36: "ada"})
    assert_type(scores, dh.SortedDict)
    assert_type(scores.bisect(36), int)
    print(scores.peekitem(0), scores.keys()[0], scores.items()[-1], list(scores.irange(1, 99)))
    tags = heap.set({"new"})
    assert_type(tags, dh.Set)
    tags |= {"seen"}
    assert_type(tags, dh.Set)
    words: dh.Set[str] = heap.set()
    assert_type(words | {1}, set[str | int])
    assert_type(words & {"a"}, set[str])
    assert_type(words.union([1.5], [2.5]), set[str | float])
    jobs = heap.deque(["first"], maxlen=10)
    assert_type(jobs, dh.Deque)
    assert_type(jobs.maxlen, int | None)
    assert_type(jobs.copy(), deque[Any])
    jobs.appendleft("urgent")
    buffer = heap.buffer(4096)
    assert_type(buffer, dh.Buffer)
    memoryview(buffer)[0:4] = b"abcd"
    with heap.transaction():
        users["grace"] = 85
        names.append("grace")
    with heap.hold():
        buffer[0] = 1
    assert_type(heap.pending().pages, int)
    heap.rollback()
    return [len(users), names[0], "ada" in users]


def arrays(heap: dh.Heap) -> float:
    field = heap.array((3, 4))
    assert_type(field, npt.NDArray[np.float64])
    assert_type(heap.array(5, np.int16), npt.NDArray[np.int16])
    assert_type(heap.array((2, 2), "i4", order="F", fill=1), npt.NDArray[Any])
    heap.root["field"] = field[::2]
    heap.mark_dirty(field)
    return float(field.sum())


@dh.record
class Point:
    x: int
    y: int = 0
    tags: list[str] = dh.field(default_factory=list)

    def norm(self) -> int:
        return self.x * self.x + self.y * self.y


@dh.record(name="geometry.Named", aliases=["Named"])
class NamedPoint(Point):
    name: str = ""


def records(heap: dh.Heap) -> int:
    point = heap.new(Point, 1, y=2)
    assert_type(point, Point)
    assert_type(point.x, int)
    assert_type(point.tags, list[str])
    point.x += 1
    named = heap.new(NamedPoint, 1, name="here")
    assert_type(named.name, str)
    assert_type(dh.asdict(named), dict[str, Any])
    heap.new(Point, "one")  # type: ignore[arg-type]
    heap.new(Point)  # type: ignore[call-arg]
    heap.new(Point, 1, z=3)  # type: ignore[call-arg]
    return point.norm()


def copies(heap: dh.Heap, path: str) -> int:
    copy = heap.backup(path)
    assert_type(copy, dh.Backup)
    assert_type(copy.bytes, int)
    heap.backup(3)  # type: ignore[arg-type]
    return copy.commit


def read(path: str) -> str:
    try:
        with dh.open(path, create=False) as heap:
            return str(dh.to_python(heap.root))
    except dh.HeapLockedError as error:
        return str(error)
    except dh.HeapError as error:
        raise SystemExit(1) from error


def laboratory(size: int) -> list[str]:
    with dh.lab.watch(size, "hash") as watch:
        assert_type(watch, dh.WriteWatch)
        watch.buffer[0] = 1
        assert_type(watch.get(reset=True).count, int)
    dh.lab.watch(size)  # type: ignore[call-arg]
    assert_type(dh.lab.techniques(), list[dh.lab.Technique])
    return [technique.reason for technique in dh.lab.techniques() if not technique.works]


def watched(memory: bytearray) -> list[int]:
    with dh.WriteWatch(memory, technique="compare") as watch, watch.cursor() as cursor:
        assert_type(watch.buffer, memoryview)
        assert_type(watch.pages_count, int)
        pages = watch.get(0, 10, max_pages=5, reset=True)
        assert_type(pages, dh.Pages)
        assert_type(pages.ranges(), list[tuple[int, int]])
        assert_type(pages.next, int | None)
        assert_type(pages.bitmap(), bytes)
        assert_type(cursor, dh.Cursor)
        assert_type(cursor.get(), dh.Pages)
        assert_type(watch.reset(3), None)
        watch.mark(3)  # type: ignore[call-arg]
        watch.get(max=5)  # type: ignore[call-arg]
        assert_type(dh.WriteWatch.whole_pages(memory), memoryview)
        return [page for run in pages for page in run]


def mapped(memory: bytearray) -> int:
    present = dh.pagemap.Category.PRESENT
    scan = dh.pagemap.scan(memory, category_mask=present, max_pages=3)
    assert_type(scan, dh.pagemap.Scan)
    assert_type(scan.regions, list[dh.pagemap.Region])
    assert_type(scan.regions[0].categories, dh.pagemap.Category)
    dh.pagemap.scan("text")  # type: ignore[arg-type]
    return scan.walk_end

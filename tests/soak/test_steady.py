"""A steady workload over thousands of commits: nothing grows once the first folds are behind.

Counted, not timed: blocks of the directory, base files, memory that no file stands behind, pages
whose image is not the base's, bytes of deltas. They rise from fold to fold; their heights stay.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import contents, plain, seeded

import dirtyheap as dh

CHANGED, REPLACED = 100, 5  # records per commit
SLACK = 0.15
SLACK_COUNTS = {"files": 4, "anonymous": 2 << 20, "directory": 2 << 20}  # beside the share


def directory_bytes(path: Path) -> int:
    """Blocks on the device."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def anonymous_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Anonymous":
            return int(value.split()[0]) * 1024
    raise AssertionError("no Anonymous in smaps_rollup")


class Heights:
    """The largest of every figure, by the part of the run."""

    def __init__(self, parts: int) -> None:
        self._parts: list[dict[str, int]] = [defaultdict(int) for _ in range(parts)]

    def measure(self, heap: dh.Heap, path: Path, part: int) -> None:
        stats = heap.stats()
        figures = {
            "directory": directory_bytes(path),
            "files": len(list((path / "base").iterdir())),
            "anonymous": anonymous_bytes(),
            "unfolded pages": stats.overlay_pages,
            "delta bytes": stats.delta_bytes,
            "arena": stats.arena_bytes,
        }
        for name, value in figures.items():
            self._parts[part][name] = max(self._parts[part][name], value)

    def check_flat(self) -> None:
        """The last third against the one before."""
        third = len(self._parts) // 3
        for name in self._parts[0]:
            heights = [part[name] for part in self._parts]
            before, last = max(heights[third : 2 * third]), max(heights[2 * third :])
            print(f"{name}: {heights[0]:,} .. {before:,} .. {last:,}")
            assert last <= before * (1 + SLACK) + SLACK_COUNTS.get(name, 0), f"{name} grows"


class Steady:
    """Records of which some change and some are replaced with every step."""

    def __init__(self, heap: dh.Heap, count: int, rng: random.Random) -> None:
        heap.root["records"] = {number: self.record(number) for number in range(count)}
        self.records: Any = heap.root["records"]
        self.ids = list(range(count))
        self.next = count
        self.rng = rng

    def record(self, number: int) -> dict[str, Any]:
        return {"name": f"customer {number:07}", "visits": 0, "score": number / 7}

    def step(self) -> None:
        for number in self.rng.sample(self.ids, CHANGED):
            self.records[number]["visits"] += 1
            self.records[number]["score"] += 0.5
        for _ in range(REPLACED):
            place = self.rng.randrange(len(self.ids))
            del self.records[self.ids[place]]
            self.ids[place] = self.next
            self.records[self.next] = self.record(self.next)
            self.next += 1


def run(path: Path, records: int, commits: int, fold: Callable[[dh.Heap, int], None]) -> None:
    heights = Heights(30)
    with dh.open(path, capacity=1 << 30) as heap:
        work = Steady(heap, records, seeded())
        heap.commit()
        for number in range(commits):
            work.step()
            heap.commit()
            if number % 100 == 99:
                heap.collect()
            fold(heap, number)
            if number % max(1, commits // 1500) == 0:
                heights.measure(heap, path, number * 30 // commits)
        expected = plain(heap)
        assert heap.verify().ok
    assert contents(path) == expected
    heights.check_flat()


@pytest.mark.timeout(120)
def test_some_hundred_commits_keep_a_heap_flat(tmp_path: Path) -> None:
    def fold(heap: dh.Heap, number: int) -> None:
        if number % 25 == 24:  # by itself it comes after more than this test makes
            heap.fold()

    run(tmp_path / "heap", records=3000, commits=450, fold=fold)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_commits_keep_a_heap_flat(tmp_path: Path) -> None:
    run(tmp_path / "heap", records=200_000, commits=10_000, fold=lambda heap, number: None)

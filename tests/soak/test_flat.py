"""A heap that overwrites its contents stays flat: address space, process memory, directory.

Measured from outside, by procfs and the file system. The unmarked version takes some twenty
seconds; an hour's worth, compressed into minutes, runs under `make soak`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import contents, plain, seeded

import dirtyheap as dh

COLLECT_EVERY = 10  # commits
YOUNG_BYTES = 256 << 10  # where collections come by themselves


def resident_bytes() -> int:
    """Proportional memory of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


def directory_bytes(path: Path) -> int:
    """Blocks on the device."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


@dataclass
class Course:
    """What was measured over the run."""

    arena: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    disk: list[int] = field(default_factory=list)
    allocated: list[int] = field(default_factory=list)

    def measure(self, heap: dh.Heap, path: Path) -> None:
        stats = heap.stats()
        self.arena.append(stats.arena_bytes)
        self.allocated.append(stats.allocated_bytes)
        self.memory.append(resident_bytes())
        self.disk.append(directory_bytes(path))

    def check_flat(self) -> None:
        """The last third's maximum against the middle third's; the first is for warming up."""
        for name, slack in (("arena", 0.02), ("memory", 0.10), ("disk", 0.10), ("allocated", 0.05)):
            values = getattr(self, name)
            third = len(values) // 3
            middle, last = max(values[third : 2 * third]), max(values[2 * third :])
            print(f"{name}: {values[0] >> 10} .. {middle >> 10} .. {last >> 10} KiB")
            # The absolute part: a run of pages may find its place late; and on disk, the index
            # keeps the height of the largest deltas between two folds. No leak hides in it, for
            # some hundred KiB are replaced in each of hundreds of commits.
            absolute = (4 if name == "disk" else 1) << 20
            assert last <= middle * (1 + slack) + absolute, f"{name} grows"


class Growth(AssertionError):
    """The working set itself is not what it was."""


def overwrite_records(heap: dh.Heap, rng: random.Random) -> None:
    """Values of all sizes in a table of fixed size, and a queue that moves on."""
    table, queue = heap.root["table"], heap.root["queue"]
    for _ in range(300):
        table[rng.randrange(3000)] = {
            "name": "n" * rng.randrange(100), "numbers": [rng.random() for _ in range(5)],
            "big": rng.getrandbits(rng.choice([10, 70, 900])),
        }  # fmt: skip
    for _ in range(50):
        queue.append(("entry", rng.random(), "text" * rng.randrange(20)))
    del queue[: max(0, len(queue) - 500)]


def replace_keys(heap: dh.Heap, rng: random.Random) -> None:
    """Keys come and go; the number of entries stays."""
    table = heap.root["table"]
    for _ in range(200):
        table[f"key {rng.getrandbits(40)}"] = rng.random()
    for key in list(table)[: max(0, len(table) - 3000)]:
        del table[key]


def replace_whole(heap: dh.Heap, rng: random.Random) -> None:
    """Everything is thrown away and made anew, buffers too."""
    heap.root["whole"] = {i: [i, "x" * rng.randrange(60)] for i in range(1000)}
    heap.root["buffer"] = heap.buffer(rng.choice([100_000, 150_000, 300_000]))
    heap.root["buffer"][rng.randrange(100_000)] = 1


def roll_back_often(heap: dh.Heap, rng: random.Random) -> None:
    """What is taken back must leave nothing behind."""
    for _ in range(3):
        replace_whole(heap, rng)
        heap.rollback()
    with pytest.raises(ZeroDivisionError), heap.transaction():
        overwrite_records(heap, rng)
        raise ZeroDivisionError
    overwrite_records(heap, rng)


WORK: dict[str, Callable[[dh.Heap, random.Random], None]] = {
    "records": overwrite_records,
    "keys": replace_keys,
    "whole": replace_whole,
    "rollbacks": roll_back_often,
}


def run(
    path: Path,
    work: str,
    seconds: float,
    commits_min: int,
    fold_every: int,
    collects_by_itself: bool = False,
) -> None:
    rng = seeded(work)
    course = Course()
    end = time.monotonic() + seconds
    commits = 0
    with dh.open(path, capacity=1 << 30) as heap:
        heap.collector.automatic = collects_by_itself
        heap.collector.young_bytes = YOUNG_BYTES
        heap.collector.full_growth = 1.0
        heap.root["table"], heap.root["queue"] = {}, []
        heap.commit()
        while commits < commits_min or time.monotonic() < end:
            WORK[work](heap, rng)
            heap.commit()
            commits += 1
            if commits % COLLECT_EVERY == 0:
                if collects_by_itself:
                    heap.collector.join()  # the one under way: figures of a heap at rest
                else:
                    heap.collect()
                heap.commit()
                if fold_every and commits % fold_every == 0:
                    heap.fold()
                course.measure(heap, path)
        print(f"{commits} commits, {len(heap.collector.history)} collections at the end")
        assert len(heap.collector.history) > 10
        expected: Any = plain(heap)
    assert contents(path) == expected
    course.check_flat()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("work", WORK)
def test_overwriting_for_seconds_keeps_a_heap_flat(tmp_path: Path, work: str) -> None:
    # Folds come by themselves after 32 MiB of deltas only: the short run asks for them.
    run(tmp_path / "heap", work, seconds=5, commits_min=150, fold_every=30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("work", ["records", "whole"])
def test_collections_that_come_by_themselves_keep_it_flat(tmp_path: Path, work: str) -> None:
    run(tmp_path / "heap", work, 5, commits_min=150, fold_every=30, collects_by_itself=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("work", ["records", "whole"])
def test_collections_by_themselves_for_minutes(tmp_path: Path, work: str) -> None:
    run(tmp_path / "heap", work, 240, commits_min=2000, fold_every=0, collects_by_itself=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("work", WORK)
def test_overwriting_for_minutes_keeps_a_heap_flat(tmp_path: Path, work: str) -> None:
    run(tmp_path / "heap", work, seconds=240, commits_min=2000, fold_every=0)

"""Ten thousand commits of a steady workload: does anything grow, and what is written in all?

200,000 records; each commit changes 100 at random, inserts 5 and deletes 5. Along the way: blocks
of the directory, private memory of the process, the median time of a commit, the time that opening
takes (a copy of the directory, in a fresh process, the best of three). "all written" is everything
that the process has passed to write calls since the first commit, folds included. ZODB does the
same work in a FileStorage, with a pack after each commit in which the heap folded. One picture is
drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    RESULTS,
    Row,
    arguments,
    disk_bytes,
    hand_back,
    header,
    in_fresh_process,
    judge,
    mb,
    print_table,
    wchar_bytes,
    work_directory,
    write_csv,
)
from stores import DirtyHeap, Store, Zodb, change, record

import dirtyheap as dh

CHANGED, REPLACED = 100, 5  # records per commit
SAMPLES = 100
# One commit: at most twice the changed words, 12 bytes a page, and the engine's own pages.
PAGE_ENTRY_BYTES, ENGINE_BYTES = 12, 24 << 10
FLAT = 1.1  # the last third against the one before


class Work:
    """The same changes for every store: a function of the seed."""

    def __init__(self, records: Any, count: int) -> None:
        self._records = records
        self._ids = list(range(count))
        self._next = count
        self._rng = random.Random(count)

    def step(self) -> None:
        """What one commit saves."""
        records, ids, rng = self._records, self._ids, self._rng
        change(records, rng.sample(ids, CHANGED))
        for _ in range(REPLACED):
            place = rng.randrange(len(ids))
            del records[ids[place]]
            ids[place] = self._next
            records[self._next] = self.new_record(self._next)
            self._next += 1

    def new_record(self, number: int) -> Any:
        return record(number)


class ZodbWork(Work):
    def new_record(self, number: int) -> Any:
        from persistent.mapping import PersistentMapping

        return PersistentMapping(record(number))


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup has no Anonymous line")


# --- one store, in a process of its own -----------------------------------------------------------


class Course:
    """Samples along the way."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uncounted = wchar_bytes()
        self._seconds: list[float] = []
        self.samples: list[Row] = []

    def save(self) -> None:
        start = time.perf_counter()
        self._store.save()
        self._seconds.append(time.perf_counter() - start)

    def sample(self, commits: int, open_ms: Callable[[], float | None]) -> None:
        written = wchar_bytes()
        self.samples.append(
            {
                "commits": commits,
                "directory MB": mb(disk_bytes(self._store.directory)),
                "private MB": mb(anonymous_bytes()),
                "commit ms": statistics.median(self._seconds) * 1e3,
                "open ms": open_ms(),
                "all written MB": mb(written - self._uncounted),
            }
        )
        self._seconds.clear()
        self._uncounted += wchar_bytes() - written  # the kernel adds what ended children wrote


class MeteredHeap(DirtyHeap):
    """Keeps what every commit says of itself."""

    commit: dh.Commit

    def save(self) -> None:
        self.commit = self.heap.commit()


def run_heap(part: Row) -> Row:
    directory = Path(part["directory"])
    store = MeteredHeap(directory)
    store.build(part["records"])
    work, course = Work(store.records, part["records"]), Course(store)
    delta_bytes, folds, shares = store.heap.stats().delta_bytes, [], []
    for number in range(1, part["commits"] + 1):
        work.step()
        course.save()
        before, delta_bytes = delta_bytes, store.heap.stats().delta_bytes
        if delta_bytes < before:  # a fold was recorded since the last commit
            folds.append(number)
        shares.append(share_of_bound(store.commit))
        if number % part["every"] == 0:
            course.sample(number, partial(open_ms, directory))
    assert store.heap.verify().ok
    store.close()
    return {"samples": course.samples, "folds": folds, "shares": shares}


def share_of_bound(commit: dh.Commit) -> float:
    """Bytes written to the bytes that are allowed."""
    allowed = 2 * commit.bytes_changed + PAGE_ENTRY_BYTES * commit.pages + ENGINE_BYTES
    return commit.bytes_written / allowed


def open_ms(directory: Path) -> float:
    """In a process of its own."""
    return float(in_fresh_process(__file__, {"kind": "open", "directory": str(directory)}))


def run_open(part: Row) -> float:
    """Of a copy: the heap is open. Base files never change, so links to them will do."""
    heap_directory = Path(part["directory"]) / "heap"
    copy = Path(part["directory"]) / "copy"
    (copy / "base").mkdir(parents=True)
    for name in os.listdir(heap_directory / "base"):
        os.link(heap_directory / "base" / name, copy / "base" / name)
    shutil.copyfile(heap_directory / "data.mdb", copy / "data.mdb")
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        heap = dh.open(copy, create=False)
        best = min(best, time.perf_counter() - start)
        heap.close()
    shutil.rmtree(copy)
    return best * 1e3


def run_zodb(part: Row) -> Row:
    store = Zodb(Path(part["directory"]))
    store.build(part["records"])
    work, course, packs = (
        ZodbWork(store.records, part["records"]),
        Course(store),
        set(part["folds"]),
    )
    for number in range(1, part["commits"] + 1):
        work.step()
        course.save()
        if number in packs:
            store.pack()
        if number % part["every"] == 0:
            course.sample(number, lambda: None)
    store.close()
    return {"samples": course.samples}


PARTS = {"heap": run_heap, "open": run_open, "zodb": run_zodb}


# --- judgement and picture ------------------------------------------------------------------------


def judge_flat(samples: Sequence[Row]) -> None:
    """The median of the last third against that of the one before; the first is for the first
    folds. All of them rise from fold to fold."""
    third = len(samples) // 3
    for name in ("directory MB", "private MB", "commit ms", "open ms"):
        values = [row[name] for row in samples]
        middle = statistics.median(values[third : 2 * third])
        last = statistics.median(values[2 * third :])
        judge(f"{name}, last third / the one before", last / middle, FLAT)


def draw(ours: Sequence[Row], zodb: Sequence[Row], folds: Sequence[int], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names = ["directory MB", "private MB", "commit ms", "open ms", "all written MB"]
    figure, axes = pyplot.subplots(
        len(names), 1, figsize=(8, 1.8 * len(names)), sharex=True, layout="constrained"
    )
    for axis, name in zip(axes, names, strict=True):
        for label, samples in (("dirtyheap", ours), ("ZODB, packed at each fold", zodb)):
            points = [(row["commits"], row[name]) for row in samples if row[name] is not None]
            if points:
                axis.plot(*zip(*points, strict=True), linewidth=1, label=label)
        axis.plot(folds, [0] * len(folds), "|", color="grey", markersize=5)
        axis.set_ylim(0, None)
        axis.set_title(name, fontsize=8, loc="left")
    axes[0].legend(fontsize=7)
    axes[-1].set_xlabel("commits (grey: folds)")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, help="instead of 200,000")
    parser.add_argument("--commits", type=int, help="instead of 10,000")
    options = arguments(__doc__ or "", parser)
    if options.part:
        part = json.loads(options.part)
        hand_back(PARTS[part["kind"]](part))
        return
    records, commits = (10_000, 600) if options.quick else (200_000, 10_000)
    records, commits = options.records or records, options.commits or commits
    facts = header("a long history", ["ZODB", "BTrees", "persistent", "lmdb", "matplotlib"])
    part: Row = {"records": records, "commits": commits, "every": commits // SAMPLES}
    with work_directory(options.dir) as directory:
        found: dict[str, Any] = {}
        for kind in ("heap", "zodb"):
            place = directory / kind
            place.mkdir()
            part |= {"kind": kind, "directory": str(place)}
            found[kind] = in_fresh_process(__file__, part, timeout_s=7200.0)
            part["folds"] = found["heap"]["folds"]
            shutil.rmtree(place)
    ours, zodb = found["heap"]["samples"], found["zodb"]["samples"]
    for name, samples in (("dirtyheap", ours), ("ZODB", zodb)):
        print(f"{name}, {records:,} records")
        print_table(samples[:: max(1, len(samples) // 10)], list(ours[0]))
    folds, shares = found["heap"]["folds"], found["heap"]["shares"]
    print(f"{len(folds)} folds in {commits:,} commits")
    judge("bytes of a commit / 2 x changed + 12 a page + 24 KiB, worst", max(shares), 1.0)
    above = sum(share > 1 for share in shares) / len(shares)
    print(f"    median {statistics.median(shares):.3g}; {above:.0%} of the commits are above 1")
    total = ours[-1]["all written MB"] / zodb[-1]["all written MB"]
    judge("all bytes written / ZODB's", total, 1 / 2)
    judge_flat(ours)
    if not (options.quick or options.records or options.commits):
        rows = [{"method": "dirtyheap", **row} for row in ours]
        rows += [{"method": "ZODB", **row} for row in zodb]
        write_csv("history", facts | {"folds": " ".join(map(str, folds))}, rows)
        draw(ours, zodb, folds, RESULTS / "history.svg")


if __name__ == "__main__":
    sys.exit(main())

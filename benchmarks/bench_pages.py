"""Pages dirtied by one operation, while each container grows from nothing to ten million elements
and shrinks again.

Counted by the watch: after each measured operation the core takes a commit's dirty set, as a commit
of that operation alone would, and settles it without a store. To the pages of the arena come the
pages of the allocation table that such a commit would write. Below 20,000 elements every operation
is measured by itself. Beyond, a burst of operations is counted as a whole, then one operation by
itself, in turn: every operation stands in one of both, so that a rare spike shows up as a burst
above the others (column "worst burst": pages per operation of it). One picture is drawn of all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import (
    RESULTS,
    Row,
    arguments,
    hand_back,
    header,
    in_fresh_process,
    judge,
    print_table,
    work_directory,
    write_csv,
)

import dirtyheap as dh
from dirtyheap._ffi import check, ffi, lib

ALONE_BELOW = 20_000  # elements: up to here every operation is measured by itself
AIM_PAGES = 64

Operation = Callable[[int], Any]  # of the number of elements before it
Workload = Callable[[dh.Heap, int], tuple[Operation, Operation]]  # grows to that many, shrinks


class Meter:
    """Pages written since it was last asked."""

    def __init__(self, heap: dh.Heap) -> None:
        self._ptr = ffi.cast("dh_heap *", heap._core.address)
        self._capture = ffi.new("dh_capture **")
        self._stats = ffi.new("dh_commit_stats *")

    def take(self) -> int:
        """Pages of the arena that the watch reports, and pages of the allocation table."""
        self._check(lib.dh_commit_capture(self._ptr, self._capture))
        self._check(lib.dh_commit_encode(self._ptr, self._capture[0], 0, 1, 16 << 20))
        lib.dh_commit_stats_read(self._capture[0], self._stats)
        self._check(lib.dh_commit_done(self._ptr, self._capture))
        stats = self._stats
        return int(stats.scanned_pages_count + stats.pages_count - stats.data_pages_count)

    def _check(self, rc: int) -> None:
        if rc != 0:
            check(rc, self._ptr)


# --- workloads ------------------------------------------------------------------------------------


def scattered(i: int) -> int:
    """Distinct keys in an order that looks random: the multiplier is odd."""
    return i * 0x9E3779B97F4A7C15 % (1 << 62)


def text_key(i: int) -> str:
    return f"key{scattered(i):019}"


def shuffled(i: int, top: int) -> int:
    """A permutation of range(top), for a top of digits that begin with anything and end in 0."""
    return i * 7_654_321 % top


def mapping(key: Callable[[int], Any], make: str) -> Workload:
    """Insert new keys; delete them in an order of its own, so that holes are everywhere."""

    def workload(heap: dh.Heap, top: int) -> tuple[Operation, Operation]:
        heap.root["it"] = it = getattr(heap, make)()

        def insert(size: int) -> None:
            it[key(size)] = size

        def delete(size: int) -> None:
            del it[key(shuffled(size - 1, top))]

        return insert, delete

    return workload


def queue(heap: dh.Heap, top: int) -> tuple[Operation, Operation]:
    """A dict whose oldest keys go first."""
    heap.root["it"] = it = heap.dict()
    return (lambda size: it.update({scattered(size): 1})), (
        lambda size: it.pop(scattered(top - size))
    )


def set_of_ints(heap: dh.Heap, top: int) -> tuple[Operation, Operation]:
    heap.root["it"] = it = heap.set()
    return (lambda size: it.add(scattered(size))), (
        lambda size: it.remove(scattered(shuffled(size - 1, top)))
    )


def sequence(make: str, grow: Callable[..., Any], shrink: Callable[..., Any]) -> Workload:
    def workload(heap: dh.Heap, top: int) -> tuple[Operation, Operation]:
        heap.root["it"] = it = getattr(heap, make)()
        choose = random.Random(top)
        return (lambda size: grow(it, size, choose)), (lambda size: shrink(it, size, choose))

    return workload


WORKLOADS: dict[str, Workload] = {
    "Dict int: insert, delete": mapping(scattered, "dict"),
    "Dict str: insert, delete": mapping(text_key, "dict"),
    "Dict int: insert, delete the oldest": queue,
    "Set int: add, remove": set_of_ints,
    "List: append, pop": sequence(
        "list", lambda it, size, _: it.append(size), lambda it, *_: it.pop()
    ),
    "List: insert(0), pop(0)": sequence(
        "list", lambda it, size, _: it.insert(0, size), lambda it, *_: it.pop(0)
    ),
    "List: insert, delete at random": sequence(
        "list",
        lambda it, size, choose: it.insert(choose.randrange(size + 1), size),
        lambda it, size, choose: it.pop(choose.randrange(size)),
    ),
    "Deque: append, popleft": sequence(
        "deque", lambda it, size, _: it.append(size), lambda it, *_: it.popleft()
    ),
    "Deque: appendleft, pop": sequence(
        "deque", lambda it, size, _: it.appendleft(size), lambda it, *_: it.pop()
    ),
    "SortedDict int, random": mapping(scattered, "sorted_dict"),
    "SortedDict int, rising": mapping(lambda i: i, "sorted_dict"),
    "SortedDict str, random": mapping(text_key, "sorted_dict"),
}


# --- one workload, in a process of its own --------------------------------------------------------


def sizes(top: int, burst: int) -> Iterator[tuple[int, int]]:
    """(size, operations) of each measurement on the way from 0 to top."""
    size = 0
    while size < top:
        count = 1 if size < ALONE_BELOW else min(burst, top - size)
        yield size, count
        size += count
        if count > 1 and size < top:
            yield size, 1
            size += 1


class Tally:
    """What one direction dirtied."""

    def __init__(self) -> None:
        self.alone: list[int] = []
        self.burst_pages_per_op = 0.0
        self.points: list[tuple[int, int]] = []  # (size, worst single operation around it)
        self._worst = 0

    def add(self, size: int, count: int, pages: int, every: int) -> None:
        if count > 1:
            self.burst_pages_per_op = max(self.burst_pages_per_op, pages / count)
            return
        self.alone.append(pages)
        self._worst = max(self._worst, pages)
        if len(self.alone) % every == 0:
            self.points.append((size, self._worst))
            self._worst = 0

    def row(self, name: str, direction: str) -> Row:
        hundredths = statistics.quantiles(self.alone, n=100)
        return {
            "workload": name,
            "direction": direction,
            "measured alone": len(self.alone),
            "mean": statistics.fmean(self.alone),
            "p99": hundredths[98],
            "worst": max(self.alone),
            "worst burst": self.burst_pages_per_op or None,
        }


def measure(path: Path, name: str, top: int, burst: int) -> tuple[list[Row], dict[str, Any]]:
    with dh.open(path) as heap:
        grow, shrink = WORKLOADS[name](heap, top)
        heap.commit()
        meter = Meter(heap)
        meter.take()
        up, down = Tally(), Tally()
        for size, count in sizes(top, burst):
            for step in range(count):
                grow(size + step)
            up.add(size, count, meter.take(), every=500)
        for size, count in sizes(top, burst):
            for step in range(count):
                shrink(top - size - step)
            down.add(top - size, count, meter.take(), every=500)
        report = heap.verify()
        assert report.ok, report
        left = heap.stats().allocated_bytes
    rows = [up.row(name, "grow"), {**down.row(name, "shrink"), "bytes left": left}]
    return rows, {"up": up.points, "down": down.points}


# --- picture --------------------------------------------------------------------------------------


def draw(curves: dict[str, dict[str, list[tuple[int, int]]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(curves), 1, figsize=(8, 1.6 * len(curves)), sharex=True, layout="constrained"
    )
    for axis, (name, points) in zip(axes, curves.items(), strict=True):
        for label, direction in (("growing", "up"), ("shrinking", "down")):
            axis.plot(*zip(*points[direction], strict=True), ".", markersize=2, label=label)
        axis.axhline(AIM_PAGES, color="grey", linewidth=0.8)
        axis.set(xscale="symlog", ylim=(0, None))
        axis.set_title(name, fontsize=8, loc="left")
    axes[0].legend(fontsize=7)
    axes[-1].set_xlabel("elements (the worst of 500 operations measured alone; grey: the aim)")
    figure.supylabel("pages dirtied by one operation")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    options = arguments(__doc__, parser)
    top, burst = (100_000, 100) if options.quick else (10_000_000, 250)
    if options.part:
        part = json.loads(options.part)
        hand_back(measure(Path(part["path"]), part["name"], part["top"], part["burst"]))
        return
    facts = header("pages dirtied per operation", ["matplotlib"])
    rows: list[Row] = []
    curves = {}
    names = [name for name in WORKLOADS if options.only in name]
    # Pages are counted, not seconds: workloads may run beside one another.
    with (
        work_directory(options.dir) as directory,
        ThreadPoolExecutor(os.cpu_count()) as executor,
    ):

        def run(name: str) -> Any:
            path = str(directory / f"heap-{names.index(name)}")
            part = {"path": path, "name": name, "top": top, "burst": burst}
            return in_fresh_process(__file__, part, timeout_s=7200.0)

        for name, (found, points) in zip(names, executor.map(run, names), strict=True):
            rows += found
            curves[name] = points
    print_table(rows, list(rows[-1]))
    judge("pages dirtied by one operation, worst", max(row["worst"] for row in rows), AIM_PAGES)
    if not options.quick and not options.only:
        write_csv("pages", facts, rows)
        draw(curves, RESULTS / "pages.svg")


if __name__ == "__main__":
    main()

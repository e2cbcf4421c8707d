"""What a save costs: state size x share that changed, scattered and clustered, four ways to save.

Every (method, size) runs in a process of its own. A save is watched from outside: its time by the
caller's clock, the stop by a Python and a C heartbeat thread (heartbeat.py), the bytes by the
kernel's count of what the process wrote and by file growth, memory as PSS and as growth of the peak
during the save. "append" is the limit: the same bytes appended to a file and fdatasync, right after
the save; "append x2" flushes twice, as every store must that writes data and then says so; "append
pages" appends every page that was written to, whole, as a store without diffs would. "dumps" is a
pickle that goes nowhere: what an application pays that needs no durability. "change" is the time of
the changes themselves, page faults included. Two tables of their own: first commits of arrays, with
their bulk copied ahead of the stop and, for comparison, in one stop; and small commits while a fold
rewrites all of a heap, in its thread and, for comparison, in the commit that finds it due.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import (
    Row,
    arguments,
    disk_bytes,
    hand_back,
    header,
    in_fresh_process,
    judge,
    mb,
    peak_rss_bytes,
    peak_rss_reset,
    print_table,
    pss_bytes,
    wchar_bytes,
    work_directory,
    write_csv,
)
from heartbeat import Heartbeat
from stores import STORES, DirtyHeap, Pickle, Store, change

from dirtyheap import folder, precopy

COLUMNS = [
    "records",
    "changed",
    "pattern",
    "method",
    "save ms",
    "worst ms",
    "stop ms",
    "stop C ms",
    "written MB",
    "growth MB",
    "pages",
    "whole pages MB",
    "append ms",
    "append x2 ms",
    "append pages ms",
    "dumps ms",
    "change ms",
    "peak MB",
    "state MB",
]


# --- one (method, size) in a fresh process --------------------------------------------------------


def run_part(part: Row) -> list[Row]:
    """Build the state once, then save it `saves` times for each (share, pattern)."""
    with tempfile.TemporaryDirectory(dir=part["directory"]) as name:
        directory = Path(name)
        bare = pss_bytes()
        store = STORES[part["method"]](directory)
        start = time.perf_counter()
        store.build(part["records"])
        build_s = time.perf_counter() - start
        state_bytes = pss_bytes() - bare
        rows = []
        with Heartbeat(directory) as heartbeat, Limit(directory) as limit:
            for share, pattern in part["cases"]:
                row = run_case(store, heartbeat, limit, part, share, pattern)
                rows.append(row | {"state MB": mb(state_bytes), "build s": build_s})
        store.close()
    return rows


def run_case(
    store: Store, heartbeat: Heartbeat, limit: Limit, part: Row, share: float, pattern: str
) -> Row:
    """Change and save `saves` times; medians, and the worst save."""
    count = part["records"]
    changed = max(1, round(count * share))
    rng = random.Random(f"{count} {share} {pattern}")
    samples = []
    for _ in range(part["saves"] + 1):
        if pattern == "scattered":
            chosen: Sequence[int] = rng.sample(range(count), changed)
        else:
            first = rng.randrange(count - changed + 1)
            chosen = range(first, first + changed)
        start = time.perf_counter()
        change(store.records, chosen)
        change_s = time.perf_counter() - start
        samples.append(watch_save(store, heartbeat, limit) | {"change ms": change_s * 1e3})
    samples = samples[1:]  # the first save of a case finds cold buffers
    row: Row = {"records": count, "changed": changed, "pattern": pattern, "method": part["method"]}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        row[name] = None if None in values else statistics.median(values)
    row["worst ms"] = max(sample["save ms"] for sample in samples)
    return row


def watch_save(store: Store, heartbeat: Heartbeat, limit: Limit) -> Row:
    resident = peak_rss_reset()
    on_disk = disk_bytes(store.directory)
    heartbeat.reset()
    written = wchar_bytes()
    start = time.perf_counter()
    store.save()
    save_s = time.perf_counter() - start
    written = store.written_bytes or wchar_bytes() - written
    python_s, c_s = heartbeat.longest()
    row: Row = {
        "save ms": save_s * 1e3,
        "stop ms": python_s * 1e3,
        "stop C ms": c_s * 1e3,
        "written MB": mb(written),
        "growth MB": mb(disk_bytes(store.directory) - on_disk),
        "peak MB": mb(peak_rss_bytes() - resident),
        "pages": store.pages,
        "whole pages MB": None if store.pages is None else mb(store.pages * 4096),
    }
    if isinstance(store, DirtyHeap):
        row["append ms"] = limit.append(written, flushes=1) * 1e3
        row["append x2 ms"] = limit.append(written, flushes=2) * 1e3
        row["append pages ms"] = limit.append(max(1, store.pages or 0) * 4096, flushes=1) * 1e3
    if type(store) is Pickle:
        start = time.perf_counter()
        pickle.dumps(store.records, protocol=5)
        row["dumps ms"] = (time.perf_counter() - start) * 1e3
    return row


class Limit:
    """Appends the same number of bytes to a plain file: no store that syncs can be faster."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "append"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __enter__(self) -> Limit:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._path.unlink()

    def append(self, count: int, flushes: int) -> float:
        data = os.urandom(min(count, 1 << 20)) * (count // (1 << 20) + 1)
        start = time.perf_counter()
        view = memoryview(data)[:count]
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)
        if flushes == 2:
            os.write(self._descriptor, data[:64])
            os.fdatasync(self._descriptor)
        return time.perf_counter() - start


# --- first commits ------------------------------------------------------------------------------


def run_first(part: Row) -> Row:
    """The first commit of so many MiB of arrays."""
    if part["way"] == "in one stop":
        precopy.WINDOW_PAGES = 1 << 40  # type: ignore[misc]
    with tempfile.TemporaryDirectory(dir=part["directory"]) as name:
        directory = Path(name)
        store = DirtyHeap(directory)
        for number in range(0, part["MiB"], 64):
            array = store.heap.root[number] = store.heap.array((8 << 20,), "u8")
            array[:] = number + 1
        with Heartbeat(directory) as heartbeat, Limit(directory) as limit:
            row = watch_save(store, heartbeat, limit)
        store.close()
    return {name: part[name] for name in ("MiB", "way")} | row


def measure_first(directory: Path, sizes: Sequence[int]) -> None:
    rows = []
    for mib in sizes:
        for way in ("ahead of the stop", "in one stop"):
            part = {"first": True, "MiB": mib, "way": way, "directory": str(directory)}
            rows.append(in_fresh_process(__file__, part))
    print("first commits of arrays")
    print_table(rows, ["MiB", "way", *(name for name in COLUMNS if name in rows[0])])
    ahead, one = rows[-2:]
    judge("stop, ahead of it / in one stop", ahead["stop ms"] / one["stop ms"], 1 / 5)
    judge("peak of memory / heap", ahead["peak MB"] / mb(ahead["MiB"] << 20), 1 / 5)


# --- commits beside a fold ----------------------------------------------------------------------

FOLD_WRITES = 500  # words at random in each commit: of a large heap every extent soon has some


def run_beside(part: Row) -> Row:
    """Commits one after the other before and during a fold of every extent of one array."""
    if part["way"] == "in the commit":
        folder.Folder._start = folder.Folder._finish  # type: ignore[method-assign,assignment]
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir=part["directory"]) as name:
        store = DirtyHeap(Path(name))
        words = part["MiB"] << 17
        array = store.heap.root["array"] = store.heap.array((words,), "u8", fill=1)
        store.save()

        def save() -> float:
            for _ in range(FOLD_WRITES):
                array[rng.randrange(words)] += 1
            start = time.perf_counter()
            store.save()
            return (time.perf_counter() - start) * 1e3

        quiet = [save() for _ in range(40)]
        folder._COMMITS_MAX = 0  # type: ignore[misc]
        start = time.perf_counter()
        beside = [save()]
        folder._COMMITS_MAX = 1 << 30  # type: ignore[misc]
        while store.heap._folder._fold is not None:
            beside.append(save())
        fold_s = time.perf_counter() - start
        store.close()
    return {
        "MiB": part["MiB"],
        "fold": part["way"],
        "fold s": fold_s,
        "commits beside": len(beside),
        "median ms": statistics.median(beside),
        "longest ms": max(beside),
        "without: median ms": statistics.median(quiet[10:]),
        "without: longest ms": max(quiet[10:]),
    }


def measure_beside(directory: Path, mib: int) -> None:
    rows = []
    for way in ("in its thread", "in the commit"):
        part = {"beside": True, "MiB": mib, "way": way, "directory": str(directory)}
        rows.append(in_fresh_process(__file__, part))
    print("commits beside a fold of the whole heap")
    print_table(rows, list(rows[0]))
    ratio = rows[0]["longest ms"] / rows[1]["longest ms"]
    judge("longest commit, fold in its thread / in the commit", ratio, 1 / 5)


# --- the whole ------------------------------------------------------------------------------------


def main() -> int:
    options = arguments(__doc__ or "")
    if options.part:
        part = json.loads(options.part)
        run = run_first if "first" in part else run_beside if "beside" in part else run_part
        hand_back(run(part))
        return 0
    facts = header("commit", ["ZODB", "BTrees", "persistent", "lmdb"])
    rows: list[Row] = []
    with work_directory(options.dir) as directory:
        for part in parts(options.quick):
            part["directory"] = str(directory)
            new = in_fresh_process(__file__, part)
            rows.extend(new)
            print_table(new, COLUMNS)
        measure_first(directory, [64, 128] if options.quick else [128, 1024])
        measure_beside(directory, 128 if options.quick else 1024)
    largest = max(row["records"] for row in rows)
    print_headline(rows, largest)
    print_limit(rows)
    print_break_even(rows)
    write_csv("commit", facts, rows)
    return 0


def parts(quick: bool) -> list[Row]:
    """(method, size) with its cases, small sizes first."""
    sizes = [100, 1_000, 20_000] if quick else [100, 1_000, 10_000, 100_000, 1_000_000]
    made: list[Row] = []
    for records in sizes:
        for method in STORES:
            shares = [0.01, 1.0] if records < sizes[-1] else [0.0001, 0.01, 0.1, 1.0]
            if records == 1_000_000 and method != "dirtyheap":
                shares.remove(1.0)  # minutes, and 100,000 records show the same
            cases = [(share, "scattered") for share in shares]
            cases += [(share, "clustered") for share in shares if records >= 10_000 and share < 1]
            if "pickle" in method and records >= 100_000:
                # A pickle costs the same whatever has changed.
                cases = [
                    case for case in cases if case[0] in (0.01, 1.0) and case[1] != "clustered"
                ]
            saves = 3 if quick or records >= 1_000_000 else 5
            made.append({"method": method, "records": records, "cases": cases, "saves": saves})
    return made


def find(rows: Sequence[Row], method: str, records: int, share: float) -> Row:
    for row in rows:
        is_case = row["method"] == method and row["pattern"] == "scattered"
        if (
            is_case
            and row["records"] == records
            and row["changed"] == max(1, round(records * share))
        ):
            return row
    raise LookupError(f"no row for {method}, {records} records, {share}")


def print_headline(rows: Sequence[Row], records: int) -> None:
    """One percent at random of the largest state: the aims of docs/design.md."""
    ours, zodb = find(rows, "dirtyheap", records, 0.01), find(rows, "ZODB", records, 0.01)
    whole = find(rows, "pickle", records, 0.01)
    print(f"{records:,} records, 1 % changed at random")
    print_table([ours, zodb, whole, find(rows, "fork + pickle", records, 0.01)], COLUMNS[3:])
    judge("save / ZODB's", ours["save ms"] / zodb["save ms"], 1 / 20)
    judge("save / pickle's", ours["save ms"] / whole["save ms"], 1 / 50)
    judge("written / written by ZODB", ours["written MB"] / zodb["written MB"], 1 / 5)
    judge("written / growth of ZODB's file", ours["written MB"] / zodb["growth MB"], 1 / 5)
    judge("stop in ms, the longer of both heartbeats", max(ours["stop ms"], ours["stop C ms"]), 10)
    judge("memory / Python objects'", ours["state MB"] / whole["state MB"], 1 / 4)
    print(
        f"diffs: {ours['pages']:,.0f} pages were written to, {ours['whole pages MB']:.1f} MB as "
        f"whole pages, {ours['written MB']:.2f} MB as written: "
        f"{ours['whole pages MB'] / ours['written MB']:.0f} times less\n"
    )


def print_limit(rows: Sequence[Row]) -> None:
    """Save against append + fdatasync of the same bytes, and of the written pages as a whole."""
    for row in rows:
        if row["method"] != "dirtyheap":
            continue
        what = f"{row['records']:,} records, {row['changed']:,} {row['pattern']}: save / append"
        if row["pages"] >= 256:
            judge(what, row["save ms"] / row["append ms"], 1.3)
            ratio = row["save ms"] / row["append pages ms"]
            print(f"    to an append of the {row['pages']:,.0f} pages without diffs: {ratio:.3g}")
        else:
            print(f"{what} with two flushes: {row['save ms'] / row['append x2 ms']:.3g}")


def print_break_even(rows: Sequence[Row]) -> None:
    """Where a plain pickle is as good or better, by size, when 1 % or all changed at random."""
    print("\nratios to pickle: time of a save, bytes, changing and saving, pickle without any sync")
    lines: list[Row] = []
    for records in sorted({row["records"] for row in rows}):
        for share in (0.01, 1.0):
            try:
                ours, whole = (find(rows, m, records, share) for m in ("dirtyheap", "pickle"))
            except LookupError:
                continue
            both = [row["save ms"] + row["change ms"] for row in (ours, whole)]
            lines.append(
                {
                    "records": records,
                    "changed": f"{share:.0%}",
                    "save": ours["save ms"] / whole["save ms"],
                    "bytes": ours["written MB"] / whole["written MB"],
                    "change + save": both[0] / both[1],
                    "unsynced": ours["save ms"] / whole["dumps ms"],
                }
            )
    measures = ["save", "bytes", "change + save", "unsynced"]
    print_table(lines, ["records", "changed", *measures])
    for measure in measures:
        points = [(line["records"], line[measure]) for line in lines if line["changed"] == "1%"]
        crossing = crossing_of_one(points)
        if crossing is not None:
            print(f"break-even of {measure!r} at 1 %: about {crossing:,.0f} records")
        for line in lines:
            if line[measure] > 1:
                what = f"{line['records']:,} records, {line['changed']} changed"
                print(f"losing case of {measure!r}: {what}: {line[measure]:.2g} x pickle")


def crossing_of_one(points: Sequence[tuple[int, float]]) -> float | None:
    """Where the ratio passes 1, on a straight line between the logarithms of two points."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y0 > 1 >= y1:
            part = math.log(y0) / (math.log(y0) - math.log(y1))
            return math.exp(math.log(x0) + part * (math.log(x1) - math.log(x0)))
    return None


if __name__ == "__main__":
    sys.exit(main())

"""What numpy pays in a heap: operations in place beside plain memory, and a save beside files.

Operations: the same call on an ndarray in the heap and on a plain one, taking turns; hot, and as
the first after a commit, when the kernel notes each page that is written. Saves: a matrix of
doubles, 16 to a row, of which a share of the rows, chosen at random, is changed between two saves;
beside numpy.save and pickle into a new file, synced, renamed over the old one. Both write
everything, so their cost does not follow what changed. Every (method, size) runs in a process of
its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Row,
    arguments,
    hand_back,
    header,
    in_fresh_process,
    mb,
    print_table,
    wchar_bytes,
    work_directory,
    write_csv,
)
from stores import dump_durably, sync_directory

import dirtyheap as dh

COLUMNS_OF_ROW = 16
OPERATIONS_REPEATS = 9
SHARES = (0.0001, 0.01, 1.0)

# --- operations -----------------------------------------------------------------------------------


def operations(numbers: int) -> dict[str, Callable[[Any], Any]]:
    """What is done to one array; each name says how much of it is read or written."""
    rng = np.random.default_rng(1)
    few = rng.integers(0, numbers, numbers // 100)
    return {
        "a += 1": lambda a: np.add(a, 1.0, out=a),
        "np.sqrt(a, out=a)": lambda a: np.sqrt(np.abs(a, out=a), out=a),
        "np.put(a, 1 % at random, 2.0)": lambda a: np.put(a, few, 2.0),
        "a[::2] = 3.0": lambda a: a.__setitem__(slice(None, None, 2), 3.0),
        "a.sum()": lambda a: a.sum(),
        "a.copy()": lambda a: a.copy(),
    }


def timed(call: Callable[[Any], Any], array: Any, warm: bool = True) -> float:
    if warm:
        call(array)
    start = time.perf_counter()
    call(array)
    return time.perf_counter() - start


def run_operations(part: Row) -> list[Row]:
    numbers, rows = part["numbers"], []
    plain = np.ones(numbers)
    with dh.open(Path(part["directory"]) / "operations") as heap:
        heap.root["a"] = heap.array(numbers, fill=1)
        ours = heap.root["a"]
        heap.commit()
        for name, call in operations(numbers).items():
            hot: list[tuple[float, float]] = []
            first: list[float] = []
            for _ in range(OPERATIONS_REPEATS):
                first.append(timed(call, ours, warm=False))
                hot.append((timed(call, ours), timed(call, plain)))
                heap.commit()
            heap_s, plain_s = (statistics.median(column) for column in zip(*hot, strict=True))
            rows.append(
                {
                    "numbers": numbers,
                    "operation": name,
                    "plain ms": plain_s * 1e3,
                    "heap ms": heap_s * 1e3,
                    "ratio": heap_s / plain_s,
                    "after commit": statistics.median(first) / plain_s,
                }
            )
        del ours
    return rows


# --- saves ----------------------------------------------------------------------------------------


class Saver(ABC):
    """A matrix and one way to make it durable."""

    matrix: Any
    pages: int | None = None

    def __init__(self, directory: Path, rows: int) -> None:
        self.directory = directory
        self.make(rows)

    def make(self, rows: int) -> None:
        self.matrix = np.random.default_rng(0).random((rows, COLUMNS_OF_ROW))

    @abstractmethod
    def save(self) -> None:
        """Make it durable as it is now."""

    def close(self) -> None:  # noqa: B027 - nothing to give back is a right answer
        """Give everything back."""


class HeapSaver(Saver):
    def make(self, rows: int) -> None:
        self.heap = dh.open(self.directory / "heap")
        content = np.random.default_rng(0).random((rows, COLUMNS_OF_ROW))
        self.heap.root["matrix"] = self.heap.array(content.shape, fill=content)
        self.matrix = self.heap.root["matrix"]

    def save(self) -> None:
        self.pages = self.heap.commit().pages

    def close(self) -> None:
        del self.matrix
        self.heap.close()


class NumpySaver(Saver):
    def save(self) -> None:
        path = self.directory / "matrix.npy"
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            np.save(file, self.matrix)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_directory(self.directory)


class PickleSaver(Saver):
    def save(self) -> None:
        dump_durably(self.matrix, self.directory / "matrix.pickle")


SAVERS: dict[str, type[Saver]] = {
    "dirtyheap": HeapSaver,
    "numpy.save": NumpySaver,
    "pickle": PickleSaver,
}


def run_saves(part: Row) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(dir=part["directory"]) as directory:
        saver = SAVERS[part["method"]](Path(directory), part["rows"])
        saver.save()
        for share in SHARES:
            rows.append(save_again(saver, part, share))
        saver.close()
    return rows


def save_again(saver: Saver, part: Row, share: float) -> Row:
    rng = np.random.default_rng(2)
    changed = max(1, round(part["rows"] * share))
    samples = []
    for _ in range(part["saves"] + 1):
        chosen = rng.choice(part["rows"], changed, replace=False)
        start = time.perf_counter()
        saver.matrix[chosen] += 1
        change_s = time.perf_counter() - start
        written = wchar_bytes()
        start = time.perf_counter()
        saver.save()
        save_s = time.perf_counter() - start
        samples.append(
            {
                "save ms": save_s * 1e3,
                "change ms": change_s * 1e3,
                "written MB": mb(wchar_bytes() - written),
                "pages": saver.pages,
            }
        )
    row: Row = {"rows": part["rows"], "changed": changed, "method": part["method"]}
    row["state MB"] = mb(saver.matrix.nbytes)
    for name in samples[0]:
        values = [sample[name] for sample in samples[1:]]  # the first finds cold buffers
        row[name] = None if None in values else statistics.median(values)
    return row


# --- the whole ------------------------------------------------------------------------------------


def main() -> int:
    options = arguments(__doc__ or "")
    if options.part:
        part = json.loads(options.part)
        hand_back(run_operations(part) if part["what"] == "operations" else run_saves(part))
        return 0
    facts = header("arrays", ["numpy"])
    numbers = [10_000, 1_000_000] if options.quick else [10_000, 1_000_000, 20_000_000]
    sizes = [1_000, 20_000] if options.quick else [1_000, 100_000, 1_000_000]
    operation_rows: list[Row] = []
    save_rows: list[Row] = []
    with work_directory(options.dir) as directory:
        for count in numbers:
            with tempfile.TemporaryDirectory(dir=directory) as own:
                part = {"what": "operations", "numbers": count, "directory": own}
                operation_rows += in_fresh_process(__file__, part)
        print_table(operation_rows, list(operation_rows[0]))
        for rows in sizes:
            for method in SAVERS:
                part = {"what": "saves", "method": method, "rows": rows, "saves": 5}
                part["directory"] = str(directory)
                save_rows += in_fresh_process(__file__, part)
    save_rows.sort(key=lambda row: (row["rows"], row["changed"]))
    columns = [
        "rows",
        "state MB",
        "changed",
        "method",
        "save ms",
        "written MB",
        "pages",
        "change ms",
    ]
    print_table(save_rows, columns)
    print_verdicts(operation_rows, save_rows)
    write_csv("arrays", facts, [*operation_rows, *save_rows])
    return 0


def print_verdicts(operation_rows: list[Row], save_rows: list[Row]) -> None:
    largest = max(row["numbers"] for row in operation_rows)
    for row in operation_rows:
        if row["numbers"] == largest:
            # Plain memory of this size may have huge pages; the arena never has.
            print(f"{row['operation']} / plain, {largest:,} numbers, hot: {row['ratio']:.3g}")
    size = max(row["rows"] for row in save_rows)
    for share in SHARES:
        found = {
            row["method"]: row
            for row in save_rows
            if row["rows"] == size and row["changed"] == max(1, round(size * share))
        }
        ours = found.pop("dirtyheap")
        for method, row in found.items():
            time_ratio = ours["save ms"] / row["save ms"]
            bytes_ratio = ours["written MB"] / row["written MB"]
            what = f"{share:.2%} of {size:,} rows changed"
            print(f"{what}: save {time_ratio:.3g}, bytes {bytes_ratio:.3g} x {method}'s")


if __name__ == "__main__":
    sys.exit(main())

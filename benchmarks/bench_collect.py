"""How long a collection stops a program: young, full, beside a plain loop in C and Python's own.

A C program (collect_stops.c), built here from the sources of the core, keeps some 20 million cells
to a GiB: a directory, buckets, records, leaves. Three parts. Stops: a young and a full collection
of one heap, the mark of the same cells as plain C structures, and gc.collect() on the same graph of
Python objects. Young collections: by size of the heap with the same stores between, and by written
pages. Full cycles beside a program that stores at a stated rate: the longest stop, by the clocks of
both. Without a second thread times are of the thread's own clock: other processes do not move it.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import (
    HERE,
    Row,
    arguments,
    compile_c,
    hand_back,
    header,
    in_fresh_process,
    judge,
    peak_rss_bytes,
    print_table,
    spread,
    work_directory,
    write_csv,
)

MB = 1024
AIM_YOUNG = 1 / 20  # of a full stop
AIM_FULL = 2.0  # of the plain loop
AIM_CONCURRENT_MS = 10.0
RATE_JUDGED = 100_000  # operations a second
OPS = 2000  # between two young collections
YOUNG_SIZES_MB = (128, 256, 512, 1024, 2048)
YOUNG_OPS = (250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000)
RATES = (10_000, 30_000, 100_000, 300_000, 0)
SPREAD = ["median", "least", "most"]
STOP_COLUMNS = ["what", "objects", *SPREAD, "ns/object", "of full"]
YOUNG_COLUMNS = ["MB", "stores", "pages", "rescanned", "marked", *SPREAD, "us/page"]
BESIDE_COLUMNS = [
    "stores/s",
    "reached",
    "cycle ms",
    "rounds",
    "pages",
    "last stop ms",
    "longest stop ms",
    "least",
    "most",
    "program waited ms",
    "most ",
]
BUCKET_REFS = 63
BYTES_PER_RECORD = 105  # as in collect_stops.c: a record, its leaf, its share of a bucket

Lines = list[list[int]]


def main() -> int:
    options = arguments(__doc__ or "")
    if options.part:
        hand_back(python_collections(**json.loads(options.part)))
        return 0
    facts = header("collections", [])
    size_mb = 64 if options.quick else MB
    rounds = 3 if options.quick else 7
    with work_directory(options.dir) as directory:
        program = build(directory / "collect_stops")
        stops, verdicts = stop_rows(program, size_mb, rounds)
        sizes = (16, 32, 64) if options.quick else YOUNG_SIZES_MB
        young = [row for size in sizes for row in young_rows(program, size, rounds, (OPS,))]
        by_pages = young_rows(
            program, size_mb, rounds, YOUNG_OPS[:6] if options.quick else YOUNG_OPS
        )
        rates = RATES[:3] if options.quick else RATES
        beside = beside_rows(program, size_mb, rounds, rates)
    print(f"stops of a heap of {size_mb} MiB, ms; {OPS} operations before each young collection")
    print_table(stops, STOP_COLUMNS)
    print(f"young collections, ms: the same {OPS} operations, heaps that double")
    print_table(young, YOUNG_COLUMNS)
    print(f"young collections of {size_mb} MiB, ms: operations that double")
    print_table(by_pages, YOUNG_COLUMNS)
    print(f"full cycles beside the program, {size_mb} MiB")
    print_table(beside, BESIDE_COLUMNS)
    for what, ratio, aim in verdicts:
        judge(what, ratio, aim)
    judge_beside(beside)
    if not options.quick:
        write_csv("collect", facts, [*stops, *young, *by_pages, *beside])
    return 0


def build(program: Path) -> Path:
    sources = sorted((HERE.parent / "native" / "src").glob("*.c"))
    own = [HERE / "collect_stops.c", HERE / "collect_plain.c"]
    return compile_c(program, [*own, *sources], "-D_GNU_SOURCE", "-pthread")


def lines_of(program: Path, *words: Any) -> Lines:
    """The numbers of each line the program prints."""
    command = [str(program), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [[int(word) for word in line.split()[1:]] for line in done.stdout.splitlines()]


def in_ms(values_ns: list[int]) -> Row:
    return dict(zip(SPREAD, (ns / 1e6 for ns in spread(values_ns)), strict=True))


# --- stops ----------------------------------------------------------------------------------------


def stop_rows(program: Path, size_mb: int, rounds: int) -> tuple[list[Row], list[Any]]:
    lines = lines_of(program, "stops", size_mb, rounds, OPS)
    _, young, full, beside, inside, _, _, _, live, plain = (
        list(c) for c in zip(*lines, strict=True)
    )
    by_python = in_fresh_process(__file__, {"size_mb": size_mb, "rounds": rounds})
    measured = [
        ("young collection", live, young),
        ("full collection", live, full),
        ("plain C loop, bits beside", plain, beside),
        ("plain C loop, flag inside", plain, inside),
        ("gc.collect(), Python", [by_python["objects"]], by_python["stops_ns"]),
    ]
    rows = []
    for what, objects, times in measured:
        row = {"what": what, "objects": objects[-1], **in_ms(times)}
        row["ns/object"] = spread(times)[0] / objects[-1]
        row["of full"] = spread(times)[0] / spread(full)[0]
        rows.append(row)
    best = [min(pair) for pair in zip(beside, inside, strict=True)]
    verdicts = [
        (f"young stop / full stop, {size_mb} MiB", ratio(young, full), AIM_YOUNG),
        ("full stop / the faster plain C loop", ratio(full, best), AIM_FULL),
    ]
    return rows, verdicts


def ratio(times: list[int], others: list[int]) -> float:
    """Median of the ratios of the same round."""
    return spread([a / b for a, b in zip(times, others, strict=True)])[0]


class Record:
    """As many references and numbers as in C."""

    __slots__ = ("a", "b", "c", "d", "e", "f", "leaf")

    def __init__(self, leaf: bytes) -> None:
        self.leaf = leaf
        self.a = self.b = self.c = self.d = self.e = self.f = 0


def python_collections(size_mb: int, rounds: int) -> Row:
    """The same directory of buckets of records, each with a leaf of its own."""
    gc.disable()
    buckets = (size_mb << 20) // BYTES_PER_RECORD // BUCKET_REFS
    directory = [
        [Record(number.to_bytes(24, "little")) for number in range(BUCKET_REFS)]
        for _ in range(buckets)
    ]
    stops = []
    for _ in range(rounds):
        began = time.thread_time_ns()
        gc.collect()
        stops.append(time.thread_time_ns() - began)
    objects = 1 + buckets + 2 * BUCKET_REFS * len(directory)
    return {"objects": objects, "stops_ns": stops, "peak_bytes": peak_rss_bytes()}


# --- young collections ----------------------------------------------------------------------------


def young_rows(program: Path, size_mb: int, rounds: int, ops: tuple[int, ...]) -> list[Row]:
    found: dict[int, Lines] = defaultdict(list)
    for stores, _round, *figures in lines_of(program, "young", size_mb, rounds, *ops):
        found[stores].append(figures)
    rows = []
    for stores, figures in found.items():
        stops, pages, rescanned, marked = (list(column) for column in zip(*figures, strict=True))
        row = {"MB": size_mb, "stores": stores, "pages": int(spread(pages)[0])}
        row |= {"rescanned": int(spread(rescanned)[0]), "marked": int(spread(marked)[0])}
        row |= in_ms(stops)
        row["us/page"] = spread([s / p / 1e3 for s, p in zip(stops, pages, strict=True) if p])[0]
        rows.append(row)
    return rows


# --- full cycles beside the program ---------------------------------------------------------------


def beside_rows(program: Path, size_mb: int, rounds: int, rates: tuple[int, ...]) -> list[Row]:
    found: dict[int, Lines] = defaultdict(list)
    for rate, _round, *figures in lines_of(program, "concurrent", size_mb, rounds, *rates):
        found[rate].append(figures)
    rows = []
    for rate, figures in found.items():
        columns = (list(column) for column in zip(*figures, strict=True))
        total, stop, last, waited, _, ops, remarks, pages = columns
        stop_ms, least, most = (ns / 1e6 for ns in spread(stop))
        rows.append(
            {
                "stores/s": rate or "all it can",
                "reached": int(spread([o / t * 1e9 for o, t in zip(ops, total, strict=True)])[0]),
                "cycle ms": spread(total)[0] / 1e6,
                "rounds": int(spread(remarks)[0]),
                "pages": int(spread(pages)[0]),
                "last stop ms": spread(last)[0] / 1e6,
                "longest stop ms": stop_ms,
                "least": least,
                "most": most,
                "program waited ms": spread(waited)[0] / 1e6,
                "most ": max(waited) / 1e6,
            }
        )
    return rows


def judge_beside(rows: list[Row]) -> None:
    for row in rows:
        if row["stores/s"] == RATE_JUDGED:
            what = f"longest stop of a full cycle at {RATE_JUDGED:,} operations a second, ms"
            judge(what, row["program waited ms"], AIM_CONCURRENT_MS)


if __name__ == "__main__":
    sys.exit(main())

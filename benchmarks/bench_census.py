"""What it costs to ask what lives in a heap: census, why, growth beside a full collection.

Four heaps of as many containers: records, dicts of one shape with a list in each, one list of
lists in shuffled order (every step a cache miss), and a chain as long as the heap. Full collection
and census take turns and stop the application alike; `why` is asked about a container that nothing
leads to, so it goes through all of the heap. Memory: growth of the process's peak.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from common import (
    Row,
    arguments,
    hand_back,
    header,
    in_fresh_process,
    judge,
    mb,
    peak_rss_bytes,
    peak_rss_reset,
    print_table,
    spread,
    work_directory,
    write_csv,
)

import dirtyheap as dh

AIM = 4.0  # census, of a full collection's stop
TURNS = 5
COLUMNS = [
    *("heap", "MB", "cells", "collect ms", "census ms", "least", "most", "ratio", "census MB"),
    *("why ms", "why MB", "growth ms", "growth MB"),
]


@dh.record(name="bench.Account")
class Account:
    owner: str
    balance: float = 0.0
    number: int = 0


@dh.record(name="bench.Link")
class Link:
    next: Any = None


def fill_records(heap: dh.Heap, count: int) -> None:
    accounts = heap.root["all"] = heap.list()
    for number in range(count):
        accounts.append(heap.new(Account, f"owner number {number}", 1.5, number))


def fill_dicts(heap: dh.Heap, count: int) -> None:
    users = heap.root["all"] = heap.list()
    for number in range(count // 2):
        users.append({"name": f"user number {number}", "tags": [number]})


def fill_shuffled(heap: dh.Heap, count: int) -> None:
    lists = [heap.list([number]) for number in range(count)]
    random.Random(1).shuffle(lists)
    heap.root["all"] = lists


def fill_chain(heap: dh.Heap, count: int) -> None:
    link = None
    for _ in range(count):
        link = heap.new(Link, link)
    heap.root["all"] = link


SHAPES: dict[str, Callable[[dh.Heap, int], None]] = {
    "records": fill_records,
    "dicts": fill_dicts,
    "shuffled": fill_shuffled,
    "chain": fill_chain,
}


def main() -> int:
    options = arguments(__doc__ or "")
    if options.part:
        hand_back(measure(**json.loads(options.part)))
        return 0
    facts = header("census")
    count = 50_000 if options.quick else 1_000_000
    rows: list[Row] = []
    with work_directory(options.dir) as directory:
        for shape in SHAPES:
            part: Row = {"shape": shape, "count": count, "path": str(directory / shape)}
            rows.append(in_fresh_process(__file__, part))
    print_table(rows, COLUMNS)
    for row in rows:
        judge(f"{row['heap']}: census / full collection", row["ratio"], AIM)
    write_csv("census", facts, rows)
    return 0


def measure(shape: str, count: int, path: str) -> Row:
    with dh.open(path, keep=2) as heap:
        SHAPES[shape](heap, count)
        first = heap.commit()
        collections, censuses = [], []
        peak_rss_reset()
        before = peak_rss_bytes()
        for _ in range(TURNS):
            collections.append(heap.collect().pause_ns)
            census = heap.census()
            censuses.append(census.pause_ns)
        census_bytes = peak_rss_bytes() - before
        median, least, most = spread(censuses)
        why_ns, why_bytes = timed(lambda: heap.why(heap.list()))
        heap.root["more"] = list(range(10_000))
        heap.commit()
        growth_ns, growth_bytes = timed(lambda: heap.growth(first))
        return {
            "heap": shape,
            "MB": mb(census.arena_bytes),
            "cells": census.cells,
            "collect ms": spread(collections)[0] / 1e6,
            "census ms": median / 1e6,
            "least": least / 1e6,
            "most": most / 1e6,
            "ratio": median / spread(collections)[0],
            "census MB": mb(census_bytes),
            "why ms": why_ns / 1e6,
            "why MB": mb(why_bytes),
            "growth ms": growth_ns / 1e6,
            "growth MB": mb(growth_bytes),
        }


def timed(ask: Callable[[], object]) -> tuple[int, int]:
    """Nanoseconds, and what the peak of memory grew by."""
    peak_rss_reset()
    before = peak_rss_bytes()
    began = time.perf_counter_ns()
    ask()
    return time.perf_counter_ns() - began, peak_rss_bytes() - before


if __name__ == "__main__":
    sys.exit(main())

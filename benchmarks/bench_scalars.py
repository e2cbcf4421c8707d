"""Values of richer types, a list of each into the heap and back, beside pickle.

Nanoseconds per value, median and extremes over rounds, ratio to pickle in the same direction. The
objects are the same in all rounds; collections of Python are off.
"""

from __future__ import annotations

import datetime as dt
import gc
import pickle
import random
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from common import Row, arguments, header, print_table, spread, work_directory, write_csv

import dirtyheap as dh

BERLIN = ZoneInfo("Europe/Berlin")
SOURCE = random.Random(1)


def moment(zone: dt.tzinfo | None = None) -> dt.datetime:
    """Some microsecond of twenty years."""
    since = dt.timedelta(microseconds=SOURCE.randrange(20 * 365 * 86400 * 10**6))
    return dt.datetime(2005, 1, 1, tzinfo=zone) + since


MAKE: dict[str, Callable[[], Any]] = {
    "datetime": moment,
    "datetime in UTC": lambda: moment(dt.UTC),
    "datetime in a zone": lambda: moment(BERLIN),
    "date": lambda: moment().date(),
    "timedelta": lambda: dt.timedelta(microseconds=SOURCE.randrange(10**15)),
    "Decimal": lambda: Decimal(SOURCE.randrange(10**8)) / 100,
    "Fraction": lambda: Fraction(SOURCE.randrange(10**6), 7),
    "UUID": lambda: uuid.UUID(int=SOURCE.getrandbits(128)),
    "complex": lambda: complex(SOURCE.random(), SOURCE.random()),
}


def timed(way: Callable[[], Any]) -> float:
    start = time.perf_counter_ns()
    result = way()
    took = time.perf_counter_ns() - start
    del result
    return took


def rows_of(what: str, values: list[Any], heap: dh.Heap, rounds: int) -> list[Row]:
    ours, dumped = heap.list(values), pickle.dumps(values, 5)
    ways: dict[str, dict[str, Callable[[], Any]]] = {
        "in": {"pickle": lambda: pickle.dumps(values, 5), "dirtyheap": lambda: heap.list(values)},
        "out": {"pickle": lambda: pickle.loads(dumped), "dirtyheap": ours.copy},
    }
    rows: list[Row] = []
    for op, contestants in ways.items():
        took: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, way in contestants.items():
                took[name].append(timed(way) / len(values))
        reference = spread(took["pickle"])[0]
        for name, figures in took.items():
            median, low, high = spread(figures)
            row = {"type": what, "op": op, "what": name, "ns": median, "min": low, "max": high}
            rows.append({**row, "ratio": median / reference})
    return rows


def main() -> None:
    options = arguments(__doc__ or "")
    facts = header("values of richer types")
    count, rounds = (20_000, 3) if options.quick else (1_000_000, 5)
    rows: list[Row] = []
    gc.disable()
    with work_directory(options.dir) as directory, dh.open(directory / "heap") as heap:
        for what, make in MAKE.items():
            rows += rows_of(what, [make() for _ in range(count)], heap, rounds)
            heap.collect()
    print_table(rows, list(rows[0]))
    if not options.quick:
        write_csv("scalars", facts, rows)


if __name__ == "__main__":
    main()

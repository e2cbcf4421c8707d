"""The program that test_sync_order.py records: commits of every kind, each framed by marks.

    python sync_writer.py HEAP MARKS

Creating the file MARKS/begin.N goes before commit N, MARKS/end.N after it: both show in the record.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import dirtyheap as dh


def run(path: Path, marks: Path) -> None:
    rng = random.Random(1)
    number = 0

    def commit(heap: dh.Heap) -> None:
        nonlocal number
        (marks / f"begin.{number}").touch()
        heap.commit(note=str(number))
        (marks / f"end.{number}").touch()
        number += 1

    with dh.open(path) as heap:
        commit(heap)  # nothing but the root
        heap.root["table"] = {key: {"value": key} for key in range(5000)}
        commit(heap)
        heap.root["large"] = heap.buffer(24 << 20)  # enough to be worth whole new extents
        for _ in range(2):
            memoryview(heap.root["large"])[:] = rng.randbytes(24 << 20)
            commit(heap)
        for step in range(20):
            for key in rng.sample(range(5000), 50):
                heap.root["table"][key]["value"] = step
            commit(heap)
        del heap.root["large"]
        heap.collect()
        commit(heap)
    with dh.open(path) as heap:  # what an earlier process left is not synced by magic
        heap.root["again"] = True
        commit(heap)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))

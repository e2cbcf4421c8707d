"""The victim of test_kill.py: a known sequence of states, one commit each, until somebody kills it.

    python writer.py HEAP REPORT_FD

State number n is a function of n alone, built step by step with `advance`, which works on a heap's
root and on plain dicts alike. Reports are single bytes: b"O" before the heap is opened, b"B" before
a commit, b"A" after it.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import dirtyheap as dh

BUFFER_BYTES = 1 << 16
LARGE_EVERY = 25  # every so many steps a commit that takes long enough to be hit in the middle
COLLECT_EVERY = 40

Root = MutableMapping[str, Any]


def advance(root: Root, step: int, make_buffer: Callable[[int], Any]) -> None:
    """Lead state `step - 1` over into state `step`."""
    rng = random.Random(step)
    if step == 1:
        root["table"] = {}
        root["log"] = []
        root["buffer"] = make_buffer(BUFFER_BYTES)
    root["step"] = step
    root["text"] = "ü" * rng.randrange(100) + str(step)

    table = root["table"]
    for _ in range(300 if step % LARGE_EVERY == 0 else 6):
        table[rng.randrange(400)] = {"step": step, "nested": [step, [rng.random()], (1, "two")]}
    for key in rng.sample(range(400), 5):
        if key in table:
            table[key]["nested"].append({"late": step})
        table.pop(key + 1, None)
    if step % 60 == 0:
        root["table"] = {}

    log = root["log"]
    log.append(f"entry {step}")
    if len(log) > 300:
        del log[:100]

    with memoryview(root["buffer"]) as view:
        for _ in range(15):
            at = rng.randrange(BUFFER_BYTES - 16)
            view[at : at + 16] = rng.randbytes(16)
        if step % LARGE_EVERY == 0:
            view[:] = rng.randbytes(BUFFER_BYTES)


def run(path: str, report_fd: int) -> None:
    """Go on from the last commit for ever."""
    os.write(report_fd, b"O")
    with dh.open(path) as heap:
        step = heap.root.get("step", 0)
        while True:
            step += 1
            heap.collect(budget_ms=0.1)  # so that most kills fall into the middle of a cycle
            advance(heap.root, step, heap.buffer)
            os.write(report_fd, b"B")
            heap.commit(note=str(step))
            os.write(report_fd, b"A")
            if step % COLLECT_EVERY == 0:
                heap.collect("young")
                heap.collect()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))

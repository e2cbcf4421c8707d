"""A numpy simulation whose state is the heap: numpy writes, nobody says so, commit finds it.

python examples/numpy_state.py        (run it again: it goes on where the last commit was)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dirtyheap as dh

CELLS = 1 << 20

with dh.open(Path(sys.argv[1] if len(sys.argv) > 1 else "heat.heap")) as heap:
    if "rod" not in heap.root:
        heap.root["rod"] = heap.buffer(CELLS * 8)
        heap.root["step"] = 0
        np.frombuffer(heap.root["rod"], dtype=np.float64)[CELLS // 2] = 1e6
    rod = np.frombuffer(heap.root["rod"], dtype=np.float64)  # arena memory, not a copy

    for _ in range(5):
        first = heap.root["step"]
        for _ in range(50):  # heat spreads by one cell a step: only the middle changes
            rod[1:-1] += 0.25 * np.diff(rod, 2)
        heap.root["step"] = first + 50
        commit = heap.commit(note=f"step {first + 50}")
        print(
            f"step {first + 50}: peak {rod.max():.0f}, total {rod.sum():.0f}; state "
            f"{rod.nbytes:,} bytes, changed {commit.bytes_changed:,}, "
            f"written {commit.bytes_written:,}"
        )
    del rod  # a view keeps the memory mapped after close

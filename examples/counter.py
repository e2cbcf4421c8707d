"""A counter that survives kill -9: start it, kill it, start it again.

python examples/counter.py & sleep 2; kill -9 $!; python examples/counter.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import dirtyheap as dh

with dh.open(Path(sys.argv[1] if len(sys.argv) > 1 else "counter.heap")) as heap:
    state = heap.root
    state.setdefault("count", 0)
    state.setdefault("per_digit", [0] * 10)
    print(f"continuing at {state['count']:,}")
    while state["count"] < 1_000_000:
        state["per_digit"][state["count"] % 10] += 1
        state["count"] += 1
        if state["count"] % 10_000 == 0:
            heap.commit()  # from here on this much cannot be lost
            print(f"{state['count']:,} counted and committed", flush=True)
    assert sum(state["per_digit"]) == state["count"]  # both from the same commit, always

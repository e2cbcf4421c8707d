"""The program whose calls are recorded: commits of every size, folds, rollbacks, deaths.

    python workload.py HEAP LIFE [N]

A run of lives makes one story; each opens the heap that the one before left. LIFE says what is
done; N, for lives that end in a kill, which call on the heap's files is the last.
"""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from announcing import announced, mark
from heap_state import content_of, state_of, tags_of

import dirtyheap as dh
from dirtyheap import folder, precopy

KEEP = 3  # commits; tags besides
LARGE_BYTES = 5 << 19  # more than half of an extent: a rewrite becomes a base file
_ANY_CALL = 0b11111  # writes, syncs, opens, names, truncations


def open_announced(path: Path) -> dh.Heap:
    heap = dh.open(path, keep=KEEP)
    mark(f"found {state_of(heap)}")
    return heap


def commit(heap: dh.Heap, note: str = "") -> None:
    announced(heap, lambda: heap.commit(note), commits=True)


def fold(heap: dh.Heap) -> None:
    announced(heap, heap.fold, commits=False)


def change_some(heap: dh.Heap, rng: random.Random) -> None:
    """A handful of small changes, some of them back to values of earlier."""
    table = heap.root["table"]
    for _ in range(8):
        table[rng.randrange(400)] = {"n": rng.choice([1, 2, rng.random()]), "s": "x" * 40}
    table.pop(rng.choice(list(table)))
    heap.root["log"].append(f"entry {rng.random()}")
    buffer = heap.root["buffer"]
    for _ in range(6):
        at = rng.randrange(len(buffer) - 8)
        buffer[at : at + 8] = rng.choice([bytes(8), rng.randbytes(8)])


def rewrite_large(heap: dh.Heap, rng: random.Random) -> None:
    memoryview(heap.root["large"])[:] = rng.randbytes(LARGE_BYTES)


def first_life(heap: dh.Heap, rng: random.Random) -> None:
    """From nothing to a heap with base files, deltas on them, and a fold."""
    commit(heap, "nothing but a root")
    heap.root["table"] = {key: {"n": key, "s": "x" * 40} for key in range(400)}
    heap.root["log"] = []
    heap.root["buffer"] = heap.buffer(1 << 16)
    commit(heap)
    for _ in range(3):
        change_some(heap, rng)
        commit(heap)
    fold(heap)
    heap.root["large"] = heap.buffer(LARGE_BYTES)
    rewrite_large(heap, rng)
    commit(heap, "a base file with the commit")
    for _ in range(3):
        change_some(heap, rng)
        commit(heap)
    change_some(heap, rng)
    heap.rollback()
    commit(heap, "only a note")


def steady_life(heap: dh.Heap, rng: random.Random) -> None:
    """Commits and folds in turn; values go back to what the base file has."""
    for number in range(3):
        first = bytes(heap.root["buffer"])
        change_some(heap, rng)
        heap.root["state"] = "changed"
        commit(heap)
        memoryview(heap.root["buffer"])[:] = first
        heap.root["state"] = "as before"
        commit(heap)
        fold(heap)
        if number == 1:
            rewrite_large(heap, rng)
            commit(heap)
        fold(heap)


def shrinking_life(heap: dh.Heap, rng: random.Random) -> None:
    """Extents get empty and full again."""
    del heap.root["large"]
    heap.collect()
    commit(heap)
    fold(heap)
    heap.root["large"] = heap.buffer(LARGE_BYTES)
    rewrite_large(heap, rng)
    change_some(heap, rng)
    commit(heap)


def staged_life(heap: dh.Heap, rng: random.Random) -> None:
    """Bulk goes to base files ahead of the record, and into them once more: what the application
    stores meanwhile, here into memory that no state shows."""
    unlinked = memoryview(heap.buffer(LARGE_BYTES))
    store = heap._store
    assert store is not None
    write_base = store.write_base

    def write_and_store(*arguments: Any) -> Any:
        extent = write_base(*arguments)
        unlinked[rng.randrange(LARGE_BYTES)] ^= 1
        return extent

    store.write_base = write_and_store  # type: ignore[method-assign]
    window, precopy.WINDOW_PAGES = precopy.WINDOW_PAGES, 0  # type: ignore[misc]
    for _ in range(2):
        unlinked[:] = rng.randbytes(LARGE_BYTES)
        rewrite_large(heap, rng)
        change_some(heap, rng)
        commit(heap)
    precopy.WINDOW_PAGES = window  # type: ignore[misc]
    store.write_base = write_base  # type: ignore[method-assign]
    unlinked.release()
    heap.collect()
    commit(heap)


def folding_life(heap: dh.Heap, rng: random.Random) -> None:
    """Folds that go on beside commits of every kind: a step after each."""
    start, commits_max = folder.Folder._start, folder._COMMITS_MAX
    folder.Folder._start = lambda self: None  # type: ignore[method-assign]
    folder._COMMITS_MAX = 2  # type: ignore[misc]
    driver = object()
    for number in range(9):
        change_some(heap, rng)
        if number % 5 == 3:
            rewrite_large(heap, rng)
        commit(heap)
        fold = heap._folder._fold
        if fold is not None:  # overdue ones are finished by the commit
            fold.take(driver)
            heap._take_fold_step(fold.step)
            fold.work_outside(driver)
        if number == 6:
            tag(heap, "moving")
    folder.Folder._start = start  # type: ignore[method-assign]
    folder._COMMITS_MAX = commits_max  # type: ignore[misc]


def threaded_life(heap: dh.Heap, rng: random.Random) -> None:
    """The same in a thread, as it comes."""
    commits_max = folder._COMMITS_MAX
    folder._COMMITS_MAX = 2  # type: ignore[misc]
    for number in range(5):
        change_some(heap, rng)
        if number % 3 == 2:
            rewrite_large(heap, rng)
        commit(heap)
    heap._folder.join()
    folder._COMMITS_MAX = commits_max  # type: ignore[misc]


def dying_commit(heap: dh.Heap, rng: random.Random) -> None:
    change_some(heap, rng)
    rewrite_large(heap, rng)
    commit(heap)


def dying_fold(heap: dh.Heap, rng: random.Random) -> None:
    change_some(heap, rng)
    commit(heap)
    fold(heap)


def historic_life(heap: dh.Heap, rng: random.Random) -> None:
    """Tags, their loss, what is pruned by it, and old states made current again."""
    name = f"kept {heap.last_commit_id}"
    tag(heap, name)
    kept = content_of(heap)
    for _ in range(5):
        change_some(heap, rng)
        commit(heap)
    rewrite_large(heap, rng)
    commit(heap)
    tag(heap, "moving")
    fold(heap)
    restore(heap, name, kept)
    change_some(heap, rng)
    commit(heap)
    tag(heap, "moving")
    untag(heap, name)
    fold(heap)


def tag(heap: dh.Heap, name: str) -> None:
    tags = tags_of(heap) | {name: heap.last_commit_id}
    announced(heap, lambda: heap.tag(name), commits=False, tags=tags)


def untag(heap: dh.Heap, name: str) -> None:
    tags = {key: commit for key, commit in tags_of(heap).items() if key != name}
    announced(heap, lambda: heap.untag(name), commits=False, tags=tags)


def restore(heap: dh.Heap, name: str, content: dict[Any, Any]) -> None:
    announced(heap, lambda: heap.restore(name), commits=True, content=content)


LIVES: dict[str, Callable[[dh.Heap, random.Random], None]] = {
    "first": first_life,
    "steady": steady_life,
    "shrinking": shrinking_life,
    "staged": staged_life,
    "folding": folding_life,
    "threaded": threaded_life,
    "historic": historic_life,
    "dying-historic": historic_life,
    "dying-commit": dying_commit,
    "dying-fold": dying_fold,
}
# What test_replay.py records, one after the other. The numbers of the last calls are spread over
# what a life of that kind does; one that outlives its number ends like any other.
STORY = [
    ["first"], ["dying-commit", "2"], ["dying-commit", "6"], ["steady"], ["dying-commit", "9"],
    ["dying-fold", "5"], ["dying-fold", "9"], ["dying-fold", "13"], ["dying-fold", "17"],
    ["historic"], ["dying-historic", "10"], ["dying-historic", "50"], ["dying-historic", "75"],
    ["folding", "33"], ["folding"], ["threaded", "25"], ["threaded"],
    ["staged", "3"], ["staged", "5"], ["staged", "9"], ["staged"], ["shrinking"], ["historic"],
    ["steady"],
]  # fmt: skip


def run(path: Path, life: str, last_call: int | None) -> None:
    heap = open_announced(path)
    if last_call is not None:
        preload = ctypes.CDLL(None)
        assert preload.preload_arm(_ANY_CALL, ctypes.c_long(last_call), b"die-after", 0, b"") == 0
    LIVES[life](heap, random.Random(f"{life} {last_call} {heap.last_commit_id}"))
    heap.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)

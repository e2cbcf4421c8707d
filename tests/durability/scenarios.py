"""What is killed or made to fail: one verb each, on a heap that was prepared for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heap_state import content_of, tags_of
from workload import KEEP, change_some, commit, rewrite_large

import dirtyheap as dh
from dirtyheap import folder, precopy

Step = Callable[[dh.Heap], Any]


def nothing(heap: dh.Heap) -> None:
    """No change."""


def change(heap: dh.Heap) -> None:
    """Small changes, a function of the last commit."""
    change_some(heap, random.Random(heap.last_commit_id))


def change_much(heap: dh.Heap) -> None:
    """Enough that the commit writes base files."""
    change(heap)
    rewrite_large(heap, random.Random(heap.last_commit_id))


def change_staged(heap: dh.Heap) -> None:
    """What counts as so much that base files are written ahead of the commit's stop."""
    precopy.WINDOW_PAGES = 64  # type: ignore[misc]
    change_much(heap)


def commit_scattered(heap: dh.Heap) -> None:
    """A commit of enough pages that a fold gives their memory back, too few for base files."""
    memoryview(heap.root["large"])[: 64 * 4096] = random.Random(7).randbytes(64 * 4096)
    commit(heap)


def make_due(heap: dh.Heap) -> None:
    """The next commit finds a fold due, which then runs in a thread of its own."""
    commit_scattered(heap)
    change(heap)
    folder._COMMITS_MAX = 1  # type: ignore[misc]


def commit_and_join(heap: dh.Heap) -> None:
    """The commit, and the fold that it begins; a fold that comes to nothing is no failure of it."""
    heap.commit()
    heap._folder.join()


def begin_fold(heap: dh.Heap) -> None:
    """A fold that waits in the middle; then changes that rewrite an extent that it has written,
    and one that it has not."""
    make_due(heap)
    driver = object()
    folder.Folder._start = lambda self: None  # type: ignore[method-assign]
    commit(heap)
    folder._COMMITS_MAX = 1 << 20  # type: ignore[misc]
    fold = heap._folder._fold
    assert fold is not None
    fold.take(driver)
    heap._take_fold_step(fold.step)
    fold.work_outside(driver)
    change_much(heap)


def begin_fold_and_commit(heap: dh.Heap) -> None:
    """As before, and the changes are committed: deltas behind the fold, which remain."""
    begin_fold(heap)
    commit(heap)
    change(heap)
    commit(heap)


def tagged_content(heap: dh.Heap) -> dict[Any, Any]:
    """What the commit tagged in :func:`prepare` shows."""
    with dh.open(heap.path, read_only=True, at="old") as snapshot:
        return content_of(snapshot)


@dataclass(frozen=True, slots=True)
class Scenario:
    """``change`` prepares the verb in memory; ``act`` is the verb, None: opening the heap, which
    ``is_new`` makes."""

    change: Step
    act: Step | None
    commits: bool = False
    is_new: bool = False
    goal: Callable[[dh.Heap], dict[str, Any]] = lambda heap: {}  # announced(): content, tags


SCENARIOS: dict[str, Scenario] = {
    "commit": Scenario(change, lambda heap: heap.commit("a note"), commits=True),
    "large-commit": Scenario(change_much, lambda heap: heap.commit(), commits=True),
    "staged-commit": Scenario(change_staged, lambda heap: heap.commit(), commits=True),
    "fold": Scenario(nothing, lambda heap: heap.fold()),
    "memory-fold": Scenario(commit_scattered, lambda heap: heap.fold()),
    "due-fold": Scenario(make_due, commit_and_join, commits=True),
    "commit-beside-fold": Scenario(begin_fold, lambda heap: heap.commit(), commits=True),
    "end-of-fold": Scenario(begin_fold_and_commit, lambda heap: heap.fold()),
    "tag": Scenario(
        nothing,
        lambda heap: heap.tag("new"),
        goal=lambda heap: {"tags": tags_of(heap) | {"new": heap.last_commit_id}},
    ),
    "untag": Scenario(nothing, lambda heap: heap.untag("old"), goal=lambda heap: {"tags": {}}),
    "restore": Scenario(
        nothing,
        lambda heap: heap.restore("old"),
        commits=True,
        goal=lambda heap: {"content": tagged_content(heap)},
    ),
    "open": Scenario(nothing, None),
    "create": Scenario(nothing, None, is_new=True),
}


def prepare(path: Path) -> None:
    """A heap in which every verb has something to do: base files, deltas upon them, files to
    replace."""
    rng = random.Random(1)
    with dh.open(path, keep=KEEP) as heap:
        heap.root["table"] = {key: {"n": key, "s": "x" * 40} for key in range(400)}
        heap.root["log"] = []
        heap.root["buffer"] = heap.buffer(1 << 16)
        heap.root["large"] = heap.buffer(5 << 19)
        rewrite_large(heap, rng)
        heap.commit()
        heap.tag("old")
        rewrite_large(heap, rng)
        heap.commit()
        heap.fold()
        for _ in range(3):
            change_some(heap, rng)
            heap.commit()

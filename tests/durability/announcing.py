"""Marks in the record: what a recorded program says about what it is doing.

begin STATE   a verb is called that may lead to this state
done STATE    it returned: from now on no other state may be found
found STATE   this was found when the heap was opened
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from heap_state import content_of, state_of, state_text, tags_of

import dirtyheap as dh


def _tell_recorder(text: str) -> None:
    preload = ctypes.CDLL(None)
    if hasattr(preload, "preload_mark"):
        preload.preload_mark(text.encode())


# Who hears of it; a program that is not recorded may have other listeners.
listeners: list[Callable[[str], None]] = [_tell_recorder]


def mark(text: str) -> None:
    """Say it to all listeners."""
    for listener in listeners:
        listener(text)


def announced(
    heap: dh.Heap,
    verb: Callable[[], Any],
    *,
    commits: bool,
    content: dict[Any, Any] | None = None,
    tags: dict[str, int] | None = None,
) -> None:
    """Call a verb that, if ``commits``, makes a commit of what the heap shows now, or of
    ``content``; and leaves it with these tags, or with those there are."""
    goal = state_text(
        heap.last_commit_id + commits,
        content_of(heap) if content is None else content,
        tags_of(heap) if tags is None else tags,
    )
    mark(f"begin {goal}")
    verb()
    found = state_of(heap)
    assert found == goal, f"{found} instead of {goal}"
    mark(f"done {found}")

"""Marks in the record: what a recorded program says about what it is doing.

begin STATE   a verb is called that may lead to this state
done STATE    it returned: from now on no other state may be found
found STATE   this was found when the heap was opened
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from heap_state import state_of, state_text

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


def announced(heap: dh.Heap, verb: Callable[[], Any], *, commits: bool) -> None:
    """Call a verb that, if ``commits``, makes a commit of what the heap shows now."""
    content = dh.to_python(heap.root)
    before = heap.last_commit_id
    mark(f"begin {state_text(before + commits, content)}")
    verb()
    assert heap.last_commit_id == before + commits
    mark(f"done {state_of(heap)}")

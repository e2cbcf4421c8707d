"""What a heap shows, as a short text: two heaps with equal texts show a user the same.

Shared by the program that is recorded or killed (it announces states) and by the judge of what is
found afterwards.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Mapping
from typing import Any

import dirtyheap as dh

_MARSHAL_VERSION = 2  # the last without references: it writes equal values alike


def digest(content: dict[Any, Any]) -> str:
    """Of plain containers, numbers, texts and bytes."""
    return hashlib.blake2b(marshal.dumps(content, _MARSHAL_VERSION), digest_size=12).hexdigest()


def state_text(commit_id: int, content: dict[Any, Any], tags: Mapping[str, int]) -> str:
    """The state of a heap with this last commit and these tags: id:digest:tags."""
    named = ",".join(f"{name}={commit}" for name, commit in sorted(tags.items()))
    return f"{commit_id}:{digest(content)}:{named}"


def tags_of(heap: dh.Heap) -> dict[str, int]:
    """Which commit each tag names."""
    return {name: commit.id for name, commit in heap.tags().items()}


def content_of(heap: dh.Heap) -> dict[Any, Any]:
    """All of it, in built-in types."""
    content = dh.to_python(heap.root)
    assert type(content) is dict
    return content


def state_of(heap: dh.Heap) -> str:
    """The whole content, the last commit's id and the tags; nothing may be uncommitted."""
    return state_text(heap.last_commit_id, content_of(heap), tags_of(heap))


NEW = state_text(0, {}, {})  # of a heap in which nothing was committed yet

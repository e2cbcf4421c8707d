"""What a heap shows, as a short text: two heaps with equal texts show a user the same.

Shared by the program that is recorded or killed (it announces states) and by the judge of what is
found afterwards.
"""

from __future__ import annotations

import hashlib
import marshal
from typing import Any

import dirtyheap as dh

_MARSHAL_VERSION = 2  # the last without references: it writes equal values alike


def digest(content: dict[Any, Any]) -> str:
    """Of plain containers, numbers, texts and bytes."""
    return hashlib.blake2b(marshal.dumps(content, _MARSHAL_VERSION), digest_size=12).hexdigest()


def state_text(commit_id: int, content: dict[Any, Any]) -> str:
    """The state that a commit with this id and content makes."""
    return f"{commit_id}:{digest(content)}"


def state_of(heap: dh.Heap) -> str:
    """The whole content and the last commit's id; nothing may be uncommitted."""
    content = dh.to_python(heap.root)
    assert type(content) is dict
    return state_text(heap.last_commit_id, content)


NEW = state_text(0, {})  # of a heap in which nothing was committed yet

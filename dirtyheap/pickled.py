"""Pickled: the one way for objects of any type, for those who ask for it by name.

A pickle runs code when it is read, so a heap from somebody else could do anything: it is only read
where the heap was opened with ``allow_pickle=True``. Nothing else here or elsewhere pickles.
"""

from __future__ import annotations

import pickle
from typing import Any, Final, final

from .errors import HeapError

_PROTOCOL: Final = 5


@final
class Pickled:
    """Marks an object to be stored as a pickle; reading gives a new, equal object.

    Only a heap opened with ``allow_pickle=True`` reads it; any other keeps it unread. What is read
    is a copy each time: changing it changes nothing in the heap. It cannot be a key.

    >>> import dirtyheap as dh, re, tempfile, os
    >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h"), allow_pickle=True) as heap:
    ...     heap.root["pattern"] = dh.Pickled(re.compile("a+"))
    ...     heap.root["pattern"].pattern
    'a+'
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    __hash__ = None  # type: ignore[assignment]  # nor an element of a frozenset that is stored

    def __repr__(self) -> str:
        return f"dirtyheap.Pickled({self.value!r})"


def dumps(marked: Pickled) -> bytes:
    """The pickle of the object that is marked."""
    return pickle.dumps(marked.value, _PROTOCOL)


def loads(data: bytes, *, is_allowed: bool) -> Any:
    """The object, if this heap may read pickles."""
    if not is_allowed:
        raise HeapError(
            "a Pickled value is not read, because reading it may run any code: if you trust the "
            "heap, open it with dirtyheap.open(path, allow_pickle=True)"
        )
    return pickle.loads(data)

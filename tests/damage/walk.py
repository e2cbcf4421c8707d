"""Read everything that a root reaches, through every way of reading there is.

Two readers: :func:`fingerprint` reads once and gives a text that is equal for equal contents;
:func:`read_all` calls every method that reads, on every container. Neither recurses: a damaged heap
may be of any depth. What a heap may raise when it is damaged is :data:`ALLOWED`; all else is a bug.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dirtyheap as dh

# HeapError: damage was met. KeyError and IndexError: a key that was just seen is not found again.
# RecursionError: comparing and printing nest as the built-in ones do.
ALLOWED = (dh.HeapError, KeyError, IndexError, RecursionError)

_CONTAINERS = (dh.Dict, dh.List, dh.Set, dh.Deque, dh.SortedDict, dh.Buffer, dh.Record)


def _place(container: Any, item: Any) -> int:
    """What index() says. It has a ValueError of its own for what was just seen and is not found."""
    try:
        return container.index(item)
    except ValueError as error:
        if "is not in" in str(error):
            raise KeyError(item) from error
        raise


def _children(container: Any) -> Iterator[tuple[str, Any]]:
    """What a container holds, each with the text of how it is reached."""
    if isinstance(container, dh.Dict | dh.SortedDict):
        for key, value in container.items():
            yield "key", key
            yield "value", value
    elif isinstance(container, dh.Record):
        for name, value in _fields(container):
            yield f"field {name}", value
    else:
        for value in container:
            yield "item", value


def _fields(record: Any) -> Iterator[tuple[str, Any]]:
    names = [name for name in dir(type(record)) if not name.startswith("_")]
    for name in names:
        value = getattr(record, name)
        if not callable(value):
            yield name, value


def _describe(value: Any, number: Callable[[Any], int]) -> str:
    """A value that holds no container, or a container's number."""
    if isinstance(value, dh.Buffer):
        return f"Buffer {hashlib.blake2b(bytes(value), digest_size=8).hexdigest()}"
    if isinstance(value, _CONTAINERS):
        return f"{type(value).__name__} #{number(value)}"
    if isinstance(value, np.ndarray):
        digest = hashlib.blake2b(value.tobytes(), digest_size=8).hexdigest()
        return f"array {value.dtype} {value.shape} {digest}"
    if isinstance(value, tuple):
        return f"({', '.join(_describe(part, number) for part in value)})"
    if isinstance(value, frozenset):
        return f"frozenset({', '.join(sorted(_describe(part, number) for part in value))})"
    return f"{type(value).__name__} {value!r}"


def fingerprint(root: Any) -> str:
    """A hash over everything reachable, equal for equal contents; containers are numbered as they
    are met, so that it also tells who is linked to whom."""
    numbers: dict[int, int] = {}
    kept = [root]  # while it is kept, a container has one identity
    todo = [root]
    text = hashlib.blake2b(digest_size=16)

    def number(container: Any) -> int:
        if id(container) not in numbers:
            numbers[id(container)] = len(numbers)
            kept.append(container)
            todo.append(container)
        return numbers[id(container)]

    number(root)
    todo.pop()
    while todo:
        container = todo.pop()
        text.update(f"#{number(container)} {type(container).__name__}:".encode())
        for role, value in _children(container):
            text.update(f"{role} {_describe(value, number)};".encode("utf-8", "surrogatepass"))
    return text.hexdigest()


# --- every way of reading -------------------------------------------------------------------------


def _few(items: Any, count: int = 3) -> list[Any]:
    return list(itertools.islice(items, count))


def _read_dict(d: Any) -> None:
    keys = list(d)
    len(d), list(d.keys()), list(d.values()), list(d.items()), list(reversed(d))
    for key in [*_few(keys), *_few(reversed(keys))]:
        d[key], d.get(key), key in d, (key, d[key]) in d.items()
    d.get("no such key"), "no such key" in d, bool(d)
    d == d, d.keys() & {1}, d.copy() if len(keys) < 200 else None


def _read_list(a: Any) -> None:
    items = list(a)
    len(a), list(reversed(a)), a[:3], a[-3:], a[::7]
    if items:
        a[0], a[-1], a[len(items) // 2], a.count(items[0]), _place(a, items[0])
    "no such item" in a, bool(a), a == a, _few(a + [1]) if isinstance(a, dh.List) else None


def _read_deque(a: Any) -> None:
    items = list(a)
    len(a), a.maxlen, list(reversed(a)), a == a, bool(a)
    if items:
        a[0], a[-1], a.count(items[0]), _place(a, items[0])


def _read_set(s: Any) -> None:
    items = list(s)
    len(s), bool(s), s == s, "no such item" in s, s.isdisjoint({1}), s <= s, _few(s | {1})
    for item in _few(items):
        item in s


def _read_sorted(d: Any) -> None:
    keys = list(d)
    len(d), list(d.values()), list(d.items()), list(reversed(d)), bool(d), d == d
    if keys:
        d.peekitem(0), d.peekitem(-1), d.bisect(keys[0]), d.bisect_left(keys[-1])
        (
            _place(d, keys[len(keys) // 2]),
            _few(d.irange(keys[0], keys[-1])),
            d[keys[0]],
            d.get(keys[-1]),
        )
        d.keys()[0], d.values()[-1], d.items()[0], _few(d.islice(1, 5))


def _read_buffer(buffer: Any) -> None:
    len(buffer), bytes(buffer), buffer[:5] if len(buffer) else None
    with memoryview(buffer) as view:
        view.nbytes, bytes(view[:10])


_READERS: list[tuple[type, Callable[[Any], None]]] = [
    (dh.Dict, _read_dict),
    (dh.List, _read_list),
    (dh.Deque, _read_deque),
    (dh.Set, _read_set),
    (dh.SortedDict, _read_sorted),
    (dh.Buffer, _read_buffer),
    (dh.Record, lambda record: [None for _ in _fields(record)] and None),
]


def read_all(root: Any) -> list[BaseException]:
    """Call everything that reads on every container; errors are collected, one per call, and the
    reading goes on. Anything but :data:`ALLOWED` is raised."""
    errors: list[BaseException] = []
    seen: dict[int, Any] = {}
    todo = [root]
    while todo:
        container = todo.pop()
        if id(container) in seen:
            continue
        seen[id(container)] = container
        for reader in [read for cls, read in _READERS if isinstance(container, cls)]:
            _collect(errors, reader, container)
        _collect(errors, repr, container)
        _collect(errors, lambda container=container: todo.extend(_inner(container)))
    for whole in (dh.to_python, copy.copy, copy.deepcopy):
        _collect(errors, whole, root)
    return errors


def _inner(container: Any) -> Iterator[Any]:
    if isinstance(container, dh.Buffer):
        return
    for _, value in _children(container):
        parts = [value]
        while parts:
            part = parts.pop()
            if isinstance(part, tuple | frozenset):
                parts.extend(part)
            elif isinstance(part, _CONTAINERS):
                yield part


def _collect(errors: list[BaseException], read: Callable[..., Any], *arguments: Any) -> None:
    try:
        read(*arguments)
    except ALLOWED as error:
        errors.append(error)

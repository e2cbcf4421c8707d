"""Values of a heap as nodes of JSON, bounded in depth, in number and in length.

A node is a plain JSON value where that loses nothing: null, true, false, a str, a finite float, an
int of up to 53 bits. Everything else is an object with a ``type``; docs/cli.md lists them. What is
left out is counted (``more``); a container that was met before is named by its path.

Reading goes through the library: nothing is imported, unpickled or called because a heap names it.
A part that cannot be read becomes a node of type ``unreadable``, and the walk goes on beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from .._native import (
    Buffer,
    Container,
    Deque,
    Dict,
    List,
    Record,
    Set,
    SortedDict,
    record_name,
)
from ..errors import HeapCorruptError, HeapError
from ..scalars import Unknown
from .path import Step

Node = Any

DEPTH_MAX: Final = (
    200  # whatever is asked for: a terminal ends much earlier, and recursion somewhere
)
_EXACT_INT_BITS: Final = 53  # programs that read JSON have doubles
_DECIMAL_INT_BITS: Final = 10_000  # beyond, Python refuses to write decimal digits
_CONTAINER_NAMES: Final[dict[type, str]] = {
    Dict: "dict",
    SortedDict: "sorted_dict",
    List: "list",
    Deque: "deque",
    Set: "set",
}


@dataclass
class Limits:
    """How much to show: levels of containers, entries of each, characters or bytes of a text."""

    depth: int
    items: int
    text: int


@dataclass
class Walk:
    """One walk from one value; ``damage_count``: parts that could not be read."""

    limits: Limits
    damage_count: int = 0
    _paths: dict[int, str] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)  # handles: their ids must stay theirs

    def node(self, value: Any, path: str = "root", depth: int = 0) -> Node:
        """The node of a value that stands at a path."""
        if value is None or isinstance(value, bool):
            return value
        simple = _SIMPLE.get(type(value))
        if simple is not None:
            return simple(self, value)
        if isinstance(value, (tuple, frozenset)):
            return self._collection(type(value).__name__, value, len(value), path, depth)
        if isinstance(value, Container):
            return self._container(value, path, depth)
        if type(value).__module__ == "numpy":
            return self._array(value)
        if isinstance(value, Unknown):
            return {
                "type": "unknown",
                "name": value.name,
                "data": self._cut(_written(repr, value.data)),
            }
        return {"type": type(value).__name__, "text": self._cut(_written(str, value))}

    # --- containers

    def _container(self, value: Container, path: str, depth: int) -> Node:
        if id(value) in self._paths:
            return {"type": "same", "path": self._paths[id(value)]}
        self._paths[id(value)] = path
        self._kept.append(value)
        if isinstance(value, Record):
            return self._record(value, path, depth)
        if isinstance(value, Buffer):
            return self._bytes("buffer", value)
        name = _CONTAINER_NAMES[type(value)]
        if isinstance(value, (Dict, SortedDict)):
            return self._mapping(name, value, path, depth)
        sized: Any = value
        node = self._collection(name, sized, len(sized), path, depth)
        if isinstance(value, Deque):
            node["maxlen"] = value.maxlen
        return node

    def _mapping(self, name: str, value: Any, path: str, depth: int) -> Node:
        count = len(value)
        items = []
        for key in self._first(value, depth):
            if isinstance(key, _Unreadable):
                items.append([key.node, None])
                break
            shown = self.node(key, f"{path}.keys()", depth + 1)
            step = f"{path}{Step(key)}" if _is_plain(key) else f"{path}[...]"
            items.append([shown, self._read(value, key, step, depth)])
        return {"type": name, "length": count, "items": items, "more": count - len(items)}

    def _collection(self, name: str, value: Any, count: int, path: str, depth: int) -> Node:
        shown: list[Node] = []
        if isinstance(value, (List, Deque)):  # by index: one that cannot be read does not end it
            for index in range(self._count_shown(count, depth)):
                place = f"{path}[{index}]"
                shown.append(self._read(value, index, place, depth))
        else:
            for index, part in enumerate(self._first(value, depth)):
                if isinstance(part, _Unreadable):
                    shown.append(part.node)
                    break
                shown.append(self.node(part, f"{path}[{index}]", depth + 1))
        return {"type": name, "length": count, "items": shown, "more": count - len(shown)}

    def _record(self, value: Record, path: str, depth: int) -> Node:
        name = record_name(value)
        node: dict[str, Node] = {"type": "record", "class": name, "fields": {}, "more": 0}
        try:
            fields: dict[str, Any] = value.__copy__()
        except (HeapError, ImportError) as error:
            return {**node, "fields": {"": self._unreadable(error)}}
        shown = self._count_shown(len(fields), depth)
        for key in islice(fields, shown):
            node["fields"][key] = self.node(fields[key], f"{path}.{key}", depth + 1)
        node["more"] = len(fields) - shown
        return node

    def _count_shown(self, count: int, depth: int) -> int:
        if depth >= min(self.limits.depth, DEPTH_MAX):
            return 0
        return min(count, self.limits.items)

    def _first(self, value: Iterable[Any], depth: int) -> Iterator[Any]:
        """The first elements or keys; where one cannot be read, that ends it."""
        left = self._count_shown(1 << 62, depth)
        parts = iter(value)
        while left > 0:
            try:
                part = next(parts, _END)
            except (HeapError, ImportError) as error:
                yield _Unreadable(self._unreadable(error))
                return
            if part is _END:
                return
            yield part
            left -= 1

    def _read(self, container: Any, key: Any, path: str, depth: int) -> Node:
        try:
            value = container[key]
        except (HeapError, ImportError, LookupError) as error:
            return self._unreadable(error)
        return self.node(value, path, depth + 1)

    def _unreadable(self, error: Exception) -> Node:
        self.damage_count += isinstance(error, (HeapCorruptError, LookupError))
        return {"type": "unreadable", "error": str(error)}

    # --- values

    def _cut(self, text: str) -> str:
        return text if len(text) <= self.limits.text else text[: self.limits.text] + "..."

    def _str(self, value: str) -> Node:
        more = len(value) - self.limits.text
        return (
            {"type": "str", "text": value[: self.limits.text], "more": more} if more > 0 else value
        )

    def _bytes(self, name: str, value: Any) -> Node:
        count = len(value)
        shown = bytes(value[: self.limits.text])
        return {"type": name, "length": count, "hex": shown.hex(), "more": count - len(shown)}

    def _int(self, value: int) -> Node:
        if value.bit_length() <= _EXACT_INT_BITS:
            return value
        is_short = value.bit_length() <= _DECIMAL_INT_BITS
        return {"type": "int", "text": self._cut(str(value) if is_short else hex(value))}

    def _float(self, value: float) -> Node:
        return value if math.isfinite(value) else {"type": "float", "text": str(value)}

    def _array(self, value: Any) -> Node:
        shown = min(value.size, self.limits.items)
        items = [_array_item(item) for item in islice(value.flat, shown)]
        return {
            "type": "array",
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "items": [self.node(item) for item in items],
            "more": int(value.size) - shown,
        }


_END: Final = object()


@dataclass
class _Unreadable:
    node: Node


def _written(how: Callable[[Any], str], value: Any) -> str:
    """A value as text; some hold ints of more digits than Python writes."""
    try:
        return how(value)
    except ValueError:
        return f"<{type(value).__name__} with too many digits>"


def _is_plain(key: Any) -> bool:
    """Whether a path can name it."""
    if isinstance(key, tuple):
        return all(map(_is_plain, key))
    if type(key) is int:
        return key.bit_length() <= _DECIMAL_INT_BITS
    return key is None or type(key) in (bool, float, str, bytes)


def _array_item(item: Any) -> Any:
    """A number of numpy as Python's, or as text."""
    plain = item.item() if hasattr(item, "item") else item
    if plain is None or type(plain) in (bool, int, float, str, bytes, complex, tuple):
        return plain
    return str(item)


_SIMPLE: Final[dict[type, Callable[[Walk, Any], Node]]] = {
    str: Walk._str,
    int: Walk._int,
    float: Walk._float,
    bytes: lambda walk, value: walk._bytes("bytes", value),
}

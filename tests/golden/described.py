"""A heap's contents as JSON in which nothing is lost: types, order of entries, identity, cycles.

Two readers make it: the library, and the reader of ``tests/format`` that knows ``docs/format.md``
only. Containers are numbered in the order in which they are met; a second way to one is
``{"$": "same", "number": n}``.
"""

from __future__ import annotations

import copy
import json
import re
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

import dirtyheap as dh


class Describer:
    """One walk over one heap."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # a handle that nobody holds would give its id to another one

    def describe(self, value: Any) -> Any:
        """The value's description."""
        if value is None or isinstance(value, bool):
            return value
        if type(value) is str and value.isascii():
            return value
        if type(value) is int and abs(value) < 1 << 53:
            return value
        scalar = _SCALARS.get(type(value))
        if scalar is not None:
            return {"$": type(value).__name__, "=": scalar(value)}
        if isinstance(value, PurePath):
            return {"$": type(value).__name__, "=": str(value)}
        if type(value) is tuple:
            return {"$": "tuple", "=": [self.describe(part) for part in value]}
        if type(value) is frozenset:
            parts = [self.describe(part) for part in value]
            return {"$": "frozenset", "=": sorted(parts, key=repr)}
        return self._container(value)

    def _container(self, value: Any) -> Any:
        if id(value) in self._numbers:
            return {"$": "same", "number": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        kind, content = self._content(value)
        return {"$": kind, "number": number, "=": content}

    def _content(self, value: Any) -> tuple[str, Any]:
        for types, kind, describe in _CONTAINERS:
            if isinstance(value, types):
                return kind, describe(self, value)
        if type(value).__name__ == "ndarray":
            return "array", _array(value)
        raise TypeError(f"{type(value)} has no description: {value!r}")

    def pairs(self, value: Any) -> list[Any]:
        """A mapping's entries, in order."""
        return [[self.describe(key), self.describe(value[key])] for key in value]

    def items(self, value: Iterable[Any]) -> list[Any]:
        """A sequence's elements, in order."""
        return [self.describe(part) for part in value]

    def bounded(self, value: Any) -> dict[str, Any]:
        """A deque's limit and elements."""
        return {"maxlen": value.maxlen, "items": self.items(value)}

    def record(self, value: Any) -> dict[str, Any]:
        """A record's class and fields, as stored if the class is not defined."""
        fields = copy.copy(value)
        return {
            "class": repr(value).partition("(")[0],
            "fields": {name: self.describe(part) for name, part in fields.items()},
        }


def _float(value: float) -> str:
    return struct.pack(">d", value).hex()


def _zone(value: datetime | time) -> str:
    return repr(value.tzinfo)


def _array(array: Any) -> dict[str, Any]:
    return {
        "dtype": _dtype(array.dtype),
        "shape": list(array.shape),
        "hex": array.tobytes().hex(),  # items in the order of C
    }


def _dtype(dtype: Any) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_dtype(base), list(shape)]
    if dtype.names is None:
        return dtype.str
    fields = [[name, dtype.fields[name][1], _dtype(dtype.fields[name][0])] for name in dtype.names]
    return [dtype.itemsize, fields]


_SCALARS: dict[type, Callable[[Any], Any]] = {
    str: lambda text: text.encode("utf-8", "surrogatepass").hex(),
    int: str,
    float: _float,
    bytes: bytes.hex,
    complex: lambda number: [_float(number.real), _float(number.imag)],
    datetime: lambda moment: [moment.isoformat(), moment.fold, _zone(moment)],
    date: date.isoformat,
    time: lambda moment: [moment.isoformat(), moment.fold, _zone(moment)],
    timedelta: lambda span: [span.days, span.seconds, span.microseconds],
    Decimal: str,
    Fraction: str,
    UUID: str,
    range: repr,
    re.Pattern: lambda pattern: [pattern.pattern, pattern.flags],
    dh.Unknown: lambda value: [value.name, value.data],
}

_CONTAINERS: list[tuple[Any, str, Callable[[Describer, Any], Any]]] = [
    (dh.Record, "record", Describer.record),
    (dh.SortedDict, "sorted", Describer.pairs),
    ((dh.Dict, dict), "dict", Describer.pairs),
    ((dh.List, list), "list", Describer.items),
    ((dh.Deque, deque), "deque", Describer.bounded),
    ((dh.Set, set), "set", Describer.items),
    ((dh.Buffer, bytearray), "buffer", lambda describer, value: bytes(value).hex()),
]


if __name__ == "__main__":
    with dh.open(sys.argv[1], allow_pickle=True) as heap:
        print(json.dumps(Describer().describe(heap.root)))

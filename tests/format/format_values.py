"""Packed values of the standard types, by docs/format.md alone; see format_reader.py."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack


def signed(data: bytes) -> int:
    """Little-endian two's complement of any size."""
    return int.from_bytes(data, "little", signed=True)


def _zone(data: bytes) -> tzinfo | None:
    kind, rest = data[:1], data[1:]
    if kind == b"":
        return None
    if kind == b"u":
        return UTC
    if kind == b"z":
        return ZoneInfo(rest.decode())
    offset = timedelta(microseconds=signed(rest[:6]))
    return timezone(offset) if kind == b"o" else timezone(offset, rest[6:].decode())


def _datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, high, low = struct.unpack(">HBBBBBBH", data[:10])
    micros, fold = high << 16 | low, month >> 7
    return datetime(
        year, month & 127, day, hour, minute, second, micros, _zone(data[10:]), fold=fold
    )


def _time(data: bytes) -> time:
    hour, minute, second, high, low = struct.unpack(">BBBBH", data[:6])
    micros, fold = high << 16 | low, hour >> 7
    return time(hour & 127, minute, second, micros, _zone(data[6:]), fold=fold)


def _timedelta(data: bytes) -> timedelta:
    days, low, high = struct.unpack("<iIB", data)
    return timedelta(days=days, microseconds=high << 32 | low)


def _fraction(data: bytes) -> Fraction:
    (size,) = struct.unpack_from("<I", data)
    return Fraction(signed(data[4 : 4 + size]), signed(data[4 + size :]))


_STANDARD: Final[dict[int, Callable[[bytes], Any]]] = {
    1: lambda data: complex(*struct.unpack("<dd", data)),
    2: _datetime,
    3: lambda data: date(*struct.unpack(">HBB", data)),
    4: _time,
    5: _timedelta,
    6: lambda data: Decimal(data.decode("ascii")),
    7: _fraction,
    8: lambda data: UUID(bytes=data[:16]),
    9: lambda data: range(*map(signed, msgpack.unpackb(data))),
    10: lambda data: PosixPath(data.decode("utf-8", "surrogatepass")),
    11: lambda data: PurePosixPath(data.decode("utf-8", "surrogatepass")),
}


def unpack_standard(code: int, data: bytes) -> Any:
    """The value of a code below 64."""
    return _STANDARD[code](data)

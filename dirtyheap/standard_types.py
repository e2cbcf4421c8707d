"""Packers and unpackers of the standard library's value types.

``PACKERS``: exact type -> packer(core, obj), which returns the value's canonical form as a key
(``canonical.py``; None: it cannot be one) and its payload, a msgpack extension code and the data.
``UNPACKERS``: code -> unpacker(data). Data may come from a damaged or hostile file: unpackers go
through checking constructors only, and whatever they raise is told as damage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePath, PurePosixPath
from typing import Any, Final, cast
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import msgpack

from . import canonical

Form = tuple[bytes | None, bytes]
Packer = Callable[[Any, Any], Any]

# Part of the format: never given to another type.
COMPLEX, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, FRACTION, UUID_, RANGE, POSIX_PATH, PURE_PATH = (
    bytes([code]) for code in range(1, 12)
)

# --- numbers --------------------------------------------------------------------------------------

_COMPLEX: Final = struct.Struct("<dd")


def _pack_complex(core: object, number: complex) -> Form:
    payload = COMPLEX + _COMPLEX.pack(number.real, number.imag)
    return canonical.of_complex(number, b"x" + COMPLEX), payload


def _unpack_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _pack_decimal(core: object, number: Decimal) -> Form:
    text = str(number)
    return canonical.of_decimal(number, len(text), b"x" + DECIMAL), DECIMAL + text.encode("ascii")


def _unpack_decimal(data: bytes) -> Decimal:
    return Decimal(data.decode("ascii"))


def _pack_fraction(core: object, number: Fraction) -> Form:
    top = canonical.signed_bytes(number.numerator)
    bottom = canonical.signed_bytes(number.denominator)
    payload = FRACTION + len(top).to_bytes(4, "little") + top + bottom
    return canonical.of_fraction(number), payload


def _unpack_fraction(data: bytes) -> Fraction:
    size = int.from_bytes(data[:4], "little")
    top, bottom = data[4 : 4 + size], data[4 + size :]
    return Fraction(
        int.from_bytes(top, "little", signed=True), int.from_bytes(bottom, "little", signed=True)
    )


# --- dates and times ------------------------------------------------------------------------------

_EPOCH: Final = datetime(1, 1, 1)
# The constructor takes what a datetime pickles, ten times as fast as replace().
_from_state: Final = cast(Any, datetime)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)
_DATETIME: Final = struct.Struct(">HBBBBBBH")  # year .. second, microsecond; bit 7 of month: fold
_TIME: Final = struct.Struct(">BBBBH")  # hour .. second, microsecond; bit 7 of hour: fold
_DATE: Final = struct.Struct(">HBB")
_TIMEDELTA: Final = struct.Struct("<iIB")  # days, microseconds of the day: low 32 bits, high 8
_FOLD: Final = 0x80


def _zone_bytes(zone: tzinfo) -> bytes:
    """A fixed offset, or a key of the time zone database."""
    if zone is UTC:
        return b"u"
    if type(zone) is timezone:
        arguments: Any = zone.__getinitargs__()  # type: ignore[attr-defined]  # typeshed has it not
        offset: bytes = (arguments[0] // _MICROSECOND).to_bytes(6, "little", signed=True)
        if len(arguments) == 1:
            return b"o" + offset
        return b"n" + offset + str.encode(arguments[1], "utf-8", "surrogatepass")
    if type(zone) is ZoneInfo and isinstance(zone.key, str):
        return b"z" + zone.key.encode()
    raise TypeError(
        f"a heap cannot hold the time zone {zone!r}: use datetime.timezone, or "
        "zoneinfo.ZoneInfo(key)"
    )


def _zone_from(data: bytes) -> tzinfo:
    kind, rest = data[:1], data[1:]
    if kind == b"u" and not rest:
        return UTC
    if kind == b"z":
        return ZoneInfo(rest.decode())
    offset = timedelta(microseconds=int.from_bytes(rest[:6], "little", signed=True))
    if kind == b"o" and len(rest) == 6:
        return timezone(offset)
    if kind == b"n" and len(rest) >= 6:
        return timezone(offset, rest[6:].decode("utf-8", "surrogatepass"))
    raise ValueError(f"no time zone: {data!r}")


def _with_fold(state: bytes) -> bytes:
    """With the other fold."""
    return state[:2] + bytes([state[2] ^ _FOLD]) + state[3:]


def _micros_utc(fields: bytes, offset: timedelta) -> bytes:
    micros: int = (_from_state(fields) - _EPOCH - offset) // _MICROSECOND
    return micros.to_bytes(9, "little", signed=True)


def _aware_key(moment: datetime, fields: bytes, zone: bytes) -> bytes:
    """Moments are equal when they are the same in UTC; but one whose offset depends on its fold
    equals nothing outside its own zone (PEP 495, "Inter-zone comparison"), where its fold does not
    count. It stands where it is with fold=0 (its place in a SortedDict)."""
    offset = moment.utcoffset()
    assert offset is not None  # both kinds of zones know it for every datetime
    if zone[:1] == b"z":
        twin = fields if moment.fold else _with_fold(fields)
        twin_offset = _from_state(twin, moment.tzinfo).utcoffset()
        if twin_offset != offset:
            place = _micros_utc(fields, twin_offset if moment.fold else offset)
            return b"x" + DATETIME + b"f" + place + fields + zone
    return b"x" + DATETIME + b"u" + _micros_utc(fields, offset)


def _pack_datetime(core: object, moment: datetime) -> Form:
    # What it pickles is _DATETIME, and the zone.
    state, *zones = cast(tuple[Any, tuple[Any, ...]], moment.__reduce_ex__(4))[1]
    fields = state
    if moment.fold:
        fields = _with_fold(state)
    if not zones:
        return b"x" + DATETIME + fields, DATETIME + state
    zone = _zone_bytes(zones[0])
    return _aware_key(moment, fields, zone), DATETIME + state + zone


def _unpack_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, high, low = _DATETIME.unpack(data[:10])
    zone = _zone_from(data[10:]) if len(data) > 10 else None
    micros = high << 16 | low
    if month & _FOLD:
        month ^= _FOLD
        return datetime(year, month, day, hour, minute, second, micros, zone, fold=1)
    return datetime(year, month, day, hour, minute, second, micros, zone)


def _pack_date(core: object, day: date) -> Form:
    payload = DATE + _DATE.pack(day.year, day.month, day.day)
    return b"x" + payload, payload


def _unpack_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _time_state(moment: time, fold: int) -> bytes:
    micros = moment.microsecond
    hour = moment.hour | _FOLD if fold else moment.hour
    return _TIME.pack(hour, moment.minute, moment.second, micros >> 16, micros & 0xFFFF)


def _time_key(moment: time) -> bytes:
    offset = moment.utcoffset()
    if offset is None:  # a zone that depends on the date does not count, as in Python
        return b"x" + TIME + _time_state(moment, 0)
    # As in Python: what the offset has below a second does not count.
    seconds = (moment.hour * 60 + moment.minute) * 60 + moment.second - offset // _SECOND
    micros = seconds * 10**6 + moment.microsecond
    return b"x" + TIME + b"u" + micros.to_bytes(8, "little", signed=True)


def _pack_time(core: object, moment: time) -> Form:
    zone = b"" if moment.tzinfo is None else _zone_bytes(moment.tzinfo)
    return _time_key(moment), TIME + _time_state(moment, moment.fold) + zone


def _unpack_time(data: bytes) -> time:
    hour, minute, second, high, low = _TIME.unpack(data[:6])
    zone = _zone_from(data[6:]) if len(data) > 6 else None
    micros = high << 16 | low
    return time(hour & ~_FOLD, minute, second, micros, zone, fold=hour >> 7)


def _pack_timedelta(core: object, span: timedelta) -> Form:
    micros = span.seconds * 10**6 + span.microseconds
    payload = TIMEDELTA + _TIMEDELTA.pack(span.days, micros & 0xFFFFFFFF, micros >> 32)
    return b"x" + payload, payload


def _unpack_timedelta(data: bytes) -> timedelta:
    days, low, high = _TIMEDELTA.unpack(data)
    return timedelta(days, 0, high << 32 | low)


# --- the rest -------------------------------------------------------------------------------------


def _pack_uuid(core: object, uuid: UUID) -> Form:
    payload = UUID_ + uuid.bytes
    if uuid.is_safe is SafeUUID.unknown:
        return b"x" + payload, payload
    return b"x" + payload, payload + signed_byte(uuid.is_safe.value)


def signed_byte(number: int) -> bytes:
    """One byte of two's complement."""
    return number.to_bytes(1, "little", signed=True)


def _unpack_uuid(data: bytes) -> UUID:
    if len(data) == 16:
        return UUID(bytes=data)
    safety = int.from_bytes(data[16:], "little", signed=True)
    return UUID(bytes=data[:16], is_safe=SafeUUID(safety))


def _pack_range(core: object, numbers: range) -> Form:
    bounds = (numbers.start, numbers.stop, numbers.step)
    payload = RANGE + msgpack.packb([canonical.signed_bytes(bound) for bound in bounds])
    return canonical.of_range(numbers, b"x" + RANGE), payload


def _unpack_range(data: bytes) -> range:
    start, stop, step = msgpack.unpackb(data)
    return range(*(int.from_bytes(bound, "little", signed=True) for bound in (start, stop, step)))


def _path_packer(code: bytes) -> Packer:
    def pack(core: object, path: PurePath) -> Form:
        text = str(path).encode("utf-8", "surrogatepass")
        return b"x" + POSIX_PATH + text, code + text

    return pack


def _unpack_path(data: bytes) -> PosixPath:
    return PosixPath(data.decode("utf-8", "surrogatepass"))


def _unpack_pure_path(data: bytes) -> PurePosixPath:
    return PurePosixPath(data.decode("utf-8", "surrogatepass"))


PACKERS: Final[dict[type, Packer]] = {
    complex: _pack_complex,
    datetime: _pack_datetime,
    date: _pack_date,
    time: _pack_time,
    timedelta: _pack_timedelta,
    Decimal: _pack_decimal,
    Fraction: _pack_fraction,
    UUID: _pack_uuid,
    range: _pack_range,
    PosixPath: _path_packer(POSIX_PATH),
    PurePosixPath: _path_packer(PURE_PATH),
}

UNPACKERS: Final[dict[bytes, Callable[[bytes], Any]]] = {
    COMPLEX: _unpack_complex,
    DATETIME: _unpack_datetime,
    DATE: _unpack_date,
    TIME: _unpack_time,
    TIMEDELTA: _unpack_timedelta,
    DECIMAL: _unpack_decimal,
    FRACTION: _unpack_fraction,
    UUID_: _unpack_uuid,
    RANGE: _unpack_range,
    POSIX_PATH: _unpack_path,
    PURE_PATH: _unpack_pure_path,
}

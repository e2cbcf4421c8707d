"""Canonical forms: the bytes by which a packed value is known as a key.

A tag and bytes, as ``dh_key`` in ``native/src/value.h`` has them. Values that Python calls equal
have one form: a Decimal, Fraction or complex that equals an int or a float has that number's form,
other rationals share ``q``. Must never take time or memory out of proportion to the value itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

# Decimals are turned into exact ratios up to this many digits before or behind the point. Beyond,
# an exponent of a few bytes would become a number of megabytes: they equal other Decimals only.
DECIMAL_DIGITS_MAX: Final = 8192

_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
_pack_int64: Final = struct.Struct("<q").pack
_pack_double: Final = struct.Struct("<d").pack
_pack_size: Final = struct.Struct("<I").pack


def signed_bytes(number: int) -> bytes:
    """Little-endian two's complement, minimal but for one spare bit."""
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


def of_int(number: int) -> bytes:
    """The form of an int; 64 bits are ``i``, larger ones ``I``."""
    if _INT64_MIN <= number <= _INT64_MAX:
        return b"i" + _pack_int64(number)
    magnitude = abs(number)
    size = (magnitude.bit_length() + 7) // 8
    return (b"I\1" if number < 0 else b"I\0") + magnitude.to_bytes(size, "little")


def of_float(number: float) -> bytes:
    """The form of a float: an int's where it is integral."""
    return of_int(int(number)) if number.is_integer() else b"f" + _pack_double(number)


def of_ratio(numerator: int, denominator: int) -> bytes:
    """The form of a rational in lowest terms, denominator > 0."""
    if denominator == 1:
        return of_int(numerator)
    if denominator & (denominator - 1) == 0:  # a float can only be one of these
        try:
            number = numerator / denominator
        except OverflowError:
            number = 0.0
        if number.as_integer_ratio() == (numerator, denominator):
            return b"f" + _pack_double(number)
    top = signed_bytes(numerator)
    return b"q" + _pack_size(len(top)) + top + signed_bytes(denominator)


def of_decimal(number: Decimal, size: int, own: bytes) -> bytes | None:
    """The form of a Decimal, None for a signalling NaN.

    size: at least its number of digits. own: begins forms that no other type's number has."""
    if not number.is_finite():
        if number.is_snan():
            return None
        return own + b"nan" if number.is_nan() else of_float(float(number))
    if not number:
        return of_int(0)
    is_near = abs(number.adjusted()) <= DECIMAL_DIGITS_MAX
    if is_near and size <= DECIMAL_DIGITS_MAX:
        return of_ratio(*number.as_integer_ratio())
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # only a NaN or an infinity has a letter here
    kept = bytes(digits).rstrip(b"\0")
    exponent += len(digits) - len(kept)
    if is_near and len(kept) <= DECIMAL_DIGITS_MAX:
        return of_ratio(*Decimal((sign, tuple(kept), exponent)).as_integer_ratio())
    return own + b"%d:%d:" % (sign, exponent) + kept


def of_fraction(number: Fraction) -> bytes:
    """The form of a Fraction."""
    return of_ratio(number.numerator, number.denominator)


def of_complex(number: complex, own: bytes) -> bytes:
    """The form of a complex; ``own`` begins forms of no other number."""
    if number.imag == 0.0:
        return of_float(number.real)
    # + 0.0: a negative zero equals the positive one.
    return own + struct.pack("<dd", number.real + 0.0, number.imag + 0.0)


def of_range(numbers: range, own: bytes) -> bytes:
    """The form of a range: equal as sequences, so the stop does not count."""
    if not numbers:
        return own
    first, last = numbers[0], numbers[-1]
    if first == last:  # not len(): a range may be longer than len() can say
        return own + signed_bytes(first)
    parts = map(signed_bytes, (first, numbers.step, last))
    return own + b"".join(_pack_size(len(part)) + part for part in parts)


def of_plain(value: Any) -> bytes | None:
    """The form of a value that the core knows by itself, which an enum's member may equal."""
    if isinstance(value, int):
        return of_int(int(value))
    if isinstance(value, float):
        return of_float(float(value))
    if isinstance(value, str):
        return b"s" + str.encode(value, "utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return b"b" + bytes(value)
    return of_tuple(value) if isinstance(value, tuple) else None


def of_tuple(values: Sequence[Any]) -> bytes | None:
    """The form of a tuple: those of its elements, each behind its tag and size."""
    elements = []
    for value in values:
        form = b"n" if value is None else of_plain(value)
        if form is None:
            return None
        elements.append(form[:1] + _pack_size(len(form) - 1) + form[1:])
    return b"t" + b"".join(elements)

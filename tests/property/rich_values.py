"""Values of richer types for the state machines: enums, numbers, dates, and a registered class."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

import dirtyheap as dh


@dh.register
class Suit(enum.Enum):
    """Members are themselves."""

    HEARTS = 1
    SPADES = 2


@dh.register
class Rank(enum.IntEnum):
    """Members equal ints that other strategies draw."""

    ACE = 1
    TWO = 2


class Money:
    """A class of a program."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    def __hash__(self) -> int:
        return hash(("Money", self.cents))

    def __repr__(self) -> str:
        return f"Money({self.cents})"


dh.register(Money, lambda money: money.cents, Money)

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    None,
    dt.UTC,
    dt.timezone(dt.timedelta(hours=1)),
    dt.timezone(dt.timedelta(0), "zero"),
    BERLIN,
    ZoneInfo("Asia/Tokyo"),
]
# Around the turn of a zone's clock, with either fold, and by other zones' clocks.
MOMENTS = [
    dt.datetime(2024, 10, 27, hour, 30, tzinfo=zone, fold=fold)
    for hour, zone, fold in itertools.product((0, 1, 2, 9), ZONES, (0, 1))
]
DECIMALS = ["0", "-0", "1", "1.0", "2e0", "0.5", "0.1", "0.10", "1e20", "1e999999999", "Infinity"]
OTHERS = [
    *map(Decimal, DECIMALS),
    *(Fraction(n, d) for n, d in itertools.product((-1, 0, 1, 2**80), (1, 2, 10))),
    0j,
    1 + 0j,
    1j,
    complex(-0.0, 1),
    dt.date(2024, 10, 27),
    *(dt.time(2, 30, tzinfo=zone) for zone in ZONES),
    *(dt.timedelta(days) for days in (-1, 0, 1)),
    *(uuid.UUID(int=number) for number in range(2)),
    *(range(start, stop, 2) for start, stop in itertools.product((0, 1), (0, 1, 4, 5))),
    PosixPath("/a"),
    PurePosixPath("/a"),
    PurePosixPath("b"),
    *Suit,
    *Rank,
    *map(Money, range(3)),
]
# Drawn from lists, which costs little; NaN is left out, as for floats.
rich_values = st.one_of(
    st.sampled_from(OTHERS), st.sampled_from(MOMENTS), st.decimals(allow_nan=False)
)

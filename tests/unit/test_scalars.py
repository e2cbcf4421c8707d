"""Values of richer types come back as they were, as values and as keys, and equal what they do."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import math
import pickle
import subprocess
import sys
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PosixPath, PurePosixPath
from zoneinfo import ZoneInfo

import pytest
from helpers import steady_repr
from hypothesis import given, settings
from hypothesis import strategies as st

import dirtyheap as dh

BERLIN = ZoneInfo("Europe/Berlin")
TOKYO = ZoneInfo("Asia/Tokyo")
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))


@dh.register
class Colour(enum.Enum):
    RED = 1
    GREEN = "g"
    ROUGE = 1  # noqa: PIE796 -- an alias


@dh.register
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dh.register
class Name(enum.StrEnum):
    ANNA = "anna"


@dh.register
class Mode(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dh.register
class Pair(tuple, enum.Enum):
    ONE = (1, "one")


class Point:
    """Equal by value, and counts how often it is packed."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self):
        return hash((self.x, self.y))


dh.register(Point, lambda p: [p.x, p.y], lambda xy: Point(*xy), name="test.Point")

NUMBERS = [
    1j, complex(-0.0, 2), complex(1e308, -5e-324), Decimal(0), Decimal("-0"), Decimal("1.10"),
    Decimal("0.1"), Decimal("1e999999999"), Decimal("-1e-999999999"), Decimal("Infinity"),
    Decimal(10) ** 60, Decimal("123456789.000"), Fraction(1, 3), Fraction(-7, 2), Fraction(2**80),
    Fraction(1, 2**200), Fraction(10**400, 7),
]  # fmt: skip
TIMES = [
    dt.datetime.min, dt.datetime.max, dt.datetime(2024, 2, 29, 12, 30, 15, 123456),
    dt.datetime(2024, 1, 1, fold=1), dt.datetime(2024, 6, 1, 8, tzinfo=dt.UTC),
    dt.datetime(2024, 6, 1, 8, tzinfo=EAST),
    dt.datetime(2024, 6, 1, 8, tzinfo=dt.timezone(-dt.timedelta(microseconds=1), "named ü")),
    dt.datetime(2024, 6, 1, 8, tzinfo=BERLIN), dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    dt.datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN),
    dt.datetime(1, 1, 1, tzinfo=EAST), dt.datetime(9999, 12, 31, 23, tzinfo=TOKYO),
    dt.date.min, dt.date.max, dt.date(2024, 2, 29), dt.time.min, dt.time.max, dt.time(3, 4, 5, 6),
    dt.time(3, fold=1), dt.time(3, tzinfo=EAST), dt.time(3, tzinfo=BERLIN),
    dt.timedelta.min, dt.timedelta.max, dt.timedelta(0), dt.timedelta(-1, 5, 7),
]  # fmt: skip
OTHERS = [
    uuid.UUID(int=0), uuid.UUID("12345678-1234-5678-1234-567812345678"),
    uuid.UUID("05f3c1bc-e780-11f1-b746-02fc00000001", is_safe=uuid.SafeUUID.safe),
    range(0), range(5), range(10, -10, -3), range(2**70, 2**80, 3**20), range(7, 8, 100),
    range(2**63), range(10**30, 0, -7),
    Path("/a/b"), Path("."), PurePosixPath("a/../b"), PurePosixPath("//double"),
    PosixPath("\udcff"), Colour.RED, Colour.GREEN, Level.HIGH, Name.ANNA, Mode.READ,
    Mode.READ | Mode.WRITE, Mode(0), Pair.ONE, Point(1, "b"), Point(None, [1, {2: b"x"}]),
]  # fmt: skip
VALUES = [*NUMBERS, *TIMES, *OTHERS]
HASHABLE = [value for value in VALUES if value != OTHERS[-1]]


def facts(value):
    """All that can be told apart about a value; equality forgives more."""
    extra = ()
    if isinstance(value, (dt.datetime, dt.time)):
        zone = value.tzinfo
        extra = (value.fold, type(zone), zone.utcoffset(None) if zone else None, str(zone))
    elif isinstance(value, complex):
        extra = (math.copysign(1, value.real), math.copysign(1, value.imag))
    elif isinstance(value, uuid.UUID):
        extra = (value.is_safe,)
    elif isinstance(value, range):
        extra = (value.start, value.stop, value.step)
    elif isinstance(value, Point):
        return Point, value.x, value.y
    return type(value), repr(value), *extra


def same(a, b):
    return facts(a) == facts(b)


@pytest.mark.parametrize("value", VALUES, ids=lambda v: ascii(steady_repr(v))[1:51])
def test_a_value_comes_back_wherever_it_stands(tmp_path, value):
    with dh.open(tmp_path / "h") as heap:
        heap.root["plain"] = value
        heap.root["deep"] = {"list": [1, [value, (value, ("t", value))]], "dict": {"k": value}}
        heap.root["items"] = heap.list([value, value])
        heap.root["items"].extend([value])
        heap.root["items"].append(value)
        heap.root.update({"updated": value})
        heap.root["linked"] = heap.root["deep"]["list"]
        heap.root["copied"] = heap.list(heap.root["items"]) * 2
        heap.commit()
    with dh.open(tmp_path / "h") as heap:
        root = heap.root
        assert heap.verify().ok
        for found in (
            root["plain"], root["deep"]["list"][1][0], root["deep"]["list"][1][1][0],
            root["deep"]["list"][1][1][1][1], root["deep"]["dict"]["k"], root["updated"],
            *root["items"], *root["copied"], *root["items"][1:3], *root["deep"]["dict"].values(),
            root["deep"]["dict"].copy()["k"], root["items"].copy()[0],
            dh.to_python(root)["linked"][1][1][1][1], next(reversed(root["items"])),
            root["items"].pop(), root["items"].pop(0), root["deep"]["dict"].pop("k"),
        ):  # fmt: skip
            assert same(found, value)
        heap.collect()
        assert same(root["linked"][1][0], value)
        assert repr(root["copied"][:1]) == repr([root["plain"]]) or isinstance(value, Point)


@pytest.mark.parametrize("value", HASHABLE, ids=lambda v: ascii(steady_repr(v))[1:51])
def test_a_value_serves_as_a_key(tmp_path, value):
    with dh.open(tmp_path / "h") as heap:
        heap.root[value] = 1
        heap.root[(value, "in", (value,))] = 2
        heap.root["copied"] = {value: [value], "other": 0}
        heap.root["many"] = heap.dict({value: -1, **{f"key {i}": i for i in range(400)}})
        heap.root["many"].update({value: -2})
        heap.commit()
    with dh.open(tmp_path / "h") as heap:
        root = heap.root
        assert heap.verify().ok
        assert root[value] == 1
        assert root[(value, "in", (value,))] == 2
        assert same(root["copied"][value][0], value)
        assert root["many"][value] == -2
        assert same(next(iter(root)), value)
        assert same(next(iter(root["many"].items()))[0], value)
        assert same(next(iter(dh.to_python(root["many"]))), value)
        assert same(next(iter(root["copied"].copy())), value)
        root[value] += 1
        assert len(root) == 4
        assert root.setdefault(value, "no") == 2
        assert root.pop(value) == 2
        assert value not in root
        del root[(value, "in", (value,))]
        assert list(root) == ["copied", "many"]
        assert same(heap.dict({value: value}).popitem()[0], value)


EQUALS = [
    [1, 1.0, True, Decimal(1), Decimal("1.00"), Fraction(1), 1 + 0j, Level.LOW],
    [2, Level.HIGH, Decimal("2e0"), Fraction(4, 2)],
    [0, 0.0, -0.0, Decimal("-0"), Fraction(0), 0j, complex(-0.0, -0.0), False],
    [0.5, Decimal("0.5"), Fraction(1, 2), 0.5 + 0j],
    [Decimal("0.1"), Fraction(1, 10), Decimal("0.100")],
    [0.1, Fraction(0.1), Decimal.from_float(0.1)],
    [2**80, Decimal(2**80), Fraction(2**80), float(2**80), complex(2**80)],
    [10**400, Decimal("1e400"), Fraction(10**400)],
    [2**63, Decimal(2**63), Fraction(2**63)],
    [-(2**63), Decimal(-(2**63)), Fraction(-(2**63))],
    [math.inf, Decimal("Infinity"), complex(math.inf, 0)],
    [-math.inf, Decimal("-Infinity")],
    [5e-324, Fraction(5e-324), Decimal.from_float(5e-324)],
    [Fraction(1, 2**1080)],
    [Fraction(10**400, 7)],
    [1j, complex(-0.0, 1)],
    [Decimal("1e999999999"), Decimal("10e999999998")],
    [Decimal("1e-999999999")],
    [Decimal("1e999999998")],
    [Decimal(7), Decimal("7." + "0" * 10_000)],
    [Decimal("1." + "3" * 10_000), Decimal("1." + "3" * 10_000 + "000")],
    [dt.datetime(2024, 6, 1, 8), dt.datetime(2024, 6, 1, 8, fold=1)],
    [dt.datetime(2024, 6, 1, 6, tzinfo=dt.UTC), dt.datetime(2024, 6, 1, 8, tzinfo=BERLIN),
     dt.datetime(2024, 6, 1, 11, 30, tzinfo=EAST), dt.datetime(2024, 6, 1, 15, tzinfo=TOKYO)],
    [dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
     dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)],
    [dt.datetime(2024, 10, 27, 0, 30, tzinfo=dt.UTC)],
    [dt.datetime(2024, 10, 27, 1, 30, tzinfo=dt.UTC)],
    [dt.datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN)],
    [dt.datetime(2024, 3, 31, 3, 30, tzinfo=BERLIN),
     dt.datetime(2024, 3, 31, 1, 30, tzinfo=dt.UTC)],
    [dt.date(2024, 6, 1)],
    [dt.time(8), dt.time(8, fold=1), dt.time(8, tzinfo=BERLIN)],
    [dt.time(8, tzinfo=dt.UTC), dt.time(13, 30, tzinfo=EAST), dt.time(8, tzinfo=ZoneInfo("UTC"))],
    [dt.time(1, tzinfo=EAST)],
    [dt.time(1, tzinfo=dt.timezone(dt.timedelta(seconds=1, microseconds=1)))],
    [dt.time(0, 59, 58, 999999, tzinfo=dt.UTC)],
    [dt.timedelta(1), dt.timedelta(hours=24)],
    [range(0), range(3, 3), range(5, 1)],
    [range(1, 2), range(1, 9, 100)],
    [range(0, 10, 3), range(0, 11, 3)],
    [range(0, 10**30, 10), range(0, 10**30 - 9, 10)],
    [range(0, 10**30 + 1, 10)],
    [uuid.UUID(int=1)],
    [Path("/a"), PurePosixPath("/a"), PurePosixPath("/a/")],
    ["/a"],
    ["anna", Name.ANNA],
    [Colour.RED, Colour.ROUGE], ["RED"],
    [(1, "one"), Pair.ONE, (Decimal(1), "one")],
    [Mode.READ], [Mode.WRITE], [Mode.READ | Mode.WRITE],
    [Point(1, 2), Point(1, 2)],
    [(1, 2)],
]  # fmt: skip


def test_equality_is_that_of_python(heap):
    """For every pair of the table: in a dict, and in a list, both say what Python says."""
    values = list(itertools.chain.from_iterable(EQUALS))
    for stored in values:
        d, items = heap.dict({stored: 1}), heap.list([stored])
        for asked in values:
            expected = asked in {stored: 1}
            assert (asked in d) == expected, (stored, asked)
            assert (d.get((asked,)) is None) and (asked in items) == (asked in [stored])
            assert items.count(asked) == [stored].count(asked)
    for group in EQUALS:
        assert all(a == b for a in group for b in group)
        d = heap.dict(dict.fromkeys(group, 1))
        for value in group:
            d[value] = 2
        assert len(d) == 1
        assert same(next(iter(d)), group[0])
        assert heap.dict({(group[0], 7): 1})[(group[-1], 7)] == 1


numbers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.fractions().map(lambda f: Fraction(float(f))),
    st.complex_numbers(allow_nan=False),
    st.integers(-50, 50).map(lambda n: Decimal(n) / 4),
    st.builds(lambda n, e: Decimal(n).scaleb(e), st.integers(-99, 99), st.integers(-30, 30)),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with dh.open(tmp_path_factory.mktemp("shared") / "h") as heap:
        yield heap


@settings(max_examples=400, deadline=None)
@given(number=numbers, data=st.data())
def test_equality_of_numbers(shared, number, data):
    twins = [number]
    for kind in (int, float, Decimal, Fraction, complex):
        try:
            twins.append(kind(number))
        except (TypeError, ValueError, OverflowError, ArithmeticError):
            continue
    twins.append(data.draw(numbers))
    d, items = shared.dict({number: "found"}), shared.list([number])
    for twin in twins:
        assert (twin in d) == (twin in {number: 0}), (number, twin)
        assert (twin in items) == (twin == number), (number, twin)


def test_a_key_that_has_both_a_date_and_what_no_key_has(heap):
    for key in ((dt.date(2024, 1, 1), []), (dt.datetime(2024, 1, 1, tzinfo=BERLIN), [1])):
        for use in (heap.root.get, heap.root.pop, heap.root.__contains__):
            with pytest.raises(TypeError, match="unhashable"):
                use(key)
    nested = (dt.date(2024, 1, 1), Stranger())
    with pytest.raises(TypeError, match="has a key of type 'tuple'"):
        heap.root.update({"a": [{nested: 1}]})
    assert heap.root == {}


class Stranger:
    """Hashable by itself, but nothing that a heap knows."""


def test_nan(heap):
    """As floats: a NaN as a key is found as one, whatever its bits; in a list it equals none."""
    d = heap.dict({Decimal("NaN"): 1, complex(math.nan, 1): 2})
    assert d[Decimal("NaN")] == d[Decimal("-NaN123")] == 1
    assert Decimal("NaN") not in heap.list([Decimal("NaN")])
    assert heap.list([Decimal("NaN123")])[0].compare_total(Decimal("NaN123")) == 0
    for use in (lambda: d[Decimal("sNaN")], lambda: d.update({(1, Decimal("sNaN")): 1})):
        with pytest.raises(TypeError, match="hash"):
            use()
    assert heap.list([Decimal("sNaN")])[0].is_snan()


def test_huge_exponents_cost_nothing(heap):
    d = heap.dict()
    for text in ("1e999999999999999999", "-7.5e-99999999999", "1e400000000", "1e8193"):
        d[Decimal(text)] = text
        assert d[Decimal(text)] == text
    assert heap.stats().allocated_bytes < 100_000
    assert Decimal("1e8192") in heap.dict({10**8192: 1})
    # Beyond the bound a Decimal equals Decimals only.
    assert Decimal("1e8193") not in heap.dict({10**8193: 1})


def test_search_and_removal_in_lists(heap):
    plain = [Point(1, 2), Decimal("1.5"), Level.LOW, dt.date(2024, 1, 1), 1.5, None, Point(3, 4)]
    items = heap.list(plain)
    for value in (*plain, 1, 1.5, Fraction(3, 2), Point(9, 9), "absent"):
        assert items.count(value) == plain.count(value)
        assert (value in items) == (value in plain)
        if value in plain:
            assert items.index(value) == plain.index(value)
    items.remove(Fraction(3, 2))
    plain.remove(Fraction(3, 2))
    assert items == plain
    moments = [dt.datetime(2024, 1, day) for day in (3, 1, 2)]
    stored = heap.list(moments)
    stored.sort()
    assert stored == sorted(moments)
    stored.sort(key=lambda moment: -moment.day)
    assert stored == sorted(moments, reverse=True)


def test_subclasses_are_refused(heap):
    class Moment(dt.datetime):
        pass

    class Number(Decimal):
        pass

    for value in (Moment(2024, 1, 1), Number(1), dt.datetime(2024, 1, 1, tzinfo=OwnZone())):
        with pytest.raises(TypeError, match="cannot hold"):
            heap.root["x"] = [value]
        with pytest.raises(TypeError, match="cannot hold"):
            heap.root[value] = 1
    assert len(heap.root) == 0


class OwnZone(dt.tzinfo):
    def utcoffset(self, moment):
        return dt.timedelta(0)

    def dst(self, moment):
        return None


def test_copies_between_heaps(tmp_path):
    with dh.open(tmp_path / "a") as one, dh.open(tmp_path / "b") as other:
        one.root["all"] = {"list": VALUES, "dict": dict.fromkeys(HASHABLE, 1)}
        other.root["all"] = dh.to_python(one.root["all"])
        assert all(map(same, other.root["all"]["list"], VALUES))
        assert other.root["all"]["dict"] == one.root["all"]["dict"]
        copied = pickle.loads(pickle.dumps(one.root["all"]["list"][: len(NUMBERS)]))
        assert all(map(same, copied, NUMBERS))


def test_values_in_sets(tmp_path):
    plain = set(HASHABLE)
    with dh.open(tmp_path / "h") as heap:
        heap.root["set"] = plain
        heap.root["frozen"] = [frozenset(plain), (frozenset([Decimal("0.1")]), 1)]
        heap.root[frozenset([dt.date(2024, 1, 1), Fraction(1, 10)])] = "found"
        heap.root["set"] |= {Decimal("7.5"), (Decimal(1), None)}
        heap.commit()
    with dh.open(tmp_path / "h") as heap:
        found = heap.root["set"]
        assert heap.verify().ok
        assert all(value in found for value in plain)
        assert Fraction(15, 2) in found
        assert found == plain | {Decimal("7.5"), (1, None)}
        found.discard(7.5)
        found.remove((Fraction(1), None))
        assert sorted(map(str, map(facts, found))) == sorted(map(str, map(facts, plain)))
        assert dh.to_python(heap.root)["set"] == plain
        assert heap.root["frozen"][0] == plain
        assert heap.root["frozen"][1] == (frozenset([Fraction(1, 10)]), 1)
        assert heap.root[frozenset([Decimal("0.1"), dt.date(2024, 1, 1)])] == "found"
        while found:
            assert found.pop() in plain


def test_shared_tuples_stay_shared(heap):
    pair = (Decimal(1), [1])
    heap.root["x"] = [pair, pair, (pair, pair)]
    first, second, both = dh.to_python(heap.root["x"])
    assert first is second is both[0] is both[1]
    inner = heap.root["x"][2]
    assert inner[0] is inner[1]
    assert inner[0][1] is heap.root["x"][0][1]
    cyclic = []
    cyclic.append((Decimal(2), cyclic))
    heap.root["c"] = cyclic
    copy = dh.to_python(heap.root["c"])
    assert copy[0][1] is copy
    assert copy[0][0] == 2


@pytest.mark.parametrize("container", ["dict()", "sorted_dict()", "set()"])
def test_the_first_packed_key_of_a_process(tmp_path, container):
    """Packers are made known on demand, also by a key."""
    store = "add(key)" if container == "set()" else "__setitem__(key, 1)"
    program = (
        "import sys, dirtyheap as dh; from fractions import Fraction; key = Fraction(1, 3)\n"
        "with dh.open(sys.argv[1], capacity=16 << 20) as heap:\n"
        f"    made = heap.{container}; made.{store}; assert list(made) == [key]\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "heap")], check=True)

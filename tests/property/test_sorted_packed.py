"""SortedDict with keys of richer types stays equal to sortedcontainers.SortedDict.

Numbers of all types among each other, dates, times, UUIDs, paths: each kind through every
operation, a rollback and a reopening.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sortedcontainers import SortedDict

import dirtyheap as dh

ZONES = [UTC, timezone(timedelta(hours=-5)), timezone(timedelta(minutes=345), "X")]

# Many that are near one another: fractions beside the floats, ints and Decimals next to them.
near = st.sampled_from([0, 1, -1, 2**53, -(2**63), 2**64, 10**40, Decimal("0.1"), 0.1, 5e-324])
numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False),
    st.fractions(max_denominator=9),
    st.fractions(),
    st.decimals(allow_nan=False, places=2, min_value=-9, max_value=9),
    st.decimals(allow_nan=False),
    st.builds(lambda n, d: Fraction(n) + Fraction(d, 10**30), near, st.integers(-1, 1)),
    st.builds(lambda n: Fraction(n) * 3 / 3 - Fraction(1, 3**50), near),
)
microseconds = st.timedeltas(timedelta(), timedelta(microseconds=3))
moments = st.one_of(
    st.datetimes(),
    microseconds.map(lambda span: datetime(2024, 2, 29, 23, 59, 59, 999998) + span),
    st.builds(lambda m: m.replace(fold=1), st.datetimes()),
)
aware = st.one_of(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.sampled_from(ZONES)),
    st.builds(
        lambda span, zone: (datetime(2024, 3, 1, tzinfo=UTC) + span).astimezone(zone),
        microseconds,
        st.sampled_from(ZONES),
    ),
    # Hours that come once, in a zone that has others.
    st.datetimes(datetime(2024, 6, 1), datetime(2024, 8, 1)).map(
        lambda m: m.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    ),
)
part = st.sampled_from(["a", "ab", "a.b", "b", "\x01", "é", "\U00010000", "-"])
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "number": numbers,
    "date": st.dates(),
    "datetime": moments,
    "aware datetime": aware,
    "time": st.times(),
    "aware time": st.times(timezones=st.sampled_from(ZONES)),
    "timedelta": st.one_of(st.timedeltas(), microseconds, microseconds.map(lambda s: -s)),
    "uuid": st.uuids(),
    "path": st.lists(part, min_size=1, max_size=4).map(lambda parts: PurePosixPath(*parts)),
    "tuple": st.tuples(st.sampled_from([date(2024, 1, 1), date(2024, 1, 2)]), numbers),
}


@pytest.fixture(scope="module")
def module_path(tmp_path_factory):
    return tmp_path_factory.mktemp("packed") / "heap"


def same(d: dh.SortedDict, model: Any) -> None:
    assert list(d) == list(model)
    assert repr(list(d.items())) == repr(list(model.items()))
    assert list(reversed(d)) == list(reversed(model))
    assert list(d.copy()) == list(dh.to_python(d)) == list(model)


@pytest.mark.parametrize("kind", KINDS)
def test_as_sortedcontainers_has_it(module_path, kind):
    @settings(
        max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        first=st.lists(KINDS[kind], max_size=12),
        second=st.lists(KINDS[kind], max_size=12),
        ends=st.tuples(KINDS[kind], KINDS[kind], st.booleans(), st.booleans()),
    )
    def check(first: list[Any], second: list[Any], ends: tuple[Any, Any, bool, bool]) -> None:
        low, high, *inclusive = ends
        with dh.open(module_path, capacity=16 << 20) as heap:
            model = SortedDict({key: i for i, key in enumerate(first)})
            heap.root["d"] = heap.sorted_dict({key: i for i, key in enumerate(first)})
            d = heap.root["d"]
            same(d, model)
            heap.commit()
            for i, key in enumerate(second):
                d[key] = model[key] = -i
                assert d[key] == -i and d.index(key) == model.index(key)
            same(d, model)
            heap.rollback()
            model = SortedDict({key: i for i, key in enumerate(first)})
            d = heap.root["d"]
            d.update({key: -i for i, key in enumerate(second)})
            model.update({key: -i for i, key in enumerate(second)})
            same(d, model)
            for key in ends[:2]:
                assert d.get(key) == model.get(key)
                assert d.bisect_left(key) == model.bisect_left(key)
                assert d.bisect_right(key) == model.bisect_right(key)
            assert list(d.irange(low, high, inclusive)) == list(model.irange(low, high, inclusive))
            assert heap.verify().ok
            heap.commit()
        with dh.open(module_path) as heap:
            d = heap.root["d"]
            same(d, model)
            for key in first[::2]:
                assert d.pop(key, None) == model.pop(key, None)
            same(d, model)
            if model:
                assert d.peekitem(0) == model.peekitem(0)
                assert d.popitem(0) == model.popitem(0)
            assert heap.verify().ok

    check()


@settings(max_examples=200, deadline=None, database=None)
@given(left=numbers, right=numbers)
@example(Fraction(1, 3), 1 / 3)
@example(Fraction(2**64 + 1, 2**64), 1.0)
@example(Fraction(-(10**400) - 1, 3), -(10**400) // 3)
@example(Fraction(1, 2**1074 * 3), 5e-324)
@example(Fraction(1, 3), math.inf)
@example(Fraction(-1, 3), -math.inf)
def test_two_numbers(shared_heap, left, right):
    """Exactly, also where floats would round."""
    d = shared_heap.sorted_dict({left: "left"})
    assert (right in d) == (left == right)
    assert d.bisect_left(right) == int(left < right)
    assert d.bisect_right(right) == int(left <= right)


@pytest.fixture(scope="module")
def shared_heap(tmp_path_factory):
    with dh.open(tmp_path_factory.mktemp("numbers") / "heap", capacity=64 << 20) as heap:
        yield heap


def test_a_long_series(tmp_path):
    """Several levels of a tree, keyed by datetime; ranges of it after reopening."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    count = 70_000
    with dh.open(tmp_path / "heap") as heap:
        d = heap.root["d"] = heap.sorted_dict(
            {start + timedelta(seconds=i): i for i in range(count)}
        )
        for i in range(0, count, 7):
            del d[start + timedelta(seconds=i)]
        d[start - timedelta(days=1)] = -1
        heap.commit()
        assert heap.verify().ok
    with dh.open(tmp_path / "heap") as heap:
        d = heap.root["d"]
        low, high = start + timedelta(seconds=7), start + timedelta(seconds=21)
        assert [d[key] for key in d.irange(low, high)] == [*range(8, 14), *range(15, 21)]
        assert d.peekitem(0) == (start - timedelta(days=1), -1)
        assert d.bisect(low) == 7


A_TIME = time(1, 2)
NAIVE, AWARE = datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)
INCOMPARABLE = [
    (NAIVE, AWARE, "can't compare offset-naive and offset-aware datetimes"),
    (A_TIME, time(1, 2, tzinfo=UTC), "can't compare offset-naive and offset-aware times"),
    (NAIVE, date(2024, 1, 1), "'datetime.date' and 'datetime.datetime'"),
    (1, NAIVE, "'datetime.datetime' and 'int'"),
    (Decimal("0.1"), "a", "'str' and 'Rational'"),
    ("a", Fraction(1, 3), "'Rational' and 'str'"),
    (UUID(int=1), 1, "'int' and 'UUID'"),
    (timedelta(1), 1, "'int' and 'datetime.timedelta'"),
    (PurePosixPath("a"), "a", "'str' and 'PurePosixPath'"),
    ((1, NAIVE), (1, AWARE), "offset-naive"),
]


@pytest.mark.parametrize(("present", "new", "text"), INCOMPARABLE, ids=repr)
def test_what_python_does_not_compare(shared_heap, present, new, text):
    """Is refused, changes nothing, and is not there when it is looked up."""
    d = shared_heap.sorted_dict({present: 1})
    for refused in (
        lambda: d.__setitem__(new, 2),
        lambda: d.setdefault(new, 2),
        lambda: d.update({new: 2}),
        lambda: d.update([(present, 5), (new, 2)]),
        lambda: d.bisect(new),
        lambda: d.irange(new),
    ):
        with pytest.raises(TypeError) as error:
            refused()
        assert text in str(error.value)
    with pytest.raises(TypeError):
        shared_heap.sorted_dict({present: 1, new: 2})
    assert new not in d and d.get(new) is None and d.pop(new, 5) == 5
    assert list(d.items()) == [(present, 1)]


@pytest.mark.parametrize(
    "key",
    [
        *(Decimal("nan"), Decimal("-nan7"), (1, Decimal("nan"))),
        *(Decimal("1e9000"), Decimal("-1e-9000"), Fraction(1, 3**60_000)),
    ],
    ids=["nan", "-nan", "tuple", "large", "small", "ratio"],
)
def test_numbers_without_a_place(shared_heap, key):
    """NaN, and numbers of so many digits that comparing them would take too long."""
    d = shared_heap.sorted_dict({1: 1})
    for refused in (
        lambda: d.__setitem__(key, 2),
        lambda: d.setdefault(key, 2),
        lambda: d.update({key: 2}),
        lambda: d.bisect(key),
        lambda: shared_heap.sorted_dict({key: 1}),
    ):
        with pytest.raises(ValueError, match="cannot be a key of a sorted dict"):
            refused()
    assert key not in d and d.get(key) is None
    assert list(d.items()) == [(1, 1)]
    with pytest.raises(TypeError, match="unhashable"):
        d[Decimal("snan")] = 1


def test_a_fold_has_the_place_of_the_first(shared_heap):
    """In its own zone the fold does not count for Python either."""
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2024, 10, 27, 2, 30, tzinfo=berlin)
    around = [datetime(2024, 10, 27, 0, m, tzinfo=UTC) for m in (29, 30, 31)]
    d = shared_heap.sorted_dict(dict.fromkeys(around, 0))
    d[first] = 1
    assert list(d)[1:3] == [around[1], first]
    assert d[first.replace(fold=1)] == 1
    d[first.replace(fold=1)] = 2
    assert len(d) == 4 and d[first] == 2
    assert d.copy()[first] == 2


def test_absolute_paths_come_first(shared_heap):
    """Whatever the version of Python says: a file has one order."""
    paths = [
        PurePosixPath(text) for text in ("/", "/a", "/a/b", "/ab", "-", ".", "a", "a/b", "a.b")
    ]
    d = shared_heap.sorted_dict(dict.fromkeys(reversed(paths), 0))
    assert [str(p) for p in d] == sorted(map(str, paths), key=lambda text: text.split("/"))
    assert shared_heap.verify().ok

"""SortedDict behaves as sortedcontainers.SortedDict does, and stays whole when it fails."""

from __future__ import annotations

import bisect
import collections
import contextlib
import copy
import datetime
import enum
import itertools
import json
import math
import pickle
import random
import types
import uuid
import weakref
import zoneinfo
from collections.abc import (
    ItemsView,
    Iterator,
    KeysView,
    MutableMapping,
    Sequence,
    ValuesView,
)
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy
import pytest
import sortedcontainers
from helpers import contents, fault

import dirtyheap as dh

PLAIN = {30: "c", 10: "a", 20: "b"}


@pytest.fixture
def d(heap):
    return heap.sorted_dict(PLAIN)


@pytest.fixture
def big(heap):
    """Some levels deep, with the gaps between keys."""
    return heap.sorted_dict({i: str(i) for i in range(0, 120_000, 3)})


# --- the mapping protocol -------------------------------------------------------------------------


def test_get_set_delete(d):
    assert d[10] == "a"
    d[10] = "new"
    d[15] = [1, 2]
    del d[20]
    assert list(d.items()) == [(10, "new"), (15, [1, 2]), (30, "c")]
    assert len(d) == 3
    assert 15 in d and 20 not in d


def test_missing_key_is_named(d):
    for operation in (lambda: d[5], lambda: d.pop(5), lambda: d.__delitem__(5)):
        with pytest.raises(KeyError) as error:
            operation()
        assert error.value.args == (5,)
    with pytest.raises(KeyError) as error:
        d[1, 2]
    assert error.value.args == ((1, 2),)


def test_order_is_that_of_the_keys(heap):
    d = heap.sorted_dict()
    for key in random.Random(1).sample(range(1000), 1000):
        d[key] = key
    assert list(d) == list(range(1000))
    assert list(reversed(d)) == list(range(999, -1, -1))


def test_get_and_setdefault(d):
    assert d.get(10) == "a"
    assert d.get(11) is None
    assert d.get(11, 5) == 5
    assert d.setdefault(10, 9) == "a"
    assert d.setdefault(11, default=9) == 9
    assert d[11] == 9
    assert d.setdefault(12) is None
    d.setdefault(13, []).append("stored")
    assert d[13] == ["stored"]
    assert type(d[13]) is dh.List
    inner = d.setdefault(14, ([1],))[0]
    inner.append(2)
    assert d[14] == ([1, 2],)


def test_pop(d):
    assert d.pop(20) == "b"
    assert d.pop(20, None) is None
    assert d.pop(20, default=7) == 7
    assert d.pop(key=10) == "a"
    assert d == {30: "c"}


def test_popitem(d):
    assert d.popitem() == (30, "c")
    assert d.popitem(0) == (10, "a")
    with pytest.raises(IndexError, match="out of range"):
        d.popitem(1)
    assert d.popitem(index=-1) == (20, "b")
    with pytest.raises(KeyError, match="dictionary is empty"):
        d.popitem()
    with pytest.raises(KeyError, match="dictionary is empty"):
        d.popitem(5)


def test_popped_container_stays_usable(heap, d):
    d[1] = {"k": [1, 2]}
    inner = d.pop(1)
    heap.collect()
    assert inner == {"k": [1, 2]}
    d[2] = inner
    assert d[2] is inner


def test_clear(d):
    d.clear()
    assert len(d) == 0 and list(d) == [] and d == {}
    d["another kind of key"] = 1
    assert d == {"another kind of key": 1}


def test_copies_are_plain_dicts_in_order(heap, d):
    d[5] = [1]
    for made in (d.copy(), copy.copy(d)):
        assert type(made) is dict
        assert list(made) == [5, 10, 20, 30]
        assert made[5] is d[5]
    for made in (copy.deepcopy(d), pickle.loads(pickle.dumps(d)), dh.to_python(d)):
        assert type(made) is dict
        assert list(made) == [5, 10, 20, 30]
        assert type(made[5]) is list
    assert json.dumps(dh.to_python(heap.sorted_dict({"b": 1, "a": 2}))) == '{"a": 2, "b": 1}'


def test_to_python_keeps_cycles(heap):
    d = heap.root["d"] = heap.sorted_dict()
    d["me"] = d
    d["list"] = [d]
    plain = dh.to_python(d)
    assert plain["me"] is plain
    assert plain["list"][0] is plain
    assert repr(d).startswith("SortedDict({'list': [{") or "..." in repr(d)


def test_repr(heap, d):
    assert repr(d) == "SortedDict({10: 'a', 20: 'b', 30: 'c'})"
    assert repr(heap.sorted_dict()) == "SortedDict({})"
    d[40] = d
    assert "SortedDict({...})" in repr(d)


def test_equality(heap, d):
    assert d == PLAIN and PLAIN == d
    assert d == collections.OrderedDict(PLAIN)
    assert d == types.MappingProxyType(PLAIN)
    assert d == sortedcontainers.SortedDict(PLAIN)
    assert d == heap.dict(PLAIN) and heap.dict(PLAIN) == d
    assert d == heap.sorted_dict(PLAIN) and d == d
    for other in ({}, {10: "a"}, {**PLAIN, 30: "x"}, {10: "a", 20: "b", 31: "c"}, [10, 20, 30], 5):
        assert d != other
        assert (d == other) is False
    assert heap.sorted_dict({1: "x"}) != {"a": "x"}
    with pytest.raises(TypeError):
        d < PLAIN
    with pytest.raises(TypeError, match="unhashable"):
        hash(d)


def test_operators(heap, d):
    assert d | {5: "x", 10: "y"} == {5: "x", 10: "y", 20: "b", 30: "c"}
    assert type(d | {}) is dict
    assert {5: "x", 10: "y"} | d == {5: "x", 10: "a", 20: "b", 30: "c"}
    assert heap.dict({1: 2}) | d == {1: 2, **PLAIN} == heap.sorted_dict({1: 2}) | heap.dict(PLAIN)
    before = d
    d |= [(15, "z")]
    assert d is before and list(d) == [10, 15, 20, 30]
    with pytest.raises(TypeError):
        d | [(1, 2)]


def test_abstract_classes(d):
    assert isinstance(d, MutableMapping)
    assert isinstance(d.keys(), KeysView) and isinstance(d.keys(), Sequence)
    assert isinstance(d.values(), ValuesView) and isinstance(d.values(), Sequence)
    assert isinstance(d.items(), ItemsView) and isinstance(d.items(), Sequence)
    assert isinstance(iter(d), Iterator)
    match d:
        case {10: value, **rest}:
            assert value == "a" and rest == {20: "b", 30: "c"}


def test_weak_references(heap):
    d = heap.sorted_dict()
    reference = weakref.ref(d)
    assert reference() is d
    del d
    assert reference() is None


def test_made_by_a_heap_only():
    with pytest.raises(TypeError, match=r"heap\.sorted_dict\(\)"):
        dh.SortedDict()
    assert dh.SortedDict[str, int].__args__ == (str, int)


# --- what can be a key ----------------------------------------------------------------------------


def test_one_order_for_all_numbers(heap):
    """Exact between ints of any size and floats."""
    numbers = [
        -math.inf, -1e300, -(1 << 70) - 1, -float(1 << 70), -(1 << 63) - 1, -float(1 << 63),
        -(1 << 62) - 1, -(1 << 62), -(1 << 53) - 1, -float(1 << 53), -1.5, -1, -0.5, -5e-324,
        0, 5e-324, 0.1, True, 1.0000000000000002, 2, float(1 << 53), (1 << 53) + 1,
        (1 << 62) - 1, 1 << 62, float((1 << 62) + 1024), (1 << 63) - 1, 1 << 63, (1 << 63) + 1,
        float(1 << 64), (1 << 64) + 1, float(1 << 70), (1 << 70) + 1, 10**300, 1e301, math.inf,
    ]  # fmt: skip
    assert numbers == sorted(numbers)
    for seed in range(20):
        shuffled = random.Random(seed).sample(numbers, len(numbers))
        one_by_one = heap.sorted_dict()
        for number in shuffled:
            one_by_one[number] = repr(number)
        for d in (one_by_one, heap.sorted_dict({n: repr(n) for n in shuffled})):
            assert list(d) == numbers
            assert [repr(key) for key in d] == [repr(n) for n in numbers]
            assert all(d[n] == repr(n) for n in numbers)
            assert [d.bisect_left(n) for n in numbers] == list(range(len(numbers)))


def test_equal_numbers_are_one_key(heap):
    d = heap.sorted_dict({0: "zero", 1: "one", 1 << 70: "big"})
    d[-0.0], d[True], d[float(1 << 70)] = "-0.0", "True", "float"
    assert list(d.items()) == [(0, "-0.0"), (1, "True"), (1 << 70, "float")]
    assert [type(key) for key in d] == [int, int, int]
    assert d[False] == d[0.0] == "-0.0"
    first = heap.sorted_dict({True: 1})
    first[1] = 2
    assert list(first) == [True] and first[1.0] == 2


TEXTS = [
    "", "\0", "\0\0", "a", "a\0", "aaaaaaa", "aaaaaaaa", "aaaaaaaa\0", "aaaaaaab", "ab", "seven77",
    "eight888", "a text of some length", "a text of some length ", "\xe9", "\u20ac", "\ud7ff",
    "\ud800", "\udfff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "b" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["str", "bytes"])
def test_texts_are_in_the_order_of_code_points(heap, kind):
    texts = TEXTS
    if kind == "bytes":
        texts = [text.encode("utf-8", "surrogatepass") for text in TEXTS]
    d = heap.sorted_dict()
    for text in random.Random(2).sample(texts, len(texts)):
        d[text] = text
    assert list(d.items()) == [(text, text) for text in sorted(texts)]
    assert heap.sorted_dict(dict(d.items())) == d
    assert all(text in d and d.index(text) == sorted(texts).index(text) for text in texts)


def test_tuples_are_in_the_order_of_their_elements(heap):
    keys = [
        (), (0,), (0, "a"), (0, "a", None), (0, "b"), (0.5, b"x"), (1, (2,)), (1, (2, 3)),
        (1, (4,)), (1 << 70, "a"), (1 << 70, "text of some length"),
    ]  # fmt: skip
    for seed in range(20):
        d = heap.sorted_dict()
        for key in random.Random(seed).sample(keys, len(keys)):
            d[key] = repr(key)
        assert list(d) == keys
        assert all(d[key] == repr(key) for key in keys)
    assert heap.sorted_dict(dict.fromkeys(keys)) == dict.fromkeys(keys)


def test_none_is_a_key_alone(heap):
    d = heap.sorted_dict({None: 1})
    d[None] = 2
    assert d == {None: 2} and d.peekitem() == (None, 2)
    with pytest.raises(TypeError, match="'<' not supported between instances of 'int' and 'None"):
        d[1] = 1
    assert d == {None: 2}


MIXED = [(1, "a"), ("a", 1), (b"a", "a"), ((1,), 1), (None, 1), (2.5, b"x"), ("a text", (1,))]


@pytest.mark.parametrize(("present", "new"), MIXED, ids=repr)
def test_keys_that_cannot_be_compared(heap, present, new):
    """As Python says it, and nothing changes; when looked up they are just not there."""
    d = heap.sorted_dict({present: 1})
    names = {int: "int", float: "float", str: "str", bytes: "bytes", tuple: "tuple"}
    here, there = (names.get(type(key), "NoneType") for key in (new, present))
    text = f"'<' not supported between instances of '{here}' and '{there}'"
    for store in (
        lambda: d.__setitem__(new, 2),
        lambda: d.setdefault(new, 2),
        lambda: d.update({new: 2}),
        lambda: d.bisect(new),
        lambda: d.bisect_left(new),
    ):
        with pytest.raises(TypeError, match="not supported between") as error:
            store()
        assert str(error.value) == text
    if new is not None:  # which means no bound
        with pytest.raises(TypeError, match="not supported between"):
            d.irange(new)
    with pytest.raises(TypeError, match="not supported between"):
        heap.sorted_dict({present: 1, new: 2})
    assert new not in d and d.get(new) is None and d.pop(new, 5) == 5
    keys = d.keys()
    assert new not in keys and keys.count(new) == 0
    for lookup in (lambda: d[new], lambda: d.__delitem__(new), lambda: d.pop(new)):
        with pytest.raises(KeyError):
            lookup()
    assert d == {present: 1}
    assert heap.verify().ok


def test_tuples_are_compared_where_they_stand(heap):
    """A tuple that has no place between its neighbours is refused also at the edge of a page, and
    has one when the neighbour is gone."""
    for count in range(250, 262):
        d = heap.sorted_dict({(0, i): i for i in range(count)})
        d[1, "a"] = "text"
        d.update({(2, i): i for i in range(300)})
        for key in ((1, 5), (1, b"a"), (1, None)):
            with pytest.raises(TypeError, match="'<' not supported between"):
                d[key] = 1
        del d[1, "a"]
        d[1, 5] = 1
        assert d.index((1, 5)) == count
        heap.root["d"] = d
        assert heap.verify().ok


def test_nan_is_refused(heap, d):
    nan = math.nan
    for store in (
        lambda: d.__setitem__(nan, 1),
        lambda: d.setdefault(nan),
        lambda: d.update({1: 1, nan: 2}),
        lambda: d.__setitem__((1, (2, nan)), 1),
        lambda: d.bisect(nan),
        lambda: d.irange(nan),
        lambda: heap.sorted_dict({nan: 1}),
    ):
        with pytest.raises(ValueError, match="NaN cannot be a key"):
            store()
    assert nan not in d and d.get(nan) is None and (1, nan) not in d
    assert d == PLAIN


def test_other_types_are_refused_with_advice(heap, d):
    for key in (1 + 1j, 1 + 0j, (1, (2 + 0j,)), frozenset(), range(3), object(), (1, object())):
        for store in (
            lambda key=key: d.__setitem__(key, 1),
            lambda key=key: d.setdefault(key, 1),
            lambda key=key: d.update({7: 1, key: 2}),
        ):
            with pytest.raises(TypeError, match="use int, float, bool, Decimal"):
                store()
    with pytest.raises(TypeError, match="unhashable"):
        d[[1]] = 1
    with pytest.raises(TypeError, match="unhashable"):
        [1] in d
    assert object() not in d and d.get(frozenset()) is None
    with pytest.raises(TypeError, match="no place for a key of type 'object'"):
        d.bisect(object())
    assert d == PLAIN


class Number(enum.IntEnum):
    TEN = 10


class Pair(NamedTuple):
    left: int
    right: str


def test_lookups_with_equal_values_of_other_types(heap, d):
    for key in (10.0, Number.TEN, numpy.int32(10), numpy.float64(10), Decimal(10), Fraction(10)):
        assert d[key] == "a" and key in d and d.get(key) == "a"
        assert d.index(key) == 0
        assert d.bisect(key) == 1 and d.bisect_left(key) == 0
        assert list(d.irange(key, inclusive=(False, True))) == [20, 30]
    assert Fraction(1, 3) not in d and numpy.int32(11) not in d
    assert heap.sorted_dict({(1, "a"): 5})[Pair(1, "a")] == 5
    assert heap.sorted_dict({"a": 5})[numpy.str_("a")] == 5
    del d[Number.TEN]
    assert d.pop(numpy.int64(20)) == "b"
    assert d == {30: "c"}


def test_a_key_function_is_refused(heap):
    for function in (str.lower, lambda key: -key, len, int):
        with pytest.raises(TypeError, match="cannot hold a key function"):
            heap.sorted_dict(function)


# --- making and updating --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "initial",
    [
        {3: 1, 1: 2, 2: [3]},
        [(3, 1), (1, 2), (2, [3])],
        ((k, v) for k, v in [(3, 1), (1, 2), (2, [3])]),
        sortedcontainers.SortedDict({3: 1, 1: 2, 2: [3]}),
        types.MappingProxyType({3: 1, 1: 2, 2: [3]}),
    ],
    ids=["dict", "pairs", "generator", "SortedDict", "mapping"],
)
def test_initial_contents(heap, initial):
    d = heap.sorted_dict(initial)
    assert list(d.items()) == [(1, 2), (2, [3]), (3, 1)]
    assert type(d[2]) is dh.List


def test_initial_contents_from_the_heap(heap, d):
    for made in (heap.sorted_dict(d), heap.sorted_dict(heap.dict(PLAIN)), heap.sorted_dict(None)):
        assert made in (PLAIN, {})
        assert made is not d


@pytest.mark.parametrize(
    "count", [0, 1, 4, 5, 126, 127, 128, 254, 255, 256, 510, 511, 43351, 50000]
)
def test_bulk_load_of_every_size(heap, count):
    keys = random.Random(count).sample(range(count), count)
    d = heap.root["d"] = heap.sorted_dict({key: str(key) for key in keys})
    assert list(d.items()) == [(key, str(key)) for key in range(count)]
    assert all(d.keys()[i] == i for i in range(0, count, max(1, count // 50)))
    d[count / 2 + 0.25] = "between"
    assert len(d) == count + 1
    assert heap.verify().ok


def test_update(heap, d):
    d.update({20: "new", 5: "five"})
    d.update([(7, "seven")])
    d.update(heap.dict({8: [1]}))
    d.update(d)
    d.update()
    assert list(d.items()) == [
        (5, "five"), (7, "seven"), (8, [1]), (10, "a"), (20, "new"), (30, "c")
    ]  # fmt: skip
    texts = heap.sorted_dict()
    texts.update({"b": 1}, a=2)
    assert list(texts.items()) == [("a", 2), ("b", 1)]
    texts.update(c=3)
    assert list(texts) == ["a", "b", "c"]


def test_update_errors_are_those_of_dict(d):
    for bad in (5, [1], [(1, 2, 3)], [([], 1)]):
        with pytest.raises((TypeError, ValueError)) as mine:
            d.update(bad)
        with pytest.raises(type(mine.value)) as theirs:
            {}.update(bad)
        assert str(mine.value) == str(theirs.value)
    assert d == PLAIN


def test_update_is_all_or_nothing(heap, d):
    before = dict(d)
    for bad in ({10: "x", 1: 2, 5: object()}, {10: "x", 1: 2, "a": 3}, {1: 2, (1,): 3}):
        with pytest.raises(TypeError):
            d.update(bad)
        assert d == before

    def broken():
        yield 1, "one"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        d.update(broken())
    assert d == before
    empty = heap.sorted_dict()
    with pytest.raises(TypeError):
        empty.update({1: 1, "a": 2})
    assert empty == {}
    heap.root["d"] = d
    heap.root["empty"] = empty
    heap.collect()
    assert heap.verify().ok and heap.collect().freed_cells == 0


# --- positions and ranges -------------------------------------------------------------------------


def test_bisect(big):
    keys = list(big)
    assert keys == list(range(0, 120_000, 3))
    for value in [-5, 0, 1, 2, 3, 765, 766, 59_999.5, 119_997, 119_998, 1 << 80, -math.inf]:
        assert big.bisect_left(value) == bisect.bisect_left(keys, value)
        assert big.bisect_right(value) == big.bisect(value) == bisect.bisect_right(keys, value)


def test_peekitem(d, big):
    assert d.peekitem() == (30, "c")
    assert d.peekitem(0) == d.peekitem(index=-3) == (10, "a")
    for index in (3, -4, 1 << 40):
        with pytest.raises(IndexError, match="out of range"):
            d.peekitem(index)
    with pytest.raises(TypeError):
        d.peekitem("a")
    for index in (2**63, -(2**70)):
        with pytest.raises(IndexError):
            d.peekitem(index)
        with pytest.raises(IndexError):
            d.popitem(index)
    for index in random.Random(4).sample(range(40_000), 300):
        assert big.peekitem(index) == (index * 3, str(index * 3))
        assert big.peekitem(index - 40_000) == (index * 3, str(index * 3))


def test_index(d, big):
    assert [d.index(key) for key in (10, 20, 30)] == [0, 1, 2]
    assert d.index(20, 1) == d.index(20, -2, 2) == d.index(value=20, start=0, stop=None) == 1
    for bounds in ((2,), (0, 1), (-1,), (0, -2), (5, 9)):
        with pytest.raises(ValueError, match="20 is not in"):
            d.index(20, *bounds)
    with pytest.raises(ValueError, match="15 is not in"):
        d.index(15)
    assert all(big.index(i * 3) == i for i in random.Random(5).sample(range(40_000), 300))


BOUNDS = [None, -1, 0, 1, 2, 3, 380, 381, 383, 765, 766, 900, 2998, 2999, 3000]


def test_irange(heap):
    model = sortedcontainers.SortedDict.fromkeys(range(0, 3000, 2))
    d = heap.sorted_dict(model)
    for low, high in itertools.product(BOUNDS, repeat=2):
        for inclusive in itertools.product((True, False), repeat=2):
            for reverse in (False, True):
                expected = list(model.irange(low, high, inclusive, reverse))
                assert list(d.irange(low, high, inclusive, reverse)) == expected
    assert list(d.irange(minimum=2990, reverse=True)) == [2998, 2996, 2994, 2992, 2990]
    assert list(d.irange(maximum=4, inclusive=(True, False))) == [0, 2]
    for bad in (5, (True,), (True, False, True), None):
        with pytest.raises(TypeError, match="inclusive must be a pair"):
            d.irange(0, 5, bad)
    assert list(heap.sorted_dict().irange(1, 2)) == []


def test_islice(heap):
    model = sortedcontainers.SortedDict.fromkeys(range(700))
    d = heap.sorted_dict(model)
    bounds = [None, 0, 1, 254, 255, 256, 699, 700, 900, -1, -255, -700, -900]
    for start, stop in itertools.product(bounds, repeat=2):
        for reverse in (False, True):
            expected = list(model.islice(start, stop, reverse))
            assert list(d.islice(start, stop, reverse)) == expected
    assert list(d.islice(start=698)) == [698, 699]


# --- views ----------------------------------------------------------------------------------------


def test_views_are_sequences(heap):
    plain = {i: i % 7 for i in range(600)}
    d = heap.sorted_dict(plain)
    for view, elements in (
        (d.keys(), list(plain)),
        (d.values(), list(plain.values())),
        (d.items(), list(plain.items())),
    ):
        assert len(view) == 600
        assert list(view) == elements
        assert list(reversed(view)) == elements[::-1]
        for index in (0, 1, 254, 255, 256, 599, -1, -600, numpy.int64(7)):
            assert view[index] == elements[index]
        for index in (600, -601, 1 << 70):
            with pytest.raises(IndexError):
                view[index]
        with pytest.raises(TypeError):
            view["a"]
        for piece in (
            slice(None), slice(250, 260), slice(-5, None), slice(None, None, -1),
            slice(599, 3, -200), slice(5, 2), slice(None, None, 97),
        ):  # fmt: skip
            assert view[piece] == elements[piece]
            assert type(view[piece]) is list
        for element in (elements[0], elements[300], elements[-1]):
            assert element in view
            assert view.count(element) == elements.count(element)
            assert view.index(element) == elements.index(element)
            at = elements.index(element)
            assert view.index(element, at) == view.index(element, 0, at + 1) == at
            assert view.index(element, at - 600) == at
        for absent in (-1, "x", (1, 2, 3), (5, "x"), None):
            assert absent not in view
            assert view.count(absent) == 0
            with pytest.raises(ValueError, match="is not in the view"):
                view.index(absent)
    assert d.values().index(3, 4) == 10
    assert d.keys().mapping == d


def test_views_follow_the_dict(d):
    keys, values, items = d.keys(), d.values(), d.items()
    d[15] = "new"
    assert list(keys) == [10, 15, 20, 30]
    assert values[1] == "new"
    assert items[1] == (15, "new")
    assert repr(keys) == "SortedKeys([10, 15, 20, 30])"
    assert repr(items).startswith("SortedItems([(10, 'a'), ")
    assert repr(values) == "SortedValues(['a', 'new', 'b', 'c'])"
    with pytest.raises(TypeError):
        type(keys)()


def test_views_are_sets(heap, d):
    keys, items = d.keys(), d.items()
    assert keys == {10, 20, 30} == keys
    assert keys == dict(PLAIN).keys() and dict(PLAIN).keys() == keys
    assert keys == heap.dict(PLAIN).keys() and heap.dict(PLAIN).keys() == keys
    assert items == dict(PLAIN).items() and items == heap.sorted_dict(PLAIN).items()
    assert keys != {10, 20} and keys > {10} and keys >= keys and {10} < keys
    assert keys <= {10, 20, 30, 40} and not keys < keys and keys != [10, 20, 30]
    assert keys & [10, 99] == {10} and keys | {5} == {5, 10, 20, 30}
    assert keys - {10} == {20, 30} and keys ^ {10, 11} == {11, 20, 30}
    assert [10, 99] & keys == {10}
    assert type(keys & {1}) is set
    assert items & {(10, "a"), (10, "x")} == {(10, "a")}
    assert keys.isdisjoint([1, 2]) and not keys.isdisjoint([10])
    with pytest.raises(TypeError):
        keys < [1]
    with pytest.raises(TypeError, match="unhashable"):
        hash(keys)


# --- iteration while it changes -------------------------------------------------------------------


def test_changed_during_iteration(heap):
    changes = [
        lambda d: d.__setitem__(10_000, 1),
        lambda d: d.__delitem__(5),
        lambda d: d.clear(),
        lambda d: d.popitem(),
        lambda d: d.update({-5: 1}),
    ]
    iterations = [
        iter, reversed, lambda d: iter(d.items()), lambda d: iter(d.values()),
        lambda d: reversed(d.keys()), lambda d: d.irange(3, 900), lambda d: d.islice(3, 900),
    ]  # fmt: skip
    for change, iterate in itertools.product(changes, iterations):
        d = heap.sorted_dict(dict.fromkeys(range(1000)))
        iterator = iterate(d)
        next(iterator)
        change(d)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="changed size during iteration"):
                next(iterator)


def test_overwriting_during_iteration(heap):
    d = heap.sorted_dict(dict.fromkeys(range(1000), 0))
    for key in d:
        d[key] = key
    assert all(key == value for key, value in d.items())


def test_iteration_over_a_rollback(heap):
    """What was committed is still in order; what comes next is read from what is there now."""
    d = heap.root["d"] = heap.sorted_dict(dict.fromkeys(range(1000)))
    heap.commit()
    iterator = iter(d)
    assert [next(iterator) for _ in range(10)] == list(range(10))
    d[2000] = 1
    heap.rollback()
    assert list(iterator) == list(range(10, 1000))
    # The same number of changes as in a state that is gone, and so the same version.
    d[-1] = 1
    iterator = iter(d)
    next(iterator)
    heap.rollback()
    heap.root["other"] = ["x" * 100] * 100
    del d[0]
    assert [next(iterator) for _ in range(5)] == [2, 3, 4, 5, 6]


def test_length_hints(d):
    iterator = iter(d)
    assert iterator.__length_hint__() == 3
    next(iterator)
    assert iterator.__length_hint__() == 2
    list(iterator)
    assert iterator.__length_hint__() == 0
    assert next(iterator, "end") == "end"
    assert d.irange(15).__length_hint__() == 2


# --- packed values --------------------------------------------------------------------------------

PACKED = {
    3: Decimal("1.5"),
    1: datetime.date(2024, 2, 29),
    2: (1 + 2j, Fraction(1, 3)),
    4: [datetime.timedelta(seconds=1)],
    5: "plain",
}


def test_values_of_richer_types(heap):
    """They are packed and unpacked wherever values go in and come out."""
    ordered = {key: PACKED[key] for key in sorted(PACKED)}
    for d in (heap.sorted_dict(PACKED), heap.sorted_dict({2: "other"})):
        d.update(PACKED)
        assert d == PACKED
        assert dict(d.items()) == d.copy() == dh.to_python(d) == ordered
        assert list(d.values()) == list(ordered.values()) == d.values()[:]
        assert d.items()[:] == list(ordered.items())
        assert repr(d) == f"SortedDict({ordered!r})"
        assert d[1] == d.get(1) == d.setdefault(1) == d.peekitem(0)[1] == PACKED[1]
        assert d.setdefault(6, Decimal(7)) == Decimal(7)
        assert d.popitem() == (6, Decimal(7))
        assert d.popitem(1) == (2, PACKED[2])
        assert d.pop(3) == Decimal("1.5")
        assert (1, PACKED[1]) in d.items() and PACKED[1] in d.values()
        assert list(d) == [1, 4, 5]


def test_ndarrays_are_the_heaps(heap):
    d = heap.sorted_dict({2: numpy.arange(5), 1: 0})
    made = d.setdefault(3, numpy.zeros(3))
    made += 1
    d[2][0] = 7
    assert list(d[3]) == [1, 1, 1] and d[3] is made and d.peekitem()[1] is made
    assert list(d.values()[1]) == [7, 1, 2, 3, 4] == list(d.copy()[2])
    assert type(dh.to_python(d)[2]) is numpy.ndarray and dh.to_python(d)[2] is not d[2]
    assert d.pop(3) is made
    assert list(d.popitem()[1]) == [7, 1, 2, 3, 4]


class Restless:
    """Its unpacker changes the dict that it is taken from."""

    change = staticmethod(lambda: None)

    @staticmethod
    def unpack(data):
        Restless.change()
        return Restless()


@pytest.fixture
def restless():
    dh.register(Restless, lambda value: b"restless", Restless.unpack)
    yield Restless
    Restless.change = staticmethod(lambda: None)


def test_unpackers_that_change_the_dict(heap, restless):
    """What is taken out is what was there when nothing changed any more; or nothing is."""
    takes = [lambda d: d.pop(1), lambda d: d.popitem(), lambda d: d.popitem(0)]
    for take in takes:
        d = heap.root["d"] = heap.sorted_dict({1: Restless()})
        restless.change = staticmethod(lambda d=d: d.__setitem__(len(d) * 10, len(d)))
        with contextlib.suppress(RuntimeError):
            take(d)
        assert heap.verify().ok
        for change in (d.clear, heap.collect, heap.rollback):
            restless.change = staticmethod(lambda: None)
            d = heap.root["d"] = heap.sorted_dict({1: Restless(), 2: "x" * 50})
            if change == heap.rollback:
                heap.commit()
                d[3] = Restless()
            restless.change = staticmethod(change)
            with contextlib.suppress(KeyError, RuntimeError):
                take(d)
            assert heap.verify().ok
    d = heap.sorted_dict({1: Restless()})
    restless.change = staticmethod(lambda: d.__setitem__(1, Restless()))
    with pytest.raises(RuntimeError, match="changed each time"):
        d.pop(1)
    for read in (lambda: d[1], d.copy, lambda: d.values()[:], lambda: list(d.items())):
        read()
    assert len(d) == 1


def test_packers_that_change_the_dict(heap, restless):
    d = heap.root["d"] = heap.sorted_dict()

    def pack(value):
        d[500] = "made by a packer"
        return b"restless"

    dh.register(Restless, pack, Restless.unpack)
    d.update({3: Restless(), 1: 1})
    assert list(d) == [1, 3, 500]
    d[2] = Restless()
    assert heap.sorted_dict({1: Restless()}).peekitem()[0] == 1
    assert list(d) == [1, 2, 3, 500] and heap.verify().ok


PACKED_KEYS = {
    "numbers": [Decimal("0.1"), Fraction(1, 3), 7],
    "moments": [
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2024, 5, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    ],
    "uuids": [uuid.UUID(int=1), uuid.UUID(int=2)],
    "tuples": [(1, Decimal("0.5")), (1, Fraction(2, 3))],
}


@pytest.mark.parametrize("action", ["clear", "fill", "collect", "rollback", "close"])
@pytest.mark.parametrize("kind", PACKED_KEYS)
def test_packed_keys_beside_code_that_meddles(path, restless, action, kind):
    """Packers and unpackers run while a packed key waits to be stored or has just been found."""
    keys = PACKED_KEYS[kind]

    def pack(value):
        Restless.change()
        return b"restless"

    dh.register(Restless, pack, Restless.unpack)
    operations = [
        lambda d: d.__setitem__(keys[1], Restless()),
        lambda d: d.setdefault(keys[1], Restless()),
        lambda d: d.update({key: Restless() for key in keys}),
        lambda d: d.update({keys[0]: 0, Restless(): 1}),
        lambda d: d.__setitem__(Restless(), 1),
        lambda d: d.setdefault((1, Restless()), 1),
        lambda d: Restless() in d or d.bisect(Restless()),
        lambda d: list(d.items()),
        lambda d: d.copy(),
        lambda d: d.pop(keys[0]),
        lambda d: d.popitem(),
    ]
    for operation in operations:
        with dh.open(path, capacity=16 << 20) as heap:
            d = heap.root["d"] = heap.sorted_dict()
            heap.commit()
            restless.change = staticmethod(lambda: None)
            d[keys[0]] = Restless()
            actions = {
                "clear": d.clear,
                "fill": lambda d=d: d.update(dict.fromkeys(keys, "x" * 40)),
                "collect": heap.collect,
                "rollback": heap.rollback,
                "close": heap.close,
            }
            restless.change = staticmethod(actions[action])
            with contextlib.suppress(KeyError, RuntimeError, TypeError, dh.HeapError):
                operation(d)
            restless.change = staticmethod(lambda: None)
            if action != "close":
                assert heap.verify().ok
                assert set(heap.root["d"]) <= set(keys)


def test_registered_types_have_no_order(heap, d, restless):
    """Enums of an ordered type have that type's."""

    class Level(enum.IntEnum):
        LOW = 15
        HIGH = 25

    class Color(enum.Enum):
        RED = 1

    dh.register(Level, name="level in a sorted dict")
    dh.register(Color, name="color in a sorted dict")
    for key in (Restless(), Color.RED, (1, Color.RED)):
        for store in (lambda key=key: d.__setitem__(key, 1), lambda key=key: d.update({key: 1})):
            with pytest.raises(TypeError, match="no place for a key of type"):
                store()
        assert key not in d
    assert d == PLAIN
    d.update({Level.LOW: "low"})
    d[Level.HIGH] = "high"
    assert list(d) == [10, Level.LOW, 20, Level.HIGH, 30]
    assert [type(key) for key in d.irange(11, 25)] == [Level, int, Level]
    assert d[15] == "low" and heap.verify().ok


# --- persistence, memory --------------------------------------------------------------------------


def test_contents_are_kept(path):
    plain = {f"key {i:04} of some length": [i] for i in range(3000)}
    with dh.open(path) as heap:
        heap.root["d"] = heap.sorted_dict(plain)
        heap.commit()
        del heap.root["d"]["key 0007 of some length"]
        heap.commit()
        heap.root["d"].clear()
    del plain["key 0007 of some length"]
    assert contents(path) == {"d": plain}
    with dh.open(path) as heap:
        d = heap.root["d"]
        assert type(d) is dh.SortedDict and d is heap.root["d"]
        assert d.peekitem(0) == ("key 0000 of some length", [0])
        assert d.peekitem(7)[0] == "key 0008 of some length"
        d["key"] = 1
        assert d.index("key") == 0


def test_space_is_given_back(heap):
    before = heap.stats().allocated_bytes
    d = heap.sorted_dict()
    for i in random.Random(6).sample(range(20_000), 20_000):
        d[i] = f"a value of some length, {i}"
    full = heap.stats().allocated_bytes
    for i in random.Random(7).sample(range(20_000), 19_990):
        del d[i]
    assert heap.stats().allocated_bytes - before < (full - before) / 20
    d.clear()
    del d
    heap.collect()
    assert heap.stats().allocated_bytes <= before


def test_few_pages_per_change(heap):
    """The promise of the layout: a leaf, the nodes above it, the head, and a cell of the key."""
    d = heap.root["d"] = heap.sorted_dict({f"key {i:06} and more": i for i in range(0, 100_000, 2)})
    heap.commit()
    source = random.Random(8)
    pages = []
    for _ in range(60):
        i = source.randrange(0, 100_000, 2)
        d[f"key {i + 1:06} and more"] = 1
        pages.append(heap.pending().pages)
        heap.commit()
        d.pop(f"key {i:06} and more", None)
        pages.append(heap.pending().pages)
        heap.commit()
    assert max(pages) <= 14
    assert sum(pages) <= len(pages) * 8


OPERATIONS = {
    "set int": lambda heap, d, n: d.__setitem__(n * 7919 % 1_000_003, n),
    "set long value": lambda heap, d, n: d.__setitem__(n, f"value {n} " * 9),
    "set nested": lambda heap, d, n: d.__setitem__(-n, {"a": [n, {"b": "x" * 99}]}),
    "set big int": lambda heap, d, n: d.__setitem__((1 << 100) + n * 7919 % 1_000_003, n),
    "setdefault": lambda heap, d, n: d.setdefault(n + 0.5, [n]),
    "update": lambda heap, d, n: d.update({n * 10 + i + 0.25: "y" * i for i in range(60)}),
    "overwrite many": lambda heap, d, n: d.update(dict.fromkeys(range(10), "z" * 50 * n)),
    "new": lambda heap, d, n: d.__setitem__(
        0, heap.sorted_dict(dict.fromkeys(range(300), "x" * 20))
    ),
}


class PlainHeap:
    """Makes plain objects where a heap makes its own."""

    sorted_dict = staticmethod(dict)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_full_heap_changes_nothing(path, name):
    operation = OPERATIONS[name]
    with dh.open(path, capacity=1 << 20) as heap:
        model = dict.fromkeys(range(10), 0)
        d = heap.root["d"] = heap.sorted_dict(model)
        for n in range(100_000):
            try:
                operation(heap, d, n)
            except dh.HeapFullError as error:
                assert "capacity" in str(error)
                break
            operation(PlainHeap, model, n)
        else:
            pytest.fail("the limit was not reached")
        assert dh.to_python(d) == model and list(d) == sorted(model)
        assert heap.verify().ok
        for key in list(model)[: len(model) // 2]:  # deleting needs no room
            del d[key], model[key]
        assert dh.to_python(d) == model
        heap.commit()
    assert contents(path) == {"d": model}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_whose_nth_allocation_fails_changes_nothing(path, name):
    operation = OPERATIONS[name]
    with dh.open(path) as heap:
        model = dict.fromkeys(range(10), 0)
        d = heap.root["d"] = heap.sorted_dict(model)
        for n in range(40):
            operation(heap, d, n)
            operation(PlainHeap, model, n)
        heap.collect()
        for failing in itertools.count():
            with fault("alloc.cell", after=failing, rc=-1):
                try:
                    operation(heap, d, 41)
                    break
                except dh.HeapFullError:
                    pass
            assert dh.to_python(d) == model, f"allocation {failing}"
            report = heap.verify()
            assert report.ok, f"allocation {failing}: {report.first_problem}"
        operation(PlainHeap, model, 41)
        assert dh.to_python(d) == model and list(d) == sorted(model)
        heap.collect()
        assert heap.collect().freed_cells == 0


def test_a_load_whose_nth_allocation_fails_leaves_nothing_behind(heap):
    plain = {f"key {i} of some length": [i] for i in range(600)}
    allocated = heap.stats().allocated_bytes
    for failing in itertools.chain(range(8), itertools.count(8, 37)):
        with fault("alloc.cell", after=failing, rc=-1):
            try:
                made = heap.sorted_dict(plain)
                break
            except dh.HeapFullError:
                pass
        heap.collect()
        assert heap.stats().allocated_bytes == allocated, f"allocation {failing}"
    assert failing > 600
    assert made == plain


def test_read_only_and_closed(tmp_path):
    heap = dh.open(tmp_path / "h")
    d = heap.root["d"] = heap.sorted_dict(PLAIN)
    iterators = [iter(d), d.irange(10), reversed(d.items())]
    view = d.keys()
    stores = [
        lambda: d.__setitem__(1, 1), lambda: d.__delitem__(10), lambda: d.pop(10),
        lambda: d.pop(11, None), lambda: d.popitem(), lambda: d.setdefault(11), lambda: d.clear(),
        lambda: d.update({1: 2}), lambda: d.__ior__({1: 2}), lambda: heap.sorted_dict(),
        lambda: heap.sorted_dict({1: 2}),
    ]  # fmt: skip
    heap._core.read_only = True
    for number, use in enumerate(stores):
        with pytest.raises(dh.ReadOnlyError):
            use()
            pytest.fail(f"store {number} did not raise")
    assert d == PLAIN and d.setdefault(10) == "a"
    heap._core.read_only = False
    heap.close()
    for number, use in enumerate(
        [
            *stores[:-2],
            lambda: d[10], lambda: d.get("a\ud800"), lambda: 10 in d, lambda: 1 << 80 in d,
            lambda: len(d), lambda: bool(d), lambda: list(d), lambda: d.copy(), lambda: repr(d),
            lambda: d == {}, lambda: d | {}, lambda: d.keys(), lambda: d.items(),
            lambda: d.bisect(1), lambda: d.index(1), lambda: d.irange(), lambda: d.islice(),
            lambda: d.peekitem(), lambda: view[0], lambda: view[:], lambda: 10 in view,
            lambda: len(view), lambda: list(view), lambda: view.index(1), lambda: view.count(1),
            lambda: dh.to_python(d), lambda: copy.copy(d), lambda: pickle.dumps(d),
            *[lambda iterator=iterator: next(iterator) for iterator in iterators],
        ]
    ):  # fmt: skip
        with pytest.raises(dh.HeapClosedError):
            use()
            pytest.fail(f"use {number} did not raise")
    with pytest.raises(dh.HeapClosedError):
        heap.sorted_dict()

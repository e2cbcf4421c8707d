"""Set behaves as set does, keeps its elements in the heap, and stays whole when it fails."""

from __future__ import annotations

import copy
import datetime
import enum
import gc
import itertools
import operator
import pickle
import random
import uuid
import weakref
from collections.abc import MutableSet
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy
import pytest

import dirtyheap
from dirtyheap import to_python


@pytest.fixture
def s(heap):
    return heap.set([3, 1, 2])


class Bad:
    """Has no hash but an error."""

    def __hash__(self):
        raise ZeroDivisionError("the hash")


class Number(enum.IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


# --- one element ----------------------------------------------------------------------------------


def test_add_discard_remove_pop(s):
    s.add(4)
    s.add(4)
    assert s == {1, 2, 3, 4} and len(s) == 4
    s.discard(9)
    s.discard(1)
    s.remove(3)
    assert s == {2, 4}
    assert {s.pop(), s.pop()} == {2, 4}
    assert len(s) == 0 and not s
    with pytest.raises(KeyError, match="pop from an empty set"):
        s.pop()


def test_iteration_is_in_the_order_of_insertion_and_pop_takes_the_newest(heap):
    s = heap.set([3, 1, 2])
    s.add(1)
    s.remove(3)
    s.add(3)
    assert list(s) == [1, 2, 3]
    assert repr(s) == "{1, 2, 3}"
    assert s.pop() == 3
    assert repr(heap.set()) == "set()"


@pytest.mark.parametrize("element", ["x", (1, 2), frozenset({1}), None])
def test_remove_names_what_is_missing(s, element):
    with pytest.raises(KeyError) as error:
        s.remove(element)
    assert error.value.args == (element,)


def test_elements_of_all_kinds(heap):
    elements = [
        None, True, -1, 2**62, -(2**70), 1.5, -0.0, float("inf"), "", "short", "longer than seven",
        "\ud800", b"", b"bytes", b"longer than seven", (), (1, ("a",)), frozenset(),
        frozenset({1, (2, frozenset({"inner"}))}),
    ]  # fmt: skip
    s = heap.set(elements)
    assert list(s) == elements
    assert [type(found) for found in s] == [type(element) for element in elements]
    assert all(element in s for element in elements)
    assert to_python(s) == set(elements)
    for element in elements:
        s.remove(element)
        assert element not in s
    assert s == set()


def test_equal_numbers_are_one_element_and_the_first_stays(heap):
    s = heap.set([True])
    s.update([1, 1.0, Number.ONE.value])
    assert len(s) == 1 and next(iter(s)) is True
    s = heap.set([1.0, 1, True])
    assert type(next(iter(s))) is float


def test_a_nan_is_one_element(heap):
    s = heap.set([float("nan"), float("nan")])
    assert len(s) == 1 and float("nan") in s


@pytest.mark.parametrize(
    ("probe", "found"),
    [
        (Number.ONE, True), (numpy.int64(1), True), (Fraction(1, 2), True), (Decimal("0.5"), True),
        (complex(1, 0), True), (Point(1, 2), True), (numpy.str_("text"), True), (object(), False),
        (Decimal("0.1"), False), (Point(2, 1), False), (len, False),
    ],
)  # fmt: skip
def test_lookups_by_equal_objects_of_other_types(heap, probe, found):
    elements = [1, 0.5, (1, 2), "text"]
    s = heap.set(elements)
    assert (probe in s) is (probe in set(elements)) is found
    s.discard(probe)
    assert len(s) == 4 - found


def test_a_set_is_looked_up_as_a_frozenset(heap):
    s = heap.set([frozenset({1, 2}), frozenset()])
    assert {1, 2} in s and {2, 1.0} in s and set() in s and {1} not in s
    assert heap.set([2, 1]) in s
    s.remove({1, 2})
    s.discard(set())
    assert s == set()
    with pytest.raises(KeyError) as error:
        s.remove({1})
    assert error.value.args == ({1},)


@pytest.mark.parametrize(
    "name",
    ["update", "difference_update", "intersection_update", "symmetric_difference_update", "union",
     "intersection", "symmetric_difference", "isdisjoint", "issuperset"],
)  # fmt: skip
def test_a_set_among_elements_is_no_frozenset(heap, name):
    """Lookups take a set for a frozenset; what is to be elements must have a hash."""
    plain = {frozenset([1, 2]), 1}
    mine = heap.set(plain)
    for element in ({1, 2}, heap.set([1, 2])):
        for elements in ([element], iter([element])):
            with pytest.raises(TypeError, match="unhashable type"):
                getattr(mine, name)(elements)
            assert mine == plain
    with pytest.raises(TypeError, match="unhashable type"):
        getattr(plain, name)([{1, 2}])


def test_what_cannot_be_an_element(heap, s):
    inner = heap.list()
    for bad in ([], {}, {1}, bytearray(), inner, s, heap.dict(), (1, [])):
        with pytest.raises(TypeError, match="unhashable type"):
            s.add(bad)
    for bad in ([], {}, bytearray(), inner, heap.dict(), (1, [])):
        for use in (s.discard, s.remove, s.__contains__):
            with pytest.raises(TypeError, match="unhashable type"):
                use(bad)
    for bad in (object(), len, Number.ONE, Point(1, 2), frozenset({len}), (1, object())):
        with pytest.raises(TypeError, match="a heap cannot hold a set's element of type '.*': use"):
            s.add(bad)
        with pytest.raises(TypeError, match="a heap cannot hold a set's element of type '.*': use"):
            s.update([7, bad])
    for use in (s.add, s.discard, s.remove, s.__contains__, lambda bad: s.update([bad])):
        with pytest.raises(ZeroDivisionError, match="the hash"):
            use(Bad())
    assert list(s) == [3, 1, 2]


# --- making ---------------------------------------------------------------------------------------


def test_making(heap):
    assert heap.set() == heap.set(None) == heap.set([]) == set()
    assert heap.set({1, 2}) == heap.set(iter([1, 2, 1])) == heap.set(frozenset({1, 2})) == {1, 2}
    assert heap.set("abc") == heap.set({"a": 1, "b": 2, "c": 3}) == {"a", "b", "c"}
    assert heap.set(heap.set([1])) == {1}
    assert heap.set(heap.list([1, 2])) == {1, 2}
    with pytest.raises(TypeError, match="not iterable"):
        heap.set(5)
    with pytest.raises(TypeError, match=r"use heap.set\(\)"):
        dirtyheap.Set()
    with pytest.raises(TypeError):
        heap.set([1], [2])


def test_plain_sets_are_copied_in_with_shared_ones_once(heap):
    plain = {1, "two", (3, 4)}
    heap.root["value"] = {"a": plain, "b": [plain, ({5}, plain)], "empty": set()}
    value = heap.root["value"]
    found = value["a"]
    assert type(found) is dirtyheap.Set and found == plain
    assert value["b"][0] is found and value["b"][1][1] is found
    assert value["b"][1][0] == {5} and value["empty"] == set()
    found.add("new")
    assert "new" in value["b"][0] and "new" not in plain
    assert heap.verify().ok


def test_linked_not_copied(heap, s):
    heap.root["a"] = s
    heap.root["b"] = [s]
    assert heap.root["a"] is s is heap.root["b"][0]


def test_refused_elements_of_plain_sets_are_named(heap):
    for value, message in [
        ([[{object()}]], r"value\[0\]\[0\] has an element of type 'object'"),
        ([frozenset({object()})], r"value\[0\] has an element of type 'object'"),
        ({(1, len)}, r"value\[1\] is of type 'builtin_function_or_method'"),
        ([frozenset({Number.ONE})], r"value\[0\] has an element of type '.*Number'.*int\(\)"),
        (type("Mine", (set,), {})(), r"value is of type '.*Mine'.*convert it with set\(\)"),
        (type("Mine", (frozenset,), {})(), r"convert it with frozenset\(\)"),
    ]:
        used = heap.stats().allocated_bytes
        with pytest.raises(TypeError, match=message):
            heap.root["x"] = value
        assert heap.stats().allocated_bytes == used
    assert heap.root == {}


def test_to_python_copy_and_pickle_give_plain_sets(heap):
    heap.root["x"] = shared = heap.list([{1}, {2, "b"}])
    shared.append(shared[0])
    s = shared[1]
    for make in (
        to_python,
        copy.copy,
        copy.deepcopy,
        dirtyheap.Set.copy,
        lambda s: pickle.loads(pickle.dumps(s)),
    ):
        made = make(s)
        assert type(made) is set and made == {2, "b"}
    plain = to_python(shared)
    assert type(plain[0]) is set and plain[0] is plain[2] and plain[0] is not plain[1]


def test_registered_and_typed(s):
    assert isinstance(s, MutableSet)
    assert dirtyheap.Set[int].__origin__ is dirtyheap.Set
    with pytest.raises(TypeError, match="unhashable"):
        hash(s)
    reference = weakref.ref(s)
    assert reference() is s


def test_packed_elements(heap):
    """Values of richer types: in Sets, in frozensets, and as what equals them."""
    day, half, third = datetime.date(2024, 2, 29), Decimal("0.5"), Fraction(1, 3)
    inner = frozenset({day, (half, third), uuid.UUID(int=7)})
    elements = [day, half, third, inner, (inner, "x"), 7]
    s = heap.set(elements)
    assert list(s) == elements and s == set(elements) and s.copy() == set(elements)
    assert [type(element) for element in s] == [type(element) for element in elements]
    assert [type(element) for element in s if type(element) is Decimal]
    assert half in s and 0.5 in s and Decimal("0.50") in s and inner in s and (inner, "x") in s
    assert set(inner) in s and frozenset(list(inner)[::-1]) in s and frozenset({day}) not in s
    assert repr(heap.set([day, third])) == "{datetime.date(2024, 2, 29), Fraction(1, 3)}"
    s.add(0.5)
    s.update([Decimal("0.500"), inner, datetime.date(2025, 1, 1)], {third})
    assert len(s) == len(elements) + 1 and s.pop() == datetime.date(2025, 1, 1)
    assert s & {half, inner, "no"} == {half, inner} == s.intersection([0.5, inner])
    assert s - heap.set([day, inner]) == {half, third, (inner, "x"), 7}
    s ^= {day, half, Decimal("1.25")}
    assert s == {third, inner, (inner, "x"), 7, Decimal("1.25")}
    s -= {inner, third}
    s &= {Decimal("1.25"), 7.0}
    assert s == {7, Decimal("1.25")}
    heap.root["x"] = {"plain": {day, inner}, "frozen": inner, inner: "key"}
    assert heap.root["x"]["plain"] == {day, inner} and heap.root["x"]["frozen"] == inner
    assert heap.root["x"][inner] == "key"
    heap.commit()
    assert to_python(heap.root["x"]) == {"plain": {day, inner}, "frozen": inner, inner: "key"}
    assert pickle.loads(pickle.dumps(heap.root["x"]["plain"])) == {day, inner}
    s.add((inner, day))
    assert s.pop() == (inner, day)
    assert heap.verify().ok


def test_a_packer_that_changes_the_set_it_is_packed_for(heap):
    s = heap.set([1, 2])

    class Restless:
        def __init__(self, number):
            self.number = number

        def __eq__(self, other):
            return isinstance(other, Restless) and self.number == other.number

        def __hash__(self):
            return self.number

    def pack(value):
        s.discard(1)
        s.add(f"packed {value.number}")
        return str(value.number).encode()

    dirtyheap.register(
        Restless, name="restless", pack=pack, unpack=lambda data: Restless(int(data))
    )
    s.update([5, Restless(3), (Restless(4), 1)])
    assert 1 not in s and 5 in s and {"packed 3", "packed 4"} < s
    assert Restless(3) in s and (Restless(4), 1) in s and Restless(4) not in s
    assert {type(element) for element in s} == {int, str, Restless, tuple}
    assert heap.verify().ok


def test_survives_reopening(path):
    with dirtyheap.open(path) as heap:
        heap.root["s"] = {"a", ("b", frozenset({1, 2})), 3}
        heap.root["s"].discard(3)
        heap.commit()
    with dirtyheap.open(path) as heap:
        assert heap.root["s"] == {"a", ("b", frozenset({2, 1}))}
        heap.root["s"].add(4)
        heap.rollback()
        assert len(heap.root["s"]) == 2


# --- algebra against set --------------------------------------------------------------------------

OPERATORS = ["or_", "and_", "sub", "xor", "eq", "ne", "lt", "le", "gt", "ge"]
IN_PLACE = ["ior", "iand", "isub", "ixor"]
METHODS = ["union", "intersection", "difference", "symmetric_difference", "isdisjoint", "issubset",
           "issuperset"]  # fmt: skip
UPDATES = ["update", "intersection_update", "difference_update", "symmetric_difference_update"]
CONTENTS = [(), (1,), (1, 2, 3), (2, 3, "x", (4, "five")), ("x",), tuple(range(40)),
            (1.0, True, 2.5), (frozenset({1, 2}), "a string of some length")]  # fmt: skip


def forms(heap, content):
    """All that is set-like, with that content."""
    plain = dict.fromkeys(content)
    yield set(content), set(content)
    yield frozenset(content), frozenset(content)
    yield heap.set(content), set(content)
    yield plain.keys(), plain.keys()
    yield heap.dict(plain).keys(), plain.keys()


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(heap, name):
    operate = getattr(operator, name)
    for mine, theirs in itertools.product(CONTENTS, repeat=2):
        s, plain = heap.set(mine), set(mine)
        for other, plain_other in forms(heap, theirs):
            for found, expected in (
                (operate(s, other), operate(plain, plain_other)),
                (operate(other, s), operate(plain_other, plain)),
            ):
                assert found == expected and type(found) is type(expected), (s, other)
        assert list(s) == list(heap.set(mine)), "the operands are left alone"
        assert operate(s, s) == operate(plain, plain)


@pytest.mark.parametrize("name", IN_PLACE)
def test_operators_in_place(heap, name):
    operate = getattr(operator, name)
    for mine, theirs in itertools.product(CONTENTS, repeat=2):
        for other, _ in forms(heap, theirs):
            s, plain = heap.set(mine), set(mine)
            assert operate(s, other) is s
            assert s == operate(plain, set(theirs))
            assert len(s) == len(plain)
        s, plain = heap.set(mine), set(mine)
        assert operate(s, s) is s
        assert s == operate(plain, plain)
    assert heap.verify().ok


@pytest.mark.parametrize("name", OPERATORS[:4] + OPERATORS[6:] + IN_PLACE)
def test_operators_take_only_sets(s, name):
    for other in ([1], (1,), "a", {1: 2}, iter([1]), 1, None):
        with pytest.raises(TypeError):
            getattr(operator, name)(s, other)
        with pytest.raises(TypeError):
            getattr(operator, name.removeprefix("i"), operator.or_)(other, s)
    assert s == {1, 2, 3}


def test_never_equal_to_what_is_no_set(s):
    assert s != [1, 2, 3] and s != {1: 1, 2: 2, 3: 3} and s != (1, 2, 3)
    assert s == {1: 1, 2: 2, 3: 3}.keys()


@pytest.mark.parametrize("name", METHODS + UPDATES)
def test_methods_take_any_iterable(heap, name):
    for mine, theirs in itertools.product(CONTENTS, repeat=2):
        others = [
            theirs, list(theirs) * 2, iter(theirs), dict.fromkeys(theirs), (x for x in theirs),
            heap.list(theirs), heap.dict(dict.fromkeys(theirs)), heap.set(theirs), set(theirs),
            frozenset(theirs), heap.dict(dict.fromkeys(theirs)).keys(),
        ]  # fmt: skip
        for other in others:
            s, plain = heap.set(mine), set(mine)
            found, expected = getattr(s, name)(other), getattr(plain, name)(theirs)
            assert found == expected and type(found) is type(expected), (name, mine, other)
            assert s == plain
    for bad in (5, None, len):
        with pytest.raises(TypeError, match="not iterable"):
            getattr(heap.set([1]), name)(bad)
    with pytest.raises(TypeError, match="unhashable"):
        getattr(heap.set([1, 2]), name)([[2]])
    assert heap.verify().ok


@pytest.mark.parametrize("name", METHODS[:3] + UPDATES[:3])
def test_methods_take_any_number_of_iterables(heap, name):
    for others in ([], [[2, 3], "x"], [{2}, heap.set([3]), iter([9])], [[], [1], [2]]):
        plain_others = [list(other) for other in others]
        if others and hasattr(others[-1], "__next__"):
            others[-1] = iter(plain_others[-1])
        s, plain = heap.set([1, 2, 3]), {1, 2, 3}
        assert getattr(s, name)(*others) == getattr(plain, name)(*plain_others)
        assert s == plain
    for name in ("symmetric_difference", "symmetric_difference_update", "isdisjoint"):
        with pytest.raises(TypeError):
            getattr(heap.set(), name)([1], [2])


def test_sets_of_another_heap(heap, tmp_path):
    with dirtyheap.open(tmp_path / "other") as other_heap:
        a, b = heap.set([1, 2, "three is a string"]), other_heap.set(["three is a string", 4])
        assert a | b == {1, 2, "three is a string", 4}
        assert a & b == b & a == {"three is a string"}
        assert a - b == {1, 2} and a ^ b == {1, 2, 4} and a != b
        a.update(b)
        b &= a
        assert a > b and b == {"three is a string", 4}
        a -= b
        b ^= a
        assert a == {1, 2} and b == {1, 2, 4, "three is a string"}
        with pytest.raises(ValueError, match="of another heap"):
            heap.root["b"] = b


def test_update_is_all_or_nothing(small_heap):
    s = small_heap.set(range(1000))
    small_heap.root["s"] = s
    order = list(s)
    with pytest.raises(ZeroDivisionError):
        s.update([5000], (1 / (3 - i) for i in range(9)))
    with pytest.raises(TypeError):
        s.update([5000, 5001], [[]])
    with pytest.raises(dirtyheap.HeapFullError):
        s.update(f"a string of some length {i}" for i in range(100_000))
    other = small_heap.set(range(30_000, 40_000))
    assert list(s) == order
    with pytest.raises(dirtyheap.HeapFullError):
        for i in itertools.count():
            order = list(s)
            s.symmetric_difference_update([f"{i} {j} of some length" for j in range(20_000)])
    assert list(s) == order and list(other) == list(range(30_000, 40_000))
    assert small_heap.verify().ok


def test_merging_sets_is_all_or_nothing(tmp_path):
    with dirtyheap.open(tmp_path / "h", capacity=4 << 20) as heap:
        heap.root["a"] = a = heap.set(f"string {i} of some length" for i in range(20_000))
        heap.root["b"] = b = heap.set(range(19_000))
        b.add("string 19999 of some length")
        order = list(b)
        heap.root["filler"] = filler = heap.list()
        with pytest.raises(dirtyheap.HeapFullError):
            while True:
                filler.append("x" * 900)
        for change in (b.update, b.symmetric_difference_update):
            with pytest.raises(dirtyheap.HeapFullError):
                change(a)
            assert list(b) == order
        b -= a
        assert len(b) == 19_000
        assert heap.verify().ok


# --- iterating ------------------------------------------------------------------------------------


def test_changing_the_size_ends_an_iteration(s):
    for change in (lambda: s.add(9), lambda: s.remove(9), s.clear):
        iterator = iter(s)
        next(iterator, None)
        change()
        with pytest.raises(RuntimeError, match="Set changed size during iteration"):
            next(iterator)
        s.add(1)
    iterator = iter(s)
    s.add(1)
    assert list(iterator) == [1]
    assert list(iterator) == []


def test_length_hint(s):
    iterator = iter(s)
    assert operator.length_hint(iterator) == 3
    next(iterator)
    assert operator.length_hint(iterator) == 2
    assert list(iterator) and operator.length_hint(iterator) == 0


def test_an_iterator_keeps_the_set_alive(heap):
    iterator = iter(heap.set(["a string of some length"]))
    heap.collect()
    gc.collect()
    assert list(iterator) == ["a string of some length"]


# --- many -----------------------------------------------------------------------------------------


def test_a_hundred_thousand_elements_in_and_out(heap):
    source = random.Random(5)
    s, plain = heap.set(), set()
    for element in range(100_000):
        s.add(element)
        plain.add(element)
    for element in source.sample(range(100_000), 90_000):
        s.remove(element)
        plain.remove(element)
    assert s == plain and list(s) == sorted(plain)
    heap.root["s"] = s
    heap.commit()
    assert heap.verify().ok
    s.clear()
    assert s == set()


def test_memory_is_given_back(heap):
    heap.root["s"] = s = heap.set()
    before = heap.stats().allocated_bytes
    s.update(("a tuple with", f"a string {i}", frozenset({i, i + 1})) for i in range(2000))
    s.intersection_update([])
    assert heap.stats().allocated_bytes == before


# --- frozensets as values -------------------------------------------------------------------------

FROZEN = [
    frozenset(), frozenset({1}), frozenset({1.0, "a", None}), frozenset({(1, "two"), b"three"}),
    frozenset({frozenset({frozenset()}), frozenset()}), frozenset(range(500)),
    frozenset({2**80, 1e300, -(2**63)}), frozenset({"a string of some length", "\ud800"}),
]  # fmt: skip


@pytest.mark.parametrize("value", FROZEN)
def test_frozensets_come_back_exact(heap, value):
    heap.root["x"] = value
    heap.root["list"] = [value, (value, [value])]
    heap.root["set"] = {value, (value, 1)}
    heap.root[value] = "as a key"
    heap.root[1, value] = "in a key"
    again = frozenset(reversed(list(value)))
    for found in (heap.root["x"], heap.root["list"][0], heap.root["list"][1][0]):
        assert type(found) is frozenset and found == value
    assert heap.root[again] == "as a key" and heap.root[1, again] == "in a key"
    assert again in heap.root["set"] and (again, 1) in heap.root["set"]
    assert again in heap.root["list"] and heap.root["list"].index(again) == 0
    assert to_python(heap.root)["list"][1][0] == value
    heap.root["x"] = 1
    heap.root.pop(again)
    heap.root["list"].clear()
    heap.commit()
    assert heap.verify().ok


def test_equal_frozensets_of_other_forms_are_one_key(heap):
    heap.root[frozenset({1, 2.5})] = "number"
    assert heap.root[frozenset({2.5, True})] == heap.root[frozenset({1.0, 2.5})] == "number"
    heap.root[frozenset({True, 2.5})] = "again"
    assert len(heap.root) == 1
    assert frozenset({1}) not in heap.root and (1, 2.5) not in heap.root
    assert heap.root[frozenset({Number.ONE, Fraction(5, 2)})] == "again"
    assert heap.root[type("Mine", (frozenset,), {})({1, 2.5})] == "again"
    with pytest.raises(KeyError):
        heap.root[frozenset({object()})]
    with pytest.raises(TypeError, match="a heap cannot hold a key of type 'frozenset'"):
        heap.root[frozenset({object()})] = 1


def test_shared_frozensets_are_stored_once(heap):
    shared = frozenset(f"element {i} of some length" for i in range(100))
    used = heap.stats().allocated_bytes
    heap.root["one"] = [shared]
    once = heap.stats().allocated_bytes - used
    heap.root["many"] = [shared, (shared,), {shared}, {shared: shared}, frozenset({shared})] * 5
    assert heap.stats().allocated_bytes - used < once * 3
    plain = to_python(heap.root["many"])
    assert plain[0] is plain[1][0]
    value = frozenset({1})
    for _ in range(200):  # 2^200 elements, were they not shared
        value = frozenset({value, (value, value)})
    heap.root["deep"] = value
    assert heap.verify().ok
    found = heap.root["deep"]
    for _ in range(200):
        assert type(found) is frozenset and len(found) == 2
        found = next(inner for inner in found if type(inner) is frozenset)
    assert found == {1}
    heap.root.clear()
    heap.collect()
    assert heap.verify().ok


def test_frozensets_are_freed_with_their_slot(heap):
    heap.root["list"] = items = heap.list()
    before = heap.stats().allocated_bytes
    for i in range(50):
        items.append(frozenset({f"a string of some length {i}", (i, frozenset({2**70 + i}))}))
    del items[:]
    assert heap.stats().allocated_bytes == before


def test_frozensets_in_lists_compare(heap):
    items = heap.list([frozenset({1, 2}), (frozenset({"a"}),)])
    assert items == [frozenset({2, 1}), (frozenset({"a"}),)]
    assert items.count(frozenset({2, 1})) == 1 and {1, 2} in items
    items.remove({2, 1})
    assert len(items) == 1 and items.index((frozenset({"a"}),)) == 0


def test_frozensets_nested_too_deep(heap):
    value = frozenset()
    for _ in range(1200):
        value = frozenset({value})
    # The interpreter's limit comes first before 3.12, the format's (1000 levels) since.
    with pytest.raises((RecursionError, OverflowError)):
        heap.root["x"] = value
    assert heap.root == {} and heap.verify().ok

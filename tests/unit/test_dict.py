"""Dict behaves as dict does, keeps its entries in the heap, and stays whole when it fails."""

from __future__ import annotations

import collections
import contextlib
import copy
import enum
import gc
import pickle
import random
import types
import weakref
from collections.abc import ItemsView, KeysView, MutableMapping, ValuesView
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy
import pytest
from helpers import steady_repr

import dirtyheap
from dirtyheap import to_python


@pytest.fixture
def d(heap):
    return heap.dict({"a": 1, "b": 2, "c": 3})


def test_get_set_delete(d):
    assert d["a"] == 1
    d["a"] = 10
    d["new"] = "value"
    del d["b"]
    assert d == {"a": 10, "c": 3, "new": "value"}
    assert len(d) == 3
    assert "a" in d and "b" not in d


def test_missing_key_is_named(d):
    for operation in (lambda: d["x"], lambda: d.pop("x"), lambda: d.__delitem__("x")):
        with pytest.raises(KeyError) as error:
            operation()
        assert error.value.args == ("x",)


def test_missing_tuple_key_is_one_argument(d):
    with pytest.raises(KeyError) as error:
        d[1, 2]
    assert error.value.args == ((1, 2),)


def test_set_operations_of_views_take_tuples(d):
    assert d.keys() | (5, 6) == {"a", "b", "c", 5, 6}
    assert d.keys() & ("a",) == {"a"}
    assert d.items() - (("a", 1),) == {("b", 2), ("c", 3)}


def test_order_is_that_of_insertion(heap):
    d = heap.dict()
    for key in (3, 1, 2):
        d[key] = key
    d[1] = "kept in place"
    del d[3]
    d[3] = "last"
    assert list(d) == [1, 2, 3]
    assert list(reversed(d)) == [3, 2, 1]


def test_get_and_setdefault(d):
    assert d.get("a") == 1
    assert d.get("x") is None
    assert d.get("x", 5) == 5
    assert d.setdefault("a", 9) == 1
    assert d.setdefault("x", 9) == 9
    assert d["x"] == 9
    assert d.setdefault("y") is None


def test_setdefault_returns_the_stored_container(d):
    d.setdefault("log", []).append("one")
    d.setdefault("log", []).append("two")
    assert d["log"] == ["one", "two"]
    assert type(d["log"]) is dirtyheap.List


def test_pop_and_popitem(d):
    assert d.pop("a") == 1
    assert d.pop("a", None) is None
    assert d.popitem() == ("c", 3)
    assert d.popitem() == ("b", 2)
    with pytest.raises(KeyError, match="dictionary is empty"):
        d.popitem()


def test_popped_container_stays_usable(heap):
    heap.root["inner"] = {"k": [1, 2]}
    inner = heap.root.pop("inner")
    heap.collect()
    assert inner == {"k": [1, 2]}
    heap.root["back"] = inner
    assert heap.root["back"] is inner


@pytest.mark.parametrize(
    "other",
    [
        {"b": 20, "d": 4},
        [("b", 20), ("d", 4)],
        (pair for pair in [["b", 20], ["d", 4]]),
        types.MappingProxyType({"b": 20, "d": 4}),
        collections.OrderedDict(b=20, d=4),
    ],
    ids=["dict", "pairs", "generator", "mapping", "subclass"],
)
def test_update_takes_what_dict_takes(d, other):
    d.update(other, e=5)
    assert d == {"a": 1, "b": 20, "c": 3, "d": 4, "e": 5}
    assert list(d) == ["a", "b", "c", "d", "e"]


def test_update_from_dicts_of_a_heap(heap, d):
    other = heap.dict({"b": "a string of more than seven bytes", "long key of the other": [1]})
    d.update(other)
    d.update(d)
    assert d["b"] == "a string of more than seven bytes"
    assert d["long key of the other"] is other["long key of the other"]
    other.clear()
    assert d["b"] == "a string of more than seven bytes"


def test_update_errors_are_those_of_dict(d):
    for bad in (5, [1], [(1, 2, 3)], [([], 1)]):
        with pytest.raises((TypeError, ValueError)) as mine:
            d.update(bad)
        with pytest.raises(type(mine.value)) as theirs:
            {}.update(bad)
        assert str(mine.value) == str(theirs.value)
    assert d == {"a": 1, "b": 2, "c": 3}


def test_update_is_all_or_nothing(d):
    with pytest.raises(TypeError):
        d.update({"a": 100, "z": 1, "bad": object()})
    with pytest.raises(ZeroDivisionError):
        d.update((str(i), 1 // (3 - i)) for i in range(10))
    assert d == {"a": 1, "b": 2, "c": 3}


def test_update_beyond_the_capacity_changes_nothing(small_heap):
    d = small_heap.dict({f"key number {i}": "some value of some length" for i in range(1000)})
    small_heap.root["d"] = d
    before = to_python(d)
    new = {f"key number {i}": "overwritten, and long too" for i in range(500, 100_000)}
    with pytest.raises(dirtyheap.HeapFullError, match="capacity="):
        d.update(new)
    assert d == before
    assert list(d) == list(before)
    small_heap.collect()
    d["one more"] = 1
    assert len(d) == 1001


def test_set_beyond_the_capacity_changes_nothing(small_heap):
    root = small_heap.root
    with pytest.raises(dirtyheap.HeapFullError):
        for i in range(1_000_000):
            root[i] = "x" * 100
    assert len(root) == i
    assert i not in root
    assert list(root) == list(range(i))


def test_merge_gives_plain_dicts(d):
    assert d | {"a": 0, "x": 1} == {"a": 0, "b": 2, "c": 3, "x": 1}
    assert {"a": 0, "x": 1} | d == {"a": 1, "x": 1, "b": 2, "c": 3}
    assert type(d | d) is dict
    assert type({} | d) is dict
    with pytest.raises(TypeError):
        d | [("x", 1)]
    before = d
    d |= [("x", 1)]
    assert d is before
    assert d["x"] == 1


def test_copy_and_clear(d):
    plain = d.copy()
    assert type(plain) is dict
    d.clear()
    assert not d
    assert len(d) == 0
    assert plain == {"a": 1, "b": 2, "c": 3}
    d["again"] = 1
    assert list(d) == ["again"]


def test_equality(heap, d):
    plain = {"a": 1, "b": 2, "c": 3}
    assert d == plain and plain == d and not d != plain
    assert d == heap.dict(plain)
    assert d == types.MappingProxyType(plain)
    assert d == collections.UserDict(plain)
    assert d != {"a": 1} and d != {"a": 1, "b": 2, "x": 3} and d != {"a": 1, "b": 2, "c": 4}
    assert d != [("a", 1)] and d != 5 and d != None  # noqa: E711 - the operator is what is tested
    with pytest.raises(TypeError):
        d < plain
    assert heap.dict({1: True}) == {1.0: 1}


def test_equality_of_cycles_is_a_recursion_error(heap):
    one, two = heap.dict(), heap.dict()
    one["self"], two["self"] = one, two
    with pytest.raises(RecursionError):
        one == two
    assert one["self"] == one


def test_repr(heap, d):
    assert repr(d) == "{'a': 1, 'b': 2, 'c': 3}"
    assert str(heap.dict()) == "{}"
    d["self"] = d
    d["list"] = [d]
    assert repr(d) == "{'a': 1, 'b': 2, 'c': 3, 'self': {...}, 'list': [{...}]}"


def test_is_a_mutable_mapping(d):
    assert isinstance(d, MutableMapping)
    assert isinstance(d.keys(), KeysView)
    assert isinstance(d.values(), ValuesView)
    assert isinstance(d.items(), ItemsView)
    match d:
        case {"a": 1, **rest}:
            assert rest == {"b": 2, "c": 3}
        case _:
            pytest.fail("no mapping to the match statement")
    assert dict(d) == {**d} == {"a": 1, "b": 2, "c": 3}
    assert dirtyheap.Dict[str, int].__origin__ is dirtyheap.Dict


def test_cannot_be_made_or_subclassed_or_hashed(d):
    with pytest.raises(TypeError, match=r"heap\.dict\(\)"):
        dirtyheap.Dict()
    with pytest.raises(TypeError):
        type("Sub", (dirtyheap.Dict,), {})
    with pytest.raises(TypeError, match="unhashable type"):
        hash(d)
    with pytest.raises(AttributeError):
        d.attribute = 1
    assert type(d).__module__ == "dirtyheap"
    assert not gc.is_tracked(d)


def test_copies_and_pickles_are_plain(heap, d):
    d["inner"] = {"list": [1, (2, [3])]}
    d["buffer"] = heap.buffer(b"bytes")
    shallow, deep = copy.copy(d), copy.deepcopy(d)
    assert type(shallow) is dict and shallow["inner"] is d["inner"]
    assert type(deep) is dict and type(deep["inner"]["list"]) is list
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps([d, d, d["inner"]], protocol)
        assert b"dirtyheap" not in pickled
        one, two, inner = pickle.loads(pickled)
        assert one is two
        assert one == deep == to_python(d)
        assert inner == {"list": [1, (2, [3])]} and type(inner) is dict
    outer = copy.deepcopy({"in": [d, d]})
    assert outer["in"][0] is outer["in"][1] and type(outer["in"][0]) is dict
    del d["inner"], d["buffer"]
    d["self"] = d
    for plain in (pickle.loads(pickle.dumps(d)), copy.deepcopy(d)):
        assert plain["self"] is plain


# --- keys -----------------------------------------------------------------------------------------

KEYS = [
    None, True, 0, 2, -5, 2**62, -(2**62), 2**62 - 1, 2**63, -(2**63) - 1, 10**50, -(10**50),
    0.5, -0.25, 1e300, float("inf"), 5e-324, "", "short", "exactly", "eight ch", "long" * 100,
    "\0", "a\0b", "\ud800", "x\udfffy" * 5, "ü", "日本語の文字列です", "🎉", b"", b"short",
    b"long bytes!", b"\0", (), (1,), (1, "two", None, 3.5, b"4", (5, (6,))), ("\ud800" * 9, 10**30),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_every_kind_of_key(heap, key):
    d = heap.dict()
    d[key] = "value"
    assert d[key] == "value"
    assert key in d
    assert list(d) == [key]
    assert type(next(iter(d))) is type(key)
    d[key] = "second value"
    assert len(d) == 1
    assert d.pop(key) == "second value"
    assert key not in d
    assert d.setdefault(key, 7) == 7
    assert d.popitem() == (key, 7)
    d.update({key: 1})
    d.update({key: 2})
    assert d == {key: 2}
    assert heap.dict({key: 3}) == {key: 3}


def test_all_keys_together(heap):
    model = {key: i for i, key in enumerate(KEYS)}
    d = heap.dict(model)
    assert d == model
    assert list(d.items()) == list(model.items())


def test_numbers_that_are_equal_are_one_key(heap):
    d = heap.dict({1: "int"})
    d[True] = "bool"
    d[1.0] = "float"
    assert d == {1: "float"}
    assert type(next(iter(d))) is int
    d = heap.dict()
    d[2.0**70] = "float"
    assert d[2**70] == "float"
    d[0] = "zero"
    assert d[-0.0] == "zero" and d[False] == "zero"
    assert "1" not in d and b"" not in d and "" not in d
    d[(1, 2)] = "tuple"
    assert d[(1.0, True + 1)] == "tuple"


def test_bool_and_float_keys_come_back_as_they_were(heap):
    d = heap.dict()
    d[True] = d[2.0] = d[0.5] = 1
    assert [type(key) for key in d] == [bool, float, float]


def test_unhashable_keys_say_what_dict_says(d):
    for key in ([], {}, set(), ([],), d, bytearray(b"x")):
        for use in (
            lambda key=key: d[key],
            lambda key=key: d.__setitem__(key, 1),
            lambda key=key: d.get(key),
            lambda key=key: key in d,
            lambda key=key: d.pop(key, None),
            lambda key=key: d.setdefault(key),
        ):
            with pytest.raises(TypeError, match="unhashable type: '"):
                use()
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        d[[]]


def test_keys_that_no_heap_can_hold_are_absent(d):
    for key in (object(), frozenset({int}), int, (1, object())):
        assert key not in d
        assert d.get(key, "no") == "no"
        assert d.pop(key, "no") == "no"
        with pytest.raises(KeyError):
            d[key]
        with pytest.raises(KeyError):
            del d[key]
        with pytest.raises(TypeError, match="cannot hold a key of type"):
            d[key] = 1
        with pytest.raises(TypeError, match="cannot hold"):
            d.update({key: 1})
    assert len(d) == 3


def test_nan_is_one_key(heap):
    d = heap.dict()
    d[float("nan")] = 1
    d[float("nan")] = 2
    assert len(d) == 1
    assert d[float("nan")] == 2
    d = heap.dict({float("nan"): 1, float("nan"): 2})
    assert list(d.values()) == [2]


# --- iteration and views --------------------------------------------------------------------------


def test_iterating(d):
    assert list(d) == ["a", "b", "c"]
    assert list(d.values()) == [1, 2, 3]
    assert list(d.items()) == [("a", 1), ("b", 2), ("c", 3)]
    assert list(reversed(d.items())) == [("c", 3), ("b", 2), ("a", 1)]
    assert list(reversed(d.values())) == [3, 2, 1]
    iterator = iter(d)
    assert iterator.__length_hint__() == 3
    next(iterator)
    assert iterator.__length_hint__() == 2
    assert list(iterator) == ["b", "c"]
    assert next(iterator, "end") == "end"


def test_changing_size_while_iterating(d):
    for change in (lambda: d.update(new=1), lambda: d.pop("a"), d.clear):
        iterator = iter(d)
        next(iterator)
        change()
        with pytest.raises(RuntimeError, match="changed size during iteration"):
            next(iterator)
        with pytest.raises(RuntimeError):
            next(iterator)


def test_overwriting_while_iterating_is_fine(d):
    for key in d:
        d[key] = 0
    assert list(d.values()) == [0, 0, 0]


def test_delete_and_insert_while_iterating(d):
    with pytest.raises(RuntimeError):
        for key in d:
            del d[key]
            d[key] = 1


def test_views_are_live(d):
    keys, values, items = d.keys(), d.values(), d.items()
    d["d"] = 4
    assert len(keys) == len(values) == len(items) == 4
    assert "d" in keys and 4 in values and ("d", 4) in items
    assert "x" not in keys and 9 not in values and ("d", 5) not in items and "d" not in items
    assert keys.mapping["d"] == 4
    assert repr(keys) == "dict_keys(['a', 'b', 'c', 'd'])"
    assert repr(values) == "dict_values([1, 2, 3, 4])"
    assert repr(items) == "dict_items([('a', 1), ('b', 2), ('c', 3), ('d', 4)])"


def test_views_are_sets(d):
    keys = d.keys()
    plain = {"a": 1, "b": 2, "c": 3}
    assert keys == plain.keys() and keys == {"a", "b", "c"} and {"a", "b", "c"} == keys
    assert keys & ["a", "z"] == {"a"}
    assert keys | {"z"} == {"a", "b", "c", "z"}
    assert keys - {"a"} == {"b", "c"}
    assert {"a", "z"} - keys == {"z"}
    assert keys ^ {"a", "z"} == {"b", "c", "z"}
    assert type(keys & keys) is set
    assert keys > {"a"} and keys >= plain.keys() and not keys < {"a"} and keys <= set("abcd")
    assert keys.isdisjoint("xyz") and not keys.isdisjoint("abc")
    assert d.items() == plain.items() and d.items() != {"a": 9}.items()
    assert d.items() & {("a", 1), ("a", 2)} == {("a", 1)}
    d["list"] = []
    assert d.items() == {**plain, "list": []}.items()
    with pytest.raises(TypeError, match="unhashable"):
        d.items() | set()
    with pytest.raises(TypeError, match="unhashable"):
        hash(keys)
    assert keys != 5


# --- identity and life ----------------------------------------------------------------------------


def test_one_container_is_one_object(heap):
    heap.root["x"] = {}
    x = heap.root["x"]
    assert heap.root["x"] is x
    assert heap.root is heap.root
    heap.root["y"] = x
    assert heap.root["y"] is x
    number = id(x)
    del x
    assert heap.root["x"] is heap.root["y"]
    assert number


def test_proxies_go_away(heap):
    core = heap._core
    base = heap.stats().handles
    objects = [heap.dict({"n": i}) for i in range(100)]
    assert heap.stats().handles == base + 100
    iterators = [iter(obj) for obj in objects] + [obj.keys() for obj in objects]
    del objects
    assert heap.stats().handles == base + 100
    del iterators
    assert heap.stats().handles == base
    assert not core.closed


def test_weak_references(heap):
    d = heap.dict()
    heap.root["d"] = d
    seen = []
    reference = weakref.ref(d, lambda _: seen.append(len(heap.root["d"])))
    assert reference() is d
    del d
    assert reference() is None
    assert seen == [0]


def test_collected_while_unreferenced_only(heap):
    kept = heap.dict({"a": ["inner"]})
    heap.collect()
    assert kept == {"a": ["inner"]}
    heap.root["kept"] = kept
    del kept
    heap.collect()
    assert heap.root["kept"] == {"a": ["inner"]}


def test_random_operations_against_dict(heap):
    random_source = random.Random(20240607)
    keys = [*range(300), *(f"key {i} of some length" for i in range(300)), *KEYS]
    d, model = heap.dict(), {}
    for step in range(30_000):
        key = random_source.choice(keys)
        match random_source.randrange(8):
            case 0 | 1 | 2:
                d[key] = model[key] = step
            case 3:
                assert d.pop(key, None) == model.pop(key, None)
            case 4:
                assert d.get(key, "no") == model.get(key, "no")
            case 5:
                assert (key in d) == (key in model)
            case 6:
                text = f"value {step} of some length"
                assert d.setdefault(key, text) == model.setdefault(key, text)
            case 7:
                some = dict.fromkeys(random_source.sample(keys, 5), f"updated in {step}")
                d.update(some)
                model.update(some)
        assert len(d) == len(model)
    assert d == model
    assert list(d.items()) == list(model.items())
    assert list(reversed(d)) == list(reversed(model))


def test_large(heap):
    d = heap.dict({i: i for i in range(100_000)})
    assert len(d) == 100_000
    assert sum(d) == sum(d.values()) == sum(range(100_000))
    for i in range(0, 100_000, 2):
        del d[i]
    assert list(d) == list(range(1, 100_000, 2))
    assert to_python(d) == {i: i for i in range(1, 100_000, 2)}


# --- keys of other types --------------------------------------------------------------------------


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Colour(enum.StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: float


class Nested(NamedTuple):
    first: int
    rest: tuple


class OtherHash(str):
    """Equal to the plain one, but a dict looks elsewhere."""

    __hash__ = lambda self: 7  # noqa: E731


class NoNumber(str):
    def __float__(self):
        raise RuntimeError("never to be asked")


class Shout(str):
    """Equal to nothing but itself."""

    def __eq__(self, other):
        return self is other

    __hash__ = str.__hash__


EQUAL_KEYS = [
    (1, numpy.int64(1)),
    (1, Level.LOW),
    (1, numpy.float64(1.0)),
    (2, Decimal(2)),
    (2, Fraction(2)),
    (0.5, Fraction(1, 2)),
    (0.5, numpy.float32(0.5)),
    (2**80, Decimal(2**80)),
    (2**80 + 1, Fraction(2**80 + 1)),
    ("red", Colour.RED),
    ("text", numpy.str_("text")),
    (b"bytes", numpy.bytes_(b"bytes")),
    ((1, 2.0), Point(1, 2)),
    ((1, "red"), (Level.LOW, Colour.RED)),
    (1, 1 + 0j),
    (b"view", memoryview(b"view")),
    ((1, (2, (3,))), Nested(1, Nested(2, (3,)))),
]


@pytest.mark.parametrize(("stored", "asked"), EQUAL_KEYS, ids=steady_repr)
def test_a_key_is_found_by_what_is_equal_to_it(heap, stored, asked):
    plain = {stored: "value", "other": 0}
    d = heap.dict(plain)
    assert plain[asked] == "value"
    assert d[asked] == d.get(asked) == "value"
    assert asked in d
    assert d.setdefault(asked, "new") == "value"
    assert d.pop(asked) == "value"
    assert asked not in d
    d[stored] = 1
    del d[asked]
    assert d == {"other": 0}
    if type(asked) in (Decimal, Fraction, complex):  # a heap can hold these themselves
        d[asked] = 1
        assert list(map(type, d)) == [str, type(asked)]
        return
    with pytest.raises(TypeError, match="cannot hold a key"):
        d[asked if type(asked) is not tuple else asked[0]] = 1


def test_conversions_are_not_asked_of_what_is_a_string(heap):
    assert heap.dict({"text": 1})[NoNumber("text")] == 1


def test_deeply_nested_named_tuples_as_keys(heap):
    plain, key = (1, ()), Nested(1, ())
    for _ in range(300):
        plain, key = (1, plain), Nested(1, key)
    assert heap.dict({plain: "found"})[key] == "found"
    for _ in range(100_000):
        key = Nested(1, key)
    with contextlib.suppress(RecursionError):
        assert key not in heap.dict()
    while len(key):  # its destructor recurses too
        key = key[1]


@pytest.mark.parametrize(
    "asked",
    [Decimal("0.1"), 1 + 0j, Decimal("sNaN"), Decimal("1e999"), Fraction(1, 3), object(),
     Shout("text"), OtherHash("text"), Decimal("1e1000000"),
     Decimal("-1e999999999"), numpy.datetime64("2020-01-01"), frozenset({1, int}),
     (1, Decimal("0.1"))],
    ids=steady_repr,
)  # fmt: skip
def test_a_key_is_not_found_by_what_is_not_equal_to_it(heap, asked):
    d = heap.dict({0.1: "float", 2: 1, "text": "text", 1 / 3: 1, (1, 0.1): 1})
    try:
        assert asked not in d
        assert d.get(asked, "absent") == "absent"
    except TypeError as error:  # a signalling NaN has no hash
        assert "hash" in str(error)

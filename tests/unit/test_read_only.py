"""The store gate: a read-only heap refuses every change, by every way.

The ways are found in the classes themselves: a method that stands in neither table fails the test,
so that a new one cannot be forgotten.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import plain

import dirtyheap as dh
from dirtyheap import _native

LONG = "a string that is too long to be inline"


@dh.record
class Place:
    name: str
    size: int = 0
    tags: list = dh.field(default_factory=list)


# Per class: method -> arguments with which it would change a container that holds what `filled`
# puts in. What is given twice is tried twice.
Calls = dict[str, list[tuple[Any, ...]]]
STORES: dict[type, Calls] = {
    dh.Dict: {
        "__setitem__": [("a", 1), ("new", LONG), ("a", [1])],
        "__delitem__": [("a",)],
        "__ior__": [({"b": 1},)],
        "pop": [("a",), ("absent", None)],
        "popitem": [()],
        "setdefault": [("new", 1)],
        "update": [({"b": LONG},), ([("b", 1)],)],
        "clear": [()],
    },
    dh.List: {
        "__setitem__": [(0, 1), (0, LONG), (slice(0, 1), [1]), (slice(0, 2, 2), [1])],
        "__delitem__": [(0,), (slice(0, 1),)],
        "__iadd__": [([1],)],
        "__imul__": [(2,)],
        "append": [(1,), (LONG,), ({},)],
        "extend": [([1],), (iter([1]),)],
        "insert": [(0, 1)],
        "pop": [(), (0,)],
        "remove": [("a",)],
        "reverse": [()],
        "clear": [()],
        "sort": [(), ({"reverse": True},)],
    },
    dh.Deque: {
        "__setitem__": [(0, 1), (0, LONG)],
        "__delitem__": [(0,)],
        "__iadd__": [([1],)],
        "__imul__": [(2,)],
        "append": [(1,), (LONG,)],
        "appendleft": [(1,)],
        "extend": [([1],)],
        "extendleft": [([1],)],
        "insert": [(0, 1)],
        "pop": [()],
        "popleft": [()],
        "remove": [("a",)],
        "reverse": [()],
        "rotate": [(1,)],
        "clear": [()],
    },
    dh.Set: {
        "__iand__": [(set(),)],
        "__ior__": [({1},)],
        "__isub__": [({"a"},)],
        "__ixor__": [({"a"},)],
        "add": [("new",), (LONG,)],
        "discard": [("a",), ("absent",)],
        "remove": [("a",)],
        "pop": [()],
        "clear": [()],
        "update": [(), ([LONG],)],
        "intersection_update": [([],)],
        "difference_update": [(["a"],)],
        "symmetric_difference_update": [(["a"],)],
    },
    dh.SortedDict: {
        "__setitem__": [("a", 1), ("new", LONG)],
        "__delitem__": [("a",)],
        "__ior__": [({"b": 1},)],
        "pop": [("a",), ("absent", None)],
        "popitem": [(), (0,)],
        "setdefault": [("new", 1)],
        "update": [({"b": LONG},)],
        "clear": [()],
    },
    dh.Buffer: {"__setitem__": [(0, 1), (slice(0, 2), b"xy")], "__delitem__": []},
    _native.Array: {"show": []},  # notes which ndarray shows it, outside the heap
    dh.Record: {"__setattr__": [("name", "x"), ("size", 5), ("tags", [])], "__delattr__": []},
}
READS: dict[type, str] = {
    dh.Dict: "get keys values items copy __or__ __ror__ __getitem__ __reversed__",
    dh.List: "index count copy __getitem__ __add__ __mul__ __rmul__ __reversed__",
    dh.Deque: "index count copy maxlen __getitem__ __add__ __mul__ __rmul__ __reversed__",
    dh.Set: "union intersection difference symmetric_difference isdisjoint issubset issuperset copy"
    " __or__ __ror__ __and__ __rand__ __sub__ __rsub__ __xor__ __rxor__",
    dh.SortedDict: "get peekitem keys values items bisect bisect_left bisect_right index irange"
    " islice copy __or__ __ror__ __getitem__ __reversed__",
    dh.Buffer: "tobytes nbytes __getitem__ __buffer__ __release_buffer__",
    _native.Array: "description buffer shown __buffer__ __release_buffer__",
    dh.Record: "",
}
# What every container has.
COMMON = {
    *("__class_getitem__", "__contains__", "__copy__", "__deepcopy__", "__iter__", "__len__"),
    *("__reduce_ex__", "__repr__", "__new__", "__doc__", "__module__", "__hash__", "__eq__"),
    *("__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__weakref__", "__getattribute__"),
    *("__match_args__", "__weaklistoffset__"),
}


def own_names(cls: type) -> set[str]:
    """What a class and its bases below object define."""
    return {name for base in cls.__mro__[:-1] for name in vars(base)}


@pytest.mark.parametrize("cls", STORES, ids=lambda cls: cls.__name__)
def test_every_method_stands_in_a_table(cls: type) -> None:
    known = set(STORES[cls]) | set(READS[cls].split())
    assert own_names(cls) - COMMON <= known, "say whether these methods store"
    assert set(STORES[cls]) & set(READS[cls].split()) == set()


def test_every_container_stands_in_a_table() -> None:
    containers = {cls for cls in vars(_native).values() if isinstance(cls, type)}
    containers = {cls for cls in containers if issubclass(cls, _native.Container)}
    public = {cls for cls in containers if not cls.__name__.startswith("Unknown")}
    assert public - {_native.Container} <= set(STORES)


def filled(heap: dh.Heap) -> dict[type, Any]:
    """One container of each kind, below the root."""
    root = heap.root
    root["dict"] = {"a": 1, LONG: [LONG]}
    root["list"] = ["b", "a"]
    root["deque"] = heap.deque(["a", "b"])
    root["set"] = {"a", LONG}
    root["sorted"] = heap.sorted_dict({"a": 1, "b": 2})
    root["buffer"] = heap.buffer(b"bytes")
    root["record"] = heap.new(Place, "here")
    kinds = (dh.Dict, dh.List, dh.Deque, dh.Set, dh.SortedDict, dh.Buffer, dh.Record)
    return dict(zip(kinds, root.values(), strict=True))


@pytest.fixture
def shut(heap: dh.Heap) -> Iterator[dh.Heap]:
    """A heap with one container of each kind, that refuses stores."""
    filled(heap)
    heap.commit()
    heap._core.read_only = True
    yield heap


def _stores() -> Iterator[Any]:
    for cls, calls in STORES.items():
        for name, arguments in calls.items():
            for number, given in enumerate(arguments):
                yield pytest.param(cls, name, given, id=f"{cls.__name__}.{name}-{number}")


@pytest.mark.parametrize(("cls", "name", "given"), list(_stores()))
def test_a_store_is_refused(shut: dh.Heap, cls: type, name: str, given: tuple[Any, ...]) -> None:
    before, used = plain(shut), shut.stats().allocated_bytes
    container = next(value for value in shut.root.values() if isinstance(value, cls))
    keywords = given[0] if given and name == "sort" else {}
    with pytest.raises(dh.ReadOnlyError, match="reading only"):
        getattr(container, name)(*(() if keywords else given), **keywords)
    assert plain(shut) == before
    assert shut.stats().allocated_bytes == used
    assert shut.pending() == dh.Pending(0, 0)


MAKERS: dict[str, tuple[Any, ...]] = {
    "dict": ({"a": 1},),
    "list": ([1],),
    "set": ([1],),
    "deque": ([1],),
    "sorted_dict": ({1: 1},),
    "buffer": (5,),
    "new": (Place, "x"),
    "array": (3,),
}
VERBS: dict[str, Callable[[dh.Heap], Any]] = {
    "commit": lambda heap: heap.commit("note"),
    "rollback": lambda heap: heap.rollback(),
    "collect": lambda heap: heap.collect(),
    "mark_dirty": lambda heap: heap.mark_dirty(heap.root["buffer"]),
    "transaction": lambda heap: heap.transaction().__enter__(),
}


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_made(shut: dh.Heap, name: str) -> None:
    if name == "array":
        pytest.importorskip("numpy")
    used = shut.stats().allocated_bytes
    with pytest.raises(dh.ReadOnlyError):
        getattr(shut, name)(*MAKERS[name])
    assert shut.stats().allocated_bytes == used


def test_every_maker_of_the_core_stands_in_a_table() -> None:
    made = {name.removeprefix("new_") for name in dir(_native.Core) if name.startswith("new_")}
    assert made <= {*MAKERS, "record"}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_writes_is_refused(shut: dh.Heap, name: str) -> None:
    before = plain(shut)
    with pytest.raises(dh.ReadOnlyError):
        VERBS[name](shut)
    assert plain(shut) == before


def test_reading_goes_on(shut: dh.Heap) -> None:
    assert plain(shut)["dict"] == {"a": 1, LONG: [LONG]}
    assert shut.root["dict"].setdefault("a") == 1
    assert shut.verify().ok
    with shut.hold():
        assert shut.root["record"].tags == []
    assert shut.pending() == dh.Pending(0, 0)


def test_memory_is_handed_out_read_only(shut: dh.Heap) -> None:
    view = memoryview(shut.root["buffer"])
    assert view.readonly
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1
    with pytest.raises((BufferError, TypeError)):
        io.BytesIO(b"12345").readinto(shut.root["buffer"])
    assert bytes(view) == b"bytes"


def test_arrays_are_read_only(heap: dh.Heap) -> None:
    numpy = pytest.importorskip("numpy")
    heap.root["array"] = numpy.arange(4)
    heap._core.read_only = True
    array = heap.root["array"]
    assert not array.flags.writeable and not array[1:].flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array += 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    assert array.tolist() == [0, 1, 2, 3]


def test_a_closed_heap_says_closed(shut: dh.Heap) -> None:
    items = shut.root["list"]
    shut.close()
    with pytest.raises(dh.HeapClosedError):
        items.append(1)
    assert not shut._core.read_only

"""What goes into a heap comes out equal and of the same type; what cannot go in leaves no trace."""

from __future__ import annotations

import array
import collections
import enum
import math
import random
import sys
from typing import NamedTuple

import pytest
from helpers import know_shapes

import dirtyheap
from dirtyheap import to_python

EDGES = [0, 1, -1, 2**30, 2**61, 2**62, 2**63, 2**64, 2**127, 10**100, 1 << 5000]
INTS = sorted({sign * (edge + delta) for edge in EDGES for delta in (-1, 0, 1) for sign in (1, -1)})
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 1e308, -1e-308, 5e-324, 2.0**-255, 2.0**257, 2.0**-256,
          2.0**258, math.inf, -math.inf, math.pi, sys.float_info.max]  # fmt: skip
TEXTS = ["", "a", "seven b", "eight by", "ü" * 3, "ü" * 4, "日本", "🎉🎉", "\0", "a\0b\0" * 9,
         "\ud800", "\udfff" * 3, "mixed \udc80 surrogate and ü", "x" * 5000,
         "\U0010ffff" * 2000]  # fmt: skip
BYTES = [b"", b"\0", b"1234567", b"12345678", bytes(range(256)), b"x" * 5000, b"\xff" * 100_000]
TUPLES = [
    (),
    (1,),
    (None, True, "text", b"bytes", 1.5, 2**70),
    (((), (1, ("deep",))),),
    (0,) * 5000,
]
SCALARS = [None, True, False, *INTS, *FLOATS, *TEXTS, *BYTES, *TUPLES]


def same(a, b):
    """Equal, of the same type at every level, and of the same sign of zero."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b) if isinstance(a, float) else a == b


@pytest.mark.parametrize("value", SCALARS, ids=lambda v: ascii(v)[:40])
def test_scalars_come_back(heap, value):
    heap.root["k"] = value
    assert same(heap.root["k"], value)
    items = heap.list([value])
    assert same(items[0], value)
    items[0] = None
    items[0] = value
    items.append(value)
    assert same(list(items), [value, value])
    assert same(to_python(items), [value, value])
    assert value in items


def test_all_scalars_survive_a_reopen(tmp_path):
    with dirtyheap.open(tmp_path / "h") as heap:
        heap.root["all"] = SCALARS
        heap.commit()
    with dirtyheap.open(tmp_path / "h") as heap:
        assert same(to_python(heap.root["all"]), SCALARS)


def test_nan(heap):
    heap.root["nan"] = math.nan
    assert math.isnan(heap.root["nan"])


def test_random_ints(heap):
    source = random.Random(1)
    numbers = [source.getrandbits(source.randrange(1, 300)) * source.choice([1, -1])
               for _ in range(2000)]  # fmt: skip
    assert heap.list(numbers) == numbers
    assert heap.dict(dict.fromkeys(numbers, 1)) == dict.fromkeys(numbers, 1)


def test_random_floats(heap):
    source = random.Random(2)
    numbers = [source.uniform(-1, 1) * 2.0 ** source.randrange(-1000, 1000) for _ in range(5000)]
    assert same(to_python(heap.list(numbers)), numbers)


# --- copies of plain containers -------------------------------------------------------------------


def test_nested_containers_are_copied_in(heap):
    plain = {"list": [1, [2, {"deep": ("tuple", [3], {"x": None})}]], "dict": {"a": {}}}
    heap.root["copy"] = plain
    copy = heap.root["copy"]
    assert copy == plain
    assert type(copy) is dirtyheap.Dict and type(copy["list"]) is dirtyheap.List
    assert type(copy["list"][1][1]["deep"][1]) is dirtyheap.List
    plain["list"].append("later")
    assert len(copy["list"]) == 2
    assert to_python(copy) == {"list": [1, [2, {"deep": ("tuple", [3], {"x": None})}]],
                               "dict": {"a": {}}}  # fmt: skip


def test_shared_references_stay_shared(heap):
    shared = ["shared"]
    heap.root["copy"] = {"a": shared, "b": [shared, (shared,)]}
    copy = heap.root["copy"]
    assert copy["a"] is copy["b"][0] is copy["b"][1][0]
    back = to_python(copy)
    assert back["a"] is back["b"][0] is back["b"][1][0]
    heap.root["update"] = {}
    heap.root["update"].update(x=shared, y={"z": shared})
    assert heap.root["update"]["x"] is heap.root["update"]["y"]["z"]
    items = heap.list()
    items.extend([shared, [shared]])
    assert items[0] is items[1][0]


def test_list_inside_a_shared_tuple_stays_shared(heap):
    pair = (["inner"],)
    items = heap.list([pair, pair])
    assert items[0][0] is items[1][0]
    items = heap.list([(pair,), (pair,)])
    assert items[0][0][0] is items[1][0][0]


def test_graph_of_tuples_is_not_unrolled(heap):
    """Sixty levels of (t, t): unrolled, 2 ** 60 cells in, objects out and words in a clone."""
    graph = ("leaf", 2**80)
    for _ in range(60):
        graph = (graph, graph)
    heap.root["graph"] = graph
    heap.root["again"] = [graph, {"k": graph}]
    copies = heap.list(heap.root["again"])
    for copy in (heap.root["graph"], to_python(heap.root)["graph"], to_python(copies)[0]):
        depth = 0
        while copy[0] != "leaf":
            assert copy[0] is copy[1]
            copy, depth = copy[0], depth + 1
        assert (copy, depth) == (graph_leaf(graph), 60)


def graph_leaf(graph):
    while graph[0] != "leaf":
        graph = graph[0]
    return graph


def test_shared_tuple_outlives_one_of_its_slots(heap):
    pair = ("some text", ("other text", 2**80))
    heap.root["a"] = [pair, pair, (pair,)]
    items = heap.root["a"]
    del items[0]
    items[0] = None
    heap.root["filler"] = [("xxxx text", ("yyyyy text", 3**60)) for _ in range(100)]
    assert items[1] == (pair,)
    items.clear()
    before = heap.stats().allocated_bytes
    heap.collect()
    assert heap.stats().allocated_bytes < before


def test_to_python_does_not_confuse_a_container_with_one_that_is_gone(heap):
    """A key's __eq__ throws one away and makes another, at the same address as like as not."""

    class Key:
        def __init__(self, action):
            self.action = action

        def __hash__(self):
            return 1

        def __eq__(self, other):
            self.action()
            return self is other

    def replace():
        outer[0].clear()
        outer[2]["inner"] = ["new", heap.root]

    for _ in range(50):
        outer = [{"inner": ["old", heap.root]}, {}, {"inner": None}]
        outer[1][Key(lambda: None)] = 0
        outer[1][Key(lambda: None)] = 1
        for key in outer[1]:
            key.action = replace
        copy = to_python(outer)
        assert copy[0] == {"inner": ["old", {}]}
        assert copy[2] == {"inner": ["new", {}]}


def test_tuple_in_a_cycle_with_itself(heap):
    inner = []
    loop = (inner,)
    inner.append(loop)
    heap.root["x"] = [loop, loop, inner]
    del inner
    copy = heap.root["x"]
    assert copy[0][0] is copy[1][0] is copy[2] is copy[2][0][0]
    plain = to_python(copy)
    assert plain[0][0] is plain[2] is plain[2][0][0]


def test_nan_keys_in_shared_tuples(heap):
    """Two keys to Python, one to the heap: what the second was copied to stays."""
    first, second = (float("nan"), "some text"), (float("nan"), "some text")
    heap.root["x"] = [{first: 1, second: 2}, second, first]
    heap.root["filler"] = [("aaaa text", "bbbb text") for _ in range(100)]
    assert [t[1] for t in heap.root["x"][1:]] == ["some text", "some text"]


def test_cycles_are_kept(heap):
    loop = []
    loop.append(loop)
    heap.root["loop"] = loop
    assert heap.root["loop"][0] is heap.root["loop"]
    a, b = {}, {"list": []}
    a["b"], b["a"] = b, a
    b["list"].append((a, b))
    heap.root["a"] = a
    copy = heap.root["a"]
    assert copy["b"]["a"] is copy
    assert copy["b"]["list"][0][1] is copy["b"]
    back = to_python(copy)
    assert back["b"]["a"] is back and back["b"]["list"][0][0] is back
    assert type(back["b"]["list"]) is list


def test_heap_containers_are_linked(heap):
    inner = heap.list([1])
    heap.root["a"] = inner
    heap.root["b"] = {"deep": [inner, (inner,)]}
    inner.append(2)
    assert heap.root["b"]["deep"][0] == [1, 2]
    assert heap.root["b"]["deep"][1][0] is inner
    heap.root["self"] = heap.root
    assert heap.root["self"]["self"] is heap.root


def test_containers_of_another_heap_are_refused(heap, tmp_path):
    with dirtyheap.open(tmp_path / "other") as other:
        foreign = other.list([1])
        for store in (
            lambda: heap.root.__setitem__("x", foreign),
            lambda: heap.root.update(x=foreign),
            lambda: heap.list([foreign]),
            lambda: heap.list().append((foreign,)),
            lambda: heap.root.update(other.dict({"x": foreign})),
        ):
            with pytest.raises(ValueError, match="of another heap.*to_python"):
                store()
        with pytest.raises(ValueError, match=r"^value\['a'\]\[0\] is a dirtyheap.List of another"):
            heap.root["x"] = {"a": [foreign]}
        assert heap.root == {}
        heap.root["copy"] = to_python(foreign)
        heap.root["shallow"] = heap.list(foreign)
        heap.root.update(other.dict({"n": 1}))
    assert heap.root == {"copy": [1], "shallow": [1], "n": 1}


def test_contents_of_a_new_container(heap):
    assert heap.dict([("a", 1)]) == {"a": 1}
    assert heap.list("abc") == ["a", "b", "c"]
    assert heap.list(heap.list([[1]]))[0] == [1]
    assert heap.dict(heap.dict({"a": []}))["a"] == []


# --- refusals -------------------------------------------------------------------------------------


class Color(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    pass


class Whatever:
    pass


REFUSED = [
    (Color.RED, "Color", r"int\(\)"),
    (Point(1, 2), "Point", r"tuple\(\)"),
    (Text("a"), "Text", r"str\(\)"),
    (collections.OrderedDict(a=1), "collections.OrderedDict", r"dict\(\)"),
    (collections.Counter("a"), "collections.Counter", r"dict\(\)"),
    (type("L", (list,), {})(), "L", r"list\(\)"),
    (type("B", (bytes,), {})(), "B", r"bytes\(\)"),
    (type("F", (float,), {})(1), "F", r"float\(\)"),
    (bytearray(b"x"), "bytearray", r"heap\.buffer\(\)"),
    (memoryview(b"x"), "memoryview", r"heap\.buffer\(\)"),
    (type("S", (set,), {})(), "S", r"set\(\)"),
    (type("F", (frozenset,), {})(), "F", r"frozenset\(\)"),
    (array.array("d"), "array.array", "heap.buffer"),
    (Whatever(), "Whatever", "store None, bool"),
    (int, "type", "store None, bool"),
    (print, "builtin_function_or_method", "store None, bool"),
    (Ellipsis, "ellipsis", "store None, bool"),
]


@pytest.mark.parametrize(("value", "name", "advice"), REFUSED, ids=[row[1] for row in REFUSED])
def test_refused_values(heap, value, name, advice):
    heap.root["kept"] = ["as", "it", "was"]
    know_shapes(heap, ["first", "a"], ["b c"], ["x", "a"])
    before = heap.stats()
    with pytest.raises(TypeError, match=f"^value is of type '.*{name}', .*{advice}"):
        heap.root["x"] = value
    place = r"value\['a'\]\[3\]\[1\]\['b c'\]\[0\]"
    with pytest.raises(TypeError, match=f"^{place} is of type '.*{name}', .*{advice}"):
        heap.root["x"] = {"first": [1, 2] * 50, "a": [0, 1, 2, ("t", {"b c": [value]})]}
    with pytest.raises(TypeError, match=r"^value\['a'\]"):
        heap.root.update({"x": 1, "a": value})
    with pytest.raises(TypeError, match=r"^value\[1\]"):
        heap.root["kept"].extend(["long enough to need a cell", value])
    with pytest.raises(TypeError, match="^value is"):
        heap.root["kept"].append(value)
    with pytest.raises(TypeError, match="^value is"):
        heap.root.setdefault("x", value)
    assert heap.root == {"kept": ["as", "it", "was"]}
    assert heap.stats().allocated_bytes == before.allocated_bytes


def test_refused_numpy_scalars(heap):
    import numpy

    with pytest.raises(TypeError, match=r"numpy.float64.*float\(\)"):
        heap.root["x"] = numpy.float64(1)
    with pytest.raises(TypeError, match="numpy.int64"):
        heap.root["x"] = numpy.int64(1)
    with pytest.raises(TypeError, match=r"value\['a'\]\[0\] is of type 'numpy.ma.*Array'"):
        heap.root["x"] = {"a": [numpy.ma.zeros(3)]}
    assert heap.root == {}


def test_refused_key_deep_inside(heap):
    for key in (Color.RED, Point(1, 2), frozenset({int})):
        with pytest.raises(TypeError, match=r"^value\['a'\]\[1\] has a key of type '.*"):
            heap.root["x"] = {"a": [0, {"ok": 1, key: 2}]}
    with pytest.raises(TypeError, match="has a key of type 'tuple'"):
        heap.root["x"] = {(1, (2, Whatever())): 1}
    assert heap.root == {}


def test_repr_of_a_key_in_the_message_may_do_anything(heap):
    class Key(str):
        def __repr__(self):
            heap.root["from repr"] = 1
            return "<a key>"

    with pytest.raises(TypeError, match=r"^value\[<a key>\] is of type 'bytearray'"):
        heap.root["x"] = {Key("k"): bytearray()}
    assert heap.root == {"from repr": 1}


def deep(levels, leaf=None):
    value = leaf
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


def test_too_deep_is_a_recursion_error_and_stores_nothing(heap):
    know_shapes(heap, ["k"], ["x"])
    before = heap.stats().allocated_bytes
    too_deep = deep(200_000)
    for store in (
        lambda: heap.root.__setitem__("x", too_deep),
        lambda: heap.root.update(x=too_deep),
        lambda: heap.list([too_deep]),
    ):
        with pytest.raises(RecursionError):
            store()
    assert heap.root == {}
    assert heap.stats().allocated_bytes <= before
    while too_deep is not None:  # its destructor recurses too
        too_deep = too_deep[0] if type(too_deep) is list else too_deep["k"]


def test_deep_tuple_keys(heap):
    key = ()
    for _ in range(50):
        key = (key,)
    heap.root[key] = 1
    assert heap.root[key] == 1
    for _ in range(100_000):
        key = (key,)
    with pytest.raises((RecursionError, TypeError)):
        heap.root[key] = 1
    with pytest.raises(RecursionError):
        heap.root["x"] = key
    assert len(heap.root) == 1


def test_long_chains_inside_the_heap(heap):
    """Linked one by one, so any depth is legal; what must copy or show it recursively says so."""
    node = heap.root
    for _ in range(20_000):
        node["next"] = child = heap.dict()
        node = child
    for use in (to_python, repr, lambda root: root == to_python(root)):
        with pytest.raises(RecursionError):
            use(heap.root)
    heap.collect()
    heap.commit()
    assert len(heap.root) == 1


def test_capacity_reached_in_mid_copy(small_heap):
    small_heap.root["kept"] = 1
    used = small_heap.stats().allocated_bytes
    big = {"list": [f"string number {i} of some length" for i in range(200_000)]}
    for store in (
        lambda: small_heap.root.__setitem__("x", big),
        lambda: small_heap.root.setdefault("x", big),
        lambda: small_heap.list([big]),
    ):
        with pytest.raises(dirtyheap.HeapFullError, match="capacity="):
            store()
    assert small_heap.root == {"kept": 1}
    assert small_heap.stats().allocated_bytes <= used + 4096
    small_heap.root["x"] = ["there is room"] * 1000
    assert len(small_heap.root["x"]) == 1000


# --- overwriting and freeing ----------------------------------------------------------------------


def test_overwriting_frees_what_was_there(heap):
    heap.root["x"] = "y" * 1000
    used = heap.stats().allocated_bytes
    for i in range(1000):
        heap.root["x"] = chr(97 + i % 26) * 1000
        heap.root["t"] = (i, "z" * 100, (str(i) * 20,))
    del heap.root["t"]
    assert heap.stats().allocated_bytes <= used + 64


def test_to_python_of_other_things(heap):
    for value in (1, "a", None, object, 1.5, {1}):
        assert to_python(value) is value
    assert to_python(heap.root) == {}


def test_to_python_of_plain_containers_around_a_heaps(heap):
    heap.root["x"] = x = heap.list([1])
    plain = {"a": [x, (x, heap.root)], Whatever: heap.buffer(b"b"), "dict": {}}
    plain["self"] = plain
    copy = to_python(plain)
    assert copy["self"] is copy
    assert type(copy["a"][0]) is list and copy["a"][0] == [1]
    assert copy["a"][0] is copy["a"][1][0] is copy["a"][1][1]["x"]
    assert copy[Whatever] == bytearray(b"b")
    assert copy["dict"] == {} and copy["dict"] is not plain["dict"]
    heap.root["tuple"] = ([1], {"k": ()})
    assert type(to_python(heap.root["tuple"])[0]) is list
    assert type(to_python([x][0:])[0]) is list
    with pytest.raises(RecursionError):
        to_python(deep(200_000))


def test_to_python_over_two_heaps(heap, tmp_path):
    with dirtyheap.open(tmp_path / "other") as other:
        assert to_python([heap.list([1]), other.list([2])]) == [[1], [2]]


def test_to_python_with_keys_that_meddle(tmp_path):
    heap = dirtyheap.open(tmp_path / "h")

    class Key:
        def __hash__(self):
            if armed:
                heap.close()
            return 1

    armed = False
    plain = {Key(): heap.list([1]), "after": heap.list([2])}
    armed = True
    with pytest.raises(dirtyheap.HeapClosedError):
        to_python(plain)

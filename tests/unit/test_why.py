"""heap.why(): the path that keeps a container alive, or who else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import in_child, seeded

import dirtyheap as dh


@dh.record(name="why.Node")
class Node:
    name: str
    next: Any = None


def test_paths(heap: dh.Heap) -> None:
    root = heap.root
    root["users"] = [{"name": "Ada", "tags": ["x"]} for _ in range(30)]
    root["sorted"] = heap.sorted_dict({i: [i] for i in range(3000)})
    root["tuple"] = (1, (2, [3]))
    root["deque"] = heap.deque([[1], [2]])
    root["node"] = heap.new(Node, "first", heap.new(Node, "second", []))
    root["big"] = {f"a key that is rather long, number {i}": [i] for i in range(5000)}
    long_key = "a key that is rather long, number 4321"
    found = {
        "root": root,
        "root['users'][17]['tags']": root["users"][17]["tags"],
        "root['sorted'][2345]": root["sorted"][2345],
        "root['tuple'][1][1]": root["tuple"][1][1],
        "root['deque'][1]": root["deque"][1],
        "root['node'].next.next": root["node"].next.next,
        f"root['big']['{long_key}']": root["big"][long_key],
    }
    for path, container in found.items():
        why = heap.why(container)
        assert why and why.held_by == "root" and why.path == str(why) == path
        assert eval(path, {"root": root}) is container
        assert why.omitted == 0 and "".join(step.text for step in why.steps) == path[4:]


def test_types_of_steps(heap: dh.Heap) -> None:
    heap.root["a"] = [(1, heap.new(Node, "n", {"x": heap.deque()}))]
    why = heap.why(heap.root["a"][0][1].next["x"])
    assert [(step.text, step.type) for step in why.steps] == [
        *(("['a']", "list"), ("[0]", "tuple"), ("[1]", "why.Node"), (".next", "dict")),
        ("['x']", "deque"),
    ]


def test_the_shortest_path(heap: dh.Heap) -> None:
    leaf = heap.list()
    heap.root["deep"] = [[[[leaf]]]]
    assert heap.why(leaf).path == "root['deep'][0][0][0][0]"
    heap.root["x"] = {"short": leaf}
    assert heap.why(leaf).path == "root['x']['short']"
    del heap.root["x"]
    heap.root["deep"][0][0][0].append(heap.root["deep"])  # a way back up
    assert heap.why(leaf).path == "root['deep'][0][0][0][0]"


def test_keys_and_elements(heap: dh.Heap) -> None:
    node = heap.new(Node, "a key")
    heap.root["d"] = {node: 1}
    assert heap.why(node).path.startswith("root['d'] key <record at ")
    del heap.root["d"]
    heap.root["s"] = {node}
    assert heap.why(node).path.startswith("root['s'] element <record at ")
    del heap.root["s"]
    heap.root["f"] = frozenset({node})
    assert heap.why(node).path == "root['f'] element 0"


def test_held_by_python(heap: dh.Heap) -> None:
    alone = heap.list()
    why = heap.why(alone)
    assert not why and (why.held_by, why.origin, why.steps) == ("python", "list", ())
    assert str(why) == "only Python's references keep this list: nothing leads to it"
    holder = heap.dict({"in": heap.list([heap.new(Node, "n")])})
    node = holder["in"][0]
    why = heap.why(node)
    assert not why and why.held_by == "container"
    assert str(why) == "<dict held by Python>['in'][0]"
    heap.root["holder"] = holder
    assert heap.why(node).path == "root['holder']['in'][0]"


def test_a_cycle_that_nothing_leads_to(heap: dh.Heap) -> None:
    one, two = heap.list(), heap.list()
    one.append(two)
    two.append(one)
    assert heap.why(one).path == "<list held by Python>[0]"
    del two
    assert heap.why(one).held_by == "python"  # its own way round is no reason


def test_arrays(heap: dh.Heap) -> None:
    heap.root["a"] = np.arange(10)
    array = heap.root["a"]
    assert heap.why(array).path == "root['a']"
    assert heap.why(array[2:5]).path == "root['a']"
    assert heap.why(np.asarray(memoryview(array))).path == "root['a']"
    heap.root["b"] = heap.buffer(10)
    assert heap.why(heap.root["b"]).path == "root['b']"


def test_what_is_no_container(heap: dh.Heap) -> None:
    heap.root["d"] = {"a": 1}
    for value in (None, 1, "text", (1, 2), [], {}, np.zeros(3), heap.root.keys(), heap, Node):
        with pytest.raises(TypeError, match="a container of this heap is expected"):
            heap.why(value)
    with pytest.raises(TypeError):
        heap.why()  # type: ignore[call-arg]


def test_containers_of_others(heap: dh.Heap, path: Path) -> None:
    with dh.open(path.parent / "other") as other:
        foreign = other.list()
        with pytest.raises(ValueError, match="another heap"):
            heap.why(foreign)
    with pytest.raises(dh.HeapClosedError):
        heap.why(foreign)
    with pytest.raises(dh.HeapClosedError, match="the heap is closed"):
        other.why(foreign)


def test_what_was_rolled_back(heap: dh.Heap) -> None:
    heap.commit()
    made = heap.root["new"] = heap.list()
    heap.rollback()
    with pytest.raises(dh.StaleObjectError):
        heap.why(made)


def test_in_a_child(heap: dh.Heap) -> None:
    assert in_child(lambda: heap.why(heap.root))[:2] == ("raised", "HeapClosedError")


def test_inside_another_verb(heap: dh.Heap) -> None:
    heap.root["x"] = [1]
    with heap.transaction():
        inner = heap.root["x"]
        inner.append([2])
        assert heap.why(inner[1]).path == "root['x'][1]"
        assert heap.census().of("list").objects == 2


def test_snapshots(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = {"b": [[1]]}
        heap.commit()
        with dh.open(path, read_only=True) as old:
            assert old.why(old.root["a"]["b"][0]).path == "root['a']['b'][0]"
            with pytest.raises(ValueError, match="another heap"):
                old.why(heap.root)


def test_a_path_that_is_long(heap: dh.Heap) -> None:
    last = heap.root["chain"] = heap.list()
    for _ in range(5000):
        last.append([])
        last = last[0]
    why = heap.why(last)
    assert len(why.steps) == 1000 and why.omitted == 4001
    assert why.path.startswith("root['chain'][0][0]") and " ..(4001 more).. [0]" in why.path
    assert why.path.endswith("[0][0]")


def test_odd_keys(heap: dh.Heap) -> None:
    keys: list[Any] = [
        *("it's", "new\nline", "\udc80 surrogate", "ü" * 500, b"\0\xff", 1 << 80, 1.5, None, True),
        *((1, "two"), frozenset({1})),
    ]
    for key in keys:
        heap.root[key] = heap.list()
        path = heap.why(heap.root[key]).path
        assert path.startswith("root[") and "\n" not in path
        del heap.root[key]


def test_random_graphs(heap: dh.Heap) -> None:
    """Every path is right, and as short as a search in Python finds."""
    rng = seeded("why")
    lists = [heap.list() for _ in range(300)]
    for one in lists:
        one.extend(rng.choice(lists) for _ in range(rng.randrange(4)))
    heap.root["first"] = lists[0]
    depths = {0: 1}
    number = {id(one): place for place, one in enumerate(lists)}
    line = [0]
    for at in line:
        for child in lists[at]:
            place = number[id(child)]
            if place not in depths:
                depths[place] = depths[at] + 1
                line.append(place)
    for place, one in enumerate(lists):
        why = heap.why(one)
        assert bool(why) == (place in depths)
        if why:
            assert len(why.steps) == depths[place]
            assert eval(why.path, {"root": heap.root}) is one
        else:
            assert why.held_by in ("python", "container")

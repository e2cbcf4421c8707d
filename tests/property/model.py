"""The model that a heap is held against: plain dicts, lists, sets and the like, with identity.

A node is one container. Scalars stand in contents as they are, containers as nodes, so sharing and
cycles are those of the model. A state is a shallow copy of the content of every node that lives; to
go back to it is to put these contents back: the nodes, like handles, stay the same objects.
"""

from __future__ import annotations

import math
from collections import UserDict, deque
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import dirtyheap as dh


class Sorted(UserDict[Any, Any]):
    """Content of a SortedDict; its order is made when it is asked for."""


Content = dict[Any, Any] | list[Any] | bytearray | set[Any] | deque[Any] | Sorted

KINDS = {
    dh.Dict: dict,
    dh.List: list,
    dh.Buffer: bytearray,
    dh.Set: set,
    dh.Deque: deque,
    dh.SortedDict: Sorted,
}


class Node:
    """One container of the model."""

    __slots__ = ("content",)

    def __init__(self, content: Content) -> None:
        self.content = content

    def __repr__(self) -> str:
        return f"<Node {type(self.content).__name__} of {len(self.content)}>"


State = dict[Node, Any]


def children(value: Any) -> Iterable[Node]:
    """Nodes that one value leads to at once."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from children(item)


def items_of(node: Node) -> Iterable[Any]:
    """The values that stand in a node."""
    if isinstance(node.content, (dict, Sorted)):
        return node.content.values()
    return node.content if isinstance(node.content, (list, deque)) else ()


def take_state(roots: Iterable[Node]) -> State:
    """A copy of everything reachable."""
    state: State = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in state:
            continue
        state[node] = node.content.copy()
        for value in items_of(node):
            stack.extend(children(value))
    return state


def show_state(state: State) -> None:
    """Go back to it."""
    for node, content in state.items():
        node.content = content.copy()


def copied_in(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """What storing a plain value makes of it: its containers become new nodes, shared ones once."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if type(value) is tuple:
        return tuple(copied_in(item, memo) for item in value)
    if type(value) is list:
        made: list[Any] = []
        node = memo[id(value)] = Node(made)
        made.extend(copied_in(item, memo) for item in value)
        return node
    if type(value) is deque:
        node = memo[id(value)] = Node(deque(maxlen=value.maxlen))
        node.content.extend(copied_in(item, memo) for item in value)
        return node
    if type(value) is set:
        node = memo[id(value)] = Node(set(value))
        return node
    if type(value) is dict:
        node = memo[id(value)] = Node({})
        for key, item in value.items():
            node.content[key] = copied_in(item, memo)
        return node
    return value


class Mismatch(AssertionError):
    """The heap is not what the model says."""


class Comparison:
    """One walk over heap and model together. Proxies are kept alive, so that one container is one
    object throughout; the pairing of proxies and nodes must be one to one."""

    def __init__(self) -> None:
        self.node_of: dict[int, Node] = {}
        self.proxy_of: dict[Node, Any] = {}
        self.stack: list[tuple[str, Any, Node]] = []

    def run(self, where: str, proxy: Any, node: Node) -> None:
        self.value(where, proxy, node)
        while self.stack:
            self.container(*self.stack.pop())

    def value(self, where: str, found: Any, expected: Any) -> None:
        if isinstance(expected, Node):
            self.link(where, found, expected)
        elif type(found) is not type(expected):
            raise Mismatch(f"{where}: {found!r}, expected {expected!r}")
        elif isinstance(expected, tuple):
            if len(found) != len(expected):
                raise Mismatch(f"{where}: {found!r}, expected {expected!r}")
            for i, item in enumerate(expected):
                self.value(f"{where}[{i}]", found[i], item)
        elif not same_scalar(found, expected):
            raise Mismatch(f"{where}: {found!r}, expected {expected!r}")

    def link(self, where: str, proxy: Any, node: Node) -> None:
        if KINDS.get(type(proxy)) is not type(node.content):
            raise Mismatch(f"{where}: {type(proxy).__name__}, expected {node!r}")
        if node in self.proxy_of:
            if self.proxy_of[node] is not proxy:
                raise Mismatch(f"{where}: one container is two objects")
            return
        if id(proxy) in self.node_of:
            raise Mismatch(f"{where}: two containers are one object")
        self.proxy_of[node] = proxy
        self.node_of[id(proxy)] = node
        self.stack.append((where, proxy, node))

    def container(self, where: str, proxy: Any, node: Node) -> None:
        content = node.content
        if len(proxy) != len(content):
            raise Mismatch(f"{where}: length {len(proxy)}, expected {len(content)}")
        if isinstance(content, bytearray):
            if bytes(proxy[:]) != bytes(content):
                raise Mismatch(f"{where}: the bytes differ")
        elif isinstance(content, set):
            found_elements = {element: element for element in proxy}
            for element in content:
                if element not in proxy or element not in found_elements:
                    raise Mismatch(f"{where}: lacks {element!r}")
                self.value(f"an element of {where}", found_elements[element], element)
        elif isinstance(content, (list, deque)):
            if isinstance(content, deque) and proxy.maxlen != content.maxlen:
                raise Mismatch(f"{where}: maxlen {proxy.maxlen}, expected {content.maxlen}")
            for i, (found, expected) in enumerate(zip(proxy, content, strict=True)):
                self.value(f"{where}[{i}]", found, expected)
        else:
            items = (
                content.items()
                if isinstance(content, dict)
                else sorted(content.items(), key=itemgetter(0))
            )
            for (found_key, found), (key, expected) in zip(proxy.items(), items, strict=True):
                self.value(f"a key of {where}", found_key, key)
                self.value(f"{where}[{key!r}]", found, expected)


def same_scalar(found: Any, expected: Any) -> bool:
    """Equal, and for floats equal in sign and in being NaN; for richer types of the same text too,
    which tells apart what equality does not, as a Decimal's zeros and a datetime's fold."""
    if isinstance(expected, float):
        if math.isnan(expected):
            return math.isnan(found)
        return found == expected and math.copysign(1, found) == math.copysign(1, expected)
    if isinstance(expected, frozenset):
        return found == expected and sorted(map(repr, found)) == sorted(map(repr, expected))
    if not isinstance(expected, (int, str, bytes, type(None))) and repr(found) != repr(expected):
        return False
    return bool(found == expected)

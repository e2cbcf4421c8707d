"""Steps of the state machine on Set, Deque and SortedDict; those on other kinds stand with it."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from model import Comparison, Node, Sorted, copied_in
from values import keys, leaves, numbers, picks, plain_values

ENDS = ("left", "right")


class MoreContainers(RuleBasedStateMachine):
    """Needs pick() of the machine; a step on a kind of which there is no handle does nothing."""

    heap: Any

    def pick(self, number: int, kind: type | None = None) -> tuple[Any, Node] | None:
        raise NotImplementedError

    # --- Set ------------------------------------------------------------------------------------

    @rule(pick=picks, element=keys)
    def set_add(self, pick: int, element: Any) -> None:
        chosen = self.pick(pick, set)
        if chosen:
            chosen[0].add(element)
            chosen[1].content.add(element)

    @rule(pick=picks, number=numbers, wanted=st.sampled_from(["discard", "remove", "absent"]))
    def set_remove(self, pick: int, number: int, wanted: str) -> None:
        chosen = self.pick(pick, set)
        if not chosen:
            return
        proxy, node = chosen
        if wanted == "absent" or not node.content:
            with pytest.raises(KeyError):
                proxy.remove("no such element at all")
            return
        element = list(node.content)[number % len(node.content)]
        getattr(proxy, wanted)(element)
        node.content.remove(element)

    @rule(
        pick=picks,
        start=st.integers(-5, 400),
        count=st.integers(1, 700),
        wanted=st.sampled_from(["__ior__", "__iand__", "__isub__", "__ixor__"]),
    )
    def set_algebra(self, pick: int, start: int, count: int, wanted: str) -> None:
        """Enough elements that tables grow, split and shrink."""
        chosen = self.pick(pick, set)
        if chosen:
            other = set(range(start, start + count))
            getattr(chosen[0], wanted)(other)
            getattr(chosen[1].content, wanted)(other)

    # --- Deque ----------------------------------------------------------------------------------

    @rule(pick=picks, value=plain_values, end=st.sampled_from(ENDS))
    def deque_append(self, pick: int, value: Any, end: str) -> None:
        chosen = self.pick(pick, deque)
        if chosen:
            name = "append" if end == "right" else "appendleft"
            getattr(chosen[0], name)(value)
            getattr(chosen[1].content, name)(copied_in(value))

    @rule(pick=picks, other=picks)
    def deque_link(self, pick: int, other: int) -> None:
        chosen = self.pick(pick, deque)
        if chosen:
            linked, linked_node = self.pick(other)
            chosen[0].append(linked)
            chosen[1].content.append(linked_node)

    @rule(pick=picks, count=st.integers(1, 900), value=leaves, end=st.sampled_from(ENDS))
    def deque_extend(self, pick: int, count: int, value: Any, end: str) -> None:
        chosen = self.pick(pick, deque)
        if chosen:
            name = "extend" if end == "right" else "extendleft"
            for side in (chosen[0], chosen[1].content):
                getattr(side, name)([value, *range(count)])

    @rule(pick=picks, count=st.integers(1, 700), end=st.sampled_from(ENDS))
    def deque_pop(self, pick: int, count: int, end: str) -> None:
        chosen = self.pick(pick, deque)
        if not chosen:
            return
        proxy, node = chosen
        name = "pop" if end == "right" else "popleft"
        for _ in range(min(count, len(node.content))):
            found, expected = getattr(proxy, name)(), getattr(node.content, name)()
            if not isinstance(expected, Node):
                Comparison().value("popped", found, expected)
        if not node.content:
            with pytest.raises(IndexError):
                getattr(proxy, name)()

    @rule(pick=picks, number=numbers)
    def deque_delete(self, pick: int, number: int) -> None:
        chosen = self.pick(pick, deque)
        if chosen and chosen[1].content:
            index = number % len(chosen[1].content)
            del chosen[0][index]
            del chosen[1].content[index]

    @rule(pick=picks, steps=st.integers(-1000, 1000))
    def deque_rotate(self, pick: int, steps: int) -> None:
        chosen = self.pick(pick, deque)
        if chosen:
            chosen[0].rotate(steps)
            chosen[1].content.rotate(steps)

    @rule(pick=picks, number=numbers, value=plain_values)
    def deque_set(self, pick: int, number: int, value: Any) -> None:
        chosen = self.pick(pick, deque)
        if chosen and chosen[1].content:
            index = number % len(chosen[1].content)
            chosen[0][index] = value
            chosen[1].content[index] = copied_in(value)

    # --- SortedDict -----------------------------------------------------------------------------

    @rule(pick=picks, key=st.integers(-2000, 2000), value=plain_values)
    def sorted_set(self, pick: int, key: int, value: Any) -> None:
        chosen = self.pick(pick, Sorted)
        if chosen:
            chosen[0][key] = value
            chosen[1].content[key] = copied_in(value)

    @rule(pick=picks, key=st.integers(-9, 9), other=picks)
    def sorted_link(self, pick: int, key: int, other: int) -> None:
        chosen = self.pick(pick, Sorted)
        if chosen:
            linked, linked_node = self.pick(other)
            chosen[0][key] = linked
            chosen[1].content[key] = linked_node

    @rule(
        pick=picks,
        start=st.integers(-2000, 2000),
        count=st.integers(1, 1500),
        step=st.integers(-7, 7).filter(bool),
        value=leaves,
    )
    def sorted_fill(self, pick: int, start: int, count: int, step: int, value: Any) -> None:
        """Enough entries that nodes split."""
        chosen = self.pick(pick, Sorted)
        if chosen:
            more = dict.fromkeys(range(start, start + count * step, step), value)
            chosen[0].update(more)
            chosen[1].content.update(more)

    @rule(pick=picks, low=st.integers(-2500, 2500), width=st.integers(0, 3000))
    def sorted_cut(self, pick: int, low: int, width: int) -> None:
        """Take a range out, found by the heap; enough that nodes merge."""
        chosen = self.pick(pick, Sorted)
        if chosen:
            proxy, node = chosen
            expected = sorted(key for key in node.content if low <= key <= low + width)
            assert list(proxy.irange(low, low + width)) == expected
            for key in expected:
                del proxy[key]
                del node.content[key]

    @rule(pick=picks, key=st.integers(-2500, 2500), number=numbers)
    def sorted_look(self, pick: int, key: int, number: int) -> None:
        chosen = self.pick(pick, Sorted)
        if chosen:
            proxy, node = chosen
            in_order = sorted(node.content)
            assert proxy.bisect_left(key) == sum(other < key for other in in_order)
            if in_order:
                index = number % len(in_order)
                assert proxy.peekitem(index)[0] == in_order[index]
                assert proxy.index(in_order[index]) == index

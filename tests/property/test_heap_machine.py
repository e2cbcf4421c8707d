"""A heap and its model in plain containers stay equal, whatever is done to them in whatever order.

Nested containers of all kinds; commits, commits that fail, rollbacks, nested transactions that end
well or not, collections, folds, reopening. Handles keep their identity over all of it; those to
containers that a state does not hold raise StaleObjectError. Hypothesis chooses the steps and
shrinks what fails. The long version runs under `make soak`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, collect, fault, require_tracker
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from machine_rules import MoreContainers
from model import Comparison, Mismatch, Node, Sorted, State, copied_in, show_state, take_state
from values import keys, kinds, leaves, names, numbers, picks, plain_values, scalars

import dirtyheap as dh

CAPACITY = 64 << 20
BUFFER_BYTES_MAX = 40_000


class Undo(Exception):
    """What a transaction is left with when it shall be undone."""


class HeapMachine(MoreContainers):
    """One heap, one model, and the handles that a program would hold."""

    tracker = "auto"

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dh-machine-"))
        self.root = Node({})
        self.committed: State = take_state([self.root])
        self.commits = 0
        self.open()

    def open(self) -> None:
        self.heap = dh.open(self.directory / "heap", capacity=CAPACITY, tracker=self.tracker)
        self.handles: list[tuple[Any, Node]] = [(self.heap.root, self.root)]
        self.transactions: list[tuple[Any, State]] = []

    # --- helpers --------------------------------------------------------------------------------

    def pick(self, number: int, kind: type | None = None) -> tuple[Any, Node] | None:
        """One of the handles, of one kind if need be."""
        fitting = [h for h in self.handles if kind is None or isinstance(h[1].content, kind)]
        return fitting[number % len(fitting)] if fitting else None

    def take(self) -> State:
        return take_state(node for _, node in self.handles)

    def add_handle(self, proxy: Any, node: Node) -> None:
        """Hold it; if it is held already, it must be the same object."""
        for held, known in self.handles:
            assert (held is proxy) == (known is node), f"identity of {proxy!r}"
        if all(known is not node for _, known in self.handles):
            self.handles.append((proxy, node))

    def went_back_to(self, state: State) -> None:
        """The heap shows this state now: so must the model, and the handles by their age."""
        show_state(state)
        stale = [proxy for proxy, node in self.handles if node not in state]
        self.handles = [(proxy, node) for proxy, node in self.handles if node in state]
        for proxy in stale:
            with pytest.raises(dh.StaleObjectError):
                len(proxy)
            with pytest.raises(dh.StaleObjectError):
                self.heap.root["stale"] = proxy
            with pytest.raises(dh.StaleObjectError):
                dh.to_python(proxy)

    def compare(self) -> None:
        comparison = Comparison()
        for number, (proxy, node) in enumerate(self.handles):
            comparison.run(f"handle {number}", proxy, node)
        assert self.handles[0][0] is self.heap.root

    # --- containers -----------------------------------------------------------------------------

    @initialize(value=plain_values)
    def first_value(self, value: Any) -> None:
        self.heap.root["first"] = value
        self.root.content["first"] = copied_in(value)

    @rule(pick=picks, key=keys, value=plain_values)
    def dict_set(self, pick: int, key: Any, value: Any) -> None:
        proxy, node = self.pick(pick, dict)
        proxy[key] = value
        node.content[key] = copied_in(value)

    @rule(pick=picks, key=keys, other=picks)
    def dict_link(self, pick: int, key: Any, other: int) -> None:
        """A container linked: shared, and cycles among them."""
        proxy, node = self.pick(pick, dict)
        linked, linked_node = self.pick(other)
        proxy[key] = linked
        node.content[key] = linked_node

    @rule(pick=picks, number=numbers, wanted=st.sampled_from(["del", "pop", "popitem", "absent"]))
    def dict_delete(self, pick: int, number: int, wanted: str) -> None:
        proxy, node = self.pick(pick, dict)
        names = list(node.content)
        if wanted == "absent" or not names:
            with pytest.raises(KeyError):
                del proxy["no such key at all"]
            return
        key = names[number % len(names)]
        if wanted == "popitem":
            found_key, found = proxy.popitem()
            key, expected = node.content.popitem()
            Comparison().value("popped key", found_key, key)
        elif wanted == "pop":
            found, expected = proxy.pop(key), node.content.pop(key)
        else:
            del proxy[key]
            del node.content[key]
            return
        if isinstance(expected, Node):
            Comparison().run("popped", found, expected)
        else:
            Comparison().value("popped", found, expected)

    @rule(pick=picks, key=keys, value=plain_values)
    def dict_setdefault(self, pick: int, key: Any, value: Any) -> None:
        proxy, node = self.pick(pick, dict)
        found = proxy.setdefault(key, value)
        if key not in node.content:
            node.content[key] = copied_in(value)
        Comparison().value("setdefault", found, node.content[key])

    @rule(pick=picks, start=st.integers(-5, 400), count=st.integers(1, 700), other=leaves)
    def dict_fill(self, pick: int, start: int, count: int, other: Any) -> None:
        """Enough entries that tables grow and split."""
        proxy, node = self.pick(pick, dict)
        more = dict.fromkeys(range(start, start + count), other)
        proxy.update(more)
        node.content.update(more)

    @rule(pick=picks, kind=kinds, values=st.lists(leaves, min_size=1, max_size=4))
    def records_append(self, pick: int, kind: list[str], values: list[Any]) -> None:
        """Records copied in; the last few are held, so that other rules change them."""
        chosen = self.pick(pick, list)
        if not chosen:
            return
        proxy, node = chosen
        for number, value in enumerate(values):
            record = dict.fromkeys(kind, value) | {kind[-1]: number}
            proxy.append(record)
            node.content.append(copied_in(record))
            if number < 2:
                self.add_handle(proxy[-1], node.content[-1])

    @rule(kind=kinds, value=leaves, how=st.sampled_from(["dict", "update", "keys", "copy"]))
    def record_make(self, kind: list[str], value: Any, how: str) -> None:
        record = dict.fromkeys(kind, value)
        proxy = self.heap.dict(record if how == "dict" else {})
        if how == "keys":
            for key in kind:
                proxy[key] = value
        elif how == "copy":
            proxy.update(self.heap.dict(record))
        else:
            proxy.update(record)
        self.add_handle(proxy, Node(record))

    @rule(pick=picks, name=names, value=plain_values, keep=st.integers(0, 3))
    def record_change(self, pick: int, name: str, value: Any, keep: int) -> None:
        """A field set, or the last fields taken off one by one and set again but for some."""
        proxy, node = self.pick(pick, dict)
        if keep == 0:
            proxy[name] = value
            node.content[name] = copied_in(value)
            return
        taken = list(node.content.items())[-keep:]
        for _ in taken:
            assert proxy.popitem()[0] == node.content.popitem()[0]
        for key, old in taken[1:] if keep == 3 else taken:
            if not isinstance(old, Node) and not isinstance(old, tuple):
                proxy[key] = node.content[key] = old

    @rule(pick=picks, step=st.integers(1, 4))
    def dict_thin_out(self, pick: int, step: int) -> None:
        proxy, node = self.pick(pick, dict)
        if proxy is self.heap.root:
            return
        for key in list(node.content)[::step]:
            del proxy[key]
            del node.content[key]

    @rule(pick=picks, value=plain_values, at=st.integers(-3, 50))
    def list_insert(self, pick: int, value: Any, at: int) -> None:
        chosen = self.pick(pick, list)
        if chosen:
            proxy, node = chosen
            proxy.insert(at, value)
            node.content.insert(at, copied_in(value))

    @rule(pick=picks, values=st.lists(plain_values, max_size=3), repeat=st.integers(1, 300))
    def list_extend(self, pick: int, values: list[Any], repeat: int) -> None:
        chosen = self.pick(pick, list)
        if chosen:
            proxy, node = chosen
            values = values * (repeat if len(values) == 1 else 1)
            proxy.extend(values)
            memo: dict[int, Any] = {}
            node.content.extend(copied_in(value, memo) for value in values)

    @rule(pick=picks, number=numbers, value=plain_values)
    def list_set(self, pick: int, number: int, value: Any) -> None:
        chosen = self.pick(pick, list)
        if chosen and chosen[1].content:
            proxy, node = chosen
            index = number % len(node.content)
            proxy[index] = value
            node.content[index] = copied_in(value)

    @rule(pick=picks, other=picks)
    def list_link(self, pick: int, other: int) -> None:
        chosen = self.pick(pick, list)
        if chosen:
            linked, linked_node = self.pick(other)
            chosen[0].append(linked)
            chosen[1].content.append(linked_node)

    @rule(
        pick=picks,
        start=st.integers(-40, 40),
        stop=st.integers(-40, 400),
        value=st.lists(scalars, max_size=5),
    )
    def list_slice(self, pick: int, start: int, stop: int, value: list[Any]) -> None:
        chosen = self.pick(pick, list)
        if chosen:
            proxy, node = chosen
            proxy[start:stop] = value
            node.content[start:stop] = value

    @rule(pick=picks, number=numbers)
    def list_delete(self, pick: int, number: int) -> None:
        chosen = self.pick(pick, list)
        if chosen and chosen[1].content:
            proxy, node = chosen
            index = number % len(node.content)
            del proxy[index]
            del node.content[index]

    @rule(pick=picks, wanted=st.sampled_from(["reverse", "clear"]))
    def list_whole(self, pick: int, wanted: str) -> None:
        chosen = self.pick(pick, list)
        if chosen:
            getattr(chosen[0], wanted)()
            getattr(chosen[1].content, wanted)()

    @rule(pick=picks, at=numbers, data=st.binary(min_size=1, max_size=40), by_view=st.booleans())
    def buffer_store(self, pick: int, at: int, data: bytes, by_view: bool) -> None:
        chosen = self.pick(pick, bytearray)
        if not chosen or len(chosen[1].content) < len(data):
            return
        proxy, node = chosen
        at %= len(node.content) - len(data) + 1
        if by_view:
            with memoryview(proxy) as view:
                view[at : at + len(data)] = data
        else:
            proxy[at : at + len(data)] = data
        node.content[at : at + len(data)] = data

    # --- handles --------------------------------------------------------------------------------

    @rule(
        wanted=st.sampled_from(["dict", "list", "buffer", "set", "deque", "sorted"]),
        value=plain_values,
        key=keys,
        size=st.integers(0, BUFFER_BYTES_MAX),
    )
    def make(self, wanted: str, value: Any, key: Any, size: int) -> None:
        """A container that nothing but Python holds yet."""
        if wanted == "dict":
            proxy, node = self.heap.dict({"value": value}), Node({"value": copied_in(value)})
        elif wanted == "list":
            proxy, node = self.heap.list([value]), Node([copied_in(value)])
        elif wanted == "set":
            proxy, node = self.heap.set([key]), Node({key})
        elif wanted == "deque":
            maxlen = size if size % 2 else None
            proxy = self.heap.deque([value], maxlen)
            node = Node(deque([copied_in(value)], maxlen))
        elif wanted == "sorted":
            proxy, node = self.heap.sorted_dict({size: value}), Node(Sorted())
            node.content[size] = copied_in(value)
        else:
            proxy, node = self.heap.buffer(size), Node(bytearray(size))
        self.add_handle(proxy, node)

    @rule(pick=picks, number=numbers)
    def hold_child(self, pick: int, number: int) -> None:
        """Read a container out of another one and keep it."""
        proxy, node = self.pick(pick)
        content = node.content
        if isinstance(content, (dict, Sorted)):
            places = [key for key, value in content.items() if isinstance(value, Node)]
        elif isinstance(content, (list, deque)):
            places = [i for i, value in enumerate(content) if isinstance(value, Node)]
        else:
            return
        if places:
            place = places[number % len(places)]
            self.add_handle(proxy[place], content[place])

    @rule(pick=picks)
    def drop_handle(self, pick: int) -> None:
        if len(self.handles) > 1:
            del self.handles[1 + pick % (len(self.handles) - 1)]

    # --- states ---------------------------------------------------------------------------------

    def commit_happened(self) -> None:
        self.committed = self.take()
        self.commits = self.heap.last_commit_id

    @precondition(lambda self: not self.transactions)
    @rule()
    def commit(self) -> None:
        before = self.heap.last_commit_id
        commit = self.heap.commit()
        assert commit.id in (before, before + 1)
        self.commit_happened()
        # What is committed is not pending any more.
        assert self.heap.pending().pages == 0

    @precondition(lambda self: not self.transactions)
    @rule(name=st.sampled_from(["commit.encode", "watch.scan"]))
    def commit_fails(self, name: str) -> None:
        before = self.heap.last_commit_id
        with fault(name), pytest.raises((dh.HeapError, OSError)):
            self.heap.commit("fails")
        assert self.heap.last_commit_id == before

    @precondition(lambda self: not self.transactions)
    @rule()
    def rollback(self) -> None:
        self.heap.rollback()
        self.went_back_to(self.committed)

    @precondition(lambda self: len(self.transactions) < 3)
    @rule()
    def begin(self) -> None:
        transaction = self.heap.transaction()
        transaction.__enter__()
        self.transactions.append((transaction, self.take()))

    @precondition(lambda self: self.transactions)
    @rule(wanted=st.sampled_from(["ok", "undo", "fail"]))
    def end(self, wanted: str) -> None:
        transaction, state = self.transactions.pop()
        if wanted == "undo":
            undo = Undo()
            assert not transaction.__exit__(Undo, undo, None)
            self.went_back_to(state)
        elif wanted == "fail" and not self.transactions:
            with fault("commit.encode"), pytest.raises(dh.CommitError):
                transaction.__exit__(None, None, None)
        else:
            transaction.__exit__(None, None, None)
            if not self.transactions:
                self.commit_happened()

    @precondition(lambda self: self.transactions)
    @rule()
    def refused_inside(self) -> None:
        for verb in (self.heap.commit, self.heap.rollback):
            with pytest.raises(dh.HeapError, match="inside transaction"):
                verb()

    @rule(how=st.sampled_from(COLLECTIONS))
    def collect(self, how: str) -> None:
        collect(self.heap, how)

    @rule()
    def look(self) -> None:
        self.heap.pending()
        assert self.heap.stats().handles >= len(self.handles)
        report = self.heap.verify()
        assert report.ok, report.first_problem
        census = self.heap.census()
        assert (census.cells, census.unreachable_cells) == (report.cells, report.unreachable_cells)
        assert census.broken == 0

    @rule(fails=st.booleans())
    def fold(self, fails: bool) -> None:
        if fails:
            with fault("extent.write"):
                try:
                    assert self.heap.fold() == 0
                except dh.CommitError:
                    return
        else:
            self.heap.fold()

    @precondition(lambda self: not self.transactions)
    @rule()
    def reopen(self) -> None:
        last = self.heap.last_commit_id
        proxies = [proxy for proxy, _ in self.handles]
        self.heap.close()
        for proxy in proxies:
            with pytest.raises(dh.HeapClosedError):
                len(proxy)
        show_state(self.committed)
        self.open()
        assert self.heap.last_commit_id == last
        self.compare()

    # --- always ---------------------------------------------------------------------------------

    @invariant()
    def handles_are_right(self) -> None:
        """Cheap: lengths only. Everything is compared at the end and after each reopening."""
        for proxy, node in self.handles:
            if len(proxy) != len(node.content):
                raise Mismatch(f"{proxy!r} against {node!r}")

    def teardown(self) -> None:
        try:
            if not self.heap.closed:
                self.compare()
                while self.transactions:
                    self.end("ok")
                self.look()
                self.commit()
                self.reopen()
                self.look()
        finally:
            self.heap.close()
            shutil.rmtree(self.directory)


class CompareHeapMachine(HeapMachine):
    tracker = "compare"


MACHINES = {"auto": HeapMachine, "compare": CompareHeapMachine}


def run(tracker: str, examples: int, steps: int) -> None:
    require_tracker(tracker)
    run_state_machine_as_test(
        MACHINES[tracker],
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            database=None,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tracker", MACHINES)
def test_a_heap_equals_plain_containers_through_any_history(tracker: str) -> None:
    run(tracker, examples=160, steps=60)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("tracker", MACHINES)
def test_a_heap_equals_plain_containers_through_long_histories(tracker: str) -> None:
    run(tracker, examples=1000, steps=200)

"""Long Lists and Deques stay equal to plain ones through splices of any size at any place.

What test_heap_machine.py does with small nested containers, this does with few long ones: trees of
several levels are relaxed, split, merged and cut, and commits, rollbacks, transactions, collections
and reopening come in between. Values are numbers, with a string now and then, whose cell has one
owner.
"""

from __future__ import annotations

import collections
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, collect
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import dirtyheap as dh

LENGTH_MAX = 400_000
NAMES = ("list", "long list", "deque", "ring")
LISTS, DEQUES = NAMES[:2], NAMES[2:]

# Sizes at which leaves and nodes end, and any.
counts = st.one_of(
    st.integers(0, 3),
    st.sampled_from([255, 256, 511, 512, 513, 1025, 4097]),
    st.integers(0, 3000),
)
large_counts = st.one_of(counts, st.sampled_from([20_000, 512 * 255, 512 * 256 + 1]))
# A place in a sequence as a fraction of its length, and some slots beside it.
places = st.tuples(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)), st.integers(-513, 513))


class Undo(Exception):
    """Leaves a transaction."""


def place_in(sequence: Any, place: tuple[float, int]) -> int:
    return min(max(int(len(sequence) * place[0]) + place[1], 0), len(sequence))


class SequenceMachine(RuleBasedStateMachine):
    """Two Lists and two Deques, and plain ones beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dh-machine-"))
        self.heap = dh.open(self.directory / "heap", capacity=1 << 30)
        self.next = 0
        self.plain: dict[str, Any] = {}
        self.committed: dict[str, Any] = {}

    def values(self, count: int) -> list[Any]:
        first = self.next
        self.next += count
        return [i if i % 97 else f"a string, number {i}" for i in range(first, self.next)]

    def both(self, name: str) -> tuple[Any, Any]:
        return self.heap.root[name], self.plain[name]

    def compare(self, names: Iterable[str] = NAMES) -> None:
        for name in names:
            ours, plain = self.both(name)
            assert len(ours) == len(plain), name
            assert list(ours) == list(plain), name

    @initialize(count=large_counts, maxlen=st.sampled_from([0, 1, 700, 5000, 140_000]))
    def start(self, count: int, maxlen: int) -> None:
        long = self.values(150_000)
        self.plain = {
            "list": self.values(count),
            "long list": long,
            "deque": collections.deque(self.values(count)),
            "ring": collections.deque(long, maxlen),
        }
        for name, plain in self.plain.items():
            self.heap.root[name] = plain
        self.commit()

    # --- changes --------------------------------------------------------------------------------

    @rule(name=st.sampled_from(LISTS), place=places, removed=counts, inserted=large_counts)
    def splice(self, name: str, place: tuple[float, int], removed: int, inserted: int) -> None:
        ours, plain = self.both(name)
        start = place_in(plain, place)
        values = self.values(inserted if len(plain) + inserted <= LENGTH_MAX else 0)
        ours[start : start + removed] = values
        plain[start : start + removed] = values

    @rule(name=st.sampled_from(LISTS), place=places, share=st.floats(0, 1), step=st.integers(1, 4))
    def delete_slice(self, name: str, place: tuple[float, int], share: float, step: int) -> None:
        ours, plain = self.both(name)
        start = place_in(plain, place)
        stop = start + int((len(plain) - start) * share)
        del ours[start:stop:step]
        del plain[start:stop:step]

    @rule(name=st.sampled_from(NAMES), place=places, times=st.integers(1, 600))
    def insert_many_times(self, name: str, place: tuple[float, int], times: int) -> None:
        ours, plain = self.both(name)
        start = place_in(plain, place)
        for value in self.values(times):
            if len(plain) == getattr(plain, "maxlen", None):
                break
            ours.insert(start, value)
            plain.insert(start, value)

    @rule(name=st.sampled_from(NAMES), place=places, times=st.integers(1, 600))
    def delete_many_times(self, name: str, place: tuple[float, int], times: int) -> None:
        ours, plain = self.both(name)
        start = place_in(plain, place)
        for _ in range(min(times, len(plain) - start)):
            del ours[start]
            del plain[start]

    @rule(name=st.sampled_from(NAMES), count=large_counts, at_front=st.booleans())
    def extend(self, name: str, count: int, at_front: bool) -> None:
        ours, plain = self.both(name)
        values = self.values(count if len(plain) + count <= LENGTH_MAX else 0)
        if not at_front:
            ours.extend(values)
            plain.extend(values)
        elif name in DEQUES:
            ours.extendleft(values)
            plain.extendleft(values)
        else:
            ours[:0] = values
            plain[:0] = values

    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 1500), is_back=st.booleans())
    def queue(self, name: str, times: int, is_back: bool) -> None:
        """In at one end, out at the other."""
        ours, plain = self.both(name)
        for value in self.values(times):
            found, expected = (self.step(one, value, is_back) for one in (ours, plain))
            assert found == expected

    @staticmethod
    def step(sequence: Any, value: Any, is_back: bool) -> Any:
        if is_back:
            sequence.insert(0, value) if hasattr(sequence, "sort") else sequence.appendleft(value)
            return sequence.pop() if sequence else None
        sequence.append(value)
        if not sequence:  # maxlen 0
            return None
        return sequence.pop(0) if hasattr(sequence, "sort") else sequence.popleft()

    @rule(name=st.sampled_from(DEQUES), steps=st.one_of(st.integers(-5, 5), st.integers()))
    def rotate(self, name: str, steps: int) -> None:
        steps %= 1 << 40
        ours, plain = self.both(name)
        ours.rotate(steps)
        plain.rotate(steps)

    @rule(name=st.sampled_from(NAMES), place=places)
    def replace(self, name: str, place: tuple[float, int]) -> None:
        ours, plain = self.both(name)
        if plain:
            start = min(place_in(plain, place), len(plain) - 1)
            assert ours[start] == plain[start]
            ours[start] = plain[start] = self.values(1)[0]

    @rule(name=st.sampled_from(NAMES), what=st.sampled_from(["reverse", "reverse", "clear"]))
    def whole(self, name: str, what: str) -> None:
        for one in self.both(name):
            getattr(one, what)()

    # --- states ---------------------------------------------------------------------------------

    def took_back(self, state: dict[str, Any]) -> None:
        self.plain = {name: plain.copy() for name, plain in state.items()}
        self.compare()

    @rule()
    def commit(self) -> None:
        self.heap.commit()
        self.committed = {name: plain.copy() for name, plain in self.plain.items()}

    @rule()
    def rollback(self) -> None:
        self.heap.rollback()
        self.took_back(self.committed)

    @rule(place=places, inserted=counts, removed=counts)
    def transaction(self, place: tuple[float, int], inserted: int, removed: int) -> None:
        before = {name: plain.copy() for name, plain in self.plain.items()}
        with pytest.raises(Undo), self.heap.transaction():
            for name in LISTS:
                self.splice(name, place, removed, inserted)
            for name in DEQUES:
                self.extend(name, inserted, True)
            raise Undo
        self.took_back(before)

    @rule(how=st.sampled_from(COLLECTIONS))
    def collect(self, how: str) -> None:
        collect(self.heap, how)

    @rule()
    def check(self) -> None:
        report = self.heap.verify()
        assert report.ok, report.first_problem
        self.compare()

    @precondition(lambda self: self.plain)
    @rule()
    def reopen(self) -> None:
        self.heap.close()
        self.heap = dh.open(self.directory / "heap", capacity=1 << 30)
        self.took_back(self.committed)

    def teardown(self) -> None:
        try:
            if self.plain:
                self.check()
                self.commit()
                self.reopen()
                self.check()
        finally:
            self.heap.close()
            shutil.rmtree(self.directory)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        SequenceMachine,
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
def test_long_sequences_equal_plain_ones_through_any_history() -> None:
    run(examples=12, steps=30)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_long_sequences_equal_plain_ones_through_long_histories() -> None:
    run(examples=200, steps=200)

"""A SortedDict and sortedcontainers.SortedDict stay equal, whatever is done to them.

Every method with its result or exception; commits, rollbacks, transactions that are undone,
collections and reopening in between. Keys of one kind at a time, chosen when the dict is empty.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, Stop, collect
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sortedcontainers import SortedDict

import dirtyheap as dh

EAST = timezone(timedelta(hours=5))

numbers = st.one_of(
    st.integers(-50, 600),
    st.integers(-50, 600),
    st.booleans(),
    st.floats(allow_nan=False),
    st.integers(),
    st.sampled_from([2**53, float(2**53), 2**53 + 1, 2**62, -(2**63), float(2**70), 2**70 + 1]),
)
texts = st.one_of(
    st.integers(0, 600).map("a key of some length, {:03}".format),
    st.text(max_size=9),
    st.sampled_from(["", "\0", "seven77", "eight888", "\ud800", "\U00010000", "\uffff"]),
)
pairs = st.tuples(st.one_of(st.integers(0, 9), st.floats(0, 9)), texts)
START = datetime(2024, 1, 1, tzinfo=UTC)
moments = st.one_of(
    st.integers(-50, 600).map(lambda n: START + timedelta(n)),
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    st.integers(-50, 600).map(lambda n: (START + timedelta(n)).astimezone(EAST)),
)
ratios = st.one_of(
    st.integers(-50, 600).map(lambda n: Fraction(n, 7)),
    st.integers(-50, 600).map(lambda n: Decimal(n) / 10),
    st.floats(allow_nan=False),
    st.integers(-9, 90),
)
KINDS = [
    numbers,
    texts,
    texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    pairs,
    moments,
    ratios,
]
values = st.one_of(st.integers(), st.text(max_size=20), st.none(), st.tuples(texts, st.integers()))
indexes = st.integers(-12, 12)


class SortedMachine(RuleBasedStateMachine):
    """One dict in a heap and its model; committed: what a rollback brings back."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dh-sorted-"))
        self.heap = dh.open(self.directory / "heap", capacity=64 << 20)
        self.heap.root["d"] = self.heap.sorted_dict()
        self.heap.commit()
        self.model = SortedDict()
        self.kind = self.committed_kind = 0
        self.committed: dict[Any, Any] = {}

    def teardown(self) -> None:
        self.heap.close()
        shutil.rmtree(self.directory)

    @property
    def d(self) -> dh.SortedDict:
        made: dh.SortedDict = self.heap.root["d"]
        return made

    def key(self, data: st.DataObject) -> Any:
        if self.model and data.draw(st.booleans()):
            return self.model.keys()[data.draw(st.integers(0, len(self.model) - 1))]
        return data.draw(KINDS[self.kind])

    def both(self, operation: Callable[[Any], Any]) -> None:
        """The same result, or an exception of the same class."""
        outcomes = []
        for target in (self.d, self.model):
            try:
                outcomes.append(("returned", operation(target)))
            except (KeyError, IndexError, ValueError, TypeError) as error:
                outcomes.append(("raised", type(error)))
        assert outcomes[0] == outcomes[1]
        assert repr(outcomes[0]) == repr(outcomes[1])

    @rule(data=st.data(), value=values)
    def set_one(self, data: st.DataObject, value: Any) -> None:
        key = self.key(data)
        self.d[key] = self.model[key] = value

    @rule(data=st.data(), count=st.sampled_from([3, 40, 400]))
    def set_many(self, data: st.DataObject, count: int) -> None:
        start, step = data.draw(st.integers(0, 600)), data.draw(st.sampled_from([-1, 1, 7]))
        made = [(start + step * i) % 1009 for i in range(count)]
        keys = [
            lambda i: i,
            "a key of some length, {:03}".format,
            lambda i: f"a key of some length, {i:03}".encode(),
            lambda i: (i % 10, f"{i:03}"),
            lambda i: START + timedelta(i),
            lambda i: Fraction(i, 7),
        ][self.kind]
        new = {keys(i): i for i in made}
        if data.draw(st.booleans()):
            self.d.update(new)
        else:
            for key, value in new.items():
                self.d[key] = value
        self.model.update(new)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = self.key(data)
        self.both(lambda d: d.__delitem__(key))

    @rule(data=st.data())
    def delete_many(self, data: st.DataObject) -> None:
        if not self.model:
            return
        start = data.draw(st.integers(0, len(self.model) - 1))
        step = data.draw(st.integers(1, 3))
        for key in list(self.model)[start::step]:
            del self.d[key], self.model[key]

    @rule(data=st.data(), value=values)
    def single(self, data: st.DataObject, value: Any) -> None:
        key = self.key(data)
        self.both(lambda d: d.get(key, value))
        self.both(lambda d: key in d)
        self.both(lambda d: d.index(key))
        self.both(lambda d: (d.bisect(key), d.bisect_left(key), d.bisect_right(key)))
        self.both(lambda d: (d.keys().count(key), (key, value) in d.items()))
        if data.draw(st.booleans()):
            self.both(lambda d: d.setdefault(key, value))
        if data.draw(st.booleans()):
            self.both(lambda d: d.pop(key, value))

    @rule(data=st.data(), index=indexes)
    def by_position(self, data: st.DataObject, index: int) -> None:
        if self.model and data.draw(st.booleans()):
            index = data.draw(st.integers(-len(self.model), len(self.model) - 1))
        self.both(lambda d: d.peekitem(index))
        self.both(lambda d: (d.keys()[index], d.values()[index], d.items()[index]))
        if data.draw(st.booleans()):
            self.both(lambda d: d.popitem(index))

    @rule(data=st.data(), flags=st.tuples(*[st.booleans()] * 3))
    def ranges(self, data: st.DataObject, flags: tuple[bool, bool, bool]) -> None:
        low, high = (data.draw(st.sampled_from([None, self.key(data)])) for _ in range(2))
        self.both(lambda d: list(d.irange(low, high, flags[:2], flags[2])))
        start, stop = data.draw(indexes), data.draw(indexes)
        self.both(lambda d: list(d.islice(start, stop, flags[2])))
        self.both(lambda d: list(d.items()[start:stop]))

    @rule(kind=st.integers(0, len(KINDS) - 1))
    def clear(self, kind: int) -> None:
        self.d.clear()
        self.model.clear()
        self.kind = kind

    @rule()
    def commit(self) -> None:
        self.heap.commit()
        self.committed, self.committed_kind = dict(self.model), self.kind

    def show_committed(self) -> None:
        self.model, self.kind = SortedDict(self.committed), self.committed_kind

    @rule()
    def rollback(self) -> None:
        self.heap.rollback()
        self.show_committed()

    @rule(data=st.data(), value=values)
    def undone(self, data: st.DataObject, value: Any) -> None:
        """What a transaction did is gone, also when it emptied the dict."""
        key = self.key(data)
        with pytest.raises(Stop), self.heap.transaction():
            self.d.pop(key, None)
            if data.draw(st.booleans()):
                self.d.clear()
            self.d[key] = value
            raise Stop

    @rule(how=st.sampled_from(COLLECTIONS))
    def collect(self, how: str) -> None:
        collect(self.heap, how)

    @rule()
    def reopen(self) -> None:
        self.heap.close()
        self.heap = dh.open(self.directory / "heap", capacity=64 << 20)
        self.show_committed()

    @invariant()
    def same(self) -> None:
        d = self.d
        assert len(d) == len(self.model)
        assert repr(list(d.items())) == repr(list(self.model.items()))
        assert list(reversed(d)) == list(reversed(self.model))
        report = self.heap.verify()
        assert report.ok, report.first_problem


def test_sorted_dict_and_model() -> None:
    run_state_machine_as_test(
        SortedMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

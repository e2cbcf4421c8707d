"""Records against plain dicts through any history: stores, links, commits, rollbacks, transactions,
collections, and reopenings by programs whose class has changed.

The model keeps, for each record, the version of the class that it is stored as and the fields that
were stored, and follows the rules of docs/design.md (E1 to E4) in the most obvious way.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, Stop, collect
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import dirtyheap as dh

NAME = "tests.property.Evolving"
MISSING = object()

# Per version and field: what it holds, and its default; a list stands for a default_factory.
INT, FLOAT, STR, NONE, BOOL, LIST, LINK = "int", "float", "str", "None", "bool", "list", "link"
ALL = {INT, FLOAT, STR, NONE, BOOL, LIST, LINK}
VERSIONS: list[dict[str, tuple[set[str], Any]]] = [
    {
        "a": ({INT, BOOL}, MISSING),
        "b": ({STR}, "b of 0"),
        "c": ({LIST}, []),
        "link": ({LINK, NONE}, None),
    },
    {
        "b": ({STR, NONE}, "b of 1"),
        "a": ({FLOAT}, 0.5),
        "d": ({INT, BOOL}, 7),
        "link": ({LINK, NONE}, None),
    },
    {
        "d": ({INT, BOOL, STR}, 8),
        "link": ({LINK, NONE}, None),
        "a": ({FLOAT, NONE}, 1.5),
        "c": ({LIST}, ["made"]),
        "e": (ALL, None),
    },
]
TEXTS = {INT: "int", FLOAT: "float", STR: "str", NONE: "None", LIST: "list", LINK: "Evolving"}


def define(version: int) -> Any:
    """The class of that version, registered: as by a program of its own."""
    namespace: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for name, (kinds, default) in VERSIONS[version].items():
        texts = ["Any"] if kinds == ALL else [TEXTS[kind] for kind in sorted(kinds - {BOOL})]
        namespace["__annotations__"][name] = " | ".join(texts)
        if isinstance(default, list):
            namespace[name] = dh.field(default_factory=default.copy)
        elif default is not MISSING:
            namespace[name] = default
    return dh.record(type("Evolving", (), namespace), name=NAME)


def kind_of(value: Any) -> str:
    if value is None:
        return NONE
    kinds = {bool: BOOL, int: INT, float: FLOAT, str: STR, list: LIST, Link: LINK}
    return kinds[type(value)]


class Link:
    """Stands for the record of that number in the model."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __deepcopy__(self, memo: Any) -> Link:
        return self


class Stored:
    """One record of the model."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.fields: dict[str, Any] = {}

    def store(self, version: int, name: str, value: Any) -> None:
        """By a program of that version; the value was admitted."""
        stored = VERSIONS[self.version]
        if name not in stored or kind_of(value) not in stored[name][0]:
            self.version = version
            self.fields = {
                key: kept for key, kept in self.fields.items() if key in VERSIONS[version]
            }
        self.fields[name] = value

    def read(self, version: int, name: str) -> Any:
        kinds, default = VERSIONS[version][name]
        if name in self.fields:
            value = self.fields[name]
            is_number = kind_of(value) in (INT, BOOL)
            return float(value) if is_number and FLOAT in kinds and INT not in kinds else value
        if isinstance(default, list):  # stored when first read
            self.store(version, name, default.copy())
            return self.fields[name]
        assert default is not MISSING
        return default


def admitted(version: int, name: str, value: Any) -> Any:
    """The value as the field takes it, or MISSING."""
    kinds = VERSIONS[version][name][0]
    if kind_of(value) in kinds:
        return value
    return float(value) if FLOAT in kinds and kind_of(value) in (INT, BOOL) else MISSING


picks = st.integers(0, 1000)
field_names = st.sampled_from(["a", "b", "c", "d", "e", "link"])
values = st.one_of(
    st.integers(-5, 5),
    st.just(1 << 90),
    st.booleans(),
    st.floats(-2, 2),
    st.just(float("inf")),
    st.none(),
    st.sampled_from(["", "short", "a text of some length", "ü" * 20]),
    st.lists(st.integers(0, 3), max_size=3),
)


changes = st.lists(st.tuples(st.integers(0, 4), field_names, values), min_size=1, max_size=8)


class RecordMachine(RuleBasedStateMachine):
    """One heap, the records that a program would hold, and the model of all."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dh-records-"))
        self.version = 0
        self.records: dict[int, Stored] = {}
        self.places: dict[str, int] = {}  # root[place] is the record of that number
        self.numbers = 0
        self.committed = self.take()
        self.open()

    def open(self) -> None:
        self.cls = define(self.version)
        self.heap = dh.open(self.directory / "heap", capacity=64 << 20)
        self.held: dict[int, Any] = {}

    # --- helpers --------------------------------------------------------------------------------

    def take(self) -> Any:
        return copy.deepcopy((self.records, self.places))

    def show(self, state: Any) -> None:
        self.records, self.places = copy.deepcopy(state)
        for number in set(self.held) - set(self.records):
            stale = self.held.pop(number)
            with pytest.raises(dh.StaleObjectError):
                _ = stale.link
            with pytest.raises(dh.StaleObjectError):
                stale.link = None

    def pick(self, number: int) -> int | None:
        numbers = sorted(self.held)
        return numbers[number % len(numbers)] if numbers else None

    def hold(self, number: int, proxy: Any) -> None:
        assert self.held.setdefault(number, proxy) is proxy
        for other, held in self.held.items():
            assert (held is proxy) == (other == number)

    def real(self, value: Any) -> Any:
        return self.held[value.number] if isinstance(value, Link) else value

    def same(self, found: Any, expected: Any) -> None:
        if isinstance(expected, Link):
            assert isinstance(found, dh.Record)
            if expected.number in self.held:
                assert found is self.held[expected.number]
        elif isinstance(expected, list):
            assert type(found) is dh.List
            assert found == expected
        else:
            assert (type(found), found) == (type(expected), expected)

    # --- records --------------------------------------------------------------------------------

    @initialize(value=st.integers())
    def first(self, value: int) -> None:
        self.make(value, 0)

    @rule(value=st.integers(-5, 5), place=st.integers(0, 4))
    def make(self, value: int, place: int) -> None:
        proxy = self.heap.new(self.cls, a=value)
        self.numbers += 1
        stored = self.records[self.numbers] = Stored(self.version)
        for name, (_, default) in VERSIONS[self.version].items():
            stored.fields[name] = copy.copy(default)
        stored.fields["a"] = admitted(self.version, "a", value)
        self.hold(self.numbers, proxy)
        self.put(self.numbers, place)

    @rule(pick=picks, place=st.integers(0, 4))
    def put(self, pick: int, place: int) -> None:
        number = self.pick(pick)
        if number is not None:
            self.heap.root[f"place {place}"] = self.held[number]
            self.places[f"place {place}"] = number

    @rule(pick=picks, some=changes)
    def store_some(self, pick: int, some: list[tuple[int, str, Any]]) -> None:
        for offset, name, value in some:
            self.store(pick + offset, name, value)

    def store(self, pick: int, name: str, value: Any) -> None:
        number = self.pick(pick)
        if number is None or name not in VERSIONS[self.version]:
            return
        taken = admitted(self.version, name, value)
        if taken is MISSING:
            with pytest.raises(TypeError, match=f"Evolving.{name} must be"):
                setattr(self.held[number], name, value)
        else:
            setattr(self.held[number], name, value)
            self.records[number].store(self.version, name, copy.copy(taken))
        self.check(number)

    @rule(pick=picks, other=picks, name=st.sampled_from(["link", "e"]))
    def link(self, pick: int, other: int, name: str) -> None:
        number, target = self.pick(pick), self.pick(other)
        if number is None or target is None or name not in VERSIONS[self.version]:
            return
        setattr(self.held[number], name, self.held[target])
        self.records[number].store(self.version, name, Link(target))

    @rule(pick=picks, value=st.integers(0, 9))
    def append(self, pick: int, value: int) -> None:
        number = self.pick(pick)
        if number is not None and "c" in VERSIONS[self.version]:
            self.held[number].c.append(value)
            self.records[number].read(self.version, "c").append(value)

    @rule(pick=picks)
    def follow(self, pick: int) -> None:
        """Read a record out of another one, or out of the root, and hold it."""
        number = self.pick(pick)
        if number is not None and isinstance(self.records[number].fields.get("link"), Link):
            self.hold(self.records[number].fields["link"].number, self.held[number].link)
        for place in list(self.places)[:1]:
            self.hold(self.places[place], self.heap.root[place])

    @rule(pick=picks)
    def drop(self, pick: int) -> None:
        number = self.pick(pick)
        if number is not None:
            del self.held[number]

    def check(self, number: int) -> None:
        proxy, stored = self.held[number], self.records[number]
        for name in VERSIONS[self.version]:
            self.same(getattr(proxy, name), stored.read(self.version, name))

    @rule(pick=picks)
    def read(self, pick: int) -> None:
        number = self.pick(pick)
        if number is None:
            return
        proxy, stored = self.held[number], self.records[number]
        shown = dh.asdict(proxy)
        for name, (_, default) in VERSIONS[self.version].items():
            if name in stored.fields:
                value = stored.fields[name]
                if not isinstance(value, Link):
                    assert shown[name] == value
            elif isinstance(default, list):
                assert name not in shown
            else:
                assert shown[name] == default
        repr(proxy)
        self.check(number)

    # --- states ---------------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        self.heap.commit()
        self.committed = self.take()

    @rule()
    def rollback(self) -> None:
        self.heap.rollback()
        self.show(self.committed)

    @rule(pick=picks, value=values, name=field_names)
    def undone_transaction(self, pick: int, value: Any, name: str) -> None:
        before = self.take()
        with pytest.raises(Stop), self.heap.transaction():
            self.make(1, pick % 5)
            self.store(pick, name, value)
            self.append(pick, 5)
            raise Stop
        self.show(before)

    @rule(how=st.sampled_from(COLLECTIONS))
    def collect(self, how: str) -> None:
        collect(self.heap, how)

    @rule()
    def verify(self) -> None:
        report = self.heap.verify()
        assert report.ok, report.first_problem

    @rule()
    def define_again(self) -> None:
        """As a notebook does. What is still held would stay of the old class."""
        self.held.clear()
        self.cls = define(self.version)
        for place, number in self.places.items():
            self.hold(number, self.heap.root[place])
            assert type(self.held[number]) is self.cls

    @precondition(lambda self: self.version < len(VERSIONS) - 1)
    @rule(pick=picks, some=changes)
    def reopen_changed(self, pick: int, some: list[tuple[int, str, Any]]) -> None:
        self.commit()
        self.version += 1
        self.reopen()
        self.store_some(pick, some)
        self.commit()

    @rule()
    def reopen(self) -> None:
        old = list(self.held.values())
        self.heap.close()
        for proxy in old:
            with pytest.raises(dh.HeapClosedError):
                _ = proxy.link
        self.held.clear()
        self.show(self.committed)
        self.open()
        assert self.heap.root.keys() == self.places.keys()
        for place, number in self.places.items():
            self.hold(number, self.heap.root[place])
            self.check(number)

    @rule()
    def without_the_class(self) -> None:
        """A program that does not know the class sees what is stored."""
        self.heap.close()
        self.held.clear()
        self.show(self.committed)
        self.cls.__dh_schema__.forget()
        try:
            with dh.open(self.directory / "heap") as heap:
                for place, number in self.places.items():
                    found = heap.root[place]
                    assert type(found) is not self.cls
                    assert set(dh.asdict(found)) == set(self.records[number].fields)
        finally:
            self.open()

    @invariant()
    def places_are_right(self) -> None:
        if not self.heap.closed:
            assert self.heap.root.keys() == self.places.keys()

    def teardown(self) -> None:
        try:
            if not self.heap.closed:
                self.verify()
                for number in self.held:
                    self.check(number)
                self.commit()
                self.reopen()
                self.verify()
        finally:
            self.heap.close()
            shutil.rmtree(self.directory)


@pytest.mark.timeout(300)
def test_records_equal_their_model_through_any_history() -> None:
    run_state_machine_as_test(
        RecordMachine,
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            print_blob=True,
            database=None,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )

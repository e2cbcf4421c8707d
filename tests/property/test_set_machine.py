"""Sets in a heap and plain sets stay equal, whatever is done to them in whatever order.

The order is part of the model: a plain dict whose keys are the elements. Elements of every kind,
whole sets as operands in every form, commits, rollbacks, transactions that are undone, collections,
reopening.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, collect
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import dirtyheap as dh

CAPACITY = 64 << 20
NAMES = "abc"

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-50, 50),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=12),
    st.sampled_from(["seven77", "eight888", "\ud800", "é" * 300]),
    st.binary(max_size=12),
    st.decimals(allow_nan=False, places=2, min_value=-5, max_value=5),
    st.dates(),
)
elements = st.one_of(
    st.integers(0, 40),
    st.recursive(
        leaves,
        lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)),
        max_leaves=5,
    ),
)
names = st.sampled_from(NAMES)
many = st.one_of(
    st.lists(elements, max_size=8),
    st.builds(range, st.integers(0, 400), st.integers(0, 900), st.integers(1, 5)),
)
FORMS = {
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "iterator": iter,
    "keys": lambda items: dict.fromkeys(items).keys(),
}

Model = dict[Any, None]


class Undo(Exception):
    """What a transaction is left with when it shall be undone."""


class SetMachine(RuleBasedStateMachine):
    """A heap whose root holds three Sets, and their models."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dh-sets-"))
        self.heap = dh.open(self.directory / "heap", capacity=CAPACITY)
        self.models: dict[str, Model] = {name: {} for name in NAMES}
        for name in NAMES:
            self.heap.root[name] = set()
        self.heap.commit()
        self.committed = self.copy()

    def copy(self) -> dict[str, Model]:
        return {name: dict(model) for name, model in self.models.items()}

    def pick(self, name: str) -> tuple[dh.Set, Model]:
        return self.heap.root[name], self.models[name]

    def compare(self) -> None:
        for name in NAMES:
            found, model = self.pick(name)
            assert list(found) == list(model)
            assert [type(item) for item in found] == [type(item) for item in model]
            assert found == set(model) and dh.to_python(found) == set(model)

    # --- elements -------------------------------------------------------------------------------

    @rule(name=names, element=elements)
    def add(self, name: str, element: Any) -> None:
        found, model = self.pick(name)
        found.add(element)
        model.setdefault(element)
        assert element in found

    @rule(name=names, element=elements)
    def discard(self, name: str, element: Any) -> None:
        found, model = self.pick(name)
        assert (element in found) == (element in model)
        found.discard(element)
        model.pop(element, None)

    @rule(name=names, number=st.integers(0, 1 << 20))
    def remove(self, name: str, number: int) -> None:
        found, model = self.pick(name)
        if model:
            element = list(model)[number % len(model)]
            found.remove(element)
            del model[element]
        with pytest.raises(KeyError):
            found.remove("no such element at all")

    @rule(name=names)
    def pop(self, name: str) -> None:
        found, model = self.pick(name)
        if model:
            assert found.pop() == model.popitem()[0]
        else:
            with pytest.raises(KeyError):
                found.pop()

    @rule(name=names, step=st.integers(1, 4))
    def thin_out(self, name: str, step: int) -> None:
        found, model = self.pick(name)
        for element in list(model)[::step]:
            found.discard(element)
            del model[element]

    @rule(name=names)
    def clear(self, name: str) -> None:
        found, model = self.pick(name)
        found.clear()
        model.clear()

    # --- whole sets -----------------------------------------------------------------------------

    def apply(self, wanted: str, name: str, items: Model, operand: Any) -> None:
        """One of the methods that change; items: what the operand gives, once and in order."""
        found, model = self.pick(name)
        getattr(found, wanted)(operand)
        present = {item for item in items if item in model}
        if wanted in ("update", "symmetric_difference_update"):
            for item in items:
                model.setdefault(item)
        for item in list(model):
            if (
                (wanted == "intersection_update" and item not in items)
                or (wanted == "difference_update" and item in items)
                or (wanted == "symmetric_difference_update" and item in present)
            ):
                del model[item]

    changes = st.sampled_from(
        ["update", "intersection_update", "difference_update", "symmetric_difference_update"]
    )

    @rule(name=names, wanted=changes, items=many, form=st.sampled_from(list(FORMS)))
    def change(self, name: str, wanted: str, items: Any, form: str) -> None:
        operand = FORMS[form](items)
        order = items if form == "iterator" else operand
        self.apply(wanted, name, dict.fromkeys(order), operand)

    @rule(name=names, other=names, wanted=changes)
    def change_by_set(self, name: str, other: str, wanted: str) -> None:
        operand, items = self.pick(other)
        self.apply(wanted, name, dict(items), operand)

    @rule(name=names, other=names)
    def ask(self, name: str, other: str) -> None:
        found, model = self.pick(name)
        second, second_model = self.pick(other)
        plain, second_plain = set(model), set(second_model)
        for operand in (second, second_plain, frozenset(second_plain)):
            assert (found | operand, found & operand) == (
                plain | second_plain,
                plain & second_plain,
            )
            assert (found - operand, found ^ operand) == (
                plain - second_plain,
                plain ^ second_plain,
            )
            assert (found <= operand, found > operand) == (
                plain <= second_plain,
                plain > second_plain,
            )
            assert (found == operand) == (plain == second_plain)
            assert found.isdisjoint(operand) == plain.isdisjoint(second_plain)

    # --- states ---------------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        self.heap.commit()
        self.committed = self.copy()

    @rule()
    def rollback(self) -> None:
        self.heap.rollback()
        self.models = {name: dict(model) for name, model in self.committed.items()}
        self.compare()

    @rule(name=names, items=many)
    def undone(self, name: str, items: Any) -> None:
        with pytest.raises(Undo), self.heap.transaction():
            self.heap.root[name].symmetric_difference_update(items)
            self.heap.root[NAMES[0]] = {"another set"}
            raise Undo

    @rule(how=st.sampled_from(COLLECTIONS))
    def collect(self, how: str) -> None:
        collect(self.heap, how)

    @precondition(lambda self: any(self.models.values()))
    @rule(fails=st.booleans())
    def reopen(self, fails: bool) -> None:
        if not fails:
            self.commit()
        self.heap.close()
        self.heap = dh.open(self.directory / "heap", capacity=CAPACITY)
        self.models = {name: dict(model) for name, model in self.committed.items()}
        self.compare()
        report = self.heap.verify()
        assert report.ok, report.first_problem

    @invariant()
    def lengths_are_right(self) -> None:
        for name in NAMES:
            found, model = self.pick(name)
            assert len(found) == len(model)

    def teardown(self) -> None:
        try:
            self.compare()
            report = self.heap.verify()
            assert report.ok, report.first_problem
        finally:
            self.heap.close()
            shutil.rmtree(self.directory)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        SetMachine,
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
def test_sets_equal_plain_sets_through_any_history() -> None:
    run(examples=60, steps=40)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_sets_equal_plain_sets_through_long_histories() -> None:
    run(examples=2000, steps=150)

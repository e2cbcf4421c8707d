"""Arrays in a heap and plain ndarrays stay equal, through any views, stores and states.

The model of an array is a plain ndarray over a block of plain memory that stands for one Buffer;
views share blocks, in the heap as in the model. Going back restores the blocks that the state held
and leaves younger ones, which held views still show, as they are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, collect, require_tracker, skip_test
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

try:
    import numpy as np
except ImportError:
    skip_test("numpy is not installed")

CAPACITY = 64 << 20
NAMES = st.sampled_from("abcdefgh")
PICKS = st.integers(0, 1 << 16)
DTYPES = st.sampled_from(["f8", "i2", ">u4", "M8[s]", "S3", "?", [("x", "i1"), ("y", ">f4", (2,))]])
SHAPES = st.sampled_from([(), (0,), (7,), (3, 0), (4, 5), (2, 3, 4), (700,), (60, 50)])


@dataclass(eq=False)
class Block:
    """The model of one Buffer."""

    memory: Any


@dataclass(eq=False)
class Head:
    """The model of one Array: what a state holds or does not, apart from its Buffer."""


@dataclass(eq=False)
class Model:
    """The model of one ndarray, by the head that it was read from."""

    block: Block
    array: Any
    head: Head
    is_whole: bool = True  # False: a view that the program made of what it read


@dataclass(eq=False)
class State:
    """What going back restores."""

    named: dict[str, Model]
    memory: dict[Block, Any]
    heads: set[Head]


def model_of(content: Any) -> Model:
    """A block with a copy of an ndarray, in the layout that a copy into a heap has."""
    order = "F" if content.flags.fnc else "C"
    block = Block(np.zeros(content.nbytes, "u1"))
    strides = np.empty(content.shape, content.dtype, order).strides
    array = np.ndarray(content.shape, content.dtype, block.memory, 0, strides)
    array[...] = content
    return Model(block, array, Head())


def window(block: Block, view: Any) -> Model:
    """What a stored view is read back as: the same window, writeable."""
    offset = view.__array_interface__["data"][0] - block.memory.__array_interface__["data"][0]
    if not view.size:
        offset = 0
    return Model(
        block, np.ndarray(view.shape, view.dtype, block.memory, offset, view.strides), Head()
    )


def random_content(dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    content = np.zeros(shape, dtype)
    noise = np.random.default_rng(seed).integers(0, 2, content.nbytes, "u1")
    return np.ndarray(shape, content.dtype, noise).copy() if content.nbytes else content


VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda a: a,
    "transposed": lambda a: a.T,
    "backwards": lambda a: a[::-1] if a.ndim else a,
    "thinned": lambda a: a[..., 1::2] if a.ndim else a,
    "half": lambda a: a[len(a) // 2 :] if a.ndim else a,
    "first": lambda a: a[:1] if a.ndim else a,
    "field": lambda a: a["y"] if a.dtype.names else a,
    "bytes": lambda a: a.reshape(-1).view("u1") if a.flags.c_contiguous and a.size else a,
    "flat": lambda a: a.reshape(-1) if a.flags.c_contiguous else a,
    "axis": lambda a: a[None],
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)) if a.ndim < 4 else a,
}


class ArrayMachine(RuleBasedStateMachine):
    """Names in the root and ndarrays that a program holds, each with its model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dh-arrays-"))
        self.named: dict[str, Model] = {}
        self.held: list[tuple[Any, Model, bool]] = []  # (ndarray, model, its handle is valid)
        self.committed = State({}, {}, set())
        self.heap = dh.open(self.directory / "heap", capacity=CAPACITY)

    def pick(self, number: int) -> tuple[Any, Model]:
        """One of the arrays, by name."""
        name = sorted(self.named)[number % len(self.named)]
        return self.heap.root[name], self.named[name]

    def state(self) -> State:
        models = [*self.named.values(), *(model for _, model, is_valid in self.held if is_valid)]
        memory = {model.block: model.block.memory.copy() for model in models}
        return State(dict(self.named), memory, {model.head for model in models})

    def went_back_to(self, state: State) -> None:
        self.named = dict(state.named)
        for block, memory in state.memory.items():
            block.memory[:] = memory
        self.held = [
            (a, model, is_valid and model.head in state.heads) for a, model, is_valid in self.held
        ]

    # --- stores ---------------------------------------------------------------------------------

    @rule(name=NAMES, dtype=DTYPES, shape=SHAPES, order=st.sampled_from("CF"), seed=PICKS)
    def make(self, name: str, dtype: Any, shape: Any, order: str, seed: int) -> None:
        content = np.asarray(random_content(dtype, shape, seed), order=order)
        array = self.heap.array(shape, dtype, order=order, fill=content)
        self.heap.root[name] = array
        self.named[name] = model_of(content)
        assert self.heap.root[name] is array

    @rule(name=NAMES, dtype=DTYPES, shape=SHAPES, seed=PICKS, view=st.sampled_from(list(VIEWS)))
    def copy_in(self, name: str, dtype: Any, shape: Any, seed: int, view: str) -> None:
        content = VIEWS[view](random_content(dtype, shape, seed))
        self.heap.root[name] = content
        self.named[name] = model_of(content)
        content = None

    @precondition(lambda self: self.named)
    @rule(pick=PICKS, name=NAMES, view=st.sampled_from(list(VIEWS)), nested=st.booleans())
    def link(self, pick: int, name: str, view: str, nested: bool) -> None:
        array, model = self.pick(pick)
        linked = VIEWS[view](array)
        if nested:
            self.heap.root["nested"] = {"in": [linked]}
            linked = self.heap.root["nested"]["in"][0]
        self.heap.root[name] = linked
        is_new = linked is not array
        self.named[name] = window(model.block, VIEWS[view](model.array)) if is_new else model

    @precondition(lambda self: self.named)
    @rule(pick=PICKS, seed=PICKS, how=st.sampled_from(["fill", "put", "out", "bytes"]))
    def store(self, pick: int, seed: int, how: str) -> None:
        array, model = self.pick(pick)
        self.store_in(array, seed, how)
        self.store_in(model.array, seed, how)

    @staticmethod
    def store_in(array: Any, seed: int, how: str) -> None:
        rng = np.random.default_rng(seed)
        content = random_content(array.dtype, (1,), seed)
        if how == "put" and array.size:
            array[tuple(rng.integers(0, extent) for extent in array.shape)] = content[0]
        elif how == "out" and array.dtype.kind in "fiu" and array.strides and min(array.strides):
            np.add(array, 1, out=array, casting="unsafe")
        elif (
            how == "bytes" and array.size and array.flags.c_contiguous and array.dtype.kind in "fiu"
        ):
            memoryview(array).cast("B")[:] = bytes(array.nbytes)
        else:
            array[...] = content[0]

    @precondition(lambda self: self.named)
    @rule(pick=PICKS)
    def delete(self, pick: int) -> None:
        name = sorted(self.named)[pick % len(self.named)]
        del self.heap.root[name], self.named[name]

    # --- holding --------------------------------------------------------------------------------

    @precondition(lambda self: self.named)
    @rule(pick=PICKS, view=st.sampled_from(list(VIEWS)))
    def hold(self, pick: int, view: str) -> None:
        array, model = self.pick(pick)
        made = VIEWS[view](array)
        shown = Model(model.block, VIEWS[view](model.array), model.head, made is array)
        self.held.append((made, shown, True))

    @precondition(lambda self: self.held)
    @rule(pick=PICKS)
    def let_go(self, pick: int) -> None:
        del self.held[pick % len(self.held)]

    @precondition(lambda self: self.held)
    @rule(pick=PICKS, name=NAMES)
    def store_held(self, pick: int, name: str) -> None:
        array, model, is_valid = self.held[pick % len(self.held)]
        if is_valid:
            self.heap.root[name] = array
            self.named[name] = model if model.is_whole else window(model.block, model.array)
        else:
            with pytest.raises(dh.StaleObjectError):
                self.heap.root[name] = array

    # --- states ---------------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        self.heap.commit()
        self.committed = self.state()

    @rule()
    def rollback(self) -> None:
        self.heap.rollback()
        self.went_back_to(self.committed)

    @precondition(lambda self: self.named)
    @rule(pick=PICKS, seed=PICKS, name=NAMES)
    def transaction_that_fails(self, pick: int, seed: int, name: str) -> None:
        before = self.state()
        with pytest.raises(ZeroDivisionError), self.heap.transaction():
            self.store(pick, seed, "fill")
            self.make(name, "f8", (700,), "C", seed)
            self.link(pick, name, "thinned", False)
            raise ZeroDivisionError
        self.went_back_to(before)

    @rule(how=st.sampled_from(COLLECTIONS))
    def collect(self, how: str) -> None:
        collect(self.heap, how)
        report = self.heap.verify()
        assert report.ok, report.first_problem

    @rule()
    def reopen(self) -> None:
        self.held.clear()
        self.heap.close()
        self.went_back_to(self.committed)
        self.heap = dh.open(self.directory / "heap", capacity=CAPACITY)
        report = self.heap.verify()
        assert report.ok, report.first_problem

    @invariant()
    def equal(self) -> None:
        assert set(self.heap.root) - {"nested"} == set(self.named)
        for name, model in self.named.items():
            self.compare(self.heap.root[name], model.array, name)
        for array, model, _ in self.held:
            self.compare(array, model.array, "held")

    def compare(self, found: Any, expected: Any, where: str) -> None:
        assert type(found) is np.ndarray, where
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        assert found.strides == expected.strides, where
        assert found.tobytes() == expected.tobytes(), where

    def teardown(self) -> None:
        try:
            self.held.clear()
            self.commit()
            self.reopen()
            self.equal()
        finally:
            self.heap.close()
            shutil.rmtree(self.directory)


def run(examples: int, steps: int) -> None:
    require_tracker("auto")
    run_state_machine_as_test(
        ArrayMachine,
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


@pytest.mark.timeout(120)
def test_arrays_equal_plain_ones_through_any_history() -> None:
    run(examples=60, steps=40)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_arrays_equal_plain_ones_through_long_histories() -> None:
    run(examples=1000, steps=150)

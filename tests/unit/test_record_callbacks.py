"""User code that runs inside an operation on records may do anything to the heap: the operation
works on what is there, or raises; it never crashes, and never stores half of something."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dirtyheap as dh

OUTCOMES = (dh.HeapError, RuntimeError, LookupError, ValueError, TypeError)


def mutate(heap: dh.Heap) -> None:
    heap.root["record"].items.append("y" * 50)
    heap.root["record"].any = "replaced by a text of some length"
    heap.root["fresh"].items = []


def replace(heap: dh.Heap) -> None:
    heap.root.clear()
    heap.collect()
    heap.root["others"] = [heap.new(Meddled, any="x" * 40) for _ in range(20)]


ACTIONS: dict[str, Callable[[dh.Heap], object]] = {
    "mutate": mutate,
    "replace": replace,
    "commit": lambda heap: heap.commit(),
    "rollback": lambda heap: heap.rollback(),
    "collect": lambda heap: heap.collect(),
    "close": lambda heap: heap.close(),
}


class Meddler:
    """Does the action at the n-th call."""

    def __init__(self) -> None:
        self.heap: dh.Heap | None = None
        self.left = 0
        self.action: Callable[[dh.Heap], object] = mutate

    def meddle(self) -> None:
        self.left -= 1
        if self.left == 0 and self.heap is not None:
            self.action(self.heap)

    def factory(self) -> list[Any]:
        self.meddle()
        return ["made in a factory", {"of some": "length"}]

    def __eq__(self, other: object) -> bool:
        self.meddle()
        return True

    __hash__ = None  # type: ignore[assignment]


MEDDLER = Meddler()


class Packed:
    """A value whose packer meddles."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        MEDDLER.meddle()
        return isinstance(other, Packed) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


def pack(packed: Packed) -> list[Any]:
    MEDDLER.meddle()
    return [packed.number, "a text of some length"]


def unpack(data: Any) -> Packed:
    MEDDLER.meddle()
    return Packed(data[0])


dh.register(Packed, pack, unpack)


class Asked(type):
    def __instancecheck__(cls, instance: object) -> bool:
        MEDDLER.meddle()
        return True


class Anything(metaclass=Asked):
    pass


NAME = "tests.unit.Meddled"
Older: Any = dh.record(type("Older", (), {"__annotations__": {"any": Any}}), name=NAME)


def define() -> Any:
    @dh.record(name=NAME)
    class Older:
        any: Any = None
        items: list[Any] = dh.field(default_factory=MEDDLER.factory)
        odd: Anything | Packed | None = None

        def __post_init__(self) -> None:
            MEDDLER.meddle()

        @property
        def size(self) -> int:
            before = len(self.items)
            MEDDLER.meddle()
            return before + len(self.items)

        @size.setter
        def size(self, value: int) -> None:
            self.any = "x" * value
            MEDDLER.meddle()
            self.any = "y" * value

    return Older


def fill(heap: dh.Heap) -> None:
    """An old record that lacks fields, and one of today; committed and not."""
    global Meddled
    MEDDLER.left = 0
    Meddled.__dh_schema__.forget()
    old: Any = dh.record(type("Older", (), {"__annotations__": {"any": Any}}), name=NAME)
    for name in ("old", "old too"):
        heap.root[name] = heap.new(old, ["a list", "of some length"])
    old.__dh_schema__.forget()
    Meddled = define()
    heap.root["record"] = heap.new(Meddled, Packed(1))
    heap.commit()
    heap.root["record"].items.append("uncommitted")
    heap.root["fresh"] = heap.new(Meddled, {"made": "after the commit"})


Meddled: Any = Older


def operations(heap: dh.Heap) -> Iterator[Callable[[], object]]:
    """Every operation that runs user code, on records of all ages."""
    root = heap.root
    for name in ("old", "record", "fresh"):
        record = root[name]
        yield lambda record=record: record.items
        yield lambda record=record: record.size
        yield lambda record=record: setattr(record, "size", 40)
        yield lambda record=record: setattr(record, "odd", Packed(5))
        yield lambda record=record: setattr(record, "any", [Packed(6), {"a": Packed(7)}])
        yield lambda record=record: setattr(record, "odd", 5)
        yield lambda record=record: record.any
        yield lambda record=record: record == root["old too"]
        yield lambda record=record: record == heap.new(Meddled, MEDDLER and Packed(1), ["x"])
        yield lambda record=record: repr(record)
        yield lambda record=record: dh.asdict(record)
        yield lambda record=record: dh.to_python([record])
    yield lambda: heap.new(Meddled)
    yield lambda: heap.new(Meddled, Packed(1), odd=Packed(2))
    yield lambda: heap.new(Meddled, [Packed(1)], [Packed(3), "a text of some length"], 5)
    yield lambda: root.update({heap.new(Meddled): Packed(1)})


COUNT = 3 * 12 + 4


@pytest.mark.parametrize("action", ACTIONS)
def test_user_code_inside_an_operation(tmp_path: Path, action: str) -> None:
    """Each operation x the action at its first, second and third call of user code."""
    heap: dh.Heap | None = None
    ran = 0
    MEDDLER.action = ACTIONS[action]
    for number in range(COUNT):
        for at in (1, 2, 3):
            if heap is None or heap.closed:
                heap = dh.open(tmp_path / f"h{number}-{at}", capacity=64 << 20)
            heap.root.clear()
            fill(heap)
            operation = list(operations(heap))[number]
            MEDDLER.heap, MEDDLER.left = heap, at
            with warnings.catch_warnings(), contextlib.suppress(*OUTCOMES):
                warnings.simplefilter("ignore", ResourceWarning)
                operation()
            ran += MEDDLER.left <= 0
            MEDDLER.left = 0
            del operation
            if not heap.closed:
                report = heap.verify()
                assert report.ok, (number, at, report)
                repr(heap.root)
    assert ran > COUNT
    if heap is not None and not heap.closed:
        heap.close()


def test_closed_in_the_middle(tmp_path: Path) -> None:
    for change in (
        lambda record: record.items,
        lambda record: setattr(record, "odd", 5),
        lambda record: setattr(record, "any", Packed(1)),
    ):
        heap = dh.open(tmp_path / "h", capacity=64 << 20)
        heap.root.clear()
        fill(heap)
        record = heap.root["old"]
        MEDDLER.heap, MEDDLER.action, MEDDLER.left = heap, ACTIONS["close"], 1
        with pytest.raises(dh.HeapClosedError):
            change(record)
        assert heap.closed


def test_rolled_back_in_the_middle_of_making(heap: dh.Heap) -> None:
    """Nothing that was converted before the rollback is stored after it."""
    fill(heap)
    MEDDLER.heap, MEDDLER.action, MEDDLER.left = heap, ACTIONS["rollback"], 1
    made = heap.new(Meddled, ["a text of some length"])
    assert "fresh" not in heap.root
    assert made.any == ["a text of some length"]
    assert heap.verify().ok

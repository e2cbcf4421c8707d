"""Records in the arena: the class as a number, bools as bits, and what leaves this form."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from helpers import run_ok

import dirtyheap as dh

# native/src/record.h: how many classes have a number, and how many fields can be a bit of the head.
NUMBERS_MAX = 255
BITS_MAX = 6

Kinds = dict[str, Any]


def record_class(name: str, fields: Kinds) -> Any:
    return dh.record(type(name, (), {"__annotations__": fields, "__module__": __name__}))


def bytes_each(heap: dh.Heap, cls: Any, values: Kinds) -> float:
    """Allocated bytes per record, the slot in a list apart."""
    heap.root["kept"] = kept = [None] * 1000
    kept = heap.root["kept"]
    kept[0] = heap.new(cls, **values)
    before = heap.stats().allocated_bytes
    for i in range(1, 1000):
        kept[i] = heap.new(cls, **values)
    return (heap.stats().allocated_bytes - before) / 999


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("", 32),
        ("i", 32),
        ("iii", 32),
        ("iiib", 32),
        ("iiibbbbbb", 32),
        ("iiibbbbbbb", 48),
        ("iifisb", 48),
        ("iifis", 48),
        ("bbbbbb", 32),
        ("iiio", 48),
    ],
)
def test_sizes(path: Path, kinds: str, expected: int) -> None:
    of: dict[str, tuple[Any, Any]] = {
        "i": (int, 5),
        "f": (float, 2.5),
        "s": (str, "short"),
        "b": (bool, True),
        "o": (bool | None, None),
    }
    fields = {f"x{i}": of[kind] for i, kind in enumerate(kinds)}
    cls = record_class("Sized", {name: kind for name, (kind, _) in fields.items()})
    with dh.open(path) as heap:
        each = bytes_each(heap, cls, {name: value for name, (_, value) in fields.items()})
        assert each == expected
        assert heap.verify().ok


def test_bools_against_a_model(path: Path) -> None:
    """More bools than bits between other fields, with commits, rollbacks and reopening."""
    names = [f"b{i}" for i in range(BITS_MAX + 3)]
    fields: Kinds = {"first": int}
    for name in names:
        fields |= {name: bool, f"n{name}": int}
    Flags = record_class("Flags", fields)
    rng = random.Random(7)
    heap = dh.open(path)
    start = {name: False if kind is bool else 0 for name, kind in fields.items()}
    heap.root["flags"] = [heap.new(Flags, **start), heap.new(Flags, **start)]
    model = [dict(start), dict(start)]
    heap.commit()
    committed = [dict(one) for one in model]
    for _ in range(3000):
        which, name = rng.randrange(2), rng.choice(list(fields))
        value = rng.random() < 0.5 if fields[name] is bool else rng.randrange(1 << 40)
        setattr(heap.root["flags"][which], name, value)
        model[which][name] = value
        action = rng.randrange(40)
        if action == 0:
            heap.commit()
            committed = [dict(one) for one in model]
        elif action == 1:
            heap.rollback()
            model = [dict(one) for one in committed]
        elif action == 2:
            heap.collect()
        elif action == 3 and rng.randrange(8) == 0:
            heap.commit()
            committed = [dict(one) for one in model]
            heap.close()
            heap = dh.open(path)
        for one, expected in zip(heap.root["flags"], model, strict=True):
            shown = {name: getattr(one, name) for name in fields}
            assert shown == expected
            assert all(type(shown[name]) is bool for name in names)
    assert dh.to_python(heap.root["flags"]) == model
    assert heap.verify().ok
    heap.close()


def test_what_is_no_bool_is_refused(path: Path) -> None:
    One = record_class("One", {"ok": bool})
    with dh.open(path) as heap:
        one = heap.new(One, ok=True)
        heap.root["one"] = one
        for wrong in (None, 0, "x", 1.5, []):
            with pytest.raises(TypeError, match=r"One\.ok must be bool"):
                one.ok = wrong
            assert one.ok is True
        assert hash(one) == hash(heap.root["one"])
        index = heap.root["index"] = heap.dict({one: "found"})
        one.ok = False
        assert index[one] == "found"
        assert heap.verify().ok


def test_a_rolled_back_class_gives_its_number_back(path: Path) -> None:
    A = record_class("A", {"x": int, "ok": bool})
    B = record_class("B", {"ok": bool, "text": str, "x": int})
    with dh.open(path) as heap:
        heap.commit()
        for i in range(20):
            cls, values = [(A, {"x": i, "ok": True}), (B, {"ok": True, "text": "t", "x": i})][i % 2]
            one = heap.new(cls, **values)
            heap.root["one"] = one
            assert (one.x, one.ok) == (i, True)
            if i == 10:
                heap.commit()
            else:
                heap.rollback()
            if i >= 10:
                assert (heap.root["one"].x, type(heap.root["one"])) == (10, A)
            assert heap.verify().ok
            if i != 10:
                with pytest.raises(dh.StaleObjectError):
                    one.x = 10
    with dh.open(path) as heap:
        assert dh.to_python(heap.root["one"]) == {"x": 10, "ok": True}


def test_more_classes_than_numbers(path: Path) -> None:
    classes = [
        record_class(f"Class{i}", {"x": int, f"y{i}": str, "ok": bool})
        for i in range(NUMBERS_MAX + 20)
    ]
    with dh.open(path) as heap:
        heap.root["all"] = [
            heap.new(cls, i, f"text number {i}", i % 2 == 0) for i, cls in enumerate(classes)
        ]
        heap.commit()
        heap.collect()
    with dh.open(path) as heap:
        for i, one in enumerate(heap.root["all"]):
            assert type(one) is classes[i]
            assert (one.x, getattr(one, f"y{i}"), one.ok) == (i, f"text number {i}", i % 2 == 0)
            one.ok = not one.ok
            another = heap.new(classes[i], 0, "", one.ok)
            assert another.ok is one.ok is (i % 2 != 0)
        assert heap.verify().ok


HEAD = """
import sys
import dirtyheap as dh
heap = dh.open(sys.argv[1])
def end():
    assert heap.verify().ok, heap.verify()
    heap.commit()
    heap.close()
"""
FIRST = """
@dh.record
class Item:
    ok: bool
    name: str
    also: bool
heap.root["items"] = [heap.new(Item, i % 2 == 0, f"the name of {i}", i % 3 == 0) for i in range(10)]
end()
"""


@pytest.fixture
def stored(path: Path) -> Path:
    run_ok(HEAD + FIRST, path)
    return path


def test_bits_of_a_class_that_nobody_defines(stored: Path) -> None:
    program = """
items = heap.root["items"]
for i, item in enumerate(items):
    shown = {"ok": i % 2 == 0, "name": f"the name of {i}", "also": i % 3 == 0}
    assert dh.to_python(item) == shown and item.also is shown["also"]
    item.also = not item.also
    assert (item.ok, item.also) == (i % 2 == 0, i % 3 != 0)
    try:
        item.ok = None
    except TypeError as error:
        assert "Item.ok must be bool, not NoneType" in str(error)
    else:
        raise AssertionError("None was stored")
end()
"""
    run_ok(HEAD + program, stored)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("bool | None", "None"), ("Any", "heap.new(Other, 5)"), ("float", "2.5"), ("Any", "'text'")],
)
def test_a_bit_field_is_widened(stored: Path, kind: str, value: str) -> None:
    """What a bit cannot hold moves the record; the others are left as they are."""
    program = f"""
from typing import Any
@dh.record
class Other:
    x: int
@dh.record
class Item:
    also: bool
    name: str
    ok: {kind}
items = heap.root["items"]
other = {value}
items[4].ok = other
for i, item in enumerate(items):
    assert (item.also, item.name) == (i % 3 == 0, f"the name of {{i}}")
    assert item.ok == (other if i == 4 else i % 2 == 0)
items[4].also = True
items[5].also = True
assert items[4].also and items[5].also and items[4].ok == other and not items[5].ok
end()
"""
    run_ok(HEAD + program, stored)


def test_a_store_in_any_keeps_to_the_stored_class(path: Path) -> None:
    """A record in a field that was stored as int moves its holder: what the class says is true."""
    run_ok(
        HEAD
        + """
@dh.record
class Holder:
    x: int
heap.root["holders"] = [heap.new(Holder, 1), heap.new(Holder, 2)]
end()
""",
        path,
    )
    run_ok(
        HEAD
        + """
from typing import Any
@dh.record
class Holder:
    x: Any
holders = heap.root["holders"]
holders[0].x = holders[1]
end()
""",
        path,
    )
    run_ok(
        HEAD
        + """
@dh.record
class Holder:
    x: int
holders = heap.root["holders"]
assert holders[1].x == 2
try:
    holders[0].x
except dh.RecordClassError as error:
    assert "Holder.x was stored as Any" in str(error), error
else:
    raise AssertionError("a record was read as an int")
end()
""",
        path,
    )

"""Dicts of the same keys share their key table: what that must and must not change.

Nothing of it can be seen but the memory: contents, order, errors and identity are those of any
dict. The layout has its own tests in native/tests/test_shape.c.
"""

from __future__ import annotations

import enum
import errno
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import fault, in_child, know_shapes, plain

import dirtyheap as dh

LONG = "a name of more than seven bytes"


def record(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"name{number:06}", LONG: number / 3, "ok": number % 2 == 0}


def bytes_per_record(heap: dh.Heap, make: Callable[[int], Any], count: int = 500) -> float:
    records = heap.root["records"] = heap.list()
    for number in range(10):
        records.append(make(number))
    before = heap.stats().allocated_bytes
    for number in range(count):
        records.append(make(number))
    return (heap.stats().allocated_bytes - before) / count


def key_by_key(heap: dh.Heap, number: int) -> dh.Dict:
    made = heap.dict()
    for key, value in record(number).items():
        made[key] = value
    return made


def filled(heap: dh.Heap, number: int) -> dh.Dict:
    made = heap.dict()
    made.update(record(number))
    return made


def other_objects(number: int) -> dict[str, Any]:
    """The same keys as new objects."""
    return {"".join(list(key)): value for key, value in record(number).items()}


@pytest.mark.parametrize(
    "make",
    [
        lambda heap: record,
        lambda heap: other_objects,
        lambda heap: lambda n: heap.dict(record(n)),
        lambda heap: lambda n: heap.dict(list(record(n).items())),
        lambda heap: lambda n: filled(heap, n),
        lambda heap: lambda n: key_by_key(heap, n),
    ],
    ids=["copied", "new keys", "dict()", "pairs", "update", "key by key"],
)
def test_records_of_one_kind_share_their_keys_however_they_are_made(
    heap: dh.Heap, make: Callable[[dh.Heap], Callable[[int], Any]]
) -> None:
    # 32 head, 32 values, 16 name; 8 and a little in the list. Own keys would be 64 + 48 more.
    if make(heap)(0).__class__ is dict:
        heap.root["records"] = [make(heap)(n) for n in range(3)]
    assert bytes_per_record(heap, make(heap)) < 32 + 32 + 16 + 32
    assert dh.to_python(heap.root["records"])[10:] == [record(n) for n in range(500)]
    assert heap.verify().ok


def test_a_copy_of_a_dict_of_the_heap_shares_with_it(heap: dh.Heap) -> None:
    source = heap.root["sources"] = heap.list([record(n) for n in range(3)])[2]
    used = bytes_per_record(heap, lambda n: heap.dict(source))
    assert used < 32 + 32 + 16 + 32
    copies = heap.root["records"]
    copies[0][LONG] = "changed"
    assert list(copies[1].items()) == list(source.items()) == list(record(2).items())
    assert heap.verify().ok


def test_dicts_that_are_used_as_maps_do_not_share(heap: dh.Heap) -> None:
    heap.root["maps"] = [{f"user {n}": n, f"user {n + 1}": n} for n in range(3000)]
    used = heap.stats().allocated_bytes
    heap.root["more"] = [{f"user {n}": n, f"user {n + 1}": n} for n in range(3000)]
    assert heap.stats().allocated_bytes <= 2 * used + 4096
    heap.root.clear()
    heap.collect()
    assert heap.stats().allocated_bytes < 4096


def test_one_dict_of_many_changes_alone(heap: dh.Heap) -> None:
    records = heap.root["records"] = heap.list([record(n) for n in range(20)])
    changes: list[Callable[[Any], Any]] = [
        lambda d: d.update(extra=1),
        lambda d: d.pop("id"),
        lambda d: d.popitem(),
        lambda d: d.clear(),
        lambda d: d.setdefault("more", [1]),
        lambda d: d.__setitem__("id", "another"),
        lambda d: (d.pop("id"), d.__setitem__("id", 7)),
        lambda d: (d.popitem(), d.__setitem__("ok", None)),
        lambda d: (d.popitem(), d.__setitem__("not ok", None)),
        lambda d: d.update({f"k{i}": i for i in range(40)}),
        lambda d: d.__setitem__(1, 2),
        lambda d: d.__setitem__((1, LONG), 2),
        lambda d: d.__ior__({"ok": 3, "later": LONG}),
    ]
    expected = [record(n) for n in range(20)]
    for number, change in enumerate(changes):
        change(records[number])
        change(expected[number])
        found = dh.to_python(records)
        assert found == expected
        assert [list(one) for one in found] == [list(one) for one in expected]
        assert [list(reversed(one)) for one in records] == [list(reversed(e)) for e in expected]
    assert heap.verify().ok


def test_the_order_is_that_of_each_dict(heap: dh.Heap) -> None:
    forwards, backwards = record(1), dict(reversed(record(1).items()))
    both = heap.root["both"] = heap.list([forwards, backwards] * 5)
    for number, one in enumerate(both):
        expected = backwards if number % 2 else forwards
        assert list(one.items()) == list(expected.items())
    assert both[0] == both[1]


def test_keys_that_are_equal_but_not_the_same_stay_what_they_are(heap: dh.Heap) -> None:
    dicts = [{1: "a", "b": 2}, {True: "a", "b": 2}, {1.0: "a", "b": 2}] * 5
    heap.root["dicts"] = dicts
    assert repr(dh.to_python(heap.root["dicts"])) == repr(dicts)


@dh.register
class Name(enum.StrEnum):
    """Equal to a str, and yet not one."""

    SHORT = "id"
    LONG = LONG


def test_keys_that_are_equal_to_a_str_stay_what_they_are(heap: dh.Heap) -> None:
    plain_keys, members = ["id", LONG], [Name.SHORT, Name.LONG]
    for _ in range(3):
        heap.root["records"] = [dict.fromkeys(plain_keys, n) for n in range(4)]
        heap.root["others"] = [dict.fromkeys(members, n) for n in range(4)]
        for keys in (plain_keys, members, ["id", Name.LONG], [Name.SHORT, LONG]):
            made = heap.dict()
            for key in keys:
                made[key] = 1
            assert [type(key) for key in made] == [type(key) for key in keys]
            assert made[Name.LONG] == made[LONG] == 1
    assert [type(key) for key in heap.root["others"][3]] == [Name, Name]
    assert [type(key) for key in heap.root["records"][3]] == [str, str]
    assert heap.verify().ok


@pytest.mark.parametrize("count", [1, 7, 8, 9, 31, 32, 33, 100])
def test_any_number_of_keys(heap: dh.Heap, count: int) -> None:
    keys = [f"key{i}" if i % 2 else f"a longer key {i}" for i in range(count)]
    heap.root["dicts"] = [dict(zip(keys, range(n, n + count), strict=True)) for n in range(10)]
    for n, one in enumerate(heap.root["dicts"]):
        assert list(one.items()) == list(zip(keys, range(n, n + count), strict=True))
        assert "absent" not in one
        assert all(one[key] == n + i for i, key in enumerate(keys))
    assert heap.verify().ok


def test_surrogates_and_subclasses_as_keys(heap: dh.Heap) -> None:
    heap.root["dicts"] = [{"\ud800": n, "b": 2} for n in range(5)]
    assert dh.to_python(heap.root["dicts"]) == [{"\ud800": n, "b": 2} for n in range(5)]


def test_records_that_hold_themselves_and_others(heap: dh.Heap) -> None:
    def pair() -> list[dict[str, Any]]:
        one: dict[str, Any] = {"name": "one", "other": None}
        two = {"name": "two", "other": one}
        one["other"] = two
        return [one, two]

    heap.root["pairs"] = [pair() for _ in range(5)]
    for one, two in heap.root["pairs"]:
        assert one["other"] is two and two["other"] is one
    del one, two
    heap.root["pairs"] = None
    heap.collect()
    assert heap.verify().ok


def test_keys_that_are_read_often_are_one_object_and_never_a_wrong_one(heap: dh.Heap) -> None:
    heap.root["records"] = [record(n) for n in range(10)]
    one, another = heap.root["records"][8], heap.root["records"][9]
    for _ in range(3):
        list(one), dict(one.items()), dh.to_python(one)
    assert all(a is b for a, b in zip(one, another, strict=True))
    changing = heap.root["changing"] = heap.dict({1: 1})
    for n in range(2000):  # cells are used again and again, for texts of the same length
        key = f"a long name {n:04}"
        changing[key] = n
        assert list(changing) == [1, key] == list(changing) == list(changing.copy())
        assert changing.popitem() == (key, n)
        if n % 100 == 0:
            heap.collect()


def test_iteration_notices_every_change(heap: dh.Heap) -> None:
    heap.root["records"] = [record(n) for n in range(6)]
    changes: list[Callable[[Any], Any]] = [
        lambda d: d.popitem(),
        lambda d: d.pop("id"),
        lambda d: d.update(new=1),
        lambda d: d.clear(),
        lambda d: (d.popitem(), d.update(ok=1)),
    ]
    for one, change in zip(heap.root["records"], changes, strict=False):
        iterator = iter(one)
        next(iterator)
        change(one)
        with pytest.raises(RuntimeError, match="changed size"):
            next(iterator)
    one = heap.root["records"][5]
    iterator = iter(one.items())
    next(iterator)
    one["id"] = "another"
    assert len(list(iterator)) == 3


def test_a_rollback_takes_a_shape_back_and_it_is_made_again(heap: dh.Heap) -> None:
    heap.commit()
    for _ in range(5):
        heap.root["records"] = [record(n) for n in range(5)]
        heap.rollback()
        assert heap.root == {}
        assert heap.verify().ok
    heap.root["records"] = [record(n) for n in range(5)]
    heap.commit()
    with pytest.raises(ZeroDivisionError), heap.transaction():
        heap.root["more"] = [{"a": n, "b": record(n)} for n in range(5)]
        raise ZeroDivisionError
    heap.root["more"] = [{"a": n, "b": record(n)} for n in range(5)]
    assert heap.root == {
        "records": [record(n) for n in range(5)],
        "more": [{"a": n, "b": record(n)} for n in range(5)],
    }
    assert heap.verify().ok


def test_a_process_that_adds_records_finds_the_shapes_of_the_last(tmp_path: Path) -> None:
    used = []
    for runs in (1, 6):
        for run in range(runs):
            with dh.open(tmp_path / f"heap-{runs}") as heap:
                if run == 0:
                    heap.root["records"] = [record(0)]
                for number in range(120 // runs):
                    heap.root["records"].append(record(number))
                heap.commit()
                assert heap.verify().ok
                used.append(heap.stats().allocated_bytes)
    assert used[-1] == used[0]


def test_shapes_outlive_a_collection_of_all_their_dicts(heap: dh.Heap) -> None:
    for n in range(20):
        heap.root["records"] = [record(n) for n in range(5)]
        heap.root["records"] = None
        heap.collect()
        used = heap.stats().allocated_bytes if n == 2 else 0
    assert heap.stats().allocated_bytes <= max(used, 4096)


@pytest.mark.parametrize(
    "do", ["first key", "known key", "insert", "other key", "copy", "update", "from a Dict"]
)
@pytest.mark.parametrize(("rc", "error"), [(-1, dh.HeapFullError), (errno.ENOMEM, MemoryError)])
def test_the_nth_allocation_fails(path: Path, do: str, rc: int, error: type[Exception]) -> None:
    """The capacity is reached, or the system has no memory: an error, never a lost key."""
    with dh.open(path) as heap:
        keys = list(record(1))
        know_shapes(heap, keys, keys[:1], [*keys, "one key more"])
        heap.root["records"] = [record(n) for n in range(5)]
        value = {**record(1), LONG: "text" * 10}
        for failing in itertools.count():
            one = heap.root["one"] = heap.dict(record(2))
            empty = heap.root["empty"] = heap.dict()
            before = plain(heap)
            try:
                with fault("alloc.cell", after=failing, rc=rc):
                    if do == "first key":
                        empty[keys[0]] = 1
                    elif do == "known key":
                        one["one key more"] = 1
                    elif do == "insert":
                        one[f"a new key {failing}"] = 1
                    elif do == "other key":
                        one[failing] = 1
                    elif do == "copy":
                        heap.root["copy"] = value
                    elif do == "update":
                        empty.update(value)
                    else:
                        empty.update(one)
                break
            except error:
                assert plain(heap) == before, f"allocation {failing}"
                assert heap.verify().ok
        assert failing >= 1
        assert plain(heap) != before
        assert heap.verify().ok


def test_a_full_heap_can_still_be_emptied(path: Path) -> None:
    with dh.open(path, capacity=1 << 20) as heap:
        records = heap.root["records"] = heap.list()
        with pytest.raises(dh.HeapFullError):
            for number in itertools.count():
                records.append(record(number))
        for number, one in enumerate(records):
            assert one.pop("name") == f"name{number:06}"
            assert one.popitem() == ("ok", number % 2 == 0)
            del one["id"]
        assert all(list(one) == [LONG] for one in records)
        assert heap.verify().ok


def test_a_failed_copy_leaves_the_shape_usable(heap: dh.Heap) -> None:
    heap.root["records"] = [record(n) for n in range(3)]
    for _ in range(3):
        with pytest.raises(TypeError, match=r"value\['other'\]\[0\]"):
            heap.root["bad"] = {"kind": 1, "other": [object()]}
        with pytest.raises(TypeError, match=r"value\['ok'\]"):
            heap.dict().update({**record(1), "ok": object()})
    heap.root["good"] = [{"kind": n, "other": [n]} for n in range(3)]
    assert heap.root["good"] == [{"kind": n, "other": [n]} for n in range(3)]
    assert heap.verify().ok


def test_a_forked_child_reads(heap: dh.Heap) -> None:
    heap.root["records"] = [record(n) for n in range(5)]
    assert in_child(lambda: dh.to_python(heap.root["records"])) == [record(n) for n in range(5)]

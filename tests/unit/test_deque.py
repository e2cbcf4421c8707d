"""Deque: what collections.deque does, in a heap, and what is peculiar to one in a heap."""

from __future__ import annotations

import collections
import copy
import decimal
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from helpers import contents, fault, seeded

import dirtyheap as dh

DH_E_FULL = -1


def test_new_deques(heap: dh.Heap) -> None:
    assert type(heap.deque()) is dh.Deque
    assert list(heap.deque("abc")) == ["a", "b", "c"]
    assert list(heap.deque(iter(range(5)), 3)) == [2, 3, 4]
    assert heap.deque(maxlen=3).maxlen == 3
    assert heap.deque([1]).maxlen is None
    for maxlen in (2**62 - 1, 2**62, sys.maxsize):  # more than an int word holds, too
        long = heap.deque([1], maxlen=maxlen)
        long.extend([2])
        long.insert(0, 0)
        heap.root["long"] = collections.deque([0, long], maxlen)
        for found in (long, heap.root["long"][1], long.copy(), heap.root["long"]):
            assert found.maxlen == maxlen
        assert list(long) == [0, 1, 2]
        assert heap.verify().ok
    assert list(heap.deque(heap.deque([1, 2]))) == [1, 2]
    with pytest.raises(ValueError, match="maxlen must be non-negative"):
        heap.deque([1], maxlen=-1)
    with pytest.raises(TypeError):
        heap.deque([1], maxlen="3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"use heap\.deque\(\)"):
        dh.Deque()
    with pytest.raises(AttributeError):
        heap.deque().maxlen = 5  # type: ignore[misc]


@pytest.mark.parametrize("maxlen", [None, 0, 1, 7, 600, 3000])
def test_random_operations_against_a_deque(heap: dh.Heap, maxlen: int | None) -> None:
    rng = seeded(f"maxlen {maxlen}")
    ours, model = heap.deque(maxlen=maxlen), collections.deque[Any](maxlen=maxlen)
    heap.root["d"] = ours
    for step in range(600):
        name = rng.choice(list(OPERATIONS))
        count = rng.choice([0, 1, 2, 5, rng.randrange(900)])
        place = rng.randrange(-len(model), len(model)) if model else 0
        found, expected = (OPERATIONS[name], ours), (OPERATIONS[name], model)
        assert outcome(*found, step, place, count) == outcome(*expected, step, place, count), name
        assert len(ours) == len(model)
        if step % 20 == 0:
            assert list(ours) == list(model)
            assert list(reversed(ours)) == list(reversed(model))
            assert ours == model
        if step % 150 == 149:
            heap.commit()
            assert heap.verify().ok
    assert dh.to_python(ours) == model


# Of a deque, the number of the step, a place in the deque, and a count.
OPERATIONS: dict[str, Callable[[Any, int, int, int], Any]] = {
    "append": lambda d, step, place, count: d.append(f"step {step} as a string"),
    "appendleft": lambda d, step, place, count: d.appendleft(f"step {step} as a string"),
    "extend": lambda d, step, place, count: d.extend(range(step, step + count)),
    "extendleft": lambda d, step, place, count: d.extendleft(range(step, step + count)),
    "pop": lambda d, step, place, count: d.pop(),
    "popleft": lambda d, step, place, count: d.popleft(),
    "rotate": lambda d, step, place, count: d.rotate(place),
    "insert": lambda d, step, place, count: d.insert(place, step),
    "set": lambda d, step, place, count: d.__setitem__(place, f"another string at {step}"),
    "delete": lambda d, step, place, count: d.__delitem__(place),
    "remove": lambda d, step, place, count: d.remove(d[place]),
    "reverse": lambda d, step, place, count: d.reverse(),
    "clear": lambda d, step, place, count: len(d) > 2000 and d.clear(),
}


def outcome(use: Callable[..., Any], deque: Any, *arguments: int) -> Any:
    try:
        return use(deque, *arguments)
    except (IndexError, ValueError) as error:
        return type(error), str(error)


def test_what_is_stored_comes_back(heap: dh.Heap, tmp_path: Any) -> None:
    plain = collections.deque([1, "two", [3, {"four": 5}], decimal.Decimal("6.5")], maxlen=6)
    plain.append(plain)
    plain.append(plain[2])
    heap.root["d"] = plain
    ours = heap.root["d"]
    assert type(ours) is dh.Deque
    assert ours.maxlen == 6
    assert ours[4] is ours
    assert ours[5] is ours[2]
    for copied in (dh.to_python(ours), pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        assert type(copied) is collections.deque
        assert copied.maxlen == 6
        assert copied[4] is copied
        assert copied[5] is copied[2]
        assert type(copied[2]) is list
        assert list(copied)[:4] == [1, "two", [3, {"four": 5}], decimal.Decimal("6.5")]
    shallow = copy.copy(ours)
    assert type(shallow) is collections.deque
    assert shallow[2] is ours[2]
    assert shallow.maxlen == 6


def test_packed_values_in_tuples_and_deques_are_unpacked(heap: dh.Heap) -> None:
    """A deque is walked like a list when values are packed and unpacked."""
    amount = decimal.Decimal("1.25")
    heap.root["d"] = [collections.deque([(amount, [amount]), {amount: amount}])]
    assert dh.to_python(heap.root["d"]) == [
        collections.deque([(amount, [amount]), {amount: amount}])
    ]
    assert heap.root["d"][0].popleft()[0] == amount


def test_subclasses_are_refused(heap: dh.Heap) -> None:
    class Own(collections.deque[Any]):
        pass

    with pytest.raises(TypeError, match="a heap cannot hold"):
        heap.root["d"] = Own([1])
    with pytest.raises(TypeError, match="has a key of type 'collections.deque'|unhashable"):
        heap.root["d"] = {(1, collections.deque()): 1}  # type: ignore[dict-item]


def test_survives_reopening(path: Any) -> None:
    with dh.open(path) as heap:
        ring = heap.root["ring"] = heap.deque(range(5000), maxlen=4000)
        ring.rotate(17)
        heap.commit()
        ring.append("not committed")
    model = collections.deque(range(1000, 5000), maxlen=4000)
    model.rotate(17)
    assert contents(path)["ring"] == model
    with dh.open(path) as heap:
        heap.root["ring"].appendleft("x")
        model.appendleft("x")
        assert heap.root["ring"] == model
        assert heap.root["ring"].maxlen == 4000


def test_rollback_takes_changes_back(heap: dh.Heap) -> None:
    ours = heap.root["d"] = heap.deque(range(3000))
    heap.commit()
    ours.rotate(1400)
    ours.insert(1500, "new")
    ours.popleft()
    heap.rollback()
    assert list(ours) == list(range(3000))
    assert heap.verify().ok


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.append(1),
        lambda d: d.appendleft(1),
        lambda d: d.pop(),
        lambda d: (d.append(1), d.popleft()),
        lambda d: d.rotate(1),
        lambda d: d.insert(1, 1),
        lambda d: d.__delitem__(1),
        lambda d: d.extend([1, 2]),
        lambda d: d.extendleft([1, 2]),
        lambda d: d.clear(),
        lambda d: d.__imul__(2),
    ],
)
def test_iterating_over_a_changed_deque_raises(heap: dh.Heap, change: Any) -> None:
    for iterate in (iter, reversed):
        ours = heap.deque([1, 2, 3])
        iterator = iterate(ours)
        next(iterator)
        change(ours)
        with pytest.raises(RuntimeError, match="deque mutated during iteration"):
            next(iterator)
        with pytest.raises(RuntimeError, match="deque mutated during iteration"):
            next(iterator)


def test_iterators(heap: dh.Heap) -> None:
    ours = heap.deque([1, 2, 3])
    iterator = iter(ours)
    assert iterator.__length_hint__() == 3  # type: ignore[attr-defined]
    ours[0] = 5  # replacing is no change of what stands where
    assert next(iterator) == 5
    assert list(iterator) == [2, 3]
    assert list(iterator) == []


def test_a_rollback_below_an_iterator_raises(heap: dh.Heap) -> None:
    ours = heap.root["d"] = heap.deque([1, 2, 3])
    heap.commit()
    ours.append(4)
    iterator = iter(ours)
    heap.rollback()
    with pytest.raises(RuntimeError, match="mutated"):
        next(iterator)


def test_index_and_remove(heap: dh.Heap) -> None:
    plain = list("ABCDEFGHI" * 2)
    ours = heap.deque(plain)
    for start in range(-20, 20, 3):
        for stop in range(-20, 20, 3):
            for element in "AEZ":
                try:
                    expected = plain.index(element, start, stop)
                except ValueError:
                    with pytest.raises(ValueError, match=r"'\w' is not in deque"):
                        ours.index(element, start, stop)
                else:
                    assert ours.index(element, start, stop) == expected
    ours.remove("C")
    plain.remove("C")
    assert list(ours) == plain
    with pytest.raises(ValueError, match=r"deque\.remove\(x\): x not in deque"):
        ours.remove("Z")
    with pytest.raises(TypeError):
        ours.index()  # type: ignore[call-arg]
    assert heap.deque([[1], 2]).index([1]) == 0
    assert ours.count("A") == 2
    assert [1] in heap.deque([[1]])


class Changes:
    """Compares by changing a deque."""

    def __init__(self, deque: dh.Deque, result: bool) -> None:
        self.deque, self.result = deque, result

    def __eq__(self, other: object) -> bool:
        self.deque.append(0)
        return self.result

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("result", [True, False])
def test_comparing_that_changes_the_deque(heap: dh.Heap, result: bool) -> None:
    ours = heap.deque([1, [2], 3])
    changes = Changes(ours, result)
    for search in (ours.index, ours.count, ours.__contains__):
        with pytest.raises(RuntimeError, match="deque mutated during iteration"):
            search(changes)
    length = len(ours)
    with pytest.raises(IndexError, match=r"deque mutated during remove\(\)\."):
        ours.remove(changes)
    assert len(ours) == length + 1
    if result:
        with pytest.raises(RuntimeError, match="deque mutated during iteration"):
            _ = ours == collections.deque([changes] * len(ours))


def test_comparisons(heap: dh.Heap) -> None:
    texts = ["", "a", "b", "ab", "ba", "abc", "xabc", "cba"]
    for left in texts:
        for right in texts:
            ours, theirs = heap.deque(left), collections.deque(right)
            for other in (theirs, heap.deque(right)):
                assert (ours == other) == (left == right)
                assert (ours != other) == (left != right)
                assert (ours < other) == (left < right)
                assert (ours <= other) == (left <= right)
                assert (ours > other) == (left > right)
                assert (ours >= other) == (left >= right)
            assert (theirs == ours) == (left == right)
            assert (theirs < ours) == (right < left)
    assert heap.deque([1]) != [1]
    assert heap.deque([1]) == heap.deque([1], 5)
    with pytest.raises(TypeError):
        _ = heap.deque([1]) < [1]  # type: ignore[operator]


def test_sums_and_products_are_plain(heap: dh.Heap) -> None:
    ours = heap.deque("abc", 4)
    for total in (ours + heap.deque("de"), ours + collections.deque("de")):
        assert type(total) is collections.deque
        assert total == collections.deque("bcde")
        assert total.maxlen == 4
    assert type(ours * 3) is collections.deque
    assert ours * 3 == 3 * ours == collections.deque("cabc")
    assert ours.copy() == collections.deque("abc")
    with pytest.raises(TypeError, match='can only concatenate deque \\(not "list"\\) to deque'):
        _ = ours + [1]  # type: ignore[operator]
    same = ours
    same += "xy"
    same *= 2
    assert same is ours
    assert list(ours) == list("bcxy" * 2)[-4:]
    plain = collections.deque([1])
    plain += ours
    assert list(plain) == [1, *ours]


@pytest.mark.parametrize("times", [-1, 0, 1, 2, 3, 10, 5000])
@pytest.mark.parametrize("maxlen", [None, 0, 1, 5, 700])
def test_repeating_in_place(heap: dh.Heap, times: int, maxlen: int | None) -> None:
    for text in ("", "a", "abc"):
        ours, model = heap.deque(text, maxlen), collections.deque(text, maxlen)
        ours *= times
        model *= times
        assert ours == model
    assert heap.verify().ok


def test_indexes(heap: dh.Heap) -> None:
    ours = heap.deque(range(2000))
    ours.appendleft(-1)
    assert ours[0] == -1
    assert ours[-1] == 1999
    assert ours[1500] == 1499
    for index in (2001, -2002, 1 << 70):
        with pytest.raises(IndexError):
            ours[index]
    for index in (2001, -2002):
        with pytest.raises(IndexError, match="deque index out of range"):
            ours[index] = 1
        with pytest.raises(IndexError, match="deque index out of range"):
            del ours[index]
    uses: list[Callable[[], Any]] = [
        lambda: ours[0:1],  # type: ignore[misc]
        lambda: ours.__setitem__(slice(0, 1), [1]),  # type: ignore[arg-type]
        lambda: ours.__delitem__(slice(0, 1)),  # type: ignore[arg-type]
        lambda: ours["a"],  # type: ignore[index]
    ]
    for use in uses:
        with pytest.raises(TypeError):
            use()
    assert len(ours) == 2001


def test_a_full_deque_refuses_insert(heap: dh.Heap) -> None:
    ours = heap.deque([1, 2, 3], maxlen=3)
    with pytest.raises(IndexError, match="deque already at its maximum size"):
        ours.insert(1, "a string that is dropped again")
    assert list(ours) == [1, 2, 3]
    ours.pop()
    ours.insert(-5, 0)
    assert list(ours) == [0, 1, 2]


def test_empty_deques(heap: dh.Heap) -> None:
    ours = heap.deque()
    assert not ours
    ours.rotate(5)
    ours.reverse()
    ours.clear()
    for use in (ours.pop, ours.popleft):
        with pytest.raises(IndexError, match="pop from an empty deque"):
            use()


def test_as_in_python(heap: dh.Heap) -> None:
    ours = heap.deque([1, [2]], maxlen=9)
    ours.append(ours)
    assert repr(ours) == "deque([1, [2], [...]], maxlen=9)"
    assert repr(heap.deque()) == "deque([])"
    assert isinstance(ours, collections.abc.MutableSequence)
    assert not isinstance(ours, collections.deque)
    assert dh.Deque[int] is not None
    with pytest.raises(TypeError):
        hash(ours)
    reference = weakref.ref(ours)
    assert reference() is ours
    del ours
    gc.collect()
    assert reference() is None
    match heap.deque([1, 2, 3]):
        case [first, *rest]:
            assert (first, rest) == (1, [2, 3])
        case _:
            pytest.fail("a Deque is a sequence")


def test_linked_containers_are_not_copied(heap: dh.Heap) -> None:
    inner = heap.root["inner"] = heap.deque([1])
    outer = heap.root["outer"] = heap.deque([inner])
    outer.append(inner)
    inner.append(2)
    assert outer[0] is outer[1] is inner
    assert list(outer[0]) == [1, 2]
    outer.extend(outer)
    assert all(item is inner for item in outer)
    assert len(outer) == 4


def test_no_room_leaves_it_as_it_was(heap: dh.Heap) -> None:
    """Every allocation of every operation fails in turn."""
    operations: list[Callable[[dh.Deque], Any]] = [
        lambda d: d.extend(["a string of some length"] * 1000),
        lambda d: d.extendleft(["a string of some length"] * 1000),
        lambda d: d.rotate(1700),
        lambda d: d.insert(2500, "a string of some length"),
        lambda d: d.__imul__(2),
    ]
    for operation in operations:
        for maxlen in (None, 6000):
            hits = 0
            while True:
                ours = heap.root["d"] = heap.deque(range(6000 if maxlen else 5000), maxlen)
                if maxlen:
                    ours.popleft()
                before = list(ours)
                try:
                    with fault("alloc.cell", hits, DH_E_FULL):
                        operation(ours)
                except dh.HeapFullError:
                    assert list(ours) == before
                else:
                    break
                hits = hits * 2 + 1
            assert hits > 0
    heap.collect()
    assert heap.verify().ok


def test_ends_write_few_pages(heap: dh.Heap) -> None:
    """Counted by the watch, the allocation table included: both ends of a long deque, and of a ring
    whose other end gives way."""
    for maxlen in (None, 300_000):
        ours = heap.root["d"] = heap.deque(range(300_000), maxlen)
        uses = [ours.append, ours.appendleft] * 2
        for use in uses:
            for i in range(30):
                heap.commit()
                use(i)
                assert heap.pending().pages <= 12
        heap.commit()
        ours.rotate(10)
        assert heap.pending().pages <= 12
        total = 0
        for take in (ours.pop, ours.popleft):
            for _ in range(30):
                heap.commit()
                take()
                total += heap.pending().pages
        assert total <= 5 * 60

"""User code that runs inside an operation of a SortedDict may do anything to the heap; see
test_callbacks.py, whose actions these are."""

from __future__ import annotations

import contextlib
import gc
import warnings

import pytest
from test_callbacks import ACTIONS, OUTCOMES, Meddler, fill

import dirtyheap as dh


class SortedMeddler(Meddler):
    """Also stands for a number that it is equal to."""

    def __eq__(self, other):
        self.meddle()
        return other == 3

    __lt__ = __le__ = __gt__ = __ge__ = Meddler.__eq__

    def __hash__(self):
        self.meddle()
        return hash(3)

    def __float__(self):
        self.meddle()
        return 3.0

    __index__ = None

    def __bool__(self):
        self.meddle()
        return True


class Index:
    """An index that meddles."""

    def __init__(self, meddler):
        self.meddler = meddler

    def __index__(self):
        self.meddler.meddle()
        return 1


def contents(count):
    return {i: [f"value {i} of some length"] if i % 40 < 4 else i for i in range(count)}


def operations(meddler):
    heap = meddler.heap
    fresh = heap.sorted_dict(contents(600))
    index = Index(meddler)
    for d in (heap.root["sorted"], fresh):
        yield lambda d=d: d[meddler]
        yield lambda d=d: d.get(meddler)
        yield lambda d=d: meddler in d
        yield lambda d=d: d.pop(meddler)
        yield lambda d=d: d.__delitem__(meddler)
        yield lambda d=d: d.setdefault(meddler, ["a new list"])
        yield lambda d=d: d.bisect(meddler)
        yield lambda d=d: d.index(meddler)
        yield lambda d=d: d.index(3, index, index)
        yield lambda d=d: list(d.irange(meddler, meddler))
        yield lambda d=d: list(d.irange(2, meddler, (meddler, meddler), meddler))
        yield lambda d=d: list(d.islice(index, index))
        yield lambda d=d: d.peekitem(index)
        yield lambda d=d: d.popitem(index)
        yield lambda d=d: d.update(meddler.pairs())
        yield lambda d=d: d.update({1: "one", 2.5: meddler})
        yield lambda d=d: d == dict.fromkeys(d, meddler)
        yield lambda d=d: [meddler.meddle() for _ in d]
        yield lambda d=d: [meddler.meddle() for _ in d.items()]
        yield lambda d=d: [meddler.meddle() for _ in reversed(d)]
        yield lambda d=d: [meddler.meddle() for _ in d.irange(5, 500)]
        yield lambda d=d: d.keys()[index]
        yield lambda d=d: d.items()[index:]
        yield lambda d=d: d.keys().index(meddler)
        yield lambda d=d: d.values().index(meddler)
        yield lambda d=d: d.values().count(meddler)
        yield lambda d=d: (3, meddler) in d.items()
        yield lambda d=d: d.items() == {(key, meddler) for key in d}
        yield lambda d=d: d.keys() & {meddler, 5}
    yield lambda: heap.sorted_dict(meddler.pairs())


def prepare(heap):
    heap.root.clear()
    heap.root["sorted"] = heap.sorted_dict(contents(300))
    fill(heap)  # commits
    heap.root["sorted"][1000] = "uncommitted"


def mutate_sorted(heap):
    heap.root["sorted"].clear()
    heap.root["sorted"].update({f"{i:050}": i for i in range(400)})


@pytest.mark.parametrize("action", [*ACTIONS, "sorted"])
def test_user_code_inside_an_operation(tmp_path, action):
    """Each operation x each action at its first and third call of user code."""
    act = ACTIONS.get(action, mutate_sorted)
    heap = None
    ran = number = 0
    count = 1
    while number < count:
        for at in (1, 3):
            if heap is None or heap.closed:
                heap = dh.open(tmp_path / f"h{number}-{at}", capacity=64 << 20)
            prepare(heap)
            meddler = SortedMeddler(heap, act, at)
            candidates = list(operations(meddler))
            count = len(candidates)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                with contextlib.suppress(*OUTCOMES):
                    candidates[number]()
            ran += meddler.left <= 0
            del candidates
            if not heap.closed:
                report = heap.verify()
                assert report.ok, (number, at, report)
                repr(heap.root)
        number += 1
    assert ran > count
    if not heap.closed:
        heap.close()


class Refiller:
    """Garbage in a cycle: replaces all contents, and lets their memory be used for others."""

    def __init__(self, heap):
        self.me, self.heap = self, heap

    def __del__(self):
        refill(self.heap, "new")


def long_tuple(number, word):
    """Too long for the lists of free tuples: making it may start Python's collector."""
    return (number, f"{word} text of some length, {number}", *range(22))


def refill(heap, word):
    heap.root["d"].clear()
    heap.collect()
    heap.root["other"] = [f"{word} other things, {i}" for i in range(600)]
    heap.root["d"].update({i: long_tuple(i, word) for i in range(600)})


READERS = {
    "copy": lambda d: list(d.copy().values()),
    "to_python": lambda d: list(dh.to_python(d).values()),
    "repr": lambda d: list(eval(repr(d).removeprefix("SortedDict")).values()),
    "slice": lambda d: d.values()[:],
    "items": lambda d: [value for _, value in d.items()[::1]],
    "pop": lambda d: [d.pop(0)],
    "popitem": lambda d: [d.popitem(0)[1]],
    "peekitem": lambda d: [d.peekitem(0)[1]],
    "get": lambda d: [d[0]],
}


@pytest.mark.parametrize("name", READERS)
def test_pythons_collector_does_not_start_inside_a_read(heap, name):
    """Its finalizers would pull the memory away that is being read. What is read is the contents
    before or after, whole."""
    thresholds = gc.get_threshold()
    heap.root["d"] = heap.sorted_dict()
    try:
        for collections_before in range(12):
            refill(heap, "old")
            gc.disable()
            garbage = Refiller(heap)
            gc.collect(0)  # to the generation that is collected only so many allocations later
            del garbage
            gc.set_threshold(1, collections_before, 1000)
            gc.enable()
            found = READERS[name](heap.root["d"])
            gc.set_threshold(*thresholds)
            gc.collect()  # the finalizer, if it has not run
            word = found[0][1].split()[0]
            assert word in ("old", "new")
            assert len(found) in (1, 600)
            assert found == [long_tuple(i, word) for i in range(len(found))]
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()

"""User code that runs inside an operation may do anything to the heap: change it, commit, roll
back, close it. The operation then works on what is there, or raises; it never crashes, and never
stores half of something."""

from __future__ import annotations

import collections
import contextlib
import gc
import random
import threading
import warnings
import weakref

import pytest

import dirtyheap

OUTCOMES = (dirtyheap.HeapError, RuntimeError, LookupError, ValueError, TypeError)


def fill(heap):
    heap.root["list"] = [[1], ["two of some length"], 3, "four", (5, [6]), {"seven": 7}]
    heap.root["deque"] = heap.deque([[1], "two of some length", 3, (4, [5])], maxlen=8)
    heap.root["dict"] = {i: [f"value {i} of some length"] for i in range(20)}
    heap.root["set"] = {1, "two of some length", (3, frozenset({"four of some length"}))}
    heap.root["long key of the root"] = "a string of some length"
    heap.commit()
    heap.root["list"].append(["uncommitted"])
    heap.root["fresh"] = {"made": ["after the commit"]}
    heap.root["fresh set"] = {1, *(f"element {i} of some length" for i in range(20))}


def mutate(heap):
    heap.root["list"].clear()
    heap.root["deque"].clear()
    heap.root["dict"].clear()
    heap.root["set"].clear()
    heap.root["fresh set"].update(range(100))
    heap.root["fresh"] = ["x" * 100] * 10


def replace_everything(heap):
    heap.root.clear()
    heap.collect()
    heap.root["list"] = ["y" * 50] * 30
    heap.root["dict"] = {f"{i:050}": i for i in range(9)}


def shrink(heap):
    del heap.root["list"][1:]
    heap.root["deque"].popleft()
    heap.root["dict"].popitem()
    heap.root["set"].pop()
    heap.root["fresh set"].pop()


ACTIONS = {
    "mutate": mutate,
    "replace": replace_everything,
    "shrink": shrink,
    "commit": lambda heap: heap.commit(),
    "rollback": lambda heap: heap.rollback(),
    "collect": lambda heap: heap.collect(),
    "close": lambda heap: heap.close(),
}


class Meddler:
    """Does the action at the n-th comparison, hash, index or iteration step."""

    def __init__(self, heap, action, at):
        self.heap, self.action, self.left = heap, action, at

    def meddle(self):
        self.left -= 1
        if self.left == 0:
            self.action(self.heap)

    def __eq__(self, other):
        self.meddle()
        return False

    __lt__ = __le__ = __gt__ = __ge__ = __ne__ = __eq__

    def __hash__(self):
        self.meddle()
        return 1

    def __index__(self):
        self.meddle()
        return 1

    def __iter__(self):
        for i in range(4):
            self.meddle()
            yield f"item {i} of some length"

    def pairs(self):
        for i in range(4):
            self.meddle()
            yield i, [f"pair {i} of some length"]


def operations(meddler):
    """Every operation that runs user code, on containers of all ages."""
    root = meddler.heap.root
    fresh = root["fresh"]["made"]
    for items in (root["list"], fresh):
        yield lambda items=items: items.index(meddler)
        yield lambda items=items: items.count(meddler)
        yield lambda items=items: items.remove(meddler)
        yield lambda items=items: meddler in items
        yield lambda items=items: items == [meddler] * len(items)
        yield lambda items=items: items < [meddler] * len(items)
        yield lambda items=items: items.extend(meddler)
        yield lambda items=items: items.__iadd__(meddler)
        yield lambda items=items: items[meddler]
        yield lambda items=items: items.__setitem__(meddler, "a string of some length")
        yield lambda items=items: items.__delitem__(meddler)
        yield lambda items=items: items.insert(meddler, "a string of some length")
        yield lambda items=items: items.pop(meddler)
        yield lambda items=items: items.__setitem__(slice(meddler, 3), meddler)
        yield lambda items=items: items.__setitem__(slice(0, 4, meddler), meddler)
        yield lambda items=items: items[meddler:]
        yield lambda items=items: items.__delitem__(slice(meddler, None, 2))
        yield lambda items=items: items.__imul__(meddler)
        yield lambda items=items: items * meddler
        yield lambda items=items: items.sort(key=lambda item: meddler.meddle() or str(item))
        yield lambda items=items: items.sort(key=lambda item: meddler)
        yield lambda items=items: [meddler.meddle() for _ in items]
        yield lambda items=items: [meddler.meddle() for _ in reversed(items)]
    ring = root["deque"]
    yield lambda: ring.index(meddler)
    yield lambda: ring.count(meddler)
    yield lambda: ring.remove(meddler)
    yield lambda: meddler in ring
    yield lambda: ring == collections.deque([meddler] * len(ring))
    yield lambda: ring.extend(meddler)
    yield lambda: ring.extendleft(meddler)
    yield lambda: ring.__setitem__(meddler, "a string of some length")
    yield lambda: ring.insert(meddler, "a string of some length")
    yield lambda: ring.rotate(meddler)
    yield lambda: ring.__imul__(meddler)
    yield lambda: [meddler.meddle() for _ in ring]
    for mapping in (root["dict"], root["fresh"], root):
        yield lambda mapping=mapping: mapping[meddler]
        yield lambda mapping=mapping: mapping.get(meddler)
        yield lambda mapping=mapping: mapping.pop(meddler, None)
        yield lambda mapping=mapping: mapping.setdefault(meddler, ["a new list"])
        yield lambda mapping=mapping: mapping.__setitem__(meddler, "a string of some length")
        yield lambda mapping=mapping: mapping.__delitem__(meddler)
        yield lambda mapping=mapping: meddler in mapping
        yield lambda mapping=mapping: meddler in mapping.values()
        yield lambda mapping=mapping: (1, meddler) in mapping.items()
        yield lambda mapping=mapping: mapping == dict.fromkeys(mapping, meddler)
        yield lambda mapping=mapping: mapping.items() == {(key, meddler) for key in mapping}
        yield lambda mapping=mapping: mapping.update(meddler.pairs())
        yield lambda mapping=mapping: mapping.update({"k": 1, (1, meddler): 2})
        yield lambda mapping=mapping: mapping.__ior__(meddler.pairs())
        yield lambda mapping=mapping: [meddler.meddle() for _ in mapping.items()]
        yield lambda mapping=mapping: [meddler.meddle() for _ in reversed(mapping)]
    for elements in (root["set"], root["fresh set"]):
        yield lambda elements=elements: meddler in elements
        yield lambda elements=elements: elements.add(meddler)
        yield lambda elements=elements: elements.discard(meddler)
        yield lambda elements=elements: elements.remove((1, meddler))
        for name in (
            "update", "intersection_update", "difference_update", "symmetric_difference_update",
            "union", "intersection", "difference", "symmetric_difference", "isdisjoint",
            "issubset", "issuperset",
        ):  # fmt: skip
            operation = getattr(elements, name)
            yield lambda operation=operation: operation(meddler)
            yield lambda operation=operation: operation([1, "a new one of some length", meddler])
            yield lambda operation=operation: operation({1, meddler})
        yield lambda elements=elements: elements == {meddler, *range(len(elements) - 1)}
        yield lambda elements=elements: elements < {meddler, *range(len(elements) + 1)}
        yield lambda elements=elements: elements.__ixor__({meddler: 1}.keys())
        yield lambda elements=elements: [meddler.meddle() for _ in elements]
    heap = meddler.heap
    yield lambda: heap.set(meddler)
    yield lambda: heap.dict(meddler.pairs())
    yield lambda: heap.list(meddler)
    yield lambda: heap.deque(meddler)
    yield lambda: heap.buffer(meddler)
    buffer = heap.buffer(100)
    yield lambda: buffer[meddler]
    yield lambda: buffer.__setitem__(meddler, 5)
    yield lambda: buffer.__setitem__(5, meddler)


def count_operations():
    class Heap:
        class Core:
            def __getitem__(self, key):
                return self

            def __getattr__(self, name):
                return None

        root = Core()

        def buffer(self, size):
            return None

    return sum(1 for _ in operations(Meddler(Heap(), None, 1)))


@pytest.mark.parametrize("action", ACTIONS)
def test_user_code_inside_an_operation(tmp_path, action):
    """Each operation x each action at its first, second and third call of user code."""
    heap = None
    ran = 0
    for number in range(count_operations()):
        for at in (1, 2, 3):
            if heap is None or heap.closed:
                path = tmp_path / f"h{number}-{at}"
                heap = dirtyheap.open(path, capacity=64 << 20)
                fill(heap)
            else:
                heap.root.clear()
                fill(heap)
            meddler = Meddler(heap, ACTIONS[action], at)
            operation = list(operations(meddler))[number]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                with contextlib.suppress(*OUTCOMES):
                    operation()
            ran += meddler.left <= 0
            del operation
            if not heap.closed:
                report = heap.verify()
                assert report.ok, (number, at, report)
                repr(heap.root)
    assert ran > count_operations() * 0.8
    if not heap.closed:
        heap.close()


def test_closed_in_the_middle_raises_heap_closed(tmp_path):
    heap = dirtyheap.open(tmp_path / "h")
    items = heap.list([[1], [2]])

    class Closer:
        def __eq__(self, other):
            heap.close()
            return False

    with pytest.raises(dirtyheap.HeapClosedError):
        items.index(Closer())


def test_everything_raises_after_close(tmp_path):
    heap = dirtyheap.open(tmp_path / "h")
    heap.root["d"] = {"a": 1}
    heap.root["l"] = [1, 2]
    d, items, buffer = heap.root["d"], heap.root["l"], heap.buffer(10)
    s = heap.set([1, "a string of some length"])
    ring = heap.deque([1, 2])
    iterators = [iter(d), iter(d.items()), reversed(d), iter(items), reversed(items), iter(s)]
    iterators += [iter(ring), reversed(ring)]
    views = [d.keys(), d.values(), d.items()]
    heap.close()
    uses = [
        lambda: d["a"], lambda: d.get("a"), lambda: "a" in d, lambda: len(d), lambda: list(d),
        lambda: d.__setitem__("a", 1), lambda: d.__delitem__("a"), lambda: d.pop("a"),
        lambda: d.popitem(), lambda: d.clear(), lambda: d.update(a=1), lambda: d.update({}),
        lambda: d.copy(), lambda: d == {}, lambda: d | {}, lambda: repr(d), lambda: bool(d),
        lambda: d.setdefault("a"), lambda: d.keys(), lambda: d.items(), lambda: d.values(),
        lambda: d[object()], lambda: "a\ud800" in d, lambda: d.__setitem__("b", [1]),
        lambda: items[0], lambda: items[0:1], lambda: items.append(1), lambda: items.extend([1]),
        lambda: items.__setitem__(0, 1), lambda: items.__delitem__(0), lambda: items.pop(),
        lambda: items.insert(0, 1), lambda: items.remove(1), lambda: items.index(1),
        lambda: items.count(1), lambda: 1 in items, lambda: items.sort(), lambda: items.reverse(),
        lambda: items.clear(), lambda: items.copy(), lambda: items == [], lambda: items + [1],
        lambda: items * 2, lambda: items.__imul__(2), lambda: repr(items), lambda: len(items),
        lambda: items.__setitem__(slice(0, 1), [1]), lambda: items.__delitem__(slice(0, 1)),
        lambda: 1 in s, lambda: s.add(1), lambda: s.discard(2), lambda: s.remove(3), s.pop,
        lambda: s.clear(), lambda: s.copy(), lambda: len(s), lambda: list(s), lambda: repr(s),
        lambda: s == {1}, lambda: s | {1}, lambda: s & {1}, lambda: {1} - s, lambda: s ^ s,
        lambda: s.update([]), lambda: s.update(s), lambda: s.intersection_update([]),
        lambda: s.difference_update(s), lambda: s.symmetric_difference_update([5]),
        lambda: s.isdisjoint([1]), lambda: s.issubset([1]), lambda: s.issuperset([1]),
        lambda: s < s, lambda: {1} in s, lambda: dirtyheap.to_python(s),
        lambda: len(buffer), lambda: buffer[0], lambda: bytes(buffer), lambda: memoryview(buffer),
        lambda: buffer.__setitem__(0, 1), lambda: buffer == b"", lambda: repr(buffer),
        lambda: dirtyheap.to_python(d), lambda: dirtyheap.to_python(buffer),
        lambda: ring[0], lambda: ring.append(1), lambda: ring.appendleft(1), lambda: ring.pop(),
        lambda: ring.popleft(), lambda: ring.extend([1]), lambda: ring.extendleft([1]),
        lambda: ring.rotate(1), lambda: ring.rotate(0), lambda: ring.insert(0, 1),
        lambda: ring.remove(1), lambda: ring.index(1), lambda: ring.count(1), lambda: 1 in ring,
        lambda: object() in ring, lambda: ring.reverse(), lambda: ring.clear(), lambda: ring.copy(),
        lambda: ring.maxlen, lambda: ring == collections.deque(), lambda: repr(ring),
        lambda: ring + ring, lambda: ring * 2, lambda: ring.__imul__(2), lambda: len(ring),
        lambda: ring.__setitem__(0, 1), lambda: ring.__delitem__(0), lambda: iter(ring),
        lambda: ring.__iadd__([1]), lambda: dirtyheap.to_python(ring),
        *[lambda view=view: len(view) for view in views],
        *[lambda view=view: list(view) for view in views],
        *[lambda iterator=iterator: next(iterator) for iterator in iterators],
    ]  # fmt: skip
    for number, use in enumerate(uses):
        with pytest.raises(dirtyheap.HeapClosedError):
            use()
            pytest.fail(f"use {number} did not raise")
    core = heap._core
    for use in (core.root, core.new_dict, core.new_list, core.new_deque, lambda: core.new_buffer(1),
                lambda: core.address):  # fmt: skip
        with pytest.raises(dirtyheap.HeapClosedError):
            use()
    assert core.closed
    core.close()


def test_stale_after_rollback(heap):
    heap.root["old"] = [1]
    heap.commit()
    old, new = heap.root["old"], heap.dict({"a": [1]})
    inner = new["a"]
    iterator = iter(new)
    heap.root["new"] = new
    heap.rollback()
    for use in (
        lambda: new["a"],
        lambda: len(new),
        lambda: inner.append(1),
        lambda: next(iterator),
        lambda: heap.root.__setitem__("x", new),
        lambda: heap.root.update(x=[inner]),
    ):
        with pytest.raises(dirtyheap.StaleObjectError):
            use()
    assert old == [1]
    assert heap.root["old"] is old
    assert heap.root == {"old": [1]}


def test_read_only(heap):
    heap.root["d"] = {"a": [1]}
    d, items = heap.root["d"], heap.root["d"]["a"]
    s = heap.set([1, "a string of some length"])
    heap._core.read_only = True
    assert heap._core.read_only
    used = heap.stats().allocated_bytes
    for use in (
        lambda: d.__setitem__("a", "a string of some length"), lambda: d.__delitem__("a"),
        lambda: d.pop("a"), lambda: d.pop("absent", None), lambda: d.popitem(), lambda: d.clear(),
        lambda: d.update(b=1), lambda: d.setdefault("new", 1), lambda: items.append("x" * 20),
        lambda: items.extend([1]), lambda: items.insert(0, 1), lambda: items.__setitem__(0, [1]),
        lambda: items.__delitem__(0), lambda: items.__delitem__(slice(0, 0, 2)),
        lambda: items.pop(), lambda: items.remove(1), lambda: items.sort(),
        lambda: items.reverse(), lambda: items.clear(), lambda: items.__imul__(2),
        lambda: items.__setitem__(slice(0, 1), [1]), heap.dict, heap.list, lambda: heap.buffer(5),
        lambda: heap.dict({"a": 1}), lambda: heap.list([1]), heap.set, lambda: heap.set({1}),
        lambda: s.add(1), lambda: s.discard(object()), lambda: s.remove(5), s.pop, s.clear,
        s.update, lambda: s.update(["another string of some length"]), lambda: s.update(s),
        lambda: s.intersection_update([]), lambda: s.difference_update(s),
        lambda: s.symmetric_difference_update([5]), lambda: s.__ior__({1}),
    ):  # fmt: skip
        with pytest.raises(dirtyheap.ReadOnlyError):
            use()
    assert heap.stats().allocated_bytes == used
    assert d == {"a": [1]} and s == {1, "a string of some length"}
    assert d.setdefault("a") is items
    heap._core.read_only = False
    items.append(2)
    assert d == {"a": [1, 2]}


# --- Python's own collector -----------------------------------------------------------------------


class InCycle:
    """Garbage in a cycle: its __del__ runs whenever Python's collector happens to."""

    def __init__(self, heap, counter):
        self.me, self.heap, self.counter = self, heap, counter

    def __del__(self):
        self.counter.append(1)
        with contextlib.suppress(dirtyheap.HeapError):
            root = self.heap.root
            root["from del"] = ["made in a finalizer, of some length", {"n": len(self.counter)}]
            root.pop("victim", None)
            if len(self.counter) % 3 == 0:
                self.heap.rollback()
            elif len(self.counter) % 7 == 0:
                self.heap.collect()


def test_finalizers_that_write_and_roll_back(heap):
    """With the lowest threshold Python's collector starts at nearly every allocation."""
    source = random.Random(3)
    counter = []
    heap.root["victim"] = {}
    heap.commit()
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for step in range(1500):
            InCycle(heap, counter)
            with contextlib.suppress(dirtyheap.StaleObjectError, RuntimeError, KeyError):
                root = heap.root
                root[f"key {step} of some length"] = {"a": [step, (step, ["x" * 20])], "\ud800": 1}
                root["\ud800" * 5] = "\udfff surrogates" * 3
                list(root.items())
                repr(root)
                dirtyheap.to_python(root)
                root["victim"] = heap.list([(i, [i]) for i in range(5)])
                root["victim"].sort(key=lambda item: -item[0])
                assert root["victim"][1:3]
                root.update({f"{step} {i} of some length": [i] for i in range(3)})
                root.pop(source.choice(list(root)))
                root.popitem()
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
    assert len(counter) == 1500
    assert heap.verify().ok


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
    heap.root["dict"].clear()
    heap.root["list"].clear()
    heap.collect()
    heap.root["other"] = [f"{word} other things, {i}" for i in range(600)]
    heap.root["dict"].update({i: long_tuple(i, word) for i in range(300)})
    heap.root["list"].extend([long_tuple(i, word) for i in range(300)])


READERS = {
    "copy": lambda root: list(root["dict"].copy().values()),
    "to_python": lambda root: list(dirtyheap.to_python(root["dict"]).values()),
    "repr": lambda root: list(eval(repr(root["dict"])).values()),
    "slice": lambda root: root["list"][:],
    "stride": lambda root: root["list"][::1],
    "list copy": lambda root: root["list"].copy(),
    "list repr": lambda root: eval(repr(root["list"])),
    "list to_python": lambda root: dirtyheap.to_python(root["list"]),
    "concat": lambda root: root["list"] + [],
    "list pop": lambda root: [root["list"].pop(0)],
    "dict pop": lambda root: [root["dict"].pop(0)],
    "get": lambda root: [root["dict"][0]],
}


@pytest.mark.parametrize("name", READERS)
def test_pythons_collector_does_not_start_inside_a_read(heap, name):
    """Its finalizers would pull the memory away that is being read. What is read is the contents
    before or after, whole."""
    thresholds = gc.get_threshold()
    heap.root["dict"], heap.root["list"] = {}, []
    try:
        for collections_before in range(40):
            refill(heap, "old")
            gc.disable()
            garbage = Refiller(heap)
            gc.collect(0)  # to the generation that is collected only so many allocations later
            del garbage
            gc.set_threshold(1, collections_before, 1000)
            gc.enable()
            found = READERS[name](heap.root)
            gc.set_threshold(*thresholds)
            gc.collect()  # the finalizer, if it has not run
            word = found[0][1].split()[0]
            assert word in ("old", "new")
            assert len(found) in (1, 300)
            assert found == [long_tuple(i, word) for i in range(len(found))]
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()


def test_weak_reference_callback_that_meddles(heap):
    heap.root["d"] = {"a": 1}
    seen = []

    def callback(_):
        seen.append(heap.root["d"]["a"])
        heap.rollback()
        heap.collect()

    heap.commit()
    proxy = heap.root["d"]
    reference = weakref.ref(proxy, callback)
    del proxy
    assert seen == [1] and reference() is None


# --- threads --------------------------------------------------------------------------------------


def test_threads_write_while_another_commits(tmp_path):
    errors = []
    turn = 0
    committed = threading.Condition()
    with dirtyheap.open(tmp_path / "h", capacity=1 << 30) as heap:

        def write(name):
            try:
                d = heap.root[name]
                for i in range(20_000):
                    if i % 1000 == 0:  # so many beside each commit: never all before the first
                        due = min(i // 1000, 10)
                        with committed:
                            while turn < due:
                                assert committed.wait(60)
                    d[i % 500] = {"n": i, "list": [i] * (i % 7), "text": f"text {i} of some length"}
                    assert d[i % 500]["n"] == i
            except BaseException as error:
                errors.append(error)

        heap.root.update({name: {} for name in "abc"})
        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            heap.commit()
            with committed:
                turn += 1
                committed.notify_all()
            if turn % 10 == 5:
                heap.collect()
        for thread in threads:
            thread.join()
        assert not errors and turn >= 10
        heap.commit()
        state = dirtyheap.to_python(heap.root)
    with dirtyheap.open(tmp_path / "h") as heap:
        assert heap.root == state

"""heap.verify(): what is damaged is found, and called by how it is reached."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fill
from reseal import Image

import dirtyheap as dh

MARK = "this text is the one that is damaged"
STR, TUPLE, DICT, LIST = 1, 5, 6, 7


@dh.record
class VerifiedPerson:
    name: str
    age: int = 0
    more: Any = None


def ref(kind: int, offset: int) -> int:
    """A word that leads to a cell."""
    return offset >> 3 << 8 | kind << 3


def find_text(image: Image, text: str) -> int:
    """Offset of the cell of a text that is there once."""
    found = [
        cell.offset
        for cell in image.cells()
        if not cell.has_words
        and cell.size >= len(text) + 4
        and bytes(image.data[cell.offset >> 22][(cell.offset & (1 << 22) - 1) + 4 :][: len(text)])
        == text.encode()
        and int.from_bytes(
            image.data[cell.offset >> 22][cell.offset & (1 << 22) - 1 :][:4], "little"
        )
        == len(text.encode())
    ]
    assert len(found) == 1
    return found[0]


def find_refs(image: Image, word: int) -> list[int]:
    """Offsets of all words that are this one."""
    return [
        at
        for cell in image.cells()
        if cell.has_words
        for at in range(cell.offset, cell.offset + cell.size, 8)
        if image.word(at) == word
    ]


def make(path: Path, build: Callable[[dh.Heap], None]) -> Image:
    """A heap whose base files hold all."""
    with dh.open(path) as heap:
        build(heap)
        heap.commit()
        heap.fold()
    return Image(path)


def misdirect(image: Image) -> None:
    """The one reference to the marked text leads to where nothing is."""
    (place,) = find_refs(image, ref(STR, find_text(image, MARK)))
    image.patch_word(place, ref(STR, 40 << 20))
    image.seal()


def put_list(heap: dh.Heap) -> None:
    heap.root["l"] = [*range(40), MARK, 1]


def put_long_list(heap: dh.Heap) -> None:
    heap.root["l"] = list(range(300_000))
    heap.root["l"][270_123] = MARK


def put_relaxed(heap: dh.Heap) -> None:
    middle = heap.root["l"] = heap.list(range(100_000))
    for i in range(40):
        middle.insert(30_000 + 500 * i, -i)
    middle.insert(45_000, MARK)
    del middle[:3]


def put_big_dict(heap: dh.Heap) -> None:
    heap.root["d"] = {i: i for i in range(50_000)}
    heap.root["d"][31_001] = MARK


def put_records(heap: dh.Heap) -> None:
    heap.root["people"] = [heap.new(VerifiedPerson, f"name {i}", i) for i in range(5)]
    heap.root["people"][3].more = {"deep": [MARK]}


def put_sorted(heap: dh.Heap) -> None:
    heap.root["s"] = heap.sorted_dict({i: str(i) for i in range(5000)})
    heap.root["s"][4321] = MARK


PLACES: dict[str, Callable[[dh.Heap], None]] = {
    "root['users'][17]['name']": lambda heap: heap.root.update(
        users=[{"id": i, "name": MARK if i == 17 else str(i)} for i in range(30)]
    ),
    "root['plain']['b']": lambda heap: heap.root.update(plain={"a": 1, "b": MARK}),
    "root[(1, 'two', 2.5)]": lambda heap: heap.root.update({(1, "two", 2.5): MARK}),
    "root[b'\\xff']": lambda heap: heap.root.update({b"\xff": MARK}),
    "root[None]": lambda heap: heap.root.update({None: MARK}),
    "root[1e+300]": lambda heap: heap.root.update({1e300: MARK}),
    "root['it\\'s']": lambda heap: heap.root.update({"it's": MARK}),
    "root['l'][40]": put_list,
    "root['l'][270123]": put_long_list,
    "root['l'][44997]": put_relaxed,
    "root['d'][31001]": put_big_dict,
    "root['s'][4321]": put_sorted,
    "root['people'][3].more['deep'][0]": put_records,
    "root['t'][1][0]": lambda heap: heap.root.update(t=(1, (MARK, 2))),
    "root['q'][2]": lambda heap: heap.root.update(q=heap.deque([1, 2, MARK])),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_value_is_named_by_its_path(path: Path, place: str) -> None:
    image = make(path, PLACES[place])
    misdirect(image)
    with dh.open(path) as heap:
        report = heap.verify()
    assert [(p.path, p.what) for p in report.problems if "not allocated" in p.what] == [
        (place, "a reference to what is not allocated")
    ]
    assert not report.ok and report.problems_count >= 1
    assert place in report.first_problem or place in str(report.problems[-1])


def test_keys_and_elements_are_named_too(path: Path) -> None:
    def build(heap: dh.Heap) -> None:
        heap.root["s"] = heap.set({"x", MARK})
        heap.root["d"] = {("a tuple", 2): 1}

    image = make(path, build)
    misdirect(image)
    with dh.open(path) as heap:
        problems = heap.verify().problems
    assert any(p.path.startswith("root['s'] element ") for p in problems)


def test_a_value_that_two_slots_own_is_found(path: Path) -> None:
    image = make(path, lambda heap: heap.root.update(a=MARK, b="another text, also long"))
    (place,) = find_refs(image, ref(STR, find_text(image, "another text, also long")))
    image.patch_word(place, ref(STR, find_text(image, MARK)))
    image.seal()
    with dh.open(path) as heap:
        report = heap.verify()
    assert [p.path for p in report.problems] == ["root['b']"]
    assert "two slots" in report.problems[0].what
    assert report.unreachable_cells == 1  # the text that nobody refers to any more


def test_one_cell_under_two_types_is_found(path: Path) -> None:
    def build(heap: dh.Heap) -> None:
        heap.root["d"] = {}
        heap.root["again"] = heap.root["d"]

    image = make(path, build)
    words = [
        image.word(at)
        for cell in image.cells()
        if cell.has_words
        for at in range(cell.offset, cell.offset + cell.size, 8)
    ]
    twice = {w for w in words if words.count(w) == 2 and w & 0xFF == DICT << 3}
    (word,) = twice
    image.patch_word(find_refs(image, word)[1], word & ~0xFF | LIST << 3)
    image.seal()
    with dh.open(path) as heap:
        report = heap.verify()
    assert any("two references of different types" in p.what for p in report.problems)


def test_a_container_that_is_shared_is_no_problem(heap: dh.Heap) -> None:
    inner = heap.root["a"] = heap.list([1, 2])
    heap.root["b"] = [inner, inner, heap.root]
    shared = ("a tuple that is met twice", ("deeper",))
    heap.root["c"] = [shared, shared]
    report = heap.verify()
    assert report.ok and report.problems == () and report.first_problem == ""


def test_garbage_is_counted_and_no_problem(heap: dh.Heap) -> None:
    before = heap.verify()
    assert before.ok
    heap.root["a"] = {"text": "x" * 1000, "list": [1.5e300] * 3}
    held = heap.list(["only Python holds this"])
    del heap.root["a"]
    report = heap.verify()
    assert report.ok
    assert report.unreachable_cells > before.unreachable_cells
    assert report.unreachable_bytes >= 1000
    assert report.containers == before.containers + 1 == 2
    freed = heap.collect()
    assert freed.freed_cells == report.unreachable_cells
    assert freed.freed_bytes == report.unreachable_bytes
    assert heap.verify().unreachable_cells == 0
    del held


def test_counts(heap: dh.Heap) -> None:
    fill(heap)
    report = heap.verify()
    stats = heap.stats()
    assert report.ok and report.unreachable_cells == 0
    assert report.pages * 4096 == stats.arena_bytes - stats.free_bytes - 4096  # page 0
    assert report.cells == heap.collect().live_cells
    assert report.duration_ns > 0


def test_problems_are_bounded_and_all_are_counted(path: Path) -> None:
    image = make(path, lambda heap: heap.root.update(a=[f"text number {i}" for i in range(500)]))
    for cell in [cell for cell in image.cells() if cell.has_words]:
        for at in range(cell.offset, cell.offset + cell.size, 8):
            if image.word(at) & 0xFF == STR << 3:
                image.patch_word(at, ref(STR, 40 << 20))
    image.seal()
    with dh.open(path) as heap:
        report = heap.verify()
    assert report.problems_count >= 500
    assert len(report.problems) == 100


@pytest.mark.parametrize("depth", [100_000, pytest.param(10_000_000, marks=pytest.mark.soak)])
def test_a_chain_of_any_depth_is_walked_and_named(path: Path, depth: int) -> None:

    def build(heap: dh.Heap) -> None:
        last = heap.root["chain"] = heap.list()
        for _ in range(depth):
            inner = heap.list()
            last.append(inner)
            last = inner
        last.append(MARK)

    image = make(path, build)
    misdirect(image)
    with dh.open(path) as heap:
        report = heap.verify()
    (problem,) = [p for p in report.problems if "not allocated" in p.what]
    assert problem.path.startswith("root['chain'][0][0][0]")
    assert "more).." in problem.path and problem.path.endswith("[0][0]")
    assert len(problem.path) < 1000


def test_long_keys_are_cut(path: Path) -> None:
    image = make(path, lambda heap: heap.root.update({"ü" * 500: MARK}))
    misdirect(image)
    with dh.open(path) as heap:
        (problem,) = [p for p in heap.verify().problems if "not allocated" in p.what]
    assert problem.path == "root['" + "ü" * 30 + "..']"


def test_a_change_that_the_watch_missed_is_found(path: Path) -> None:
    """The negative control of the comparison with the committed image: a scan whose pages reach
    nobody."""
    from helpers import fault, require_tracker

    require_tracker("auto")
    with dh.open(path) as heap:
        heap.root["b"] = heap.buffer(b"x" * 5000)
        heap.root["other"] = "untouched"
        heap.commit()
        assert heap.verify().ok
        heap.root["b"][4500] = 1
        assert heap.verify().ok
        heap.commit()
        heap.root["b"][4600] = 1
        with fault("watch.merge", rc=1):
            heap.pending()
        report = heap.verify()
        assert [p.path for p in report.problems] == ["root['b'] (its bytes)"]
        assert "without being reported" in report.problems[0].what


def test_verify_changes_nothing(path: Path) -> None:
    with dh.open(path) as heap:
        fill(heap)
        heap.root["when"] = dt.date(2024, 1, 1)
        heap.root["array"] = np.arange(10)
        heap.commit()
        assert heap.pending().pages == 0
        assert heap.verify().ok
        assert heap.pending().pages == 0


def test_verify_counts_the_progress(heap: dh.Heap) -> None:
    fill(heap)
    heap.commit()
    seen: list[tuple[str, int, int]] = []
    assert heap.verify(progress=lambda *step: seen.append(step)).ok
    assert seen and seen[-1][0] == "contents" and seen[-1][1] == seen[-1][2] > 100


def test_verify_refuses_in_a_closed_heap(heap: dh.Heap) -> None:
    heap.close()
    with pytest.raises(dh.HeapClosedError):
        heap.verify()

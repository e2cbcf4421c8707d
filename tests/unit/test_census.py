"""heap.census(): objects and bytes by type, against what a naive walk in Python finds."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ChildError, fill, in_child, seeded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dirtyheap as dh

_INLINE_BYTES_MAX = 7
_INLINE_INT_BITS = 62


# Names of at most seven bytes: they are stored with the class, and would be counted.
@dh.record(name="c.Acct")
class Account:
    owner: str
    balance: float = 0.0
    more: Any = None


@dh.record(name="c.Empty")
class Empty:
    pass


def has_cell(value: Any) -> bool:
    """Whether a plain value takes a cell of its own, by the rules of word.h."""
    if isinstance(value, tuple | frozenset):
        return True
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) > _INLINE_BYTES_MAX
    if isinstance(value, bytes):
        return len(value) > _INLINE_BYTES_MAX
    if isinstance(value, float):
        exponent = int.from_bytes(np.float64(value).tobytes(), "little") >> 59 & 15
        is_zero = value == 0 and not np.signbit(value)
        return not is_zero and exponent not in (7, 8)
    return isinstance(value, int) and not -(1 << _INLINE_INT_BITS) <= value < 1 << _INLINE_INT_BITS


def children(value: Any) -> Iterator[Any]:
    if isinstance(value, dh.Dict | dh.SortedDict):
        for key in value:
            yield key
            yield value[key]
    elif isinstance(value, Account):
        yield from (value.owner, value.balance, value.more)
    elif isinstance(value, dh.List | dh.Deque | dh.Set | tuple | frozenset):
        yield from value


TYPES = {
    dh.Dict: "dict",
    dh.List: "list",
    dh.Set: "set",
    dh.Deque: "deque",
    dh.SortedDict: "sorted_dict",
    dh.Buffer: "buffer",
    Account: "c.Acct",
    Empty: "c.Empty",
}


def naive(heap: dh.Heap) -> Counter[str]:
    """Objects by type, of what the root reaches: containers by identity, values by slot. Keys of
    dicts are not counted here: dicts of the same keys may share them."""
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    pending: list[Any] = [heap.root]
    kept = []
    while pending:
        value = pending.pop()
        name = TYPES.get(type(value))
        if name is not None:
            if id(value) in seen:
                continue
            seen.add(id(value))
            kept.append(value)  # an object must not die, or its id comes again
        elif not isinstance(value, bool) and has_cell(value):
            name = type(value).__name__
        counts[name or "in a slot"] += 1
        pending += children(value)
    return counts


def counted(census: dh.Census) -> dict[str, int]:
    """Objects by type, but for what the heap keeps for itself."""
    own = {"shape", "record_class", "heap_table"}
    return {row.type: row.objects for row in census.types if row.kind not in own}


def check_sums(heap: dh.Heap, census: dh.Census) -> None:
    """Every byte of the arena is counted once, and others who count agree."""
    report, stats = heap.verify(), heap.stats()
    assert report.ok, report.first_problem
    assert census.broken == 0
    assert census.cells == report.cells == sum(row.cells for row in census.types)
    assert census.bytes == sum(row.bytes for row in census.types)
    assert census.objects == sum(row.objects for row in census.types)
    assert census.unreachable_cells == report.unreachable_cells
    assert census.unreachable_bytes == report.unreachable_bytes
    assert census.used_bytes == report.pages * 4096
    assert census.used_bytes == (
        census.bytes + census.unreachable_bytes + census.free_cell_bytes + census.rest_bytes
    )
    assert census.arena_bytes == stats.arena_bytes
    assert census.arena_bytes == (
        4096 + census.used_bytes + census.free_bytes + census.pinned_bytes
    )
    assert census.free_run_bytes <= census.free_bytes
    assert census.free_cells == sum(size.free_cells for size in census.sizes)
    assert [size.bytes for size in census.sizes] == sorted({size.bytes for size in census.sizes})
    assert [row.bytes for row in census.types] == sorted(
        (row.bytes for row in census.types), reverse=True
    )
    assert 0.0 <= census.fragmentation < 1.0


def test_every_type(heap: dh.Heap) -> None:
    root = heap.root
    root["list"] = [1, "a text that is long", "short"]
    root["bytes"] = b"bytes that are long"
    root["float"] = [1.5, 1e300, float("nan"), 0.0, -0.0]
    root["int"] = [1, 1 << 100, -(1 << 200)]
    root["set"] = {1, 2, "an element in a set"}
    root["deque"] = deque([1, 2], maxlen=5)
    root["sorted"] = heap.sorted_dict({i: i for i in range(1000)})
    root["tuple"] = (1, (2, frozenset({3})))
    root["record"] = heap.new(Account, "Ada Lovelace")
    root["array"] = np.zeros(10)
    root["buffer"] = heap.buffer(5000)
    root["packed"] = [
        *(decimal.Decimal("1.5"), decimal.Decimal(2), fractions.Fraction(1, 3)),
        *(dt.datetime(2020, 1, 1), dt.date(2020, 1, 1), dt.time(1), dt.timedelta(1)),
        *(uuid.uuid4(), range(3), 1j, Path("/tmp"), dh.Pickled({1: 2})),
    ]
    census = heap.census()
    check_sums(heap, census)
    expected = {
        *("dict", "list", "set", "deque", "sorted_dict", "buffer", "array", "tuple", "frozenset"),
        *("str", "bytes", "float", "int", "c.Acct", "Decimal", "Fraction", "datetime"),
        *("date", "time", "timedelta", "UUID", "range", "complex", "PosixPath", "Pickled"),
    }
    assert expected <= set(counted(census))
    assert census.of("Decimal") == dh.TypeCount(
        "packed", "Decimal", 2, 2, census.of("Decimal").bytes
    )
    assert census.of("float").objects == 3  # 1e300, nan and -0.0 do not fit a slot
    assert census.of("int").objects == 2
    assert census.of("buffer").objects == 2 and census.of("buffer").bytes >= 5000
    assert census.of("sorted_dict").bytes >= 16000 and census.of("sorted_dict").cells > 3
    assert census.of("nothing of the kind") == dh.TypeCount("", "nothing of the kind", 0, 0, 0)
    assert census.of("c.Acct").kind == "record"


def test_inner_cells_count_for_their_owner(heap: dh.Heap) -> None:
    heap.root["x"] = heap.list()
    before = heap.census()
    heap.root["x"].extend(range(100_000))
    after = heap.census()
    changed = {
        row.type
        for row in after.types
        if (row.cells, row.bytes) != (before.of(row.type).cells, before.of(row.type).bytes)
    }
    assert changed == {"list"}
    assert after.of("list").objects == before.of("list").objects
    assert after.of("list").bytes - before.of("list").bytes >= 800_000


def test_large_dicts_and_sets(heap: dh.Heap) -> None:
    heap.root["d"] = dict.fromkeys(range(50_000))
    heap.root["s"] = set(range(50_000))
    census = heap.census()
    check_sums(heap, census)
    assert census.of("dict").objects == 2 and census.of("set").objects == 1
    assert census.of("dict").bytes > census.of("set").bytes > 50_000 * 8


def test_garbage_and_what_python_holds(heap: dh.Heap) -> None:
    heap.collect()
    held = heap.list(["a text that only Python reaches", heap.dict()])
    heap.list(["garbage as soon as nobody refers to it"])
    census = heap.census()
    check_sums(heap, census)
    assert census.held_cells == 4  # two heads, a leaf, the text
    assert census.unreachable_cells == 3
    freed = heap.collect()
    assert (freed.freed_cells, freed.freed_bytes) == (3, census.unreachable_bytes)
    heap.root["held"] = held
    census = heap.census()
    assert census.held_cells == 0 and census.unreachable_cells == 0


def test_counting_changes_nothing(heap: dh.Heap) -> None:
    fill(heap)
    heap.commit()
    heap.collect()
    pending = heap.pending()
    first = heap.census()
    heap.why(heap.root["nested"]["a"])
    assert heap.pending() == pending
    second = heap.census()
    assert [*first.types] == [*second.types] and first.free_cells == second.free_cells
    heap.root["more"] = 1
    assert heap.census().commit == first.commit == 1


def test_fragmentation_is_seen(heap: dh.Heap) -> None:
    heap.root["texts"] = [f"a text of some length, number {i}" for i in range(20_000)]
    before = heap.census()
    texts = heap.root["texts"]
    for i in range(0, 20_000, 2):
        texts[i] = None
    after = heap.census()
    check_sums(heap, after)
    assert after.fragmentation > before.fragmentation + 0.2
    assert after.of("str").objects == before.of("str").objects - 10_000
    del heap.root["texts"], texts
    heap.collect()
    emptied = heap.census()
    assert emptied.free_bytes > 500_000 and emptied.free_run_bytes > 0


def test_in_the_middle_of_a_collection(heap: dh.Heap) -> None:
    """Cells that the sweep has not come to yet are garbage as before."""
    rng = seeded("census")
    texts = heap.root["texts"] = heap.list(
        [[n, f"a text of some length, {n}"] for n in range(20_000)]
    )
    unfinished = 0
    for turn in range(40):
        for _ in range(100):
            texts[rng.randrange(20_000)] = [turn, f"another text of some length, {turn}"]
        unfinished += not heap.collect(budget_ms=0.05).done
        census = heap.census()
        assert (census.of("list").objects, census.of("str").objects) == (20_001, 20_000)
        assert heap.why(texts[77]).path == "root['texts'][77]"
        if turn % 10 == 0:
            check_sums(heap, census)
    assert unfinished > 0


def test_pages_that_a_view_may_write_to(heap: dh.Heap) -> None:
    heap.commit()
    view = memoryview(heap.buffer(9000))
    heap.rollback()
    census = heap.census()
    assert census.pinned_bytes == 3 * 4096
    check_sums(heap, census)
    view.release()
    assert heap.census().pinned_bytes == 0


def test_classes_of_one_name_are_one_row(path: Path) -> None:
    def define(**annotations: Any) -> Any:
        return dh.record(type("Row", (), {"__annotations__": annotations}), name="census.Row")

    with dh.open(path) as heap:
        first = define(a=int)
        heap.root["old"] = [heap.new(first, a) for a in range(5)]
        second = define(a=int, b=int)
        heap.root["new"] = [heap.new(second, a, a) for a in range(7)]
        row = heap.census().of("census.Row")
        assert (row.kind, row.objects) == ("record", 12)


def test_snapshots(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        fill(heap)
        heap.commit()
        live = heap.census()
        heap.root["more"] = ["x" * 100] * 1000
        heap.commit()
        grown = heap.census()
        with dh.open(path, read_only=True, at=1) as old:
            census = old.census()
            assert (census.commit, census.types) == (1, live.types)
            assert census.used_bytes == census.bytes + census.unreachable_bytes + (
                census.free_cell_bytes + census.rest_bytes
            )
        with dh.open(path, read_only=True) as new:
            assert new.census().types == grown.types
    with dh.open(path) as again:
        assert again.census().types == grown.types
        again.root["more"].append(1)
        check_sums(again, again.census())


def test_an_empty_heap(heap: dh.Heap) -> None:
    census = heap.census()
    assert (census.of("dict").objects, census.objects) == (1, 1)
    check_sums(heap, census)


def test_the_table(heap: dh.Heap) -> None:
    heap.root["a"] = [heap.new(Account, "somebody of that name") for _ in range(1000)]
    census = heap.census()
    lines = str(census).splitlines()
    assert lines[0].split() == ["type", "objects", "cells", "bytes"]
    rows = [line.split() for line in lines]
    assert ["record", "c.Acct", "1000", "1000"] in [row[:4] for row in rows]
    assert lines[-1] == f"fragmentation: {census.fragmentation:.1%} of the pages in use"
    assert len({len(line) for line in lines[:-1]}) == 1


def test_refused(path: Path, heap: dh.Heap) -> None:
    other = dh.open(path.parent / "other")
    other.close()
    with pytest.raises(dh.HeapClosedError, match="the heap is closed"):
        other.census()
    try:
        answer = in_child(heap.census)
    except ChildError as error:  # pragma: no cover
        pytest.fail(str(error))
    assert answer[:2] == ("raised", "HeapClosedError")


# --- against a naive count ------------------------------------------------------------------------

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=8),
        st.tuples(inner, inner),
        st.dictionaries(st.integers(0, 50), inner, max_size=12),
        st.sets(st.integers(), max_size=20),
    ),
    max_leaves=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_against_a_naive_count(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    with dh.open(tmp_path_factory.mktemp("census") / "h") as heap:
        root = heap.root
        pool: list[Any] = [root]
        for number in range(data.draw(st.integers(1, 6))):
            holder = data.draw(st.sampled_from(pool))
            made = data.draw(
                st.sampled_from(
                    [heap.dict, heap.list, heap.deque, heap.sorted_dict, lambda: heap.new(Empty)]
                )
            )()
            pool += [made] if isinstance(made, dh.Dict | dh.List | dh.Deque) else []
            things = [made, data.draw(values), data.draw(st.sampled_from(pool))]
            if isinstance(holder, dh.Dict):
                for place, thing in enumerate(things):
                    holder[number * 3 + place] = thing
            else:
                holder.extend(things)
            if data.draw(st.booleans()):
                root[1000 + number] = heap.new(Account, data.draw(st.text(max_size=20)), 1.5, made)
        del holder, made, things
        pool.clear()
        expected = naive(heap)
        del expected["in a slot"]
        census = heap.census()
        assert counted(census) == dict(expected)
        check_sums(heap, census)
        heap.commit()
        heap.rollback()
        heap.collect()
        assert counted(heap.census()) == dict(expected)

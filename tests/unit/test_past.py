"""Savepoints, restore and diff: going back within what is uncommitted, to an older commit, and
seeing what lies between two."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Stop, change, contents, fault, fill, plain, seeded

import dirtyheap as dh

pytestmark = pytest.mark.timeout(120)


@dh.record
class PastPerson:
    name: str
    age: int = 0
    friends: Any = None


# --- savepoints ----------------------------------------------------------------------------------


def test_a_savepoint_is_gone_back_to_as_often_as_one_likes(heap: dh.Heap) -> None:
    rng = seeded()
    fill(heap)
    heap.commit()
    change(heap, rng)
    expected = plain(heap)
    savepoint = heap.savepoint()
    for _ in range(3):
        change(heap, rng)
        assert plain(heap) != expected
        assert savepoint.rollback() > 0
        assert plain(heap) == expected
        assert heap.verify().ok
    savepoint.release()
    heap.commit()
    assert plain(heap) == expected


def test_savepoints_work_before_the_first_commit(heap: dh.Heap) -> None:
    heap.root["a"] = [1]
    savepoint = heap.savepoint()
    heap.root["a"].append(2)
    savepoint.rollback()
    assert plain(heap) == {"a": [1]}


def test_savepoints_nest_and_going_back_ends_the_later_ones(heap: dh.Heap) -> None:
    heap.root["n"] = 0
    first = heap.savepoint()
    heap.root["n"] = 1
    second = heap.savepoint()
    heap.root["n"] = 2
    third = heap.savepoint()
    second.rollback()
    assert heap.root["n"] == 1
    assert third.ended
    with pytest.raises(dh.HeapError, match="has ended: the heap went back beyond it"):
        third.rollback()
    first.rollback()
    assert heap.root["n"] == 0
    with pytest.raises(dh.HeapError, match="went back beyond it"):
        second.rollback()
    assert not first.ended


def test_releasing_one_leaves_the_others(heap: dh.Heap) -> None:
    heap.root["n"] = 0
    savepoints = []
    for number in range(1, 5):
        savepoints.append(heap.savepoint())
        heap.root["n"] = number
    savepoints[1].release()
    savepoints[1].release()
    with pytest.raises(dh.HeapError, match="it was released"):
        savepoints[1].rollback()
    savepoints[2].rollback()
    assert heap.root["n"] == 2
    savepoints[0].rollback()
    assert heap.root["n"] == 0


@pytest.mark.parametrize(
    "verb,why",
    [
        (lambda heap: heap.commit("note"), "was committed"),
        (lambda heap: heap.commit(), "was committed"),
        (lambda heap: heap.rollback(), "went back to its last commit"),
        (lambda heap: heap.restore(1), "was committed"),
        (lambda heap: heap.transaction().__enter__() and None, ""),
    ],
)
def test_what_ends_a_savepoint(path: Path, verb: Callable[[dh.Heap], Any], why: str) -> None:
    with dh.open(path) as heap:
        heap.root["n"] = 0
        heap.commit()
        savepoint = heap.savepoint()
        block = heap.transaction()
        if why:
            verb(heap)
            with pytest.raises(dh.HeapError, match=why):
                savepoint.rollback()
        else:
            with block:
                pass
            with pytest.raises(dh.HeapError, match="was committed"):
                savepoint.rollback()


def test_a_savepoint_ends_with_its_heap(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["n"] = 0
        savepoint = heap.savepoint()
    with pytest.raises(dh.HeapClosedError):
        savepoint.rollback()
    savepoint.release()
    assert savepoint.ended
    assert "closed" in repr(savepoint)


def test_folds_collections_and_tags_leave_savepoints_alone(heap: dh.Heap) -> None:
    fill(heap)
    heap.commit()
    heap.root["more"] = ["x"] * 100
    expected = plain(heap)
    savepoint = heap.savepoint()
    del heap.root["more"], heap.root["texts"]
    heap.collect()
    heap.tag("name")
    heap.fold()
    heap.root["other"] = {"y": list(range(2000))}
    savepoint.rollback()
    assert plain(heap) == expected
    assert heap.verify().ok


def test_a_commit_that_fails_leaves_savepoints_alone(heap: dh.Heap) -> None:
    heap.root["n"] = 0
    heap.commit()
    heap.root["n"] = 1
    savepoint = heap.savepoint()
    heap.root["n"] = 2
    with fault("commit.encode", rc=5), pytest.raises(dh.CommitError):
        heap.commit()
    savepoint.rollback()
    assert heap.root["n"] == 1


def test_as_a_context_manager_it_undoes_what_failed_and_commits_nothing(heap: dh.Heap) -> None:
    heap.root["n"] = 0
    with heap.savepoint():
        heap.root["n"] = 1
    assert heap.root["n"] == 1
    with pytest.raises(Stop), heap.savepoint() as savepoint:
        heap.root["n"] = 2
        raise Stop
    assert heap.root["n"] == 1
    assert savepoint.ended
    with pytest.raises(Stop), heap.savepoint():
        heap.root["n"] = 3
        heap.commit()
        raise Stop
    assert heap.root["n"] == 3, "committed inside: there is nothing to go back to"


# ... and transaction() blocks


def test_a_savepoint_before_a_block_waits_for_its_end(heap: dh.Heap) -> None:
    heap.root["n"] = 0
    savepoint = heap.savepoint()
    with pytest.raises(Stop), heap.transaction():
        heap.root["n"] = 1
        with pytest.raises(dh.HeapError, match="leave the block"):
            savepoint.rollback()
        raise Stop
    assert heap.root["n"] == 0
    heap.root["n"] = 2
    savepoint.rollback()
    assert heap.root["n"] == 0


def test_a_savepoint_inside_a_block_goes_with_it(heap: dh.Heap) -> None:
    heap.root["n"] = 0
    before = heap.savepoint()
    with pytest.raises(Stop), heap.transaction():
        heap.root["n"] = 1
        inside = heap.savepoint()
        heap.root["n"] = 2
        inside.rollback()
        assert heap.root["n"] == 1
        raise Stop
    assert inside.ended
    with pytest.raises(dh.HeapError, match="was undone"):
        inside.rollback()
    after = heap.savepoint()
    heap.root["n"] = 5
    after.rollback()
    assert heap.root["n"] == 0
    assert not before.ended


def test_a_savepoint_of_an_inner_block_that_was_kept_stays(heap: dh.Heap) -> None:
    with heap.transaction():
        heap.root["n"] = 0
        with heap.transaction():
            heap.root["n"] = 1
            inside = heap.savepoint()
            heap.root["n"] = 2
        inside.rollback()
        assert heap.root["n"] == 1
        with pytest.raises(Stop), heap.transaction():
            with pytest.raises(dh.HeapError, match="leave the block"):
                inside.rollback()
            raise Stop
        inside.rollback()
    assert heap.root["n"] == 1
    assert inside.ended


def test_containers_made_after_a_savepoint_go_stale(heap: dh.Heap) -> None:
    kept = heap.root["kept"] = heap.list([1])
    savepoint = heap.savepoint()
    lost = heap.root["lost"] = heap.list([2])
    kept.append(3)
    savepoint.rollback()
    assert dh.to_python(kept) == [1]
    with pytest.raises(dh.StaleObjectError):
        lost.append(1)


# --- restore -------------------------------------------------------------------------------------


def test_restore_makes_an_old_state_the_present_one(path: Path) -> None:
    rng = seeded()
    states = {}
    with dh.open(path, keep=100) as heap:
        fill(heap)
        for number in range(12):
            change(heap, rng)
            states[heap.commit().id] = plain(heap)
            if number % 5 == 2:
                heap.fold()
            if number % 4 == 3:
                heap.collect()
        for wanted in [3, 12, 1, 7, 11, 2]:
            change(heap, rng)
            commit = heap.restore(wanted)
            assert (commit.id, commit.note) == (heap.last_commit_id, f"restored commit {wanted}")
            assert plain(heap) == states[wanted]
            assert heap.verify().ok
            assert heap.pending().pages == 0
            states[commit.id] = states[wanted]
        for commit in heap.history():
            with dh.open(path, read_only=True, at=commit) as snapshot:
                assert plain(snapshot) == states[commit.id]
    assert contents(path) == states[2]


def test_restore_by_tag_says_so(heap: dh.Heap) -> None:
    heap.root["n"] = 1
    heap.tag("good", heap.commit())
    heap.root["n"] = 2
    heap.commit()
    assert heap.restore("good").note == "restored commit 1 ('good')"
    assert heap.root["n"] == 1
    assert heap.history()[-1].note == "restored commit 1 ('good')"


def test_restoring_the_present_state_is_a_commit_all_the_same(heap: dh.Heap) -> None:
    heap.root["n"] = 1
    commit = heap.commit()
    assert heap.restore(commit).id == 2
    assert plain(heap) == {"n": 1}


def test_what_is_uncommitted_is_gone_after_restore(heap: dh.Heap) -> None:
    heap.root["n"] = 1
    heap.commit()
    heap.root["n"] = 2
    heap.root["more"] = [1] * 1000
    heap.restore(1)
    assert plain(heap) == {"n": 1}


def test_handles_follow_a_restore(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        old = heap.root["old"] = heap.list([1])
        heap.commit()
        old.append(2)
        young = heap.root["young"] = heap.list([3])
        heap.commit()
        heap.restore(1)
        assert dh.to_python(old) == [1]
        assert heap.root["old"] is old
        with pytest.raises(dh.StaleObjectError):
            young.append(4)
        heap.restore(2)
        assert dh.to_python(heap.root) == {"old": [1, 2], "young": [3]}
        with pytest.raises(dh.StaleObjectError):
            young.append(4)


def test_serials_do_not_come_again_after_a_restore(path: Path) -> None:
    """A handle made before would meet another container with its number."""
    with dh.open(path, keep=10) as heap:
        heap.root["n"] = 0
        heap.commit()
        young = heap.root["young"] = heap.list([1])
        serial = heap._core.serial(young)
        heap.commit()
        heap.restore(1)
        others = [heap.list() for _ in range(100)]
        assert all(heap._core.serial(other) > serial for other in others)


def test_memory_freed_and_used_again_is_what_it_was(path: Path) -> None:
    """Pages that became another kind, or zeros that became something and were freed again."""
    with dh.open(path, keep=100) as heap:
        heap.root["zeros"] = heap.buffer(40 * 4096)
        heap.commit()
        heap.root["zeros"][:] = b"x" * (40 * 4096)
        del heap.root["zeros"]
        heap.collect()
        heap.commit()
        heap.root["dicts"] = [{"a": i, "b": [i]} for i in range(3000)]
        heap.commit()
        expected = plain(heap)
        heap.restore(1)
        assert plain(heap) == {"zeros": bytes(40 * 4096)}
        assert heap.verify().ok
        heap.restore(3)
        assert plain(heap) == expected
        assert heap.verify().ok
        heap.collect()
        heap.restore(2)
        assert plain(heap) == {}
        report = heap.verify()
        assert report.ok
    assert contents(path) == {}


def test_views_of_a_buffer_that_both_states_have_show_the_old_bytes(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        array = heap.array(1000, "i8", fill=1)
        heap.root["array"] = array
        heap.commit()
        array[:] = 2
        heap.commit()
        heap.restore(1)
        assert (array == 1).all()
        array[0] = 7
        heap.commit()
        del array
    assert contents(path)["array"][0] == 7


def test_a_view_on_memory_that_was_something_else_refuses_the_restore(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["dicts"] = [{"a": i, "b": [i]} for i in range(2000)]
        heap.commit()
        expected = plain(heap)
        del heap.root["dicts"]
        heap.collect()
        heap.commit()
        buffers = [heap.buffer(16 * 4096) for _ in range(12)]
        heap.root["buffers"] = buffers
        heap.commit()
        now = plain(heap)
        views = [memoryview(buffer) for buffer in buffers]
        with pytest.raises(BufferError, match="release it"):
            heap.restore(1)
        assert plain(heap) == now
        assert heap.last_commit_id == 3
        views[0][0] = 1
        for view in views:
            view.release()
        heap.restore(1)
        assert plain(heap) == expected
        assert heap.verify().ok


def test_a_view_of_memory_that_was_free_stays_pinned(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["n"] = 1
        heap.commit()
        buffer = heap.root["buffer"] = heap.buffer(1 << 20)
        view = memoryview(buffer)
        heap.commit()
        heap.restore(1)
        heap.root["others"] = [heap.buffer(1 << 20) for _ in range(3)]
        view[:] = b"y" * (1 << 20)
        assert plain(heap)["others"] == [bytes(1 << 20)] * 3
        view.release()
        assert heap.verify().ok


@pytest.mark.parametrize("point,rc", [("commit.encode", 5), ("extent.write", 28)])
def test_a_restore_that_fails_leaves_everything_as_it_was(path: Path, point: str, rc: int) -> None:
    with dh.open(path, keep=10) as heap:
        fill(heap)
        heap.root["bulk"] = heap.buffer(random.Random(1).randbytes(3 << 20))
        heap.commit()
        heap.root["bulk"][:] = random.Random(2).randbytes(3 << 20)
        heap.commit()
        heap.root["uncommitted"] = [1, 2]
        numbers, savepoint = heap.root["numbers"], heap.savepoint()
        expected = plain(heap)
        with fault(point, rc=rc), pytest.raises((dh.HeapError, OSError)):
            heap.restore(1)
        assert plain(heap) == expected
        assert dh.to_python(numbers) == expected["numbers"]
        assert heap.last_commit_id == 2
        numbers.clear()
        savepoint.rollback()
        assert plain(heap) == expected
        heap.commit()
    assert contents(path) == expected


def test_restore_refuses_what_it_must(heap: dh.Heap) -> None:
    with pytest.raises(dh.HeapError, match="nothing was committed yet"):
        heap.restore(1)
    heap.root["n"] = 1
    heap.commit()
    with pytest.raises(dh.HeapError, match="no commit 2"):
        heap.restore(2)
    with pytest.raises(KeyError, match="no tag 'x'"):
        heap.restore("x")
    with pytest.raises(TypeError, match=r"rollback\(\) goes back"):
        heap.restore(None)  # type: ignore[arg-type]
    with pytest.raises(dh.HeapError, match="leave the block first"), heap.transaction():
        heap.restore(1)


# --- diff ----------------------------------------------------------------------------------------


def changes(heap: dh.Heap, work: Callable[[dh.Dict], Any], **options: Any) -> list[str]:
    """What diff says of the work, which is committed."""
    heap.commit("before")
    before = heap.last_commit_id
    work(heap.root)
    heap.commit("after")
    return [str(change) for change in heap.diff(before, **options).changes]


@pytest.fixture
def family(heap: dh.Heap) -> dh.Heap:
    heap.root["users"] = [{"name": "Ada", "tags": {"a", "b"}}, heap.new(PastPerson, "Bob", 7)]
    heap.root["sorted"] = heap.sorted_dict({1: "x", 2: "y"})
    heap.root["queue"] = heap.deque([1, 2, 3])
    heap.root["bytes"] = heap.buffer(bytes(10_000))
    heap.root["array"] = heap.array((3, 4), "i2")
    heap.root["pair"] = (1, [2])
    return heap


def set_(path: str, value: Any) -> Callable[[dh.Dict], Any]:
    def work(root: dh.Dict) -> None:
        exec(f"{path} = value", {"root": root, "value": value})

    return work


@pytest.mark.parametrize(
    "work,expected",
    [
        (set_("root['new']", 1), ["added root['new']: 1"]),
        (lambda root: root.pop("pair"), ["removed root['pair']: (1, <List of 1>)"]),
        (set_("root['users'][0]['name']", "Eve"),
         ["changed root['users'][0]['name']: 'Ada' -> 'Eve'"]),
        (set_("root['users'][1].age", 8), ["changed root['users'][1].age: 7 -> 8"]),
        (set_("root['users'][1].friends", [1]),
         ["changed root['users'][1].friends: None -> <List of 1>"]),
        (lambda root: root["users"][0]["tags"].add("c"),
         ["added root['users'][0]['tags']{'c'}: 'c'"]),
        (lambda root: root["users"][0]["tags"].remove("a"),
         ["removed root['users'][0]['tags']{'a'}: 'a'"]),
        (set_("root['sorted'][3]", "z"), ["added root['sorted'][3]: 'z'"]),
        (lambda root: root["queue"].appendleft(0), ["added root['queue'][0]: 0"]),
        (lambda root: root["queue"].pop(), ["removed root['queue'][2]: 3"]),
        (lambda root: root["users"].insert(0, "first"), ["added root['users'][0]: 'first'"]),
        (set_("root['pair'][1][0]", 3), ["changed root['pair'][1][0]: 2 -> 3"]),
        (set_("root['bytes'][5:7]", b"hi"),
         [r"changed root['bytes'][5:7]: b'\x00\x00' -> b'hi'"]),
        (set_("root['array'][1, 1]", 1),
         [r"changed root['array'].tobytes()[10:11]: b'\x00' -> b'\x01'"]),
        (set_("root['users'][0]['name']", ["a"]),
         ["changed root['users'][0]['name']: 'Ada' -> <List of 1>"]),
        (set_("root['sorted'][1]", 1), ["changed root['sorted'][1]: 'x' -> 1"]),
        (lambda root: None, []),
    ],
)  # fmt: skip
def test_diff_names_what_differs(
    family: dh.Heap, work: Callable[[dh.Dict], Any], expected: list[str]
) -> None:
    assert changes(family, work) == expected


def test_a_container_that_was_moved_is_one_change(heap: dh.Heap) -> None:
    heap.root["a"] = {"deep": [{"x": 1}] * 3, "n": 1}
    heap.root["b"] = {}

    def work(root: dh.Dict) -> None:
        root["b"]["c"] = root.pop("a")

    assert changes(heap, work) == ["moved root['a'] -> root['b']['c']"]
    moved_and_changed = changes(heap, lambda root: root.update(a=root["b"].pop("c"), n=2)
                                or root["a"].update(n=5))  # fmt: skip
    assert sorted(moved_and_changed) == [
        "added root['n']: 2",
        "changed root['a']['n']: 1 -> 5",
        "moved root['b']['c'] -> root['a']",
    ]


def test_shared_and_cyclic_containers_are_told_once(heap: dh.Heap) -> None:
    shared = heap.root["shared"] = heap.dict({"n": 1})
    heap.root["again"] = [shared, shared]
    heap.root["me"] = heap.root

    def work(root: dh.Dict) -> None:
        root["again"][1]["n"] = 2

    assert changes(heap, work) == ["changed root['shared']['n']: 1 -> 2"]


def test_deep_graphs_do_not_exhaust_the_stack(heap: dh.Heap) -> None:
    inner = heap.root
    for _ in range(5000):
        inner["in"] = heap.dict()
        inner = inner["in"]
    assert changes(heap, lambda root: inner.update(n=1))[0].endswith("['n']: 1")


def test_the_list_of_changes_is_bounded_and_the_rest_counted(heap: dh.Heap) -> None:
    heap.root["n"] = list(range(500))
    heap.commit()
    heap.root["n"][:] = range(1, 1001, 2)
    heap.commit()
    diff = heap.diff(1, 2, limit=10)
    assert len(diff.changes) == 10
    assert diff.more == 490
    assert diff
    assert heap.diff(1, limit=0).more == 500
    with pytest.raises(ValueError, match="limit"):
        heap.diff(1, limit=-1)


def test_long_values_are_cut(heap: dh.Heap) -> None:
    (line,) = changes(heap, lambda root: root.update(text="x" * 100_000))
    assert len(line) < 300
    (line,) = changes(heap, lambda root: root.update({"y" * 5000: 1}))
    assert len(line) < 300
    # More digits than Python writes: as a value, in a tuple, as a key.
    (line,) = changes(heap, lambda root: root.update(n=-(1 << 40_000)))
    assert line.startswith("added root['n']: -0x1000") and len(line) < 300
    (line,) = changes(heap, lambda root: root.update(n=(1 << 40_000, 2)))
    assert line.endswith("000, 2)") and len(line) < 300
    (line,) = changes(heap, lambda root: root.update({1 << 40_000: 1}))
    assert line.startswith("added root[0x1000") and len(line) < 300


def test_diff_counts_pages_and_bytes(heap: dh.Heap) -> None:
    heap.root["buffer"] = heap.buffer(64 * 4096)
    heap.commit()
    commit_bytes = 0
    for page in (3, 9):
        heap.root["buffer"][page * 4096] = 1
        commit = heap.commit()
        commit_bytes += commit.bytes_changed
    diff = heap.diff(1, 3)
    assert (diff.before, diff.after) == (1, 3)
    assert (diff.pages, diff.bytes) == (2, 16) == (2, commit_bytes)
    assert heap.diff(3, 3) == dh.Diff(3, 3, 0, 0, (), 0)
    assert not heap.diff(3, 3)
    backwards = heap.diff(3, 1)
    assert (backwards.pages, backwards.bytes) == (2, 16)
    heap.fold()
    assert not heap.diff(3)


def test_values_that_are_equal_but_not_the_same_differ(heap: dh.Heap) -> None:
    heap.root["n"] = 1
    heap.root["nan"] = float("nan")
    assert changes(heap, lambda root: root.update(n=True, nan=float("nan"))) == [
        "changed root['n']: 1 -> True"
    ]


def test_what_cannot_be_read_stops_nothing(path: Path) -> None:
    with dh.open(path, allow_pickle=True) as heap:
        heap.root["pickled"] = dh.Pickled({1})
        heap.root["list"] = [dh.Pickled({1}), 1]
        lines = changes(heap, lambda root: root["list"].append(3))
        assert lines == ["added root['list'][2]: 3"]


def test_more_ranges_than_a_hundred_are_told_as_the_last_one(heap: dh.Heap) -> None:
    heap.root["buffer"] = heap.buffer(100_000)

    def work(root: dh.Dict) -> None:
        np.frombuffer(root["buffer"], "u1")[::100] = 1

    lines = changes(heap, work)
    assert len(lines) == 100
    assert lines[-1].startswith("changed root['buffer'][9900:99901]")


def test_diff_refuses_what_it_must(heap: dh.Heap) -> None:
    heap.root["n"] = 1
    heap.commit()
    with pytest.raises(TypeError, match="commit to begin with"):
        heap.diff(None)  # type: ignore[arg-type]
    with pytest.raises(dh.HeapError, match="no commit 5"):
        heap.diff(1, 5)
    with pytest.raises(KeyError, match="no tag"):
        heap.diff("x")


def test_uncommitted_changes_are_in_no_diff(heap: dh.Heap) -> None:
    heap.root["n"] = 1
    heap.commit()
    heap.root["n"] = 2
    assert not heap.diff(1)

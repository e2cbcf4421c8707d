"""A heap, its history and a plain model of states stay equal, whatever is done in whatever order.

Commits, tags, folds, collections, rollbacks, savepoints, transactions, restores, snapshots that
stay open, reopening with another `keep`. The model remembers the state of every commit ever made,
and which are kept; every kept one can be opened and holds what it held, and no other can.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, Stop, collect, fault, plain
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

CAPACITY = 64 << 20
KEYS = st.sampled_from(["a", "b", "c", "d", 1, (2, "x")])
VALUES = st.one_of(
    st.integers(),
    st.text(max_size=40),
    st.lists(st.integers(0, 1000), max_size=8),
    st.dictionaries(st.text(max_size=3), st.lists(st.booleans(), max_size=3), max_size=4),
    st.integers(100, 700).map(lambda count: list(range(count))),
)
NAMES = st.sampled_from(["first", "second", "third"])
PICKS = st.integers(0, 1 << 30)


class HistoryMachine(RuleBasedStateMachine):
    """One heap and what it should hold, now and at every commit."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dh-history-"))
        self.now: dict[Any, Any] = {}
        self.states: dict[int, dict[Any, Any]] = {}
        self.last = 0
        self.oldest = 1
        self.tags: dict[str, int] = {}
        self.savepoints: list[tuple[dh.Savepoint, dict[Any, Any]]] = []
        self.snapshots: list[tuple[dh.Heap, dict[Any, Any]]] = []
        self.open(1)

    def open(self, keep: int) -> None:
        self.keep = keep
        self.heap = dh.open(self.directory / "heap", capacity=CAPACITY, keep=keep)

    def teardown(self) -> None:
        for snapshot, state in self.snapshots:
            assert plain(snapshot) == state
            snapshot.close()
        for commit in self.kept():
            self.check_commit(commit)
        report = self.heap.verify()
        assert report.ok, report
        self.heap.close()
        shutil.rmtree(self.directory)

    # --- the model ------------------------------------------------------------------------------

    def kept(self) -> list[int]:
        if not self.last:
            return []
        return sorted({*range(self.oldest, self.last + 1), *self.tags.values()})

    def pick(self, number: int) -> int:
        kept = self.kept()
        return kept[number % len(kept)]

    def prune(self) -> None:
        self.oldest = max(self.oldest, self.last - self.keep + 1)

    def committed(self, commit: dh.Commit) -> None:
        self.last = commit.id
        self.states[commit.id] = copy.deepcopy(self.now)
        self.end_savepoints(0)

    def end_savepoints(self, begin: int) -> None:
        """Those from this one on have ended."""
        for savepoint, _ in self.savepoints[begin:]:
            assert savepoint.ended
            with pytest.raises(dh.HeapError, match="has ended"):
                savepoint.rollback()
        del self.savepoints[begin:]

    def check_commit(self, commit: int) -> None:
        with dh.open(self.directory / "heap", read_only=True, at=commit) as snapshot:
            assert plain(snapshot) == self.states[commit], commit

    # --- changes --------------------------------------------------------------------------------

    def set(self, key: Any, value: Any) -> None:
        self.heap.root[key] = value
        self.now[key] = copy.deepcopy(value)

    @rule(key=KEYS, value=VALUES)
    def set_key(self, key: Any, value: Any) -> None:
        self.set(key, value)

    @precondition(lambda self: self.now)
    @rule(number=PICKS)
    def delete_key(self, number: int) -> None:
        key = list(self.now)[number % len(self.now)]
        del self.heap.root[key], self.now[key]

    @rule(number=PICKS, values=st.lists(st.integers(), max_size=300))
    def extend_list(self, number: int, values: list[int]) -> None:
        lists = [key for key, value in self.now.items() if isinstance(value, list)]
        if lists:
            key = lists[number % len(lists)]
            self.heap.root[key].extend(values)
            self.now[key].extend(values)

    @rule(how=st.sampled_from(COLLECTIONS))
    def collect(self, how: str) -> None:
        collect(self.heap, how)

    # --- commits --------------------------------------------------------------------------------

    @rule(note=st.sampled_from(["", "", "a note"]))
    def commit(self, note: str) -> None:
        commit = self.heap.commit(note)
        assert commit.id in ((self.last + 1,) if note else (self.last, self.last + 1))
        assert commit.id == self.last + 1 or self.states.get(self.last) == self.now
        self.committed(commit)

    @rule()
    def commit_that_fails(self) -> None:
        self.heap.root["failing"] = self.now["failing"] = self.last
        with fault("commit.encode", rc=5), pytest.raises(dh.CommitError):
            self.heap.commit("a note")

    @rule(fails=st.booleans())
    def fold(self, fails: bool) -> None:
        if fails:
            with fault("extent.write", rc=28):
                try:
                    self.heap.fold()
                except (dh.HeapError, OSError):
                    return
        else:
            self.heap.fold()
        if self.last:
            self.prune()

    @rule(keep=st.integers(1, 5))
    def reopen(self, keep: int) -> None:
        self.heap.close()
        self.savepoints.clear()
        self.now = copy.deepcopy(self.states.get(self.last, {}))
        self.open(keep)

    # --- tags -----------------------------------------------------------------------------------

    @rule(name=NAMES, number=PICKS)
    def tag(self, name: str, number: int) -> None:
        if not self.last:
            with pytest.raises(dh.HeapError, match="nothing was committed"):
                self.heap.tag(name)
            return
        commit, before = self.pick(number), self.tags.get(name)
        assert self.heap.tag(name, commit).id == commit
        self.tags[name] = commit
        if before not in (None, commit):
            self.prune()

    @precondition(lambda self: self.last)
    @rule(name=NAMES, number=PICKS)
    def tag_what_is_gone(self, name: str, number: int) -> None:
        commit = 1 + number % (self.last + 2)
        if commit not in self.kept():
            with pytest.raises(dh.HeapError, match=r"no longer kept|no commit"):
                self.heap.tag(name, commit)

    @rule(name=NAMES)
    def untag(self, name: str) -> None:
        if name not in self.tags:
            with pytest.raises(KeyError):
                self.heap.untag(name)
            return
        self.heap.untag(name)
        del self.tags[name]
        self.prune()

    # --- going back -----------------------------------------------------------------------------

    @rule()
    def rollback(self) -> None:
        self.heap.rollback()
        self.now = copy.deepcopy(self.states.get(self.last, {}))
        self.end_savepoints(0)

    @precondition(lambda self: len(self.savepoints) < 4)
    @rule()
    def take_savepoint(self) -> None:
        self.savepoints.append((self.heap.savepoint(), copy.deepcopy(self.now)))

    @precondition(lambda self: self.savepoints)
    @rule(number=PICKS)
    def go_back_to_savepoint(self, number: int) -> None:
        index = number % len(self.savepoints)
        savepoint, state = self.savepoints[index]
        savepoint.rollback()
        self.now = copy.deepcopy(state)
        self.end_savepoints(index + 1)

    @precondition(lambda self: self.savepoints)
    @rule(number=PICKS)
    def release_savepoint(self, number: int) -> None:
        savepoint, _ = self.savepoints.pop(number % len(self.savepoints))
        savepoint.release()
        assert savepoint.ended

    @rule(key=KEYS, value=VALUES, inner=VALUES, fails=st.booleans(), goes_back=st.booleans())
    def transaction(self, key: Any, value: Any, inner: Any, fails: bool, goes_back: bool) -> None:
        before = copy.deepcopy(self.now)
        try:
            with self.heap.transaction():
                self.set(key, value)
                savepoint, middle = self.heap.savepoint(), copy.deepcopy(self.now)
                if self.savepoints:
                    with pytest.raises(dh.HeapError, match="leave the block"):
                        self.savepoints[0][0].rollback()
                self.set("inner", inner)
                if goes_back:
                    savepoint.rollback()
                    self.now = middle
                if fails:
                    raise Stop
        except Stop:
            self.now = before
        else:
            self.last = self.heap.last_commit_id
            self.states[self.last] = copy.deepcopy(self.now)
            self.end_savepoints(0)
        assert savepoint.ended

    @precondition(lambda self: self.last)
    @rule(number=PICKS, fails=st.booleans())
    def restore(self, number: int, fails: bool) -> None:
        wanted = self.pick(number)
        if fails:
            with fault("commit.encode", rc=5), pytest.raises(dh.CommitError):
                self.heap.restore(wanted)
            return
        commit = self.heap.restore(wanted)
        assert commit.id == self.last + 1
        self.now = copy.deepcopy(self.states[wanted])
        self.committed(commit)

    # --- looking --------------------------------------------------------------------------------

    @precondition(lambda self: self.last and len(self.snapshots) < 3)
    @rule(number=PICKS)
    def open_snapshot(self, number: int) -> None:
        commit = self.pick(number)
        snapshot = dh.open(self.directory / "heap", read_only=True, at=commit, capacity=CAPACITY)
        assert plain(snapshot) == self.states[commit]
        self.snapshots.append((snapshot, self.states[commit]))

    @precondition(lambda self: self.snapshots)
    @rule(number=PICKS)
    def close_snapshot(self, number: int) -> None:
        snapshot, state = self.snapshots.pop(number % len(self.snapshots))
        assert plain(snapshot) == state
        snapshot.close()

    @precondition(lambda self: self.last)
    @rule(one=PICKS, other=PICKS)
    def diff(self, one: int, other: int) -> None:
        a, b = self.pick(one), self.pick(other)
        diff = self.heap.diff(a, b)
        assert (diff.before, diff.after) == (a, b)
        if self.states[a] != self.states[b]:
            assert diff.changes and diff.pages and diff.bytes >= 8
        if a == b:
            assert not diff and not diff.pages

    @invariant()
    def the_heap_is_its_model(self) -> None:
        assert plain(self.heap) == self.now

    @invariant()
    def the_history_is_its_model(self) -> None:
        history = self.heap.history()
        assert [commit.id for commit in history] == self.kept()
        assert {name: commit.id for name, commit in self.heap.tags().items()} == self.tags


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        HistoryMachine,
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


@pytest.mark.timeout(300)
def test_every_kept_commit_holds_what_it_held() -> None:
    run(examples=40, steps=40)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_kept_commit_holds_what_it_held_through_long_histories() -> None:
    run(examples=500, steps=150)

"""What is kept needs what it needs, and nothing else stays: unit tests, and a property test against
a model that remembers the state of every commit ever made."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dirtyheap import retention
from dirtyheap.retention import Span, needs, version_at

EXTENTS = range(3)


def test_the_version_a_commit_sees_is_the_newest_not_after_it() -> None:
    assert version_at([], 5) is None
    assert version_at([6, 9], 5) is None
    assert [version_at([2, 5, 9], commit) for commit in (2, 4, 5, 8, 9, 10)] == [2, 2, 5, 5, 9, 9]


def test_the_last_n_commits_are_kept_and_never_more_than_there_are() -> None:
    assert retention.oldest_by_count(1, 10, 1) == 10
    assert retention.oldest_by_count(1, 10, 4) == 7
    assert retention.oldest_by_count(1, 10, 400) == 1
    assert retention.oldest_by_count(9, 10, 4) == 9, "what was given up does not come back"


def test_commits_are_kept_by_age_and_the_last_one_always() -> None:
    times = [(3, 10.0), (4, 20.0), (5, 30.0)]
    assert retention.oldest_by_age(3, 5, times, 0) == 3
    assert retention.oldest_by_age(3, 5, times, 20.0) == 4
    assert retention.oldest_by_age(3, 5, times, 31.0) == 5
    clock_went_back = [(3, 10.0), (4, 50.0), (5, 20.0), (6, 60.0)]
    assert retention.oldest_by_age(3, 6, clock_went_back, 40.0) == 4
    taken = iter(times)
    retention.oldest_by_age(3, 5, taken, 0)
    assert next(taken) == (4, 20.0), "no more records are read than needed"


def test_a_commit_needs_its_chain_down_to_its_fold_point() -> None:
    need = needs(7, 9, [], {7: 5})
    assert need.spans == (Span(5, 7, 9),)
    assert [commit for commit in range(12) if need.has_record(commit)] == [5, 6, 7, 8, 9]
    assert [commit for commit in range(12) if need.has_delta(commit)] == [6, 7, 8, 9]
    assert need.versions_needed([1, 4, 6, 8]) == {6, 8}
    assert need.versions_needed([8]) == {8}
    assert need.versions_dropped({0: [1, 4, 6, 8], 1: [2]}, [0, 1]) == [(0, 1), (0, 4)]


def test_a_tag_needs_its_own_chain_and_nothing_between() -> None:
    need = needs(20, 20, [3, 20], {20: 20, 3: 2})
    assert [commit for commit in range(22) if need.has_record(commit)] == [2, 3, 20]
    assert [commit for commit in range(22) if need.has_delta(commit)] == [3]
    assert need.versions_needed([1, 2, 5, 20]) == {2, 20}


@pytest.mark.parametrize("keep", [True, 1.5, "3", None])
def test_keep_of_another_type_is_refused(keep: Any) -> None:
    with pytest.raises(TypeError, match="int or a timedelta"):
        retention.check_keep(keep)


@pytest.mark.parametrize("keep", [0, -1, timedelta(seconds=-1)])
def test_keep_of_less_than_the_last_commit_is_refused(keep: Any) -> None:
    with pytest.raises(ValueError, match="keep="):
        retention.check_keep(keep)


class RetentionMachine(RuleBasedStateMachine):
    """A store of dicts. A state is what each extent holds: the commits that wrote to it, in order.
    A delta is which extents its commit wrote to; a base file is a whole state of one extent."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[int, dict[int, tuple[int, ...]]] = {0: dict.fromkeys(EXTENTS, ())}
        self.fold: dict[int, int] = {}  # of the stored records
        self.deltas: dict[int, set[int]] = {}
        self.bases: dict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)
        self.tags: dict[str, int] = {}
        self.oldest = 1
        self.keep = 1
        self.last = 0

    @rule(written=st.sets(st.sampled_from(EXTENTS)), rebased=st.sets(st.sampled_from(EXTENTS)))
    def commit(self, written: set[int], rebased: set[int]) -> None:
        before, self.last = self.states[self.last], self.last + 1
        state = {e: before[e] + ((self.last,) if e in written else ()) for e in EXTENTS}
        self.states[self.last] = state
        self.fold[self.last] = self.fold.get(self.last - 1, 0)
        self.deltas[self.last] = written - rebased
        for extent in written & rebased:
            self.bases[extent][self.last] = state[extent]
        if written & rebased:
            self.drop_bases(self.plan())

    @precondition(lambda self: self.last)
    @rule()
    def fold_all(self) -> None:
        for extent in EXTENTS:
            newest = version_at(sorted(self.bases[extent]), self.last)
            if self.bases[extent].get(newest or 0, ()) != self.states[self.last][extent]:
                self.bases[extent][self.last] = self.states[self.last][extent]
        self.fold[self.last] = self.last
        self.deltas[self.last] = set()
        self.prune()

    def kept(self) -> set[int]:
        return set(range(self.oldest, self.last + 1)) | set(self.tags.values())

    @precondition(lambda self: self.last)
    @rule(name=st.sampled_from("abc"), data=st.data())
    def tag(self, name: str, data: st.DataObject) -> None:
        moved = name in self.tags
        self.tags[name] = data.draw(st.sampled_from(sorted(self.kept())))
        if moved:
            self.prune()

    @precondition(lambda self: self.tags)
    @rule(data=st.data())
    def untag(self, data: st.DataObject) -> None:
        del self.tags[data.draw(st.sampled_from(sorted(self.tags)))]
        self.prune()

    @rule(keep=st.integers(1, 6))
    def set_keep(self, keep: int) -> None:
        self.keep = keep

    def plan(self) -> retention.Needs:
        self.oldest = retention.oldest_by_count(self.oldest, self.last, self.keep)
        return needs(self.oldest, self.last, set(self.tags.values()), self.fold)

    def drop_bases(self, plan: retention.Needs) -> None:
        versions = {extent: sorted(known) for extent, known in self.bases.items() if known}
        for extent, version in plan.versions_dropped(versions, versions):
            del self.bases[extent][version]

    def prune(self) -> None:
        plan = self.plan()
        self.fold = {commit: fold for commit, fold in self.fold.items() if plan.has_record(commit)}
        self.deltas = {c: written for c, written in self.deltas.items() if plan.has_delta(c)}
        self.drop_bases(plan)
        self.check_that_nothing_else_stays()

    def read(self, commit: int) -> tuple[dict[int, tuple[int, ...]], set[Any]]:
        """The state of a commit as the store has it, and what was touched to read it."""
        fold = self.fold[commit]
        touched: set[Any] = {("record", link) for link in range(max(fold, 1), commit + 1)}
        assert all(link in self.fold for _, link in touched)
        state = {}
        for extent in EXTENTS:
            version = version_at(sorted(self.bases[extent]), commit)
            state[extent] = self.bases[extent][version] if version else ()
            if version:
                touched.add(("base", extent, version))
            for link in range(fold + 1, commit + 1):
                touched.add(("delta", link))
                if extent in self.deltas[link] and (version is None or version < link):
                    state[extent] += (link,)
        return state, touched

    @invariant()
    def every_kept_commit_can_be_read(self) -> None:
        for commit in self.kept() - {0} if self.last else ():
            assert self.read(commit)[0] == self.states[commit], commit

    def check_that_nothing_else_stays(self) -> None:
        touched: set[Any] = set().union(*(self.read(commit)[1] for commit in self.kept()))
        stored = {("record", commit) for commit in self.fold}
        stored |= {("delta", commit) for commit in self.deltas if self.fold[commit] != commit}
        stored |= {("base", e, version) for e in EXTENTS for version in self.bases[e]}
        assert stored == touched


TestRetention = RetentionMachine.TestCase
TestRetention.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

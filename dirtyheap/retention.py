"""Which commits are kept, and what of the store they need.

    kept      every commit from `oldest` on, and the tagged ones
    commit C  needs the records of [fold(C), C], the deltas of (fold(C), C], and of each extent the
              newest version not after C

Pure functions over numbers: the store reads the rows, asks here, and writes. What is not needed by
any kept commit may go, and nothing else may. ``oldest`` never goes back: what was given up is not
there any more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

Keep: TypeAlias = "int | timedelta"


def check_keep(keep: object) -> Keep:
    """What a user may give: the last n commits, or those younger than a duration; tags besides.

    Raises:
        TypeError: neither an int nor a timedelta.
        ValueError: less than one commit, or a negative duration.
    """
    if isinstance(keep, bool) or not isinstance(keep, int | timedelta):
        raise TypeError(f"keep must be an int or a timedelta, not {type(keep).__name__}")
    if isinstance(keep, int) and keep < 1:
        raise ValueError(f"keep={keep}: at least the last commit is kept")
    if isinstance(keep, timedelta) and keep < timedelta(0):
        raise ValueError(f"keep={keep!r}: must not be negative")
    return keep


def oldest_by_count(oldest: int, last: int, count: int) -> int:
    """The oldest commit kept when the last ``count`` are: ids are dense."""
    return max(oldest, last - count + 1)


def oldest_by_age(
    oldest: int, last: int, times: Iterable[tuple[int, float]], not_before: float
) -> int:
    """The oldest commit kept when those made at ``not_before`` or later are, and the last one.
    ``times``: (id, seconds) from ``oldest`` on, ascending; only as many as needed are taken.

    Where the clock went back, a commit between two that are kept is kept with them.
    """
    for commit, time in times:
        if time >= not_before:
            return max(oldest, commit)
    return max(oldest, last)


@dataclass(frozen=True, slots=True)
class Span:
    """What is needed to open the commits [oldest, last] on the base of ``fold`` and later ones."""

    fold: int
    oldest: int
    last: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What all kept commits need together; the first span is the one that ends at the last."""

    spans: tuple[Span, ...]

    @property
    def first_of_last(self) -> int:
        """From this commit on everything is needed."""
        return self.spans[0].fold or 1

    def has_record(self, commit: int) -> bool:
        """Whether the record of a commit must stay."""
        return any(span.fold <= commit <= span.last for span in self.spans)

    def has_delta(self, commit: int) -> bool:
        """Whether the delta of a commit must stay."""
        return any(span.fold < commit <= span.last for span in self.spans)

    def versions_needed(self, versions: Sequence[int]) -> set[int]:
        """Of the ascending versions of one extent, those that must stay."""
        needed: set[int] = set()
        for span in self.spans:
            first = version_at(versions, span.oldest)
            begin = 0 if first is None else bisect_left(versions, first)
            needed.update(versions[begin : bisect_right(versions, span.last)])
        return needed

    def versions_dropped(
        self, versions: Mapping[int, Sequence[int]], numbers: Iterable[int]
    ) -> list[tuple[int, int]]:
        """(number, version) of the base files of these extents that no kept commit needs."""
        return [
            (number, version)
            for number in numbers
            if len(versions[number]) > 1  # the newest is always needed
            for version in sorted(set(versions[number]) - self.versions_needed(versions[number]))
        ]


def needs(oldest: int, last: int, tagged: Collection[int], folds: Mapping[int, int]) -> Needs:
    """What the commits from ``oldest`` to ``last`` and the tagged ones need. ``folds``: fold(C) of
    ``oldest`` and of every tagged commit before it; the later ones rest on the same or newer."""
    spans = [Span(folds[oldest], oldest, last)]
    spans += [Span(folds[commit], commit, commit) for commit in tagged if commit < oldest]
    return Needs(tuple(spans))


def version_at(versions: Sequence[int], commit: int) -> int | None:
    """Which of the ascending versions of an extent a commit sees; None: not any, zeros."""
    index = bisect_right(versions, commit)
    return versions[index - 1] if index else None

"""Replays a record up to each of its moments, lets the power fail there in many ways, and judges
what a heap opened on the remains shows.

The judge's rule: exactly the state that was acknowledged last, or the one a verb under way was to
make; whole, by verify(); and fit to be committed to.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from disk_model import (
    Change,
    Disk,
    Fates,
    KeepAll,
    LoseAll,
    LoseBytes,
    NameChange,
    OneOut,
    RandomFates,
)
from heap_state import NEW, content_of, digest, state_of, tags_of
from recording import Event, Op
from workload import KEEP

import dirtyheap as dh

HEAP_NAME = "heap"
# Not part of the state: the engine makes it again whenever it opens a heap.
VOLATILE = {f"{HEAP_NAME}/lock.mdb"}
_IMAGE_TIMEOUT_S = 60
_COMMIT_EVERY = 6  # so many images are judged for each one that is also committed to

# --- moments -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Promise:
    """Which states may be found now."""

    allowed: set[str] = field(default_factory=lambda: {NEW})
    is_acknowledged: bool = False  # some commit was: the heap must be there
    digests: dict[int, set[str]] = field(default_factory=dict)  # of every commit ever announced

    @classmethod
    def of(cls, state: str) -> Promise:
        """After a commit that made this state."""
        return cls({state}, True)

    def hear(self, mark: str) -> None:
        """Take note of what the recorded program says."""
        word, _, state = mark.partition(" ")
        commit, digest, _ = state.split(":", 2)
        self.digests.setdefault(int(commit), set()).add(digest)
        if word == "begin":
            self.allowed.add(state)
            return
        assert word in ("done", "found"), mark
        assert state in self.allowed, f"{mark}: allowed is {self.allowed}"
        self.allowed = {state}
        self.is_acknowledged |= word == "done"


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in the record where the power fails."""

    number: int
    event: Event
    promise: Promise


def moments(events: list[Event], disk: Disk) -> Iterator[Moment]:
    """Let one event after the other happen on the disk; a moment after each, and before a
    synchronous write returns."""
    promise = Promise()
    number = 0
    for event in events:
        if event.op is Op.MARK:
            promise.hear(event.path)
        if event.op is Op.MARK or event.path in VOLATILE:
            continue
        disk.apply(event)
        yield Moment(number, event, promise)
        number += 1
        if event.is_synchronous:
            disk.finish(event)
            yield Moment(number, event, promise)
            number += 1


# --- ways to fail --------------------------------------------------------------------------------


class _Noting:
    """Passes on what other fates decide, and remembers it: equal notes are equal images."""

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self.notes: list[object] = []

    def sectors(self, change: Change) -> list[int] | None:
        sectors = self._fates.sectors(change)
        chosen = None if sectors is None else list(sectors)
        if chosen is not None and len(chosen) == change.sectors_count:
            chosen = None
        self.notes.append(None if chosen is None else tuple(chosen))
        return chosen

    def size(self, change: Change) -> int:
        self.notes.append(answer := self._fates.size(change))
        return answer

    def keeps_name(self, change: NameChange) -> bool:
        self.notes.append(answer := self._fates.keeps_name(change))
        return answer

    def filler(self) -> bytes:
        self.notes.append(answer := self._fates.filler())
        return answer


def _systematic(disk: Disk, singles: int) -> Iterator[tuple[str, Fates]]:
    """All kept, all lost; each of the newest changes alone kept, and alone lost."""
    yield "all kept", KeepAll()
    pending = disk.pending()
    if pending:
        yield "all lost", LoseAll()
        yield "sizes without bytes", LoseBytes()
    if len(pending) > 1:
        for change in sorted(pending, key=lambda change: -change.number)[:singles]:
            yield f"only {change.number} lost", OneOut(change, is_kept=False)
            yield f"only {change.number} kept", OneOut(change, is_kept=True)


def _random(disk: Disk, moment: Moment, seed: str, count: int) -> Iterator[tuple[str, Fates]]:
    if disk.pending():
        for index in range(count):
            rng = random.Random(f"{seed}/{index}")
            # What a heap is made of reads as zeros until it is written (docs/design.md, 12).
            fates = RandomFates(rng, has_garbage=moment.promise.is_acknowledged)
            yield f"seed {seed}/{index}", fates


# --- judging -------------------------------------------------------------------------------------


def write_image(image: dict[str, bytes | None], directory: Path) -> None:
    """Lay the files out in an empty directory."""
    directory.mkdir()
    for path, content in image.items():
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(content)


def judge(path: Path, promise: Promise, *, and_commit: bool) -> str:
    """Open what is left of the heap; "" if the promise is kept, else what is wrong.
    ``and_commit``: look at all commits that are kept, and make one more."""
    try:
        with dh.open(path, create=not promise.is_acknowledged, keep=KEEP) as heap:
            state = state_of(heap)
            report = heap.verify()
            if not report.ok:
                return f"verify() finds {report}"
            if state not in promise.allowed:
                return f"shows {state}, allowed is {sorted(promise.allowed)}"
            if and_commit:
                if problem := judge_history(heap, promise):
                    return problem
                heap.root["after"] = state
                heap.commit()
                state = state_of(heap)
        if and_commit:
            with dh.open(path, create=False) as heap:
                if state_of(heap) != state:
                    return "a commit after the power failure is not kept"
    except (dh.HeapError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def judge_history(heap: dh.Heap, promise: Promise) -> str:
    """Every commit that is kept shows what was committed; every tagged one is kept."""
    kept = [commit.id for commit in heap.history()]
    if missing := set(tags_of(heap).values()) - set(kept):
        return f"{sorted(missing)} are tagged and not kept"
    for commit in kept:
        with dh.open(heap.path, read_only=True, at=commit) as snapshot:
            found = digest(content_of(snapshot))
        if commit in promise.digests and found not in promise.digests[commit]:
            return f"commit {commit} shows {found}, which it never was"
    return ""


# --- running -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Outcome:
    """What a replay found."""

    images: int = 0
    moments: int = 0
    problems: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        """Sum up two shares of one replay."""
        self.images += other.images
        self.moments += other.moments
        self.problems += other.problems
        self.kinds += other.kinds


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is tried. The systematic images always are; random ones come on top of them."""

    seed: str
    random_per_moment: int
    stride: int = 1  # every so many moments are looked at, beginning with one that the seed says
    singles: int = 1  # how many of the newest changes are kept or lost alone
    passes: int = 1  # of random images; each goes over all moments
    seconds: float = float("inf")  # for the random ones, all passes together
    problems_max: int = 5


def replay(events: list[Event], directory: Path, plan: Plan) -> Outcome:
    """Judge images of all moments, by one process per processor."""
    workers = len(os.sched_getaffinity(0))
    pipes = []
    for index in range(workers):
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_fd)
            _work_and_exit(events, directory / f"worker{index}", plan, index, workers, write_fd)
        os.close(write_fd)
        pipes.append((pid, read_fd, directory / f"worker{index}"))
    total = Outcome()
    for pid, read_fd, place in pipes:
        with os.fdopen(read_fd, "rb") as answers:
            answer = answers.read()
        _, status = os.waitpid(pid, 0)
        if answer:
            total.add(pickle.loads(answer))
        else:
            how = signal.Signals(status).name if os.WIFSIGNALED(status) else f"exit {status}"
            now = (place / "now").read_text() if (place / "now").exists() else "the beginning"
            total.problems.append(f"{now}: the judge ended with {how}")
    return total


def _work_and_exit(
    events: list[Event], place: Path, plan: Plan, index: int, workers: int, write_fd: int
) -> None:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a judge that hangs is ended by it
        os.environ["DIRTYHEAP_UNSAFE_NO_SYNC"] = "1"  # its own commits need not be durable
        place.mkdir()
        first = random.Random(plan.seed).randrange(plan.stride)

        def is_mine(number: int) -> bool:
            turn, worker = divmod(number, workers)
            return worker == index and turn % plan.stride == first

        worker = _Worker(place, plan, is_mine)
        answer = pickle.dumps(worker.run(events))
        while answer:
            answer = answer[os.write(write_fd, answer) :]
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class _Worker:
    """One process's share of the moments."""

    def __init__(self, place: Path, plan: Plan, is_mine: Callable[[int], bool]) -> None:
        self._place, self._plan, self._is_mine = place, plan, is_mine
        self._end = 0.0
        self._outcome = Outcome()

    def run(self, events: list[Event]) -> Outcome:
        """The systematic images of all moments, then passes of random ones."""
        self._pass(events, 0)
        self._end = time.monotonic() + self._plan.seconds
        for number in range(1, self._plan.passes + 1):
            if self._is_over():
                break
            self._pass(events, number)
        return self._outcome

    def _is_over(self) -> bool:
        is_late = time.monotonic() > self._end
        return is_late or len(self._outcome.problems) >= self._plan.problems_max

    def _pass(self, events: list[Event], number: int) -> None:
        disk = Disk()
        for moment in moments(events, disk):
            if not self._is_mine(moment.number):
                continue
            if len(self._outcome.problems) >= self._plan.problems_max:
                return
            if number == 0:
                self._outcome.moments += 1
                self._judge_all(disk, moment, "systematic", _systematic(disk, self._plan.singles))
            elif self._is_over():
                return
            else:
                seed = f"{self._plan.seed}/{number}/{moment.number}"
                count = self._plan.random_per_moment
                self._judge_all(disk, moment, "random", _random(disk, moment, seed, count))

    def _judge_all(
        self, disk: Disk, moment: Moment, kind: str, ways: Iterator[tuple[str, Fates]]
    ) -> None:
        seen: set[tuple[object, ...]] = set()
        for what, fates in ways:
            noting = _Noting(fates)
            image = disk.image(noting)
            notes = tuple(noting.notes)
            if notes in seen:
                continue
            seen.add(notes)
            self._judge(image, moment, f"moment {moment.number}, {what}")
            self._outcome.kinds[kind] += 1

    def _judge(self, image: dict[str, bytes | None], moment: Moment, where: str) -> None:
        event = moment.event
        text = f"{where}, at {event.op.name} of {event.path}"
        (self._place / "now").write_text(text)
        directory = self._place / "image"
        write_image(image, directory)
        signal.alarm(_IMAGE_TIMEOUT_S)
        and_commit = self._outcome.images % _COMMIT_EVERY == 0
        problem = judge(directory / HEAP_NAME, moment.promise, and_commit=and_commit)
        signal.alarm(0)
        self._outcome.images += 1
        if problem:
            self._outcome.problems.append(f"{text}: {problem}")
        shutil.rmtree(directory)


def summary(outcome: Outcome, seed: str) -> str:
    """One line for the log of a test run."""
    counts = json.dumps(dict(sorted(outcome.kinds.items())))
    return (
        f"replay: {outcome.images} images {counts} of {outcome.moments} moments, "
        f"{len(outcome.problems)} problems, DH_SEED={seed}"
    )

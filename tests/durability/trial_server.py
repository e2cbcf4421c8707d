"""Tries a verb again and again, each time with another death or failure, under the preload library.

    python trial_server.py DIRECTORY REQUEST

REQUEST is JSON, see :class:`Request`; the answer is one line of JSON, see :class:`Answer`. Each
trial is a forked child with a fresh copy of one prepared heap; the state it leaves is judged here.

Kills: the process ends before, after or in the middle of its n-th call on the heap's files
("calls"), at its n-th line of the library's Python code ("lines"), or at the n-th pass of a named
fault point of the core ("core"). Faults: the n-th call of some kinds fails ("fail"), and the
process must go on: with nothing lost and the next commit a success, or poisoned, and an allowed
state found by reopening.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import announcing
from announcing import announced
from heap_state import NEW, content_of, state_of, state_text, tags_of
from replaying import Promise, judge
from scenarios import SCENARIOS, Scenario, prepare
from workload import KEEP

import dirtyheap as dh
from dirtyheap._ffi import lib

CALL_KINDS = ["write", "sync", "open", "name", "truncate", "read", "map", "alloc"]  # preload.h
FILE_CALLS = ["write", "sync", "open", "name", "truncate"]
_TRIAL_TIMEOUT_S = 60
_NEVER = 1 << 40
_TEXT_MAX = 1000
_ORPHAN_NAME = "00000000.0000000000000001.00000000"  # what a commit that was killed leaves behind
_PACKAGE = str(Path(dh.__file__).parent)


@dataclass(frozen=True, slots=True)
class Request:
    """What to try. ``every``: for lines, also each further pass of a line, not the first and last
    only; ``limit`` trials at most, chosen by ``seed``."""

    scenario: str
    kind: str  # calls, lines, core, fail
    act: str = "die-after"  # of calls and fail: an act of preload_arm
    calls: list[str] = field(default_factory=lambda: list(FILE_CALLS))
    error: int = errno.EIO
    modules: str = ""
    point: str = ""  # of core: the name
    every: bool = False
    twice: bool = False  # of kills: die in the opening after it as well
    limit: int = 1 << 30
    seed: str = "1"


@dataclass(slots=True)
class Answer:
    """What came of it. ``places``: functions passed (lines)."""

    trials: int = 0
    reached: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """As one line."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})


# --- arming --------------------------------------------------------------------------------------


class Arming:
    """Makes the n-th of something fatal in this process; counts when n is never reached."""

    def arm(self, n: int) -> None:
        """From now on."""

    def disarm(self) -> int:
        """No more; returns how many were counted."""
        raise NotImplementedError


class CallArming(Arming):
    def __init__(self, request: Request) -> None:
        self._preload = ctypes.CDLL(None)
        self._preload.preload_arm.argtypes = [
            ctypes.c_uint, ctypes.c_long, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p,
        ]  # fmt: skip
        self._preload.preload_disarm.restype = ctypes.c_long
        self._kinds = sum(1 << CALL_KINDS.index(kind) for kind in request.calls)
        self._act, self._error = request.act.encode(), request.error
        self._modules = request.modules.encode()

    def arm(self, n: int) -> None:
        rc = self._preload.preload_arm(self._kinds, n, self._act, self._error, self._modules)
        assert rc == 0, "no such act, or no such module is loaded"

    def disarm(self) -> int:
        return int(self._preload.preload_disarm())


class CoreArming(Arming):
    def __init__(self, request: Request) -> None:
        self._point = request.point.encode()

    def arm(self, n: int) -> None:
        assert lib.dh_fault_set(self._point, n, lib.DH_FAULT_KILL) == 0

    def disarm(self) -> int:
        count = int(lib.dh_fault_hits(self._point))
        lib.dh_fault_set(b"", 0, 0)
        return count


class LineArming(Arming):
    """Counts lines of the library in all threads. ``lines``: which place each one was."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, str]] = []
        self._fatal = _NEVER

    def arm(self, n: int) -> None:
        self._fatal = n
        self.lines.clear()
        threading.settrace(self._enter)
        sys.settrace(self._enter)

    def disarm(self) -> int:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        return len(self.lines)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            if len(self.lines) == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            code = frame.f_code
            name = Path(code.co_filename).name
            self.lines.append((name, frame.f_lineno, f"{name}:{code.co_qualname}"))
        return self._line


def arming_for(request: Request) -> Arming:
    """The arming that a request asks for."""
    if request.kind == "lines":
        return LineArming()
    return CoreArming(request) if request.kind == "core" else CallArming(request)


# --- children ------------------------------------------------------------------------------------


def in_child(work: Callable[[Callable[[str], None]], None]) -> tuple[int, list[str]]:
    """Run work in a forked child; (wait status, lines it said)."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(_TRIAL_TIMEOUT_S)
            work(lambda text: _say(write_fd, text))
            status = 0
        except BaseException:
            _say(write_fd, "error " + traceback.format_exc()[-_TEXT_MAX:].replace("\n", " | "))
        finally:
            os._exit(status)
    os.close(write_fd)
    with os.fdopen(read_fd) as lines:
        said = lines.read().splitlines()
    _, status = os.waitpid(pid, 0)
    return status, said


def _say(fd: int, text: str) -> None:
    assert os.write(fd, f"{text}\n".encode()) == len(text.encode()) + 1


class Bench:
    """Where trials of one request are made."""

    def __init__(self, directory: Path, request: Request) -> None:
        self.request = request
        self.scenario: Scenario = SCENARIOS[request.scenario]
        self.template = directory / "template"
        self.path = directory / f"heap-{os.getpid()}"
        self.answer = Answer()
        prepare(self.template)
        with dh.open(self.template, keep=KEEP) as heap:
            self.state = NEW if self.scenario.is_new else state_of(heap)

    def fresh(self) -> Promise:
        """A fresh copy of the prepared heap; what is known of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if not self.scenario.is_new:
            shutil.copytree(self.template, self.path)
            (self.path / "base" / _ORPHAN_NAME).touch()
        return self.promise(self.state)

    def promise(self, *states: str) -> Promise:
        """These may be found; a heap that is not made yet need not be there."""
        return Promise(set(states), not self.scenario.is_new)

    def act(self, path: Path, arming: Arming, n: int) -> tuple[dh.Heap, int]:
        """The verb, armed, as it is meant to be; (open heap, calls counted)."""
        if self.scenario.act is None:
            arming.arm(n)
            heap = dh.open(path, keep=KEEP)
            return heap, arming.disarm()
        heap = dh.open(path, keep=KEEP)
        self.scenario.change(heap)
        act, counted = self.scenario.act, []

        def armed() -> None:
            arming.arm(n)
            act(heap)
            counted.append(arming.disarm())

        announced(heap, armed, commits=self.scenario.commits, **self.scenario.goal(heap))
        return heap, counted[0]

    # --- numbers ---

    def numbers(self) -> list[int]:
        """Which n to try."""
        self.fresh()
        arming = arming_for(self.request)

        def count(say: Callable[[str], None]) -> None:
            heap, counted = self.act(self.path, arming, _NEVER)
            heap.close()
            lines = arming.lines if isinstance(arming, LineArming) else []
            (self.path / "counted").write_text(json.dumps([counted, lines]))

        status, said = in_child(count)
        assert status == 0, said
        counted, lines = json.loads((self.path / "counted").read_text())
        self.answer.places = sorted({place for _, _, place in lines})
        numbers = list(range(counted))
        if lines and not self.request.every:
            numbers = sorted({*_first_passes(lines), *_last_passes(lines)})
        self.answer.reached = len(numbers)
        if len(numbers) > self.request.limit:
            rng = random.Random(self.request.seed)
            numbers = sorted(rng.sample(numbers, self.request.limit))
        return numbers

    # --- kills ---

    def kill(self, n: int) -> str:
        """Die at n, then perhaps in the opening that follows; "" or what is wrong."""
        promise = self.fresh()
        arming = arming_for(self.request)

        def die(say: Callable[[str], None]) -> None:
            announcing.listeners[:] = [say]
            self.act(self.path, arming, n)

        status, said = in_child(die)
        for line in said:
            if line.startswith("error"):
                return line
            promise.hear(line)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return f"not killed: wait status {status}"
        self.answer.outcomes["killed"] += 1
        if self.request.twice:
            self._kill_opening(n)
        return judge(self.path, promise, and_commit=True)

    def _kill_opening(self, n: int) -> None:
        """A second death, at a random call of the opening after the first."""
        arming = CallArming(Request("open", "calls"))
        rng = random.Random(f"{self.request.seed}/{n}")

        def die(say: Callable[[str], None]) -> None:
            arming.arm(rng.randrange(12))
            dh.open(self.path, keep=KEEP)

        status, _ = in_child(die)
        self.answer.outcomes["killed twice" if os.WIFSIGNALED(status) else "killed once"] += 1

    # --- faults ---

    def fail(self, n: int) -> str:
        """The n-th call fails; "" or what is wrong with what comes of it."""
        self.fresh()
        status, said = in_child(lambda say: say(self._meet(n)))
        if status != 0 or not said:
            how = signal.Signals(status).name if os.WIFSIGNALED(status) else f"status {status}"
            return f"{how}: {said}"
        kind, _, text = said[-1].partition(" ")
        if kind != "ok":
            return said[-1]
        self.answer.outcomes[text] += 1
        return ""

    def _meet(self, n: int) -> str:
        arming = arming_for(self.request)
        if self.scenario.act is None:
            return self._meet_opening(arming, n)
        heap = dh.open(self.path, keep=KEEP)
        before = self._change(heap)
        content = content_of(heap)
        goal = {"content": content, "tags": tags_of(heap)} | self.scenario.goal(heap)
        after = state_text(heap.last_commit_id + self.scenario.commits, **goal)
        outcome = "no error"
        arming.arm(n)
        try:
            self.scenario.act(heap)
        except (dh.HeapError, OSError, MemoryError) as error:
            outcome = type(error).__name__
        finally:
            arming.disarm()
        if content_of(heap) not in (content, goal["content"]):
            return f"wrong: after {outcome} the heap in memory shows something else"
        return self._look_after(heap, outcome, {before, after}, after)

    def _change(self, heap: dh.Heap) -> str:
        """What comes before the verb; returns the state that is committed then."""
        marks = [f"done {self.state}"]
        announcing.listeners[:] = [marks.append]
        self.scenario.change(heap)
        return [mark for mark in marks if mark.startswith("done ")][-1].removeprefix("done ")

    def _look_after(self, heap: dh.Heap, outcome: str, allowed: set[str], after: str) -> str:
        """Nothing is lost, or the heap is poisoned and says so."""
        content = content_of(heap)
        try:
            if outcome == "no error":
                allowed = {after}  # also when a fold in the background has poisoned the heap
                if state_of(heap) != after:
                    return f"wrong: no error, but {state_of(heap)} instead of {after}"
            heap.commit()
        except dh.HeapPoisonedError:
            heap.close()
            problem = judge(self.path, self.promise(*allowed), and_commit=True)
            return f"wrong {outcome}, poisoned: {problem}" if problem else "ok poisoned"
        if content_of(heap) != content:
            return f"wrong {outcome}: the commit after it changed what is shown"
        expected = state_of(heap)
        heap.close()
        problem = judge(self.path, Promise.of(expected), and_commit=True)
        return f"wrong {outcome}, then a commit: {problem}" if problem else f"ok {outcome}"

    def _meet_opening(self, arming: Arming, n: int) -> str:
        outcome = "no error"
        arming.arm(n)
        try:
            with dh.open(self.path, keep=KEEP) as heap:
                arming.disarm()
                if state_of(heap) != self.state:
                    return "wrong: no error, but another state"
        except (dh.HeapError, OSError, MemoryError) as error:
            outcome = type(error).__name__
        finally:
            arming.disarm()
        problem = judge(self.path, self.promise(self.state), and_commit=True)
        return f"wrong {outcome}, then opened: {problem}" if problem else f"ok {outcome}"

    def run(self, numbers: Iterator[int]) -> None:
        """Try them all."""
        attempt = self.fail if self.request.kind == "fail" else self.kill
        for n in numbers:
            self.answer.trials += 1
            problem = attempt(n)
            if problem:
                self.answer.problems.append(f"{self.request.scenario}, number {n}: {problem}")
            if len(self.answer.problems) >= 5:
                return


def _first_passes(lines: list[Any]) -> list[int]:
    seen: set[tuple[str, int]] = set()
    found = []
    for number, (name, line, _) in enumerate(lines):
        if (name, line) not in seen:
            seen.add((name, line))
            found.append(number)
    return found


def _last_passes(lines: list[Any]) -> list[int]:
    total = len(lines)
    return [total - 1 - number for number in _first_passes(lines[::-1])]


def main(directory: Path, request: Request) -> Answer:
    """Try everything, by one process per processor."""
    bench = Bench(directory, request)
    numbers = bench.numbers()
    workers = min(len(os.sched_getaffinity(0)), max(1, len(numbers)))
    pids = []
    for index in range(workers):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                bench.path = directory / f"heap-{index}"
                bench.run(itertools.islice(numbers, index, None, workers))
                (directory / f"answer-{index}").write_text(bench.answer.to_json())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        pids.append(pid)
    total = bench.answer
    for index, pid in enumerate(pids):
        _, status = os.waitpid(pid, 0)
        if status != 0:
            total.problems.append(f"a judge ended with wait status {status}")
            continue
        part = json.loads((directory / f"answer-{index}").read_text())
        total.trials += part["trials"]
        total.outcomes += Counter(part["outcomes"])
        total.problems += part["problems"]
    return total


if __name__ == "__main__":
    answer = main(Path(sys.argv[1]), Request(**json.loads(sys.argv[2])))
    print(answer.to_json())

"""What several test files share: plain copies, fault points, children, trackers, seeds."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import dirtyheap as dh
from dirtyheap._ffi import lib

TRACKERS = ("auto", "compare")


# --- C beside the tests --------------------------------------------------------------------------


def compile_library(output: Path, *sources: Path, flags: tuple[str, ...] = ()) -> Path:
    """Build a shared library from C sources; returns ``output``."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is needed, as for building the library"
    usual = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    names = [str(source) for source in sources]
    subprocess.run([compiler, *usual, *flags, "-o", str(output), *names], check=True)
    return output


# --- kernel features -----------------------------------------------------------------------------


def skip_test(reason: str) -> NoReturn:
    """Skip, loudly."""
    pytest.skip(f"NOT TESTED: {reason}", allow_module_level=True)


def skip_kernel_test(reason: str) -> NoReturn:
    """Skip, loudly; under DH_REQUIRE_KERNEL=1 a skipped kernel test is a failure."""
    if os.environ.get("DH_REQUIRE_KERNEL") == "1":
        pytest.fail(f"DH_REQUIRE_KERNEL=1, but {reason}")
    skip_test(reason)


def require_tracker(name: str) -> None:
    """Let the test go on only if that tracker is what a heap opened with it would really use."""
    if name == "auto" and os.environ.get("DIRTYHEAP_TRACKER") == "compare":
        pytest.skip("DIRTYHEAP_TRACKER=compare: no heap here uses the kernel's tracking")
    if name != "compare" and (reason := _why_no_tracking()):
        skip_kernel_test(f"the kernel's write tracking does not work here: {reason}")


@functools.cache
def _why_no_tracking() -> str:
    """Empty where the kernel tracks writes. What a process may do is settled before its tests."""
    found = dh.probe()
    return "" if any(result.works for result in found) else found[0].reason


def require_root(what: str) -> None:
    """For tests that need mounts or other users."""
    if os.geteuid() != 0:
        skip_kernel_test(f"{what} needs root")


# --- names of tests ------------------------------------------------------------------------------


def steady_repr(value: object) -> str:
    """What repr says, the same in every process: two that share a suite must agree on its tests."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(steady_repr, value)))})"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


# --- randomness ----------------------------------------------------------------------------------


def seeded(label: str = "") -> random.Random:
    """A generator whose seed is printed; DH_SEED=... repeats a run."""
    seed = int(os.environ.get("DH_SEED", secrets.randbelow(1 << 32)))
    print(f"{label} DH_SEED={seed}")
    return random.Random(seed)


# --- the heap's contents -------------------------------------------------------------------------


def plain(heap: dh.Heap) -> dict[Any, Any]:
    """A deep copy of all that the root reaches, in built-in types (buffers as bytearray)."""
    copy = dh.to_python(heap.root)
    assert type(copy) is dict
    return copy


def contents(path: Path, **options: Any) -> dict[Any, Any]:
    """Open, check, copy out, close."""
    with dh.open(path, create=False, **options) as heap:
        report = heap.verify()
        assert report.ok, report.first_problem
        return plain(heap)


def fill(heap: dh.Heap, scale: int = 1) -> None:
    """Some of every kind of value, over a few dozen pages."""
    root = heap.root
    root["numbers"] = {i: i * i for i in range(200 * scale)}
    root["texts"] = [f"text {i} " + "ü" * (i % 50) for i in range(100 * scale)]
    root["nested"] = {"a": [1, [2, [3, {"deep": (None, True, 2.5, 1 << 100)}]]]}
    root["bytes"] = bytes(range(256)) * 20
    root["buffer"] = heap.buffer(bytes(range(256)) * 64 * scale)


def change(heap: dh.Heap, rng: random.Random) -> None:
    """A change in each of the containers made by :func:`fill`."""
    root = heap.root
    numbers, texts = root["numbers"], root["texts"]
    for _ in range(10):
        numbers[rng.randrange(300)] = rng.random()
        texts[rng.randrange(len(texts))] = "x" * rng.randrange(200)
    texts.append({"when": rng.random(), "list": [1, 2, 3]})
    numbers.pop(rng.choice(list(numbers)))
    root["nested"]["a"][1].append(rng.getrandbits(90))
    buffer = root["buffer"]
    for _ in range(5):
        buffer[rng.randrange(len(buffer))] = rng.randrange(256)


# --- fault points --------------------------------------------------------------------------------


def know_shapes(heap: dh.Heap, *key_sequences: list[str]) -> None:
    """Let the heap make the key tables that dicts with these keys share, which stay for good: what
    is measured afterwards is what operations leave behind."""
    for keys in key_sequences:
        for _ in range(2):
            heap.dict(dict.fromkeys(keys, 0))
    heap.collect()


@contextlib.contextmanager
def fault(name: str, after: int = 0, rc: int = 5) -> Iterator[None]:
    """Let a named place of the core fail with rc after so many hits; rc 0 counts only."""
    assert lib.dh_fault_set(name.encode(), after, rc) == 0
    try:
        yield
    finally:
        lib.dh_fault_set(b"", 0, 0)


def hits(name: str) -> int:
    """How often a fault point was passed since it was set."""
    return int(lib.dh_fault_hits(name.encode()))


class Stop(Exception):
    """Leaves a transaction."""


# --- children ------------------------------------------------------------------------------------


class ChildError(AssertionError):
    """A forked child died by a signal, hung, or ended without an answer."""


def in_child(work: Callable[[], Any], timeout_s: int = 60) -> Any:
    """Run work in a forked child and return its value; an exception becomes its repr in a tuple
    ("raised", class name, text). A child that dies or hangs raises ChildError."""
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _work_and_exit(work, write_fd, timeout_s)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        raise ChildError(f"killed by {signal.Signals(number).name}")
    if not answer:
        raise ChildError(f"exit status {os.waitstatus_to_exitcode(status)} without an answer")
    return pickle.loads(answer)


def _work_and_exit(work: Callable[[], Any], write_fd: int, timeout_s: int) -> None:
    # faulthandler and pytest's own handlers belong to the parent
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(timeout_s)
    try:
        answer: Any = work()
    except BaseException as error:
        answer = ("raised", type(error).__name__, str(error))
    data = pickle.dumps(answer)
    while data:
        data = data[os.write(write_fd, data) :]
    os._exit(0)


def run_python(
    script: str, *arguments: object, timeout_s: float = 60, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a script in a new interpreter; the tests' directory is importable there."""
    environment = dict(os.environ, **options.pop("env", {}))
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment,
        **options,
    )


def run_ok(script: str, *arguments: object, **options: Any) -> str:
    """The same; it must end well. Returns what it printed."""
    done = run_python(script, *arguments, **options)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Ways to collect, by how often a test takes each.
COLLECTIONS = ("full", "young", "young", "concurrent", "step", "step")


def collect(heap: dh.Heap, how: str) -> None:
    """Collect in one of these ways; a "step" leaves a cycle under way, for whatever comes next."""
    if how == "concurrent":
        heap.collect(concurrent=True)
    elif how == "step":
        heap.collect(budget_ms=0.01)
    elif how == "young":
        heap.collect("young")
    else:
        heap.collect()

"""A writer is killed with SIGKILL at random moments; each reopening shows a whole, right commit.

The writer (writer.py) steps through states that are a function of their number. What it reports
over a pipe tells which commit was acknowledged last and whether one was under way; the state found
on reopening must be the acknowledged one, or the one under way, and equal to plain dicts that went
through the same steps.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from writer import advance

import dirtyheap as dh

WRITER = Path(__file__).with_name("writer.py")
HEAPS = 2  # killed in parallel, one per processor of a small machine


@dataclass
class Life:
    """What one life of the writer reported before it was killed."""

    commits_begun: int
    commits_acknowledged: int

    @property
    def was_committing(self) -> bool:
        return self.commits_begun > self.commits_acknowledged


class Model:
    """The same sequence of states in plain dicts."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}
        self.step = 0

    def advance_to(self, step: int) -> None:
        while self.step < step:
            self.step += 1
            advance(self.root, self.step, bytearray)


def live_and_kill(path: Path, rng: random.Random, *, while_opening: bool = False) -> Life:
    """Start the writer, kill it at a random moment, return what it reported."""
    read_fd, write_fd = os.pipe()
    command = [sys.executable, str(WRITER), str(path), str(write_fd)]
    with os.fdopen(read_fd, "rb") as reports:
        with subprocess.Popen(command, pass_fds=[write_fd]) as child:
            os.close(write_fd)
            seen = reports.read(1)
            if while_opening:
                time.sleep(rng.uniform(0.0, 0.015))
            else:
                # Some commits later; in every second life just after a commit has begun.
                for _ in range(rng.randrange(1, 40)):
                    seen += reports.read(1)
                if rng.random() < 0.5 and seen.endswith(b"A"):
                    seen += reports.read(1)
                time.sleep(rng.choice([0.0, 0.0005, 0.002, 0.01]) * rng.random())
            assert child.poll() is None, "the writer ended by itself"
            child.kill()
            assert child.wait() == -signal.SIGKILL
        seen += reports.read()
    return Life(seen.count(b"B"), seen.count(b"A"))


def kill_again_and_again(path: Path, kills: int, seed: int) -> int:
    """Returns how many kills fell into a commit."""
    rng = random.Random(seed)
    model = Model()
    kills_in_commit = 0
    for number in range(kills):
        life = live_and_kill(path, rng, while_opening=rng.random() < 1 / 8)
        kills_in_commit += life.was_committing
        acknowledged = model.step + life.commits_acknowledged
        allowed = {acknowledged, acknowledged + 1} if life.was_committing else {acknowledged}
        where = f"kill {number} of seed {seed}"
        with dh.open(path) as heap:
            step = heap.root.get("step", 0)
            assert step in allowed, f"{where}: state {step} found, {allowed} possible"
            model.advance_to(step)
            found = {key: dh.to_python(value) for key, value in heap.root.items()}
            for name, value in model.root.items():
                is_equal = bytes(found[name]) == value if name == "buffer" else found[name] == value
                assert is_equal, f"{where}: {name!r} differs in state {step}"
            assert set(found) == set(model.root), where
    return kills_in_commit


def kill_in_parallel(directory: Path, kills: int) -> None:
    seed = int(os.environ.get("DH_SEED", secrets.randbelow(1 << 32)))
    print(f"DH_SEED={seed}")
    with ThreadPoolExecutor(HEAPS) as pool:
        runs = [
            pool.submit(kill_again_and_again, directory / f"heap{i}", kills // HEAPS, seed + i)
            for i in range(HEAPS)
        ]
        in_commit = sum(run.result() for run in runs)
    # Else this would show nothing about commits.
    assert in_commit >= kills // 5, f"only {in_commit} of {kills} kills fell into a commit"


@pytest.mark.timeout(120)
def test_a_kill_while_a_heap_is_made_leaves_a_heap_or_nothing(tmp_path: Path) -> None:
    """The first moments are a case of their own: a directory without a whole index in it."""
    rng = random.Random(1)
    for number in range(40):
        path = tmp_path / f"heap{number}"
        life = live_and_kill(path, rng, while_opening=True)
        with dh.open(path) as heap:
            steps = {life.commits_acknowledged, life.commits_begun}
            assert heap.root.get("step", 0) in steps


@pytest.mark.timeout(300)
def test_200_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    kill_in_parallel(tmp_path, 200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_2000_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    kill_in_parallel(tmp_path, 2000)

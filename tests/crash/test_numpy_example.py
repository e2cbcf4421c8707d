"""examples/numpy_state.py survives SIGKILL at random moments, and ends as if nothing had happened.

Once as a user runs it, and once under a killer that does not wait for its reports: what is found at
each reopening must be, bit by bit, the model after as many steps as the heap says.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import seeded, skip_test

import dirtyheap as dh

try:
    import numpy as np
except ImportError:
    skip_test("numpy is not installed")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "numpy_state.py"
FILES = 24
KILLS = 6

pytestmark = pytest.mark.timeout(120)


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("numpy_state", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Undisturbed:
    """The same training in plain arrays, as far as it was asked for."""

    def __init__(self, example: Any) -> None:
        self.example = example
        self.files = example.sources(FILES)
        self.rows = example.vocabulary(self.files)
        self.model = {
            name: np.zeros((len(self.rows), *shape), np.float32)
            for name, shape in example.SHAPES.items()
        }
        example.start(self.model)
        self.step = 0

    def train_to(self, step: int) -> None:
        while self.step < step:
            words = self.example.words_of(self.files[self.step])
            self.example.train(self.model, self.rows, words, self.step)
            self.step += 1


def live(path: Path, rng: random.Random | None) -> tuple[int, int]:
    """Let the job acknowledge a step or some and kill it at a random moment after that; None: let
    it come to its end. (exit code, last step it acknowledged)."""
    command = [sys.executable, str(SCRIPT), "--job", "--heap", str(path), "--files", str(FILES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        lines = []
        if rng is not None:
            lines += [job.stdout.readline() for _ in range(rng.randrange(2, 6))]
            time.sleep(rng.uniform(0, 0.05))
            job.kill()
        lines += [line for line in job.stdout if line.endswith("\n")]
        code = job.wait()
    reports = [json.loads(line) for line in lines if line.endswith("\n")]
    return code, max((r.get("step", r.get("resumed", 0)) for r in reports), default=0)


def check(path: Path, undisturbed: Undisturbed, acknowledged: int) -> int:
    with dh.open(path) as heap:
        step = heap.root["step"]
        assert acknowledged <= step <= acknowledged + 1
        undisturbed.train_to(step)
        for name, expected in undisturbed.model.items():
            found = heap.root["model"][name]
            assert found.tobytes() == expected.tobytes(), f"{name!r} differs after step {step}"
            del found
        assert heap.verify().ok
    return int(step)


def test_killed_at_random_moments_it_is_always_at_a_commit(tmp_path: Path) -> None:
    rng = seeded()
    undisturbed = Undisturbed(load())
    path = tmp_path / "heap"
    steps = set()
    for _ in range(KILLS):
        code, acknowledged = live(path, rng)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        steps.add(check(path, undisturbed, acknowledged))
    code, acknowledged = live(path, None)
    assert (code, acknowledged) == (0, FILES)
    check(path, undisturbed, FILES)
    assert len(steps) > 1


def test_as_a_user_runs_it(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--files", str(FILES), "--kills", "2"]
    done = subprocess.run(
        [*command, "--heap", str(tmp_path / "heap")],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed after step") == 2
    assert "yes, every bit" in done.stdout and done.stderr == ""

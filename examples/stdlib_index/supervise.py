"""Runs the job in a child process, kills it with SIGKILL at random moments and starts it again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO


@dataclass
class Run:
    """What the supervisor saw from outside, over all lives of the job."""

    kills: int = 0
    wchar_bytes: int = 0
    seconds: float = 0.0
    commits: list[dict[str, Any]] = field(default_factory=list)


class JobError(Exception):
    """The job did something it must not do; the message says what."""


def supervise(heap_path: Path, files_count: int, kills: int, rng: random.Random) -> Run:
    """Run the job to its end through `kills` kills; raises JobError when a commit was lost."""
    run = Run()
    bar = ProgressBar(files_count)
    start = time.monotonic()
    # Points between commits 5 and 75 per cent of the way; the delay below makes each a moment that
    # may as well fall into a commit.
    kill_points = sorted(rng.sample(range(files_count // 20, files_count * 3 // 4), kills))
    while not _one_life(run, heap_path, kill_points, rng, bar):
        pass
    bar.close()
    run.seconds = time.monotonic() - start
    return run


def _one_life(
    run: Run, heap_path: Path, kill_points: list[int], rng: random.Random, bar: ProgressBar
) -> bool:
    """Start the job and read its reports until it ends; True when it ended by itself."""
    acknowledged = run.commits[-1]["files"] if run.commits else 0
    command = [
        sys.executable,
        str(Path(__file__).parent),
        "--role",
        "job",
        "--heap",
        str(heap_path),
    ]
    wchar_bytes = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if not line.endswith("\n"):
                break  # the kill cut a report in two: that commit was never acknowledged
            report = json.loads(line)
            if "resumed_files" in report:
                _check_resumed(report["resumed_files"], acknowledged, bar)
                continue
            run.commits.append(report)
            wchar_bytes = report["wchar_bytes"]
            bar.show(report["files"], report["terms"], report["commit_id"], run.kills)
            if kill_points and report["files"] >= kill_points[0] and child.poll() is None:
                # The child works on meanwhile: a random moment of its next commits.
                time.sleep(rng.uniform(0.0, 0.15))
                child.kill()
        code = child.wait()
    run.wchar_bytes += wchar_bytes
    if code == -signal.SIGKILL:
        run.kills += 1
        kill_points.pop(0)
        bar.note(f"killed after {run.commits[-1]['files']} acknowledged files")
        return False
    if code != 0:
        raise JobError(f"the job ended with exit code {code}")
    return True


def _check_resumed(resumed: int, acknowledged: int, bar: ProgressBar) -> None:
    if resumed < acknowledged:
        raise JobError(f"{acknowledged} files were committed, but only {resumed} came back")
    if acknowledged:
        bar.note(f"reopened with {resumed} files")


class ProgressBar:
    """One line that is redrawn on a terminal, a line for every tenth of the way elsewhere."""

    WIDTH = 30

    def __init__(self, total: int, stream: TextIO = sys.stderr) -> None:
        self._total = total
        self._stream = stream
        self._redraws = stream.isatty()
        self._last_tenth = -1

    def show(self, done: int, terms: int, commit_id: int, kills: int) -> None:
        filled = self.WIDTH * done // self._total
        line = (
            f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] {done}/{self._total} files, "
            f"{terms} terms, commit {commit_id}, kills {kills}"
        )
        tenth = 10 * done // self._total
        if self._redraws:
            self._stream.write(f"\r\x1b[K{line}")
        elif tenth != self._last_tenth:
            self._stream.write(f"{line}\n")
        self._last_tenth = tenth
        self._stream.flush()

    def note(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}\n" if self._redraws else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        if self._redraws:
            self._stream.write("\n")
            self._stream.flush()

"""Train word vectors on Python's own sources, in a process that is killed again and again.

    python examples/numpy_state.py [--heap DIR] [--files 150] [--kills 3] [--seed N]

The model is skip-gram with negative sampling (Mikolov et al. 2013), its optimiser AdaGrad. All of
its state is numpy arrays in a heap: numpy updates them in place, nobody says which rows, and each
commit stores the rows that a source file has changed. The job is killed with SIGKILL at random
moments and goes on at its last commit. At the end every array equals, bit by bit, that of a run in
plain memory that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import secrets
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import dirtyheap as dh

WORDS_MAX = 20_000
FREQUENT_WORDS = 1000
DIMENSIONS = 48
NEGATIVES = 5  # weight of the random words against one true neighbour
NOISE_WORDS = 32  # drawn for each batch
PAIRS_PER_BATCH = 1024
RATE = np.float32(0.1)
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")

Model = dict[str, np.ndarray[Any, Any]]


# --- the model: knows numpy, and nothing of heaps -------------------------------------------------


def sources(count: int) -> list[Path]:
    """The first `count` modules of the running Python's standard library, by name."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:count]


def words_of(path: Path) -> list[str]:
    return WORD.findall(path.read_text(encoding="utf-8", errors="replace"))


def vocabulary(files: list[Path]) -> dict[str, int]:
    """Word -> row, the frequent ones first."""
    counts = Counter(word for path in files for word in words_of(path))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: row for row, word in enumerate(ranked[:WORDS_MAX])}


def start(model: Model) -> None:
    """Small random vectors; the other arrays begin as zeros."""
    vectors = model["vectors"]
    vectors[:] = np.random.default_rng(0).normal(0, 0.1, vectors.shape)


def train(model: Model, rows: dict[str, int], words: list[str], step: int) -> float:
    """Learn from one file; returns the mean loss. All randomness follows from the step's number."""
    rng = np.random.default_rng(step + 1)
    text = np.array([rows[word] for word in words if word in rows])
    centres = np.concatenate([text[:-1], text[1:], text[:-2], text[2:]])
    others = np.concatenate([text[1:], text[:-1], text[2:], text[:-2]])
    order = rng.permutation(len(centres))
    losses = []
    for at in range(0, len(order), PAIRS_PER_BATCH):
        batch = order[at : at + PAIRS_PER_BATCH]
        wrong = rng.integers(0, len(rows), NOISE_WORDS)
        losses.append(train_batch(model, centres[batch], others[batch], wrong))
    return float(np.mean(losses)) if losses else 0.0


def train_batch(model: Model, centres: Any, others: Any, wrong: Any) -> float:
    """One step of gradient descent: a word's neighbour is likely, a few random words are not."""
    centre, other, noise = (
        model[name][rows]
        for name, rows in (("vectors", centres), ("contexts", others), ("contexts", wrong))
    )
    likely = 1 / (1 + np.exp(-np.einsum("pd,pd->p", centre, other)))
    unlikely = 1 / (1 + np.exp(-np.einsum("pd,nd->pn", centre, noise)))
    missing, excess = (likely - 1)[:, None], unlikely * np.float32(NEGATIVES / len(wrong))
    descend(model, "vectors", centres, missing * other + np.einsum("pn,nd->pd", excess, noise))
    descend(model, "contexts", others, missing * centre)
    descend(model, "contexts", wrong, np.einsum("pn,pd->nd", excess, centre))
    return float(-np.log(likely + 1e-7).mean() - NEGATIVES * np.log(1 - unlikely + 1e-7).mean())


def descend(model: Model, name: str, rows: Any, gradients: Any) -> None:
    """AdaGrad, row by row: only the rows that were met are read or written."""
    squares = model[name + " squares"]
    np.add.at(squares, rows, np.square(gradients).mean(axis=1))
    steps = gradients * (RATE / np.sqrt(squares[rows] + np.float32(1e-8)))[:, None]
    np.subtract.at(model[name], rows, steps)


def neighbours(model: Model, rows: dict[str, int], word: str, count: int = 4) -> list[str]:
    """Of the frequent words those whose vectors point the same way."""
    vectors = model["vectors"][:FREQUENT_WORDS]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(vectors @ vectors[rows[word]]))[1 : count + 1]
    names = list(rows)
    return [names[row] for row in nearest]


# --- the job: this is the part to copy ------------------------------------------------------------

SHAPES = {
    "vectors": (DIMENSIONS,),
    "contexts": (DIMENSIONS,),
    "vectors squares": (),
    "contexts squares": (),
}


def run_job(heap_path: Path, files: list[Path]) -> None:
    """Train on what is left, one commit per file; prints one JSON line for each."""
    with dh.open(heap_path) as heap:
        root = heap.root
        if "step" not in root:
            root["rows"] = vocabulary(files)
            root["model"] = {}
            for name, shape in SHAPES.items():
                root["model"][name] = heap.array((len(root["rows"]), *shape), np.float32)
            start(root["model"])
            root["step"] = 0
            heap.commit("untrained")
        rows = dh.to_python(root["rows"])
        model = dict(root["model"])  # the arrays themselves, not copies
        print(json.dumps({"resumed": root["step"]}), flush=True)
        for step in range(root["step"], len(files)):
            loss = train(model, rows, words_of(files[step]), step)
            root["step"] = step + 1
            commit = heap.commit(f"{files[step].name}: loss {loss:.3f}")
            report = {"step": step + 1, "changed": commit.bytes_changed, "pages": commit.pages}
            print(json.dumps(report | {"written": commit.bytes_written}), flush=True)
        del model  # a view keeps the memory mapped after close


# --- the demonstration ----------------------------------------------------------------------------


def run_with_kills(heap_path: Path, files_count: int, kills: int, rng: random.Random) -> list[Any]:
    """Start the job, kill it, start it again, until it ends by itself; what it reported."""
    command = [sys.executable, __file__, "--job", "--heap", str(heap_path)]
    command += ["--files", str(files_count)]
    points = sorted(rng.sample(range(1, files_count * 3 // 4), kills))
    reports: list[Any] = []
    while True:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
            assert job.stdout is not None
            for line in job.stdout:
                if not line.endswith("\n"):
                    break  # cut in two by the kill: that commit was never acknowledged
                report = json.loads(line)
                if "resumed" in report:
                    acknowledged = reports[-1]["step"] if reports else 0
                    if report["resumed"] < acknowledged:
                        raise SystemExit(f"FAILED: step {acknowledged} was committed and is lost")
                    continue
                reports.append(report)
                if points and report["step"] >= points[0] and job.poll() is None:
                    time.sleep(rng.uniform(0, 0.05))  # somewhere in the work or commit that follows
                    job.kill()
            code = job.wait()
        if code == 0:
            return reports
        if code != -9:
            raise SystemExit(f"FAILED: the job ended with exit code {code}")
        print(f"killed after step {reports[-1]['step']}", flush=True)
        points.pop(0)


def run_undisturbed(files: list[Path]) -> Model:
    """The same training in plain arrays."""
    rows = vocabulary(files)
    model: Model = {
        name: np.zeros((len(rows), *shape), np.float32) for name, shape in SHAPES.items()
    }
    start(model)
    for step, path in enumerate(files):
        train(model, rows, words_of(path), step)
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="numpy_state")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--heap", type=Path, help="directory of the heap; kept, and resumed")
    parser.add_argument("--files", type=int, default=150, help="how many modules to learn from")
    parser.add_argument("--kills", type=int, default=3, help="how often to kill the job")
    parser.add_argument("--seed", type=int, help="repeat the kill points of an earlier run")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(options.heap, sources(options.files))
        return 0
    if options.heap:
        return demonstrate(options.heap, options)
    with tempfile.TemporaryDirectory(prefix="numpy-state-") as directory:
        return demonstrate(Path(directory) / "heap", options)


def demonstrate(heap_path: Path, options: argparse.Namespace) -> int:
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    files = sources(options.files)
    print(f"learning from {len(files)} modules; seed {seed}", flush=True)
    began = time.monotonic()
    reports = run_with_kills(heap_path, len(files), options.kills, random.Random(seed))
    seconds = time.monotonic() - began
    expected = run_undisturbed(files)
    with dh.open(heap_path) as heap:
        model = dict(heap.root["model"])
        rows = dh.to_python(heap.root["rows"])
        differing = [n for n in SHAPES if model[n].tobytes() != expected[n].tobytes()]
        state_bytes = sum(array.nbytes for array in model.values())
        near = {word: neighbours(model, rows, word) for word in ("self", "True", "read")}
        del model
    if differing:
        print(f"FAILED: {differing} differ from the undisturbed run (seed {seed})", file=sys.stderr)
        return 1
    commits = max(len(reports), 1)
    changed, written, pages = (
        sum(report[name] for report in reports) / commits
        for name in ("changed", "written", "pages")
    )
    table = {
        "words, numbers in the arrays": f"{len(rows):,}, {state_bytes // 4:,}",
        "steps, kills survived": f"{len(files)}, {options.kills}",
        "equal to an undisturbed run": "yes, every bit",
        "time with kills and commits": f"{seconds:.1f} s",
        "the arrays": f"{state_bytes / 1e6:.2f} MB",
        "a commit: changed, written": f"{changed / 1e6:.2f} MB, {written / 1e6:.2f} MB",
        "a commit: pages": f"{pages:,.0f} of {state_bytes // 4096:,}",
    } | {f"beside {word!r}": ", ".join(found) for word, found in near.items()}
    width = max(map(len, table))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in table.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

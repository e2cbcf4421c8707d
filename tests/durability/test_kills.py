"""Killed at any step of any verb, a heap is reopened at the state before or the state after.

Killed is at every line of the library's Python code that a verb passes, before, after and in the
middle of every call on the heap's files, and at every named fault point of the core; after some of
them once more in the opening that follows.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers import require_tracker
from scenarios import SCENARIOS
from trials import run_trials

import dirtyheap

CORE = Path(__file__).resolve().parents[2] / "native" / "src"
PACKAGE = Path(dirtyheap.__file__).parent
KILLS_PER_SCENARIO = 60  # of lines, in a normal run

pytestmark = pytest.mark.timeout(600)

# Fault points of the core that a verb passes without any change of the heap's files on its way.
# name -> scenarios that pass it
CORE_POINTS = {
    "alloc.cell": [],  # stores, not verbs
    "arena.reserve": ["commit", "open"],
    "collect.drop": [],  # negative controls: a collection writes nothing
    "collect.rescan": [],
    "commit.encode": ["commit", "large-commit"],
    "extent.map": ["open", "restore"],
    "extent.view": ["open", "fold", "due-fold", "large-commit"],
    "extent.write": ["large-commit", "fold", "due-fold"],
    "pagemap.query": [],  # dh.pagemap.scan: no heap
    "watch.arm": ["fold", "restore"],
    "watch.merge": ["commit"],
    "watch.remapped": ["memory-fold"],
    "watch.runs": [],  # dh.WriteWatch: no heap
    "watch.scan": ["commit"],
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_a_line(library: Path, tmp_path: Path, scenario: str) -> None:
    answer = run_trials(
        library, tmp_path, scenario=scenario, kind="lines", limit=KILLS_PER_SCENARIO, twice=True
    )
    assert answer["outcomes"]["killed"] == answer["trials"] > 20


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_pass_of_every_line(library: Path, tmp_path: Path, scenario: str) -> None:
    answer = run_trials(library, tmp_path, scenario=scenario, kind="lines", every=True, twice=True)
    assert answer["trials"] == answer["reached"]


@pytest.mark.parametrize("act", ["die-before", "die-after", "die-torn"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_call(library: Path, tmp_path: Path, scenario: str, act: str) -> None:
    answer = run_trials(
        library, tmp_path, scenario=scenario, kind="calls", act=act, twice=act == "die-after"
    )
    assert answer["outcomes"]["killed"] == answer["trials"] == answer["reached"] > 3


def core_points() -> set[str]:
    """Every fault point there is, from the core's sources."""
    text = "".join(path.read_text() for path in CORE.glob("*.c"))
    return set(re.findall(r'dhi_fault\("([a-z.]+)"\)', text))


def test_every_fault_point_of_the_core_is_listed() -> None:
    assert core_points() == set(CORE_POINTS)


@pytest.mark.parametrize(
    ("point", "scenario"),
    [(point, scenario) for point, scenarios in CORE_POINTS.items() for scenario in scenarios],
)
def test_killed_at_a_fault_point_of_the_core(
    library: Path, tmp_path: Path, point: str, scenario: str
) -> None:
    answer = run_trials(library, tmp_path, scenario=scenario, kind="core", point=point, limit=20)
    assert answer["outcomes"]["killed"] == answer["trials"] > 0


# --- nothing is left out ------------------------------------------------------------------------

# Modules whose functions are the steps of verbs.
STEPS = (
    "committer.py", "precopy.py", "folder.py", "folding.py", "rebasing.py", "base_files.py",
    "syncing.py",
)  # fmt: skip
# Functions of theirs that no scenario passes, and why not.
NOT_PASSED = {
    "Committer._recover": "after failures only: test_every_fault.py",
    "Committer._settle_again": "after failures only: test_every_fault.py",
    "_Flight.put_back": "after failures only: test_every_fault.py",
    "Fold._recover": "after failures only: test_every_fault.py",
    "Folder._note_failure": "after failures only: test_every_fault.py",
    "Folder._drop": "after failures only: test_every_fault.py",
    "_not_written": "after failures only: test_every_fault.py",
    "_not_mapped": "after failures only: test_every_fault.py",
    "_warn": "after failures only: test_every_fault.py",
    "Fold.abandon": "after failures, and in close(): tests/store/test_background_fold.py",
    "drop_unnamed": "after failures only: test_every_fault.py",
    "Folder.close": "runs after the verbs; no file is changed",
    "Folder.private_bytes": "with memory_limit and for stats() only; reads counters",
    "Owner._take_fold_step": "the heap's: says what it must have",
    "BaseFiles.patch": "needs a writer beside the commit: tests/watch/test_storer.py",
    "Precopy._patch": "needs a writer beside the commit: tests/watch/test_storer.py",
}


def functions(module: str) -> set[str]:
    """Qualified names of all functions in one module of the package."""
    found: set[str] = set()

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                found.add(prefix + child.name)
            elif isinstance(child, ast.ClassDef):
                walk(child, f"{prefix}{child.name}.")

    walk(ast.parse((PACKAGE / module).read_text()), "")
    return found


def test_every_step_is_passed_by_a_verb_that_is_killed(library: Path, tmp_path: Path) -> None:
    """A step that no scenario comes to would never be killed at."""
    require_tracker("auto")  # who compares stages nothing ahead of the record
    passed: set[str] = set()
    for scenario in SCENARIOS:
        answer = run_trials(library, tmp_path, scenario=scenario, kind="lines", limit=0)
        passed |= set(answer["places"])
    steps = {f"{module}:{name}" for module in STEPS for name in functions(module)}
    steps = {step for step in steps if step.partition(":")[2] not in NOT_PASSED}
    assert not steps - passed, f"a scenario is missing that passes {sorted(steps - passed)}"

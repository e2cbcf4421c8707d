"""Whatever call fails, at its n-th pass for every n: nothing is lost, or the heap is poisoned.

Writes, syncs, opens, names, truncations, reads, mappings and allocations below a verb are made to
fail, or cut short; once, or from then on. After it the next commit succeeds and a reopening equals
memory, or the heap is poisoned, says so, and a reopening shows the state before or after.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from scenarios import SCENARIOS
from trials import run_trials

pytestmark = pytest.mark.timeout(600)

NATIVE = "_native.,lmdb"  # whose mappings and allocations fail: the core's and the engine's

# Whatever happens to the disk below a commit is told as one of three things.
COMMITS = ("commit", "large-commit", "staged-commit", "due-fold", "commit-beside-fold")

FILE_FAULTS = [
    (["write"], "fail", errno.ENOSPC),
    (["write"], "fail", errno.EIO),
    (["write"], "fail", errno.EINTR),
    (["write"], "fail-on", errno.ENOSPC),
    (["write"], "short", 0),
    (["sync"], "fail", errno.EIO),
    (["sync"], "fail-on", errno.EIO),
    (["open", "name", "truncate"], "fail", errno.ENOSPC),
    (["open", "name", "truncate"], "fail", errno.EMFILE),
    (["open", "name", "truncate"], "fail-on", errno.EMFILE),
    (["read"], "fail", errno.EIO),
    (["read"], "short", 0),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_call_on_a_file_fails(library: Path, tmp_path: Path, scenario: str) -> None:
    trials = 0
    for calls, act, error in FILE_FAULTS:
        answer = run_trials(
            library, tmp_path, scenario=scenario, kind="fail", calls=calls, act=act, error=error
        )
        assert answer["trials"] == answer["reached"]
        if scenario in COMMITS:
            assert set(answer["outcomes"]) <= {"no error", "CommitError", "poisoned"}
        trials += answer["trials"]
    assert trials > 20


@pytest.mark.parametrize("act", ["fail", "fail-on"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_allocation_of_core_and_engine_fails(
    library: Path, tmp_path: Path, scenario: str, act: str
) -> None:
    answer = run_trials(
        library, tmp_path, scenario=scenario, kind="fail", calls=["alloc", "map"], act=act,
        error=errno.ENOMEM, modules=NATIVE,
    )  # fmt: skip
    assert answer["trials"] == answer["reached"] > 5
    assert answer["outcomes"]["MemoryError"] > 0


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_allocation_at_all_fails(library: Path, tmp_path: Path, scenario: str) -> None:
    """Also the interpreter's own, as far as they come from malloc."""
    answer = run_trials(
        library, tmp_path, scenario=scenario, kind="fail", calls=["alloc", "map"],
        error=errno.ENOMEM,
    )  # fmt: skip
    assert answer["trials"] == answer["reached"]

"""The tests of the heap once more, under what containers and administrators do to a process.

In `make test` a part that comes to everything a heap asks of the kernel; in `make soak` all.
Each run is a process of its own that was restricted before it began, and shows first that it is.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from helpers import require_root, require_tracker, skip_kernel_test
from restrictions import (
    NOBODY,
    become_nobody,
    become_reader,
    is_known_machine,
    may_everybody_read,
    refuse_userfaultfd,
)

import dirtyheap as dh

TESTS: Final = Path(__file__).resolve().parents[1]
PART: Final = ("unit/test_transaction.py", "watch/test_exactness.py")
# Of all: what restricts processes itself, and what ran without restriction in any case.
NOT_AGAIN: Final = ("sandbox", "typing")


@dataclass(frozen=True)
class Restriction:
    """What a run is under, and which tracker its heaps then have."""

    name: str
    tracker: str
    apply: Callable[[], Any] = lambda: None
    environment: dict[str, str] = field(default_factory=dict)
    is_proof: bool = False
    needs_root: bool = False
    needs_filter: bool = False

    def __str__(self) -> str:
        return self.name


RESTRICTIONS: Final = (
    Restriction(
        "userfaultfd-EPERM",
        "compare",
        lambda: refuse_userfaultfd(errno.EPERM, device_too=True),
        needs_filter=True,
    ),
    Restriction(
        "userfaultfd-ENOSYS",
        "compare",
        lambda: refuse_userfaultfd(errno.ENOSYS, device_too=True),
        needs_filter=True,
    ),
    Restriction("ordinary-user", "uffd", lambda: become_user(), needs_root=True),
    Restriction("tracker-compare", "compare", environment={"DIRTYHEAP_TRACKER": "compare"}),
    Restriction("proof", "", environment={"DIRTYHEAP_PROOF": "1"}, is_proof=True),
)


def become_user() -> None:
    """An ordinary user, who can read what this one runs with."""
    needed = [Path(sys.executable), Path(dh.__file__), Path(pytest.__file__), TESTS]
    if may_everybody_read(*needed):
        become_nobody()
    else:
        become_reader()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the restricted process may write to; not below one of root's."""
    with tempfile.TemporaryDirectory(prefix="dirtyheap-suite-") as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        os.chmod(name, 0o755)
        yield Path(name)


def require(restriction: Restriction) -> None:
    if restriction.needs_filter and not is_known_machine():
        skip_kernel_test("the filter does not know this machine's system calls")
    if restriction.needs_root:
        require_root("becoming another user")
    if restriction.tracker == "uffd":
        require_tracker("auto")


def run(
    restriction: Restriction, place: Path, *arguments: str, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """The interpreter in the tests' directory, restricted."""
    environment = dict(os.environ, **restriction.environment)
    environment |= {
        "PYTHONPATH": str(TESTS),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "hypothesis"),
        "HOME": str(place),
        "TMPDIR": str(place),
    }
    if not restriction.is_proof:
        environment["DH_REQUIRE_KERNEL"] = "0"  # what is taken away may be missed
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=TESTS,
        env=environment,
        preexec_fn=restriction.apply,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def run_tests(restriction: Restriction, place: Path, *selection: str, timeout_s: float) -> None:
    """They must pass, and not by being skipped."""
    require(restriction)
    script = """
import dirtyheap as dh, sys
with dh.open(sys.argv[1]) as heap:
    print(heap.stats().tracker, heap.stats().proof)
"""
    shown = run(restriction, place, "-c", script, str(place / "trial"), timeout_s=60)
    assert shown.returncode == 0, shown.stderr
    tracker, proof = shown.stdout.split()
    assert restriction.tracker in ("", tracker)
    assert (proof == "True") == (restriction.is_proof or os.environ.get("DIRTYHEAP_PROOF") == "1")

    done = run(
        restriction,
        place,
        *("-m", "pytest", "-c", "../pyproject.toml", "-p", "no:cacheprovider", "-o", "addopts="),
        *("-m", "not soak", f"--basetemp={place / 'pytest'}", "--color=no", "-rsfE", "--tb=short"),
        *selection,
        timeout_s=timeout_s,
    )
    report = f"under {restriction}:\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    print(report)
    assert done.returncode == 0, report
    passed = re.search(r"(\d+) passed", done.stdout)
    skipped = re.search(r"(\d+) skipped", done.stdout)
    assert passed and int(passed[1]) > int(skipped[1] if skipped else 0), report


@pytest.mark.timeout(240)
@pytest.mark.parametrize("restriction", RESTRICTIONS, ids=str)
def test_a_heap_keeps_its_promises(restriction: Restriction, place: Path) -> None:
    run_tests(restriction, place, *PART, timeout_s=200)


@pytest.mark.soak
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("restriction", RESTRICTIONS, ids=str)
def test_all_of_the_tests_pass(restriction: Restriction, place: Path) -> None:
    selection = sorted(
        each.name
        for each in TESTS.iterdir()
        if each.name not in NOT_AGAIN and (each.is_dir() or each.name.startswith("test_"))
    )
    run_tests(restriction, place, "-n2", "--dist=worksteal", *selection, timeout_s=3900)

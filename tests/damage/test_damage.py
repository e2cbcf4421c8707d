"""Damaged heaps: thousands of them, each opened, read in every way, verified, changed and committed
in a process that may die. Only errors and right answers are allowed.

``-s`` prints the tables; ``DH_DAMAGE_SEED=n`` repeats a run, ``DH_DAMAGE_CASES=n`` makes it another
size. A case that failed is run again by the command that its message names.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI

import dirtyheap as dh

NATIVE = Path(__file__).resolve().parents[2] / "native"
SERVER = Path(__file__).with_name("server.py")
# In memory, where there is any: a case writes a heap out.
SCRATCH = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
ALLOWED_STORAGE = {"right", "error", "older", "wrong, found"}
# Not "unnoticed": what reading calls damaged, verify must find.
ALLOWED_HOSTILE = {"value", "value, found", "error", "value, then error"}

Case = dict[str, Any]


def run_cases(directory: Path, suite: str, count: int, **variables: str) -> list[Case]:
    """The cases 0 to count - 1, by one forking process for each core."""
    seed = int(os.environ.get("DH_DAMAGE_SEED") or secrets.randbits(32))
    count = int(os.environ.get("DH_DAMAGE_CASES") or count)
    print(f"DH_DAMAGE_SEED={seed}")
    servers = min(len(os.sched_getaffinity(0)), 8)
    environment = {
        **os.environ,
        "DIRTYHEAP_UNSAFE_NO_SYNC": "1",
        "PYTHONHASHSEED": "0",
        **variables,
    }
    running = []
    for first in range(servers):
        place = directory / f"server{first}"
        place.mkdir()
        command = [sys.executable, "-P", str(SERVER), str(place), suite, str(seed), str(first)]
        command += [str(servers), str(count)]
        running.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
            )
        )
    cases: list[Case] = []
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err[-4000:]
        cases += [json.loads(line) for line in out.splitlines()]
    assert sorted(case["case"] for case in cases) == list(range(count))
    return cases


def print_table(cases: list[Case], row: str) -> None:
    """Counts by region or kind, and by outcome."""
    outcomes = sorted({case["outcome"] for case in cases})
    counts = Counter((case[row], case["outcome"]) for case in cases)
    print(f"\n{row:20}" + "".join(f"{outcome:>16}" for outcome in outcomes))
    for name in sorted({case[row] for case in cases}):
        print(f"{name:20}" + "".join(f"{counts[name, outcome]:16}" for outcome in outcomes))
    print(f"{len(cases)} cases\n")


def assert_allowed(cases: list[Case], allowed: set[str]) -> None:
    """No case ended in anything else; the message has what is needed to run one again."""
    wrong = [case for case in cases if case["outcome"] not in allowed]
    assert not wrong, f"{len(wrong)} of {len(cases)} cases:\n" + "\n".join(map(str, wrong[:5]))


def share(cases: list[Case], *outcomes: str) -> float:
    """How many of them ended so."""
    assert cases
    return sum(case["outcome"] in outcomes for case in cases) / len(cases)


@pytest.fixture
def scratch(tmp_path: Path) -> Any:
    """Where the servers make heaps."""
    if SCRATCH is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        yield Path(name)


def check_storage(directory: Path, count: int, **variables: str) -> None:
    cases = run_cases(directory, "storage", count, **variables)
    print_table(cases, "region")
    print_table(cases, "kind")
    assert_allowed(cases, ALLOWED_STORAGE)
    for case in cases:
        # Only putting back what once was there may show an earlier commit; or a smaller number in
        # the newest meta page, as a write of it leaves that was cut short.
        if case["outcome"] == "older":
            is_number = case["region"] == "index meta page" and case["kind"] in ("flip", "noise")
            assert is_number or case["kind"] in ("stale", "swap", "splice"), case
            assert "index" in case["region"], case
    assert_not_trivial(cases)


def assert_not_trivial(cases: list[Case]) -> None:
    """A suite that damaged nothing would pass. Every byte of a base file is under a checksum, so no
    change of one may pass unnoticed, of whatever version that is kept; in the index some bytes mean
    nothing (what is free, and the room behind the end of a value)."""
    print("of what was changed, refused or found by verify:")
    found = {}
    for region in sorted({case["region"] for case in cases}):
        hit = [case for case in cases if case["region"] == region and case["changed"] == "yes"]
        noticed = [case for case in hit if case["outcome"] != "right" or case["text"]]
        found[region] = len(noticed) / max(len(hit), 1)
        print(f"  {region:20} {len(noticed):5} of {len(hit):5}")
    assert found["base page"] == found["base trailer"] == 1
    assert found["index meta page"] > 0.4
    assert found["index tree page"] > 0.4
    assert found["index value page"] > 0.4
    assert found["lock files"] == 0


def test_damaged_files(scratch: Path) -> None:
    check_storage(scratch, 700)


def test_hostile_structure(scratch: Path) -> None:
    check_hostile(scratch, 500)


def check_hostile(directory: Path, count: int, **variables: str) -> None:
    cases = run_cases(directory, "hostile", count, **variables)
    print_table(cases, "kind")
    assert_allowed(cases, ALLOWED_HOSTILE)
    met = share(cases, "error", "value, found")
    print(f"verify finds {met:.2f} of what was changed")
    assert met > 0.4  # a random word of a free cell means nothing to anybody


@pytest.mark.soak
def test_damaged_files_for_long(scratch: Path) -> None:
    check_storage(scratch, 40_000)


@pytest.mark.soak
def test_hostile_structure_for_long(scratch: Path) -> None:
    check_hostile(scratch, 40_000)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The compiled module anew, under AddressSanitizer: variables for a process that uses it."""
    package = Path(dh.__file__).parent
    target = tmp_path_factory.mktemp("asan")
    shutil.copytree(package, target / "dirtyheap", ignore=shutil.ignore_patterns("*.so"))
    header = (NATIVE / "include" / "dirtyheap.h").read_text()
    bindings = FFI()
    bindings.cdef(header.partition("/* CDEF-BEGIN */")[2].partition("/* CDEF-END */")[0])
    bindings.set_source("dirtyheap._native_cffi", '#include "dirtyheap.h"')
    bindings.emit_c_code(str(target / "native_cffi.c"))
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-O1",
        "-g",
        "-std=c11",
        "-pthread",
        "-fvisibility=hidden",
    ]
    command += ["-fsanitize=address", "-fno-omit-frame-pointer", "-D_GNU_SOURCE"]
    command += ["-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_path('include')}"]
    command += [f"-I{NATIVE / 'include'}", "-o", str(target / "dirtyheap" / "_native.abi3.so")]
    command += [str(target / "native_cffi.c"), *map(str, NATIVE.glob("src/*.c"))]
    command += map(str, NATIVE.glob("lab/*.c"))
    subprocess.run([*command, *map(str, NATIVE.glob("python/*.c"))], check=True)
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    return {
        "PYTHONPATH": str(target),
        "DH_DAMAGE_PACKAGE": str(target),
        "LD_PRELOAD": library.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=0:exitcode=99",
        "PYTHONMALLOC": "malloc",
        "DH_DAMAGE_MEMORY": "0",  # the sanitizer reserves terabytes
    }


@pytest.mark.soak
def test_damaged_files_under_asan(scratch: Path, sanitized: dict[str, str]) -> None:
    check_storage(scratch, 3000, **sanitized)


@pytest.mark.soak
def test_hostile_structure_under_asan(scratch: Path, sanitized: dict[str, str]) -> None:
    check_hostile(scratch, 3000, **sanitized)

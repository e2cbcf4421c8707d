"""The fuzzers of native/fuzz, seeded with what real heaps are made of; see native/fuzz/fuzzer.c.

``DH_FUZZ_SECONDS`` says how long each runs; ``DH_TEST_SEED`` repeats a run. What crashed one is
kept as ``native/build/fuzz/crash-NAME``. A decoder that lacks a check must be caught, or the rest
proves nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from fuzz_seeds import write_seeds

NATIVE = Path(__file__).resolve().parents[2] / "native"
BUILT = NATIVE / "build" / "fuzz"
SECONDS = float(os.environ.get("DH_FUZZ_SECONDS", 120))

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of inputs; the fuzzers are built beside."""
    subprocess.run(["make", "-s", "-C", str(NATIVE), "fuzz"], check=True)
    return write_seeds(tmp_path_factory.mktemp("fuzz"))


def run_fuzzer(
    program: str, seeds: Path, work: Path, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run it; a crash keeps its input."""
    work.mkdir()
    seed = os.environ.get("DH_TEST_SEED") or str(secrets.randbits(32))
    command = [BUILT / program, str(seconds), seed, seeds, work]
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1")
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=seconds + 120
    )
    print(f"{program} DH_TEST_SEED={seed}: {done.stdout.strip() or 'crashed'}")
    if done.returncode != 0:
        data = (work / "running").read_bytes()
        (size,) = struct.unpack_from("<Q", data)
        (work / "crash").write_bytes(data[8 : 8 + size])
    return done


@pytest.mark.parametrize("name", ["delta", "index", "base", "heap"])
@pytest.mark.timeout(SECONDS + 300)
def test_no_input_breaks_a_decoder(seeds: dict[str, Path], name: str, tmp_path: Path) -> None:
    done = run_fuzzer(f"fuzz_{name}", seeds[name], tmp_path / "work", SECONDS)
    if done.returncode != 0:
        kept = BUILT / f"crash-{name}"
        shutil.copyfile(tmp_path / "work" / "crash", kept)
        pytest.fail(f"{kept}:\n{done.stdout}\n{done.stderr[-6000:]}")
    counts = re.findall(r"\d+", done.stdout)
    executions, edges, edges_of_seeds = map(int, counts[:3])
    assert executions > 100 and edges > edges_of_seeds > 20


@pytest.mark.timeout(SECONDS + 300)
def test_a_planted_bug_is_found(seeds: dict[str, Path], tmp_path: Path) -> None:
    done = run_fuzzer("planted_delta", seeds["delta"], tmp_path / "work", max(SECONDS, 60))
    assert done.returncode != 0, "the check that is missing was not missed"
    assert "AddressSanitizer" in done.stderr and "dh_diff_apply" in done.stderr
    again = subprocess.run(
        [BUILT / "planted_delta", "0", "1", tmp_path / "work", tmp_path], capture_output=True
    )
    assert again.returncode != 0, "the input that was kept does not repeat the crash"

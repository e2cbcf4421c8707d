"""dh_index_check: sound files pass, and no file that passes can kill or hang the engine.

LMDB trusts what it maps. A zeroed B-tree page ends the process with SIGABRT, a truncated file with
SIGBUS, and neither can be caught in Python. So files are damaged here in many ways, and whatever
the guard lets through is opened, read and written by the engine in a process of its own.

DH_TEST_SEED=n repeats a run. With -s a table of kinds of damage and outcomes is printed.
"""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import index_files
import lmdb
import pytest
from helpers import skip_test
from index_files import MUTATIONS, PAGE, SHAPES, Specimen, Workload, make_specimen, run
from index_worker import check

from dirtyheap._ffi import ffi, lib

WORKER = Path(__file__).with_name("index_worker.py")
HANG_SECONDS = 30
TXNID_AT = 144  # in a meta page: mm_txnid


@pytest.fixture(scope="module")
def seed() -> int:
    """What all randomness of this module comes from; pytest shows it when a test fails."""
    value = int(os.environ.get("DH_TEST_SEED") or secrets.randbits(32))
    print(f"DH_TEST_SEED={value}")
    return value


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory, seed: int) -> list[Specimen]:
    """A sound file of each shape."""
    made = []
    for name in SHAPES:
        directory = tmp_path_factory.mktemp("specimen")
        made.append(make_specimen(directory, name, random.Random(f"{seed} {name}")))
    return made


def check_bytes(directory: Path, data: bytes | bytearray) -> tuple[int, str]:
    """What the guard says of these bytes."""
    path = directory / "checked.mdb"
    path.write_bytes(data)
    return check(path)


class Worker:
    """The worker process, started again whenever it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, directory: Path, seed: int, *, is_guarded: bool) -> str:
        """Its answer, or how it died."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER)], text=True, bufsize=1, cwd=directory,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{directory} {seed} {int(is_guarded)}\n")
        if not select.select([self._process.stdout], [], [], HANG_SECONDS)[0]:
            self.stop(is_killed=True)
            return "hang"
        if line := self._process.stdout.readline():
            return line.strip()
        status = self.stop()
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit {status}"

    def stop(self, *, is_killed: bool = False) -> int:
        """Wait for the end of the process, or bring it about; returns its exit status."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if is_killed:
            process.kill()
        return process.wait()


@contextmanager
def worker() -> Iterator[Worker]:
    """A worker that does not outlive the test."""
    one = Worker()
    try:
        yield one
    finally:
        one.stop(is_killed=True)


def try_mutant(one: Worker, directory: Path, data: bytearray, seed: int, is_guarded: bool) -> str:
    """Put a damaged file where the worker finds it, and let it have a try."""
    (directory / "lock.mdb").unlink(missing_ok=True)
    (directory / "data.mdb").write_bytes(data)
    return one.ask(directory, seed, is_guarded=is_guarded)


def print_table(counts: dict[str, Counter[str]]) -> None:
    """Kind of damage by outcome."""
    columns = sorted({outcome for row in counts.values() for outcome in row})
    print("\n" + " " * 16 + "".join(f"{column:>20}" for column in columns))
    for kind, row in counts.items():
        print(f"{kind:16}" + "".join(f"{row[column]:20}" for column in columns))


def damage(
    specimens: list[Specimen], directory: Path, seed: int, rounds: int, *, is_guarded: bool
) -> dict[str, Counter[str]]:
    """Try so many mutants of each kind; outcomes by kind. The table names what went wrong."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in MUTATIONS}
    with worker() as one:
        for kind, mutate in MUTATIONS.items():
            for i in range(rounds):
                rng = random.Random(f"{seed} {kind} {i}")
                specimen = specimens[i % len(specimens)]
                data = mutate(specimen, rng)
                outcome = try_mutant(one, directory, data, rng.getrandbits(32), is_guarded)
                word = outcome if outcome.startswith("killed") else outcome.split()[0].strip(":")
                counts[kind][word] += 1
                if is_guarded and word not in ("refused", "read", "error"):
                    counts[kind][f"{specimen.name} {i}: {outcome}"] += 1
    print_table(counts)
    return counts


# --- sound files ---------------------------------------------------------------------------------


def test_an_empty_environment_is_sound(tmp_path: Path) -> None:
    index_files.open_env(tmp_path).close()
    assert check(tmp_path / "data.mdb") == (0, "")


@pytest.mark.parametrize("name", SHAPES)
def test_every_commit_of_a_workload_is_sound(tmp_path: Path, seed: int, name: str) -> None:
    settings, commits = SHAPES[name]
    workload = Workload(random.Random(f"{seed} sound {name}"), **settings)
    for _ in run(tmp_path, workload, 4 * commits):
        assert check(tmp_path / "data.mdb") == (0, "")


def test_deep_trees_are_sound_while_they_grow_and_shrink(tmp_path: Path, seed: int) -> None:
    rng = random.Random(f"{seed} deep")
    keys = [(b"%05d" % i).ljust(480, b"k") for i in range(1200)]
    depths = set()
    with index_files.open_env(tmp_path) as env:
        tree = env.open_db(b"tree0")
        for change in ("put", "delete"):
            rng.shuffle(keys)
            for first in range(0, len(keys), 40):
                with env.begin(write=True) as txn:
                    for key in keys[first : first + 40]:
                        txn.put(key, b"v", db=tree) if change == "put" else txn.delete(key, db=tree)
                    depths.add(txn.stat(tree)["depth"])
                assert check(tmp_path / "data.mdb") == (0, "")
    assert max(depths) >= 4
    assert min(depths) == 0


@pytest.mark.parametrize("size", [1, 2030, 4080, 4081, 8176, 1 << 20, 16 << 20])
def test_values_of_every_size_are_sound_and_so_is_what_they_leave(
    tmp_path: Path, size: int
) -> None:
    with index_files.open_env(tmp_path) as env:
        tree = env.open_db(b"tree0")
        # 16 MiB leave 4,097 free pages: a list with pages of its own.
        for step in range(6):
            with env.begin(write=True) as txn:
                txn.put(b"value", bytes(size), db=tree)
                txn.delete(b"other", db=tree) or txn.put(b"other", bytes(size), db=tree)
                if step % 2:
                    txn.put(b"value", bytes(size // 3 + 1), db=tree)
            assert check(tmp_path / "data.mdb") == (0, "")


@pytest.mark.parametrize("is_compact", [False, True])
def test_a_copy_made_by_the_engine_is_sound(
    specimens: list[Specimen], tmp_path: Path, is_compact: bool
) -> None:
    for specimen in specimens:
        source, target = tmp_path / specimen.name, tmp_path / f"{specimen.name} copy"
        source.mkdir()
        target.mkdir()
        (source / "data.mdb").write_bytes(specimen.data)
        with index_files.open_env(source) as env:
            env.copy(str(target), compact=is_compact)
        assert check(target / "data.mdb") == (0, "")


def test_a_file_cut_off_in_mid_commit_is_sound(
    specimens: list[Specimen], tmp_path: Path, seed: int
) -> None:
    """Before its meta page a commit writes other pages, in any order as far as a kill can tell."""
    rng = random.Random(f"{seed} cut off")
    for specimen in specimens:
        images = [*specimen.older, specimen.data]
        for before, after in pairwise(images):
            for _ in range(5):
                assert check_bytes(tmp_path, torn(before, after, rng)) == (0, ""), specimen.name


def torn(before: bytes, after: bytes, rng: random.Random) -> bytearray:
    """Some pages of the later file over the earlier one; its meta pages stay."""
    data = bytearray(before)
    for at in range(2 * PAGE, len(after), PAGE):
        if after[at : at + PAGE] != before[at : at + PAGE] and rng.random() < 0.5:
            data[len(data) :] = bytes(max(0, at - len(data)))
            data[at : at + PAGE] = after[at : at + PAGE]
    return data + after[len(data) : len(data) + rng.randrange(PAGE)]


def test_a_file_that_is_being_written_is_not_called_damaged(tmp_path: Path, seed: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", "import random, sys; from pathlib import Path\n"
         "from index_files import Workload, run\n"
         "for _ in run(Path(sys.argv[1]), Workload(random.Random(sys.argv[2])), 1 << 30): pass",
         str(tmp_path), str(seed)], cwd=WORKER.parent,
        env={**os.environ, "PYTHONPATH": str(WORKER.parent)},
    )  # fmt: skip
    try:
        while not (data := tmp_path / "data.mdb").exists() or check(data)[0] != 0:
            assert writer.poll() is None
        answers = Counter(check(data)[0] for _ in range(2000))
    finally:
        writer.kill()
        writer.wait()
    assert set(answers) <= {0, 11}, answers  # 11: EAGAIN


# --- what is refused, and how --------------------------------------------------------------------


def test_what_is_not_an_lmdb_file_is_a_matter_of_format(tmp_path: Path) -> None:
    for data in (b"", bytes(2 * PAGE), b"#!/bin/sh\n" * 1000):
        rc, text = check_bytes(tmp_path, data)
        assert rc == lib.DH_E_FORMAT, text


def test_files_of_the_next_engine_are_a_matter_of_format(tmp_path: Path) -> None:
    try:
        env = lmdb.open(str(tmp_path), lib_version=1)
    except (TypeError, lmdb.Error) as error:
        skip_test(f"this lmdb has no other engine: {error}")
    env.close()
    rc, text = check(tmp_path / "data.mdb")
    assert rc == lib.DH_E_FORMAT
    assert "0.9" in text


def test_other_page_sizes_are_a_matter_of_format(specimens: list[Specimen], tmp_path: Path) -> None:
    data = bytearray(specimens[0].data)
    for at in (index_files.FREE_DB, PAGE + index_files.FREE_DB):
        data[at : at + 4] = (16384).to_bytes(4, "little")
    assert check_bytes(tmp_path, data) == (
        lib.DH_E_FORMAT,
        "LMDB pages of 16384 bytes: only 4096 is supported",
    )


@pytest.mark.parametrize("flags", ["dupsort", "integerkey", "reverse_key"])
def test_trees_with_another_order_are_a_matter_of_format(tmp_path: Path, flags: str) -> None:
    with index_files.open_env(tmp_path) as env:
        env.open_db(b"tree0", **{flags: True})
    rc, text = check(tmp_path / "data.mdb")
    assert rc == lib.DH_E_FORMAT
    assert "'tree0'" in text


def test_every_truncation_into_used_pages_is_refused(
    specimens: list[Specimen], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(f"{seed} truncations")
    for specimen in specimens:
        used = max(*specimen.layout.trees, *specimen.layout.values, 0) + 1
        for _ in range(60):
            rc, text = check_bytes(tmp_path, specimen.data[: rng.randrange(1, used * PAGE)])
            assert rc == lib.DH_E_CORRUPT, (specimen.name, text)


def test_every_zeroed_tree_page_is_refused(specimens: list[Specimen], tmp_path: Path) -> None:
    for specimen in specimens:
        for pgno in specimen.pages:
            data = bytearray(specimen.data)
            data[pgno * PAGE : pgno * PAGE + PAGE] = bytes(PAGE)
            rc, text = check_bytes(tmp_path, data)
            assert rc == lib.DH_E_CORRUPT, (specimen.name, pgno)
            assert text


def test_a_flipped_transaction_number_does_not_make_the_older_commit_count(
    tmp_path: Path,
) -> None:
    """9 with one bit flipped is 11, and looks newer than 10. (11 that became 9 cannot be told from
    a write of the page that was cut short.)"""
    environment = lmdb.open(str(tmp_path / "env"), subdir=True)
    taken = 0
    with environment:
        for number in range(40):
            with environment.begin(write=True) as txn:
                txn.put(b"key", b"%d" % number)
            if number < 2:  # nothing was freed yet by both
                continue
            data = (tmp_path / "env" / "data.mdb").read_bytes()
            assert check_bytes(tmp_path, data)[0] == 0
            newest = environment.info()["last_txnid"] % 2
            for bit in range(16):
                damaged = bytearray(data)
                damaged[(1 - newest) * PAGE + TXNID_AT + bit // 8] ^= 1 << bit % 8
                rc, text = check_bytes(tmp_path, damaged)
                assert rc == lib.DH_E_CORRUPT, (number, bit)
                taken += "its free list of" in text
    assert taken > 10  # the others are refused at sight


def test_a_page_both_free_and_used_is_refused(specimens: list[Specimen], tmp_path: Path) -> None:
    specimen = next(specimen for specimen in specimens if specimen.name == "free pages")
    free = specimen.layout.free
    assert free
    for at in free[:: max(1, len(free) // 30)]:
        for pgno in specimen.layout.trees[:20]:
            data = bytearray(specimen.data)
            data[at : at + 8] = pgno.to_bytes(8, "little")
            rc, text = check_bytes(tmp_path, data)
            assert rc == lib.DH_E_CORRUPT, text


def test_a_descriptor_that_cannot_be_read_is_an_errno(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert lib.dh_index_check(fd, 1 << 20, ffi.NULL, 0) == 21  # EISDIR
    finally:
        os.close(fd)


# --- damage --------------------------------------------------------------------------------------


def test_nothing_that_passes_kills_or_hangs_the_engine(
    specimens: list[Specimen], tmp_path: Path, seed: int
) -> None:
    rounds = int(os.environ.get("DH_TEST_MUTANTS") or 120)
    counts = damage(specimens, tmp_path, seed, rounds, is_guarded=True)
    outcomes = sum(counts.values(), Counter())
    assert set(outcomes) <= {"refused", "read", "error"}, outcomes
    assert outcomes["read"] > 0


def test_without_the_guard_the_same_damage_kills(
    specimens: list[Specimen], tmp_path: Path, seed: int
) -> None:
    """The negative control: these mutants are worth refusing."""
    counts = damage(specimens, tmp_path, seed, 12, is_guarded=False)
    assert any(outcome.startswith("killed") for row in counts.values() for outcome in row)


def test_each_byte_of_a_small_file_may_be_damaged(
    specimens: list[Specimen], tmp_path: Path, seed: int
) -> None:
    """Every byte of every structure page of the smallest file, one after another."""
    rng = random.Random(f"{seed} each byte")
    few = next(specimen for specimen in specimens if specimen.name == "few")
    wrong = Counter()
    step = 1 if os.environ.get("DH_TEST_MUTANTS") else 29
    with worker() as one:
        for page in few.pages:
            for at in range(page * PAGE + rng.randrange(step), page * PAGE + PAGE, step):
                data = bytearray(few.data)
                data[at] ^= 1 << rng.randrange(8)
                outcome = try_mutant(one, tmp_path, data, rng.getrandbits(32), is_guarded=True)
                if outcome.split()[0] not in ("refused", "read", "error:", "error"):
                    wrong[f"byte {at}: {outcome}"] += 1
    assert not wrong

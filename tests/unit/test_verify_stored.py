"""dh.verify(path) and the stored half of heap.verify(): files, rows, chains, deltas."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import pytest
from helpers import change, fill, run_ok, seeded
from reseal import PAGE, seal
from test_verify import MARK, PLACES, find_text, make, misdirect

import dirtyheap as dh
from dirtyheap import rows


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A heap with folds, deltas behind them (as rows of their own), a tag and a history."""
    path = tmp_path_factory.mktemp("sound") / "heap"
    rng = seeded()
    with pytest.MonkeyPatch.context() as patch, dh.open(path, keep=5) as heap:
        patch.setattr(rows, "_BODY_IN_RECORD_MAX", 0)
        fill(heap, 3)
        for number in range(12):
            heap.commit(f"commit {number}")
            if number in (0, 6):
                heap.fold()
            if number == 2:
                heap.tag("early")
            change(heap, rng)
    return path


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def edit(path: Path, database: bytes, change: Callable[[Any, bytes, bytes], object]) -> None:
    """Give every row of a database to a function, with the transaction."""
    with lmdb.open(str(path), map_size=1 << 30, max_dbs=8, sync=False) as env:
        handle = env.open_db(database, create=False)
        with env.begin(write=True, db=handle) as txn:
            for key, row in list(txn.cursor()):
                change(txn, key, row)


def resealed(row: bytes, **fields: Any) -> bytes:
    """A row with other fields and a right hash."""
    return seal(msgpack.packb({**msgpack.unpackb(row[:-16]), **fields}))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def says(report: dh.VerifyReport, path: str, what: str) -> bool:
    """Whether one of the problems is this one."""
    return any(path in problem.path and what in problem.what for problem in report.problems)


def newest_base(path: Path, extent: int = 0) -> Path:
    return max((path / "base").glob(f"{extent:08x}.*"))


# --- sound ---------------------------------------------------------------------------------------


def test_a_sound_heap(sound: Path) -> None:
    before = sorted((file.name, file.stat().st_mtime_ns) for file in sound.rglob("*.*.*"))
    report = dh.verify(sound)
    assert report.ok, report.first_problem
    assert report.commits >= 6 and report.bytes > 10 * PAGE
    with dh.open(sound, keep=5) as heap:
        again = heap.verify()
    assert again.ok and again.commits == report.commits
    assert (again.containers, again.cells) == (report.containers, report.cells)
    assert before == sorted((file.name, file.stat().st_mtime_ns) for file in sound.rglob("*.*.*"))


def test_a_heap_without_commits_and_one_that_is_open(path: Path) -> None:
    with dh.open(path) as heap:
        assert dh.verify(path).ok and dh.verify(path).commits == 0
        heap.root["a"] = [1]
        heap.commit()
        heap.root["b"] = [2]
        report = dh.verify(path)  # in the process that writes it: its last commit
        assert report.ok and report.containers == 2 and heap.verify().containers == 3
        assert run_ok("import dirtyheap, sys; print(dirtyheap.verify(sys.argv[1]).ok)", path) == (
            "True\n"
        )
    assert dh.verify(path).ok


def test_what_is_no_heap(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dh.verify(path)
    path.mkdir()
    with pytest.raises(dh.HeapError, match="no heap"):
        dh.verify(path)
    (path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        dh.verify(path / "file")


def test_verify_leaves_alone_what_the_index_does_not_name(copy: Path) -> None:
    """What a crash left is open's to remove, and the rest is somebody else's: no problem."""
    orphan = copy / "base" / "00000009.0000000000000001.12345678"
    orphan.write_bytes(b"cut short")
    (copy / "base" / "notes.txt").write_bytes(b"mine")
    assert dh.verify(copy).ok
    assert orphan.exists() and (copy / "base" / "notes.txt").exists()


def test_a_link_in_place_of_the_base_files_is_found(copy: Path, tmp_path: Path) -> None:
    (copy / "base").rename(tmp_path / "elsewhere")
    (copy / "base").symlink_to(tmp_path / "elsewhere")
    assert says(dh.verify(copy), "base", "is no directory, or a link")


def test_progress_comes_in_steps_and_may_stop_the_run(sound: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    assert dh.verify(sound, progress=lambda *step: steps.append(step)).ok
    assert [name for name, done, total in steps if done == total] == [
        *("base files", "deltas", "contents")
    ]

    def stop(*step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dh.verify(sound, progress=stop)
    assert dh.verify(sound).ok
    with dh.open(sound):
        pass


# --- base files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_what_stands_on_a_damaged_page_is_named(path: Path, place: str) -> None:
    image = make(path, PLACES[place])
    flip(image.files[0], find_text(image, MARK) + 9)
    report = dh.verify(path)
    assert says(report, "base/", "checksum of 1 of its pages")
    assert any(p.path.startswith("root") and "wrong checksum" in p.what for p in report.problems)
    page = find_text(image, MARK) // PAGE
    assert all(f"page {page}," in p.where for p in report.problems if p.path.startswith("root"))


def test_a_page_of_a_large_buffer(path: Path) -> None:
    def build(heap: dh.Heap) -> None:
        heap.root["film"] = heap.buffer(b"x" * 1_000_000)

    image = make(path, build)
    at = bytes(image.data[0]).index(b"x" * 4096) + 500_000
    flip(image.files[0], at)
    assert says(dh.verify(path), "root['film'] (its bytes)", "wrong checksum")


def test_missing_short_and_strange_files(copy: Path) -> None:
    file = newest_base(copy)
    data = file.read_bytes()
    file.unlink()
    report = dh.verify(copy)
    assert says(report, f"base/{file.name}", "is missing")
    file.write_bytes(data[:-1])
    assert says(dh.verify(copy), f"base/{file.name}", f"has {len(data) - 1} bytes")
    file.write_bytes(data[:-8] + bytes(8))
    assert says(dh.verify(copy), f"base/{file.name}", "trailer")
    file.unlink()
    file.symlink_to("/dev/null")
    assert not dh.verify(copy).ok
    file.unlink()
    file.write_bytes(data)
    assert dh.verify(copy).ok


def test_a_file_of_an_older_version_is_found(copy: Path, path: Path) -> None:
    files = sorted((copy / "base").glob("00000000.*"))
    assert len(files) >= 2  # an early commit is tagged
    files[-1].write_bytes(files[0].read_bytes())
    assert not dh.verify(copy).ok


# --- rows ----------------------------------------------------------------------------------------


def damage_byte(txn: Any, key: bytes, row: bytes) -> None:
    txn.put(key, row[:5] + bytes([row[5] ^ 1]) + row[6:])


@pytest.mark.parametrize(
    ("database", "path"), [(b"commits", "commits["), (b"extents", "extents["), (b"tags", "tags")]
)
def test_a_damaged_row(copy: Path, database: bytes, path: str) -> None:
    edit(copy, database, damage_byte)
    assert says(dh.verify(copy), path, "hash is wrong")


def test_a_lost_description(copy: Path) -> None:
    edit(copy, b"meta", lambda txn, key, row: txn.delete(key))
    report = dh.verify(copy)
    assert says(report, "data.mdb", "lost its description")


def test_a_newer_format_is_refused(copy: Path) -> None:
    def newer(txn: Any, key: bytes, row: bytes) -> None:
        if key == b"heap":
            txn.put(key, resealed(row, format=99))

    edit(copy, b"meta", newer)
    with pytest.raises(dh.HeapError, match="newer version"):
        dh.verify(copy)


def test_a_chain_that_is_broken(copy: Path) -> None:
    def other_note(txn: Any, key: bytes, row: bytes) -> None:
        if int.from_bytes(key, "big") == 10:
            txn.put(key, resealed(row, note="somebody else's"))

    edit(copy, b"commits", other_note)
    assert says(dh.verify(copy), "commits[11]", "not the child")


def test_a_record_that_is_gone(copy: Path) -> None:
    def remove(txn: Any, key: bytes, row: bytes) -> None:
        if int.from_bytes(key, "big") == 10:
            txn.delete(key)

    edit(copy, b"commits", remove)
    report = dh.verify(copy)
    assert says(report, "commits[11]", "the commit before it is missing")
    assert says(report, "commits[10]", "missing or damaged")
    assert says(report, "deltas[10]", "belongs to no commit")


def test_a_tag_of_a_commit_that_is_gone(copy: Path) -> None:
    edit(copy, b"tags", lambda txn, key, row: txn.put(key, resealed(row, commit=4711)))
    assert says(dh.verify(copy), "tags['early']", "commit 4711")


# --- deltas --------------------------------------------------------------------------------------


def test_a_chunk_that_is_damaged_gone_or_of_another_commit(copy: Path) -> None:
    chunks: dict[bytes, bytes] = {}
    edit(copy, b"deltas", lambda txn, key, row: chunks.update({key: row}))
    last = max(chunks)
    commit = int.from_bytes(last[:8], "big")

    def put(chunk: bytes | None) -> None:
        def change(txn: Any, key: bytes, row: bytes) -> None:
            if key == last:
                txn.put(key, chunk) if chunk else txn.delete(key)

        edit(copy, b"deltas", change)

    where = f"deltas[{commit}]"
    put(chunks[last][:-1] + bytes([chunks[last][-1] ^ 1]))
    assert says(dh.verify(copy), where, "checksum")
    put(chunks[sorted(chunks)[-2]])
    assert says(dh.verify(copy), where, "another commit")
    put(None)
    assert says(dh.verify(copy), where, "is missing")


def test_a_delta_over_the_wrong_base_is_found(copy: Path) -> None:
    """A page's checksum is that of the result: damage below a diff is damage of what comes of it,
    and the value on it is named."""
    flipped = 0
    file = newest_base(copy)
    for page in range(file.stat().st_size // PAGE):
        flip(file, page * PAGE + 8)
        flipped += 1
    report = dh.verify(copy)
    assert flipped > 10
    assert any(p.path.startswith("deltas[") and "wrong checksum" in p.what for p in report.problems)
    assert says(report, "root", "wrong checksum")


# --- without an index ----------------------------------------------------------------------------


def test_without_an_index_the_base_files_speak_for_themselves(copy: Path) -> None:
    os.unlink(copy / "data.mdb")
    report = dh.verify(copy)
    assert says(report, "data.mdb", "is missing") and report.problems_count == 1
    flip(newest_base(copy), 100)
    report = dh.verify(copy)
    assert says(report, "base/", "checksum of 1 of its pages") and report.problems_count == 2


def test_a_damaged_index_is_not_shown_to_the_engine(copy: Path) -> None:
    data = copy / "data.mdb"
    for page in range(2, data.stat().st_size // PAGE):
        content = bytearray(data.read_bytes())
        content[page * PAGE + 8 : page * PAGE + 32] = b"\xff" * 24
        data.write_bytes(content)
    report = dh.verify(copy)
    assert says(report, "data.mdb", "")
    assert not says(report, "base/", "")


# --- open heaps ----------------------------------------------------------------------------------


def test_an_open_heap_finds_damage_of_its_files(copy: Path) -> None:
    with dh.open(copy, keep=5) as heap:
        assert heap.verify().ok
        flip(newest_base(copy), 5000)
        report = heap.verify()
        assert says(report, "base/", "checksum")
        assert not report.ok


def test_misdirected_words_are_found_without_opening(path: Path) -> None:
    image = make(path, PLACES["root['users'][17]['name']"])
    misdirect(image)
    report = dh.verify(path)
    assert says(report, "root['users'][17]['name']", "not allocated")

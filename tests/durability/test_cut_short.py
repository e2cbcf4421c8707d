"""A heap whose making was cut short is made again; what may hold something is never overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import contents

import dirtyheap as dh

PAGE_BYTES = 4096


def index_of_new_heap(path: Path) -> bytes:
    with dh.open(path):
        pass
    return (path / "data.mdb").read_bytes()


@pytest.mark.parametrize("keep_bytes", [1, 100, 512, PAGE_BYTES, PAGE_BYTES + 512, 2 * PAGE_BYTES])
@pytest.mark.parametrize("is_blank", [False, True])
def test_an_index_that_was_cut_short_is_made_again(
    path: Path, keep_bytes: int, is_blank: bool
) -> None:
    content = index_of_new_heap(path)[:keep_bytes]
    (path / "data.mdb").write_bytes(bytes(keep_bytes) if is_blank else content)
    (path / "base").rmdir()
    with dh.open(path) as heap:
        assert heap.last_commit_id == 0
        heap.root["a"] = 1
        heap.commit()
    assert contents(path) == {"a": 1}


def test_a_file_of_somebody_else_is_left_alone(path: Path) -> None:
    path.mkdir()
    (path / "data.mdb").write_text("my measurements")
    with pytest.raises(dh.HeapError):
        dh.open(path)
    assert (path / "data.mdb").read_text() == "my measurements"


def test_an_index_with_a_commit_is_not_made_again(path: Path) -> None:
    """Not even without the directory of base files, which a copy may have lost."""
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
    damaged = bytearray((path / "data.mdb").read_bytes())
    damaged[2 * PAGE_BYTES :] = bytes(len(damaged) - 2 * PAGE_BYTES)
    (path / "data.mdb").write_bytes(damaged)
    shutil.rmtree(path / "base")
    with pytest.raises(dh.HeapCorruptError):
        dh.open(path)
    assert (path / "data.mdb").read_bytes() == damaged

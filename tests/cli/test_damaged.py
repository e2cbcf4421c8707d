"""Commands on damaged and hostile heaps: an exit code, one line at most, nothing for the terminal
to obey; never a signal. The library's own suite is wider (tests/damage); here it is what shows."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

import pytest
from golden import golden_heaps
from helpers import in_child, seeded
from reseal import Image

import dirtyheap as dh
from dirtyheap.cli import main

READING = (["info"], ["log"], ["dump", "--items", "all"], ["diff", "1", "6"], ["verify"])


def run_all(path: Path) -> list[tuple[str, int, str, str]]:
    """Every command that reads: its exit code, output and complaint."""
    ran = []
    for name, *rest in READING:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([name, str(path), *rest])
        ran.append((name, code, out.getvalue(), err.getvalue()))
    return ran


def check(path: Path) -> None:
    for name, code, out, err in in_child(lambda: run_all(path)):
        assert code in (0, 1, 4, 5), (name, code, err)  # 5: no heap any more
        assert err.count("\n") <= 1 and "mistake in dirtyheap" not in err, (name, err)
        assert all(c == "\n" or c.isprintable() for c in out + err), name


def damage_bytes(path: Path, rng: random.Random) -> None:
    file = rng.choice([path / "data.mdb", *sorted((path / "base").iterdir())])
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data))
    kind = rng.randrange(3)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    else:
        del data[at:]
    file.write_bytes(data)


def change_cells(path: Path, rng: random.Random) -> None:
    """As a hostile author would: every checksum is right."""
    with dh.open(path, keep=100) as heap:
        heap.fold()
    image = Image(path)
    cells = [cell for cell in image.cells() if cell.size < 4096]
    for cell in rng.sample(cells, 3):
        at = cell.offset + 8 * rng.randrange(cell.size // 8)
        if cell.has_words:
            other = rng.choice([c for c in cells if c.has_words])
            image.patch_word(at, rng.choice([rng.getrandbits(64), image.word(other.offset), 0]))
        else:
            image.patch(at, rng.choice([b"\x1b[31m\xff\xfe\0", rng.randbytes(8)]))
    image.seal()


@pytest.mark.parametrize("damage", [damage_bytes, change_cells], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("number", range(4))
def test_commands_on_a_damaged_heap(tmp_path: Path, damage: object, number: int) -> None:
    path = golden_heaps.unpack("format2", tmp_path)
    rng = seeded(f"{number}")
    assert callable(damage)
    damage(path, rng)
    check(path)

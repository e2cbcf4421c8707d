"""``verify``, ``fold``, ``upgrade``, ``backup`` as commands; what they do is tested elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from commands import Command
from golden import golden_heaps
from helpers import contents

import dirtyheap as dh


def test_verify(command: Command, shop: Path) -> None:
    document = command.json("verify", shop)
    assert document["ok"] is True and document["problems"] == []
    assert document["problems_count"] == 0 and document["commits"] == 3
    assert document["containers"] == 3 and document["bytes"] > 0
    line = command.ok("verify", shop)
    assert line.startswith("no problems; looked at 3 commits, 3 containers, ")


def test_verify_names_what_is_wrong(command: Command, shop: Path) -> None:
    with dh.open(shop) as heap:
        heap.fold()
    file = max((shop / "base").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[4096 + 8] ^= 1
    file.write_bytes(data)
    ran = command("verify", shop)
    assert (ran.code, ran.err) == (1, "")
    *problems, summary = ran.out.splitlines()
    assert problems and any(file.name in line for line in problems)
    assert summary.startswith(f"{len(problems)} problem")
    ran = command("verify", shop, "--json")
    assert ran.code == 1 and ran.json["ok"] is False
    assert len(ran.json["problems"]) == ran.json["problems_count"] == len(problems)
    assert set(ran.json["problems"][0]) == {"path", "what", "where"}


def test_verify_of_what_cannot_be_opened(command: Command, shop: Path) -> None:
    data = bytearray((shop / "data.mdb").read_bytes())
    data[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    (shop / "data.mdb").write_bytes(data)
    ran = command("verify", shop, "--json")
    assert ran.code == 1 and ran.json["problems"][0]["path"] == "data.mdb"


def test_fold(command: Command, shop: Path) -> None:
    assert command.json("info", shop)["unfolded_commits"] == 3
    before = contents(shop)
    assert command.json("fold", shop) == {"heap": str(shop), "commit": 3, "extents": 2}
    assert command.ok("fold", shop) == "commit 3: 0 extents written anew\n"
    assert command.json("info", shop)["unfolded_commits"] == 0
    assert contents(shop) == before


def test_fold_gives_up_history_if_asked(command: Command, shop: Path) -> None:
    command.ok("tag", "add", shop, "kept", "1")
    with dh.open(shop, keep=10) as heap:
        heap.root["more"] = 1
        heap.commit()
    command.ok("fold", shop, "--keep", "1h")
    assert [c["id"] for c in command.json("log", shop)["commits"]] == [4, 3, 2, 1]
    with dh.open(shop, keep=10) as heap:
        heap.root["more"] = 2
        heap.commit()
    command.ok("fold", shop, "--keep", "2")
    assert [c["id"] for c in command.json("log", shop)["commits"]] == [5, 4, 1]


def test_fold_of_nothing(command: Command, tmp_path: Path) -> None:
    dh.open(tmp_path / "new").close()
    assert command.ok("fold", tmp_path / "new") == "commit 0: 0 extents written anew\n"


def test_upgrade(command: Command, shop: Path, tmp_path: Path) -> None:
    old = golden_heaps.unpack("format1", tmp_path)
    command.fails(5, f"run `python -m dirtyheap upgrade {old}`", "dump", old)
    command.fails(5, "format 1", "info", old)
    expected = {
        "heap": str(old),
        "format_before": 1,
        "format_after": 2,
        "commits": 5,
        "base_files": 2,
    }
    assert command.json("upgrade", old, "--dry-run") == {**expected, "is_done": False}
    assert command.ok("upgrade", old, "--dry-run") == (
        "format 1 to 2 would take: 5 commits, 2 base files; nothing was written\n"
    )
    assert command.json("upgrade", old) == {**expected, "is_done": True}
    assert command.ok("upgrade", old) == "format 2: nothing to do\n"
    assert command.ok("dump", old, "root['last']") == "root['last']: 'the last commit'\n"
    assert command.ok("upgrade", shop) == "format 2: nothing to do\n"


def test_backup(command: Command, shop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert command.ok("backup", shop, copy).startswith("commit 3, 0 base files, ")
    assert contents(copy) == contents(shop)
    command.ok("fold", shop)
    document = command.json("backup", shop, tmp_path / "another")
    assert document.pop("bytes") > 0
    assert document == {
        "heap": str(shop),
        "target": str(tmp_path / "another"),
        "commit": 3,
        "base_files": 2,
    }
    command.fails(5, "exists already", "backup", shop, copy)
    command.fails(5, "inside the heap itself", "backup", shop, shop / "copy")
    command.fails(5, "there is no heap at", "backup", tmp_path / "nothing", tmp_path / "third")
    with dh.open(shop):
        command.ok("backup", shop, tmp_path / "beside a writer")
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]


def test_backup_of_a_damaged_heap(command: Command, shop: Path, tmp_path: Path) -> None:
    command.ok("fold", shop)
    next((shop / "base").iterdir()).unlink()
    command.fails(4, "is missing. See what is left with", "backup", shop, tmp_path / "copy")

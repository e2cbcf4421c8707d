"""``census`` and ``growth``: what they show, as text and as JSON."""

from __future__ import annotations

from pathlib import Path

from commands import Command, run

import dirtyheap as dh


def test_census(command: Command, shop: Path) -> None:
    document = command.json("census", shop)
    with dh.open(shop, read_only=True) as heap:
        census = heap.census()
    assert document["heap"] == str(shop) and document["commit"] == 3
    types = {row["type"]: row for row in document["types"]}
    assert types["dict"]["objects"] == 2 and types["list"]["objects"] == 1
    assert types["list"] == {
        "kind": "list",
        "type": "list",
        "objects": 1,
        "cells": 2,
        "bytes": census.of("list").bytes,
    }
    assert document["bytes"] == census.bytes == sum(row["bytes"] for row in document["types"])
    assert document["fragmentation"] == census.fragmentation
    assert document["broken"] == 0 and document["sizes"][0]["pages"] > 0
    assert "held_bytes" not in document and "pause_ns" not in document
    lines = command.ok("census", shop).splitlines()
    assert lines[-1] == "commit 3" and lines[-2].startswith("fragmentation: ")
    assert lines[0].split() == ["type", "objects", "cells", "bytes"]
    assert any(line.split()[:3] == ["dict", "2", str(types["dict"]["cells"])] for line in lines)


def test_census_of_an_older_commit(command: Command, shop: Path) -> None:
    command.ok("tag", "add", shop, "start", "1")
    first = command.json("census", shop, "--at", "start")
    assert first == command.json("census", shop, "--at", "1")
    assert first["commit"] == 1 and first["bytes"] < command.json("census", shop)["bytes"]


def test_census_beside_a_writer(command: Command, shop: Path) -> None:
    with dh.open(shop) as heap:
        before = command.json("census", shop)
        heap.root["more"] = list(range(1000))
        assert command.json("census", shop) == before
        heap.commit()
        assert command.json("census", shop)["bytes"] > before["bytes"]


def test_growth(command: Command, shop: Path) -> None:
    ran = command("growth", shop, "1", "--json")
    assert (ran.code, ran.err) == (1, "")
    document = ran.json
    assert (document["before"], document["after"]) == (1, 3)
    assert document["bytes"] > 0
    (container,) = document["containers"]
    assert (container["path"], container["type"]) == ("root['log']", "list")
    assert container["bytes"] == container["own_bytes"] == document["bytes"]
    assert [row["type"] for row in document["types"]] == ["list"]  # short texts take no cells
    ran = command("growth", shop, "1", "3")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].split() == ["type", "objects", "bytes", "bytes", "now"]
    assert lines[-2].split()[-2:] == ["root['log']", "list"]
    assert lines[-1] == "from commit 1 to 3"


def test_growth_the_other_way_and_of_nothing(command: Command, shop: Path) -> None:
    document = command.json("growth", shop, "3", "1")
    assert document["bytes"] < 0 and document["containers"] == []
    document = command.json("growth", shop, "2", "2")
    assert document["types"] == document["containers"] == [] and document["bytes"] == 0


def test_growth_limit(command: Command, tmp_path: Path) -> None:
    with dh.open(tmp_path / "h", keep=10) as heap:
        heap.root.update({f"list {n}": [] for n in range(10)})
        heap.commit()
        for value in heap.root.values():
            value.extend(range(1000))
        heap.commit()
    assert len(command("growth", tmp_path / "h", "1", "--json").json["containers"]) == 11
    limited = command("growth", tmp_path / "h", "1", "--json", "--limit", "3").json
    assert len(limited["containers"]) == 3
    ran = command("growth", tmp_path / "h", "1", "--limit", "0")
    assert ran.code == 2 and "is no number from 1 on" in ran.err


def test_what_is_not_there(command: Command, shop: Path) -> None:
    command.fails(5, "there is no commit 99", "growth", shop, "1", "99")
    command.fails(1, "there is no tag 'never'", "growth", shop, "never")
    command.fails(5, "there is no commit 99", "census", shop, "--at", "99")
    command.fails(1, "there is no tag 'never'", "census", shop, "--at", "never")
    command.fails(5, "there is no heap at", "census", shop / "no")
    command.fails(5, "there is no heap at", "growth", shop / "no", "1")


def test_names_are_escaped(tmp_path: Path) -> None:
    """Classes that nobody here defines, and names that a terminal would obey."""

    @dh.record(name="counting.Red")
    class Red:
        name: str

    with dh.open(tmp_path / "h", keep=2) as heap:
        heap.commit("empty")
        heap.root["\x1b[32mgreen"] = [heap.new(Red, "Ada") for _ in range(100)]
        heap.commit()
        heap.root["\x1b[32mgreen"].extend(heap.new(Red, "Ada") for _ in range(100))
        heap.commit()
    for arguments in (["census"], ["growth", "2"]):
        name, *rest = arguments
        ran = run(name, tmp_path / "h", *rest)
        assert "\x1b" not in ran.stdout and "counting.Red" in ran.stdout, ran
    assert "['\\x1b[32mgreen']" in run("growth", tmp_path / "h", "2").stdout

"""``info``, ``log``, ``diff`` and ``tag``: what they show, as text and as JSON."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from commands import Command, run

import dirtyheap as dh


def test_info(command: Command, shop: Path) -> None:
    with dh.open(shop, keep=10) as heap:
        heap.fold()
        heap.root["more"] = 1
        heap.commit("more")
        heap.tag("here")
    document = command.json("info", shop)
    base_bytes = sum(file.stat().st_size for file in (shop / "base").iterdir())
    uuid, last = document.pop("uuid"), document.pop("last_commit")
    assert len(bytes.fromhex(uuid)) == 16
    assert document.pop("arena_bytes") > 0 and document.pop("unfolded_bytes") > 0
    assert document == {
        "heap": str(shop),
        "format": 2,
        "writer": None,
        "commits": 4,
        "oldest_commit": 1,
        "tags": 1,
        "unfolded_commits": 1,
        "base_files": 2,
        "base_bytes": base_bytes,
        "index_bytes": (shop / "data.mdb").stat().st_size,
    }
    assert (last["id"], last["parent"], last["note"], last["tags"]) == (4, 3, "more", ["here"])
    lines = dict(line.split("  ", 1) for line in command.ok("info", shop).splitlines())
    assert list(lines) == [
        *("heap", "format", "uuid", "writer", "last commit", "can be opened", "arena", "base"),
        *("not yet folded", "index"),
    ]
    assert lines["can be opened"].strip() == "4 commits, 1 tag"
    assert lines["last commit"].strip().startswith("4, 20")
    assert lines["last commit"].endswith("UTC: more")


def test_info_of_a_new_heap(command: Command, tmp_path: Path) -> None:
    dh.open(tmp_path / "new").close()
    document = command.json("info", tmp_path / "new")
    assert document["last_commit"] is None and document["oldest_commit"] is None
    assert document["commits"] == document["arena_bytes"] == document["unfolded_commits"] == 0
    assert "last commit     none" in command.ok("info", tmp_path / "new")


def test_info_beside_a_writer(command: Command, shop: Path) -> None:
    with dh.open(shop):
        assert command.json("info", shop)["writer"] == os.getpid()
        assert f"writer          process {os.getpid()}" in command.ok("info", shop)
    assert command.json("info", shop)["writer"] is None


def test_info_never_keeps_a_writer_out(
    command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("a lock was taken"))
    assert command.json("info", shop)["writer"] is None


@pytest.mark.parametrize("text", ["", "no pid", "-1", "\0" * 40])
def test_info_with_another_text_in_the_lock(command: Command, shop: Path, text: str) -> None:
    (shop / "writer.lock").write_text(text)
    assert command.json("info", shop)["writer"] is None


def test_reading_writes_nothing(command: Command, shop: Path) -> None:
    names = ["data.mdb", *(f"base/{name}" for name in os.listdir(shop / "base"))]
    before = {name: (shop / name).read_bytes() for name in names}
    for arguments in (["info"], ["log"], ["dump"], ["tag", "list"], ["verify"]):
        command.ok(*arguments, shop)
    assert {name: (shop / name).read_bytes() for name in names} == before


def test_log(command: Command, shop: Path) -> None:
    command.ok("tag", "add", shop, "start", "1")
    document = command.json("log", shop)
    assert document["heap"] == str(shop) and document["more"] == 0
    commits = document["commits"]
    assert [(c["id"], c["parent"], c["note"], c["tags"]) for c in commits] == [
        *((3, 2, "thirty lines", []), (2, 1, "", []), (1, 0, "first state", ["start"])),
    ]
    assert all(c["pages"] > 0 and c["bytes_changed"] > 0 and c["time"] > 1e9 for c in commits)
    limited = command.json("log", shop, "--limit", "2")
    assert (limited["commits"], limited["more"]) == (commits[:2], 1)
    lines = command.ok("log", shop, "--limit", "2").splitlines()
    assert lines[0].split() == ["commit", "time", "changed", "tags,", "note"]
    assert lines[1].startswith("     3  20") and lines[1].endswith("thirty lines")
    assert lines[3:] == ["... 1 more"]
    assert command.ok("log", shop).splitlines()[-1].endswith("[start] first state")


def test_log_of_nothing(command: Command, tmp_path: Path) -> None:
    dh.open(tmp_path / "new").close()
    assert command.ok("log", tmp_path / "new") == "no commits\n"
    assert command.json("log", tmp_path / "new")["commits"] == []


# --- tags -------------------------------------------------------------------------------------


def test_tags(command: Command, shop: Path) -> None:
    assert command.ok("tag", "list", shop) == "no tags\n"
    assert command.ok("tag", "add", shop, "newest").startswith("newest: commit 3, 20")
    assert command.json("tag", "add", shop, "größer", "1")["tag"] == "größer"
    assert command.json("tag", "add", shop, "moved", "1")["commit"] == 1
    assert command.json("tag", "add", shop, "moved", "newest") == {
        "heap": str(shop),
        "tag": "moved",
        "commit": 3,
    }
    tags = command.json("tag", "list", shop)["tags"]
    assert [(tag["name"], tag["commit"]) for tag in tags] == [
        *(("größer", 1), ("moved", 3), ("newest", 3)),
    ]
    lines = command.ok("tag", "list", shop).splitlines()
    assert [line.split()[:2] for line in lines] == [
        *(["tag", "commit"], ["größer", "1"], ["moved", "3"], ["newest", "3"]),
    ]
    assert command.ok("tag", "remove", shop, "moved") == "moved: removed from commit 3\n"
    with dh.open(shop) as heap:
        assert {name: commit.id for name, commit in heap.tags().items()} == {
            "größer": 1,
            "newest": 3,
        }


def test_tagging_gives_up_no_history(command: Command, shop: Path) -> None:
    """Whatever its owner keeps: the command must not prune with a policy of its own."""
    command.ok("tag", "add", shop, "name", "2")
    command.ok("tag", "remove", shop, "name")
    command.ok("fold", shop)
    assert [c["id"] for c in command.json("log", shop)["commits"]] == [3, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tag", "add", "SHOP", "7"], 5, "cannot be a tag: it looks like a number"),
        (["tag", "add", "SHOP", ""], 5, "cannot be a tag: it is empty"),
        (["tag", "add", "SHOP", "a\nb"], 5, "do not print"),
        (["tag", "add", "SHOP", "x" * 201], 5, "too long"),
        (["tag", "add", "SHOP", "name", "99"], 5, "there is no commit 99"),
        (["tag", "add", "SHOP", "name", "other"], 1, "there is no tag 'other'"),
        (["tag", "remove", "SHOP", "name"], 1, "there is no tag 'name'"),
    ],
    ids=lambda part: part[3][:9] if isinstance(part, list) else "",
)
def test_tags_that_will_not_do(
    command: Command, shop: Path, arguments: list[str], code: int, words: str
) -> None:
    given = [str(shop) if argument == "SHOP" else argument for argument in arguments]
    command.fails(code, words, *given)


def test_nothing_to_tag(command: Command, tmp_path: Path) -> None:
    dh.open(tmp_path / "new").close()
    command.fails(5, "nothing was committed yet", "tag", "add", tmp_path / "new", "name")


# --- diff -------------------------------------------------------------------------------------


def test_diff(command: Command, shop: Path) -> None:
    ran = command("diff", shop, "1", "2")
    assert (ran.code, ran.err) == (1, "")
    *changes, summary = ran.out.splitlines()
    assert changes == ["changed root['stock']['bolt']: 40 -> 39"]
    assert summary.startswith("1 change from commit 1 to 2; ") and summary.endswith(" differ")
    ran = command("diff", shop, "2", "1", "--json")
    assert ran.code == 1 and ran.json.pop("pages") > 0
    document = ran.json
    assert document.pop("pages") > 0 and document.pop("bytes") > 0
    assert document == {
        "heap": str(shop),
        "before": 2,
        "after": 1,
        "changes": [
            {
                "kind": "changed",
                "path": "root['stock']['bolt']",
                "before": "39",
                "after": "40",
            }
        ],
        "more": 0,
    }


def test_diff_names_records_whose_class_nobody_here_defines(tmp_path: Path) -> None:
    @dh.record(name="diff.Guest")
    class Guest:
        name: str

    with dh.open(tmp_path / "h", keep=2) as heap:
        heap.commit("empty")
        heap.root["guest"] = heap.new(Guest, "Ada")
        heap.commit()
    assert "added root['guest']: <diff.Guest>\n" in run("diff", tmp_path / "h", "1").stdout


def test_diff_with_the_newest_and_with_tags(command: Command, shop: Path) -> None:
    command.ok("tag", "add", shop, "start", "1")
    document = command("diff", shop, "start", "--limit", "3", "--json").json
    assert (document["before"], document["after"]) == (1, 3)
    assert len(document["changes"]) == 3 and document["more"] == 28
    lines = command("diff", shop, "start", "--limit", "3").out.splitlines()
    assert lines[3] == "... 28 more" and lines[4].startswith("31 changes from commit 1 to 3; ")


def test_diff_of_nothing(command: Command, shop: Path) -> None:
    assert command.ok("diff", shop, "2", "2") == (
        "no changes from commit 2 to 2; 0 pages, 0 B differ\n"
    )


def test_diff_with_what_is_not_there(command: Command, shop: Path) -> None:
    command.fails(5, "there is no commit 99", "diff", shop, "1", "99")
    command.fails(1, "there is no tag 'never'", "diff", shop, "never", "1")
    command.fails(5, "there is no heap at", "diff", shop / "no", "1", "2")

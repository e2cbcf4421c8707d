"""What all commands have in common: usage, exit codes, errors, pipes, interrupts, progress."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command_line, environment, run

import dirtyheap as dh
from dirtyheap import rows
from dirtyheap.cli import exit_codes, nodes
from dirtyheap.cli.output import Output, Progress, columns, moment, printable, size

READING = [["info"], ["log"], ["dump"], ["verify"], ["tag", "list"]]
WRITING = [["fold"], ["upgrade"], ["tag", "add"], ["tag", "remove"]]


def rest(command: list[str]) -> list[str]:
    """What the command needs besides the heap."""
    return ["name"] if command in (["tag", "add"], ["tag", "remove"]) else []


# --- usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["info"],
        ["info", ""],
        ["info", "a", "b"],
        ["log", "a", "--limit", "0"],
        ["log", "a", "--limit", "-1"],
        ["log", "a", "--limit", "x"],
        ["dump", "a", "--depth", "deep"],
        ["dump", "a", "--items", "-3"],
        ["dump", "a", "--text", "1.5"],
        ["dump", "a", "root["],
        ["dump", "a", "root.update()"],
        ["dump", "a", "__import__('os')"],
        ["dump", "a", "root[x]"],
        ["dump", "a", "root[[1]]"],
        ["dump", "a", "root[0:3]"],
        ["dump", "a", "stock"],
        ["dump", "a", "root" + "[0]" * 100_000],
        ["diff", "a"],
        ["diff", "a", "1", "2", "--limit", "none"],
        ["tag"],
        ["tag", "add", "a"],
        ["fold", "a", "--keep", "12x"],
        ["fold", "a", "--keep", "0"],
        ["fold", "a", "--keep", "99999999999999d"],
        ["backup", "a"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40] or "nothing",
)
def test_wrong_usage(command: Command, arguments: list[str]) -> None:
    ran = command(*arguments)
    assert ran.code == 2 and ran.out == "", ran
    assert ran.err.startswith("usage: dirtyheap") and "Traceback" not in ran.err


def test_help_and_version(command: Command) -> None:
    shown = command.ok("--help")
    for name in ("info", "log", "tag", "diff", "verify", "fold", "dump", "upgrade", "backup"):
        assert f"\n    {name} " in shown
        assert "--json" in shown and "usage:" in command.ok(name, "--help")
    assert command.ok("--version") == f"dirtyheap {dh.__version__}\n"


def test_as_a_module_and_as_a_script(shop: Path) -> None:
    done = run("log", shop, "--limit", "1")
    assert (done.returncode, done.stderr) == (0, "") and "thirty lines" in done.stdout
    script = Path(sys.executable).with_name("dirtyheap")
    if script.exists():  # installed, not run from a build directory
        assert (
            subprocess.check_output([script, "log", shop, "--limit", "1"], text=True) == done.stdout
        )


# --- exit codes -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", READING + WRITING, ids=" ".join)
def test_no_heap_there(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    command.fails(5, "there is no heap at", *arguments, tmp_path / "nothing", *rest(arguments))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("arguments", READING + WRITING, ids=" ".join)
def test_something_else_there(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    command.fails(5, "a heap is a directory", *arguments, file, *rest(arguments))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("text")
    ran = command(*arguments, other, *rest(arguments))
    assert ran.code == 5 and ran.err.count("\n") == 1, ran
    assert sorted(os.listdir(other)) == ["thesis.txt"]


@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_locked(command: Command, shop: Path, arguments: list[str]) -> None:
    with dh.open(shop):
        words = f"is open for writing in process {os.getpid()}"
        command.fails(3, words, *arguments, shop, *rest(arguments))


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_reading_beside_a_writer(command: Command, shop: Path, arguments: list[str]) -> None:
    with dh.open(shop) as heap:
        heap.root["uncommitted"] = 1
        assert "uncommitted" not in command.ok(*arguments, shop)
        assert heap.root["uncommitted"] == 1


def damage_index(path: Path) -> None:
    data = bytearray((path / "data.mdb").read_bytes())
    for at in range(0, len(data), 4096):
        data[at : at + 64] = b"\xff" * 64
    (path / "data.mdb").write_bytes(data)


@pytest.mark.parametrize(
    "arguments", [a for a in READING + WRITING if a != ["verify"]], ids=" ".join
)
def test_damaged_index(command: Command, shop: Path, arguments: list[str]) -> None:
    damage_index(shop)
    ran = command(*arguments, shop, *rest(arguments))
    assert ran.code in (4, 5) and ran.err.count("\n") == 1 and ran.out == "", ran


def change_meta(path: Path, **fields: Any) -> None:
    """Write the heap's description anew, as a newer version would have it."""
    import lmdb
    import msgpack

    with lmdb.open(str(path), max_dbs=8) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(db=meta, write=True) as txn:
            row = txn.get(b"heap")
            txn.put(b"heap", rows.seal({**msgpack.unpackb(row[:-16]), **fields}))


@pytest.mark.parametrize("arguments", READING + WRITING, ids=" ".join)
@pytest.mark.parametrize("fields", [{"format": 99}, {"features_required": 8}], ids=repr)
def test_a_newer_format(
    command: Command, shop: Path, arguments: list[str], fields: dict[str, int]
) -> None:
    change_meta(shop, **fields)
    command.fails(5, "upgrade dirtyheap", *arguments, shop, *rest(arguments))


def test_mistakes_of_our_own(command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(nodes.Walk, "node", fail)
    command.fails(5, "a mistake in dirtyheap: ZeroDivisionError: by\\nzero", "dump", shop)
    monkeypatch.setenv("DIRTYHEAP_TRACEBACK", "1")
    assert "in fail" in command("dump", shop).err


def test_warnings_are_a_line(command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    original = nodes.Walk.node

    def warn(self: Any, *arguments: Any) -> Any:
        warnings.warn("old base files are left", RuntimeWarning, stacklevel=1)
        return original(self, *arguments)

    monkeypatch.setattr(nodes.Walk, "node", warn)
    ran = command("dump", shop, "--depth", "0")
    assert (ran.code, ran.err) == (0, "dirtyheap: warning: old base files are left\n")


# --- streams ----------------------------------------------------------------------------------


def test_the_reader_of_the_pipe_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with dh.open(path) as heap:
        heap.root["numbers"] = list(range(100_000))
        heap.commit()
    arguments = command_line("dump", path, "--items", "all")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"root")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_full_disk_under_stdout(shop: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command_line("log", shop), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 5 and "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_stdout(shop: Path) -> None:
    arguments = " ".join(map(shlex.quote, command_line("log", shop)))
    done = subprocess.run(f"{arguments} >&-", shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (5, "dirtyheap: standard output is closed\n")
    done = subprocess.run(f"{arguments} 2>&-", shell=True, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "thirty lines" in done.stdout


def test_an_interrupt(shop: Path, tmp_path: Path) -> None:
    # Where it waits is a pipe of ours: the interrupt cannot come too early or too late.
    script = """
import os, signal, sys
from dirtyheap.cli import main
from dirtyheap.cli.nodes import Walk
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in background
def wait(*_):
    print("waiting", flush=True)
    sys.stdin.read()
Walk.node = wait
sys.exit(main(["dump", sys.argv[1]]))
"""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", script, shop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "dirtyheap: interrupted\n")


def test_progress_is_shown_on_a_terminal_only(shop: Path, tmp_path: Path) -> None:
    done = run("backup", shop, tmp_path / "copy 1")
    assert (done.returncode, done.stderr) == (0, "")
    shown: list[bytes] = []
    ours, theirs = pty.openpty()

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end is closed
                return
            shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        subprocess.run(
            command_line("backup", shop, tmp_path / "copy 2"),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            timeout=60,
        )
    finally:
        os.close(theirs)
        reader.join(60)
        os.close(ours)
    assert b"copying [##############################] 100% \x1b[K" in b"".join(shown)
    assert b"".join(shown).endswith(b"\r\x1b[K")


def test_progress_of_nothing() -> None:
    with open(os.devnull, "w") as stream:
        progress = Progress("what", stream)
        progress(0, 0)
        progress.close()


def test_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "heap"
    with dh.open(path) as heap:
        heap.root["ü"] = "\ud800 snow ☃"
        heap.commit("☃")
    env = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    for name in ("dump", "log"):
        done = run(name, path, env=env)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert "\\u2603" in done.stdout


# --- text -------------------------------------------------------------------------------------


def test_nothing_of_a_heap_reaches_the_terminal_unescaped(command: Command, tmp_path: Path) -> None:
    evil = "\x1b]0;pwned\x07\x9b31m\r\n\u202e\u2028"
    path = tmp_path / "heap"

    class Evil:
        pass

    dh.register(Evil, lambda _: evil, lambda _: Evil(), name="cli" + evil)
    with dh.open(path) as heap:
        heap.root[evil] = [evil, evil.encode(), (evil,), {evil}, Evil()]
        heap.root["enough of it " * 10 + evil] = evil * 100
        heap.commit(evil)
    for arguments in (["dump"], ["dump", "--text", "3"], ["log"], ["info"], ["verify"]):
        for json in ([], ["--json"]):
            out = command.ok(arguments[0], path, *arguments[1:], *json)
            assert all(c == "\n" or c.isprintable() for c in out), (arguments, out)
    command.fails(1, r"has no entry ['\x1b']", "dump", path, r"root['\x1b']")


def test_printable() -> None:
    assert printable("plain ü ☃") == "plain ü ☃"
    assert printable("a\x1b[0m\n\ud800\u202e'") == r"a\x1b[0m\n\ud800\u202e'"


def test_sizes_and_moments() -> None:
    sizes = [0, 999, 1000, 999_949, 999_950, 12_300_000, 5 * 10**9, 3 * 10**12, 10**16]
    assert [size(n) for n in sizes] == [
        *("0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB", "5.0 GB", "3.0 TB"),
        "10000.0 TB",
    ]
    assert moment(0) == "1970-01-01 00:00:00 UTC"
    assert columns([("a", 1), ("bb", 22)], right=(1,)) == ["a    1", "bb  22"]


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        Output(is_json=True).show({"value": float("nan")}, [])


def test_every_code_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = [
        *(exit_codes.OK, exit_codes.FOUND, exit_codes.USAGE, exit_codes.LOCKED, exit_codes.DAMAGED),
        *(exit_codes.FAILED, exit_codes.INTERRUPTED, exit_codes.PIPE_CLOSED),
    ]
    for code in codes:
        assert f"| {code} |" in text

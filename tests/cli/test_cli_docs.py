"""docs/cli.md: every example is run, in order, and must print what the page says."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command

import dirtyheap as dh

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def shown(block: str) -> Iterator[tuple[str, str]]:
    """Commands of a block, each with what it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield line, output


def run_python(text: str) -> None:
    parser = doctest.DocTestParser()
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(parser.get_doctest(text, {}, PAGE.name, str(PAGE), 0), out=report.append)
    assert runner.failures == 0, "".join(report)


def test_the_page(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checker = doctest.OutputChecker()
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    code, commands_count = 0, 0
    for language, text in blocks:
        if language == "python":
            run_python(text)
            continue
        for line, expected in shown(text):
            if line == "echo $?":
                assert expected == f"{code}\n"
                continue
            name, *arguments = shlex.split(line)
            if name != "dirtyheap":
                subprocess.run(line, shell=True, check=True)
                continue
            ran = command(*arguments)
            code, found = ran.code, ran.out + ran.err
            assert checker.check_output(expected, found, doctest.ELLIPSIS), (
                f"$ {line}\nexpected:\n{expected}\nfound:\n{found}"
            )
            commands_count += 1
    assert commands_count > 10


def test_every_command_is_on_the_page(command: Command) -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"^    (\w+)  ", command.ok("--help").partition("options:")[0], re.MULTILINE)
    assert len(names) >= 7
    for name in names:
        assert f"\n## {name}\n" in text and f"$ dirtyheap {name} " in text
        options = re.findall(r"^  (--[a-z-]+)", command.ok(name, "--help"), re.MULTILINE)
        for option in options:
            assert option in text, f"{name} {option}"


def test_the_example_in_the_readme(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with dh.open("shop.heap") as heap:  # as its examples leave it
        heap.root["stock"] = {"bolt": 39, "nut": 20}
        heap.root["log"] = ["opened", "8 nuts came in"]
        heap.commit()
    text = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    _, _, block = text.partition("    $ dirtyheap dump shop.heap\n")
    expected = "".join(f"    {line}\n" for line in command.ok("dump", "shop.heap").splitlines())
    assert block.startswith(expected + "\n")

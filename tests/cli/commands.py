"""Running the command line in tests: inside this process, or as users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from dirtyheap.cli import main


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document that it printed."""
        return json.loads(self.out)


class Command:
    """Calls the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        self._capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as usage:  # argparse's
            code = int(usage.code or 0)
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    def ok(self, *arguments: object) -> str:
        """It must end with 0 and no complaint; returns what it printed."""
        ran = self(*arguments)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran.out

    def json(self, *arguments: object) -> Any:
        """The same with --json; returns the document."""
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, code: int, words: str, *arguments: object) -> None:
        """It must end with this code, one line with these words on stderr, and no output."""
        ran = self(*arguments)
        assert ran.code == code, ran
        assert ran.out == "" and words in ran.err, ran
        assert ran.err.count("\n") == 1 and "Traceback" not in ran.err, ran


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=60, **options
    )


def command_line(*arguments: object) -> list[str]:
    """What a user would type."""
    return [sys.executable, "-P", "-m", "dirtyheap", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """This process's, with changes."""
    return dict(os.environ, **changes)

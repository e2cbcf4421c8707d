"""Fixtures for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command

import dirtyheap as dh


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls the command line."""
    return Command(capsys)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A small heap with three commits, closed."""
    path = tmp_path / "shop"
    with dh.open(path, keep=10) as heap:
        heap.root["stock"] = {"bolt": 40, "nut": 12}
        heap.root["log"] = ["opened"]
        heap.commit("first state")
        heap.root["stock"]["bolt"] -= 1
        heap.commit()
        heap.root["log"].extend(f"line {i}" for i in range(30))
        heap.commit("thirty lines")
    return path

"""Fixtures for all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import dirtyheap


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test may make its heap."""
    return tmp_path / "heap"


@pytest.fixture
def heap(tmp_path: Path) -> Iterator[dirtyheap.Heap]:
    """An empty heap of the default size, closed after the test."""
    with dirtyheap.open(tmp_path / "heap") as heap:
        yield heap


@pytest.fixture
def small_heap(tmp_path: Path) -> Iterator[dirtyheap.Heap]:
    """An empty heap of 2 MiB, for running out of room."""
    with dirtyheap.open(tmp_path / "small", capacity=2 << 20) as heap:
        yield heap


def pytest_collection_finish() -> None:
    """What lives as long as the run is no matter of Python's collector: tests that call it often
    took most of their time for the modules of pytest."""
    gc.collect()
    gc.freeze()

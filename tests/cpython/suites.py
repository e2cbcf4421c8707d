"""How CPython's own test suites are run against the heap's containers: what their tests call the
type is a function that makes one, and what cannot pass stands in a table with its reason.

The suites come from the running interpreter. A test of the table that passes is a failure too.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
import unittest
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from helpers import skip_test

import dirtyheap as dh

OTHER_TYPES = "stores objects of a class of its own: a heap holds plain values"
IS_NO_CLASS = "calls the type, subclasses it or asks it for methods: containers are made by a heap"
GIVES_PLAIN = "expects the same type back: copies, slices and sums are plain Python objects"


def suite(name: str) -> Any:
    """A module of CPython's tests; skips, loudly, where they are not installed."""
    try:
        return importlib.import_module(f"test.{name}")
    except ImportError as error:
        skip_test(f"this Python comes without its tests: {error}")


@contextlib.contextmanager
def temporary_heap() -> Iterator[dh.Heap]:
    """A heap for one test."""
    with (
        tempfile.TemporaryDirectory() as directory,
        dh.open(f"{directory}/heap", capacity=1 << 30) as heap,
    ):
        yield heap


class WithHeap(unittest.TestCase):
    """Gives each test a heap of its own."""

    heap: dh.Heap

    def setUp(self) -> None:
        self.heap = self.enterContext(temporary_heap())
        super().setUp()


def expect_failures(suite: type[unittest.TestCase], reasons: Mapping[str, str]) -> None:
    """Mark tests of a suite as known to fail; a name that is no test is an error."""
    for name, reason in reasons.items():
        assert reason
        setattr(suite, name, unittest.expectedFailure(_own_copy(getattr(suite, name))))


def _own_copy(test: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same test as another function: the mark stands on it, and others inherit it too."""

    def run(self: Any) -> None:
        test(self)

    run.__name__ = test.__name__
    return run

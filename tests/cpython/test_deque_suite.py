"""CPython's deque tests, run on Deque: what their module calls deque makes one in a heap."""

from __future__ import annotations

from typing import Any
from unittest import mock

from suites import GIVES_PLAIN, IS_NO_CLASS, OTHER_TYPES, WithHeap, expect_failures, suite

import dirtyheap as dh

test_deque = suite("test_deque")


class WithDeque(WithHeap):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(test_deque, "deque", self.heap.deque))


class TestBasic(WithDeque, test_deque.TestBasic):
    pass


class TestVariousIteratorArgs(WithDeque, test_deque.TestVariousIteratorArgs):
    pass


class TestSequence(WithHeap, test_deque.TestSequence):
    def type2test(self, *args: Any) -> dh.Deque:
        return self.heap.deque(*args)


NO_PLAIN_ITERATOR = "iterators cannot be pickled, nor called for as a class"
# Under two names, by the version of Python.
STOP_CRASHES = next(
    name for name in dir(test_deque.TestBasic) if name.startswith("test_contains_count_")
)

expect_failures(
    TestBasic,
    {
        "test_basics": "calls __init__ again: containers are made by a heap",
        "test_contains": OTHER_TYPES,
        STOP_CRASHES: OTHER_TYPES,
        "test_container_iterator": OTHER_TYPES,
        "test_copy": GIVES_PLAIN,
        "test_count": OTHER_TYPES,
        "test_deepcopy": "changes a list after it was stored: the deque holds a copy",
        "test_index": OTHER_TYPES,
        "test_iterator_pickle": NO_PLAIN_ITERATOR,
        "test_remove": OTHER_TYPES,
        "test_reversed_new": NO_PLAIN_ITERATOR,
        "test_sizeof": "knows the size of CPython's blocks",
    },
)

expect_failures(
    TestSequence,
    {
        "test_addmul": "plain + Deque is a TypeError, so that plain += Deque extends",
        "test_contains_fake": OTHER_TYPES,
        "test_contains_order": OTHER_TYPES,
        "test_count": OTHER_TYPES,
        "test_getitemoverwriteiter": IS_NO_CLASS,
        "test_index": OTHER_TYPES,
    },
)

"""CPython's list and sequence tests, run on List."""

from __future__ import annotations

from typing import Any

from suites import GIVES_PLAIN, IS_NO_CLASS, OTHER_TYPES, WithHeap, expect_failures, suite

import dirtyheap as dh

list_tests = suite("list_tests")


class TestList(WithHeap, list_tests.CommonTest):
    def type2test(self, *args: Any) -> dh.List:
        return self.heap.list(*args)


expect_failures(
    TestList,
    {
        "test_addmul": f"{GIVES_PLAIN}; plain + List is a TypeError, so that plain += List extends",
        "test_contains_fake": OTHER_TYPES,
        "test_contains_order": OTHER_TYPES,
        "test_count": OTHER_TYPES,
        "test_free_after_iterating": IS_NO_CLASS,
        "test_getitemoverwriteiter": IS_NO_CLASS,
        "test_index": OTHER_TYPES,
        "test_init": IS_NO_CLASS,
        "test_remove": OTHER_TYPES,
    },
)

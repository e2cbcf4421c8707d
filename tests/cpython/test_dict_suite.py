"""CPython's mapping tests, run on Dict."""

from __future__ import annotations

from typing import Any

from suites import IS_NO_CLASS, OTHER_TYPES, WithHeap, expect_failures, suite

import dirtyheap as dh

mapping_tests = suite("mapping_tests")


class TestDict(WithHeap, mapping_tests.TestHashMappingProtocol):
    def type2test(self, *args: Any, **kwargs: Any) -> dh.Dict:
        made = self.heap.dict()
        made.update(*args, **kwargs)
        return made


expect_failures(
    TestDict,
    {
        "test_copy": "expects a Dict: copy() gives a plain dict",
        "test_fromkeys": IS_NO_CLASS,
        "test_eq": OTHER_TYPES,
        "test_getitem": OTHER_TYPES,
        "test_pop": OTHER_TYPES,
        "test_repr": OTHER_TYPES,
        "test_setdefault": OTHER_TYPES,
    },
)

"""CPython's mapping tests, run on SortedDict."""

from __future__ import annotations

from typing import Any

from suites import IS_NO_CLASS, OTHER_TYPES, WithHeap, expect_failures, suite

import dirtyheap as dh

mapping_tests = suite("mapping_tests")

SORTED_REPR = "expects the text of a dict: this says SortedDict(...)"


class TestSortedDict(WithHeap, mapping_tests.TestHashMappingProtocol):
    def type2test(self, *args: Any, **kwargs: Any) -> dh.SortedDict:
        made = self.heap.sorted_dict()
        made.update(*args, **kwargs)
        return made


expect_failures(
    TestSortedDict,
    {
        "test_copy": "expects a SortedDict: copy() gives a plain dict",
        "test_fromkeys": IS_NO_CLASS,
        "test_eq": OTHER_TYPES,
        "test_getitem": OTHER_TYPES,
        "test_pop": OTHER_TYPES,
        "test_popitem": "expects no argument: popitem() takes a position",
        "test_repr": f"{OTHER_TYPES}; {SORTED_REPR}",
        "test_setdefault": OTHER_TYPES,
    },
)

"""CPython's set tests, run on Set: while one runs, `set` in its module makes Sets."""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from suites import IS_NO_CLASS, OTHER_TYPES, WithHeap, expect_failures, suite

import dirtyheap as dh

test_set = suite("test_set")

MADE_ANEW = "expects elements to be the same objects: they are made when they are read"


class TestSet(WithHeap, test_set.TestSet):
    def thetype(self, *args: Any) -> dh.Set:
        return self.heap.set(*args)


class WithSets(WithHeap):
    """Sets for all that the suite makes with set(), its class attributes too."""

    def setUp(self) -> None:
        def make(*args: Any) -> dh.Set:
            return self.heap.set(*args)

        self.enterContext(mock.patch.object(test_set, "set", make, create=True))
        super().setUp()
        for name in ("left", "right"):
            if hasattr(self, name):
                setattr(self, name, make(getattr(self, name)))


# Those named ...Mutating and TestGraphs are about objects of classes of their own, and the others
# about subclasses and frozenset.
SUITES = (
    "TestBasicOps", "TestBinaryOps", "TestUpdateOps", "TestMutate", "TestSubset", "TestOnlySets",
    "TestCopying", "TestIdentities", "TestVariousIteratorArgs", "TestExceptionPropagation",
    "TestSetOfSets",
)  # fmt: skip
MADE: dict[str, Any] = {
    name: type(name, (WithSets, tests), {})
    for name, tests in vars(test_set).items()
    if name.startswith(SUITES) and "Mutating" not in name and issubclass(tests, unittest.TestCase)
}
globals().update(MADE)


class TestBasicOpsTriple(MADE["TestBasicOpsTriple"]):  # type: ignore[misc]
    """Its third element, a function, is a string here."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(test_set, "operator", mock.Mock(add="add")))
        super().setUp()


expect_failures(
    TestSet,
    {
        "test_badcmp": OTHER_TYPES,
        "test_cyclical_repr": OTHER_TYPES,
        "test_deepcopy": OTHER_TYPES,
        "test_do_not_rehash_dict_keys": OTHER_TYPES,
        "test_subclass_with_custom_hash": IS_NO_CLASS,
        "test_free_after_iterating": IS_NO_CLASS,
        "test_init": IS_NO_CLASS,
        "test_iterator_pickling": "pickles an iterator, which leads into a heap",
        "test_pickling": "sets attributes, which no type but a subclass has",
    },
)
for name, made in MADE.items():
    if name.startswith("TestCopying") and name != "TestCopyingEmpty":
        expect_failures(made, {"test_copy": MADE_ANEW})

"""What the state machines store: values of all kinds, and numbers to pick by."""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from rich_values import rich_values

integers = st.one_of(
    st.integers(-1000, 1000),
    st.sampled_from([2**62 - 1, 2**62, -(2**62), -(2**62) - 1, 2**63, 2**64, 10**40, -(10**40)]),
    st.integers(),
)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "\0", "seven77", "eight888", "\ud800"]),
    st.sampled_from([300, 5000]).map(lambda size: "é" * size),
)
blobs = st.one_of(st.binary(max_size=12), st.just(9000).map(bytes))
floats = st.one_of(
    st.floats(), st.sampled_from([0.0, -0.0, 5e-324, 1.7e308, float("nan"), float("inf")])
)
leaves = st.one_of(st.none(), st.booleans(), integers, floats, texts, blobs, rich_values)
scalars = st.one_of(leaves, st.tuples(leaves, leaves), st.tuples(texts, st.tuples(integers)))
# NaN is left out: two NaN keys are two in Python unless they are one object, and one in a heap.
key_leaves = st.one_of(
    st.none(), st.booleans(), integers, texts, blobs, st.floats(allow_nan=False), rich_values
)
frozensets = st.frozensets(key_leaves, max_size=4)
keys = st.one_of(st.integers(0, 20), key_leaves, st.tuples(key_leaves, key_leaves), frozensets)
plain_values = st.recursive(
    st.one_of(scalars, frozensets),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(keys, max_size=4),
        st.builds(deque, st.lists(inner, max_size=4), st.sampled_from([None, 3, 700])),
    ),
    max_leaves=8,
)
# Records: dicts of the same keys in the same order, which share their key tables.
names = st.sampled_from(["id", "n", "a long field name", "price", "another long name", "é", "ok"])
kinds = st.sampled_from(
    [
        ["id"],
        ["id", "n", "price"],
        ["n", "id", "price"],
        ["id", "a long field name", "price", "ok", "é", "n"],
        [f"column {i}" for i in range(12)],
        [f"{i}" for i in range(32)],
    ]
)
picks = st.integers(0, 1 << 16)
numbers = st.integers(0, 1 << 30)

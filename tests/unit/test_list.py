"""List behaves as list does, holds its items in the heap, and stays whole when something fails."""

from __future__ import annotations

import copy
import gc
import operator
import pickle
import random
import sys
import weakref
from collections.abc import MutableSequence

import pytest

import dirtyheap
from dirtyheap import to_python


@pytest.fixture
def five(heap):
    return heap.list([10, 20, 30, 40, 50])


def test_get_set_delete(five):
    assert five[0] == 10 and five[-1] == 50 and five[4] == 50 and five[-5] == 10
    five[0] = "first"
    five[-1] = "last"
    del five[1]
    del five[-2]
    assert five == ["first", 30, "last"]


@pytest.mark.parametrize("index", [5, -6, 2**40, -(2**40), 2**70])
def test_index_out_of_range(five, index):
    with pytest.raises(IndexError):
        five[index]
    with pytest.raises(IndexError):
        five[index] = 1
    with pytest.raises(IndexError):
        del five[index]
    assert five == [10, 20, 30, 40, 50]


def test_index_must_be_an_integer(five):
    for bad in ("a", 1.0, None):
        with pytest.raises(TypeError, match="list indices must be integers or slices, not"):
            five[bad]
        with pytest.raises(TypeError, match="list indices"):
            five[bad] = 1
        with pytest.raises(TypeError, match="list indices"):
            del five[bad]
    assert five[True] == 20


def test_append_extend_insert(heap):
    items = heap.list()
    items.append(1)
    items.extend([2, 3])
    items.extend(i for i in (4, 5))
    items += "ab"
    items.insert(0, 0)
    items.insert(-1, "x")
    items.insert(100, "end")
    items.insert(-100, "start")
    assert items == ["start", 0, 1, 2, 3, 4, 5, "a", "x", "b", "end"]
    with pytest.raises(TypeError):
        items.extend(5)


def test_extend_with_itself(five):
    five.extend(five)
    five += five
    assert five == [10, 20, 30, 40, 50] * 4
    five[1:1] = five
    assert five == [10] + [10, 20, 30, 40, 50] * 4 + ([10, 20, 30, 40, 50] * 4)[1:]


def test_extend_is_all_or_nothing(five):
    with pytest.raises(TypeError, match=r"value\[2\]"):
        five.extend([1, 2, object()])
    with pytest.raises(ZeroDivisionError):
        five.extend(1 // (3 - i) for i in range(10))
    assert five == [10, 20, 30, 40, 50]


def test_beyond_the_capacity_nothing_changes(small_heap):
    items = small_heap.list(["some string of some length"] * 100)
    small_heap.root["items"] = items
    before = to_python(items)
    for grow in (
        lambda: items.extend("some other string of some length" for _ in range(100_000)),
        lambda: items.__imul__(10_000),
        lambda: items.__imul__(10**15),
        lambda: items.__setitem__(slice(10, 20), ["x" * 1000] * 10_000),
    ):
        with pytest.raises(dirtyheap.HeapFullError):
            grow()
        assert items == before
        small_heap.collect()
    items.append("there is room again")
    assert len(items) == 101


def test_pop_and_remove(five):
    assert five.pop() == 50
    assert five.pop(0) == 10
    assert five.pop(-2) == 30
    five.remove(20)
    assert five == [40]
    with pytest.raises(ValueError, match=r"list.remove\(x\): x not in list"):
        five.remove("absent")
    with pytest.raises(IndexError, match="pop index out of range"):
        five.pop(1)
    five.clear()
    with pytest.raises(IndexError, match="pop from empty list"):
        five.pop()


def test_index_count_contains(heap):
    values = [1, "two", 2.5, None, b"bytes", "a longer string", True, 10**30, (1, 2), "two"]
    items = heap.list(values)
    for value in values:
        assert items.index(value) == values.index(value)
        assert items.count(value) == values.count(value)
        assert value in items
    assert 1.0 in items and True in items and items.count(1.0) == 2
    assert items.index("two", 2) == 9
    assert items.index("two", -1) == 9
    assert items.index("two", -100, 100) == 1
    for absent in ("x", 99, 10**31, [], b"two", "a longer strinG", object()):
        assert absent not in items
        assert items.count(absent) == 0
        with pytest.raises(ValueError, match="is not in list"):
            items.index(absent)
    with pytest.raises(ValueError):
        items.index("two", 2, 9)
    with pytest.raises(TypeError):
        items.index("two", "a")
    with pytest.raises(TypeError):
        items.index()


def test_containers_are_found_by_equality(heap):
    items = heap.list([[1], {"a": 2}, [3]])
    assert items.index({"a": 2}) == 1
    assert items.index(items[2]) == 2
    assert [1] in items
    items.remove([1])
    assert items == [{"a": 2}, [3]]


def test_reverse_and_copy(five):
    five.reverse()
    assert five == [50, 40, 30, 20, 10]
    plain = five.copy()
    assert type(plain) is list
    five.clear()
    assert plain == [50, 40, 30, 20, 10]
    assert len(five) == 0


# --- slices ---------------------------------------------------------------------------------------

BOUNDS = [None, 0, 1, 3, 7, 9, 100, -1, -3, -9, -100]
STEPS = [None, 1, 2, 3, -1, -2, -5, 100, -100]


def all_slices():
    return [slice(a, b, c) for a in BOUNDS for b in BOUNDS for c in STEPS]


def test_reading_every_slice(heap):
    model = [0, "one", 2.5, None, [4], "a string of some length", (6, 7), 8, 9]
    items = heap.list(model)
    for cut in all_slices():
        assert items[cut] == model[cut]
    assert type(items[1:]) is list
    assert items[4:5][0] is items[4]


def test_deleting_every_slice(heap):
    model = [0, "one", 2.5, None, 10**30, "a string of some length", (6, 7), 8, 9]
    for cut in all_slices():
        items, expected = heap.list(model), list(model)
        del items[cut]
        del expected[cut]
        assert items == expected, cut


def test_assigning_every_slice(heap):
    model = [f"string number {i}" for i in range(9)]
    for cut in all_slices():
        size = len(model[cut])
        for new in ([], ["x"], [f"a new string {i}" for i in range(size)], range(size + 2)):
            items, expected = heap.list(model), list(model)
            try:
                expected[cut] = new
            except ValueError as error:
                with pytest.raises(ValueError) as mine:
                    items[cut] = new
                assert str(mine.value) == str(error)
            else:
                items[cut] = new
            assert items == expected, cut


def test_slices_of_large_lists(heap):
    model = list(range(5000))
    items = heap.list(model)
    for cut in (slice(10, 4000, 7), slice(None, None, -3), slice(600, 1200), slice(4999, None)):
        assert items[cut] == model[cut]
        mine, expected = heap.list(model), list(model)
        del mine[cut]
        del expected[cut]
        assert mine == expected
    items[100:4900] = ["a"] * 3
    model[100:4900] = ["a"] * 3
    assert items == model
    items[5:5] = range(3000)
    model[5:5] = range(3000)
    assert items == model


def test_slice_errors(five):
    with pytest.raises(TypeError):
        five[1:2] = 5
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        five[::0]
    with pytest.raises(TypeError):
        five["a":]
    with pytest.raises(TypeError):
        five[1:3] = [1, object()]
    assert five == [10, 20, 30, 40, 50]


# --- operators ------------------------------------------------------------------------------------


def test_plus_and_times_give_plain_lists(heap, five):
    assert five + [1] == [10, 20, 30, 40, 50, 1]
    with pytest.raises(TypeError):
        [1] + five
    assert five + heap.list([2]) == [10, 20, 30, 40, 50, 2]
    assert five * 2 == 2 * five == [10, 20, 30, 40, 50] * 2
    assert type(five + five) is type(five * 2) is list
    operator.iconcat(five, [60])
    assert five.pop() == 60
    plain = alias = [1]
    plain += five  # extends what others hold, as with any list
    assert plain is alias
    assert alias == [1, 10, 20, 30, 40, 50]
    assert five * 0 == five * -1 == []
    assert operator.concat(five, [1]) == [10, 20, 30, 40, 50, 1]
    for bad in ((1,), "a", 5):
        with pytest.raises(TypeError):
            five + bad
    with pytest.raises(TypeError):
        five * 1.5
    with pytest.raises(TypeError):
        five * five


def test_repeating_in_place(heap):
    items = heap.list(["a string of some length", [1], 5])
    before = items
    items *= 3
    assert items is before
    assert items == ["a string of some length", [1], 5] * 3
    assert items[1] is items[4]
    del items[0]
    assert items[2] == "a string of some length"
    items *= 1
    assert len(items) == 8
    items *= 0
    assert items == []
    items *= 5
    assert items == []


def test_comparisons(heap):
    lists = [[], [1], [1, 2], [2], [1, 3], [1, 2, 3], [1.0, 2.0], ["a"], [[1], 2], [[2]]]
    for a in lists:
        for b in lists:
            for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt,
                            operator.ge):  # fmt: skip
                try:
                    expected = compare(a, b)
                except TypeError:
                    for mine in (
                        (heap.list(a), b),
                        (a, heap.list(b)),
                        (heap.list(a), heap.list(b)),
                    ):
                        with pytest.raises(TypeError):
                            compare(*mine)
                else:
                    assert compare(heap.list(a), b) is expected
                    assert compare(a, heap.list(b)) is expected
                    assert compare(heap.list(a), heap.list(b)) is expected
    assert heap.list([1]) != (1,) and heap.list() != None  # noqa: E711


def test_equality_of_cycles_is_a_recursion_error(heap):
    one, two = heap.list(), heap.list()
    one.append(one)
    two.append(two)
    with pytest.raises(RecursionError):
        one == two


def test_repr(heap, five):
    assert repr(five) == "[10, 20, 30, 40, 50]"
    five[1:] = [five, {"self": five}]
    assert repr(five) == "[10, [...], {'self': [...]}]"


def test_is_a_mutable_sequence(five):
    assert isinstance(five, MutableSequence)
    match five:
        case [10, *rest]:
            assert rest == [20, 30, 40, 50]
        case _:
            pytest.fail("no sequence to the match statement")
    first, *_, last = five
    assert (first, last) == (10, 50)
    assert dirtyheap.List[int].__origin__ is dirtyheap.List


def test_cannot_be_made_or_subclassed_or_hashed(five):
    with pytest.raises(TypeError, match=r"heap\.list\(\)"):
        dirtyheap.List()
    with pytest.raises(TypeError):
        type("Sub", (dirtyheap.List,), {})
    with pytest.raises(TypeError, match="unhashable type"):
        hash(five)
    with pytest.raises(AttributeError):
        five.attribute = 1
    assert type(five).__module__ == "dirtyheap"
    assert not gc.is_tracked(five)
    for plain in (pickle.loads(pickle.dumps(five)), copy.copy(five), copy.deepcopy(five)):
        assert type(plain) is list and plain == five


def test_weak_references(heap):
    items = heap.list()
    reference = weakref.ref(items)
    assert reference() is items
    del items
    assert reference() is None


# --- iteration ------------------------------------------------------------------------------------


def test_iterating(five):
    assert list(five) == [10, 20, 30, 40, 50]
    assert list(reversed(five)) == [50, 40, 30, 20, 10]
    iterator = iter(five)
    assert iterator.__length_hint__() == 5
    next(iterator)
    assert iterator.__length_hint__() == 4


def test_growing_and_shrinking_while_iterating(heap):
    items = heap.list([0])
    for i in items:
        if i < 50:
            items.append(i + 1)
    assert items == list(range(51))
    for _ in items:
        items.pop()
    assert len(items) == 25
    backwards = reversed(items)
    items.clear()
    assert list(backwards) == []
    items.append(1)
    assert list(backwards) == []
    assert backwards.__length_hint__() == 0


@pytest.mark.parametrize("length", [3, 400, 5000])
def test_iterating_while_anything_changes(heap, length):
    """Step by step what iterators over a list give, whatever is done to that list or another."""
    source = random.Random(length)
    plain = list(range(length))
    ours = heap.root["ours"] = heap.list(plain)
    other = heap.root["other"] = heap.list(plain)
    committed = list(plain)
    heap.commit()

    def place():
        return source.randrange(len(plain) + 1)

    def pop():
        for items in (plain, ours):
            del items[-1:]

    def insert():
        at = place()
        for items in (plain, ours):
            items.insert(at, "inserted")

    def replace():
        at, more = place(), source.randrange(700)
        for items in (plain, ours):
            items[at : at + 600] = range(more)

    def commit():
        committed[:] = plain
        heap.commit()

    def rollback():
        plain[:] = committed
        heap.rollback()

    changes = [pop, insert, replace, commit, rollback]
    changes += [lambda: [items.append("appended") for items in (plain, ours)]]
    changes += [lambda: [items.reverse() for items in (plain, ours)]]
    changes += [lambda: [items.__setitem__(slice(3), [1, 2]) for items in (plain, ours)]]
    changes += [lambda: other and other.pop(0), lambda: other.insert(7, 7), lambda: other.append(7)]
    for _ in range(12):
        pairs = [(iter(plain), iter(ours)), (reversed(plain), reversed(ours))]
        for _ in range(60):
            for expected, iterator in pairs:
                for _ in range(source.choice([1, 2, 40])):
                    assert next(iterator, "end") == next(expected, "end")
            if source.random() < 0.5:
                source.choice(changes)()
        assert ours == plain


# --- sort -----------------------------------------------------------------------------------------


def test_sort(heap):
    source = random.Random(5)
    for model in (
        [source.randrange(1000) for _ in range(2000)],
        [f"string {source.randrange(10**9)}" for _ in range(700)],
        [],
        [1],
    ):
        items = heap.list(model)
        items.sort()
        assert items == sorted(model)
        items.sort(reverse=True)
        assert items == sorted(model, reverse=True)
        items.sort(key=str)
        assert items == sorted(sorted(model, reverse=True), key=str)


def test_sort_is_stable(heap):
    pairs = [(i % 5, i) for i in range(100)]
    for reverse in (False, True):
        items = heap.list(pairs)
        items.sort(key=lambda pair: pair[0], reverse=reverse)
        assert items == sorted(pairs, key=lambda pair: pair[0], reverse=reverse)


def test_sort_moves_containers_not_copies(heap):
    items = heap.list([{"n": 2}, {"n": 1}])
    one = items[1]
    items.sort(key=lambda d: d["n"])
    assert items[0] is one


def test_failed_sort_changes_nothing(heap):
    items = heap.list([3, "a", 1])
    with pytest.raises(TypeError):
        items.sort()
    with pytest.raises(ZeroDivisionError):
        items.sort(key=lambda item: 1 // 0)
    with pytest.raises(TypeError):
        items.sort(lambda item: item)
    assert items == [3, "a", 1]


def test_random_operations_against_list(heap):
    source = random.Random(77)
    items, model = heap.list(), []

    def value():
        return source.choice([source.randrange(100), f"text {source.randrange(10**12)}", 1.5, None])

    for _ in range(8000):
        place = source.randrange(-5, len(model) + 5)
        match source.randrange(9):
            case 0 | 1:
                new = value()
                items.append(new)
                model.append(new)
            case 2:
                new = value()
                items.insert(place, new)
                model.insert(place, new)
            case 3 if model:
                place %= len(model)
                assert items.pop(place) == model.pop(place)
            case 4 if model:
                place %= len(model)
                items[place] = model[place] = value()
            case 5:
                new = [value() for _ in range(source.randrange(40))]
                items.extend(new)
                model.extend(new)
            case 6:
                end, step = place + source.randrange(60), source.choice([1, 1, 2, 3, -1])
                del items[place:end:step]
                del model[place:end:step]
            case 7:
                end = place + source.randrange(10)
                new = [value() for _ in range(source.randrange(10))]
                items[place:end] = new
                model[place:end] = new
            case 8:
                items.reverse()
                model.reverse()
        assert len(items) == len(model)
    assert items == model


def test_large(heap):
    items = heap.list(range(200_000))
    assert len(items) == 200_000
    assert sum(items) == sum(range(200_000))
    assert items.index(199_999) == 199_999
    assert sys.getrefcount(items) < 5
    while len(items) > 100:
        del items[len(items) // 2 :]
    assert items == list(range(len(items)))

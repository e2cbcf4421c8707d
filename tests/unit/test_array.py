"""Arrays: ndarrays whose memory is in the heap; exact dtypes, linked views, memory never reused."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import io
import pickle
import sys
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
from helpers import fault, plain, run_ok, skip_test
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dirtyheap as dh
from dirtyheap import _native

try:
    import numpy as np
    from hypothesis.extra import numpy as hnp
except ImportError:
    skip_test("numpy is not installed")

PAGE = 4096


def same(found: Any, expected: Any) -> None:
    """Two ndarrays that numpy could not tell apart, but for their memory."""
    assert type(found) is np.ndarray
    assert same_dtype(found.dtype, expected.dtype)
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def same_dtype(a: Any, b: Any) -> bool:
    """Stricter than ==, which does not look at alignment and scalar types inside."""
    if a != b or a.isalignedstruct != b.isalignedstruct or a.type is not b.type:
        return False
    if a.subdtype:
        return a.shape == b.shape and same_dtype(a.base, b.base)
    return not a.names or all(
        same_dtype(a.fields[name][0], b.fields[name][0])
        and a.fields[name][1:] == b.fields[name][1:]
        for name in a.names
    )


def address(array: Any) -> int:
    return array.__array_interface__["data"][0]


# --- making ---------------------------------------------------------------------------------------


def test_new_ones_are_zeros_or_what_they_are_filled_with(heap):
    array = heap.array((3, 4))
    same(array, np.zeros((3, 4)))
    assert array.flags.writeable and array.flags.c_contiguous and array.flags.aligned
    same(heap.array(5, "i2", fill=7), np.full(5, 7, "i2"))
    same(heap.array([2, 3], fill=[1, 2, 3]), np.array([[1.0, 2, 3]] * 2))
    same(heap.array(np.int64(3)), np.zeros(3))
    same(heap.array((), "c16"), np.zeros((), "c16"))
    same(heap.array((0, 3), "u1"), np.zeros((0, 3), "u1"))
    fortran = heap.array((3, 4), order="F")
    assert fortran.strides == np.zeros((3, 4), order="F").strides


@pytest.mark.parametrize("shape", [(), 0, (0,), (3, 0, 2), (1, 1), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_strides_are_those_of_numpy(heap, shape, order):
    assert heap.array(shape, order=order).strides == np.zeros(shape, order=order).strides


@pytest.mark.parametrize("dtype", ["U", "S", ("f4", (2, 3)), [("a", "i1"), ("b", "f8")], "O"])
def test_dtypes_become_what_numpy_makes_of_them(heap, dtype):
    if dtype == "O":
        with pytest.raises(TypeError, match="Python objects.*heap.list"):
            heap.array(3, dtype)
    else:
        same(heap.array(3, dtype), np.zeros(3, dtype))


def test_impossible_ones_are_refused(heap):
    with pytest.raises(ValueError, match="negative"):
        heap.array((2, -1))
    with pytest.raises(TypeError):
        heap.array(2.5)
    with pytest.raises(TypeError):
        heap.array((2, "3"))
    with pytest.raises(TypeError, match="fill=a"):
        heap.array(np.arange(3))
    with pytest.raises(ValueError, match="'C' or 'F'"):
        heap.array(3, order="K")
    with pytest.raises(TypeError):
        heap.array(3, "no such type")
    with pytest.raises(ValueError, match="broadcast"):
        heap.array(3, fill=[1, 2])
    with pytest.raises(ValueError, match="65 axes: an array has at most 64"):
        heap.array((1,) * 65)
    for shape in ((1 << 40, 1 << 40), 1 << 45, 1 << 60, (1 << 62, 3)):
        with pytest.raises(OverflowError, match=r"of \d+ bytes is too large"):
            heap.array(shape)
    with pytest.raises(dh.HeapFullError):
        heap.array(1 << 40)
    assert heap.verify().ok


def test_beyond_the_capacity(small_heap):
    with pytest.raises(dh.HeapFullError, match="capacity="):
        small_heap.array(1 << 20)
    small_heap.array(1 << 10)
    with pytest.raises(dh.HeapFullError):
        small_heap.root["a"] = np.zeros(1 << 20)
    assert plain(small_heap) == {}


def test_a_fault_on_the_way_leaves_nothing(heap):
    for after in range(40):
        with fault("alloc.cell", after, -1):
            try:
                heap.root["a"] = np.arange(10)
            except dh.HeapFullError:
                assert "a" not in heap.root
            else:
                break
    else:
        pytest.fail("it never succeeded")
    assert heap.verify().ok
    same(heap.root["a"], np.arange(10))


# --- dtypes ---------------------------------------------------------------------------------------

DTYPES = [
    "?", "i1", "u8", ">i4", "<u2", "f2", ">f8", "longdouble", "c8", ">c16", "clongdouble",
    "S5", "S1", "U5", ">U3", "V3", "M8[ns]", ">M8[25s]", "m8", "m8[Y]", "M8",
    [("a", "f8"), ("b", "i1")],
    [("x", [("y", ">u2"), ("z", "U3")]), ("w", "f4", (2, 3))],
    [(("a title", "name"), "i4"), ("plain", "?")],
    [("empty", "S0"), ("ü", "U2")],
    [],
]  # fmt: skip
SPECIAL = [
    np.dtype([("a", "i1"), ("b", "f8"), ("c", "u2", (3,))], align=True),
    np.dtype([("in", np.dtype([("a", "i1"), ("b", "i4")], align=True))]),
    np.dtype({"names": ["a", "b"], "formats": ["u4", "u1"], "offsets": [0, 2], "itemsize": 16}),
    np.dtype((np.record, [("a", "f4"), ("b", "i2")])),
    np.dtype([("inner", np.dtype((np.record, [("a", "f4")])), (2,))]),
]


@pytest.mark.parametrize("dtype", [*map(np.dtype, DTYPES), *SPECIAL], ids=str)
def test_dtypes_come_back_exactly(path, dtype):
    raw = np.random.default_rng(1).integers(0, 2, 6 * max(dtype.itemsize, 1), dtype="u1")
    array = np.zeros((2, 3), dtype)
    if dtype.itemsize:
        array.view("u1", np.ndarray).reshape(-1)[:] = raw[: array.nbytes]
    with dh.open(path) as heap:
        heap.root["stored"] = array
        made = heap.array((2, 3), dtype, fill=array)
        heap.root["made"] = made
        assert made.strides == array.strides
        same(heap.root["made"], made)
        del made
        heap.commit()
    with dh.open(path) as heap:
        for name in ("stored", "made"):
            found = heap.root[name]
            assert same_dtype(found.dtype, dtype)
            assert found.strides == array.strides
            assert found.tobytes() == array.tobytes() or np.array_equal(found, array)
            del found
        assert heap.verify().ok


@pytest.mark.filterwarnings("ignore:.*metadata.*")
def test_metadata_is_left_out_as_in_numpys_own_files(heap):
    heap.root["a"] = np.zeros(2, np.dtype("f8", metadata={"unit": object()}))
    assert heap.root["a"].dtype.metadata is None


sizes = st.integers(0, 3)
dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.nested_dtypes(max_itemsize=200),
    hnp.array_dtypes(allow_subarrays=True),
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_dtype_and_layout_survives_reopening(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "heap"
    expected = []
    with dh.open(path) as heap:
        heap.root["list"] = []
        for _ in range(data.draw(st.integers(1, 5))):
            array = np.zeros(data.draw(hnp.array_shapes(min_dims=0, min_side=0)), data.draw(dtypes))
            if array.nbytes:
                noise = np.random.default_rng(array.nbytes).integers(0, 2, array.nbytes, "u1")
                array = np.ndarray(array.shape, array.dtype, noise)
                array = np.array(array, order=data.draw(st.sampled_from("CF")))
            heap.root["list"].append(array)
            expected.append(array)
        heap.commit()
    with dh.open(path) as heap:
        for found, array in zip(heap.root["list"], expected, strict=True):
            same(found, array)
            for flag in ("c_contiguous", "f_contiguous"):
                assert getattr(found.flags, flag) == getattr(array.flags, flag)
            del found
        assert heap.verify().ok


def test_what_no_file_could_hold_is_refused(heap):
    class Mine:
        pass

    cases = [
        (np.array([None, 1]), "Python objects"),
        (np.array([Mine()]), "Python objects"),
        (np.zeros(2, [("a", "f8"), ("b", "O")]), "Python objects"),
        (np.zeros(2, [("a", [("b", "O", (2,))])]), "Python objects"),
        (np.zeros(2, deep_dtype()), "deep"),
    ]
    if hasattr(np, "dtypes") and hasattr(np.dtypes, "StringDType"):
        cases.append((np.array(["a"], np.dtypes.StringDType()), "Python objects"))
    for array, message in cases:
        with pytest.raises(TypeError, match=message):
            heap.root["a"] = array
        with pytest.raises(TypeError, match=message):
            heap.array(2, array.dtype)
    assert plain(heap) == {}


def deep_dtype() -> Any:
    dtype = np.dtype("f8")
    for _ in range(40):
        dtype = np.dtype([("a", dtype)])
    return dtype


@pytest.mark.parametrize(
    "value", [np.int64(3), np.float32(2), np.bool_(True), np.datetime64(1, "s")]
)
def test_numpy_scalars_are_refused_with_advice(heap, value):
    with pytest.raises(TypeError, match=r"convert it with (int\(\)|value\.item\(\))"):
        heap.root["a"] = value
    with pytest.raises(TypeError, match=r"convert it with float\(\)"):
        heap.root["a"] = np.float64(2)


def test_subclasses_are_refused_with_advice(heap, tmp_path):
    mapped = np.memmap(tmp_path / "file", "u1", "w+", shape=10)
    record = np.zeros(3, [("a", "f8")]).view(np.recarray)
    masked = np.ma.masked_array([1, 2], mask=[True, False])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.matrix([[1, 2]])
    for array in (mapped, record, masked, matrix):
        with pytest.raises(TypeError, match=r"numpy\.asarray\(\).*mask"):
            heap.root["a"] = array
    heap.root["data"], heap.root["mask"] = masked.data, masked.mask
    same(heap.root["mask"], masked.mask)


# --- storing: copies and links --------------------------------------------------------------------


def test_an_ordinary_ndarray_is_copied_in(heap):
    array = np.arange(12.0).reshape(3, 4)
    heap.root["a"] = array
    array[:] = -1
    same(heap.root["a"], np.arange(12.0).reshape(3, 4))
    heap.root["f"] = np.asfortranarray(array)
    assert heap.root["f"].flags.f_contiguous and not heap.root["f"].flags.c_contiguous
    for view in (array[::-1, ::2], array.T[1:], np.broadcast_to(np.arange(3), (2, 3))):
        heap.root["v"] = view
        same(heap.root["v"], view)
        assert heap.root["v"].flags.writeable and heap.root["v"].flags.owndata is False


def test_one_of_this_heap_is_linked(path):
    with dh.open(path) as heap:
        array = heap.array((4, 4), "i8")
        heap.root["a"] = array
        heap.root["list"] = [0]
        heap.root["list"].append(array)
        assert heap.root["a"] is array is heap.root["list"][1]
        heap.root["a"][1, 1] = 5
        assert heap.root["list"][1][1, 1] == 5
        heap.commit()
        del array
    with dh.open(path) as heap:
        assert heap.root["a"] is heap.root["list"][1] or gc.collect() is None
        array = heap.root["a"]
        assert heap.root["list"][1] is array
        heap.root["list"][1][2, 2] = 6
        assert array[1, 1] == 5 and array[2, 2] == 6
        del array


def test_one_of_another_heap_is_copied(heap, tmp_path):
    with dh.open(tmp_path / "other") as other:
        array = other.array(3, fill=1)
        heap.root["a"] = array
        array[:] = 2
        same(heap.root["a"], np.ones(3))
        del array


def views_of(array: Any) -> dict[str, Any]:
    """Of an array of (6, 8) doubles."""
    field = array.view([("a", "i4"), ("b", "u2"), ("c", "V2")])
    return {
        "slice": array[1:3, 2:],
        "step": array[::2, ::-3],
        "row": array[4],
        "element": array[2:3, 3:4].reshape(()),
        "transposed": array.T,
        "reshaped": array.reshape(8, 6),
        "flat": array.reshape(-1)[::-1],
        "bytes": array.view("u1")[:, 3::8],
        "complex": array.view("c16"),
        "swapped": array.view(">f8"),
        "field": field["b"],
        "fields": field[["a", "c"]],
        "windows": np.lib.stride_tricks.sliding_window_view(array, (2, 2)),
        "strided": np.lib.stride_tricks.as_strided(array[1:], (3, 3), (8, 8)),
        "broadcast": np.broadcast_to(array[0], (4, 8)),
        "empty": array[3:3, ::2],
        "new axis": array[:, None, ::-1],
        "frombuffer": np.frombuffer(array.data.cast("B"), "f8"),
        "squeezed": array[:1].squeeze(),
        "real": array.view("c16").real,
    }


@pytest.mark.parametrize("name", list(views_of(np.zeros((6, 8)))))
def test_a_view_is_linked_as_it_is(path, name):
    with dh.open(path) as heap:
        base = heap.array((6, 8), fill=np.arange(48).reshape(6, 8))
        view = views_of(base)[name]
        heap.root["view"], heap.root["base"] = view, base
        found = heap.root["view"]
        same(found, view)
        assert found.strides == view.strides and address(found) == address(view)
        assert found is heap.root["view"]
        offset = address(view) - address(base)
        heap.commit()
        del view, found, base
    with dh.open(path) as heap:
        found, base = heap.root["view"], heap.root["base"]
        same(found, views_of(base)[name])
        assert address(found) - address(base) == offset or not found.size
        base[...] = np.arange(100, 148).reshape(6, 8)
        same(found, views_of(base)[name])
        assert heap.verify().ok
        del found, base


def test_a_view_of_a_buffer_is_linked(heap):
    heap.root["buffer"] = heap.buffer(80)
    heap.root["numbers"] = np.frombuffer(heap.root["buffer"], "<f8")
    heap.root["numbers"][2] = 1.5
    assert heap.root["buffer"][16:24] == np.float64(1.5).tobytes()


def test_the_view_keeps_the_memory_when_the_base_is_gone(path):
    with dh.open(path) as heap:
        heap.root["view"] = heap.array(1000, fill=3)[500:510]
        heap.collect()
        heap.commit()
    with dh.open(path) as heap:
        heap.collect()
        same(heap.root["view"], np.full(10, 3.0))


def test_memory_that_only_claims_to_be_the_heaps_is_not_linked(heap):
    base = heap.array(4, "u1")
    other = bytearray(b"abcd")

    class Liar:
        __array_interface__ = np.frombuffer(other, "u1").__array_interface__
        base = None

    liar = Liar()
    liar.base = base
    heap.root["a"] = np.asarray(liar)
    other[0] = 0
    assert heap.root["a"].tobytes() == b"abcd"
    beyond = np.lib.stride_tricks.as_strided(base, (5,), (1,))
    with pytest.raises(ValueError, match="leaves its buffer"):
        heap.root["b"] = beyond
    before = np.lib.stride_tricks.as_strided(base[::-1], (2,), (-PAGE,))[1:]
    with pytest.raises(ValueError, match="beyond"):
        heap.root["b"] = before
    assert "b" not in heap.root


def test_arrays_inside_plain_containers(path):
    one, two = np.arange(3), np.arange(4.0)
    with dh.open(path) as heap:
        heap.root["all"] = {"one": one, "list": [one, two, (two, "x", (one,))], 3: (two,)}
        linked = heap.array(2, "u1", fill=9)
        heap.root["all"]["linked"] = [linked, (linked, linked[::-1])]
        heap.commit()
        del linked
    with dh.open(path) as heap:
        found = heap.root["all"]
        assert found["one"] is found["list"][0] or gc.collect() is None
        same(found["one"], one)
        inner = found["list"][2]
        assert type(inner) is tuple and inner[1] == "x"
        same(inner[0], two)
        same(inner[2][0], one)
        same(found[3][0], two)
        first, (second, backwards) = found["linked"]
        assert first is second
        first[0] = 1
        assert backwards.tolist() == [9, 1]
        del first, second, backwards, inner
        assert heap.verify().ok


def test_one_object_met_twice_is_one_array(heap):
    array = np.arange(3)
    heap.root["a"] = {"x": array, "y": [array]}
    held = heap.root["a"]["x"]
    assert heap.root["a"]["y"][0] is held


def test_arrays_need_no_register():
    with pytest.raises(ValueError, match="ndarray needs no register"):
        dh.register(np.ndarray, bytes, np.frombuffer)


def test_an_array_is_no_key(heap):
    for key in (np.arange(3), heap.array(3)):
        with pytest.raises(TypeError):
            heap.root[key] = 1
        with pytest.raises(TypeError):
            heap.root["a"] = {(1, 2): 1} | {}
            heap.root[(1, key)] = 1


def test_every_way_to_store_and_read(heap):
    array = np.arange(3)
    root = heap.root
    root["d"] = {}
    root["d"].update({"a": array}, b=array)
    assert type(root["d"].setdefault("c", array)) is np.ndarray
    assert type(root["d"].setdefault("c", 1)) is np.ndarray
    root["l"] = [array]
    numbers = root["l"]
    numbers.append(array)
    numbers.insert(0, array)
    numbers.extend([array, array])
    numbers[1:1] = [array]
    numbers[0] = array
    assert len(numbers) == 6
    for found in (
        *numbers,
        *numbers[:],
        *numbers[::2],
        *reversed(numbers),
        *numbers.copy(),
        *list(root["d"].values()),
        *[value for _, value in root["d"].items()],
        *root["d"].copy().values(),
        root["d"].get("a"),
        root["d"].pop("a"),
        root["d"].popitem()[1],
        numbers.pop(),
        numbers.pop(0),
        (numbers + [1])[0],
        (numbers * 2)[-1],
    ):
        same(found, array)
    assert heap.verify().ok


@dh.record
class Measured:
    name: str
    values: Any = None


def test_the_other_containers_hold_arrays_too(heap):
    array = heap.array(4, fill=1)
    heap.root["sorted"] = heap.sorted_dict()
    heap.root["record"] = heap.new(Measured, name="first", values=array)
    ordered, record = heap.root["sorted"], heap.root["record"]
    ordered["a"], ordered["b"] = np.arange(3), array[::2]
    assert type(ordered.setdefault("c", np.arange(2))) is np.ndarray
    record.values[0] = 9
    assert record.values is array and ordered["b"][0] == 9
    assert [value.tolist() for value in ordered.values()] == [[0, 1, 2], [9, 1], [0, 1]]
    same(ordered.peekitem(0)[1], np.arange(3))
    for copied in (dh.to_python(heap.root), copy.deepcopy(heap.root)):
        assert copied["record"]["values"].tolist() == [9, 1, 1, 1]
        assert not np.shares_memory(copied["record"]["values"], array)
        assert not np.shares_memory(copied["sorted"]["b"], array)
    same(ordered.pop("a"), np.arange(3))
    with pytest.raises(TypeError, match="unhashable"):
        heap.set([array])
    assert heap.verify().ok


# --- identity and life ----------------------------------------------------------------------------


def test_read_twice_it_is_one_object_while_one_is_alive(heap):
    heap.root["a"] = np.arange(3)
    first = heap.root["a"]
    assert heap.root["a"] is first
    known = weakref.ref(first)
    view = first[1:]
    del first
    assert known() is None  # the view holds the memory, not the object
    second = heap.root["a"]
    second[1] = 77
    assert view[0] == 77


def test_two_threads_read_one_object(heap):
    heap.root["a"] = np.arange(3)
    for _ in range(20):
        found: list[Any] = []
        barrier = threading.Barrier(4)

        def read(found=found, barrier=barrier):
            barrier.wait()
            found.append(heap.root["a"])

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(array is found[0] for array in found)


def test_collect_frees_no_memory_that_a_view_shows(heap):
    heap.root["a"] = np.full(5000, 7.0)
    view = heap.root["a"][100:200]
    del heap.root["a"]
    heap.commit()
    heap.collect()
    heap.commit()
    others = [heap.array(5000, fill=1) for _ in range(20)]
    assert (view == 7).all()
    view[:] = 8
    assert all((other == 1).all() for other in others)
    del view, others
    before = heap.stats().free_bytes
    heap.collect()
    assert heap.stats().free_bytes >= before + 40_000


def test_memory_of_an_array_that_was_rolled_back_is_given_to_nobody(heap):
    heap.commit()
    array = heap.array(1000, "u1", fill=1)
    heap.root["a"] = array
    heap.rollback()
    assert "a" not in heap.root
    with pytest.raises(dh.StaleObjectError):
        heap.root["a"] = array
    with pytest.raises(dh.StaleObjectError):
        heap.root["a"] = array[::2]
    others = [heap.array(1000, "u1") for _ in range(50)]
    array[:] = 2
    assert not any(other.any() for other in others)
    assert (array == 2).all()
    heap.root["a"] = array.copy()
    heap.collect()
    assert (heap.root["a"] == 2).all() and heap.verify().ok


def test_rollback_and_transactions_restore_the_contents(heap):
    array = heap.array(3000, fill=1)
    heap.root["a"] = array
    heap.commit()
    array[1500:] = 2
    heap.rollback()
    assert heap.root["a"] is array and (array == 1).all()
    with pytest.raises(KeyError), heap.transaction():
        array[::3] = 5
        array *= 2
        heap.root["b"] = array[:5]
        raise KeyError
    assert (array == 1).all() and "b" not in heap.root
    with heap.transaction():
        array[0] = 9
    heap.rollback()
    assert array[0] == 9


def test_closing_with_arrays_alive(path):
    heap = dh.open(path)
    array = heap.array(4, fill=1)
    heap.root["a"] = array
    heap.commit()
    view = array[1:]
    with pytest.warns(ResourceWarning, match="1 view"):
        heap.close()
    view[:] = 5
    assert array.tolist() == [1, 5, 5, 5]
    with pytest.raises(dh.HeapClosedError):
        heap.array(3)
    with dh.open(path) as again:
        again.root["b"] = array  # memory of a closed heap is memory
        assert again.root["b"].tolist() == [1, 5, 5, 5] and again.root["a"].tolist() == [1] * 4
    del array, view


def test_read_only_heaps_show_arrays_that_cannot_be_written(heap):
    heap.root["a"] = np.arange(3)
    heap._core.read_only = True
    array = heap.root["a"]
    assert not array.flags.writeable
    with pytest.raises(ValueError):
        array[0] = 1
    with pytest.raises(ValueError):
        array.flags.writeable = True
    with pytest.raises(dh.ReadOnlyError):
        heap.array(3)
    heap._core.read_only = False


def test_exports_are_counted(heap):
    assert heap.stats().exported_views == 0
    array = heap.array(10)
    views = [array[i:] for i in range(5)]
    assert heap.stats().exported_views == 1
    del array
    assert heap.stats().exported_views == 1
    del views
    assert heap.stats().exported_views == 0
    empty = heap.array(0)
    heap.root["e"] = empty
    assert heap.root["e"] is empty


# --- copies, damage, others -----------------------------------------------------------------------


def test_copies_are_plain(heap):
    heap.root["a"] = np.asfortranarray(np.arange(6).reshape(2, 3))
    heap.root["d"] = {"in": [heap.root["a"], (heap.root["a"],)], "also": heap.root["a"]}
    array = heap.root["a"]
    for found in (
        dh.to_python(array),
        dh.to_python(heap.root)["a"],
        dh.to_python([array])[0],
        copy.copy(array),
        copy.deepcopy(array),
        copy.deepcopy(heap.root)["d"]["in"][0],
        pickle.loads(pickle.dumps(array)),
        pickle.loads(pickle.dumps(heap.root))["a"],
        array.copy(),
    ):
        same(found, array)
        assert not np.shares_memory(found, array)
    found = dh.to_python(heap.root)
    assert found["d"]["in"][0] is found["a"] is found["d"]["also"] is found["d"]["in"][1][0]
    assert found["a"].flags.f_contiguous


def test_mark_dirty_takes_arrays(heap):
    array = heap.array(10_000)
    heap.root["a"] = array
    heap.commit()
    heap.mark_dirty(array)
    heap.mark_dirty(array[5:10])
    with pytest.raises(ValueError, match="contiguous"):
        heap.mark_dirty(array[::2])
    heap.mark_dirty(heap.array(3, "M8[s]"))
    heap.mark_dirty(heap.array((3, 4), order="F"))
    heap.mark_dirty(heap.array(0))
    with pytest.raises(OSError, match="does not lie"):
        heap.mark_dirty(np.zeros(3))


def test_readinto_and_memoryview_and_ctypes(heap):
    array = heap.array(10, "u1")
    heap.root["a"] = array
    assert io.BytesIO(b"0123456789").readinto(array) == 10
    memoryview(array)[2:4] = b"xy"
    ctypes.memset(address(array) + 9, ord("!"), 1)
    assert heap.root["a"].tobytes() == b"01xy45678!"


def test_descriptions_that_numpy_does_not_accept(heap):
    """What the core lets through and numpy does not is damage too, never a crash."""
    buffer = heap.buffer(64)
    field = ("a", 0, "<f4", None)
    for dtype, shape, strides in [
        ("|V4611686018427387", (0,), (1,)),
        ((8, 0, (field, field)), (), ()),
        ((8, 1, (("a", 2, "<f4", None),)), (), ()),
        ((8, 0, (field, ("b", 4, "<f4", "a"))), (), ()),
        ((8, 0, (("", 0, "<f4", None),) * 2), (), ()),
    ]:
        heap.root["a"] = heap._core.new_array(buffer, (dtype, shape, strides, 0))
        with pytest.raises(dh.HeapCorruptError, match="no sense to numpy"):
            heap.root["a"]


@pytest.mark.parametrize(
    "description",
    [
        (),
        ("<f8", (), ()),
        ("<f8", (9,), (8,), 0),
        ("<f8", (2,), (8,), 56),
        ("<f8", (2,), (-8,), 0),
        ("<f8", (-1,), (8,), 0),
        ("<f8", (2, 2), (8,), 0),
        ("<f8", [8], (8,), 0),
        ("<f8", (1 << 61, 1 << 61), (0, 0), 0),
        ("<f8", (2,), (1 << 70,), 0),
        ("<f8", (), (), -1),
        ("<f8", (), (), 57),
        ("|O8", (), (), 0),
        ("f8", (), (), 0),
        ("<f8,<f8", (), (), 0),
        (("<f8", (100,)), (), (), 0),
        ((8, 0, (("a", 4, "<f8", None),)), (), (), 0),
    ],
)
def test_unsound_descriptions_get_nowhere(heap, description):
    with pytest.raises(ValueError, match="description"):
        heap._core.new_array(heap.buffer(64), description)
    assert heap.verify().ok


extents = st.one_of(
    st.integers(-2, 20), st.sampled_from([1 << 31, 1 << 61, (1 << 62) - 1, 1 << 62])
)
steps = st.one_of(st.integers(-40, 40), extents, extents.map(lambda extent: -extent))
spellings = st.one_of(
    st.sampled_from(
        ["<f8", "|b1", ">U2", "<M8[25s]", "|V0", "|S9", "O", "<f8,<f8", "|V99999999999"]
    ),
    st.text("<>|biufcmMSUV0123456789[]sn", max_size=9),
)
dtype_parts = st.recursive(
    spellings,
    lambda inner: st.one_of(
        st.tuples(inner, st.lists(extents, max_size=2).map(tuple)),
        st.tuples(
            extents,
            st.integers(0, 4),
            st.lists(
                st.tuples(st.sampled_from("ab"), extents, inner, st.none() | st.just("b")),
                max_size=3,
            ).map(tuple),
        ),
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
@given(
    dtype=dtype_parts,
    axes=st.lists(st.tuples(extents, steps), max_size=3),
    offset=st.integers(-8, 72),
)
def test_no_description_shows_memory_outside_its_buffer(shared_heap, dtype, axes, offset):
    shape, strides = tuple(extent for extent, _ in axes), tuple(step for _, step in axes)
    buffer = shared_heap.buffer(64)
    try:
        shared_heap.root["a"] = shared_heap._core.new_array(buffer, (dtype, shape, strides, offset))
        found = shared_heap.root["a"]
    except (ValueError, dh.HeapCorruptError):
        return
    assert not found.dtype.hasobject and (found.shape, found.strides) == (shape, strides)
    if found.size and found.itemsize:
        low, high = np.lib.array_utils.byte_bounds(found)
        start = address(np.frombuffer(buffer, "u1"))
        assert start <= low and high <= start + 64
        found.tobytes() if found.nbytes < 1 << 20 else None


@pytest.fixture(scope="module")
def shared_heap(tmp_path_factory):
    with dh.open(tmp_path_factory.mktemp("shared") / "heap", capacity=1 << 30) as heap:
        yield heap


def test_verify_finds_damaged_descriptions(heap):
    """The text of the type, written over in memory."""
    array = heap.array(4, "M8[25us]")  # a text of more than 7 bytes is a cell of its own
    heap.root["a"] = array
    heap.commit()
    del array
    gc.collect()
    arena = ctypes.cast(find_in_arena(heap, b"<M8[25us]"), ctypes.POINTER(ctypes.c_char))
    for at, byte in [(1, b"O"), (2, b"9"), (3, b"("), (6, b"X")]:
        was = arena[at]
        arena[at] = byte
        report = heap.verify()
        assert not report.ok and "description" in report.first_problem
        with pytest.raises(dh.HeapCorruptError, match="description"):
            heap.root["a"]
        arena[at] = was
    assert heap.verify().ok
    same(heap.root["a"], np.zeros(4, "M8[25us]"))


def find_in_arena(heap: dh.Heap, text: bytes) -> int:
    """Address of the only place in the arena that holds this text. A mapping that is not watched
    may be one with its neighbours: the arena is no further away than it is long."""
    with memoryview(heap.buffer(1)) as view:
        inside = ctypes.addressof(ctypes.c_char.from_buffer(view))
    reach = heap.stats().arena_bytes
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= inside < last:
            base, end = max(first, inside - reach), min(last, inside + reach)
    content = ctypes.string_at(base, end - base)
    assert content.count(text) == 1
    return base + content.index(text)


# --- without numpy --------------------------------------------------------------------------------


def test_numpy_is_not_imported_until_it_is_needed(path):
    run_ok(
        """
        import sys, dirtyheap as dh
        with dh.open(sys.argv[1]) as heap:
            heap.root["a"] = [1, {"b": (2.5, b"x")}]
            heap.commit()
            dh.to_python(heap.root)
            try:
                heap.root["b"] = object()
            except TypeError:
                pass
            assert "numpy" not in sys.modules
            heap.root["c"] = heap.array(3)
            assert "numpy" in sys.modules
        """.replace("\n        ", "\n"),
        path,
    )


def test_without_numpy_the_rest_works_and_arrays_say_what_is_missing(path):
    with dh.open(path) as heap:
        heap.root.update({"a": np.arange(3), "b": [1, 2]})
        heap.commit()
    run_ok(
        """
        import sys, dirtyheap as dh
        sys.modules["numpy"] = None
        with dh.open(sys.argv[1]) as heap:
            assert heap.root["b"] == [1, 2] and "a" in heap.root and list(heap.root) == ["a", "b"]
            root = heap.root
            for read in (lambda: root["a"], lambda: heap.array(3), lambda: list(root.values())):
                try:
                    read()
                except ImportError as error:
                    assert "pip install 'dirtyheap[numpy]'" in str(error), error
                else:
                    raise AssertionError("it was read")
            assert heap.verify().ok and heap.collect().live_cells
            del heap.root["a"]
            heap.commit()
        """.replace("\n        ", "\n"),
        path,
    )


def test_the_handle_cannot_be_made_directly():
    with pytest.raises(TypeError, match="heap"):
        _native.Array()
    assert sys.getrefcount(_native.Array) > 0


def test_torch_tensors_share_the_memory(heap):
    try:
        import torch
    except ImportError:
        skip_test("torch is not installed")
    array = heap.array((2, 3), "f4")
    heap.root["a"] = array
    heap.commit()
    torch.from_numpy(array).add_(1)
    assert (heap.root["a"] == 1).all() and heap.pending().pages == 1


# --- Python code in the middle --------------------------------------------------------------------

ACTIONS = {
    "commit": lambda heap: heap.commit(),
    "rollback": lambda heap: heap.rollback(),
    "collect": lambda heap: heap.collect(),
    "close": lambda heap: heap.close(),
    "clear": lambda heap: (heap.root.clear(), heap.collect()),
    "store": lambda heap: heap.root.update({"list": [np.arange(3)], "more": np.zeros(5000)}),
}


class Bomb:
    """Acts on the heap when Python's collector finds it, and leaves another one behind."""

    left = 0

    def __init__(self, act):
        self.act, self.myself = act, self

    def __del__(self):
        if Bomb.left > 0:
            Bomb.left -= 1
            Bomb(self.act)
            with contextlib.suppress(dh.HeapError):
                self.act()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", list(ACTIONS))
def test_pythons_collector_may_change_everything_at_any_time(path, name):
    heap = dh.open(path)
    heap.root["list"] = [np.arange(3), (np.arange(4), [np.arange(5)]), heap.array(6)]
    heap.commit()
    steps = [
        lambda: heap.root.update({"a": np.arange(9), "b": [np.arange(8), heap.array(3)[::2]]}),
        lambda: heap.root["list"].append(heap.root["list"][0][1:]),
        lambda: [array.sum() for array in heap.root["list"] if isinstance(array, np.ndarray)],
        lambda: heap.root["list"][1][0].sum(),
        lambda: dh.to_python(heap.root),
        lambda: heap.root["list"].pop(0).sum(),
        lambda: repr(heap.root),
        lambda: heap.root.setdefault("c", np.arange(4)).sum(),
        lambda: heap.array(100, fill=3).sum(),
    ]
    Bomb.left = 40
    old = gc.get_threshold()
    try:
        Bomb(lambda: ACTIONS[name](heap))
        gc.set_threshold(1, 1, 1)
        for step in steps:
            with contextlib.suppress(dh.HeapError, LookupError, RuntimeError):
                step()
    finally:
        gc.set_threshold(*old)
        Bomb.left = 0
        gc.collect()
    if not heap.closed:
        report = heap.verify()
        assert report.ok, report.first_problem
        heap.close()
    with dh.open(path) as again:
        assert again.verify().ok


def test_weakref_callbacks_act_when_an_array_goes(heap):
    heap.root["list"] = [np.full(3, i) for i in range(10)]
    heap.commit()
    gone = []

    def act(_):
        gone.append(len(heap.root["list"]))
        heap.root["list"].append(np.arange(3))
        heap.commit()

    for array in heap.root["list"][:]:
        reference = weakref.ref(array, act)
        del array
        assert reference() is None or gone is not None
    for i in range(5):
        reference = weakref.ref(heap.root["list"][i], act)
        assert reference() is None
    assert len(gone) >= 5 and heap.verify().ok

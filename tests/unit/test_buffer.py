"""Buffer is memory that anybody may write, and that outlives everything but its last view."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import pickle
import warnings

import pytest

import dirtyheap

PAGE = 4096


def test_new_ones_are_zero(heap):
    buffer = heap.buffer(10_000)
    assert len(buffer) == buffer.nbytes == 10_000
    assert bytes(buffer) == bytes(10_000)


def test_with_content(heap):
    for content in (b"bytes", bytearray(b"array"), memoryview(b"a view of bytes"), b""):
        assert bytes(heap.buffer(content)) == bytes(content)
        assert heap.buffer(content) == content


def test_items_and_slices(heap):
    buffer = heap.buffer(b"0123456789")
    assert buffer[0] == ord("0") and buffer[-1] == ord("9")
    assert buffer[2:5] == b"234" and buffer[::3] == b"0369" and buffer[100:] == b""
    assert type(buffer[2:5]) is bytes
    buffer[0] = 65
    buffer[-2:] = b"YZ"
    buffer[1:4] = memoryview(buffer)[4:7]
    assert bytes(buffer) == b"A4564567YZ"
    assert list(buffer) == list(b"A4564567YZ")
    assert buffer.tobytes() == b"A4564567YZ"
    assert 65 in buffer


def test_wrong_items(heap):
    buffer = heap.buffer(4)
    for index in (4, -5):
        with pytest.raises(IndexError):
            buffer[index]
        with pytest.raises(IndexError):
            buffer[index] = 1
    with pytest.raises(ValueError):
        buffer[0] = 256
    with pytest.raises(ValueError):
        buffer[0:2] = b"abc"
    with pytest.raises(TypeError):
        buffer[0] = "a"
    with pytest.raises(TypeError, match="keeps its size"):
        del buffer[0]
    with pytest.raises(TypeError):
        buffer["a"]
    assert bytes(buffer) == bytes(4)


def test_wrong_sizes(heap):
    with pytest.raises(ValueError, match="negative"):
        heap.buffer(-1)
    with pytest.raises(TypeError):
        heap.buffer("text")
    with pytest.raises((OverflowError, dirtyheap.HeapFullError)):
        heap.buffer(2**70)
    with pytest.raises((OverflowError, dirtyheap.HeapFullError)):
        heap.buffer(2**50)


def test_empty(heap):
    heap.root["empty"] = buffer = heap.buffer(0)
    with memoryview(buffer) as view:
        assert view.nbytes == 0 and not view.readonly
    assert bytes(buffer) == b"" and len(buffer) == 0 and not buffer
    assert heap.buffer(b"") == buffer


def test_equality_and_repr(heap):
    buffer = heap.buffer(b"same")
    assert buffer == b"same" and b"same" == buffer and buffer == heap.buffer(b"same")
    assert buffer != b"other" and buffer != "same" and buffer != 4
    assert repr(buffer) == "<dirtyheap.Buffer of 4 bytes>"
    with pytest.raises(TypeError, match="unhashable"):
        hash(buffer)
    with pytest.raises(TypeError, match=r"heap\.buffer\(\)"):
        dirtyheap.Buffer()


def test_views_write_into_the_heap(tmp_path):
    with dirtyheap.open(tmp_path / "h") as heap:
        heap.root["data"] = buffer = heap.buffer(3 * PAGE)
        heap.commit()
        with memoryview(buffer) as view:
            assert view.nbytes == 3 * PAGE and view.contiguous and not view.readonly
            view[PAGE : PAGE + 5] = b"hello"
            assert io.BytesIO(b"from a file").readinto(view[: len("from a file")]) == 11
        heap.commit()
        assert heap.pending().pages == 0
    with dirtyheap.open(tmp_path / "h") as heap:
        data = heap.root["data"]
        assert data[:11] == b"from a file"
        assert data[PAGE : PAGE + 6] == b"hello\0"


def test_numpy_writes_into_the_heap(tmp_path):
    import numpy

    with dirtyheap.open(tmp_path / "h") as heap:
        heap.root["data"] = buffer = heap.buffer(8 * 10_000)
        array = numpy.frombuffer(buffer, dtype="<f8")
        array[:] = numpy.arange(10_000)
        heap.commit()
        array[5000] = -1
        assert 1 <= heap.pending().pages <= 2
        heap.commit()
        del array
    with dirtyheap.open(tmp_path / "h") as heap:
        array = numpy.frombuffer(heap.root["data"], dtype="<f8")
        assert array[5000] == -1 and array[9999] == 9999
        del array


def test_stored_and_found_again(heap):
    buffer = heap.buffer(b"content")
    heap.root["list"] = [buffer, {"again": buffer}]
    assert heap.root["list"][0] is buffer
    assert heap.root["list"][1]["again"] is buffer
    assert dirtyheap.to_python(buffer) == bytearray(b"content")
    plain = dirtyheap.to_python(heap.root["list"])
    assert type(plain[0]) is bytearray and plain[0] is plain[1]["again"]


def test_views_are_counted(heap):
    buffer = heap.buffer(100)
    assert heap._core.exports_count == 0
    views = [memoryview(buffer) for _ in range(5)]
    assert heap._core.exports_count == 5
    part = views[0][10:20]
    del views
    assert heap._core.exports_count == 1
    part.release()
    del part
    gc.collect()
    assert heap._core.exports_count == 0


def test_a_view_keeps_the_buffer(heap):
    heap.root["b"] = heap.buffer(PAGE)
    view = memoryview(heap.root["b"])
    del heap.root["b"]
    view[0] = 7
    heap.collect()
    others = [heap.buffer(PAGE) for _ in range(50)]
    assert view[0] == 7
    assert all(not any(other) for other in others)


def test_a_view_of_a_buffer_that_was_rolled_back(heap):
    heap.commit()
    buffer = heap.buffer(PAGE)
    view = memoryview(buffer)
    heap.rollback()
    with pytest.raises(dirtyheap.StaleObjectError):
        len(buffer)
    others = [heap.buffer(PAGE) for _ in range(50)]
    view[:4] = b"mine"
    assert all(not any(other) for other in others)
    assert view[:4] == b"mine"


def test_closing_with_views_alive(tmp_path):
    heap = dirtyheap.open(tmp_path / "h")
    heap.root["b"] = buffer = heap.buffer(b"before")
    heap.commit()
    view = memoryview(buffer)
    with pytest.warns(ResourceWarning, match="1 view"):
        heap.close()
    assert bytes(view) == b"before"
    view[:] = b"after!"
    assert bytes(view) == b"after!"
    with pytest.raises(dirtyheap.HeapClosedError):
        bytes(buffer)
    with pytest.raises(dirtyheap.HeapClosedError):
        len(buffer)
    with dirtyheap.open(tmp_path / "h") as again:
        assert again.root["b"] == b"before"
        assert bytes(view) == b"after!"
    del view
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


def test_read_only_views(heap):
    buffer = heap.buffer(b"abc")
    heap._core.read_only = True
    with memoryview(buffer) as view:
        assert view.readonly
    with pytest.raises((BufferError, TypeError)):
        io.BytesIO(b"x").readinto(buffer)
    with pytest.raises(dirtyheap.ReadOnlyError):
        buffer[0] = 1
    with pytest.raises(dirtyheap.ReadOnlyError):
        heap.buffer(1)
    heap._core.read_only = False
    buffer[0] = 65
    assert buffer == b"Abc"


def test_beyond_the_capacity(small_heap):
    with pytest.raises(dirtyheap.HeapFullError, match="capacity="):
        small_heap.buffer(4 << 20)
    assert len(small_heap.buffer(1 << 20)) == 1 << 20


def test_index_that_closes_the_heap(tmp_path):
    heap = dirtyheap.open(tmp_path / "h")
    buffer = heap.buffer(100)

    class Index:
        def __index__(self):
            heap.close()
            return 5

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with contextlib.suppress(dirtyheap.HeapClosedError):
            buffer[Index()] = 1
    assert heap.closed


def test_contains_is_that_of_bytearray(heap):
    content = b"some \x00 bytes, some more"
    buffer, plain = heap.buffer(content), bytearray(content)
    for value in (0, 115, 255, b"", b"some more", b"\x00 b", b"absent", b"more!", bytearray(b"m")):
        assert (value in buffer) == (value in plain), value
    for bad, error in ((256, ValueError), (-1, ValueError), ("some", TypeError), (1.5, TypeError)):
        with pytest.raises(error):
            bad in buffer
    assert b"" in heap.buffer(0) and b"a" not in heap.buffer(0)


def test_copies_and_pickles_are_bytearrays(heap):
    buffer = heap.buffer(b"some bytes")
    for plain in (copy.copy(buffer), copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
        assert type(plain) is bytearray and plain == b"some bytes"

"""ndarrays in the heap: from numpy's words to an Array's description and back.

An Array (``native/src/array.h``) is a window on a Buffer; what it means only numpy knows, so making
and reading one is done here. numpy is imported when the first array is made or read, never before.
A description is data, not text to evaluate, and the core has checked it before it gets here: types
without pointers, and nothing outside the Buffer. Must never show memory that no view pins.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from . import _native
from .errors import HeapCorruptError

if TYPE_CHECKING:
    import numpy

# Flags of a structure, as in native/src/array.h.
_ALIGNED: Final = 1
_RECORD: Final = 2
_DIMS_MAX: Final = 64  # DH_ARRAY_DIMS_MAX
_DTYPE_DEPTH_MAX: Final = 30
_STRIDE_LIMIT: Final = 1 << 62

Description = tuple[Any, tuple[int, ...], tuple[int, ...], int]


def _import_numpy() -> ModuleType:
    try:
        import numpy
    except ImportError as error:
        raise ImportError(
            "arrays in a heap need numpy: pip install 'dirtyheap[numpy]'", name="numpy"
        ) from error
    return numpy


# --- dtypes ---------------------------------------------------------------------------------------


def _describe(dtype: numpy.dtype[Any], depth: int = 0) -> Any:
    """The dtype as text, or as a tuple of such; exact but for its metadata, which numpy's own
    comparison and files leave out too."""
    if depth > _DTYPE_DEPTH_MAX:
        raise TypeError("the dtype is nested too deep for a heap")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _describe(base, depth + 1), shape
    if dtype.names is None:
        return dtype.str
    flags = _ALIGNED * dtype.isalignedstruct
    if dtype.type is sys.modules["numpy"].record:
        flags |= _RECORD
    fields = []
    for name in dtype.names:
        field, offset, title = (*dtype.fields[name], None)[:3]  # type: ignore[index]
        if title is not None and type(title) is not str:
            raise TypeError(f"the title of field {name!r} is no str, which a heap cannot hold")
        fields.append((name, offset, _describe(field, depth + 1), title))
    return dtype.itemsize, flags, tuple(fields)


def _dtype_of(description: Any) -> numpy.dtype[Any]:
    import numpy

    if isinstance(description, str):
        return numpy.dtype(description)
    if len(description) == 2:
        base, shape = description
        return numpy.dtype((_dtype_of(base), shape))
    itemsize, flags, fields = description
    spec: dict[str, Any] = {
        "names": [name for name, _, _, _ in fields],
        "formats": [_dtype_of(field) for _, _, field, _ in fields],
        "offsets": [offset for _, offset, _, _ in fields],
        "itemsize": itemsize,
    }
    if any(title is not None for _, _, _, title in fields):
        spec["titles"] = [title for _, _, _, title in fields]
    dtype: numpy.dtype[Any] = numpy.dtype(spec, align=bool(flags & _ALIGNED))  # type: ignore[call-overload]
    return numpy.dtype((numpy.record, dtype)) if flags & _RECORD else dtype


def _describe_exactly(dtype: numpy.dtype[Any]) -> Any:
    """The same, after making sure that it leads back to an equal dtype; TypeError with advice."""
    if dtype.hasobject:
        raise TypeError(
            f"an array of dtype {dtype} holds Python objects, which a heap cannot: use a dtype of "
            "fixed size (such as 'U20' for text), or a heap.list()"
        )
    description = _describe(dtype)
    try:
        again = _dtype_of(description)
        is_exact = again == dtype and _describe(again) == description
    except (TypeError, ValueError):
        is_exact = False
    if not is_exact:
        raise TypeError(
            f"dtype {dtype} is not one of numpy's own, which a heap could not read back: view the "
            "array with a dtype of the same size, such as 'u2', and store that"
        )
    return description


# --- reading --------------------------------------------------------------------------------------


def show(array: _native.Array) -> numpy.ndarray[Any, Any]:
    """The ndarray over the Array's memory; the same object while one is alive."""
    np = _import_numpy()
    shown: numpy.ndarray[Any, Any] | None = array.shown()
    if shown is not None:
        return shown
    dtype, shape, strides, offset = array.description
    # Through an ndarray over a memoryview: np.ndarray() alone would not hold the export.
    memory = np.asarray(memoryview(array))
    try:
        wanted = _dtype_of(dtype)
        if wanted.hasobject:
            raise TypeError("a dtype with Python objects")
        made = np.ndarray(shape, wanted, memory, offset, strides)
        if (made.dtype, made.shape, made.strides) != (wanted, shape, strides):
            raise TypeError(f"{wanted} of shape {shape} became {made.dtype} of shape {made.shape}")
    except (TypeError, ValueError, OverflowError) as error:
        raise HeapCorruptError(f"an array's description makes no sense to numpy: {error}") from None
    shown = array.show(made)  # another thread's, if that was faster
    assert shown is not None
    return shown


def plain_of(value: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """A copy in memory of its own of an ndarray that lives in a heap; any other as it is."""
    return value if _owner(value) is None else value.copy(order="K")


def plain(array: _native.Array) -> numpy.ndarray[Any, Any]:
    """A copy in memory of its own."""
    copy: numpy.ndarray[Any, Any] = _import_numpy().array(show(array), order="K", copy=True)
    return copy


# --- making ---------------------------------------------------------------------------------------


def _strides(shape: tuple[int, ...], dtype: numpy.dtype[Any], order: str) -> tuple[int, ...]:
    """Those of a contiguous array."""
    if 0 in shape:  # versions of numpy differ
        strides: tuple[int, ...] = _import_numpy().empty(shape, dtype, order).strides
        return strides
    steps = []
    step = dtype.itemsize
    for extent in reversed(shape) if order == "C" else shape:
        steps.append(step)
        step *= extent
    return tuple(reversed(steps) if order == "C" else steps)


def _make(
    core: _native.Core, shape: tuple[int, ...], dtype: numpy.dtype[Any], order: str
) -> _native.Array:
    description = (_describe_exactly(dtype), shape, _strides(shape, dtype, order), 0)
    size = math.prod(shape) * dtype.itemsize
    if size > sys.maxsize:
        raise OverflowError(f"an array of {size} bytes is too large")
    return core.new_array(core.new_buffer(size), description)


def new(
    core: _native.Core, shape: Any, dtype: Any, *, order: str, fill: Any
) -> numpy.ndarray[Any, Any]:
    """What :meth:`Heap.array` does."""
    np = _import_numpy()
    if isinstance(shape, np.ndarray):
        raise TypeError(
            "shape is an array: to copy one in, store it in a container of the heap, or pass "
            "heap.array(a.shape, a.dtype, fill=a)"
        )
    if order not in ("C", "F"):
        raise ValueError(f"order {order!r}: must be 'C' or 'F'")
    extents = shape if isinstance(shape, Sequence) else (shape,)
    wanted = tuple(operator.index(extent) for extent in extents)
    if min(wanted, default=0) < 0:
        raise ValueError(f"shape {shape!r}: no extent can be negative")
    dtype = np.dtype(dtype)
    _describe_exactly(dtype)
    if len(wanted) > _DIMS_MAX:
        raise ValueError(f"shape of {len(wanted)} axes: an array has at most {_DIMS_MAX}")
    one = np.empty((), dtype)  # numpy decides what a subarray, or text without a size, becomes
    made = show(_make(core, wanted + one.shape, one.dtype, order))
    if fill is not None:
        made[...] = fill
    return made


# --- storing --------------------------------------------------------------------------------------


def find_packer(kind: type) -> Callable[[_native.Core, Any], _native.Array] | None:
    """For exactly numpy.ndarray: a subclass means more than its memory (a mask, say)."""
    return pack if kind is sys.modules["numpy"].ndarray else None


def pack(core: _native.Core, value: numpy.ndarray[Any, Any]) -> _native.Array:
    """The Array to store for an ndarray: a link to its memory when that is in this heap, else a
    copy, in Fortran's order if it has that."""
    owner = _owner(value)
    if owner is not None and core.owns(owner):
        return _link(core, owner, value)
    array = _make(core, value.shape, value.dtype, "F" if value.flags.fnc else "C")
    show(array)[...] = value
    return array


def holder_of(value: Any) -> Any:
    """The Array or Buffer whose memory an ndarray shows; anything else as it is."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray):
        return value
    holder = _owner(value)
    return value if holder is None else holder


def _owner(value: Any) -> _native.Array | _native.Buffer | None:
    """The object of a heap at the end of the chain of bases."""
    import numpy

    while value is not None:
        if isinstance(value, (_native.Array, _native.Buffer)):
            return value
        if isinstance(value, memoryview):
            value = value.obj
        elif isinstance(value, numpy.ndarray) or _is_numpys(value):
            value = getattr(value, "base", None)  # as_strided leaves a helper object in the chain
        else:
            return None
    return None


def _is_numpys(value: object) -> bool:
    module = type(value).__module__
    return type(module) is str and module.startswith("numpy.")


def _link(
    core: _native.Core, owner: _native.Array | _native.Buffer, value: numpy.ndarray[Any, Any]
) -> _native.Array:
    if isinstance(owner, _native.Array) and owner.shown() is value:
        return owner
    import numpy

    memory = numpy.asarray(memoryview(owner))
    offset = _address(value) - _address(memory)
    if value.size == 0:
        offset = min(max(offset, 0), memory.nbytes)
    if offset < 0 or any(abs(stride) >= _STRIDE_LIMIT for stride in value.strides):
        raise ValueError("the array reaches beyond the memory of the heap's array it is a view of")
    description = (_describe_exactly(value.dtype), value.shape, value.strides, offset)
    return core.new_array(owner, description)


def extent_of(value: Any) -> tuple[int, int] | None:
    """(address, bytes) of a contiguous ndarray of any dtype; None for anything else. Some dtypes
    have no memoryview."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or not value.flags.forc:
        return None
    return _address(value), value.nbytes


def _address(value: numpy.ndarray[Any, Any]) -> int:
    address: int = value.__array_interface__["data"][0]
    return address

"""Making containers in a heap, and its root."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, SupportsIndex, TypeVar, overload

from . import _native, arrays

if TYPE_CHECKING:  # numpy is optional
    import numpy
    from numpy.typing import NDArray

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Scalar = TypeVar("_Scalar", bound="numpy.generic")


class Contents:
    """The part of a heap that makes containers. None is reachable until it is stored somewhere
    below the root."""

    _core: _native.Core

    @property
    def root(self) -> _native.Dict:
        """The dict at the top of the graph: what is reachable from it persists."""
        return self._core.root()

    def dict(self, initial: Mapping[Any, Any] | Iterable[Any] | None = None) -> _native.Dict:
        """A new Dict in this heap, linked to nothing yet; copies the initial contents in."""
        return self._core.new_dict(initial)

    def list(self, initial: Iterable[Any] | None = None) -> _native.List:
        """A new List in this heap, linked to nothing yet; copies the initial contents in."""
        return self._core.new_list(initial)

    def set(self, initial: Iterable[Any] | None = None) -> _native.Set:
        """A new Set in this heap, linked to nothing yet; copies the initial elements in."""
        return self._core.new_set(initial)

    def sorted_dict(
        self, initial: Mapping[Any, Any] | Iterable[Any] | None = None
    ) -> _native.SortedDict:
        """A new SortedDict in this heap, linked to nothing yet; copies the initial contents in.

        Its keys stay in order: ``irange``, ``bisect``, ``peekitem`` and positions as in
        ``sortedcontainers.SortedDict``. The order is that of the keys themselves; a key function
        could not be stored. Keys are int, float, bool, Decimal and Fraction among each other, or
        str, bytes, date, datetime (all naive or all aware), time, timedelta, UUID, paths, or tuples
        of these; what Python does not compare is refused (TypeError), and so is NaN (ValueError).

        >>> import dirtyheap as dh, tempfile, os
        >>> from datetime import datetime
        >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h")) as heap:
        ...     prices = heap.root["prices"] = heap.sorted_dict({datetime(2024, 1, 2): 10.5})
        ...     prices[datetime(2024, 1, 1)] = 10.0
        ...     prices.peekitem(0)
        (datetime.datetime(2024, 1, 1, 0, 0), 10.0)
        """
        return self._core.new_sorted_dict(initial)

    def new(
        self,
        cls: Callable[_Arguments, _Result],
        /,
        *args: _Arguments.args,
        **fields: _Arguments.kwargs,
    ) -> _Result:
        """A new record of a class made with :func:`dirtyheap.record`, linked to nothing yet.

        Values are given by name or in the order of the fields; plain containers among them are
        copied in. ``__post_init__`` is called when the class has one.

        Raises:
            TypeError: a field without default got no value, a value is not of its field's type,
                or there is no such field.

        Cost: one cell of 16 bytes and 8 per field, and the values that are not inline.

        >>> import dirtyheap as dh
        >>> @dh.record
        ... class Pixel:
        ...     x: int
        ...     y: int = 0
        >>> heap.root["p"] = heap.new(Pixel, 1)
        >>> heap.root["p"].y += 2
        >>> heap.root["p"]
        Pixel(x=1, y=2)
        """
        made: _Result = self._core.new_record(cls, *args, **fields)
        return made

    def deque(
        self, initial: Iterable[Any] | None = None, maxlen: int | None = None
    ) -> _native.Deque:
        """A new Deque in this heap, linked to nothing yet; copies the initial contents in. With
        ``maxlen`` it never gets longer: what is added at one end pushes out at the other."""
        return self._core.new_deque(initial, maxlen)

    def buffer(self, initial: int | bytes | bytearray | memoryview) -> _native.Buffer:
        """A new Buffer: ``initial`` zero bytes, or a copy of bytes. It takes whole pages.

        Anything that writes through its memory (``memoryview``, ``numpy.frombuffer``,
        ``readinto``, C code) is seen by the next commit.
        """
        return self._core.new_buffer(initial)

    @overload
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: type[float] = ...,
        *,
        order: str = ...,
        fill: Any = ...,
    ) -> NDArray[numpy.float64]: ...
    @overload
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: type[_Scalar] | numpy.dtype[_Scalar],
        *,
        order: str = ...,
        fill: Any = ...,
    ) -> NDArray[_Scalar]: ...
    @overload
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: Any,
        *,
        order: str = ...,
        fill: Any = ...,
    ) -> NDArray[Any]: ...
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: Any = float,
        *,
        order: str = "C",
        fill: Any = None,
    ) -> NDArray[Any]:
        """A new numpy.ndarray whose memory is in this heap; needs numpy.

        It is an ordinary ndarray: whatever writes to it or to a view of it, in place or through
        ``out=``, is seen by the next commit. Stored in a container it is linked, not copied, and
        so is any view of it; other ndarrays are copied in. It never grows: make a larger one and
        copy. Takes whole pages.

        Args:
            shape: extents of the axes, or one int.
            dtype: any but those that hold Python objects.
            order: ``"C"`` or ``"F"``: the last or the first axis is contiguous.
            fill: what to fill it with, as in ``array[...] = fill``; zeros if None.

        Raises:
            TypeError: the dtype holds Python objects, or is not one of numpy's own.
            HeapFullError: it does not fit the heap's capacity.
            OverflowError: no heap could hold it.
            ValueError: a negative extent, too many axes, or a fill of another shape.
            ImportError: numpy is not installed.

        Cost: O(bytes).

        >>> import dirtyheap as dh, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "field")
        >>> with dh.open(path) as heap:
        ...     field = heap.array((3, 4), "f8", fill=1)
        ...     heap.root["field"], heap.root["edge"] = field, field[:, 0]
        ...     field *= 2
        ...     heap.root["edge"][1] = 7
        ...     commit = heap.commit()
        ...     del field
        >>> with dh.open(path) as heap:
        ...     print(heap.root["field"])
        [[2. 2. 2. 2.]
         [7. 2. 2. 2.]
         [2. 2. 2. 2.]]
        """
        return arrays.new(self._core, shape, dtype, order=order, fill=fill)

"""What differs between two commits, as seen by a user: by containers, keys and elements.

    both states are walked once: container -> where it was met first
    a container that both have, by serial, is compared slot by slot; one that has another place is
    one "moved", and neither its slots' losses and gains nor what is below it are told again

Works on two snapshots, so nothing changes under it. No recursion: graphs may be deep and cyclic.
Values that cannot be read here (pickles, records whose class does not fit) are compared by nothing
and told as unreadable; they stop nothing.
"""

from __future__ import annotations

import reprlib
import sys
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import _native
from ._ffi import check, ffi, lib
from .errors import HeapError
from .results import Change, Diff

if TYPE_CHECKING:
    from .heap import Heap

_KEYED: Final = (_native.Dict, _native.SortedDict)
_ORDERED: Final = (_native.List, _native.Deque)
_TEXT_CHARACTERS_MAX: Final = 100
_DECIMAL_INT_BITS: Final = 2000  # Python's limit can be set to 640 digits, not lower
_RANGES_MAX: Final = 100  # of one buffer's bytes; what lies between more is told as one
_BLOCK_BYTES: Final = 4096
# Forms of steps.
_KEY: Final = "[{}]"
_POSITION: Final = "[{0}]"
_ELEMENT: Final = "{{{}}}"
_FIELD: Final = ".{}"
# Types of values that hold nothing and are the same when they are equal and of one type.
_PLAIN: Final = frozenset({int, str, bytes, bool, type(None)})


class _Step(NamedTuple):
    """From a container to what it holds; a text only when asked, for most are never told."""

    form: str  # of the text, around the key's
    key: Any
    inner: str = ""  # further, into a tuple or frozenset

    @property
    def is_position(self) -> bool:
        """In a list, where others come and go before it."""
        return self.form == _POSITION and not self.inner

    def __str__(self) -> str:
        key = self.key if self.form == _FIELD else text(self.key)
        return self.form.format(key) + self.inner


class _Place(NamedTuple):
    """Where a container was met first: the step below a parent; the root has no parent (0)."""

    parent: int
    step: _Step


class _Unreadable(NamedTuple):
    why: str

    def __repr__(self) -> str:
        return f"<unreadable: {self.why}>"


def compare(old: Heap, new: Heap, limit: int) -> Diff:
    """Hold two snapshots of one store against each other; at most ``limit`` changes are listed."""
    pages, changed = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    check(lib.dh_compare(old._ptr, new._ptr, pages, changed))
    changes: list[Change] = []
    more = 0
    if pages[0]:
        for change in _Differ(_State(old), _State(new)).changes():
            if len(changes) < limit:
                changes.append(change)
            else:
                more += 1
    return Diff(
        before=old.last_commit_id,
        after=new.last_commit_id,
        pages=pages[0],
        bytes=changed[0],
        changes=tuple(changes),
        more=more,
    )


class _State:
    """One of both states: every container that the root reaches, by serial."""

    def __init__(self, heap: Heap) -> None:
        self.serial = heap._core.serial
        self.stored_fields = heap._core.stored_fields
        self.containers: dict[int, Any] = {}
        self.places: dict[int, _Place] = {}
        self._to_walk: deque[int] = deque()
        self._meet(heap.root, _Place(0, _ROOT))
        while self._to_walk:
            serial = self._to_walk.popleft()
            for form, key, value in self._slots(self.containers[serial]):
                if type(value) in _PLAIN:
                    continue
                for inner, inner_step in _inner(value):
                    self._meet(inner, _Place(serial, _Step(form, key, inner_step)))

    def _meet(self, value: Any, place: _Place) -> None:
        serial = self.serial(value)
        if serial and serial not in self.containers:
            self.containers[serial] = value
            self.places[serial] = place
            self._to_walk.append(serial)

    def _slots(self, container: Any) -> Iterator[tuple[str, Any, Any]]:
        """Form and key of a step, and what is there."""
        if isinstance(container, _KEYED):
            for key, value in self.items(container):
                yield _KEY, key, key
                yield _KEY, key, value
        elif isinstance(container, _ORDERED):
            for index, value in enumerate(_values(container)):
                yield _POSITION, index, value
        elif isinstance(container, _native.Set):
            for element in _values(container):
                yield _ELEMENT, element, element
        elif isinstance(container, _native.Record):
            for name, value in self.fields(container):
                yield _FIELD, name, value

    def items(self, container: Any) -> Iterator[tuple[Any, Any]]:
        """Keys and values; what cannot be read is told as such."""
        for key in container:
            try:
                value = container[key]
            except (HeapError, TypeError, ValueError) as error:
                value = _Unreadable(str(error))
            yield key, value

    def fields(self, record: Any) -> list[tuple[str, Any]]:
        """The fields that a record was stored with."""
        try:
            return list(self.stored_fields(record).items())
        except (HeapError, TypeError, ValueError) as error:
            return [("__dict__", _Unreadable(str(error)))]

    def path(self, serial: int) -> str:
        """As one would write it."""
        steps: list[str] = []
        while serial:
            place = self.places[serial]
            steps.append(str(place.step))
            serial = place.parent
        return "".join(reversed(steps)).removeprefix(".")


_ROOT: Final = _Step(_FIELD, "root")


def _inner(value: Any) -> Iterator[tuple[Any, str]]:
    """The containers in a value and the steps to them: itself, or those in a tuple or frozenset."""
    pending = [(value, "")]
    while pending:
        one, step = pending.pop()
        if isinstance(one, tuple):
            pending += [(item, f"{step}[{index}]") for index, item in enumerate(one)]
        elif isinstance(one, frozenset):
            pending += [(item, f"{step}{{{text(item)}}}") for item in one]
        elif isinstance(one, _native.Container):
            yield one, step


class _Differ:
    """Two states, and the containers that have another place in the newer one."""

    def __init__(self, old: _State, new: _State) -> None:
        self._old = old
        self._new = new
        self._moved = {
            serial
            for serial in old.containers.keys() & new.containers.keys()
            if self._is_moved(old.places[serial], new.places[serial])
        }

    def changes(self) -> Iterator[Change]:
        """All of them: container by container, in the order the older state is walked."""
        for serial, container in self._old.containers.items():
            if serial not in self._new.containers:
                continue  # told where it was taken out
            if serial in self._moved:
                yield Change("moved", self._old.path(serial), "", self._new.path(serial))
            yield from self._compare(serial, container, self._new.containers[serial])

    def _compare(self, serial: int, old: Any, new: Any) -> Iterator[Change]:
        if isinstance(old, _KEYED):
            yield from self._compare_items(serial, self._old.items(old), self._new.items(new))
        elif isinstance(old, _ORDERED):
            yield from self._compare_sequences(serial, _values(old), _values(new))
        elif isinstance(old, _native.Set):
            yield from self._compare_sets(serial, _values(old), _values(new))
        elif isinstance(old, _native.Record):
            yield from self._compare_fields(serial, self._old.fields(old), self._new.fields(new))
        elif isinstance(old, _native.Buffer):
            path = self._new.path(serial)
            with memoryview(old) as before, memoryview(new) as after:
                yield from _compare_bytes(path, before, after)

    def _compare_items(
        self, serial: int, old: Iterable[tuple[Any, Any]], new: Iterable[tuple[Any, Any]]
    ) -> Iterator[Change]:
        before = {_identity(self._old, key): (key, value) for key, value in old}
        for key, value in new:
            was = before.pop(_identity(self._new, key), None)
            if was is None:
                yield from self._added(serial, _Step(_KEY, key), value)
            elif not self._is_same(was[1], value):
                yield from self._slot(serial, _Step(_KEY, key), was[1], value)
        for key, value in before.values():
            yield from self._removed(serial, _Step(_KEY, key), value)

    def _compare_fields(
        self, serial: int, old: list[tuple[str, Any]], new: list[tuple[str, Any]]
    ) -> Iterator[Change]:
        before = dict(old)
        for name, value in new:
            if name in before:
                yield from self._slot(serial, _Step(_FIELD, name), before.pop(name), value)
            else:
                yield from self._added(serial, _Step(_FIELD, name), value)
        for name, value in before.items():
            yield from self._removed(serial, _Step(_FIELD, name), value)

    def _compare_sets(
        self, serial: int, old: Iterable[Any], new: Iterable[Any]
    ) -> Iterator[Change]:
        before = {_identity(self._old, element): element for element in old}
        for element in new:
            identity = _identity(self._new, element)
            if identity in before:
                del before[identity]
            else:
                yield from self._added(serial, _Step(_ELEMENT, element), element)
        for element in before.values():
            yield from self._removed(serial, _Step(_ELEMENT, element), element)

    def _compare_sequences(
        self, serial: int, old: Sequence[Any], new: Sequence[Any]
    ) -> Iterator[Change]:
        """What both ends have in common is the same elements, wherever they stand."""
        shorter = min(len(old), len(new))
        begin = 0
        while begin < shorter and self._is_same(old[begin], new[begin]):
            begin += 1
        end = 0
        while end < shorter - begin and self._is_same(old[-1 - end], new[-1 - end]):
            end += 1
        middle = shorter - begin - end
        for index in range(begin, begin + middle):
            yield from self._slot(serial, _Step(_POSITION, index), old[index], new[index])
        for index in range(begin + middle, len(new) - end):
            yield from self._added(serial, _Step(_POSITION, index), new[index])
        for index in range(begin + middle, len(old) - end):
            yield from self._removed(serial, _Step(_POSITION, index), old[index])

    # --- one slot ----------------------------------------------------------------------------

    def _slot(self, parent: int, step: _Step, old: Any, new: Any) -> Iterator[Change]:
        if self._is_same(old, new):
            return
        path = self._new.path(parent) + str(step)
        if _is_array(old) and _is_array(new) and _array_kind(old) == _array_kind(new):
            with memoryview(_array_bytes(old)) as before, memoryview(_array_bytes(new)) as after:
                yield from _compare_bytes(f"{path}.tobytes()", before, after)
            return
        yield Change("changed", path, text(old), text(new))

    def _added(self, parent: int, step: _Step, value: Any) -> Iterator[Change]:
        if not self._is_told(self._new, parent, step, value):
            yield Change("added", self._new.path(parent) + str(step), "", text(value))

    def _removed(self, parent: int, step: _Step, value: Any) -> Iterator[Change]:
        if not self._is_told(self._old, parent, step, value):
            yield Change("removed", self._old.path(parent) + str(step), text(value), "")

    def _is_told(self, state: _State, parent: int, step: _Step, value: Any) -> bool:
        """Whether this slot is one end of a move."""
        serial = state.serial(value)
        if serial not in self._moved:
            return False
        place = state.places[serial]
        if place.parent != parent or place.step.form != step.form or place.step.inner:
            return False
        return _identity(state, place.step.key) == _identity(state, step.key)

    def _is_moved(self, old: _Place, new: _Place) -> bool:
        if old.parent != new.parent:
            return True
        if old.step.is_position and new.step.is_position:
            return False
        return old.step.inner != new.step.inner or not self._is_same(old.step.key, new.step.key)

    def _is_same(self, old: Any, new: Any) -> bool:
        if type(old) in _PLAIN and type(old) is type(new):
            return bool(old == new)
        return _identity(self._old, old) == _identity(self._new, new)


def _values(container: Any) -> list[Any]:
    try:
        return list(container)
    except (HeapError, TypeError, ValueError) as error:
        if isinstance(container, _native.Set):  # whose elements cannot be asked for one by one
            return [_Unreadable(str(error))]
        return [_element(container, index) for index in range(len(container))]


def _element(container: Any, index: int) -> Any:
    try:
        return container[index]
    except (HeapError, TypeError, ValueError) as error:
        return _Unreadable(str(error))


# --- values ----------------------------------------------------------------------------------


def _identity(state: _State, value: Any) -> Hashable:
    """Equal for what is the same in both states, and for nothing else: 1, 1.0 and True differ.
    Containers are their serial; what is in tuples and frozensets likewise."""
    if type(value) is str:
        return value
    serial = state.serial(value)
    if serial:
        return _native.Container, serial
    if type(value) is tuple:
        return tuple, tuple(_identity(state, item) for item in value)
    if isinstance(value, frozenset):
        return frozenset, frozenset(_identity(state, item) for item in value)
    if isinstance(value, float):
        return float, value.hex()  # NaN equals itself here, and -0.0 is not 0.0
    if _is_array(value):
        return "ndarray", _array_kind(value), _array_bytes(value).tobytes()
    try:
        hash(value)
    except TypeError:
        return type(value), repr(value)
    return type(value), value


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _array_kind(array: Any) -> tuple[str, tuple[int, ...]]:
    return str(array.dtype), array.shape


def _array_bytes(array: Any) -> Any:
    """The elements, in the order of C, as bytes."""
    numpy = sys.modules["numpy"]
    return numpy.frombuffer(array.tobytes(), numpy.uint8)


def _compare_bytes(path: str, old: memoryview, new: memoryview) -> Iterator[Change]:
    """Ranges of bytes that differ; what one has beyond the other's end is added or removed."""
    shorter = min(old.nbytes, new.nbytes)
    ranges = _ranges(old, new, shorter)
    for begin, end in ranges:
        yield Change(
            "changed",
            f"{path}[{begin}:{end}]",
            text(bytes(old[begin : min(end, begin + _TEXT_CHARACTERS_MAX)])),
            text(bytes(new[begin : min(end, begin + _TEXT_CHARACTERS_MAX)])),
        )
    if new.nbytes > shorter:
        yield Change(
            "added", f"{path}[{shorter}:{new.nbytes}]", "", f"{new.nbytes - shorter} bytes"
        )
    if old.nbytes > shorter:
        yield Change(
            "removed", f"{path}[{shorter}:{old.nbytes}]", f"{old.nbytes - shorter} bytes", ""
        )


def _ranges(old: memoryview, new: memoryview, size: int) -> list[tuple[int, int]]:
    """Where the first ``size`` bytes differ; after a hundred ranges the last takes the rest."""
    ranges: list[tuple[int, int]] = []
    for block in range(0, size, _BLOCK_BYTES):
        limit = min(block + _BLOCK_BYTES, size)
        if old[block:limit] == new[block:limit]:
            continue
        for at in range(block, limit):
            if old[at] == new[at]:
                continue
            if ranges and (ranges[-1][1] == at or len(ranges) == _RANGES_MAX):
                ranges[-1] = (ranges[-1][0], at + 1)
            else:
                ranges.append((at, at + 1))
    return ranges


class _Texts(reprlib.Repr):
    """Short texts, also of deep and cyclic containers: those say what they are and how long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _TEXT_CHARACTERS_MAX

    def repr1(self, x: Any, level: int) -> str:
        """Of one value."""
        if isinstance(x, _native.Record):
            return f"<{_native.record_name(x)}>"  # as stored: its class may be unknown here
        if isinstance(x, _native.Container):
            return f"<{type(x).__name__} of {len(x)}>"  # type: ignore[arg-type]
        if _is_array(x):
            return f"<ndarray of {x.dtype}, shape {x.shape}>"
        return super().repr1(x, level)

    def repr_int(self, x: int, level: int) -> str:
        """Of an int: hexadecimal where Python may refuse to write decimal digits."""
        if x.bit_length() <= _DECIMAL_INT_BITS:
            return super().repr_int(x, level)
        digits, half = hex(x), self.maxlong // 2
        return f"{digits[:half]}...{digits[-half:]}"


_texts = _Texts()


def text(value: Any) -> str:
    """What a change says of a value."""
    return _texts.repr(value)

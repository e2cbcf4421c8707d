"""Values of richer types: who packs them, who unpacks them, and types that a program adds.

The compiled module (``native/python/pack.c``, ``unpack.c``) looks into the tables here by exact
type and by code. A file names types by text only: nothing is ever imported because a file says so.

A packer is called with the core and the object and returns ``(key, payload)`` in bytes, or a
container of that heap which shall stand for the object, or NotImplemented. The key is the canonical
form (``canonical.py``), None for what cannot be a key; the payload a code below and its data.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast, final

import msgpack

from . import _native, arrays, canonical, pickled
from .definitions import is_same_definition
from .errors import HeapCorruptError, HeapError
from .standard_types import PACKERS, UNPACKERS, Form, Packer

__all__ = ["Unknown", "register"]

# Codes from 64 on (DH_EXT_OPAQUE_FIRST): only the type itself knows what its values equal.
_USER: Final = b"\x40"
_ENUM: Final = b"\x41"
_PICKLED: Final = b"\x42"
_OPAQUE_FIRST: Final = 64

_T = TypeVar("_T")

# --- tables that the compiled module reads --------------------------------------------------------


def _unpack_newer(data: bytes) -> Any:
    raise HeapError(
        "a value of a type that this version of dirtyheap does not know: use a newer one"
    )


packers: Final[dict[type, Packer]] = dict(PACKERS)
# Name of a module -> finder(type), which returns a packer or None; asked when packers has none.
lazy_packers: Final[dict[str, Callable[[type], Packer | None]]] = {"numpy": arrays.find_packer}
unpackers: Final[list[Callable[[bytes], Any]]] = [
    UNPACKERS.get(bytes([code]), _unpack_newer) for code in range(_OPAQUE_FIRST)
]

# --- msgpack --------------------------------------------------------------------------------------


def _to_msgpack(value: Any) -> bytes:
    return cast(bytes, msgpack.packb(value, unicode_errors="surrogatepass"))


def _check_keys(value: Any) -> None:
    """A tuple would be read as a list, which is no key; TypeError."""
    if isinstance(value, dict):
        if any(isinstance(key, tuple) for key in value):
            raise TypeError("a tuple as a dict's key would not come back; use a list of pairs")
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for part in value:
        _check_keys(part)


def _from_msgpack(data: bytes) -> Any:
    # Sizes inside are held against that of the data, so nothing larger is ever made.
    return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")


def _named(data: bytes, count: int) -> list[Any]:
    """A list of so many fields, the first of them a name."""
    fields = _from_msgpack(data)
    if type(fields) is not list or len(fields) != count or type(fields[0]) is not str:
        raise ValueError("not a type's name and its data")
    return fields


# --- types that a program adds --------------------------------------------------------------------


class _Registered:
    """A class under its name."""

    __slots__ = ("cls", "unpack")

    def __init__(self, cls: type, unpack: Callable[[Any], Any] | None) -> None:
        self.cls = cls
        self.unpack = unpack  # None: an enum


_registered: Final[dict[str, _Registered]] = {}

_BUILT_IN: Final = (
    *(type(None), bool, int, float, str, bytes, tuple, list, dict, set, frozenset, deque),
    *PACKERS,
)


@final
class Unknown:
    """A stored value whose type this program has not registered.

    Kept as it is: storing it again, here or in another heap, writes the same bytes. Equal to an
    Unknown of the same bytes.

    Attributes:
        name: the name that its type was registered by.
        data: what its packer made of it; of an enum's member, its name.
    """

    __slots__ = ("_form", "data", "name")

    def __init__(self, form: Form, name: str, data: Any) -> None:
        self._form = form
        self.name = name
        self.data = data

    def __repr__(self) -> str:
        return f"<dirtyheap.Unknown {self.name}: {self.data!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unknown) and self._form == other._form

    def __hash__(self) -> int:
        if self._form[0] is None:
            raise TypeError(f"unhashable value of the unknown type {self.name!r}")
        return hash(self._form)


def register(
    cls: type[_T],
    pack: Callable[[_T], Any] | None = None,
    unpack: Callable[[Any], _T] | None = None,
    *,
    name: str | None = None,
) -> type[_T]:
    """Let heaps hold values of a class; returns the class.

    Args:
        cls: exactly this class; subclasses are registered by themselves.
        pack: makes of a value whatever msgpack can hold: None, bool, int of 64 bits, float, str,
            bytes, and lists and dicts of these (no tuples as keys). For values that serve as keys
            it must make the same of equal values: two keys are one when class and packed bytes are
            the same.
        unpack: makes the value again. A tuple comes as a list.
        name: what the class is called in the file; its module and qualified name unless said. Give
            one if the class may move. A file never makes a module be imported: a value whose name
            nobody registered reads as :class:`Unknown`.

    An enum needs neither pack nor unpack: members are stored by their names.

    The values are immutable to the heap: what changes after storing is not seen. Classes registered
    under a name already taken by another class are refused (ValueError); the same class defined
    again, as in a notebook, replaces the older one.

    >>> import dirtyheap as dh, tempfile, os
    >>> class Point:
    ...     def __init__(self, x, y):
    ...         self.x, self.y = x, y
    >>> _ = dh.register(Point, lambda p: [p.x, p.y], lambda xy: Point(*xy), name="point")
    >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h")) as heap:
    ...     heap.root["here"] = Point(1, 2)
    ...     heap.root["here"].y
    2
    """
    if not isinstance(cls, type):
        raise TypeError(f"register() takes a class first, not {cls!r}")
    name = f"{cls.__module__}.{cls.__qualname__}" if name is None else name
    if not isinstance(name, str) or not name:
        raise TypeError(f"name={name!r}: must be a str that is not empty")
    if _is_held_already(cls):
        raise ValueError(f"{cls.__qualname__} needs no register(): heaps hold it already")
    is_enum = issubclass(cls, enum.Enum) and pack is None and unpack is None
    if not is_enum and not (callable(pack) and callable(unpack)):
        raise TypeError("register() takes a class, pack and unpack; only an enum needs neither")
    known = _registered.get(name)
    if known is not None and not is_same_definition(known.cls, cls):
        raise ValueError(
            f"the name {name!r} is taken by {known.cls!r}: give this class its own, with name="
        )
    _registered[name] = _Registered(cls, unpack)
    packers[cls] = _enum_packer(cls, name) if is_enum else _user_packer(cls, name, pack)
    return cls


def _is_held_already(cls: type) -> bool:
    if cls in _BUILT_IN or cls in (Unknown, pickled.Pickled) or issubclass(cls, _native.Container):
        return True
    finder = lazy_packers.get(cls.__module__)
    return finder is not None and finder(cls) is not None


def _user_packer(cls: type, name: str, pack: Any) -> Packer:
    is_hashable = cls.__hash__ is not None

    def packer(core: object, obj: Any) -> Form:
        made = pack(obj)
        try:
            payload = _USER + _to_msgpack([name, made])
            _check_keys(made)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(
                f"the packer of {name} must return what msgpack can hold, and returned "
                f"{type(made).__qualname__}: {error}"
            ) from error
        return b"x" + payload if is_hashable else None, payload

    return packer


def _plain_value(member: enum.Enum) -> Any:
    """That of a member without a name: of flags, which may have more bits than msgpack's ints, or
    of what an enum's ``_missing_`` made."""
    value = member.value
    return canonical.signed_bytes(value) if type(value) is int else [value]


def _value_of_plain(plain: Any) -> Any:
    if type(plain) is bytes:
        return int.from_bytes(plain, "little", signed=True)
    (value,) = plain
    return value


def _enum_packer(cls: Any, name: str) -> Packer:
    # A member of an int, str ... enum equals its plain value, unless the enum says otherwise.
    plain = (int, float, str, bytes, tuple)
    equals_value = any(cls.__eq__ is kind.__eq__ for kind in plain)

    def packer(core: object, member: Any) -> Form:
        is_named = cls.__members__.get(member.name) is member
        # A combination of flags has no name of its own.
        fields = [name, member.name, None] if is_named else [name, None, _plain_value(member)]
        payload = _ENUM + _to_msgpack(fields)
        key = canonical.of_plain(member) if equals_value else None
        return (b"x" + payload if key is None else key), payload

    return packer


# --- unpacking what is not a standard type --------------------------------------------------------


def _unpack_user(form: Form, data: bytes) -> Any:
    name, made = _named(data, 2)
    known = _registered.get(name)
    if known is None or known.unpack is None:
        return Unknown(form, name, made)
    return known.unpack(made)


def _unpack_member(form: Form, data: bytes) -> Any:
    name, member_name, value = _named(data, 3)
    known = _registered.get(name)
    if member_name is None:
        value = _value_of_plain(value)
    shown = value if member_name is None else member_name
    if known is None or known.unpack is not None:
        return Unknown(form, name, shown)
    cls: Any = known.cls
    if member_name is None:
        return cls(value)
    member = cls.__members__.get(member_name)  # which may be false, as a zero is
    return Unknown(form, name, shown) if member is None else member


def unpack_opaque(core: _native.Core, key: bytes | None, payload: bytes) -> Any:
    """The value of a code from 64 on. Called by the compiled module."""
    code, data = payload[:1], payload[1:]
    if code == _USER:
        return _unpack_user((key, payload), data)
    if code == _ENUM:
        return _unpack_member((key, payload), data)
    if code == _PICKLED:
        return pickled.loads(data, is_allowed=core.allow_pickle)
    return Unknown((key, payload), f"extension {code[0]}", data)


def _type_name(payload: bytes) -> str:
    try:
        if payload[0] >= _OPAQUE_FIRST:
            return str(_from_msgpack(payload[1:])[0])
        unpacker = unpackers[payload[0]]
        return unpacker.__name__.removeprefix("_unpack_")
    except Exception:  # the bytes are damaged: that is what is being told
        return "unknown"


def explain_failure(payload: bytes, error: BaseException) -> BaseException:
    """What reading a packed value raises when its unpacker raised this. Called by the compiled
    module. A KeyError, say, would read as an absent key."""
    if not isinstance(error, Exception) or isinstance(
        error, (HeapError, MemoryError, RecursionError)
    ):
        return error
    told = HeapCorruptError(
        f"a stored value of type {_type_name(payload)} cannot be read: "
        f"{type(error).__name__}: {error}; it is left as it is"
    )
    told.__cause__ = error
    return told


# --- our own types --------------------------------------------------------------------------------


def _pack_unknown(core: object, value: Unknown) -> Form:
    return value._form


def _pack_pickled(core: object, value: pickled.Pickled) -> Form:
    return None, _PICKLED + pickled.dumps(value)


packers[Unknown] = _pack_unknown
packers[pickled.Pickled] = _pack_pickled

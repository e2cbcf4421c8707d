"""Records: classes whose instances live in a heap.

What the annotations of a class mean, what its fields accept, and which class stands for which
stored name. The compiled part holds the attributes and the cells; it asks here once per class, when
types are first needed, because annotations may name classes that are defined later.
"""

from __future__ import annotations

import builtins
import collections
import dataclasses
import functools
import inspect
import keyword
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, overload

from . import _native
from ._native import Record, RecordField, RecordSchema, record_classes, to_python
from .definitions import is_same_definition

__all__ = ["asdict", "field", "record"]

_Class = TypeVar("_Class", bound=type)
_Value = TypeVar("_Value")

_MISSING: Final = dataclasses.MISSING
_CLASS_VAR = re.compile(r"(\w+\.)*ClassVar\b")
_INIT_VAR = re.compile(r"(\w+\.)*InitVar\b")
_KW_ONLY = re.compile(r"(\w+\.)*KW_ONLY$")

# --- what is public -------------------------------------------------------------------------------


@overload
def field(*, default: _Value, repr: bool = True, compare: bool = True) -> _Value: ...
@overload
def field(
    *, default_factory: Callable[[], _Value], repr: bool = True, compare: bool = True
) -> _Value: ...
@overload
def field(*, repr: bool = True, compare: bool = True) -> Any: ...
def field(
    *,
    default: Any = _MISSING,
    default_factory: Any = _MISSING,
    repr: bool = True,
    compare: bool = True,
) -> Any:
    """Say more about a field of a record class than its default.

    Args:
        default: the value of a field that is not given.
        default_factory: called without arguments for the value of a field that is not given; for
            lists, dicts and everything else that must not be shared.
        repr: show the field in ``repr(record)``.
        compare: compare the field in ``==``.

    >>> import dirtyheap as dh
    >>> @dh.record
    ... class Task:
    ...     title: str
    ...     tags: list[str] = dh.field(default_factory=list)
    >>> heap.new(Task, "write").tags
    []
    """
    return dataclasses.field(
        default=default, default_factory=default_factory, repr=repr, compare=compare
    )


@overload
def record(cls: _Class, /) -> _Class: ...
@overload
def record(
    *, name: str | None = None, aliases: Iterable[str] = (), eq: bool = True
) -> Callable[[_Class], _Class]: ...
@typing.dataclass_transform(field_specifiers=(field, dataclasses.field))
def record(
    cls: type | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    eq: bool = True,
) -> Any:
    """Make a class whose instances live in a heap; they are created with ``heap.new(Class, ...)``.

    Like a dataclass: annotated attributes are fields, with defaults; methods, properties,
    inheritance from other records, ``__post_init__``, ``__eq__`` by fields, ``__repr__`` and
    ``__match_args__`` work as there. What is assigned to a field must be of its type (TypeError);
    an int is taken by a float field and becomes a float. Instances have no ``__dict__``: there are
    no attributes outside the heap. They are hashed, and found in a heap's dicts, by identity.

    Args:
        name: the class's name in heaps; its ``__qualname__`` unless given. Records are read as the
            class of that name, whatever module it is in: keep the name when you rename the class.
        aliases: names that older records have.
        eq: False compares records by identity.

    Between runs fields may be added (with a default), removed, reordered and widened (int to float,
    ``T`` to ``T | None`` or ``Any``). Nothing is rewritten for it: a record keeps the fields that
    it was stored with until a field is assigned that it lacks; fields that the class no longer has
    are dropped then. A record whose class is not defined in a program is read as a plain
    :class:`dirtyheap.Record`.

    Raises:
        TypeError: another class has this name, a base has a ``__dict__``, or the class defines
            ``__init__``, ``__new__``, ``__del__`` or ``__slots__``.
        ValueError: a mutable default.

    Cost of an attribute: about that of an attribute of a C type.

    >>> import dirtyheap as dh
    >>> @dh.record
    ... class Wallet:
    ...     owner: str
    ...     balance: float = 0.0
    ...     def deposit(self, amount: float) -> None:
    ...         self.balance += amount
    >>> account = heap.root["ada"] = heap.new(Wallet, owner="ada")
    >>> account.deposit(5)
    >>> heap.root["ada"]
    Wallet(owner='ada', balance=5.0)
    >>> account.balance = "much"
    Traceback (most recent call last):
    TypeError: Wallet.balance must be float, not str
    """
    known = _frame_names(sys._getframe(1))
    make = functools.partial(_make, name=name, aliases=aliases, eq=eq, known=known)
    return make if cls is None else make(cls)


def asdict(record: object) -> dict[str, Any]:
    """A plain dict of a record's fields; records and containers in it become plain too.

    What :func:`dirtyheap.to_python` gives: cycles and shared references are kept. Fields that the
    record was stored without are there if they have a plain default; a default_factory is not
    called. A record that is a key of a dict or an element of a set stays a record: a dict cannot be
    either.

    >>> import dirtyheap as dh
    >>> @dh.record
    ... class Size:
    ...     x: int
    ...     y: int
    >>> dh.asdict(heap.new(Size, 1, 2))
    {'x': 1, 'y': 2}
    """
    if not isinstance(record, Record):
        raise TypeError(f"asdict() takes a record, not {type(record).__name__}")
    plain: dict[str, Any] = to_python(record)
    return plain


# --- names in annotations -------------------------------------------------------------------------


class _Names(dict[str, Any]):
    """Where names in annotations are looked up: what was visible at the decorator, the module, and
    last all record classes, for two that name each other inside a function."""

    def __init__(self, module: str, known: Mapping[str, Any]) -> None:
        super().__init__(known)
        self.module_names = vars(sys.modules[module]) if module in sys.modules else {}
        self.owner: Any = None  # the class that the annotations stand in, once it is made

    def __missing__(self, name: str) -> Any:
        if name in self.module_names or hasattr(builtins, name):
            raise KeyError(name)
        for schema in reversed(list(record_classes.values())):
            if schema.owner.__name__ == name:
                return schema.owner
        raise KeyError(name)

    def evaluate(self, text: str) -> Any:
        return eval(text, self.module_names, self)


def _frame_names(frame: types.FrameType) -> dict[str, Any]:
    """The classes and modules that a function has; not its data, which would be kept alive."""
    if frame.f_locals is frame.f_globals:
        return {}
    return {
        name: value
        for name, value in frame.f_locals.items()
        if isinstance(value, type | types.ModuleType | types.GenericAlias | types.UnionType)
        or type(value).__module__ in ("typing", "typing_extensions")
    }


# --- making a class -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Declared:
    """A field as a class declares it."""

    annotation: Any
    names: _Names
    default: Any = _MISSING
    factory: Any = _MISSING
    is_shown: bool = True
    is_compared: bool = True

    @property
    def is_optional(self) -> bool:
        return self.default is not _MISSING or self.factory is not _MISSING


def _annotations(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)


def _declare(cls: type, name: str, annotation: Any, names: _Names) -> _Declared:
    where = f"{cls.__qualname__}.{name}"
    text = annotation if isinstance(annotation, str) else ""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise TypeError(f"{where}: {name!r} cannot be written as an attribute: choose another name")
    if annotation is dataclasses.KW_ONLY or _KW_ONLY.match(text):
        raise TypeError(
            f"{where}: all fields of a record can be given by position: leave KW_ONLY out"
        )
    if isinstance(annotation, dataclasses.InitVar) or _INIT_VAR.match(text):
        raise TypeError(f"{where}: a record has no InitVar; give values to fields")
    given = cls.__dict__.get(name, _MISSING)
    if not isinstance(given, dataclasses.Field):
        given = dataclasses.field(default=given)
    if not given.init or given.kw_only is True:
        raise TypeError(f"{where}: init=False and kw_only=True are not there for records")
    default = given.default
    if hasattr(type(default), "__get__"):
        raise TypeError(
            f"{where} is both a field and a {type(default).__name__}: give one of them another name"
        )
    if isinstance(default, _native.Container) or type(default).__hash__ is None:
        raise ValueError(
            f"{where}: the default {default!r} could be changed, and all records would share it: "
            f"use dirtyheap.field(default_factory={type(default).__name__.lower()})"
        )
    return _Declared(
        annotation, names, default, given.default_factory, given.repr, bool(given.compare)
    )


def _declared_fields(cls: type, known: Mapping[str, Any]) -> dict[str, _Declared]:
    """All fields in order: those of the bases first, a field declared again in its old place."""
    fields: dict[str, _Declared] = {}
    for base in reversed(cls.__mro__[1:]):
        fields.update(base.__dict__.get("__dh_fields__", {}))
    inherited = set(fields)
    names = _Names(cls.__module__, {**known, cls.__name__: None})
    for name, annotation in _annotations(cls).items():
        is_class_var = typing.get_origin(annotation) is typing.ClassVar or (
            annotation is typing.ClassVar
            or (isinstance(annotation, str) and _CLASS_VAR.match(annotation))
        )
        if is_class_var:
            continue
        if name.startswith("__"):
            raise TypeError(f"{cls.__qualname__}.{name}: names with two underscores are Python's")
        fields[name] = _declare(cls, name, annotation, names)
        inherited.discard(name)
    for name in inherited & set(cls.__dict__):
        raise TypeError(
            f"{cls.__qualname__}.{name} hides a field of a base: annotate it to give the field "
            "another default, or choose another name"
        )
    first = next((name for name, spec in fields.items() if spec.is_optional), "")
    for name, spec in list(fields.items())[list(fields).index(first) if first else len(fields) :]:
        if not spec.is_optional:
            raise TypeError(
                f"{cls.__qualname__}: the field {name!r} without a default follows {first!r}, "
                "which has one"
            )
    return fields


def _refuse_dataclass(cls: type) -> None:
    if "__dataclass_fields__" in cls.__dict__:
        raise TypeError(
            f"{cls.__qualname__} is a dataclass too: leave @dataclass out, for @record "
            "alone makes fields of the annotations"
        )


def _check_class(cls: Any) -> None:
    if not isinstance(cls, type):
        raise TypeError(f"@record decorates a class, not {cls!r}")
    if "__dh_schema__" in cls.__dict__:
        raise TypeError(f"{cls.__qualname__} is a record class already")
    _refuse_dataclass(cls)
    advice = {
        "__init__": "heap.new() sets the fields; use __post_init__ for more",
        "__new__": "heap.new() makes records; use __post_init__",
        "__del__": "a record outlives its Python object",
    }
    for name, instead in advice.items():
        if name in cls.__dict__:
            raise TypeError(f"{cls.__qualname__} defines {name}: {instead}")
    if cls.__dict__.get("__slots__"):
        raise TypeError(f"{cls.__qualname__} has __slots__: all attributes of a record are fields")
    for base in cls.__mro__[1:-1]:
        has_memory = base.__dictoffset__ != 0 or base.__basicsize__ > object.__basicsize__
        if has_memory and not issubclass(base, Record) and not issubclass(Record, base):
            raise TypeError(
                f"{cls.__qualname__}: a record class cannot have attributes outside the heap: its "
                f"base {base.__qualname__} needs __slots__ = (), or to be a record class too"
            )


def _functions(value: Any) -> Iterable[types.FunctionType]:
    """The Python functions behind an attribute of a class."""
    if isinstance(value, types.FunctionType):
        yield value
        if hasattr(value, "__wrapped__"):
            yield from _functions(value.__wrapped__)
    elif isinstance(value, classmethod | staticmethod):
        yield from _functions(value.__func__)
    elif isinstance(value, property):
        for part in (value.fget, value.fset, value.fdel):
            yield from _functions(part)
    elif isinstance(value, functools.cached_property):
        raise TypeError("a record has no __dict__, which cached_property needs: use property")


def _rebind_class_cell(before: type, after: type) -> None:
    """super() without arguments finds its class in a closure: let it be the new one."""
    for value in list(after.__dict__.values()):
        for function in _functions(value):
            for name, cell in zip(
                function.__code__.co_freevars, function.__closure__ or (), strict=True
            ):
                if name == "__class__" and cell.cell_contents is before:
                    cell.cell_contents = after


def _rebuild(cls: type, fields: Iterable[str]) -> type:
    """The same class below Record, without memory of its own."""
    dropped = {"__dict__", "__weakref__", *fields}
    namespace = {name: value for name, value in cls.__dict__.items() if name not in dropped}
    namespace["__slots__"] = ()
    bases = tuple(base for base in cls.__bases__ if base is not object)
    if not any(issubclass(base, Record) for base in bases):
        bases += (Record,)
    made: type = type(cls)(cls.__name__, bases, namespace)
    made.__qualname__ = cls.__qualname__
    _rebind_class_cell(cls, made)
    return made


def _make(
    cls: type, *, name: str | None, aliases: Iterable[str], eq: bool, known: Mapping[str, Any]
) -> type:
    _check_class(cls)
    stored_name = cls.__qualname__ if name is None else name
    if isinstance(aliases, str):
        raise TypeError(f"aliases={aliases!r}: must be a list of names, not one")
    names = (stored_name, *aliases)
    for each in names:
        if not isinstance(each, str) or not each or not each.isprintable():
            raise TypeError(f"{each!r} cannot be the name of a record class: it must be a text")
    fields = _declared_fields(cls, known)
    made: Any = _rebuild(cls, [name for name in _annotations(cls) if name in fields])
    for each in names:
        _refuse_other_definition(each, made)
    for spec in fields.values():
        if spec.names.get(cls.__name__, made) is None:
            spec.names[cls.__name__] = made
            spec.names.owner = made
    schema = RecordSchema(
        made,
        stored_name,
        tuple(
            (name, spec.default, spec.factory, spec.is_shown, spec.is_compared)
            for name, spec in fields.items()
        ),
        _MISSING,
        functools.partial(_complete, made),
        hasattr(made, "__post_init__"),
        eq,
    )
    made.__dh_schema__ = schema
    made.__dh_fields__ = fields
    made.__dh_names__ = names
    for index, field_name in enumerate(fields):
        setattr(made, field_name, RecordField(schema, index))
    if "__match_args__" not in cls.__dict__:
        setattr(made, "__match_args__", tuple(fields))  # noqa: B010 - final to mypy
    made.__signature__ = _signature(fields)
    schema.register(names)
    return typing.cast(type, made)


def _signature(fields: Mapping[str, _Declared]) -> inspect.Signature:
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=(
                    spec.default
                    if spec.default is not _MISSING
                    else ...
                    if spec.is_optional
                    else inspect.Parameter.empty
                ),
                annotation=spec.annotation,
            )
            for name, spec in fields.items()
        ]
    )


def _refuse_other_definition(name: str, cls: type) -> None:
    other = record_classes.get(name)
    if other is None or is_same_definition(other.owner, cls):
        return
    raise TypeError(
        f"two record classes are named {name!r} in heaps: {other.owner.__module__}."
        f"{other.owner.__qualname__} and {cls.__module__}.{cls.__qualname__}: give one of them "
        "another name with @record(name=...)"
    )


# --- what a field accepts -------------------------------------------------------------------------


def _representatives() -> dict[int, tuple[type, ...]]:
    """Bit of a kind (native/src/record.h) -> the Python classes of its values."""

    def own(name: str) -> tuple[type, ...]:
        found = getattr(_native, name, None)
        return (found,) if isinstance(found, type) else ()

    return {
        1: (str,),
        2: (bytes,),
        3: (float,),
        4: (int,),
        5: (tuple,),
        6: (dict, *own("Dict")),
        7: (list, *own("List")),
        8: own("Buffer"),
        9: (set, *own("Set")),
        10: (collections.deque, *own("Deque")),
        11: own("SortedDict"),
        13: (Record,),
        14: (frozenset,),
        16: (type(None),),
        17: (bool,),
    }


_KINDS: Final = _representatives()
_ANY: Final = (1 << 19) - 2
_NUMBERS: Final = 1 << 3 | 1 << 4 | 1 << 17


@dataclasses.dataclass(slots=True)
class _Accepted:
    """What one field accepts."""

    kinds: int = 0
    classes: list[type] = dataclasses.field(default_factory=list)
    names: set[str] = dataclasses.field(default_factory=set)
    covered: set[str] = dataclasses.field(default_factory=set)
    texts: list[str] = dataclasses.field(default_factory=list)

    def as_native(
        self,
    ) -> tuple[int, tuple[type, ...] | None, tuple[str, ...], frozenset[str], str]:
        is_any = self.kinds == _ANY
        return (
            self.kinds,
            tuple(self.classes) or None,
            () if is_any else tuple(sorted(self.names)),
            frozenset(self.covered | self.names),
            "Any" if is_any else " | ".join(dict.fromkeys(self.texts)),
        )

    def add(self, annotation: Any, names: _Names) -> None:
        """Accept what this annotation says too."""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if isinstance(annotation, str):
            self.add(names.evaluate(annotation), names)
        elif isinstance(annotation, typing.ForwardRef):
            self.add(names.evaluate(annotation.__forward_arg__), names)
        elif annotation is Any or isinstance(annotation, typing.TypeVar):
            self.add_variable(annotation, names)
        elif annotation is None:
            self.add_class(type(None), "None")
        elif origin is typing.Union or origin is types.UnionType:
            for argument in arguments:
                self.add(argument, names)
        elif origin is typing.Literal:
            for argument in arguments:
                self.add_class(type(argument), type(argument).__qualname__)
        elif origin is typing.Annotated or origin is typing.Final:
            self.add(arguments[0], names)
        elif annotation is typing.Self:
            self.add(names.owner, names)
        elif annotation is typing.LiteralString:
            self.add_class(str, "str")
        elif typing.is_typeddict(origin or annotation):
            self.add_class(dict, "dict")
        elif hasattr(annotation, "__supertype__"):  # NewType
            self.add(annotation.__supertype__, names)
        elif type(annotation).__name__ == "TypeAliasType":
            self.add(annotation.__value__, names)
        elif isinstance(origin or annotation, type):
            text = annotation.__qualname__ if origin is None else _generic_text(annotation)
            self.add_class(origin or annotation, text)
        else:
            raise TypeError(f"{annotation!r} is no type that a field can have")

    def add_variable(self, annotation: Any, names: _Names) -> None:
        bounds = getattr(annotation, "__constraints__", ()) or (
            getattr(annotation, "__bound__", None),
        )
        for bound in bounds:
            if bound is None:
                self.kinds = _ANY
            else:
                self.add(bound, names)

    def add_class(self, cls: type, text: str) -> None:
        self.texts.append("None" if cls is type(None) else text)
        if cls is object:
            self.kinds = _ANY
            return
        if cls is complex:
            self.kinds |= _NUMBERS
        is_basic = False
        for bit, representatives in _KINDS.items():
            if any(_is_subclass(each, cls) for each in representatives):
                self.kinds |= 1 << bit
                self.classes.extend(representatives)
                is_basic |= cls in representatives
        self.classes.append(cls)
        if not is_basic:
            self.names.add(_stored_names(cls)[0])
        self.covered.update(_covered_names(cls))


def _generic_text(annotation: Any) -> str:
    return re.sub(
        r"\b(typing|collections\.abc|collections|dirtyheap(\._native)?)\.", "", str(annotation)
    )


def _is_subclass(cls: type, other: type) -> bool:
    try:
        return issubclass(cls, other)
    except TypeError as error:
        raise TypeError(f"{other.__qualname__} cannot be the type of a field: {error}") from None


def _stored_names(cls: type) -> tuple[str, ...]:
    """What stored classes call this class."""
    names: tuple[str, ...] | None = cls.__dict__.get("__dh_names__")
    return names or (f"{cls.__module__}.{cls.__qualname__}",)


def _covered_names(cls: type) -> set[str]:
    """Names of the class and of all classes below it: what fits them fits the field."""
    names: set[str] = set()
    stack, seen = [cls], {cls}
    while stack:
        each = stack.pop()
        names.update(_stored_names(each))
        children: list[type] = type.__subclasses__(each)
        stack.extend(below for below in children if below not in seen)
        seen.update(children)
    return names


def _complete(cls: Any) -> None:
    """Resolve the annotations of a record class; called once, before its first use."""
    _refuse_dataclass(cls)  # a decorator above ours
    accepted = []
    for name, spec in cls.__dh_fields__.items():
        field_accepts = _Accepted()
        try:
            field_accepts.add(spec.annotation, spec.names)
        except NameError as error:
            raise TypeError(
                f"{cls.__qualname__}.{name}: its annotation {spec.annotation!r} cannot be "
                f"resolved: {error}"
            ) from error
        except TypeError as error:
            raise TypeError(f"{cls.__qualname__}.{name}: {error}") from error
        accepted.append(field_accepts.as_native())
    cls.__dh_schema__.set_types(tuple(accepted))

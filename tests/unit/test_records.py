"""Records: what a class may say, what an instance does, and what is refused with which words."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import importlib
import json
import math
import pickle
import re
import sys
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    LiteralString,
    NewType,
    Optional,
    Self,
    TypedDict,
    TypeVar,
    Union,
)

import pytest
from helpers import in_child

import dirtyheap as dh

T = TypeVar("T")
UserId = NewType("UserId", int)


@dh.record
class Point:
    x: int
    y: int = 0

    def norm(self) -> int:
        return self.x**2 + self.y**2

    @property
    def double(self) -> int:
        return self.x * 2

    @double.setter
    def double(self, value: int) -> None:
        self.x = value // 2

    @classmethod
    def origin(cls, heap: dh.Heap) -> Point:
        return heap.new(cls, 0, 0)

    @staticmethod
    def unit() -> int:
        return 1


@dh.record
class Solid(Point):
    z: int = 0
    label: str = ""

    def norm(self) -> int:
        return super().norm() + self.z**2


@dh.record
class Node:
    value: Any
    left: Node | None = None
    right: Node | None = None
    tags: list[str] = dh.field(default_factory=list)


# --- making ---------------------------------------------------------------------------------------


def test_fields_by_position_name_and_default(heap: dh.Heap) -> None:
    assert (heap.new(Point, 1).x, heap.new(Point, 1).y) == (1, 0)
    assert heap.new(Point, 1, 2).y == 2
    assert heap.new(Point, y=3, x=1).y == 3
    point = heap.new(Point, 1, y=-5)
    assert type(point) is Point
    assert isinstance(point, dh.Record)
    assert repr(point) == "Point(x=1, y=-5)"


@pytest.mark.parametrize(
    ("args", "fields", "words"),
    [
        ((), {}, "Point needs a value for field 'x'"),
        ((1, 2, 3), {}, "Point has 2 fields, but 3 values were given"),
        ((1,), {"x": 2}, "Point got field 'x' twice"),
        ((1,), {"z": 2}, "Point has no field 'z'"),
        (("1",), {}, "Point.x must be int, not str"),
        ((1, None), {}, "Point.y must be int, not NoneType"),
    ],
)
def test_wrong_arguments(
    heap: dh.Heap, args: tuple[Any, ...], fields: dict[str, Any], words: str
) -> None:
    before = heap.stats().allocated_bytes
    with pytest.raises(TypeError, match=words):
        heap.new(Point, *args, **fields)
    assert heap.stats().allocated_bytes == before


def test_not_made_without_a_heap() -> None:
    with pytest.raises(TypeError, match=r"cannot create 'Point' directly.*heap\.new\(Point"):
        Point(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="cannot create 'Record' directly"):
        dh.Record()


@pytest.mark.parametrize("wrong", [int, dh.Record, dh.Dict, 5, None, "Point"])
def test_new_of_what_is_no_record_class(heap: dh.Heap, wrong: Any) -> None:
    with pytest.raises(TypeError, match="is not a record class: decorate it with"):
        heap.new(wrong, 1)


def test_new_of_a_class_below_a_record_class(heap: dh.Heap) -> None:
    class Undecorated(Point):
        __slots__ = ()

    with pytest.raises(TypeError, match="is not a record class"):
        heap.new(Undecorated, 1)


def test_a_value_no_heap_can_hold_is_named_by_field(heap: dh.Heap) -> None:
    before = heap.stats().allocated_bytes
    with pytest.raises(TypeError, match=r"value\['value'\]\[1\] is of type 'object'"):
        heap.new(Node, ["a text of some length", object()])
    assert heap.stats().allocated_bytes == before


def test_one_plain_list_in_two_fields_is_one_list(heap: dh.Heap) -> None:
    @dh.record
    class Pair:
        a: list[int]
        b: list[int]

    shared = [1, 2]
    pair = heap.new(Pair, shared, shared)
    pair.a.append(3)
    assert pair.b == [1, 2, 3]
    assert pair.a is pair.b
    assert shared == [1, 2]


def test_defaults_are_made_anew(heap: dh.Heap) -> None:
    first, second = heap.new(Node, 1), heap.new(Node, 2)
    first.tags.append("a")
    assert (first.tags, second.tags) == (["a"], [])


def test_post_init(heap: dh.Heap) -> None:
    @dh.record
    class Area:
        width: float
        height: float
        area: float = 0.0

        def __post_init__(self) -> None:
            if self.width < 0:
                raise ValueError("negative")
            self.area = self.width * self.height

    assert heap.new(Area, 2, 3.5).area == 7.0
    with pytest.raises(ValueError, match="negative"):
        heap.new(Area, -1, 1)


def test_a_class_without_fields(heap: dh.Heap) -> None:
    @dh.record
    class Nothing:
        pass

    heap.root["n"] = heap.new(Nothing)
    assert repr(heap.root["n"]) == f"{Nothing.__qualname__}()"
    assert heap.new(Nothing) == heap.root["n"]
    assert heap.verify().ok


def test_many_fields(heap: dh.Heap) -> None:
    def wide(count: int) -> Any:
        return dh.record(
            type(f"Wide{count}", (), {"__annotations__": {f"f{i}": Any for i in range(count)}})
        )

    for count in (253, 254, 255, 1000):
        cls = wide(count)
        heap.root["wide"] = heap.new(cls, *range(count))
        record = heap.root["wide"]
        for i in range(count):
            setattr(record, f"f{i}", f"a text of some length {i}")
        assert dh.asdict(record) == {f"f{i}": f"a text of some length {i}" for i in range(count)}
        assert heap.verify().ok
    with pytest.raises(TypeError, match="1001 fields: at most 1000"):
        wide(1001)


# --- attributes -----------------------------------------------------------------------------------


def test_every_kind_of_value(heap: dh.Heap) -> None:
    @dh.record
    class Every:
        i: int = 0
        f: float = 0.0
        b: bool = False
        s: str = ""
        y: bytes = b""
        t: tuple[Any, ...] = ()
        d: dict[str, Any] = dh.field(default_factory=dict)
        items: list[Any] = dh.field(default_factory=list)
        any: Any = None
        maybe: int | None = None

    record = heap.root["r"] = heap.new(Every)
    values: dict[str, list[Any]] = {
        "i": [1, -1, 1 << 62, -(1 << 62), 1 << 200, True, 0],
        "f": [1.5, -0.0, math.inf, 1e300, 5e-324, 3.0],
        "b": [True, False],
        "s": ["", "seven77", "eight888", "ü" * 30, "\ud800", "\0", "exactly"],
        "y": [b"", b"1234567", b"12345678", bytes(300)],
        "t": [(), (1, "a text of some length", (None, 2.5)), ((((1,),),),)],
        "d": [{}, {"a": [1, {"b": 2}]}],
        "items": [[], [1, [2, "a text of some length"]]],
        "any": [1, "text", None, {"a": 1}, [2], 1 << 100],
        "maybe": [None, 5, 1 << 100],
    }
    for name, given in values.items():
        for value in [*given, *reversed(given)]:
            setattr(record, name, value)
            found = getattr(record, name)
            assert found == value
            assert type(dh.to_python(found)) is type(value)
        del found
        freed = heap.collect().freed_cells
        assert freed == 0 or name in ("d", "items", "any")  # values go with their slot
    record.f = -0.0
    assert math.copysign(1, record.f) == -1
    record.f = math.nan
    assert math.isnan(record.f)
    assert heap.verify().ok


def test_an_int_becomes_a_float_in_a_float_field(heap: dh.Heap) -> None:
    @dh.record
    class Price:
        amount: float = 0

    price = heap.new(Price)
    for value in (0, 3, True, 1 << 80):
        price.amount = value
        assert type(price.amount) is float
        assert price.amount == value
    assert type(heap.new(Price, 7).amount) is float
    assert type(heap.new(Price).amount) is float
    with pytest.raises(OverflowError):
        price.amount = 10**400
    assert price.amount == float(1 << 80)


def test_a_plain_container_is_copied_in_and_a_container_linked(heap: dh.Heap) -> None:
    node = heap.new(Node, [1])
    inner = node.value
    assert type(inner) is dh.List
    other = heap.new(Node, inner)
    assert other.value is inner
    node.value = plain = {"a": 1}
    plain["a"] = 2
    assert node.value == {"a": 1}


def test_linking_records(heap: dh.Heap) -> None:
    leaf = heap.new(Node, "leaf")
    tree = heap.root["tree"] = heap.new(Node, "tree", leaf, right=leaf)
    assert tree.left is leaf is tree.right
    tree.left = tree
    assert tree.left.left.left is tree
    heap.commit()
    del leaf
    gc.collect()
    assert tree.right.value == "leaf"
    with pytest.raises(TypeError, match=r"Node\.left must be Node \| None, not Point"):
        tree.left = heap.new(Point, 1)  # type: ignore[assignment]
    assert heap.root["tree"] is tree


def test_a_subclass_is_accepted_where_its_base_is(heap: dh.Heap) -> None:
    @dh.record
    class Holder:
        point: Point

    assert heap.new(Holder, heap.new(Solid, 1, z=3)).point.norm() == 10
    with pytest.raises(TypeError, match="must be Point, not Node"):
        heap.new(Holder, heap.new(Node, 1))  # type: ignore[arg-type]


def test_what_is_no_field(heap: dh.Heap) -> None:
    point = heap.new(Point, 1)
    with pytest.raises(AttributeError, match="no attribute 'w'"):
        point.w = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'w'"):
        _ = point.w  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"Point\.x cannot be deleted"):
        del point.x
    with pytest.raises(AttributeError):
        _ = point.__dict__
    assert point.x == 1


def test_the_attribute_of_the_class(heap: dh.Heap) -> None:
    field = Point.__dict__["x"]
    assert Point.x is field
    assert repr(field) == "<field 'x' of Point>"
    assert field.__name__ == "x"
    point = heap.new(Point, 4)
    assert field.__get__(point) == 4
    for other in (heap.new(Node, 1), heap.root, 5, "text"):
        with pytest.raises(TypeError, match="field 'x' of Point does not apply to a"):
            field.__get__(other)
        with pytest.raises(TypeError, match="field 'x' of Point does not apply to a"):
            field.__set__(other, 5)
    assert Solid.__dict__["x"].__get__(heap.new(Solid, 9)) == 9
    with pytest.raises(TypeError, match="field 'x' of Solid does not apply to a 'Point'"):
        Solid.__dict__["x"].__get__(point)


# --- types of fields ------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


CASES: list[tuple[Any, list[Any], list[Any], str]] = [
    (int, [1, True, 1 << 100], [1.0, "1", None, [1]], "int"),
    (float, [1.0, 1, True], ["1", None], "float"),
    (bool, [True], [1, 0.0, None], "bool"),
    (str, ["a"], [b"a", 1], "str"),
    (bytes, [b"a"], ["a"], "bytes"),
    (type(None), [None], [0], "None"),
    (None, [None], [0], "None"),
    (object, [1, None, [1]], [], "Any"),
    (Any, [1, None, [1]], [], "Any"),
    (T, [1, None], [], "Any"),
    (TypeVar("N", bound=int), [1], ["a"], "int"),
    (Optional[int], [1, None], ["a"], "int | None"),  # noqa: UP045
    (Union[int, str, None], [1, "a", None], [b""], "int | str | None"),  # noqa: UP007
    (int | str, [1, "a"], [None], "int | str"),
    (list, [[1], []], [(1,), {}], "list"),
    (list[int], [["unchecked"]], [(1,)], "list[int]"),
    (dict[str, int], [{}, {"a": 1}], [[]], "dict[str, int]"),
    (tuple[int, ...], [(1,)], [[1]], "tuple[int, ...]"),
    (dh.List, [[1]], [{}], "List"),
    (dh.Dict[str, int], [{"a": 1}], [[1]], r"Dict[str, int]"),
    (collections.abc.Mapping, [{"a": 1}], [[1]], "Mapping"),
    (collections.abc.Sequence[int], [[1], (1,), "a"], [{}, 1], "Sequence[int]"),
    (Literal["a", 1], ["a", "b", 1], [None], "str | int"),
    (Annotated[int, "positive"], [1], ["a"], "int"),
    (Final[int], [1], ["a"], "int"),
    (UserId, [1], ["a"], "int"),
    (complex, [1.0, 2], ["a"], "complex"),
    (dh.Record, [], [1, [1]], "Record"),
    (datetime.date, [], [1, "today"], "date"),
    (Colour, [], [1], "Colour"),
    ("int | None", [1, None], ["a"], "int | None"),
    ("Optional[Point]", [None], [1], "Point | None"),
    (list["Unknown"], [[1]], [1], "list"),  # type: ignore[name-defined]  # noqa: F821
]


@pytest.mark.parametrize(("annotation", "good", "bad", "text"), CASES, ids=str)
def test_what_an_annotation_accepts(
    heap: dh.Heap, annotation: Any, good: list[Any], bad: list[Any], text: str
) -> None:
    namespace = {"__annotations__": {"f": annotation}, "__module__": __name__}
    cls: Any = dh.record(type("Case", (), namespace), name=f"Case {annotation}")
    made = [heap.new(cls, value) for value in good]
    assert [dh.to_python(record.f) for record in made] == good
    for value in bad:
        with pytest.raises(TypeError) as caught:
            heap.new(cls, value)
        assert f"must be {text}" in str(caught.value)
        for record, before in zip(made, good, strict=True):
            with pytest.raises(TypeError, match="must be"):
                record.f = value
            assert dh.to_python(record.f) == before


class Typed(TypedDict):
    a: int


@dh.record
class Linked:
    next: Self | None = None
    word: LiteralString = ""
    facts: Typed | None = None


def test_special_forms_of_typing(heap: dh.Heap) -> None:
    linked = heap.new(Linked, heap.new(Linked), "a", {"a": 1})
    assert linked.next is not None
    linked.next.next = linked
    assert linked.next.next is linked
    assert linked.word == "a"
    assert linked.facts == {"a": 1}
    for name, words in (("next", "Linked | None"), ("word", "str"), ("facts", "dict | None")):
        with pytest.raises(TypeError, match=rf"{name} must be {re.escape(words)}, not int"):
            setattr(linked, name, 1)

    @dh.record
    class Below(Linked):
        pass

    linked.next = heap.new(Below, linked)
    assert isinstance(linked.next, Below)


@pytest.mark.parametrize(
    "annotation", [5, "Unknown", "list[", ["int"], Any.__class__("x", (), {})()]
)
def test_annotations_that_mean_nothing(heap: dh.Heap, annotation: Any) -> None:
    cls: Any = dh.record(type("Odd", (), {"__annotations__": {"f": annotation}}))
    with pytest.raises((TypeError, SyntaxError)) as caught:
        heap.new(cls, 1)
    assert isinstance(caught.value, SyntaxError) or "Odd.f" in str(caught.value)


def test_an_abstract_class_that_learns_of_a_type_later(heap: dh.Heap) -> None:
    class Late(ABC):  # noqa: B024
        __slots__ = ()

    @dh.record
    class Holder:
        late: Late | None = None

    holder = heap.root["h"] = heap.new(Holder)
    Late.register(list)
    Late.register(int)
    for value in ([1], 5):
        with pytest.raises(TypeError, match="late must be Late | None"):
            holder.late = value  # type: ignore[assignment]
        with pytest.raises(TypeError, match="late must be Late | None"):
            heap.new(Holder, value)  # type: ignore[arg-type]
    assert holder.late is None
    assert heap.verify().ok


def test_names_that_are_defined_later(heap: dh.Heap) -> None:
    @dh.record
    class Parent:
        child: Child | None = None

    @dh.record
    class Child:
        parent: Parent | None = None

    parent = heap.new(Parent)
    parent.child = heap.new(Child, parent)
    assert parent.child.parent is parent
    with pytest.raises(TypeError, match="must be"):
        parent.child = parent  # type: ignore[assignment]


def test_enums_and_other_instances_pass_the_type(heap: dh.Heap) -> None:
    """Whether a heap can hold the value is then for the conversion to say."""

    class Level(enum.IntEnum):
        LOW = 1

    @dh.record
    class Setting:
        level: int = 0
        colour: Colour | None = None

    setting = heap.new(Setting)
    for name, value in (("level", Level.LOW), ("colour", Colour.RED)):
        try:
            setattr(setting, name, value)
        except TypeError as error:
            assert "must be" not in str(error)
        else:
            assert getattr(setting, name) is value


def test_fields_of_richer_types(heap: dh.Heap) -> None:
    numpy = pytest.importorskip("numpy")

    @dh.record
    class Rich:
        tags: set[str] = dh.field(default_factory=set)
        fixed: frozenset[int] = frozenset()
        when: datetime.datetime | None = None
        day: datetime.date | None = None
        amount: decimal.Decimal = decimal.Decimal("1.5")
        path: Path | None = None
        numbers: numpy.ndarray | None = None
        index: dh.SortedDict | None = None
        wave: complex = 0

    record = heap.root["r"] = heap.new(Rich)
    for name, good, bad in [
        ("tags", {"a", "b"}, ["a"]),
        ("fixed", frozenset({1, (2, "a text of some length")}), {1}),
        ("when", datetime.datetime(2020, 1, 2), datetime.date(2020, 1, 2)),
        ("day", datetime.datetime(2020, 1, 2), "2020-01-02"),
        ("amount", decimal.Decimal("7.25"), 7.25),
        ("path", Path("/a/b"), "/a/b"),
        ("numbers", numpy.arange(5), [1, 2]),
        ("index", heap.sorted_dict({2: 1, 1: 2}), {2: 1}),
        ("wave", 1j, "1j"),
    ]:
        setattr(record, name, good)
        for _ in range(2):
            assert numpy.array_equal(getattr(record, name), good)
            with pytest.raises(TypeError, match=f"{name} must be"):
                setattr(record, name, bad)
    plain = dh.asdict(record)
    assert type(plain["tags"]) is set
    assert plain["when"] == datetime.datetime(2020, 1, 2)
    record.numbers[2] = 50
    record.tags.add("c")
    heap.commit()
    assert (record.numbers[2], len(heap.root["r"].tags)) == (50, 3)
    assert "2020" in repr(record)
    heap.root["set"] = heap.set([record])
    assert record in heap.root["set"]
    assert heap.new(Rich) not in heap.root["set"]
    heap.collect()
    assert heap.verify().ok
    assert record.fixed == {1, (2, "a text of some length")}


# --- what a class may say -------------------------------------------------------------------------


def test_methods_properties_inheritance(heap: dh.Heap) -> None:
    point = heap.new(Point, 3, 4)
    assert (point.norm(), point.double, Point.unit()) == (25, 6, 1)
    point.double = 20
    assert point.x == 10
    assert Point.origin(heap) == heap.new(Point, 0)
    solid = heap.new(Solid, 1, 2, 3, "s")
    assert (solid.norm(), solid.double) == (14, 2)
    assert repr(solid) == "Solid(x=1, y=2, z=3, label='s')"
    assert Solid.origin(heap).label == ""


def test_match_args_and_signature(heap: dh.Heap) -> None:
    match heap.new(Solid, 1, 2, 3):
        case Solid(x, y, z, label=label):
            assert (x, y, z, label) == (1, 2, 3, "")
        case _:
            pytest.fail("no match")
    assert Solid.__match_args__ == ("x", "y", "z", "label")
    assert list(Solid.__signature__.parameters) == ["x", "y", "z", "label"]  # type: ignore[attr-defined]

    @dh.record
    class Own:
        a: int
        b: int
        __match_args__ = ("b",)

    match heap.new(Own, 1, 2):
        case Own(found):
            assert found == 2


def test_class_variables_are_no_fields(heap: dh.Heap) -> None:
    import typing

    @dh.record
    class Counted:
        a: int
        limit: ClassVar[int] = 5
        other: typing.ClassVar = [1]
        constant = 7

    assert (Counted.limit, Counted.other, Counted.constant) == (5, [1], 7)
    assert repr(heap.new(Counted, 1)).endswith("Counted(a=1)")


def test_field_options(heap: dh.Heap) -> None:
    @dh.record
    class Options:
        a: int
        hidden: int = dh.field(default=1, repr=False)
        ignored: int = dh.field(default=2, compare=False)
        plain: list[int] = dataclasses.field(default_factory=list)

    record = heap.new(Options, 1)
    assert repr(record).endswith("Options(a=1, ignored=2, plain=[])")
    assert record == heap.new(Options, 1, ignored=9)
    assert record != heap.new(Options, 1, hidden=9)


def test_a_base_that_is_generic_or_abstract_or_a_mixin(heap: dh.Heap) -> None:
    class Mixin:
        __slots__ = ()

        def shout(self) -> str:
            return repr(self).upper()

    class Shape(ABC):
        __slots__ = ()

        @abstractmethod
        def area(self) -> float: ...

    @dh.record
    class Square(Mixin, Shape):
        side: float

        def area(self) -> float:
            return self.side**2

    @dh.record
    class Box(Generic[T]):
        content: T

    square = heap.new(Square, 2)
    assert square.area() == 4.0
    assert "SIDE=2.0" in square.shout()
    assert isinstance(square, Shape)
    assert heap.new(Box, [1]).content == [1]
    assert heap.new(Box[int], 1) == heap.new(Box, 1)
    with pytest.raises(TypeError, match=r"list\[int\] is not a record class"):
        heap.new(list[int])


def test_super_and_class_in_every_kind_of_method(heap: dh.Heap) -> None:
    def passing(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    @dh.record
    class Base:
        a: int

        @property
        def name(self) -> str:
            return "base"

        @classmethod
        def kind(cls) -> str:
            return "base"

    @dh.record
    class Below(Base):
        @property
        def name(self) -> str:
            return super().name + " below"

        @classmethod
        def kind(cls) -> str:
            return super().kind() + " below"

        @passing
        def which(self) -> type:
            return __class__  # type: ignore[name-defined, no-any-return]

    below = heap.new(Below, 1)
    assert below.name == "base below"
    assert Below.kind() == "base below"
    assert below.which() is Below


def make(namespace: dict[str, Any], bases: tuple[type, ...] = (), **options: Any) -> Any:
    return dh.record(**options)(type("Made", bases, namespace))


class WithDict:
    pass


class WithSlot:
    __slots__ = ("x",)


@pytest.mark.parametrize(
    ("namespace", "bases", "error", "words"),
    [
        ({"__annotations__": {"a": list}, "a": []}, (), ValueError, "default_factory=list"),
        ({"__annotations__": {"a": dict}, "a": {}}, (), ValueError, "default_factory=dict"),
        ({"__init__": lambda self: None}, (), TypeError, "__init__: .*__post_init__"),
        ({"__new__": lambda cls: None}, (), TypeError, "__new__"),
        ({"__del__": lambda self: None}, (), TypeError, "outlives its Python object"),
        ({"__slots__": ("a",)}, (), TypeError, "__slots__"),
        ({"__annotations__": {"__a": int}}, (), TypeError, "two underscores"),
        ({"__annotations__": {"a": "InitVar[int]"}}, (), TypeError, "InitVar"),
        ({"x": property(lambda self: 1)}, (Point,), TypeError, "hides a field of a base"),
        ({}, (WithDict,), TypeError, "WithDict needs __slots__ = ()"),
        ({}, (WithSlot,), TypeError, "WithSlot needs __slots__ = ()"),
        ({}, (int,), TypeError, "int needs __slots__ = ()"),
        ({"__annotations__": {"class": int}}, (), TypeError, "'class' cannot be written"),
        ({"__annotations__": {"a b": int}}, (), TypeError, "'a b' cannot be written"),
        ({"__annotations__": {"_": dataclasses.KW_ONLY}}, (), TypeError, "leave KW_ONLY out"),
        ({"__annotations__": {"_": "dataclasses.KW_ONLY"}}, (), TypeError, "leave KW_ONLY out"),
        (
            {"__annotations__": {"a": int}, "a": property(lambda self: 1)},
            (),
            TypeError,
            "a is both a field and a property",
        ),
        ({"c": functools.cached_property(lambda self: 1)}, (), TypeError, "cached_property"),
        (
            {"__annotations__": {"a": int, "b": int}, "a": 1},
            (),
            TypeError,
            "'b' without a default follows 'a'",
        ),
        ({"__annotations__": {"z": int}}, (Point,), TypeError, "'z' without a default follows 'y'"),
        (
            {"__annotations__": {"a": int}, "a": dataclasses.field(kw_only=True)},
            (),
            TypeError,
            "kw_only",
        ),
        (
            {"__annotations__": {"a": int}, "a": dataclasses.field(init=False)},
            (),
            TypeError,
            "init",
        ),
    ],
)
def test_classes_that_are_refused(
    namespace: dict[str, Any], bases: tuple[type, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(namespace, bases)


def test_decorators_used_wrongly() -> None:
    with pytest.raises(TypeError, match="decorates a class"):
        dh.record(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="is a record class already"):
        dh.record(Point)
    with pytest.raises(TypeError, match="cannot be the name"):
        make({}, name="")
    with pytest.raises(TypeError, match="must be a list of names"):
        make({}, aliases="Old")
    with pytest.raises(TypeError, match="leave @dataclass out"):
        dh.record(dataclasses.dataclass(type("Data", (), {"__annotations__": {"a": int}})))
    with pytest.raises(TypeError, match="asdict"):
        dh.asdict({"a": 1})


def test_a_dataclass_made_of_a_record_class(heap: dh.Heap) -> None:
    """It would have another equality and no hash."""
    cls = dataclasses.dataclass(make({"__annotations__": {"a": int}}))
    with pytest.raises(TypeError, match="leave @dataclass out"):
        heap.new(cls, 1)


def test_a_default_of_the_wrong_type(heap: dh.Heap) -> None:
    cls = make({"__annotations__": {"a": int}, "a": None})
    for _ in range(2):
        with pytest.raises(TypeError, match=r"Made\.a must be int, not NoneType"):
            heap.new(cls)


def test_a_field_declared_again_keeps_its_place(heap: dh.Heap) -> None:
    @dh.record
    class Again(Solid):
        x: int = 7
        extra: int = 8

    assert repr(heap.new(Again)).endswith("Again(x=7, y=0, z=0, label='', extra=8)")


def test_two_classes_of_one_name(heap: dh.Heap) -> None:
    one = make({"__module__": "one", "__annotations__": {"a": int}}, name="tests.same name")
    with pytest.raises(
        TypeError, match=r"two record classes are named 'tests.same name'.*one\.Made"
    ):
        make({"__module__": "two", "__annotations__": {"a": int}}, name="tests.same name")
    assert heap.new(one, 1).a == 1


def test_a_class_defined_again_replaces_the_old_one(heap: dh.Heap) -> None:
    def define() -> Any:
        @dh.record
        class Replaced:
            a: int

        return Replaced

    old = define()
    kept = heap.root["kept"] = heap.new(old, 1)
    heap.root["other"] = heap.new(old, 2)
    new = define()
    assert type(kept) is old
    assert kept.a == 1
    assert type(heap.root["other"]) is new
    with pytest.raises(TypeError, match="defined again"):
        heap.new(old, 3)
    assert type(heap.new(new, 3)) is new
    heap.root["mixed"] = [kept, heap.new(new, 3)]
    assert [record.a for record in heap.root["mixed"]] == [1, 3]


def test_a_module_that_is_reloaded(
    heap: dh.Heap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "reloaded_records.py"
    source.write_text("import dirtyheap as dh\n@dh.record\nclass Reloaded:\n    a: int\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("reloaded_records")
    heap.root["r"] = heap.new(module.Reloaded, 1)
    source.write_text(source.read_text() + "    b: str = 'new'\n")
    module = importlib.reload(module)
    assert heap.root["r"].b == "new"
    assert type(heap.root["r"]) is module.Reloaded
    del sys.modules["reloaded_records"]


def test_classes_that_nobody_uses_are_freed() -> None:
    def define() -> weakref.ref[type]:
        @dh.record
        class Freed:
            a: int = 0
            me: Freed | None = None

        return weakref.ref(Freed)

    first = define()
    define()
    gc.collect()
    assert first() is None


# --- as an object ---------------------------------------------------------------------------------


def test_equality(heap: dh.Heap) -> None:
    a, b = heap.new(Point, 1, 2), heap.new(Point, 1, 2)
    assert a == b
    assert not a != b
    b.y = 3
    assert a != b
    assert a != (1, 3)
    assert a != heap.new(Solid, 1, 2)
    assert heap.new(Node, [1, {"a": 2}]) == heap.new(Node, [1, {"a": 2}])
    with pytest.raises(TypeError, match="not supported"):
        _ = a < b  # type: ignore[operator]
    nan = heap.new(Node, math.nan)
    assert nan == nan
    cyclic, other = heap.new(Node, 1), heap.new(Node, 1)
    cyclic.left, other.left = other, cyclic
    with pytest.raises(RecursionError):
        _ = cyclic == other


def test_equality_of_ones_own(heap: dh.Heap) -> None:
    @dh.record
    class Own:
        a: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and self.a % 10 == other.a % 10

        def __hash__(self) -> int:
            return self.a % 10

    @dh.record(eq=False)
    class Identity:
        a: int

    assert heap.new(Own, 1) == heap.new(Own, 11)
    assert hash(heap.new(Own, 11)) == 1
    assert heap.new(Identity, 1) != heap.new(Identity, 1)
    one = heap.new(Identity, 1)
    assert one == one


def test_hash_and_keys_are_by_identity(heap: dh.Heap, path: Path) -> None:
    a, b = heap.new(Point, 1), heap.new(Point, 1)
    assert a == b
    assert len({hash(a), hash(b)}) == 2
    index = heap.root["index"] = heap.dict({a: "a", b: "b", ("pair", a): "pair"})
    for i in range(100):
        index[heap.new(Point, i)] = i
    a.x = 99
    assert (index[a], index[b], index["pair", a]) == ("a", "b", "pair")
    assert heap.new(Point, 1) not in index
    assert ("pair", b) not in index
    assert hash(a) not in index
    heap.root["a"] = a
    number = hash(a)
    heap.commit()
    heap.collect()
    del a, b
    gc.collect()
    assert heap.root["index"][heap.root["a"]] == "a"
    assert hash(heap.root["a"]) == number
    assert [key.x for key in heap.root["index"] if type(key) is Point][:2] == [99, 1]
    assert heap.root["index"].pop(heap.root["a"]) == "a"
    assert heap.root["a"] not in heap.root["index"]
    assert heap.verify().ok
    with pytest.raises(TypeError, match="unhashable"):
        heap.root["index"][heap.list()] = 1


def test_keys_survive_reopening(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = heap.new(Point, 1)
        heap.root["index"] = heap.dict({heap.root["a"]: [1], (heap.root["a"], 2): [2]})
        heap.commit()
    with dh.open(path) as heap:
        assert heap.root["index"][heap.root["a"]] == [1]
        assert heap.root["index"][heap.root["a"], 2] == [2]


def test_another_heaps_record(heap: dh.Heap, tmp_path: Path) -> None:
    with dh.open(tmp_path / "other") as other:
        foreign = other.new(Node, 1)
        node = heap.new(Node, 1)
        for use in (
            lambda: setattr(node, "left", foreign),
            lambda: heap.new(Node, foreign),
            lambda: heap.root.update(a=foreign),
            lambda: heap.root.__setitem__(foreign, 1),
        ):
            with pytest.raises(ValueError, match="another heap"):
                use()
        assert foreign not in heap.root
        assert heap.root == {}


def test_plain_copies(heap: dh.Heap) -> None:
    inner = heap.new(Point, 1, 2)
    node = heap.root["n"] = heap.new(Node, [inner, inner], tags=["a"])
    plain = {
        "value": [{"x": 1, "y": 2}] * 2,
        "left": None,
        "right": None,
        "tags": ["a"],
    }
    assert dh.asdict(node) == dh.to_python(node) == copy.deepcopy(node) == plain
    assert pickle.loads(pickle.dumps(node)) == plain
    assert dh.to_python({"nodes": [node]}) == {"nodes": [plain]}
    assert dh.to_python(heap.root) == {"n": plain}
    copied = dh.asdict(node)
    assert copied["value"][0] is copied["value"][1]
    assert json.loads(json.dumps(copied)) == plain
    shallow = copy.copy(node)
    assert shallow["value"] is node.value
    assert type(shallow) is dict
    node.left = node
    cyclic = dh.asdict(node)
    assert cyclic["left"] is cyclic
    assert repr(node).startswith("Node(value=[Point(x=1, y=2), Point(x=1, y=2)], left=Node(...)")


def test_weak_references(heap: dh.Heap) -> None:
    heap.root["p"] = heap.new(Point, 1)
    reference = weakref.ref(heap.root["p"])
    gc.collect()
    assert reference() is None
    point = heap.root["p"]
    reference = weakref.ref(point)
    assert reference() is point is heap.root["p"]


def test_instances_are_no_burden_for_pythons_collector(heap: dh.Heap) -> None:
    assert not gc.is_tracked(heap.new(Point, 1))


# --- states of the heap ---------------------------------------------------------------------------


def uses(point: Any) -> list[Any]:
    return [
        lambda: point.x,
        lambda: setattr(point, "x", 5),
        lambda: setattr(point, "x", "wrong") if False else point.norm(),
        lambda: repr(point),
        lambda: dh.asdict(point),
        lambda: point == point,
        lambda: copy.copy(point),
    ]


def test_stale_and_closed(tmp_path: Path) -> None:
    heap = dh.open(tmp_path / "h")
    heap.root["old"] = heap.new(Point, 1)
    heap.commit()
    old, new = heap.root["old"], heap.new(Point, 2)
    old.x = 50
    heap.root["new"] = new
    heap.rollback()
    assert old.x == 1
    for use in uses(new):
        with pytest.raises(dh.StaleObjectError):
            use()
    with pytest.raises(dh.StaleObjectError):
        heap.root["x"] = new
    with pytest.raises(dh.StaleObjectError):
        heap.root[new] = 1
    hash(new)
    # The class that only the new one had went with it.
    again = heap.new(Solid, 3)
    assert again.x == 3
    heap.close()
    for use in uses(old) + uses(new) + uses(again) + [lambda: heap.new(Point, 1)]:
        with pytest.raises(dh.HeapClosedError):
            use()


def test_read_only(heap: dh.Heap) -> None:
    point = heap.root["p"] = heap.new(Point, 1)
    heap._core.read_only = True
    used = heap.stats().allocated_bytes
    for value in (5, 1 << 100, True):
        with pytest.raises(dh.ReadOnlyError):
            point.x = value
    with pytest.raises(dh.ReadOnlyError):
        heap.new(Point, 1)
    assert heap.stats().allocated_bytes == used
    assert (point.x, dh.asdict(point)) == (1, {"x": 1, "y": 0})


def test_in_a_forked_child(heap: dh.Heap) -> None:
    point = heap.root["p"] = heap.new(Point, 1)

    def child() -> Any:
        try:
            point.x = 3
        except dh.HeapClosedError:
            return point.x, repr(point)

    assert in_child(child) == (1, "Point(x=1, y=0)")


def test_the_class_of_new_records_survives_collections(heap: dh.Heap) -> None:
    """One stored class, whatever is collected and rolled back in between."""
    heap.root["keep"] = heap.new(Point, 0)
    heap.commit()
    sizes = []
    for i in range(5):
        heap.root["more"] = [heap.new(Point, i), heap.new(Solid, i)]
        heap.collect()
        heap.root["more"] = [heap.new(Point, i), heap.new(Solid, i)]
        heap.rollback()
        heap.collect()
        sizes.append(heap.stats().allocated_bytes)
        assert heap.verify().ok
        assert heap.new(Point, 5).x == 5
    assert len(set(sizes)) == 1


def test_a_full_heap(small_heap: dh.Heap) -> None:
    heap = small_heap
    node = heap.root["node"] = heap.new(Node, "first")
    with pytest.raises(dh.HeapFullError):
        while True:
            node.tags.append(heap.new(Node, "x" * 1000))
    before = dh.asdict(node)
    with pytest.raises(dh.HeapFullError):
        node.value = "x" * 100_000
    assert dh.asdict(node) == before
    del node.tags[:]
    heap.commit()
    heap.collect()
    node.value = "x" * 100_000
    assert heap.verify().ok

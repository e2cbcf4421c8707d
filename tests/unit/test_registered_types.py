"""Types that a program registers, enums, pickles, and what this program does not know or trust."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import gc
import subprocess
import sys
import weakref
from collections import deque
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from helpers import steady_repr

import dirtyheap as dh
from dirtyheap import scalars

# --- helpers --------------------------------------------------------------------------------------


class Box:
    """A value whose packer and unpacker do what a test says."""

    on_pack = on_unpack = staticmethod(lambda: None)

    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        return isinstance(other, Box) and self.content == other.content

    def __hash__(self):
        return hash(self.content)


def pack_box(box):
    Box.on_pack()
    return box.content


def unpack_box(content):
    Box.on_unpack()
    return Box(content)


dh.register(Box, pack_box, unpack_box, name="test.Box")


@pytest.fixture(autouse=True)
def quiet_box():
    yield
    Box.on_pack = Box.on_unpack = staticmethod(lambda: None)


@pytest.fixture
def forget():
    """Classes registered meanwhile are forgotten afterwards; call it to forget at once."""
    packers, registered = dict(scalars.packers), dict(scalars._registered)

    def undo():
        for table, before in ((scalars.packers, packers), (scalars._registered, registered)):
            table.clear()
            table.update(before)

    yield undo
    undo()


def reopen(heap, **options):
    path = heap.path
    heap.commit()
    heap.close()
    return dh.open(path, **options)


# --- register -------------------------------------------------------------------------------------


def test_names_are_the_classes_own_unless_said(heap, forget):
    class Local:
        pass

    assert dh.register(Local, lambda obj: 1, lambda data: Local()) is Local
    heap.root["x"] = Local()
    forget()
    assert heap.root["x"].name == f"{__name__}.{Local.__qualname__}"


def test_bad_registrations_are_refused(forget):
    class Local:
        pass

    class Other:
        pass

    dh.register(Local, str, lambda data: Local(), name="taken")
    dh.register(Local, str, lambda data: Local(), name="taken")  # anew: the same class
    with pytest.raises(ValueError, match="'taken' is taken by .*Local.*name="):
        dh.register(Other, str, str, name="taken")
    held = (int, str, tuple, dict, deque, dt.datetime, Decimal, dh.Dict, type(None))
    for cls in (*held, dh.Pickled, dh.Unknown):
        with pytest.raises(ValueError, match="needs no register"):
            dh.register(cls, str, str)
    with pytest.raises(TypeError, match="takes a class first"):
        dh.register(Other(), str, str)
    for pack, unpack in ((None, None), (str, None), (None, str), (1, str)):
        with pytest.raises(TypeError, match="only an enum"):
            dh.register(Other, pack, unpack)
    for name in ("", 1):
        with pytest.raises(TypeError, match="must be a str"):
            dh.register(Other, str, str, name=name)


def test_a_class_defined_again_replaces_the_older_one(heap, forget):
    """As by running a notebook's cell twice."""

    def define():
        class Shape(enum.Enum):
            ROUND = 0

        class Local:
            pass

        dh.register(Local, lambda obj: 1, lambda data: Local(), name="local")
        return dh.register(Shape), Local

    old_shape, old = define()
    heap.root["x"] = [old(), old_shape.ROUND]
    new_shape, new = define()
    assert type(heap.root["x"][0]) is new
    assert heap.root["x"][1] is new_shape.ROUND
    heap.root["x"] = [old(), new(), old_shape.ROUND, new_shape.ROUND]
    assert [type(obj) for obj in heap.root["x"]] == [new, new, new_shape, new_shape]


def test_exact_classes_only(heap):
    class Sub(Box):
        pass

    with pytest.raises(TypeError, match="Sub.*register"):
        heap.root["x"] = [Sub(1)]
    assert Sub(1) not in heap.root


@pytest.mark.parametrize(
    "made",
    [object(), 2**70, {1j: 2}, [[object()]], {"s": {1, 2}}, {"d": [{(1, 2): 3}]}],
    ids=steady_repr,
)
def test_a_packer_that_gives_what_msgpack_cannot_hold(heap, made):
    for use in (lambda: heap.root.update(x=Box(made)), lambda: heap.list([1, Box(made)])):
        with pytest.raises(TypeError, match=r"packer of test\.Box must return what msgpack"):
            use()
    assert heap.root == {}


def test_what_packers_and_unpackers_may_give(heap):
    for content in (None, True, -5, 2**64 - 1, 1.5, "ü\udc80", b"\0", [1, [2]], {"a": {1: b"x"}}):
        heap.root["x"] = Box(content)
        assert heap.root["x"].content == content
    heap.root["x"] = Box((1, (2,)))
    assert heap.root["x"].content == [1, [2]]


def test_a_type_without_hash_is_no_key(heap, forget):
    class Loose:
        def __eq__(self, other):
            return isinstance(other, Loose)

        __hash__ = None

    dh.register(Loose, lambda obj: 0, lambda data: Loose())
    heap.root["x"] = [Loose()]
    assert heap.root["x"] == [Loose()]
    for use in (
        lambda: heap.root.update({Loose(): 1}),
        lambda: heap.root.get(Loose()),
        lambda: heap.root.__setitem__((1, Loose()), 1),
    ):
        with pytest.raises(TypeError, match="hash"):
            use()
    assert list(heap.root) == ["x"]


# --- enums ----------------------------------------------------------------------------------------


def test_enums_must_be_registered(heap, forget):
    class Size(enum.Enum):
        SMALL = 1

    class Code(enum.IntEnum):
        ONE = 1

    with pytest.raises(TypeError, match="register"):
        heap.root["x"] = Size.SMALL
    with pytest.raises(TypeError, match=r"int\(\)"):
        heap.root["x"] = Code.ONE
    dh.register(Size)
    dh.register(Code, name="code")
    heap.root["x"] = [Size.SMALL, Code.ONE]
    assert heap.root["x"][0] is Size.SMALL
    assert heap.root["x"][1] is Code.ONE
    assert heap.list([1]) == [Code.ONE]
    assert 1 in heap.list([Code.ONE])
    assert Size.SMALL not in heap.list([1, "SMALL"])


def test_enums_know_members_by_name(heap, forget):
    first = enum.Enum("Size", {"SMALL": 1, "LARGE": 2})
    dh.register(first, name="size")
    heap.root["x"] = [first.SMALL, first.LARGE]
    forget()
    second = enum.Enum("Size", {"LARGE": 10, "OTHER": 1})
    dh.register(second, name="size")
    unknown, large = heap.root["x"]
    assert large is second.LARGE
    assert (type(unknown), unknown.name, unknown.data) == (dh.Unknown, "size", "SMALL")


def test_enum_members_that_are_false(heap, forget):
    class Level(enum.IntEnum):
        NONE = 0

    class Name(enum.StrEnum):
        EMPTY = ""

    class Ratio(float, enum.Enum):
        ZERO = -0.0

    class Mode(enum.Flag):
        OFF = 0

    class Stubborn(enum.Enum):
        NO = "no"

        def __bool__(self):
            return False

    members = [Level.NONE, Name.EMPTY, Ratio.ZERO, Mode.OFF, Stubborn.NO]
    for member in members:
        dh.register(type(member))
    heap.root["x"] = {"values": members, "keys": dict.fromkeys([*members[1:4], Stubborn.NO])}
    found = [*heap.root["x"]["values"], *heap.root["x"]["keys"]]
    for member, wanted in zip(found, [*members, *members[1:4], Stubborn.NO], strict=True):
        assert member is wanted


def test_members_without_a_name(heap, forget):
    class Wide(enum.IntFlag):
        LOW = 1
        HIGH = 2**70

    class Loose(enum.Enum):
        KNOWN = "known"

        @classmethod
        def _missing_(cls, value):
            made = object.__new__(cls)
            made._name_, made._value_ = None, value
            return made

    dh.register(Wide)
    dh.register(Loose)
    heap.root["x"] = [Wide.LOW | Wide.HIGH, ~Wide.HIGH, Wide(0), Loose("other"), Loose(b"x")]
    flags, others = heap.root["x"][:3], heap.root["x"][3:]
    assert flags == [Wide.LOW | Wide.HIGH, ~Wide.HIGH, Wide(0)]
    assert {type(flag) for flag in flags} == {Wide}
    assert [(type(other), other.value) for other in others] == [(Loose, "other"), (Loose, b"x")]
    forget()
    assert heap.root["x"][0].data == 2**70 + 1
    assert heap.root["x"][3].data == "other"


def test_an_enum_with_an_equality_of_its_own(heap, forget):
    class Loud(enum.Enum):
        A = "a"

        def __eq__(self, other):
            return self is other or other == "A!"

        __hash__ = enum.Enum.__hash__

    dh.register(Loud)
    assert "A!" in heap.list([1, Loud.A])
    assert heap.list([Loud.A, "A!"]).count("A!") == 2


# --- unknown types --------------------------------------------------------------------------------


def test_an_unknown_type_is_kept_as_it_is(heap, tmp_path, forget):
    class Gone:
        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return self.number

        def __eq__(self, other):
            return self.number == other.number

    def make():
        dh.register(Gone, lambda obj: obj.number, Gone, name="gone")

    make()
    heap.root["x"] = [Gone(5), (Gone(6),)]
    heap.root["keys"] = {Gone(7): 1}
    forget()
    unknown = heap.root["x"][0]
    assert repr(unknown) == "<dirtyheap.Unknown gone: 5>"
    assert unknown == heap.root["x"][0] != heap.root["x"][1][0]
    assert {unknown: 1}[heap.root["x"][0]] == 1
    assert unknown in heap.root["x"]
    key = next(iter(heap.root["keys"]))
    assert heap.root["keys"][key] == 1
    with dh.open(tmp_path / "other") as other:
        other.root["x"] = dh.to_python(heap.root["x"])
        heap.root["again"] = heap.root["x"][:]
        heap.root["x"].extend(heap.root["x"])
        make()
        for numbers in (other.root["x"], heap.root["again"], heap.root["x"]):
            assert numbers[0] == Gone(5)
            assert numbers[1] == (Gone(6),)
        assert heap.root["keys"][Gone(7)] == 1
    assert heap.verify().ok


def test_no_module_is_imported_because_a_file_names_it(path, tmp_path, forget):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    cls = type("Trap", (), {"__module__": "trap"})
    dh.register(cls, lambda obj: 0, lambda data: cls())
    with dh.open(path) as heap:
        heap.root["x"] = cls()
        heap.commit()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import dirtyheap as dh\n"
        f"with dh.open({str(path)!r}) as heap: print(heap.root['x'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "<dirtyheap.Unknown trap.Trap: 0>\n"


# --- pickles --------------------------------------------------------------------------------------


def test_pickles_are_read_where_allowed_only(heap):
    heap.root["p"] = [dh.Pickled({1, frozenset({2})}), 3]
    heap.root["kept"] = "as it was"
    for use in (
        lambda: heap.root["p"][0],
        lambda: heap.root["p"].pop(0),
        lambda: list(heap.root["p"]),
        lambda: heap.root["p"].copy(),
        lambda: dh.to_python(heap.root),
        lambda: heap.root["p"].sort(),
        lambda: "absent" in heap.root["p"],
    ):
        with pytest.raises(dh.HeapError, match="allow_pickle=True") as caught:
            use()
        assert type(caught.value) is dh.HeapError
    assert heap.root["p"][1] == 3
    assert "unreadable: a Pickled value" in repr(heap.root["p"])
    heap.root["p"].extend(heap.root["p"])
    heap.root["linked"] = heap.root["p"]
    assert len(heap.root["p"]) == 4
    with reopen(heap, allow_pickle=True) as heap:
        assert heap.verify().ok
        assert heap.root["p"] == [{1, frozenset({2})}, 3] * 2
        assert heap.root["p"][0] is not heap.root["p"][0]
        assert heap.root["p"].pop(0) == {1, frozenset({2})}


@dh.record
class Envelope:
    content: object
    number: float = 0.0


def test_a_record_shows_that_a_value_is_not_read(heap):
    heap.root["r"] = [heap.new(Envelope, (dh.Pickled(1),), 3), heap.new(Envelope, dh.Pickled(1))]
    for record in heap.root["r"]:
        assert "Envelope(content=" in repr(record)
        assert "<unreadable: a Pickled value" in repr(record)
        with pytest.raises(dh.HeapError, match="allow_pickle=True"):
            copy.copy(record)
    assert repr(heap.root).count("unreadable") == 2
    assert "number=3.0" in repr(heap.root)
    with reopen(heap, allow_pickle=True) as heap:
        assert repr(heap.root["r"][0]) == "Envelope(content=(1,), number=3.0)"


def test_pickles_are_no_keys_and_objects_that_cannot_be_pickled_no_values(heap):
    for use in (
        lambda: heap.root.update({dh.Pickled(1): 1}),
        lambda: heap.root.get(dh.Pickled(1)),
        lambda: heap.root.update(x=frozenset([dh.Pickled([1])])),
    ):
        with pytest.raises(TypeError, match="hash"):
            use()
    with pytest.raises((TypeError, AttributeError), match="pickle"):
        heap.root["x"] = [dh.Pickled(lambda: None)]
    assert heap.root == {}
    assert repr(dh.Pickled([1])) == "dirtyheap.Pickled([1])"


# --- packers that do more than pack ---------------------------------------------------------------


def acts(heap, items):
    """What a packer or unpacker might do meanwhile."""

    def grow():
        items.extend(range(1000))
        items.insert(0, "new")

    return {
        "nothing": lambda: None,
        "grow": grow,
        "clear": items.clear,
        "commit": heap.commit,
        "rollback": heap.rollback,
        "collect": heap.collect,
        "close": heap.close,
        "fail": lambda: 1 // 0,
        "interrupt": interrupt,
    }


def interrupt():
    raise KeyboardInterrupt


ACTS = ("nothing", "grow", "clear", "commit", "rollback", "collect", "close", "fail", "interrupt")
USES = {
    "set": lambda d, items, box: d.__setitem__("x", box),
    "set key": lambda d, items, box: d.__setitem__(box, 1),
    "get": lambda d, items, box: d.get(box),
    "pop key": lambda d, items, box: d.pop(box, None),
    "in": lambda d, items, box: box in d,
    "setdefault": lambda d, items, box: d.setdefault(box, box),
    "update": lambda d, items, box: d.update({"a": box, box: 2, "b": [box]}),
    "append": lambda d, items, box: items.append(box),
    "extend": lambda d, items, box: items.extend([1, box, (box,)]),
    "extend generator": lambda d, items, box: items.extend(Box(i) for i in range(5)),
    "insert": lambda d, items, box: items.insert(1, [box]),
    "set item": lambda d, items, box: items.__setitem__(0, {"k": box}),
    "set slice": lambda d, items, box: items.__setitem__(slice(0, 2), [box, box, box]),
    "stepped": lambda d, items, box: items.__setitem__(slice(0, 2, 2), [box]),
}
READS = {
    "item": lambda d, items: items[0],
    "slice": lambda d, items: items[:],
    "iterate": lambda d, items: list(items),
    "entries": lambda d, items: list(d.items()),
    "copy": lambda d, items: (d.copy(), items.copy()),
    "repr": lambda d, items: repr(d),
    "to_python": lambda d, items: dh.to_python(d),
    "sort": lambda d, items: items.sort(key=str),
    "pop": lambda d, items: items.pop(0),
    "pop key": lambda d, items: d.pop("boxed"),
    "popitem": lambda d, items: d.popitem(),
    "equal": lambda d, items: items == [Box(1), 2, "uncommitted"],
    "remove": lambda d, items: items.remove(Box(1)),
    "search": lambda d, items: 5 in items,
    "values": lambda d, items: 5 in d.values(),
}
EXPECTED = (dh.HeapError, RuntimeError, ZeroDivisionError, KeyboardInterrupt, IndexError, KeyError,
            ValueError)  # fmt: skip


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("act", ACTS)
def test_packers_may_do_anything(path, use, act):
    with dh.open(path) as heap:
        items = heap.root["items"] = []
        items = heap.root["items"]
        items.extend([Box("old"), 2, "three"])
        heap.commit()
        items.append("uncommitted")
        box, done = Box("new"), []

        def once():
            if not done:
                done.append(1)
                acts(heap, items)[act]()

        Box.on_pack = staticmethod(once)
        try:
            USES[use](heap.root, items, box)
        except EXPECTED as error:
            assert act != "nothing", error
        if act == "close":
            with pytest.raises(dh.HeapClosedError):
                len(items)
            return
        assert done
        assert heap.verify().ok
        heap.commit()
        before = dh.to_python(heap.root)
    with dh.open(path) as heap:
        assert dh.to_python(heap.root) == before


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("act", ACTS)
def test_unpackers_may_do_anything(path, read, act):
    with dh.open(path) as heap:
        heap.root["items"] = [Box(1), 2]
        heap.root["tuple"] = (1, Box(5), (Box(6),))
        heap.root["boxed"] = Box("value")
        heap.root[Box("key")] = Box("last")
        items = heap.root["items"]
        heap.commit()
        items.append("uncommitted")
        done = []

        def once():
            if not done:
                done.append(1)
                acts(heap, items)[act]()

        Box.on_unpack = staticmethod(once)
        taken = int(read in ("pop key", "popitem"))
        try:
            READS[read](heap.root, items)
        except EXPECTED as error:
            assert act != "nothing", error
            taken = 0
        if act != "close":
            assert done
            assert heap.verify().ok
            assert len(dh.to_python(heap.root)) == 4 - taken


def test_taking_out_what_changes_under_it(heap):
    """pop unpacks first: what stands there afterwards is what is returned, or it gives up."""
    items = heap.root["items"] = heap.list([Box(1), Box(2)])
    changes = iter([lambda: items.__setitem__(1, Box(3))])
    Box.on_unpack = staticmethod(lambda: next(changes, lambda: None)())
    assert items.pop() == Box(3)
    assert items == [Box(1)]
    changes = iter([lambda: items.clear()])
    with pytest.raises(IndexError):
        items.pop()
    d = heap.dict({"k": Box(1), Box("last"): 1})
    changes = iter([lambda: d.__setitem__("k", Box(4))])
    assert d.pop("k") == Box(4)
    changes = iter([lambda: d.__setitem__("newer", Box(5))])
    assert d.popitem() == ("newer", Box(5))
    d["tuple"] = (1, Box(6))
    changes = iter([lambda: d.__setitem__("newer", 7)])
    assert d.popitem() == ("newer", 7)
    assert d.popitem() == ("tuple", (1, Box(6)))
    numbers = iter(range(10**6))
    Box.on_unpack = staticmethod(lambda: d.__setitem__("k", Box(next(numbers))))
    d["k"] = Box("first")
    with pytest.raises(RuntimeError, match="changed each time"):
        d.pop("k")
    with pytest.raises(RuntimeError, match="changed each time"):
        d.popitem()
    items.append(Box("first"))
    Box.on_unpack = staticmethod(lambda: items.__setitem__(0, Box(next(numbers))))
    with pytest.raises(RuntimeError, match="changed each time"):
        items.pop()
    assert len(items) == 1


def test_a_packer_that_changes_the_value_for_ever(heap):
    plain = [Box(0)]
    Box.on_pack = staticmethod(lambda: plain.append(Box(len(plain))))
    with pytest.raises(RuntimeError, match="packer must leave it alone"):
        heap.root["x"] = plain
    assert heap.root == {}
    Box.on_pack = staticmethod(lambda: None)
    heap.root["x"] = plain
    assert heap.root["x"] == plain


def test_a_packer_that_changes_what_is_being_stored(heap):
    """The value is stored as it is when all is packed; no reference to what went is left."""
    plain = [Box(0), {"k": Box(1)}, (Box(2),)]

    def change():
        Box.on_pack = staticmethod(lambda: None)
        plain[0] = Box("replaced")
        plain.append({Box("key"): Box("value")})
        del plain[1]

    Box.on_pack = staticmethod(change)
    heap.root["x"] = plain
    assert heap.root["x"] == plain == [Box("replaced"), (Box(2),), {Box("key"): Box("value")}]
    entries = {"a": Box(1)}

    def more():
        Box.on_pack = staticmethod(lambda: None)
        entries.update((f"key {i}", Box(i)) for i in range(100))

    Box.on_pack = staticmethod(more)
    heap.root["d"] = heap.dict()
    heap.root["d"].update(entries)
    assert heap.root["d"] == entries
    assert len(entries) == 101


def test_what_dies_while_it_is_stored(heap):
    """A generator's values have no other owner: their end must not come between making their words
    and storing them, for it may run anything."""
    ends = []

    def values():
        for i in range(20):
            box = Box(i)
            weakref.finalize(box, lambda: (ends.append(1), heap.collect())).atexit = False
            yield box
            del box

    items = heap.root["items"] = heap.list()
    items.extend(values())
    heap.root["items"][0:0] = values()
    heap.root.update((i, box) for i, box in enumerate(values()))
    gc.collect()
    assert len(ends) >= 60
    assert items == [Box(i) for i in range(20)] * 2
    assert heap.verify().ok
    plain = [Box("only here")]
    weakref.finalize(plain[0], heap.collect).atexit = False
    Box.on_pack = staticmethod(lambda: plain.clear())
    heap.root["x"] = plain
    assert heap.root["x"] == []


def test_a_packer_that_gives_a_different_result_each_time(heap):
    """The key that was hashed is the one that is stored."""
    numbers = iter(range(10**6))

    class Restless:
        pass

    scalars.packers[Restless] = lambda core, obj: (b"x%d" % next(numbers), b"\x7f")
    try:
        d = heap.dict()
        for _ in range(50):
            d[Restless()] = 1
            d[(1, Restless())] = 2
            d.update({Restless(): 3, (Restless(), 2): 4})
            heap.root["copied"] = {Restless(): 1}
        heap.root["d"] = d
        assert len(d) == 200
        assert heap.verify().ok
    finally:
        del scalars.packers[Restless]


# --- containers for objects -----------------------------------------------------------------------


class Table:
    """Stands for an array: stored as a container of the heap."""


def test_a_packer_may_answer_with_a_container(heap, tmp_path):
    made = []

    def packer(core, table):
        made.append(core.new_list([1, 2]))
        return made[-1]

    scalars.packers[Table] = packer
    try:
        table = Table()
        heap.root["x"] = [table, {"k": table}, (table,)]
        items = heap.root["x"]
        assert items[0] is items[1]["k"] is items[2][0] is made[0]
        heap.root["y"] = table
        assert heap.root["y"] == [1, 2]
        assert heap.root.setdefault("z", table) is heap.root["z"]
        for key in (table, (1, table)):
            with pytest.raises(TypeError, match="cannot hold a key"):
                heap.root[key] = 1
            assert key not in heap.root
        with dh.open(tmp_path / "other") as other:
            scalars.packers[Table] = lambda core, table: made[0]
            with pytest.raises(ValueError, match="another heap"):
                other.root["x"] = [table]
        scalars.packers[Table] = lambda core, table: NotImplemented
        with pytest.raises(TypeError, match=r"value\['a'\]\[0\] is of type .*Table"):
            heap.root["x"] = {"a": [table]}
        for form in (1, (1, 2), (b"x",), (b"", b"p"), (b"x", b""), (None, None), "text", None):
            scalars.packers[Table] = lambda core, table, form=form: form
            with pytest.raises(TypeError, match="must return"):
                heap.root["x"] = table
        scalars.packers[Table] = lambda core, table: (b"?no tag", b"\x01")
        with pytest.raises(dh.HeapCorruptError, match="tag"):
            heap.root[table] = 1
    finally:
        del scalars.packers[Table]
    gc.collect()
    heap.collect()
    assert heap.verify().ok


def test_packers_can_come_late(heap):
    asked = []

    def find(cls):
        asked.append(cls)
        return None if cls is not Table else lambda core, table: (None, b"\x7fdata")

    scalars.lazy_packers[__name__] = find
    try:
        heap.root["x"] = Table()
        assert type(heap.root["x"]) is dh.Unknown
        with pytest.raises(TypeError, match="register"):
            heap.root["x"] = OtherTable()
        assert asked == [Table, OtherTable]
    finally:
        del scalars.lazy_packers[__name__]


class OtherTable:
    pass


# --- damage ---------------------------------------------------------------------------------------


def store_raw(heap, payload, key=None):
    """A cell with these bytes, as a damaged or hostile file would have it."""

    class Raw:
        pass

    scalars.packers[Raw] = lambda core, obj: (key, payload)
    try:
        heap.root["raw"] = [Raw()]
    finally:
        del scalars.packers[Raw]


GOOD = [1 + 2j, dt.datetime(2024, 1, 2, tzinfo=dt.UTC), dt.date(2024, 1, 2), dt.time(1, 2),
        dt.timedelta(1, 2, 3), Decimal("1.5"), Fraction(3, 4), UUID(int=5), range(9)]  # fmt: skip


NEW_YEAR = b"\x02\x07\xe8\x01\x01" + b"\0" * 6
DAMAGED = [
    b"\x01short", b"\x02", b"\x02" + b"\xff" * 10, b"\x02\x07\xe8\x0d\x01" + b"\0" * 6,
    NEW_YEAR + b"q", NEW_YEAR + b"z../../x", NEW_YEAR + b"zNo/Where", NEW_YEAR + b"zx\0",
    NEW_YEAR + b"o\xff\xff\xff\xff\xff\x7f", b"\x03\0\0\0\0", b"\x04\xff",
    NEW_YEAR + b"n\0\0",
    b"\x04" + b"\x7f" * 6, b"\x05" + b"\x7f" * 9, b"\x06", b"\x06zero", b"\x06\xff",
    b"\x07\0\0\0\0", b"\x07\1\0\0\0\5\0", b"\x08short", b"\x08" + b"\0" * 17 + b"\7", b"\x09",
    b"\x09\x93\xc4\1\1", b"\x09\x93\xc4\1\0\xc4\1\5\xc4\1\0", b"\x0a\xff\xfe", b"\x0b\xed\xa0",
    b"\x40", b"\x40\xc0", b"\x40\x92\1\2", b"\x40\x91\xa1a", b"\x40\x92\xa1a",
    b"\x40\xdd\xff\xff\xff\xff", b"\x40" + b"\x91" * 5000, b"\x41\x92\xa1a\xa1b", b"\x41",
    b"\x40\xc6\xff\xff\xff\xffx",
]  # fmt: skip


@pytest.mark.parametrize("payload", DAMAGED, ids=repr)
def test_damaged_payloads(heap, payload):
    store_raw(heap, payload)
    with pytest.raises(dh.HeapCorruptError, match="stored value of type .* cannot be read") as told:
        heap.root["raw"][0]
    assert told.value.__cause__ is not None
    for use in (
        lambda: heap.root["raw"].pop(),
        lambda: dh.to_python(heap.root),
        lambda: heap.root["raw"].copy(),
    ):
        with pytest.raises(dh.HeapCorruptError):
            use()
    assert "unreadable" in repr(heap.root)
    assert heap.verify().ok
    assert len(heap.root["raw"]) == 1


def test_every_byte_of_every_payload(heap):
    """Set to anything, it is a value or an error of ours."""
    for value in GOOD:
        _, payload = scalars.packers[type(value)](None, value)
        for at in range(1, len(payload)):
            for byte in (0, 1, 0x7F, 0x80, 0xFF, payload[at] ^ 1):
                store_raw(heap, payload[:at] + bytes([byte]) + payload[at + 1 :])
                try:
                    repr(heap.root["raw"][0])
                except dh.HeapCorruptError:
                    continue


def test_codes_from_a_newer_version(heap):
    store_raw(heap, b"\x3fdata")
    with pytest.raises(dh.HeapError, match="newer"):
        heap.root["raw"][0]
    store_raw(heap, b"\x7fdata", b"xkey")
    assert heap.root["raw"][0].data == b"data"
    heap.root["copy"] = heap.root["raw"][0]
    assert heap.root["copy"] == heap.root["raw"][0]


def test_errors_of_unpackers_are_told_as_such(heap):
    """A KeyError of an unpacker must not read as an absent key."""
    heap.root["x"] = Box(1)
    Box.on_unpack = staticmethod(lambda: {}["missing"])
    with pytest.raises(dh.HeapCorruptError, match=r"test\.Box cannot be read: KeyError") as told:
        heap.root.get("x", "default")
    assert type(told.value.__cause__) is KeyError
    Box.on_unpack = staticmethod(interrupt)
    with pytest.raises(KeyboardInterrupt):
        heap.root["x"]
    Box.on_unpack = staticmethod(lambda: None)
    assert heap.root["x"] == Box(1)

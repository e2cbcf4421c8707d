"""Record classes that change between runs: each run is a program of its own with its own class of
the same name, on one heap. Reading an old record rewrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import run_ok

import dirtyheap as dh

HEAD = """
import sys
from typing import Any, Optional
import dirtyheap as dh

def raises(kind, words, use):
    try:
        use()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError("nothing was raised")

def main(work):
    with dh.open(sys.argv[1]) as heap:
        work(heap)
        report = heap.verify()
        assert report.ok, report.first_problem
        heap.commit()
"""


def run(path: Path, script: str) -> str:
    return run_ok(HEAD + script, path)


FIRST = """
@dh.record
class Item:
    id: int
    name: str
    price: float = 1.5

def work(heap):
    heap.root["items"] = [heap.new(Item, i, f"the name of item {i}", i / 2) for i in range(300)]
main(work)
"""


@pytest.fixture
def stored(path: Path) -> Path:
    run(path, FIRST)
    return path


def test_added_removed_reordered(stored: Path) -> None:
    run(
        stored,
        """
@dh.record
class Item:
    name: str
    stock: int = 7
    id: int = -1
    tags: list = dh.field(default_factory=list)

def work(heap):
    items = heap.root["items"]
    for i, item in enumerate(items):
        assert (item.name, item.stock, item.id) == (f"the name of item {i}", 7, i)
    assert heap.pending().pages == 0, "reading dirtied pages"
    assert dh.asdict(items[3]) == {"name": "the name of item 3", "stock": 7, "id": 3}
    assert repr(items[3]) == "Item(name='the name of item 3', stock=7, id=3, tags=[])"
    assert items[3] == items[3] and items[3] != items[4]
    assert heap.pending().pages == 0, "showing dirtied pages"
    items[5].name = "stored in place"
    assert heap.pending().pages <= 3
    before = items[6]
    items[6].stock = 100
    items[7].tags.append("kept")
    assert items[6] is before and before.stock == 100 and before.id == 6
    heap.root["new"] = heap.new(Item, "fresh", 5)
main(work)
""",
    )
    run(
        stored,
        """
@dh.record
class Item:
    id: int
    name: str
    stock: int = 8
    tags: list = dh.field(default_factory=list)
    price: float = 9.5

def work(heap):
    items = heap.root["items"]
    assert items[5].name == "stored in place"
    assert (items[5].stock, items[5].price) == (8, 2.5)
    # Moved to the class of the second run: what that one lacked is gone, what it had is kept.
    assert (items[6].stock, items[6].id, items[6].price) == (100, 6, 9.5)
    assert items[7].tags == ["kept"]
    assert (items[7].stock, heap.root["new"].stock) == (8, 5)
    for item in items:
        item.price, item.stock = 3, 4
    heap.collect()
    for i, item in enumerate(items):
        assert (item.id, item.price, item.stock) == (i, 3.0, 4)
main(work)
""",
    )


def test_without_its_class(stored: Path) -> None:
    run(
        stored,
        """
def work(heap):
    item = heap.root["items"][2]
    assert isinstance(item, dh.Record)
    assert (item.id, item.name, item.price) == (2, "the name of item 2", 1.0)
    assert dh.asdict(item) == {"id": 2, "name": "the name of item 2", "price": 1.0}
    assert repr(item) == "Item(id=2, name='the name of item 2', price=1.0)"
    assert getattr(item, "nothing", 5) == 5
    raises(AttributeError, "the stored record 'Item', whose class this program does not define",
           lambda: item.nothing)
    raises(AttributeError, "has no field 'nothing'", lambda: setattr(item, "nothing", 1))
    raises(AttributeError, "Item.id cannot be deleted", lambda: delattr(item, "id"))
    raises(TypeError, "Item.id must be int, not str", lambda: setattr(item, "id", "x"))
    raises(TypeError, "Item.price must be float, not NoneType",
           lambda: setattr(item, "price", None))
    item.id, item.name, item.price = 1 << 100, "another name", 7
    assert type(item.price) is float
    assert item != heap.root["items"][3] and item == item
    heap.root["again"] = [item]
    heap.root["index"] = heap.dict({item: 1})
    assert heap.root["again"][0] is item
    assert "Item" not in dir(sys.modules["__main__"])
main(work)
""",
    )
    run(
        stored,
        FIRST.split("def work")[0]
        + """
def work(heap):
    item = heap.root["items"][2]
    assert item is heap.root["again"][0] and type(item) is Item
    assert (item.id, item.name, item.price) == (1 << 100, "another name", 7.0)
    assert heap.root["index"][item] == 1
main(work)
""",
    )


NESTED = """
@dh.record
class Leaf:
    n: int

@dh.record
class Other:
    n: int

@dh.record
class Holder:
    leaf: Leaf
    maybe: Optional[Leaf] = None

def work(heap):
    heap.root["h"] = heap.new(Holder, heap.new(Leaf, 5))
main(work)
"""


@pytest.mark.parametrize(
    ("before", "value", "after", "shown"),
    [
        ("int", "3", "float", "3.0"),
        ("int", "1 << 80", "float", "float(1 << 80)"),
        ("bool", "True", "int", "True"),
        ("bool", "True", "float", "1.0"),
        ("int", "3", "int | None", "3"),
        ("int", "3", "Any", "3"),
        ("int", "3", "object", "3"),
        ("int", "3", "int | str", "3"),
        ("int | None", "None", "Optional[float]", "None"),
        ("list", "[1]", "list[int] | None", "[1]"),
        ("dict", "{'a': 1}", "Any", "{'a': 1}"),
        ("float", "float('inf')", "float | str", "float('inf')"),
    ],
)
def test_widened(path: Path, before: str, value: str, after: str, shown: str) -> None:
    def program(annotation: str, work: str) -> str:
        return f"""
@dh.record
class Wide:
    f: {annotation}
def work(heap):
    {work}
main(work)
"""

    run(path, program(before, f"heap.root['w'] = heap.new(Wide, {value})"))
    run(
        path,
        program(
            after,
            f"found = heap.root['w'].f; plain = dh.to_python(found); shown = {shown}; "
            "assert (type(plain), plain) == (type(shown), shown), plain; "
            "assert heap.pending().pages == 0; "
            f"heap.root['w'].f = {value}; assert dh.to_python(heap.root['w'].f) == shown",
        ),
    )
    run(
        path,
        program(after, f"shown = {shown}; assert dh.to_python(heap.root['w'].f) == shown"),
    )


@pytest.mark.parametrize(
    ("before", "value", "after", "words"),
    [
        ("str", "'text'", "int", "Changed.f was stored as str and is now declared as int"),
        ("int", "1", "bool", "was stored as int and is now declared as bool"),
        ("float", "1.0", "int", "was stored as float and is now declared as int"),
        ("int | None", "None", "int", "was stored as int | None and is now declared as int"),
        ("Any", "1", "int", "was stored as Any and is now declared as int"),
        ("list", "[]", "dict", "was stored as list and is now declared as dict"),
        ("Leaf", "heap.new(Leaf)", "Twig", "was stored as Leaf and is now declared as Twig"),
        ("Leaf | None", "None", "Twig | None", "was stored as Leaf | None"),
    ],
)
def test_incompatible(path: Path, before: str, value: str, after: str, words: str) -> None:
    def program(annotation: str, work: str) -> str:
        return f"""
@dh.record
class Leaf:
    n: int = 0
@dh.record
class Twig:
    n: int = 0
@dh.record
class Changed:
    f: {annotation}
    other: str = "kept"
def work(heap):
{work}
main(work)
"""

    run(path, program(before, f"    heap.root['c'] = heap.new(Changed, {value})"))
    run(
        path,
        program(
            after,
            f"""
    record = heap.root["c"]
    words = {words!r}
    for kind in (dh.RecordClassError, dh.HeapError, TypeError):
        raises(kind, words, lambda: record.f)
    raises(TypeError, words, lambda: record.other)
    raises(TypeError, words, lambda: setattr(record, "other", "x"))
    raises(TypeError, words, lambda: record == heap.root["c2"] if "c2" in heap.root else record.f)
    assert repr(record).startswith("Changed(f="), repr(record)
    assert dh.asdict(record)["other"] == "kept"
    assert heap.pending().pages == 0
""",
        ),
    )
    run(path, program(before, "    assert heap.root['c'].other == 'kept'"))


def test_a_new_field_without_a_default(stored: Path) -> None:
    run(
        stored,
        """
@dh.record
class Item:
    id: int
    code: str

def work(heap):
    item = heap.root["items"][0]
    assert item.id == 0
    words = "Item.code: this record was stored without the field, which has no default"
    raises(dh.RecordClassError, words, lambda: item.code)
    raises(TypeError, words, lambda: item == heap.root["items"][1]
           if heap.root["items"][1].id == 0 else item.code)
    assert dh.asdict(item) == {"id": 0}
    assert heap.pending().pages == 0
    item.code = "now"
    assert (item.id, item.code) == (0, "now")
main(work)
""",
    )


def test_a_factory_is_stored_when_first_read_and_not_in_a_read_only_heap(stored: Path) -> None:
    run(
        stored,
        """
made = []
def make():
    made.append(1)
    return ["made"]

@dh.record
class Item:
    id: int
    tags: list = dh.field(default_factory=make)

def work(heap):
    item, other = heap.root["items"][0], heap.root["items"][1]
    heap._core.read_only = True
    assert item.tags == ["made"] and type(item.tags) is list
    heap._core.read_only = False
    assert heap.pending().pages == 0
    first = item.tags
    assert type(first) is dh.List and item.tags is first
    first.append("more")
    assert item.tags == ["made", "more"] and other.tags == ["made"]
    assert len(made) == 4, made
main(work)
""",
    )


def test_renamed_and_aliased(stored: Path) -> None:
    run(
        stored,
        """
@dh.record(name="Item")
class Renamed:
    id: int
    price: float

def work(heap):
    assert type(heap.root["items"][1]) is Renamed
    heap.root["one"] = heap.new(Renamed, 1, 2)
main(work)
""",
    )
    run(
        stored,
        """
@dh.record(aliases=["Item"])
class Product:
    id: int
    name: str = "no name"
    price: float = 0

def work(heap):
    one = heap.root["one"]
    assert type(one) is Product and (one.id, one.name) == (1, "no name")
    heap.root["two"] = heap.new(Product, 2)
main(work)
""",
    )
    run(
        stored,
        """
def work(heap):
    assert repr(heap.root["two"]) == "Product(id=2, name='no name', price=0.0)"
    assert repr(heap.root["one"]) == "Item(id=1, price=2.0)"
main(work)
""",
    )


def test_classes_in_annotations_by_name_and_alias(path: Path) -> None:
    run(path, NESTED)
    run(
        path,
        NESTED.replace("def work", "def first").split("main(work)")[0]
        + """
def work(heap):
    assert heap.root["h"].leaf.n == 5
main(work)
""",
    )
    run(
        path,
        """
@dh.record(aliases=["Leaf"])
class Twig:
    n: int

@dh.record
class Holder:
    leaf: Twig
    maybe: Optional[Twig] = None

def work(heap):
    assert heap.root["h"].leaf.n == 5 and type(heap.root["h"].leaf) is Twig
main(work)
""",
    )
    run(
        path,
        """
@dh.record
class Base:
    n: int

@dh.record
class Leaf(Base):
    more: int = 0

@dh.record
class Holder:
    leaf: Base
    maybe: Any = None

def work(heap):
    assert heap.root["h"].leaf.more == 0
main(work)
""",
    )


def test_stored_classes_stay_few(path: Path) -> None:
    """A run that makes a record before it reads one goes on with the stored class."""
    program = """
@dh.record
class Point:
    x: int

def work(heap):
    items = heap.root.setdefault("items", [])
    items.append(heap.new(Point, 1))
    print(heap.stats().allocated_bytes)
main(work)
"""
    sizes = [int(run(path, program)) for _ in range(4)]
    assert sizes[3] - sizes[2] <= 64
    with dh.open(path) as heap:
        assert [item.x for item in heap.root["items"]] == [1, 1, 1, 1]


def test_no_module_is_imported(path: Path, tmp_path: Path) -> None:
    module = tmp_path / "evil_module.py"
    module.write_text(
        "import dirtyheap as dh\n@dh.record(name='evil_module.Evil')\nclass Evil:\n    x: int = 1\n"
    )
    add_path = f"sys.path.insert(0, {str(tmp_path)!r})\n"
    run(
        path,
        add_path + "import evil_module\n"
        "main(lambda heap: heap.root.update(e=heap.new(evil_module.Evil)))",
    )
    run(
        path,
        add_path
        + """
def work(heap):
    assert heap.root["e"].x == 1
    assert "evil_module" not in sys.modules
main(work)
""",
    )

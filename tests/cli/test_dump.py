"""``dump``: every kind of value as text and as JSON, bounds, paths, and what cannot be read."""

from __future__ import annotations

import enum
import json
import sys
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy
import pytest
from commands import Command, run
from helpers import run_ok

import dirtyheap as dh
from dirtyheap import scalars
from dirtyheap.cli.path import PathError, parse


@dh.record(name="cli.Account")
class Account:
    """A record in these tests."""

    owner: str
    balance: float = 0.0
    history: list[float] = dh.field(default_factory=list)


class Mark(enum.Enum):
    """Registered here, so nobody else knows it."""

    GOOD = 1


class Secret:
    """Registered with a packer."""


dh.register(Mark, name="cli.mark")
dh.register(Secret, lambda _: ["packed", 1], lambda _: Secret(), name="os.system")


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """A bit of everything."""
    path = tmp_path / "rich"
    with dh.open(path) as heap:
        root = heap.root
        root["none"], root["true"], root["int"], root["float"] = None, True, -5, 2.5
        root["big"], root["huge"], root["inf"] = 1 << 80, 1 << 20_000, float("-inf")
        root["text"], root["long"], root["bytes"] = "it's", "x" * 250, b"\x00ab"
        root["tuple"], root["one"], root["deep tuple"] = (1, "a"), (1,), ((1, [2]), 3)
        root["frozenset"], root["set"] = frozenset({1}), {"element"}
        root["dict"] = {1: "a", (2, "b"): {"c": {}}, datetime(2026, 1, 2): "when"}
        root["list"] = [[1, [2, [3, [4, [5]]]]]]
        root["deque"], root["bounded"] = deque([1]), heap.deque([1, 2], maxlen=2)
        root["sorted"] = heap.sorted_dict({2: "two", 1: "one"})
        root["buffer"] = heap.buffer(b"bytes of a buffer")
        root["when"], root["price"] = datetime(2026, 1, 2, 3, 4), Decimal("1.50")
        root["id"], root["range"] = UUID(int=5), range(3)
        root["array"] = numpy.arange(30, dtype="<i4").reshape(5, 6)
        root["structured"] = numpy.array([(1, 2.5)], [("a", "i2"), ("b", "f8")])
        root["dates"] = numpy.array(["2026-01-02"], "M8[D]")
        root["mark"], root["secret"] = Mark.GOOD, Secret()
        root["pickled"] = dh.Pickled({"never": "read"})
        root["account"] = heap.new(Account, "ada", 5, [1.0])
        root["again"] = root["account"]
        root["cycle"] = []
        root["cycle"].append(root["cycle"])
        heap.commit("rich")
    return path


TEXT = """\
root: dict, 34 entries
  'none': None
  'true': True
  'int': -5
  'float': 2.5
  'big': 1208925819614629174706176
  'huge': 0x10000000000000000000000000000000000000...
  'inf': -inf
  'text': "it's"
  'long': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'... 210 more characters
  'bytes': b'\\x00ab'
  'tuple': (1, 'a')
  'one': (1,)
  'deep tuple': tuple, 2 entries
    [0] tuple, 2 entries
      [0] 1
      [1] list, 1 entry
        [0] 2
    [1] 3
  'frozenset': frozenset({1})
  'set': set, 1 entry
    'element'
  'dict': dict, 3 entries
    1: 'a'
    (2, 'b'): dict, 1 entry
      'c': dict, 0 entries
    datetime 2026-01-02 00:00:00: 'when'
  'list': list, 1 entry
    [0] list, 2 entries
      [0] 1
      [1] list, 2 entries
        [0] 2
        [1] list, 2 entries
  'deque': deque, 1 entry
    [0] 1
  'bounded': deque, 2 entries, at most 2
    [0] 1
    [1] 2
  'sorted': sorted_dict, 2 entries
    1: 'one'
    2: 'two'
  'buffer': buffer of 17: b'bytes of a buffer'
  'when': datetime 2026-01-02 03:04:00
  'price': Decimal 1.50
  'id': UUID 00000000-0000-0000-0000-000000000005
  'range': range range(0, 3)
  'array': array of int32, shape (5, 6): 0, 1, 2, 3, ...
  'structured': array of [('a', '<i2'), ('b', '<f8')], shape (1): (1, 2.5)
  'dates': array of datetime64[D], shape (1): '2026-01-02'
  'mark': <cli.mark: 'GOOD'>
  'secret': <os.system: ['packed', 1]>
  'pickled': <not readable: a Pickled value is not read, because reading it may run any code: if \
you trust the heap, open it with dirtyheap.open(path, allow_pickle=True)>
  'account': record cli.Account, 3 fields
    .owner = 'ada'
    .balance = 5.0
    .history = list, 1 entry
      [0] 1.0
  'again': the same as root['account']
  'cycle': list, 1 entry
    [0] the same as root['cycle']
"""


def test_text(rich: Path) -> None:
    # Another process: one that has not defined the classes.
    done = run("dump", rich, "--items", "all", "--text", "40")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.replace(
            "array of int32, shape (5, 6): " + ", ".join(map(str, range(30))),
            "array of int32, shape (5, 6): 0, 1, 2, 3, ...",
        )
        == TEXT
    )


def test_json(rich: Path) -> None:
    done = run("dump", rich, "--items", "40", "--text", "29", "--json")
    document = json.loads(done.stdout)
    value = document.pop("value")
    assert document == {"heap": str(rich), "commit": 1, "part": "root", "unreadable": 0}
    assert (value["type"], value["length"], value["more"]) == ("dict", 34, 0)
    found: dict[str, Any] = dict(value["items"])
    assert [found[name] for name in ("none", "true", "int", "float", "text")] == [
        *(None, True, -5, 2.5, "it's")
    ]
    assert found["big"] == {"type": "int", "text": "1208925819614629174706176"}
    assert found["inf"] == {"type": "float", "text": "-inf"}
    assert found["long"] == {"type": "str", "text": "x" * 29, "more": 221}
    assert found["bytes"] == {"type": "bytes", "length": 3, "hex": "006162", "more": 0}
    assert found["tuple"] == {"type": "tuple", "length": 2, "items": [1, "a"], "more": 0}
    assert found["deque"] == {
        "type": "deque", "length": 1, "items": [1], "more": 0, "maxlen": None
    }  # fmt: skip
    assert found["bounded"]["maxlen"] == 2
    assert found["dict"]["items"][2] == [
        {"type": "datetime", "text": "2026-01-02 00:00:00"},
        "when",
    ]
    assert found["array"] == {
        "type": "array",
        "dtype": "int32",
        "shape": [5, 6],
        "items": list(range(30)),
        "more": 0,
    }
    assert found["structured"]["items"] == [
        {"type": "tuple", "length": 2, "items": [1, 2.5], "more": 0}
    ]
    assert found["secret"] == {"type": "unknown", "name": "os.system", "data": "['packed', 1]"}
    assert found["pickled"]["type"] == "unreadable"
    assert found["account"] == {
        "type": "record",
        "class": "cli.Account",
        "fields": {
            "owner": "ada",
            "balance": 5.0,
            "history": {"type": "list", "length": 1, "items": [1.0], "more": 0},
        },
        "more": 0,
    }
    assert found["again"] == {"type": "same", "path": "root['account']"}
    assert found["cycle"]["items"] == [{"type": "same", "path": "root['cycle']"}]


def test_bounds(command: Command, shop: Path) -> None:
    log = command.json("dump", shop, "root['log']", "--items", "2")["value"]
    assert log == {"type": "list", "length": 31, "items": ["opened", "line 0"], "more": 29}
    assert command.ok("dump", shop, "root['log']", "--items", "2") == (
        "root['log']: list, 31 entries\n  [0] 'opened'\n  [1] 'line 0'\n  ... 29 more\n"
    )
    nothing = command.json("dump", shop, "--depth", "0")["value"]
    assert nothing == {"type": "dict", "length": 2, "items": [], "more": 2}
    assert command.ok("dump", shop, "--depth", "0") == "root: dict, 2 entries\n"
    assert len(command.json("dump", shop, "root['log']", "--items", "all")["value"]["items"]) == 31


def test_depth_beyond_any_stack(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "deep"
    with dh.open(path) as heap:
        inner = heap.root["deep"] = heap.list()
        for _ in range(5000):
            inner.append(heap.list())
            inner = inner[0]
        heap.commit()
        del inner
    for options in ([], ["--json"]):
        assert len(command.ok("dump", path, "--depth", "all", *options)) > 200


def test_more_digits_than_python_writes(command: Command, tmp_path: Path) -> None:
    huge = 1 << 40_000
    with dh.open(tmp_path / "h") as heap:
        heap.root[huge] = {"a": range(huge), "b": Fraction(1, huge)}
        heap.root[(huge,)] = [huge]
        heap.commit()
    (first, inner), (_, second) = command.json("dump", tmp_path / "h")["value"]["items"]
    assert first["type"] == "int" and first["text"].startswith("0x1000")
    texts = [node["text"] for _, node in inner["items"]]
    assert texts == ["<range with too many digits>", "<Fraction with too many digits>"]
    assert second["items"][0]["text"].startswith("0x1000")
    assert "<range with too many digits>" in command.ok("dump", tmp_path / "h")


def test_parts(command: Command, rich: Path, shop: Path) -> None:
    assert command.ok("dump", shop, "root['stock']['bolt']") == "root['stock']['bolt']: 39\n"
    assert command.ok("dump", shop, " root [ 'log' ] [ -1 ]") == "root['log'][-1]: 'line 29'\n"
    assert command.ok("dump", rich, "root['account'].owner") == "root['account'].owner: 'ada'\n"
    assert command.ok("dump", rich, "root['deep tuple'][0][1][0]").endswith(": 2\n")
    assert command.ok("dump", rich, "root['dict'][(2, 'b')]['c']").endswith("dict, 0 entries\n")
    assert command.ok("dump", rich, "root['sorted'][2]").endswith("'two'\n")
    # What a path in the output says can be given back.
    assert command.ok("dump", rich, "root['again']").startswith("root['again']: record ")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("root['nothing']", "root has no entry ['nothing']"),
        ("root['log'][31]", "root['log'] has no entry [31]"),
        ("root['log']['x']", "root['log']['x']:"),
        ("root['stock']['bolt'][0]", "root['stock']['bolt'][0]: int has no such thing as an entry"),
        ("root['log'].append", "root['log'].append: List has no such thing as a field"),
        ("root.clear", "root.clear: Dict has no such thing as a field"),
    ],
)
def test_parts_that_are_not_there(command: Command, shop: Path, part: str, words: str) -> None:
    command.fails(1, words, "dump", shop, part)


def test_fields_only(command: Command, rich: Path) -> None:
    """A path looks up what was stored, and nothing else that a record's class has."""
    for name in ("__class__", "__eq__", "nothing"):
        part = f"root['account'].{name}"
        command.fails(1, f"root['account'] has no field .{name}", "dump", rich, part)


def test_paths() -> None:
    assert [str(step) for step in parse("root")] == []
    steps = parse("root[1][-2.5][b'x'][None][True]['it\\'s'].name[(1, ('a',))]")
    assert "".join(map(str, steps)) == ("[1][-2.5][b'x'][None][True][\"it's\"].name[(1, ('a',))]")
    for text in ("", "root()", "root[f()]", "root['a' 'b'][{}]", "a.b", "root[1:2]", "root\0"):
        with pytest.raises(PathError, match="is no path"):
            parse(text)


def test_older_commits_and_tags(command: Command, shop: Path) -> None:
    assert command.json("dump", shop, "root['stock']['bolt']", "--at", "1")["value"] == 40
    command.ok("tag", "add", shop, "before", "1")
    document = command.json("dump", shop, "root['log']", "--at", "before")
    assert document["commit"] == 1 and document["value"]["items"] == ["opened"]
    command.fails(5, "there is no commit 99", "dump", shop, "--at", "99")
    command.fails(1, "there is no tag 'after'", "dump", shop, "--at", "after")


def test_an_empty_heap(command: Command, tmp_path: Path) -> None:
    dh.open(tmp_path / "empty").close()
    assert command.ok("dump", tmp_path / "empty") == "root: dict, 0 entries\n"
    assert command.json("dump", tmp_path / "empty")["commit"] == 0


def test_nothing_is_imported_or_executed(rich: Path) -> None:
    script = """
import sys
from dirtyheap.cli import main
main(["info", sys.argv[1]])
import numpy  # by the library, for the arrays
before = set(sys.modules)
assert main(["dump", sys.argv[1], "--depth", "all", "--items", "all"]) == 0
new = {name for name in set(sys.modules) - before if not name.startswith(("dirtyheap", "numpy"))}
assert not new & {"os.system", "test_dump", "cli", "pickle5"}, new
"""
    run_ok(script, rich)
    assert "os.system" not in sys.modules


@pytest.fixture
def no_decimals() -> Iterator[None]:
    """Decimals cannot be read, as if their bytes were damaged."""

    def fail(data: bytes) -> None:
        raise ValueError("these bytes make no sense")

    original, scalars.unpackers[6] = scalars.unpackers[6], fail
    yield
    scalars.unpackers[6] = original


@pytest.mark.usefixtures("no_decimals")
def test_what_is_damaged_is_passed_over_and_told(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    with dh.open(path) as heap:
        heap.root["list"] = [1, Decimal("1.5"), 3]
        heap.root["keys"] = {Decimal("2.5"): 1, 2: 3}
        heap.root["set"] = {Decimal("2.5")}
        heap.root["account"] = heap.new(Account, "ada", history=[])
        heap.root["rest"] = "is read"
        heap.commit()

    ran = command("dump", path, "--json")
    assert (ran.code, ran.err) == (4, "")
    assert ran.json["unreadable"] == 3
    found = dict(ran.json["value"]["items"])
    assert found["list"]["items"][::2] == [1, 3] and found["rest"] == "is read"
    assert "these bytes make no sense" in found["list"]["items"][1]["error"]
    assert found["keys"]["items"][0][0]["type"] == "unreadable"
    assert found["set"]["items"][0]["type"] == "unreadable"
    shown = command("dump", path).out
    assert "[1] <not readable: a stored value of type" in shown
    command.fails(4, "these bytes make no sense", "dump", path, "root['list'][1]")

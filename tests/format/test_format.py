"""docs/format.md is right: a reader written from it alone finds in every golden heap what the
library finds, and notices when bytes are not as the document says."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import msgpack
import pytest
from format_keys import Keys
from format_reader import Array, Damaged, Files, Graph, Packed, Record, SetInOrder, SortedDict
from format_values import signed
from golden import golden_heaps
from golden.described import Describer

import dirtyheap as dh


class ReaderDescriber(Describer):
    """Describes what the independent reader makes."""

    def describe(self, value: Any) -> Any:
        if not isinstance(value, Packed):
            return super().describe(value)
        if value.code == 66:  # a golden heap is our own
            return super().describe(pickle.loads(value.data))
        name, *fields = msgpack.unpackb(value.data, strict_map_key=False)
        if value.code == 64:
            (shown,) = fields
        else:
            member, plain = fields
            shown = signed(plain) if isinstance(plain, bytes) else plain[0] if plain else member
        return {"$": "Unknown", "=": [name, shown]}

    def _content(self, value: Any) -> tuple[str, Any]:
        if isinstance(value, SortedDict):
            return "sorted", self.pairs(value)
        if isinstance(value, SetInOrder):
            return "set", self.items(value)
        if isinstance(value, Record):
            fields = {name: self.describe(part) for name, part in value.fields.items()}
            return "record", {"class": value.name, "fields": fields}
        if isinstance(value, Array):
            return "array", {
                "dtype": _dtype(value.dtype),
                "shape": list(value.shape),
                "hex": value.items.hex(),
            }
        return super()._content(value)


def _dtype(dtype: Any) -> Any:
    if isinstance(dtype, str):
        return dtype
    if len(dtype) == 2:
        return [_dtype(dtype[0]), list(dtype[1])]
    size, _, fields = dtype
    return [size, [[name, offset, _dtype(field)] for name, offset, field, _ in fields]]


@pytest.mark.parametrize("name", golden_heaps.NAMES)
def test_the_reader_of_the_document_finds_what_the_library_wrote(name: str, tmp_path: Path) -> None:
    files = Files(golden_heaps.unpack(name, tmp_path))
    found = ReaderDescriber().describe(Graph(files).root())
    expected = golden_heaps.expected(name)
    assert json.loads(json.dumps(found)) == expected["root"]
    assert files.record["id"] == expected["commits"][-1]["id"]
    found_tags = {name: tag["commit"] for name, tag in files.tags.items()}
    assert found_tags == expected.get("tags", {})
    shown = {commit["id"]: commit for commit in expected["commits"]}
    for number, record in files.commits.items():
        assert {key: record[key] for key in shown[number]} == shown[number]


@pytest.mark.parametrize("name", golden_heaps.NAMES)
def test_every_key_is_where_the_document_says(name: str, tmp_path: Path) -> None:
    files = Files(golden_heaps.unpack(name, tmp_path))
    graph = Graph(files)
    graph.root()
    assert Keys(graph, files.meta["hash_key"]).check() > 8000
    with pytest.raises(Damaged, match="a fingerprint|in the index"):
        Keys(graph, bytes(16)).check()


@pytest.mark.parametrize("number", range(1, 7))
def test_every_commit_that_is_kept_can_be_read(number: int, tmp_path: Path) -> None:
    path = golden_heaps.unpack("format2", tmp_path)
    found = ReaderDescriber().describe(Graph(Files(path, number)).root())
    with dh.open(path, read_only=True, at=number, allow_pickle=True) as heap:
        assert Describer().describe(heap.root) == found


@pytest.mark.parametrize("name", golden_heaps.NAMES)
def test_the_reader_looks_at_every_checksum(name: str, tmp_path: Path) -> None:
    """Else it could agree with the library about bytes that neither document nor library means."""
    path = golden_heaps.unpack(name, tmp_path)
    for file in sorted((path / "base").iterdir()):
        data = bytearray(file.read_bytes())
        for at in (0, len(data) // 2, len(data) - 1):
            data[at] ^= 4
            file.write_bytes(data)
            with pytest.raises(Damaged):
                Files(path)
            data[at] ^= 4
        file.write_bytes(data)
    Files(path)


def test_the_reader_does_not_use_the_library() -> None:
    for name in ("format_reader.py", "format_values.py"):
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        assert "import dirtyheap" not in text and "from dirtyheap" not in text

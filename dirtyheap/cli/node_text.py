"""Nodes as text for people: one line an entry, indented by level, escaped for terminals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .nodes import Node
from .output import plural, printable

_INDENT = "  "


def lines(node: Node, name: str) -> Iterator[str]:
    """The node under its name, and below it what it holds."""
    yield from _entry(printable(name), node, 0)


def _entry(label: str, node: Node, level: int) -> Iterator[str]:
    yield f"{_INDENT * level}{label}{_head(node)}"
    if not _has_parts(node):
        return
    for inner, part in _parts(node):
        yield from _entry(inner, part, level + 1)
    if node["more"] and _count_shown(node):
        yield f"{_INDENT * (level + 1)}... {node['more']} more"


def _has_parts(node: Node) -> bool:
    return isinstance(node, dict) and ("items" in node or "fields" in node) and not _is_flat(node)


def _count_shown(node: dict[str, Any]) -> int:
    return len(node.get("items", node.get("fields", ())))


def _parts(node: dict[str, Any]) -> Iterator[tuple[str, Node]]:
    if "fields" in node:
        for name, part in node["fields"].items():
            yield f".{printable(name)} = ", part
    elif node["type"] in ("dict", "sorted_dict"):
        for key, part in node["items"]:
            yield f"{short(key)}: ", part
    elif node["type"] in ("set", "frozenset"):
        for part in node["items"]:
            yield "", part
    else:
        for index, part in enumerate(node["items"]):
            yield f"[{index}] ", part


def _is_flat(node: dict[str, Any]) -> bool:
    """Shown on one line: tuples and frozensets of simple values, arrays."""
    if node["type"] == "array":
        return True
    if node["type"] not in ("tuple", "frozenset") or node["more"]:
        return False
    return all(not isinstance(part, dict) or "text" in part for part in node["items"])


def _head(node: Node) -> str:
    """The line of a node."""
    if not isinstance(node, dict):
        return _literal(node)
    kind = node["type"]
    if kind == "record":
        fields = len(node["fields"]) + node["more"]
        return f"record {printable(node['class'])}, {plural(fields, 'field')}"
    if kind == "array":
        shape = ", ".join(map(str, node["shape"]))
        items = ", ".join(map(short, node["items"])) + (", ..." if node["more"] else "")
        return f"array of {node['dtype']}, shape ({shape}): {items}"
    if "items" in node:
        if _is_flat(node):
            return short(node)
        limit = f", at most {node['maxlen']}" if node.get("maxlen") is not None else ""
        return f"{kind}, {plural(node['length'], 'entry', 'entries')}{limit}"
    return short(node)


def short(node: Node) -> str:
    """A node on one line."""
    if not isinstance(node, dict):
        return _literal(node)
    kind = node["type"]
    if kind == "same":
        return f"the same as {printable(node['path'])}"
    if kind == "unreadable":
        return f"<not readable: {printable(node['error'])}>"
    if kind == "unknown":
        return f"<{printable(node['name'])}: {printable(node['data'])}>"
    if kind == "str":
        return f"{_literal(node['text'])}... {node['more']} more characters"
    if kind in ("bytes", "buffer"):
        data = bytes.fromhex(node["hex"])
        rest = f"... {node['more']} more bytes" if node["more"] else ""
        return (
            f"buffer of {node['length']}: {data!r}{rest}" if kind == "buffer" else f"{data!r}{rest}"
        )
    if "text" in node:
        text = printable(node["text"])
        return text if kind in ("int", "float") else f"{kind} {text}"
    if kind in ("tuple", "frozenset"):
        parts = [short(part) for part in node["items"]] + ["..."] * bool(node["more"])
        inner = ", ".join(parts) + ("," if kind == "tuple" and len(parts) == 1 else "")
        return f"({inner})" if kind == "tuple" else f"frozenset({{{inner}}})"
    return f"{kind}, {plural(node.get('length', 0), 'entry', 'entries')}"


def _literal(value: Any) -> str:
    return printable(repr(value))

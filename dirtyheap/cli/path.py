"""Paths to a part of a heap: ``root['users'][3].name``, parsed and followed, never evaluated.

Names in brackets are literals of Python; behind a dot stands a field of a record. Following one
calls nothing but lookups of the containers.
"""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass
from typing import Any

from .._native import Deque, Dict, List, Record, SortedDict


@dataclass(frozen=True, slots=True)
class Step:
    """One step down: a key or index, or the name of a field."""

    key: Any
    is_field: bool = False

    def __str__(self) -> str:
        return f".{self.key}" if self.is_field else f"[{self.key!r}]"


class PathError(argparse.ArgumentTypeError):
    """The text is no path."""


def parse(text: str) -> list[Step]:
    """The steps from the root.

    >>> [str(step) for step in parse("root['users'][-1].name")]
    ["['users']", '[-1]', '.name']
    >>> parse("root.update()")
    Traceback (most recent call last):
    dirtyheap.cli.path.PathError: 'root.update()' is no path: write root['key'][3].field
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        steps = _steps(node)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise PathError(f"{text!r} is no path: write root['key'][3].field") from None
    return steps


def _steps(node: ast.expr) -> list[Step]:
    steps: list[Step] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Subscript):
            key = ast.literal_eval(node.slice)  # literals only: evaluates no name and no call
            hash(key)
            steps.append(Step(key))
        elif isinstance(node, ast.Attribute):
            steps.append(Step(node.attr, is_field=True))
        else:
            raise ValueError("neither a key nor a field")
        node = node.value
    if node.id != "root":
        raise ValueError("paths begin at the root")
    return steps[::-1]


def follow(root: Any, steps: list[Step]) -> Any:
    """What the path leads to; LookupError, with a sentence, where there is nothing."""
    at, value = "root", root
    for step in steps:
        try:
            value = _take(value, step)
        except (KeyError, IndexError):
            raise LookupError(
                f"{at} has no {'field' if step.is_field else 'entry'} {step}"
            ) from None
        except TypeError as error:
            raise LookupError(f"{at}{step}: {error}") from None
        at += str(step)
    return value


def _take(value: Any, step: Step) -> Any:
    if step.is_field:
        if isinstance(value, Record):
            return value.__copy__()[step.key]
    elif isinstance(value, (Dict, SortedDict, List, Deque, tuple)):
        return value[step.key]
    kind = "a field" if step.is_field else "an entry"
    raise TypeError(f"{type(value).__name__} has no such thing as {kind}")

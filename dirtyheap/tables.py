"""Figures as text: tables, sizes, and texts that come from a heap and may go to a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """The text without what a terminal would obey: controls, escapes, direction marks, surrogates,
    as in a Python literal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def columns(rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> list[str]:
    """Rows as aligned text; ``right``: columns that are aligned at their end."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]


def size(count: int) -> str:
    """Bytes for people: 999 B, 1.5 kB, 12.3 MB."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"

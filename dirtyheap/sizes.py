"""How large a heap may be."""

from __future__ import annotations

from typing import Final

CAPACITY_BYTES: Final = 64 << 30  # address space reserved unless said otherwise
CAPACITY_BYTES_MIN: Final = 1 << 20
CAPACITY_BYTES_MAX: Final = 4 << 40

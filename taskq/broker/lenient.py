"""Lenient reading: what others may have written to the server is read as far as possible.

One unreadable value must not hide the others, so nothing here raises. What is wrong becomes a
`Trouble`, which says how to fix it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Trouble", "count_of", "text_of", "time_of"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that needs somebody, and what to type.

    It is `serious` when jobs do not run because of it.
    """

    about: Literal["queues", "leases", "entries", "schedules"]
    what: str
    fix: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


_FIRST: Final = -62_135_510_400_000
_LAST: Final = 253_402_214_400_000
"""A day from the first and the last `datetime` (ms): those between can be shown in every zone."""

_WHOLE: Final = re.compile(rb"-?[0-9]{1,15}")


def text_of(value: bytes) -> str:
    """A text; bytes that are not UTF-8 are shown as escapes."""
    return value.decode("utf-8", "backslashreplace")


def time_of(value: bytes | None) -> int | None:
    """A time in milliseconds as the scripts write it; None for anything else."""
    if not value or not _WHOLE.fullmatch(value):
        return None
    number = int(value)
    return number if _FIRST < number < _LAST and b"%d" % number == value else None


def count_of(value: bytes | None) -> int:
    """A count as the scripts write it; 0 for anything else."""
    return int(value) if value and value.isdigit() and len(value) < 16 else 0

"""Lenient reading: values that another program may have overwritten are read as far as possible.

An unreadable value must not hide the others, so nothing here raises. Problems are reported as
`Trouble`, with a fix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Trouble", "count_of", "text_of", "time_of"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem that an operator has to solve, and the command or step that fixes it.

    `serious`: jobs do not run because of it.
    """

    about: Literal["queues", "leases", "entries", "schedules"]
    what: str
    fix: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


_FIRST: Final = -62_135_510_400_000
_LAST: Final = 253_402_214_400_000
"""One day inside the range of `datetime` (ms), so that every time zone can show the instant."""

_WHOLE: Final = re.compile(rb"-?[0-9]{1,15}")


def text_of(value: bytes) -> str:
    """Decode a text; bytes that are not UTF-8 become escapes."""
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

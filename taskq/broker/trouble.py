"""What is not well, and what to type about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Trouble"]


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

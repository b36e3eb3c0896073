"""How far tests have moved the server's clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClockOffset"]


@dataclass(slots=True)
class ClockOffset:
    """Milliseconds that every script adds to the server's clock; 0 outside tests.

    One object is shared by everything that belongs to one TaskQ, so that moving it moves them all.
    """

    ms: int = 0

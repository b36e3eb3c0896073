"""Definitions that are typed again: a cell of a notebook that is run again, lines at a prompt."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

__all__ = ["is_typed", "register"]

F = TypeVar("F")


def is_typed(function: Any) -> bool:
    """Whether `function` was typed at a prompt or in a notebook, where it may be typed again."""
    return hasattr(sys, "ps1") and getattr(function, "__module__", None) == "__main__"


def register(registered: list[F], function: F) -> None:
    """Add a function to a list; one that is typed again takes the place of what it was."""
    name = getattr(function, "__qualname__", "")
    if is_typed(function) and "<lambda>" not in name:
        for place, known in enumerate(registered):
            if is_typed(known) and getattr(known, "__qualname__", None) == name:
                registered[place] = function
                return
    registered.append(function)

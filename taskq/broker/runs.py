"""How many things alike are said to a script: what neighbours have in common is said once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["in_runs"]


def in_runs(items: Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]) -> list[Any]:
    """Items of (shared part, own part) as runs: how many, what they share, then each one's own.

    >>> in_runs([(("a", 1), ("x",)), (("a", 1), ("y",)), (("b", 2), ("z",))])
    [2, 'a', 1, 'x', 'y', 1, 'b', 2, 'z']
    """
    said: list[Any] = []
    alike: tuple[Any, ...] | None = None
    count_at = 0
    for common, own in items:
        if common != alike:
            alike, count_at = common, len(said)
            said += (0, *common)
        said[count_at] += 1
        said += own
    return said

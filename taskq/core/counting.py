"""Counts in sentences."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, one: str, many: str) -> str:
    """A count and the words that go with it.

    >>> counted(1, "job waits", "jobs wait"), counted(1200, "job waits", "jobs wait")
    ('1 job waits', '1,200 jobs wait')
    """
    return f"{count:,} {one if count == 1 else many}"

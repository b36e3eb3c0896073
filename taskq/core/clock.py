"""A monotonic clock that also counts the time in which the machine slept."""

from __future__ import annotations

import time

__all__ = ["monotonic"]

# CLOCK_MONOTONIC stands still while Linux sleeps; elsewhere it goes on, or nothing better is there.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def monotonic() -> float:
    """Seconds since some moment in the past: only differences mean anything."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)

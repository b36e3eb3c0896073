"""A monotonic clock that keeps counting while the machine sleeps."""

from __future__ import annotations

import time

__all__ = ["monotonic"]

# On Linux CLOCK_MONOTONIC stops while the machine sleeps; elsewhere it is the best there is.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def monotonic() -> float:
    """Seconds since an arbitrary moment in the past; only differences are meaningful."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)

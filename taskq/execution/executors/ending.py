"""How a process ended, in words."""

from __future__ import annotations

import signal

__all__ = ["how_it_ended"]


def how_it_ended(code: int) -> str:
    """An exit code, or minus the signal that killed it, in words.

    >>> how_it_ended(3)
    'ended with exit code 3'
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (by somebody, or by the kernel when memory ran out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"

"""How long a process had to wait for a processor: what others did to a measurement."""

from __future__ import annotations

from pathlib import Path

__all__ = ["seconds_waited"]


def seconds_waited(pid: int | str = "self") -> float:
    """Seconds the main thread was ready to run and did not; 0 where it is unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0

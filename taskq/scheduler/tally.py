"""What a scheduler counts about itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Counters of one scheduler since it started.

    `ticks` are calls that fired; `refused` those whose term was over; `latest` is the greatest time
    in seconds by which a fire was sent late.
    """

    terms: int = 0
    ticks: int = 0
    fired: int = 0
    skipped: int = 0
    refused: int = 0
    paused: int = 0
    latest: float = 0.0

"""What a run of the benchmarks was asked to do."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

__all__ = ["Mode", "Plan"]

Mode = Literal["short", "full", "long"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything is to be measured, and how often.

    `runs` rounds are counted, after one that is not. `jobs` overrides the number of jobs of every
    scenario; None leaves each its own, which depends on `mode`. `loop` is the event loop of every
    process, the enqueueing one included. `seed` decides the arguments of the jobs.
    """

    mode: Mode
    runs: int
    loop: str
    seed: int
    jobs: int | None = None

    def count(self, short: int, full: int, long: int) -> int:
        """How many jobs: as asked for, else by mode."""
        return self.jobs or {"short": short, "full": full, "long": long}[self.mode]

    def arguments(self, count: int) -> list[tuple[int, int]]:
        """Two small integers for each of `count` jobs, the same for the same seed."""
        source = random.Random(self.seed)
        return [(source.randrange(100), source.randrange(100)) for _ in range(count)]

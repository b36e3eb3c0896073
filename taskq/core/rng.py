"""The package's own random numbers, independent of the global `random`.

A program that seeds `random` would repeat the ids of its jobs, and a library that draws from it
would change the results of such a program.
"""

from __future__ import annotations

import os
from random import Random
from typing import Final

__all__ = ["RNG"]


class _Random(Random):
    """Seeded by the system, and again after each fork, which `forks` counts."""

    forks = 0

    def reseed(self) -> None:
        self.forks += 1
        self.seed()


RNG: Final = _Random()
os.register_at_fork(after_in_child=RNG.reseed)

"""The package's own random numbers, independent of what user code seeds.

A program that seeds `random` would make the ids of its jobs again and again, and a library that
draws from there changes what such a program computes.
"""

from __future__ import annotations

import os
from random import Random
from typing import Final

__all__ = ["RNG"]


class _Chance(Random):
    """Seeded by the system, in a forked process anew. `forks` counts these."""

    forks = 0

    def renew(self) -> None:
        self.forks += 1
        self.seed()


RNG: Final = _Chance()
os.register_at_fork(after_in_child=RNG.renew)

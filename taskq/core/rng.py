"""Chance of the package's own: what user code seeds is not drawn from, and is left as it was.

A program that seeds `random` would make the ids of its jobs again and again, and a library that
draws from there changes what such a program computes.
"""

from __future__ import annotations

import os
from random import Random
from typing import Final

__all__ = ["CHANCE"]


class _Chance(Random):
    """Seeded by the system, in a forked process anew. `forks` counts these."""

    forks = 0

    def renew(self) -> None:
        self.forks += 1
        self.seed()


CHANCE: Final = _Chance()
os.register_at_fork(after_in_child=CHANCE.renew)

"""The gate that every no-op passes: it counts, and says when enough of them ran."""

from __future__ import annotations

import asyncio

__all__ = ["Gate"]


class Gate:
    """Counts jobs; the one that makes `target` sets `reached`, and none behind it goes through.

    Jobs behind the last one wait for ever, so that a worker in front of a longer queue does a known
    number of jobs and then stands still.
    """

    def __init__(self) -> None:
        self.done = 0
        self.target = 0
        self.reached = asyncio.Event()

    def open(self, target: int) -> None:
        """Let `target` jobs through, from now."""
        self.done = 0
        self.target = target
        self.reached = asyncio.Event()

    async def full(self) -> None:
        """To be awaited by a job that finds `done >= target` after counting itself."""
        if self.done == self.target:
            self.reached.set()
        else:
            await asyncio.get_running_loop().create_future()

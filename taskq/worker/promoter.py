"""Promoter: moves due jobs to their queues, at their time. Every worker has one; none leads."""

from __future__ import annotations

import asyncio
import logging

from taskq.broker.broker import Broker
from taskq.broker.connection import ConnectionLost
from taskq.core.chance import CHANCE
from taskq.core.errors import ServerError
from taskq.core.liveness import PROMOTE_SECONDS

__all__ = ["Promoter"]

_log = logging.getLogger("taskq.worker")

LIMIT = 1000


class Promoter:
    """One background loop: promote, then sleep until the next job is due or a nearer one comes."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._nearer = asyncio.Event()

    def look(self) -> None:
        """A job was added that is due before all others."""
        self._nearer.set()

    async def run(self) -> None:
        """Promote until cancelled; survives the server."""
        while True:
            self._nearer.clear()
            try:
                moved, next_in = await self.promote()
            except (ServerError, ConnectionLost):
                moved, next_in = 0, None
            if moved >= LIMIT:
                continue
            try:
                async with asyncio.timeout(_pause(next_in)):
                    await self._nearer.wait()
            except TimeoutError:
                continue

    async def promote(self) -> tuple[int, float | None]:
        """Promote what is due: how many jobs, and seconds until the next (None: none is known)."""
        record_ttl = self._broker.settings.retention.failure_seconds
        moved, next_in = await self._broker.upkeep.promote(LIMIT, record_ttl)
        if moved:
            _log.debug("%d jobs became due", moved)
        return moved, next_in


def _pause(next_in: float | None) -> float:
    if next_in is not None and next_in < PROMOTE_SECONDS:
        return next_in
    # Workers that look at the same time do the same work twice: spread them.
    return CHANCE.uniform(PROMOTE_SECONDS / 2, PROMOTE_SECONDS)

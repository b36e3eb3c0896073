"""Promoter and sweeper: move due jobs to their queues, and remove unused data.

One worker does this at a time; the others stand by.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from taskq.broker.broker import Broker
from taskq.core.errors import ServerError
from taskq.core.liveness import PROMOTE_SECONDS, SWEEP_ROUND_SECONDS, SWEEP_SECONDS
from taskq.core.rng import RNG
from taskq.redis.connection import ConnectionLost

__all__ = ["Promoter", "Sweeper"]


class Sweeper:
    """One background loop: sweep some queues, pause, and start over after the last queue."""

    def __init__(self, broker: Broker, promoter: Promoter) -> None:
        self._broker = broker
        self._promoter = promoter

    async def run(self) -> None:
        """Sweep until cancelled; retries while the server is unavailable."""
        cursor = "0"
        while True:
            if self._promoter.chosen:
                with contextlib.suppress(ServerError, ConnectionLost):
                    cursor = await self._broker.upkeep.sweep(cursor)
            await asyncio.sleep(SWEEP_ROUND_SECONDS if cursor == "0" else SWEEP_SECONDS)


_log = logging.getLogger("taskq.worker")

LIMIT = 250
"""Jobs per call, which keep the server busy for a few milliseconds."""


class Promoter:
    """One background loop: promote due jobs, then sleep until the next one is due.

    The reply to each heartbeat says whether this worker is the one that promotes. It does no harm
    when two workers believe so for a moment: the server moves each job once.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sooner = asyncio.Event()
        self._chosen = asyncio.Event()

    @property
    def chosen(self) -> bool:
        """Whether this worker promotes."""
        return self._chosen.is_set()

    def choose(self, chosen: bool) -> None:
        """Start or stop promoting."""
        if chosen == self._chosen.is_set():
            return
        if chosen:
            self._chosen.set()
        else:
            self._chosen.clear()
        self._sooner.set()

    async def run(self) -> None:
        """Promote while chosen, until cancelled; retries while the server is unavailable."""
        client, channel = self._broker.client, self._broker.keys.next_channel
        while True:
            await self._chosen.wait()
            try:
                # Subscribe before the first call, so that no job in between is missed.
                await client.subscribe(channel, lambda _: self._sooner.set())
                while self._chosen.is_set():
                    await self._step()
                await client.unsubscribe(channel)
            except (ServerError, ConnectionLost):
                await asyncio.sleep(RNG.uniform(PROMOTE_SECONDS / 2, PROMOTE_SECONDS))

    async def _step(self) -> None:
        self._sooner.clear()
        moved, next_in = await self.promote()
        if moved >= LIMIT:
            return
        pause = PROMOTE_SECONDS if next_in is None else min(next_in, PROMOTE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._sooner.wait()

    async def promote(self) -> tuple[int, float | None]:
        """Promote due jobs: how many, and the seconds until the next is due (None: none known)."""
        record_ttl = self._broker.settings.retention.failure_seconds
        moved, next_in = await self._broker.upkeep.promote(LIMIT, record_ttl)
        if moved:
            _log.debug("%d jobs became due", moved)
        return moved, next_in

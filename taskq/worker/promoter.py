"""Promoter: moves due jobs to their queues on time, and removes what nobody uses any more.

One worker does this; the others stand by.
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
    """One background loop: look at some queues, pause, and begin again after the last."""

    def __init__(self, broker: Broker, promoter: Promoter) -> None:
        self._broker = broker
        self._promoter = promoter

    async def run(self) -> None:
        """Sweep until cancelled; survives the server."""
        cursor = "0"
        while True:
            if self._promoter.chosen:
                with contextlib.suppress(ServerError, ConnectionLost):
                    cursor = await self._broker.upkeep.sweep(cursor)
            await asyncio.sleep(SWEEP_ROUND_SECONDS if cursor == "0" else SWEEP_SECONDS)


_log = logging.getLogger("taskq.worker")

LIMIT = 250
"""So many jobs take the server some milliseconds; others are answered in between."""


class Promoter:
    """One background loop: promote, then sleep until the next job is due or a nearer one comes.

    The answer to each heartbeat says whether this worker is the one. Two that believe it for a
    moment do no harm: the server decides who moves a job.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._nearer = asyncio.Event()
        self._chosen = asyncio.Event()

    @property
    def chosen(self) -> bool:
        """Whether this worker promotes."""
        return self._chosen.is_set()

    def choose(self, chosen: bool) -> None:
        """Promote from now on, or no longer."""
        if chosen == self._chosen.is_set():
            return
        if chosen:
            self._chosen.set()
        else:
            self._chosen.clear()
        self._nearer.set()

    async def run(self) -> None:
        """Promote while chosen, until cancelled; survives the server."""
        client, channel = self._broker.client, self._broker.keys.next_channel
        while True:
            await self._chosen.wait()
            try:
                # Before the first look: what comes between the two is heard.
                await client.subscribe(channel, lambda _: self._nearer.set())
                while self._chosen.is_set():
                    await self._step()
                await client.unsubscribe(channel)
            except (ServerError, ConnectionLost):
                await asyncio.sleep(RNG.uniform(PROMOTE_SECONDS / 2, PROMOTE_SECONDS))

    async def _step(self) -> None:
        self._nearer.clear()
        moved, next_in = await self.promote()
        if moved >= LIMIT:
            return
        pause = PROMOTE_SECONDS if next_in is None else min(next_in, PROMOTE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._nearer.wait()

    async def promote(self) -> tuple[int, float | None]:
        """Promote what is due: how many jobs, and seconds until the next (None: none is known)."""
        record_ttl = self._broker.settings.retention.failure_seconds
        moved, next_in = await self._broker.upkeep.promote(LIMIT, record_ttl)
        if moved:
            _log.debug("%d jobs became due", moved)
        return moved, next_in

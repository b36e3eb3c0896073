"""Sweeper: removes what nobody uses any more. The worker that promotes does it for all."""

from __future__ import annotations

import asyncio
import contextlib

from taskq.broker.broker import Broker
from taskq.broker.connection import ConnectionLost
from taskq.core.errors import ServerError
from taskq.core.liveness import SWEEP_ROUND_SECONDS, SWEEP_SECONDS
from taskq.worker.promoter import Promoter

__all__ = ["Sweeper"]


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

"""Reaper: gives the jobs of dead workers to the living. Every worker has one; none leads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from taskq.broker.broker import Broker
from taskq.broker.connection import ConnectionLost
from taskq.broker.leases import Reaped
from taskq.core.chance import CHANCE
from taskq.core.errors import ServerError
from taskq.core.liveness import OBSERVE_SECONDS
from taskq.worker.observer import Observer
from taskq.worker.session import Session
from taskq.worker.tally import Tally

__all__ = ["Reaper"]

_log = logging.getLogger("taskq.worker")


class Reaper:
    """One background loop: look at the beats of all workers, reap those that are dead."""

    def __init__(self, broker: Broker, session: Session, tally: Tally) -> None:
        self._broker = broker
        self._session = session
        self._tally = tally
        self._observer = Observer()

    async def run(self) -> None:
        """Observe until cancelled; survives the server."""
        while True:
            with contextlib.suppress(ServerError, ConnectionLost):
                await self.step()
            await asyncio.sleep(CHANCE.uniform(OBSERVE_SECONDS * 0.8, OBSERVE_SECONDS))

    async def step(self) -> None:
        """One look."""
        leases = self._broker.leases
        dead = self._observer.judge(await leases.counters(), self._session.name, time.monotonic())
        for worker, counter in dead.items():
            self._tell(worker, await leases.reap(worker, self._broker.reap_policy, counter=counter))
        for worker in await leases.half_reaped():
            self._tell(worker, await leases.reap(worker, self._broker.reap_policy))

    def _tell(self, worker: str, reaped: Reaped | None) -> None:
        if reaped is None:
            return
        self._tally.reaped += reaped.moved
        _log.warning(
            "worker %s is dead: %d of its jobs go to others, %d have killed too many workers",
            worker,
            reaped.moved,
            reaped.poisoned,
        )

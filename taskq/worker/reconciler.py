"""Reconciler: finds jobs the server handed out in a reply that was lost, and runs them."""

from __future__ import annotations

import logging

from taskq.broker.broker import Broker
from taskq.broker.connection import ConnectionLost
from taskq.core.errors import ServerError
from taskq.worker.holdings import Holdings
from taskq.worker.session import Session
from taskq.worker.tally import Tally

__all__ = ["Reconciler"]

_log = logging.getLogger("taskq.worker")


class Reconciler:
    """Compares what the server says this worker holds with what it holds.

    A job on its way in either direction looks like a stray for a moment. So only what two looks, a
    beat apart, find at the server and not here is one: replies come in order, so whatever was
    fetched before the first look is known by the second.
    """

    def __init__(self, broker: Broker, session: Session, holdings: Holdings, tally: Tally) -> None:
        self._broker = broker
        self._session = session
        self._holdings = holdings
        self._tally = tally
        self._strangers: set[bytes] = set()
        self._busy = False

    async def compare(self, held: int) -> None:
        """Called after each beat with the number of jobs the server says are held."""
        if self._busy or (held <= self._holdings.known and not self._strangers):
            return
        self._busy = True
        try:
            await self._look()
        except (ServerError, ConnectionLost):
            self._strangers.clear()
        finally:
            self._busy = False

    async def _look(self) -> None:
        name = self._session.name
        held = await self._broker.leases.held(name)
        now = {stray.entry for stray in held if not self._holdings.knows(stray.entry)}
        strays, self._strangers = now & self._strangers, now
        if not strays:
            return
        found = await self._broker.leases.redeliver(name, strays)
        found = [job for job in found if not self._holdings.knows(job.entry)]
        if name != self._session.name or not found:
            return
        self._tally.adopted += len(found)
        _log.warning("%d jobs were stranded by a lost reply; they run now", len(found))
        self._holdings.take(found)

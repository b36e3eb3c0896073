"""Burst: when a worker that shall end has nothing left to do."""

from __future__ import annotations

import asyncio

from taskq.broker.leases import Leases
from taskq.core.errors import ServerUnavailable
from taskq.redis.connection import ConnectionLost
from taskq.worker.fetcher import Fetcher
from taskq.worker.in_flight import InFlightJobs
from taskq.worker.promoter import Promoter
from taskq.worker.quarantine import Quarantine

__all__ = ["until_empty", "until_no_suspects"]

LOOK_SECONDS = 0.2


async def until_empty(
    promoter: Promoter,
    fetcher: Fetcher,
    in_flight: InFlightJobs,
    leases: Leases,
    quarantine: Quarantine,
) -> None:
    """Return when a look at the queues, after promoting what is due, finds nothing left to do.

    Jobs of a worker that died may be all there is, and nobody else there to take them over.
    """
    while True:
        moved = await _promote(promoter)
        fetcher.found_nothing.clear()
        fetcher.wake.set()
        await fetcher.found_nothing.wait()
        busy = in_flight.busy
        await in_flight.until_idle()
        await in_flight.settler.drain()
        if busy or moved or await _taken_over(leases) or await quarantine.had_suspects():
            continue
        return


async def until_no_suspects(fetcher: Fetcher, in_flight: InFlightJobs) -> None:
    """Return when no suspect is left that may run now."""
    while True:
        fetcher.found_nothing.clear()
        fetcher.wake.set()
        await fetcher.found_nothing.wait()
        if not in_flight.busy:
            return
        await in_flight.until_idle()
        await in_flight.settler.drain()


async def _taken_over(leases: Leases) -> bool:
    """Whether jobs of the dead came back; returns when all who hold jobs are known to live."""
    try:
        unheard = await leases.holders()
        while unheard:
            await asyncio.sleep(LOOK_SECONDS)
            heard = await leases.heartbeats()
            if not unheard.keys() <= heard.keys():
                # This worker, or another one, took its jobs back.
                return True
            unheard = {name: beat for name, beat in unheard.items() if beat == heard[name]}
    except (ServerUnavailable, ConnectionLost):
        return True
    return False


async def _promote(promoter: Promoter) -> bool:
    """Whether jobs became due, or may have: the answer can be lost."""
    try:
        moved, _ = await promoter.promote()
    except (ServerUnavailable, ConnectionLost):
        # No haste: what follows waits until the fetcher has reached the server.
        return True
    return moved > 0

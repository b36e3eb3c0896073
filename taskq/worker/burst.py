"""Burst: finds out when a worker that stops by itself has nothing left to do."""

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

CHECK_SECONDS = 0.2


async def until_empty(
    promoter: Promoter,
    fetcher: Fetcher,
    in_flight: InFlightJobs,
    leases: Leases,
    quarantine: Quarantine,
) -> None:
    """Return when, after promoting due jobs, the queues are empty and no job is left to run.

    Jobs of a dead worker may be the only ones left, with no other worker to take them over.
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
    """Wait until every worker that holds jobs is alive; true if one was dead and reaped."""
    try:
        unconfirmed = await leases.holders()
        while unconfirmed:
            await asyncio.sleep(CHECK_SECONDS)
            latest = await leases.heartbeats()
            if not unconfirmed.keys() <= latest.keys():
                # This worker, or another one, took its jobs back.
                return True
            unconfirmed = {name: beat for name, beat in unconfirmed.items() if beat == latest[name]}
    except (ServerUnavailable, ConnectionLost):
        return True
    return False


async def _promote(promoter: Promoter) -> bool:
    """Whether jobs became due, or may have: the reply can be lost."""
    try:
        moved, _ = await promoter.promote()
    except (ServerUnavailable, ConnectionLost):
        # The caller then waits until the fetcher has reached the server.
        return True
    return moved > 0

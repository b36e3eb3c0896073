"""Burst: when a worker that shall end has nothing left to do."""

from __future__ import annotations

from taskq.broker.connection import ConnectionLost
from taskq.core.errors import ServerUnavailable
from taskq.worker.fetcher import Fetcher
from taskq.worker.holdings import Holdings
from taskq.worker.promoter import Promoter

__all__ = ["until_empty"]


async def until_empty(promoter: Promoter, fetcher: Fetcher, holdings: Holdings) -> None:
    """Return when a look at the queues, after promoting what is due, finds nothing left to do."""
    while True:
        moved = await _promote(promoter)
        fetcher.found_nothing.clear()
        fetcher.wake.set()
        await fetcher.found_nothing.wait()
        busy = holdings.busy
        await holdings.until_idle()
        await holdings.settler.drain()
        if not busy and not moved:
            return


async def _promote(promoter: Promoter) -> bool:
    """Whether jobs became due, or may have: the answer can be lost."""
    try:
        moved, _ = await promoter.promote()
    except (ServerUnavailable, ConnectionLost):
        # No haste: what follows waits until the fetcher has reached the server.
        return True
    return moved > 0

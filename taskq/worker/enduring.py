"""Background loops that outlive errors nobody foresaw."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["enduring"]

_log = logging.getLogger("taskq.worker")

PAUSE_SECONDS = 1.0


async def enduring(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run `loop` to its end; when it fails, say so and begin it again.

    A worker that beats and no longer fetches, promotes or reaps would be worse than a dead one,
    whose jobs others take.
    """
    while True:
        try:
            await loop()
        except Exception:
            _log.exception(
                "the %s failed, which is an error of taskq; it goes on in %g s",
                name,
                PAUSE_SECONDS,
            )
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return

"""A job as server-sent events: one whenever it changes, until it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from taskq.app import TaskQ
from taskq.core.errors import JobNotFound, ServerError
from taskq.core.job import Ending
from taskq.fastapi.views import JobView

__all__ = ["HEADERS", "events"]

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nobody on the way may keep events back."""

LOOK_SECONDS = 0.25
QUIET_SECONDS = 15.0
"""After so long a comment is sent: proxies close what is silent."""

STREAM_SECONDS = 60.0
"""A browser comes back by itself; a stream without end would keep its web server from stopping."""


async def events(
    q: TaskQ, first: JobView, *, seconds: float = STREAM_SECONDS
) -> AsyncGenerator[str, None]:
    """`progress` events with the job as JSON, and `end` with its last state."""
    deadline = time.monotonic() + seconds
    over = asyncio.ensure_future(q.desk.until_over(first.id))
    try:
        yield "retry: 1000\n" + _event(first)
        shown, last = first, time.monotonic()
        while not shown.finished and time.monotonic() < deadline:
            await (asyncio.sleep(LOOK_SECONDS) if over.done() else _look_soon(over))
            view = JobView.of(await q.job(first.id).info())
            if view != shown:
                yield _event(view)
                shown, last = view, time.monotonic()
            elif time.monotonic() - last > QUIET_SECONDS:
                yield ": nothing new\n\n"
                last = time.monotonic()
    except (JobNotFound, ServerError):
        # The browser asks again, and is answered with a status that tells.
        return
    finally:
        over.cancel()


async def _look_soon(over: asyncio.Future[Ending]) -> None:
    await asyncio.wait({over}, timeout=LOOK_SECONDS)


def _event(view: JobView) -> str:
    name = "end" if view.finished else "progress"
    return f"event: {name}\ndata: {view.model_dump_json()}\n\n"

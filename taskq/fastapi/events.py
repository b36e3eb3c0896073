"""A job as server-sent events: one whenever it changes, until it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from taskq.app import TaskQ
from taskq.core.errors import ServerError
from taskq.fastapi.views import JobView

__all__ = ["HEADERS", "events"]

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nobody on the way may keep events back."""

QUIET_SECONDS = 15.0
"""After so long a comment is sent: proxies close what is silent."""

STREAM_SECONDS = 60.0
"""A browser comes back by itself; a stream without end would keep its web server from stopping."""


async def events(
    q: TaskQ, first: JobView, *, seconds: float = STREAM_SECONDS
) -> AsyncGenerator[str, None]:
    """`progress` events with the job as JSON, and `end` with its last state."""
    deadline = time.monotonic() + seconds
    shown = first
    yield "retry: 1000\n" + _event(first)
    if first.finished:
        return
    async with aclosing(q.desk.watch(first.id)) as changes:
        coming = asyncio.ensure_future(anext(changes, None))
        try:
            while (left := deadline - time.monotonic()) > 0:
                done, _ = await asyncio.wait({coming}, timeout=min(left, QUIET_SECONDS))
                if not done:
                    yield ": nothing new\n\n"
                    continue
                if (info := coming.result()) is None:
                    return
                coming = asyncio.ensure_future(anext(changes, None))
                view = JobView.of(info)
                if view != shown:
                    yield _event(view)
                    shown = view
        except (ServerError, ConnectionError):
            # The browser asks again, and is answered with a status that tells.
            return
        finally:
            # Before the generator is closed, which may not be done while it runs.
            coming.cancel()
            await asyncio.wait({coming})
            _ = coming.cancelled() or coming.exception()


def _event(view: JobView) -> str:
    name = "end" if view.finished else "progress"
    return f"event: {name}\ndata: {view.model_dump_json()}\n\n"

"""The one door from synchronous code: a background event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import TypeVar

from taskq.core.errors import TaskqError

__all__ = ["Portal"]

T = TypeVar("T")


class Portal:
    """Runs awaitables on a loop in a daemon thread of its own, started when first used."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, awaitable: Awaitable[T], timeout: float | None = None) -> T:
        """Run `awaitable` to its end; `timeout` is in seconds.

        Raises `TaskqError` in a running event loop, which this call would block.
        """
        if _in_a_coroutine():
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()
            raise TaskqError(
                "q.run() would block the event loop it is called in; type `await` instead"
            )
        future = asyncio.run_coroutine_threadsafe(_await(awaitable), self._started())
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="taskq-portal", daemon=True
                ).start()
            return self._loop


def _in_a_coroutine() -> bool:
    """Whether this thread is inside a task. A notebook's cell runs in one, and may block it."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable

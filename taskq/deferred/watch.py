"""Watch: names the deferred call that blocks the event loop, and the line where it stands."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time

from taskq.deferred.floor import Floor
from taskq.execution.job_log import job_fields
from taskq.execution.stall import culprit

__all__ = ["Watch"]

_log = logging.getLogger("taskq.deferred")

IDLE_SECONDS = 60.0


class Watch:
    """A thread that asks the loop for a sign of life while calls run.

    It warns once each time there is none for `slow` seconds and a deferred call is why.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, floor: Floor, slow: float) -> None:
        self._loop = loop
        self._floor = floor
        self._slow = slow
        self._ended = False
        self._ticked = time.monotonic()
        if slow > 0:
            thread = threading.Thread(target=self._live, name="taskq-deferred-watch", daemon=True)
            thread.start()

    def stop(self) -> None:
        """End the thread soon."""
        self._ended = True
        self._floor.busy.set()

    def _live(self) -> None:
        floor = self._floor
        while not self._ended and not self._loop.is_closed():
            if floor.running:
                self._look()
                continue
            floor.busy.clear()
            # A call that began before the flag was cleared is seen here.
            if not floor.running and not self._ended:
                floor.busy.wait(IDLE_SECONDS)
            self._ticked = time.monotonic()

    def _look(self) -> None:
        asked = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._tick)
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            self._ended = True
            return
        time.sleep(self._slow)
        if self._ticked < asked:
            self._warn(asked)
            while self._ticked < asked and not self._ended:
                time.sleep(self._slow)

    def _tick(self) -> None:
        self._ticked = time.monotonic()

    def _warn(self, since: float) -> None:
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        attempt, where = culprit(frames.get(self._floor.thread))
        if attempt is not None:
            _log.warning(
                "deferred task %s (job %s) has blocked the event loop for %.2f s at %s; every "
                "request of this process waits. Make it a plain def to run it in a thread, or "
                "executor='process' for computing",
                attempt.task.name,
                attempt.id,
                time.monotonic() - since,
                where,
                extra=job_fields(attempt),
            )

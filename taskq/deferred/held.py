"""Calls of a request that start when it is over: see `taskq.fastapi.AfterResponse`."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from taskq.core.errors import TaskqError
from taskq.deferred.call import Call
from taskq.deferred.latch import Latch

__all__ = ["HELD", "HeldCalls"]

_log = logging.getLogger("taskq.deferred")


class HeldCalls:
    """What one request has deferred, until it ends. Used in any thread."""

    def __init__(self) -> None:
        self._calls: list[tuple[Call, Callable[[Call], None]]] = []
        self._open = True
        self._lock = threading.Lock()

    def keep(self, call: Call, start: Callable[[Call], None]) -> bool:
        """Hold a call back until `start` is called with it; false when the request is over."""
        with self._lock:
            if self._open:
                call.accepted, call.before_waiting = Latch(), self._refuse_to_wait
                self._calls.append((call, start))
            return self._open

    def release(self) -> None:
        """The request has succeeded: start its calls, in their order."""
        for call, start in self._close():
            start(call)

    def drop(self, reason: str) -> None:
        """The request has failed: cancel its calls, and say so."""
        calls = [call for call, _ in self._close() if call.cancel()]
        if calls:
            _log.warning(
                "%d deferred calls are dropped, since their request %s: %s",
                len(calls),
                reason,
                ", ".join(call.task.name for call in calls),
            )

    def _close(self) -> list[tuple[Call, Callable[[Call], None]]]:
        with self._lock:
            self._open = False
            calls, self._calls = self._calls, []
            return calls

    def _refuse_to_wait(self) -> None:
        """Raise where waiting would keep the request, and so the call, from ever going on."""
        if self._open and HELD.get() is self:
            raise TaskqError(
                "this call starts when its request is over (AfterResponse), and the request would "
                "wait for it: await the function itself, or wait elsewhere"
            )


HELD: Final = ContextVar[HeldCalls | None]("taskq_held", default=None)
"""Where calls of this context are held back, if they are."""

# The end of a request is heard of in the process that handles it.
os.register_at_fork(after_in_child=lambda: HELD.set(None))

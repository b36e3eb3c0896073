"""How a worker process learns that it is to end, and is made sure to.

Signal handlers only take note and wake the loop. A thread looks at what they noted, because a job
that blocks the loop, or a server that does not answer, must not keep the process for ever.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from taskq.core.liveness import BEYOND_GRACE_SECONDS, END_NOW_SECONDS
from taskq.core.signals import HangUps, stop_signals
from taskq.worker.supervised import Heard, Supervised

__all__ = ["Stopping"]

_LOOK_SECONDS = 0.25


class Stopping:
    """The stop signals: `on_stop` is called at the first, and again at the second.

    Under a supervisor any number of them count as the first, and its word is the second; when the
    supervisor is gone, that is the first as well. `on_stop` is called in the loop. `grace`: seconds
    from the first on after which, with some more, the process is ended whatever it does.
    """

    def __init__(self, grace: float, supervised: Supervised | None) -> None:
        self._grace = grace
        self._supervised = supervised
        self._own_pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_stop: Callable[[], None] | None = None
        self._deadline = float("inf")
        self._hang_ups = HangUps()
        self.asked = False
        self.forced = False

    def install(self, on_stop: Callable[[], None]) -> None:
        """Take the signals over; called in the loop, in the main thread."""
        self._loop = asyncio.get_running_loop()
        self._on_stop = on_stop
        # Not the loop's own handlers: they do not run while a job blocks it.
        for signum in stop_signals():
            signal.signal(signum, self._handle)
        threading.Thread(target=self._look, name="taskq-stopping", daemon=True).start()

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._own_pid:
            # A process that a job forked: it ends as it would have ended without us.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        echo = self._hang_ups.is_echo(signum)
        if not self.asked:
            self._ask()
        elif self._supervised is None and not echo:
            self._force()

    def _ask(self) -> None:
        self.asked = True
        self._deadline = time.monotonic() + self._grace + BEYOND_GRACE_SECONDS
        self._call()

    def _force(self) -> None:
        if not self.forced:
            self.forced = True
            self._deadline = time.monotonic() + END_NOW_SECONDS
            self._call()

    def _call(self) -> None:
        if self._loop is not None and self._on_stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_stop)

    def _look(self) -> None:
        supervised = self._supervised
        while True:
            if supervised is None:
                time.sleep(_LOOK_SECONDS)
            else:
                heard = supervised.hear(_LOOK_SECONDS)
                # Not by a signal: its handler waits for the main thread, which a job may hold.
                if heard is not Heard.NOTHING and not self.asked:
                    self._ask()
                if heard is Heard.END_NOW:
                    self._force()
                elif heard is Heard.GONE:
                    supervised = None
            if time.monotonic() > self._deadline:
                # Not through logging: the thread that hangs may hold its lock.
                os.write(2, b"taskq: this worker did not end in time and is ended now\n")
                os._exit(1)

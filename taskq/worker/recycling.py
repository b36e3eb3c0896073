"""Stopping a worker process: by signals, and by recycling when it has reached a limit.

After recycling, the supervisor starts a new process; without a supervisor, the exit code says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from taskq.core.liveness import END_NOW_SECONDS, STOP_MARGIN_SECONDS
from taskq.core.signals import HangUps, stop_signals
from taskq.execution.executors.set import ExecutorSet
from taskq.worker.settings import Tally, WorkerSettings
from taskq.worker.worker_process import SupervisorLink, SupervisorMessage

__all__ = ["Recycling", "Stopping"]

_log = logging.getLogger("taskq.worker")

CHECK_SECONDS = 0.25
_STATM = Path("/proc/self/statm")


class Stopping:
    """The stop signals: `on_stop` is called in the loop at the first, and again at the second.

    Under a supervisor all signals count as the first, and a message from the supervisor is the
    second; the end of the supervisor counts as the first, too. `grace`: seconds after the first
    signal; a few seconds beyond that, the process ends whatever it does.
    """

    def __init__(self, grace: float, supervised: SupervisorLink | None) -> None:
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
        """Install the signal handlers; call it in the loop, in the main thread."""
        self._loop = asyncio.get_running_loop()
        self._on_stop = on_stop
        # Not the loop's own handlers: they do not run while a job blocks it.
        for signum in stop_signals():
            signal.signal(signum, self._handle)
        threading.Thread(target=self._watch, name="taskq-stopping", daemon=True).start()

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._own_pid:
            # In a process that a job forked: end as it would have ended without this handler.
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
        self._deadline = time.monotonic() + self._grace + STOP_MARGIN_SECONDS
        self._call()

    def _force(self) -> None:
        if not self.forced:
            self.forced = True
            self._deadline = time.monotonic() + END_NOW_SECONDS
            self._call()

    def _call(self) -> None:
        if self._loop is not None and self._on_stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_stop)

    def _watch(self) -> None:
        supervised = self._supervised
        while True:
            if supervised is None:
                time.sleep(CHECK_SECONDS)
            else:
                message = supervised.receive(CHECK_SECONDS)
                # Not by a signal: its handler runs in the main thread, which a job may block.
                if message is not SupervisorMessage.NOTHING and not self.asked:
                    self._ask()
                if message is SupervisorMessage.END_NOW:
                    self._force()
                elif message is SupervisorMessage.GONE:
                    supervised = None
            if time.monotonic() > self._deadline:
                # Not through logging: the blocked thread may hold its lock.
                os.write(2, b"taskq: this worker did not stop in time; killing it\n")
                os._exit(1)


class Recycling:
    """One background loop that checks whether the worker should be replaced by a new one."""

    def __init__(
        self,
        settings: WorkerSettings,
        tally: Tally,
        executors: ExecutorSet,
        stop: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._tally = tally
        self._executors = executors
        self._stop = stop
        self.born = time.time()
        self.reason: str | None = None

    async def run(self) -> None:
        """Check until there is a reason, or until cancelled."""
        while self.reason is None:
            await asyncio.sleep(CHECK_SECONDS)
            self.reason = self._reason_now()
        _log.info("recycling this worker: %s", self.reason)
        self._stop()

    def memory(self) -> int:
        """Resident memory of this process in bytes."""
        try:
            return int(_STATM.read_text().split()[1]) * resource.getpagesize()
        except OSError:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024

    @property
    def leaked(self) -> int:
        """Threads and coroutines that outlived their interruption."""
        return self._tally.leaked + self._executors.threads.leaked

    def _reason_now(self) -> str | None:
        settings = self._settings
        if settings.max_jobs is not None and self._tally.finished >= settings.max_jobs:
            return f"it ended {self._tally.finished} attempts (--max-jobs {settings.max_jobs})"
        if settings.max_memory is not None and self.memory() > settings.max_memory:
            return f"it holds {self.memory() >> 20} MiB (--max-memory)"
        if self.leaked >= settings.leak_limit:
            return f"{self.leaked} timed-out jobs still run in threads that cannot be stopped"
        return None

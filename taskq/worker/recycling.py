"""Recycling: ends a worker that has done enough, grown too large, or leaked too much.

The supervisor starts a fresh one; without a supervisor the process ends with an exit code that says
so.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from taskq.execution.executors.set import ExecutorSet
from taskq.worker.settings import WorkerSettings
from taskq.worker.tally import Tally

__all__ = ["Recycling"]

_log = logging.getLogger("taskq.worker")

LOOK_SECONDS = 0.25
_STATM = Path("/proc/self/statm")


class Recycling:
    """One background loop that looks whether the worker should make way for a fresh one."""

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
        """Look until cancelled or there is a reason."""
        while self.reason is None:
            await asyncio.sleep(LOOK_SECONDS)
            self.reason = self._why()
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

    def _why(self) -> str | None:
        settings = self._settings
        if settings.max_jobs is not None and self._tally.finished >= settings.max_jobs:
            return f"it ended {self._tally.finished} attempts (--max-jobs {settings.max_jobs})"
        if settings.max_memory is not None and self.memory() > settings.max_memory:
            return f"it holds {self.memory() >> 20} MiB (--max-memory)"
        if self.leaked >= settings.leak_limit:
            return f"{self.leaked} timed-out jobs go on in threads that cannot be stopped"
        return None

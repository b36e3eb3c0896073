"""Quarantine: runs suspects, jobs whose workers keep dying, in workers of their own.

The next crash then hits no other jobs, and the rest of the queue goes on. The server delivers
suspects in groups, half of those that crashed together: each crash halves the group until the
poison message is alone, while innocent jobs run together. See `reap.lua`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from taskq.broker.broker import Broker
from taskq.core.errors import ServerError
from taskq.core.ids import process_name
from taskq.core.liveness import KILL_MARGIN_SECONDS
from taskq.core.rng import RNG
from taskq.execution.executors.frames import how_it_ended
from taskq.redis.connection import ConnectionLost
from taskq.worker.settings import WorkerSettings
from taskq.worker.worker_process import CLEAN_EXITS, WorkerProcess

__all__ = ["Quarantine"]

_log = logging.getLogger("taskq.worker")

_MOST: Final = 4
"""Groups that run at once, so that a slow one does not hold up the others."""

_SPREAD_SECONDS: Final = 0.5
"""The random delay after which a worker takes suspects: of many workers, the first one does."""

_FAILED_STARTS: Final = 3
"""After this many failed starts in a row, the command is not tried again."""


T = TypeVar("T")


class _Worker(Protocol):
    """A worker in this process that serves suspects."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


class Quarantine:
    """Starts workers for suspects of the queues of `settings`, up to four at once.

    `command` starts a worker process like this one. Without it, `make` creates a worker in this
    process, beside the other jobs. That finds the poison message too, but a crash hits all jobs.
    """

    def __init__(
        self,
        broker: Broker,
        settings: WorkerSettings,
        command: Sequence[str] | None,
        make: Callable[[], _Worker],
    ) -> None:
        self._broker = broker
        self._settings = settings
        self._command = command
        self._make = make
        self._failed_starts = 0
        self._running: set[asyncio.Task[None]] = set()
        self._stops: set[Callable[[], None]] = set()
        self._closed = False
        self._logged = False

    def start(self) -> None:
        """Run a group of suspects, unless another worker takes it."""
        if len(self._running) < _MOST and not self._closed:
            task = asyncio.create_task(self._run_group(), name="taskq-quarantine")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def had_suspects(self) -> bool:
        """Whether suspects waited or ran; waits until those that run here have ended."""
        if not self._running:
            try:
                if not await self._broker.leases.suspects_wait(self._settings.queues):
                    return False
            except (ServerError, ConnectionLost):
                return True
            self.start()
        await asyncio.wait(self._running)
        return True

    async def close(self, within: float) -> None:
        """Start no more groups; running suspects get `within` seconds to finish."""
        self._closed = True
        for stop in list(self._stops):
            stop()
        if self._running:
            await asyncio.wait(self._running, timeout=within + KILL_MARGIN_SECONDS)
        for task in self._running:
            task.cancel()

    async def _run_group(self) -> None:
        await asyncio.sleep(RNG.uniform(0, _SPREAD_SECONDS))
        try:
            if self._closed or not await self._broker.leases.suspects_wait(self._settings.queues):
                return
        except (ServerError, ConnectionLost):
            return
        if not self._logged:
            self._logged = True
            _log.warning("suspects, jobs whose workers keep dying, run in a worker of their own")
        if self._command is None or self._failed_starts >= _FAILED_STARTS:
            worker = self._make()
            await self._stoppable(worker.stop, worker.run())
        else:
            await self._run_process(self._command)

    async def _run_process(self, command: Sequence[str]) -> None:
        name, directory = f"{process_name()}-q", Path(self._settings.directory or ".")
        try:
            process = await WorkerProcess.start(command, name, directory, suspects=True)
        except OSError as error:
            self._failed_starts += 1
            _log.error("cannot start a worker for suspects: %s", error)
            return
        try:
            code, _ = await self._stoppable(process.drain, process.wait())
        finally:
            process.kill()
        self._failed_starts = 0 if process.served else self._failed_starts + 1
        if code in CLEAN_EXITS:
            return
        _log.error("the worker for suspects (pid %d) %s", process.pid, how_it_ended(code))
        with contextlib.suppress(ServerError, ConnectionLost):
            # Reap it now, before its missing heartbeats are noticed.
            await self._broker.leases.reap(name, self._broker.reap_policy)

    async def _stoppable(self, stop: Callable[[], None], run: Awaitable[T]) -> T:
        self._stops.add(stop)
        try:
            return await run
        finally:
            self._stops.discard(stop)

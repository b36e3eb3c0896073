"""Quarantine: jobs whose workers died again and again run in workers of their own.

So the next crash hits nobody else, and the rest of the queue goes on. The server hands such
suspects out in groups, half of those that crashed together: each crash halves them until the guilty
one is alone, and innocent ones run together. See `reap.lua`.
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
from taskq.worker.worker_process import AS_ASKED, WorkerProcess

__all__ = ["Quarantine"]

_log = logging.getLogger("taskq.worker")

_MOST: Final = 4
"""Groups that run at once: one that takes long does not keep the others."""

_SPREAD_SECONDS: Final = 0.5
"""Of many workers that hear of suspects the first to look takes them."""

_FAILED_STARTS: Final = 3
"""A command that starts no worker so often is not tried again."""


T = TypeVar("T")


class _Worker(Protocol):
    """What serves suspects in this process."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


class Quarantine:
    """Starts workers for suspects of the queues of `settings`, up to four at once.

    `command` starts a worker process like this one. Without it the worker runs in this process,
    beside the other jobs, made by `make`: what it proves is the same, but a crash hits them too.
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
        self._told = False

    def start(self) -> None:
        """Suspects wait: run a group of them, unless others take it."""
        if len(self._running) < _MOST and not self._closed:
            task = asyncio.create_task(self._run_group(), name="taskq-quarantine")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def had_suspects(self) -> bool:
        """Whether suspects waited or ran; returns when those that run here have ended."""
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
        """Start none any more; those that run get `within` seconds to finish."""
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
        if not self._told:
            self._told = True
            _log.warning("jobs whose workers died again and again run in a worker of their own")
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
        if code in AS_ASKED:
            return
        _log.error("the worker for suspects (pid %d) %s", process.pid, how_it_ended(code))
        with contextlib.suppress(ServerError, ConnectionLost):
            # Now, rather than when its silence is noticed.
            await self._broker.leases.reap(name, self._broker.reap_policy)

    async def _stoppable(self, stop: Callable[[], None], run: Awaitable[T]) -> T:
        self._stops.add(stop)
        try:
            return await run
        finally:
            self._stops.discard(stop)

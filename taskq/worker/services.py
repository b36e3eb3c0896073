"""Services: a worker's background loops, restarted after unexpected errors and cancellations.

The reconciler, which runs after heartbeats, recovers jobs whose delivery was lost with its reply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from taskq.broker.broker import Broker
from taskq.core.errors import ServerError, TaskqError
from taskq.execution.context import current_job
from taskq.redis.connection import ConnectionLost
from taskq.worker.in_flight import InFlightJobs
from taskq.worker.session import Session
from taskq.worker.settings import Tally

__all__ = ["Reconciler", "Services", "enduring"]

RESTART_SECONDS = 1.0


async def enduring(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run `loop` to its end; log an error and restart it when it fails.

    A worker that sends heartbeats but no longer fetches, promotes or reaps would be worse than a
    dead one, whose jobs are given to others.
    """
    while True:
        try:
            await loop()
        except Exception:
            _log.exception(
                "the %s failed, which is an error in taskq; restarting it in %g s",
                name,
                RESTART_SECONDS,
            )
            await asyncio.sleep(RESTART_SECONDS)
        else:
            return


class Reconciler:
    """Compares the jobs that this worker holds according to the server with those it has.

    A job in transit, in either direction, looks like a stray for a moment. So a job is a stray only
    if two checks, one heartbeat apart, find it at the server and not here: replies arrive in order,
    so jobs fetched before the first check are known by the second.
    """

    def __init__(
        self, broker: Broker, session: Session, in_flight: InFlightJobs, tally: Tally
    ) -> None:
        self._broker = broker
        self._session = session
        self._in_flight = in_flight
        self._tally = tally
        self._suspected: set[bytes] = set()
        self._busy = False

    async def compare(self, held: int) -> None:
        """Compare after a heartbeat; `held` is how many jobs this worker holds at the server."""
        if self._busy or (held <= self._in_flight.known and not self._suspected):
            return
        self._busy = True
        try:
            await self._recover_strays()
        except (ServerError, ConnectionLost):
            self._suspected.clear()
        finally:
            self._busy = False

    async def _recover_strays(self) -> None:
        name = self._session.name
        held = await self._broker.leases.held(name)
        now = {stray.entry for stray in held if not self._in_flight.knows(stray.entry)}
        strays, self._suspected = now & self._suspected, now
        if not strays:
            return
        found = await self._broker.leases.redeliver(name, strays)
        found = [job for job in found if not self._in_flight.knows(job.entry)]
        if name != self._session.name or not found:
            return
        self._tally.adopted += len(found)
        _log.warning("recovered %d jobs whose delivery was lost with its reply", len(found))
        self._in_flight.take(found)


_log = logging.getLogger("taskq.worker")

_Make = Callable[[], asyncio.Task[None]]


class Services:
    """Background loops that run until the worker stops, and short-lived tasks.

    They share their event loop with jobs, which can cancel tasks that are not their own. So a loop
    that was cancelled is restarted after a pause; in a program that ends, the worker stops during
    that pause. With `guard`, `on_mass_cancel` is called when every task of the event loop is being
    cancelled, before the cancellations take effect, with the id of the job that does it, or None
    when the program ends.
    """

    def __init__(self, on_mass_cancel: Callable[[str | None], None]) -> None:
        self._on_mass_cancel = on_mass_cancel
        self._loop = asyncio.get_running_loop()
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._short_lived: set[asyncio.Task[None]] = set()
        self._leaving = False

    def guard(self) -> None:
        """Watch for a cancellation of every task."""
        self._keep("sentinel", lambda: _Sentinel(self._loop, self._mass_cancelled))

    def start(self, name: str, service: Callable[[], Awaitable[None]]) -> None:
        """Run a background loop."""
        self._keep(
            name, lambda: self._loop.create_task(enduring(name, service), name=f"taskq-{name}")
        )

    def send(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a short-lived task."""
        task = self._loop.create_task(work)
        self._short_lived.add(task)
        task.add_done_callback(self._short_lived.discard)

    async def leave(self, first: str, within: float) -> None:
        """Restart nothing any more, and wait for the loop `first`, which is never cancelled."""
        self._leaving = True
        await asyncio.wait({self._loops.pop(first)}, timeout=within)

    def cancel(self) -> None:
        """Cancel everything else."""
        for task in (*self._loops.values(), *self._short_lived):
            task.cancel()

    def _keep(self, name: str, make: _Make) -> None:
        task = self._loops[name] = make()
        task.add_done_callback(partial(self._ended, name, make))

    def _ended(self, name: str, make: _Make, task: asyncio.Task[None]) -> None:
        if task.cancelled() and not self._leaving:
            self._loop.call_later(RESTART_SECONDS, self._restart, name, make)

    def _restart(self, name: str, make: _Make) -> None:
        if not self._leaving:
            _log.error("the %s was cancelled by a job or by this program; restarting it", name)
            self._keep(name, make)

    def _mass_cancelled(self) -> None:
        try:
            culprit = current_job().id
        except TaskqError:
            culprit = None
        else:
            _log.error(
                "job %s cancels every asyncio task of this process, including those of the worker "
                "and of other jobs, which are handed back; a task may cancel only what it started",
                culprit,
                extra={"job": culprit},
            )
        self._on_mass_cancel(culprit)


class _Sentinel(asyncio.Task[None]):
    """Does nothing: only code that cancels every task cancels it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_cancel: Callable[[], None]) -> None:
        super().__init__(_wait_forever(loop), loop=loop, name="taskq-sentinel")
        self._on_cancel = on_cancel

    def cancel(self, msg: Any | None = None) -> bool:
        self._on_cancel()
        return super().cancel(msg)


async def _wait_forever(loop: asyncio.AbstractEventLoop) -> None:
    await loop.create_future()

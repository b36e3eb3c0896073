"""The background loops beside a worker's jobs, in asyncio tasks that survive unforeseen errors.

One of them is the reconciler: it finds jobs that the server handed out in a lost reply.
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

PAUSE_SECONDS = 1.0


async def enduring(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run `loop` to its end; when it fails, say so and begin it again.

    A worker that beats and no longer fetches, promotes or reaps would be worse than a dead one,
    whose jobs others take.
    """
    while True:
        try:
            await loop()
        except Exception:
            _log.exception(
                "the %s failed, which is an error of taskq; it goes on in %g s",
                name,
                PAUSE_SECONDS,
            )
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


class Reconciler:
    """Compares what the server says this worker holds with what it holds.

    A job on its way in either direction looks like a stray for a moment. So only what two looks, a
    beat apart, find at the server and not here is one: replies come in order, so whatever was
    fetched before the first look is known by the second.
    """

    def __init__(
        self, broker: Broker, session: Session, in_flight: InFlightJobs, tally: Tally
    ) -> None:
        self._broker = broker
        self._session = session
        self._in_flight = in_flight
        self._tally = tally
        self._strangers: set[bytes] = set()
        self._busy = False

    async def compare(self, held: int) -> None:
        """Called after each beat with the number of jobs the server says are held."""
        if self._busy or (held <= self._in_flight.known and not self._strangers):
            return
        self._busy = True
        try:
            await self._look()
        except (ServerError, ConnectionLost):
            self._strangers.clear()
        finally:
            self._busy = False

    async def _look(self) -> None:
        name = self._session.name
        held = await self._broker.leases.held(name)
        now = {stray.entry for stray in held if not self._in_flight.knows(stray.entry)}
        strays, self._strangers = now & self._strangers, now
        if not strays:
            return
        found = await self._broker.leases.redeliver(name, strays)
        found = [job for job in found if not self._in_flight.knows(job.entry)]
        if name != self._session.name or not found:
            return
        self._tally.adopted += len(found)
        _log.warning("%d jobs were stranded by a lost reply; they run now", len(found))
        self._in_flight.take(found)


_log = logging.getLogger("taskq.worker")

_Make = Callable[[], asyncio.Task[None]]


class Services:
    """Loops that go on until the worker leaves, and errands that end by themselves.

    They share their event loop with jobs, which can cancel what is not their own: a loop that was
    cancelled begins again after a pause. The pause is for programs that end, where the worker is
    about to leave. With `guard`, `on_uprooted` is called when every task of the event loop is being
    cancelled, before any has heard of it, with the id of the job that does it; None: the program
    ends.
    """

    def __init__(self, on_uprooted: Callable[[str | None], None]) -> None:
        self._on_uprooted = on_uprooted
        self._loop = asyncio.get_running_loop()
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._leaving = False

    def guard(self) -> None:
        """Look out for who cancels every task."""
        self._keep("sentinel", lambda: _Sentinel(self._loop, self._uprooted))

    def start(self, name: str, service: Callable[[], Awaitable[None]]) -> None:
        """Run a loop."""
        self._keep(
            name, lambda: self._loop.create_task(enduring(name, service), name=f"taskq-{name}")
        )

    def send(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run an errand."""
        task = self._loop.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def leave(self, first: str, within: float) -> None:
        """Begin nothing again, and let the loop `first` end by itself: it is never cancelled."""
        self._leaving = True
        await asyncio.wait({self._loops.pop(first)}, timeout=within)

    def cancel(self) -> None:
        """End everything else now."""
        for task in (*self._loops.values(), *self._errands):
            task.cancel()

    def _keep(self, name: str, make: _Make) -> None:
        task = self._loops[name] = make()
        task.add_done_callback(partial(self._ended, name, make))

    def _ended(self, name: str, make: _Make, task: asyncio.Task[None]) -> None:
        if task.cancelled() and not self._leaving:
            self._loop.call_later(PAUSE_SECONDS, self._begin_again, name, make)

    def _begin_again(self, name: str, make: _Make) -> None:
        if not self._leaving:
            _log.error("the %s was cancelled by a job or by this program; it begins again", name)
            self._keep(name, make)

    def _uprooted(self) -> None:
        try:
            culprit = current_job().id
        except TaskqError:
            culprit = None
        else:
            _log.error(
                "job %s cancels every asyncio task of this process, the worker's own and those of "
                "other jobs, which are handed back; a task may cancel only what it started",
                culprit,
                extra={"job": culprit},
            )
        self._on_uprooted(culprit)


class _Sentinel(asyncio.Task[None]):
    """Does nothing; who cancels it cancels whatever there is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_cancel: Callable[[], None]) -> None:
        super().__init__(_stand(loop), loop=loop, name="taskq-sentinel")
        self._on_cancel = on_cancel

    def cancel(self, msg: Any | None = None) -> bool:
        self._on_cancel()
        return super().cancel(msg)


async def _stand(loop: asyncio.AbstractEventLoop) -> None:
    await loop.create_future()

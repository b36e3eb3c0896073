"""Fetcher: keeps the slots full and a short backlog behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Literal

from taskq.broker.consumer import Capacity, DeclaredDead
from taskq.core.clock import monotonic
from taskq.core.errors import ServerError, ServerRefused
from taskq.core.job import KINDS
from taskq.core.liveness import POLL_SECONDS, SLOT_WAIT_SECONDS
from taskq.core.rng import RNG
from taskq.redis.connection import ConnectionLost
from taskq.worker.in_flight import InFlightJobs
from taskq.worker.session import Session
from taskq.worker.settings import Tally, WorkerSettings

__all__ = ["Fetcher"]

_log = logging.getLogger("taskq.worker")

AHEAD_SECONDS = 0.02
"""The backlog holds as many jobs as the slots end in this time, so a job waits about as long."""

AHEAD_MOST = 4
"""The most jobs in the backlog for each slot: one backlog is fetched while another one runs."""

HANDED_SECONDS = 0.001
"""How long the next fetch waits for a job that was handed over to end first."""

BATCH = 500
"""The most jobs in one fetch, which keeps the server busy for a few milliseconds."""


class Fetcher:
    """One background loop: fetch as many jobs as there is room for, then wait for more room.

    `executors` returns the executors that registered tasks use. `on_suspects` is called when
    suspects wait; without it, this worker serves only suspects.
    """

    def __init__(
        self,
        session: Session,
        in_flight: InFlightJobs,
        tally: Tally,
        settings: WorkerSettings,
        executors: Callable[[], Collection[str]],
        on_suspects: Callable[[], None] | None,
    ) -> None:
        self._session = session
        self._in_flight = in_flight
        self._tally = tally
        self._settings = settings
        self._queue_names = tuple(settings.queues)
        self._loop = asyncio.get_running_loop()
        self._turn = self._turns = 0
        self._low_debt = 0.0
        self._pace = (self._loop.time(), 0)
        self._handed = False
        self._took = 0.0
        self.wake = asyncio.Event()
        in_flight.on_settled = self.settled
        in_flight.load.on_room = self.wake.set
        self._executors = executors
        self.paused = False
        self.fetching = False
        self.found_nothing = asyncio.Event()
        self._on_suspects = on_suspects

    async def run(self) -> None:
        """Fetch until `stop`; retries while the server is unavailable."""
        pause = 0.05
        while not self.paused:
            try:
                await self._step()
                pause = 0.05
            except DeclaredDead:
                await asyncio.sleep(0.05)
            except (ServerError, ConnectionLost) as error:
                level = logging.ERROR if isinstance(error, ServerRefused) else logging.WARNING
                drawn = RNG.uniform(pause / 2, pause)
                _log.log(level, "cannot fetch jobs: %s; trying again in %.1f s", error, drawn)
                await asyncio.sleep(drawn)
                pause = min(2.0, pause * 2)

    def look_soon(self) -> None:
        """Fetch soon: a job was pushed, and the server no longer counts this worker as idle.

        A quick job is settled first; otherwise its outcome would wait behind the fetch.
        """
        self._handed = True
        self._loop.call_later(HANDED_SECONDS, self.wake.set)

    def settled(self) -> None:
        """The server has an outcome: send the fetch that was held back for it."""
        if self._handed:
            self.wake.set()

    def stop(self) -> None:
        """Start no further fetch. A fetch in progress is awaited, never cancelled."""
        self.paused = True
        self.wake.set()
        self._in_flight.changed.set()

    async def _step(self) -> None:
        want = self._want()
        if want <= 0:
            await self._until_room()
            return
        self.wake.clear()
        self.fetching = True
        self._handed = False
        consumer, sent = self._session.consumer, monotonic()
        try:
            jobs = await consumer.fetch(want, self._queues(), self._which(), self._room())
        finally:
            self.fetching = False
        if consumer is not self._session.consumer:
            # Declared dead in the meantime: jobs fetched under the old name belong to others.
            return
        self._session.renew(sent)
        self._in_flight.take(jobs)
        self._took = self._loop.time()
        self._measure()
        if consumer.saw_suspects and self._on_suspects is not None:
            self._on_suspects()
        if len(jobs) < want:
            self.found_nothing.set()
            if not self._in_flight.load.lacks_jobs:
                await self._until_woken()

    def _want(self) -> int:
        if self._on_suspects is None:
            # One group at a time: as many as may run together, and no others beside them.
            return 0 if self._in_flight.known else self._settings.concurrency
        return min(BATCH, self._in_flight.room())

    def _which(self) -> Literal["h", "l", "s"]:
        if self._on_suspects is None:
            return "s"
        self._low_debt += self._settings.low_share
        if self._low_debt < 1:
            return "h"
        self._low_debt -= 1
        return "l"

    def _room(self) -> Capacity:
        """How many jobs of each kind can start.

        The kinds take turns. The fetch waits only for kinds that registered tasks use; a poll finds
        jobs of other kinds, whose tasks are unknown here.
        """
        load, ahead, turn = self._in_flight.load, self._in_flight.ahead, self._turns % 3
        self._turns += 1
        return Capacity(
            load.ask("t", ahead),
            load.ask("p", ahead),
            "ltpltp"[turn : turn + 3],
            "l" + "".join(KINDS[executor] for executor in self._executors()),
        )

    async def _until_room(self) -> None:
        self._in_flight.changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SLOT_WAIT_SECONDS):
                await self._in_flight.changed.wait()
        if self._loop.time() - self._took >= SLOT_WAIT_SECONDS:
            self._took = self._loop.time()
            self._in_flight.ahead = 0
            self._in_flight.give_back_backlog()

    async def _until_woken(self) -> None:
        if self.paused:
            return
        try:
            async with asyncio.timeout(RNG.uniform(POLL_SECONDS / 2, POLL_SECONDS)):
                await self.wake.wait()
        except TimeoutError:
            return

    def _measure(self) -> None:
        """Size the backlog to the number of jobs that ended in the last `AHEAD_SECONDS`."""
        now, ended = self._loop.time(), self._tally.finished
        then, before = self._pace
        if now - then >= AHEAD_SECONDS:
            rate = (ended - before) / (now - then)
            most = AHEAD_MOST * self._settings.concurrency
            self._in_flight.ahead = min(most, int(rate * AHEAD_SECONDS))
            self._pace = (now, ended)

    def _queues(self) -> tuple[str, ...]:
        """The queues, rotated so that each is first in turn."""
        queues = self._queue_names
        self._turn = (self._turn + 1) % len(queues)
        return queues[self._turn :] + queues[: self._turn]

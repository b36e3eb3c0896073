"""Election: becomes leader when there is none, and stays leader while its renewals arrive.

A follower measures how long the leader has been silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from taskq.broker.leadership import LeaderRecord, Leadership
from taskq.core.errors import ServerError, ServerRefused
from taskq.core.liveness import (
    FRESH_SECONDS,
    LEADER_CHECK_SECONDS,
    LEADER_LEASE_SECONDS,
    LEADER_RENEW_SECONDS,
    LEADER_REPLY_SECONDS,
    LEADER_TRUST_SECONDS,
)
from taskq.core.rng import RNG
from taskq.redis.connection import ConnectionLost

__all__ = ["Election", "Silence"]


class Silence:
    """Measures how long a leader's heartbeat has stood still, on the local monotonic clock.

    Only time between two prompt reads of the record counts: while the server pauses or cannot be
    reached, the leader is not silent. The first read of a new leader starts its clock.
    """

    def __init__(self) -> None:
        self._looked: float | None = None
        self._seen: tuple[str | None, int, str] | None = None
        self._seconds = 0.0

    def of(self, record: LeaderRecord, now: float) -> float:
        """Seconds of silence of the leader in `record`, as read at `now` (monotonic seconds)."""
        elapsed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        seen = (record.owner, record.term, record.beat)
        if seen != self._seen:
            self._seen, self._seconds = seen, 0.0
        elif elapsed <= FRESH_SECONDS:
            self._seconds += elapsed
        return self._seconds


_log = logging.getLogger("taskq.scheduler")

SPREAD_SECONDS = 0.05
"""Spreads the attempts of followers that notice at the same moment that there is no leader."""

LONGEST_PAUSE = 5.0


class Election:
    """One background loop. As leader it awaits `lead(term)`; the term ends when that ends.

    `has_schedules`: whether there was anything to fire.
    """

    def __init__(
        self,
        leadership: Leadership,
        name: str,
        lead: Callable[[int], Awaitable[None]],
        has_schedules: Callable[[], bool] = lambda: True,
    ) -> None:
        self._leadership = leadership
        self._lead = lead
        self._has_schedules = has_schedules
        self._silence = Silence()
        self._freed = asyncio.Event()
        self.name = name
        self.term: int | None = None

    def freed(self) -> None:
        """A leader has resigned, or the connection is new: check now."""
        self._freed.set()

    async def run(self) -> None:
        """Run for leader until cancelled; survives loss of the server. Resigns at the end."""
        pause = LEADER_CHECK_SECONDS
        while True:
            try:
                await self._step()
                pause = LEADER_CHECK_SECONDS
            except (ServerError, ConnectionLost, TimeoutError) as error:
                if isinstance(error, ServerRefused):
                    _log.error("cannot read the leader of the schedulers: %s", error)
                    pause = min(LONGEST_PAUSE, pause * 2)
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RNG.uniform(pause * 0.8, pause)):
                    await self._freed.wait()
                    await asyncio.sleep(RNG.uniform(0, SPREAD_SECONDS))

    async def _step(self) -> None:
        async with asyncio.timeout(LEADER_REPLY_SECONDS):
            record = await self._leadership.look()
            silent = self._silence.of(record, asyncio.get_running_loop().time())
            if (
                record.owner is not None
                and record.owner != self.name
                and silent < LEADER_LEASE_SECONDS
            ):
                return
            if record.owner != self.name:
                record = await self._take(record)
        if record.owner == self.name:
            await self._serve(record.term)

    async def _take(self, seen: LeaderRecord) -> LeaderRecord:
        try:
            return await self._leadership.take(self.name, seen)
        except asyncio.CancelledError:
            # It may have succeeded, and then no process would lead until the lease ends.
            await self._resign(seen.term + 1)
            raise

    async def _serve(self, term: int) -> None:
        """Lead until the term ends or this task is cancelled."""
        self.term = term
        leading = asyncio.ensure_future(self._lead(term))
        renewing = asyncio.ensure_future(self._renew(term))
        try:
            await asyncio.wait({leading, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.term = None
            for service in (leading, renewing):
                service.cancel()
            await self._resign(term)
        # Without schedules, a change of leaders does not matter.
        level = logging.WARNING if self._has_schedules() else logging.DEBUG
        _log.log(level, "%s no longer leads the schedulers, term %d is over", self.name, term)
        if _failed(leading):
            # Gives another scheduler the chance to lead.
            await asyncio.sleep(LONGEST_PAUSE)

    async def _renew(self, term: int) -> None:
        """Send the heartbeat of the leader once a second, until it is refused or not answered."""
        loop = asyncio.get_running_loop()
        trusted = loop.time()
        while loop.time() - trusted < LEADER_TRUST_SECONDS:
            await asyncio.sleep(LEADER_RENEW_SECONDS)
            sent = loop.time()
            try:
                async with asyncio.timeout(LEADER_REPLY_SECONDS):
                    if not await self._leadership.renew(self.name, term):
                        return
                trusted = sent
            except (ServerError, ConnectionLost, TimeoutError):
                continue

    async def _resign(self, term: int) -> None:
        with contextlib.suppress(ServerError, ConnectionLost, TimeoutError):
            async with asyncio.timeout(LEADER_REPLY_SECONDS):
                await self._leadership.resign(self.name, term)


def _failed(leading: asyncio.Future[None]) -> bool:
    """Whether `lead` failed; logs why."""
    if not leading.done() or leading.cancelled() or (error := leading.exception()) is None:
        return False
    _log.error("the leader of the schedulers resigns after an error: %r", error, exc_info=error)
    return True

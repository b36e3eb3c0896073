"""Leader: looks ahead, and fires what is due, for as long as it is in office."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from taskq.broker.broker import Broker
from taskq.broker.connection import ConnectionLost
from taskq.broker.schedules import DueSchedule, Firing, Ticked
from taskq.core.errors import ServerError, ServerRefused
from taskq.core.liveness import FIRE_AHEAD_SECONDS, FIRE_LOOK_SECONDS
from taskq.scheduler.agenda import Agenda
from taskq.scheduler.tally import Tally

__all__ = ["Leader"]

_log = logging.getLogger("taskq.scheduler")

_AHEAD_MS = int(FIRE_AHEAD_SECONDS * 1000)

LIMIT = 2_000
BATCH = 100
"""Schedules in one call: other clients of the server wait for it some milliseconds."""

AGAIN_MS = 250
"""After which a fire that waits for the last run is looked at again."""

FEWEST_SECONDS = 0.002
"""Fires that are so close travel together."""

LONGEST_PAUSE = 2.0
UNLIMITED = 1_000_000

DONE, CHANGED, EARLY, LATE, WAITS, CANCEL = 1, 0, 2, 3, 4, 5


class Leader:
    """One background loop for each term."""

    def __init__(self, broker: Broker, name: str, tally: Tally) -> None:
        self._broker = broker
        self._store = broker.schedules
        self._name = name
        self._tally = tally
        self._agenda = Agenda(broker.schedules, tally)
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = (0, 0.0)
        self._horizon = 0
        self._more = False
        self._look_at = 0.0
        self._term = 0
        self.has_schedules = False

    def changed(self) -> None:
        """A schedule was added, changed or removed: look now."""
        self._look_at = 0.0
        self._changed.set()

    async def lead(self, term: int) -> None:
        """Fire until a tick is refused because the term is over; survives the server."""
        self._agenda.clear()
        self._look_at = 0.0
        self._term, self.has_schedules = term, False
        pause = 0.05
        while True:
            try:
                if not await self._step(term):
                    self._tally.refused += 1
                    return
                pause = 0.05
            except (ServerError, ConnectionLost) as error:
                level = logging.ERROR if isinstance(error, ServerRefused) else logging.WARNING
                _log.log(level, "cannot fire: %s; trying again in %.1f s", error, pause)
                self._agenda.clear()
                self._look_at = 0.0
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    async def _step(self, term: int) -> bool:
        """Fire, look or wait, whichever is next; false when the term is over."""
        due = self._agenda.take(self._now(), BATCH)
        if due:
            return await self._fire(term, due)
        if self._looks():
            await self._look()
        if self._agenda.is_planned:
            await self._wait()
        else:
            await self._agenda.plan(self._now)
        return True

    def _looks(self) -> bool:
        """Whether to look now: a second went by, something changed, or there is more to be seen."""
        if self._loop.time() >= self._look_at:
            return True
        return self._more and self._agenda.is_planned and self._now() >= self._horizon

    def _now(self) -> int:
        """The server's time as far as it is known: it is that, or a little later."""
        then, at = self._server
        return then + int((self._loop.time() - at) * 1000)

    async def _look(self) -> None:
        self._changed.clear()
        self._look_at = self._loop.time() + FIRE_LOOK_SECONDS
        now, beyond, rows = await self._store.due(_AHEAD_MS, LIMIT)
        if not self.has_schedules and (rows or beyond is not None):
            self.has_schedules = True
            _log.info("%s leads the schedulers now, term %d", self._name, self._term)
        self._server = (now, self._loop.time())
        self._horizon = now + _AHEAD_MS
        self._more = len(rows) >= LIMIT and beyond == 0.0
        if self._more:
            # The rest is seen when these are done.
            self._horizon = rows[-1].next or now
        self._agenda.found(rows)

    async def _wait(self) -> None:
        """Until the next fire or the next look, or something was changed."""
        seconds = self._look_at - self._loop.time()
        if self._more:
            seconds = min(seconds, (self._horizon - self._now()) / 1000)
        first = self._agenda.first
        if first is not None:
            seconds = min(seconds, (first - self._now()) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(FEWEST_SECONDS, seconds)):
                await self._changed.wait()

    async def _fire(self, term: int, due: Sequence[Firing]) -> bool:
        late = (self._now() - due[0].slot) / 1000
        self._tally.latest = max(self._tally.latest, late)
        self._tally.ticks += 1
        try:
            answers = await self._store.tick(self._name, term, due, again_ms=AGAIN_MS)
        except ServerRefused as error:
            if len(due) == 1:
                return await self._refused(due[0], error)
            for firing in due:
                if not await self._fire(term, [firing]):
                    return False
            return True
        if answers is None:
            return False
        for firing, answer in zip(due, answers, strict=True):
            await self._judge(term, firing, answer)
        return True

    async def _refused(self, firing: Firing, error: ServerRefused) -> bool:
        """A tick ended with an error over one schedule: its keys are not what they were made as.

        An error about this client, or about its rights, is no fault of the schedule.
        """
        if "answered an error" not in str(error):
            raise error
        await self._agenda.pause(_row(firing), str(error))
        return True

    async def _judge(self, term: int, firing: Firing, answer: Ticked) -> None:
        self._tally.fired += answer.fired
        if answer.skipped:
            self._tell_skipped(firing, answer)
        if answer.code == DONE:
            self._agenda.follow(firing, self._horizon)
            if firing.broken:
                self._agenda.tell_paused(firing.id, firing.broken)
        elif answer.code == CANCEL:
            await self._cancel_and_fire(term, firing, answer.running)
        elif answer.code == WAITS:
            self._look_at = min(self._look_at, self._loop.time() + AGAIN_MS / 1000)
        else:
            # Changed, or the clock is not what it was: look again, at once.
            self._look_at = 0.0

    async def _cancel_and_fire(self, term: int, firing: Firing, running: Sequence[str]) -> None:
        for job_id in running:
            await self._broker.jobs.cancel(job_id)
        # The cancelled runs may take a moment to end; they stand in nobody's way any more.
        await self._fire(term, [replace(firing, overlap="skip", limit=UNLIMITED)])

    def _tell_skipped(self, firing: Firing, answer: Ticked) -> None:
        self._tally.skipped += answer.skipped
        reason = firing.why if firing.left_out else "its last run has not ended"
        _log.warning(
            "schedule %s left out %d %s: %s",
            firing.id,
            answer.skipped,
            "fire" if answer.skipped == 1 else "fires",
            reason,
        )


def _row(firing: Firing) -> DueSchedule:
    return DueSchedule(firing.id, firing.revision, firing.slot, None, False)

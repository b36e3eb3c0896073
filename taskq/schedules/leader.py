"""Leader: plans the next fires, and makes those that are due, for the length of its term.

Its agenda holds the schedules that fire soon, each with its planned tick.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from taskq.broker.broker import Broker
from taskq.broker.schedules import ChangedSchedule, DueSchedule, Firing, ScheduleStore, Ticked
from taskq.core.errors import ServerError, ServerRefused, TaskqError
from taskq.core.ids import new_id
from taskq.core.liveness import PLAN_AHEAD_SECONDS, PLAN_SECONDS
from taskq.redis.connection import ConnectionLost
from taskq.schedules.planner import plan
from taskq.schedules.spec import Spec, from_ms, spec_of

__all__ = ["Agenda", "Leader", "Tally"]

READ = 200
BREATH = 20
BREATH_SECONDS = 0.002
"""Interval after which the event loop gets a turn: a fire time takes 50 us to compute, or more."""

SLICE_SECONDS = 0.02
"""The longest time of planning before due plans are sent."""

MOST_KNOWN = 50_000


class Agenda:
    """Plans by schedule, and their schedules, which are read once for each revision."""

    def __init__(self, store: ScheduleStore, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        # Revision, schedule, and the last computed fire time, which is not checked again.
        self._known: dict[str, tuple[str, Spec, int | None]] = {}
        self._unplanned: dict[str, DueSchedule] = {}
        self._plans: dict[str, Firing] = {}
        self._heap: list[tuple[int, str]] = []

    def clear(self) -> None:
        """Drop all plans: they belong to one term."""
        self._unplanned.clear()
        self._plans.clear()
        self._heap.clear()

    @property
    def first(self) -> int | None:
        """The earliest fire time planned, in milliseconds."""
        while self._heap:
            slot, schedule = self._heap[0]
            planned = self._plans.get(schedule)
            if planned is not None and planned.slot == slot:
                return slot
            heapq.heappop(self._heap)
        return None

    def take(self, until: int, most: int) -> list[Firing]:
        """Remove and return the plans that are due by `until`, the earliest first."""
        taken: list[Firing] = []
        while len(taken) < most and (first := self.first) is not None and first <= until:
            taken.append(self._plans.pop(heapq.heappop(self._heap)[1]))
        return taken

    @property
    def is_planned(self) -> bool:
        """Whether all schedules found have their plans."""
        return not self._unplanned

    def found(self, rows: Iterable[DueSchedule]) -> None:
        """Set the schedules to plan, in the order in which they were found."""
        self._unplanned = {row.id: row for row in rows if self._is_news(row)}

    def follow(self, done: Firing, horizon: int) -> None:
        """Add the next fire of a schedule that has just fired, if it comes before `horizon`."""
        if done.following is not None and done.following <= horizon and done.jobs:
            row = DueSchedule(done.id, done.revision, done.following, done.jobs[-1].slot, False)
            self._unplanned[row.id] = row

    async def plan(self, now: Callable[[], int]) -> None:
        """Make plans for a short time; `now` returns the server's time (ms)."""
        some = list(islice(self._unplanned.values(), READ))
        await self._read(some)
        time = asyncio.get_running_loop().time
        begun = breathed = time()
        for row in some:
            self._unplanned.pop(row.id)
            await self._plan(row, now())
            if time() - breathed >= BREATH_SECONDS:
                await asyncio.sleep(0)
                breathed = time()
            if time() - begun >= SLICE_SECONDS:
                return

    async def pause(self, row: DueSchedule, reason: str) -> None:
        """Pause a schedule that cannot be fired, so that the others go on."""
        self.tell_paused(row.id, reason)
        stored = (await self._store.read([row.id])).found.get(row.id)
        if stored is not None and stored.revision == row.revision:
            change = ChangedSchedule(
                row.id, row.revision, new_id(), None, stored.next, reason[:1000], broken=True
            )
            await self._store.put([change])

    def tell_paused(self, schedule: str, reason: str) -> None:
        """Log that a schedule is paused because it cannot be computed."""
        _log.error("schedule %s is paused, because it cannot be fired: %s", schedule, reason)
        self._tally.paused += 1

    def _is_news(self, row: DueSchedule) -> bool:
        planned = self._plans.get(row.id)
        return (
            planned is None
            or row.waits
            or planned.revision != row.revision
            or planned.slot != row.next
        )

    async def _read(self, rows: list[DueSchedule]) -> None:
        unknown = [row for row in rows if self._known.get(row.id, ("",))[0] != row.revision]
        while len(self._known) + len(unknown) > MOST_KNOWN and self._known:
            del self._known[next(iter(self._known))]
        for i in range(0, len(unknown), READ):
            some = unknown[i : i + READ]
            found = (await self._store.read([row.id for row in some])).found
            for number, row in enumerate(some):
                if number % BREATH == BREATH - 1:
                    await asyncio.sleep(0)
                stored = found.get(row.id)
                if stored is None or stored.revision != row.revision:
                    continue
                try:
                    self._known[row.id] = (row.revision, spec_of(stored), None)
                except TaskqError as error:
                    await self.pause(row, str(error))

    async def _plan(self, row: DueSchedule, now: int) -> None:
        revision, spec, computed = self._known.get(row.id, ("", None, None))
        if spec is None or revision != row.revision:
            # Paused above, or changed since it was found: the next read shows it.
            return
        try:
            if row.next is None or not (row.next == computed or spec.gives(row.next)):
                await self._correct(row, spec, now)
                return
            planned = plan(row, spec, now)
        except Exception as error:  # a trigger may raise anything: the others go on
            await self.pause(row, f"{type(error).__name__}: {error}")
            return
        self._known[row.id] = (revision, spec, planned.following)
        self._plans[row.id] = planned
        heapq.heappush(self._heap, (planned.slot, row.id))

    async def _correct(self, row: DueSchedule, spec: Spec, now: int) -> None:
        """Correct a stored next fire that is not one of the trigger's.

        A client that can write to the server must not make taskq sign jobs for other times.
        """
        stored = (await self._store.read([row.id])).found.get(row.id)
        if stored is None or stored.revision != row.revision:
            return
        begins = now if spec.since is None else spec.since - 1
        following = spec.following(max(begins, min(stored.last or 0, now)))
        _log.error(
            "schedule %s: its next fire on the server, %s, is not one of its trigger's, and is not "
            "made; the next one is %s. Another program writes to the keys of taskq, or the rules "
            "of a time zone changed",
            row.id,
            "unreadable" if row.next is None else from_ms(row.next),
            "none" if following is None else from_ms(following),
        )
        why = stored.paused or ""
        await self._store.put(
            [ChangedSchedule(row.id, row.revision, new_id(), None, following, why, stored.broken)]
        )


@dataclass(slots=True)
class Tally:
    """Counters of one scheduler since it started.

    `ticks` are calls that made fires; `refused` are calls after the end of the term; `latest` is
    the greatest delay of a fire in seconds.
    """

    terms: int = 0
    ticks: int = 0
    fired: int = 0
    skipped: int = 0
    refused: int = 0
    paused: int = 0
    latest: float = 0.0


_log = logging.getLogger("taskq.scheduler")

_AHEAD_MS = int(PLAN_AHEAD_SECONDS * 1000)

LIMIT = 2_000
BATCH = 100
"""Schedules in one call, for which other clients of the server wait some milliseconds."""

AGAIN_MS = 250
"""Interval after which a fire that waits for the last run is checked again."""

FEWEST_SECONDS = 0.002
"""Fires closer than this are sent together."""

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
        """A schedule was added, changed or removed: read them now."""
        self._look_at = 0.0
        self._changed.set()

    async def lead(self, term: int) -> None:
        """Fire until a tick is refused because the term is over; survives loss of the server."""
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
        """Fire, read, plan or wait, whichever is next; false when the term is over."""
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
        """Whether to read now: a second has passed, something changed, or there is more to read."""
        if self._loop.time() >= self._look_at:
            return True
        return self._more and self._agenda.is_planned and self._now() >= self._horizon

    def _now(self) -> int:
        """A lower bound of the server's time, only a little behind it."""
        then, at = self._server
        return then + int((self._loop.time() - at) * 1000)

    async def _look(self) -> None:
        self._changed.clear()
        self._look_at = self._loop.time() + PLAN_SECONDS
        now, beyond, rows = await self._store.due(_AHEAD_MS, LIMIT)
        if not self.has_schedules and (rows or beyond is not None):
            self.has_schedules = True
            _log.info("%s leads the schedulers now, term %d", self._name, self._term)
        self._server = (now, self._loop.time())
        self._horizon = now + _AHEAD_MS
        self._more = len(rows) >= LIMIT and beyond == 0.0
        if self._more:
            # The rest is read when these are done.
            self._horizon = rows[-1].next or now
        self._agenda.found(rows)

    async def _wait(self) -> None:
        """Wait until the next fire, the next read, or a change."""
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
        """Pause a schedule whose tick failed, because its keys have the wrong type.

        An error about this client or its rights is not about the schedule, and is raised.
        """
        if "answered with an error" not in str(error):
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
            # The schedule or the clock has changed: read again at once.
            self._look_at = 0.0

    async def _cancel_and_fire(self, term: int, firing: Firing, running: Sequence[str]) -> None:
        for job_id in running:
            await self._broker.jobs.cancel(job_id)
        # The cancelled runs may take a moment to end, but no longer block this fire.
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

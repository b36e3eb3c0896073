"""Agenda: the schedules that fire soon, each with the plan of its tick, ready to be sent.

What a look found is planned bit by bit, the earliest first, so that plans are sent before they are
out of date, however many there are to be made.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterable
from itertools import islice

from taskq.broker.schedules import ChangedSchedule, DueSchedule, Firing, ScheduleStore
from taskq.core.errors import TaskqError
from taskq.core.ids import new_id
from taskq.scheduler.planner import plan
from taskq.scheduler.spec import Spec, from_ms, spec_of
from taskq.scheduler.tally import Tally

__all__ = ["Agenda"]

_log = logging.getLogger("taskq.scheduler")

READ = 200
BREATH = 20
BREATH_SECONDS = 0.002
"""After which others of this loop get a turn: computing a fire time takes 50 us, or much longer."""

SLICE_SECONDS = 0.02
"""How long plans are made before those that are due are sent."""

MOST_KNOWN = 50_000


class Agenda:
    """Plans by schedule, and the schedules they were made from, read once for each revision."""

    def __init__(self, store: ScheduleStore, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        # With its revision, and the fire time computed last: that one is not checked again.
        self._known: dict[str, tuple[str, Spec, int | None]] = {}
        self._unplanned: dict[str, DueSchedule] = {}
        self._plans: dict[str, Firing] = {}
        self._heap: list[tuple[int, str]] = []

    def clear(self) -> None:
        """Forget all plans: they belong to a term."""
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
        """Take out the plans whose time has come by `until`, the earliest first."""
        taken: list[Firing] = []
        while len(taken) < most and (first := self.first) is not None and first <= until:
            taken.append(self._plans.pop(heapq.heappop(self._heap)[1]))
        return taken

    @property
    def is_planned(self) -> bool:
        """Whether all that was found has its plan."""
        return not self._unplanned

    def found(self, rows: Iterable[DueSchedule]) -> None:
        """Take in what a look found, in its order: that is all there is to plan."""
        self._unplanned = {row.id: row for row in rows if self._is_news(row)}

    def follow(self, done: Firing, horizon: int) -> None:
        """Take in the next fire of a schedule that has just fired, if it comes before `horizon`."""
        if done.following is not None and done.following <= horizon and done.jobs:
            row = DueSchedule(done.id, done.revision, done.following, done.jobs[-1].slot, False)
            self._unplanned[row.id] = row

    async def plan(self, now: Callable[[], int]) -> None:
        """Make plans for a moment; `now` tells the server's time (ms)."""
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
        """Say that a schedule is paused because it cannot be computed."""
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
            # Paused above, or changed since the look: the next one tells.
            return
        try:
            if row.next is None or not (row.next == computed or spec.gives(row.next)):
                await self._correct(row, spec, now)
                return
            planned = plan(row, spec, now)
        except Exception as error:  # whatever a trigger raises: the others go on
            await self.pause(row, f"{type(error).__name__}: {error}")
            return
        self._known[row.id] = (revision, spec, planned.following)
        self._plans[row.id] = planned
        heapq.heappush(self._heap, (planned.slot, row.id))

    async def _correct(self, row: DueSchedule, spec: Spec, now: int) -> None:
        """Give a schedule its right next fire, where another stands.

        Whoever can write to the server must not have jobs made, and signed, at times of his own.
        """
        stored = (await self._store.read([row.id])).found.get(row.id)
        if stored is None or stored.revision != row.revision:
            return
        begins = now if spec.since is None else spec.since - 1
        following = spec.following(max(begins, min(stored.last or 0, now)))
        _log.error(
            "schedule %s: its next fire on the server, %s, is not one of its trigger's, and is not "
            "made; the next one is %s. Somebody else writes to the keys of taskq, or the rules of "
            "a time zone changed",
            row.id,
            "unreadable" if row.next is None else from_ms(row.next),
            "none" if following is None else from_ms(following),
        )
        why = stored.paused or ""
        await self._store.put(
            [ChangedSchedule(row.id, row.revision, new_id(), None, following, why, stored.broken)]
        )

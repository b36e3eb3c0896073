"""In-flight jobs: every job this worker holds, from the fetch to the server's confirmation.

A fetched job waits in the backlog for a slot, runs in it, and is known until the server has its
outcome. The backlog is short, so that priorities hold: it has as many jobs as the slots take in a
few milliseconds, and is handed back when they take longer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from taskq.core.job import Delivery
from taskq.core.outcome import Cancelled, Outcome
from taskq.execution.attempt import Interruption
from taskq.worker.session import Session
from taskq.worker.settings import Tally
from taskq.worker.settler import Settler
from taskq.worker.slots import Slots, StartClaims

__all__ = ["InFlightJobs", "Load"]

AHEAD_MOST = 4
"""How many jobs may wait for each thread or process."""


class Load:
    """How many jobs wait for or run in threads (`t`) and processes (`p`), by their lanes.

    `limits`: how many run there at once. `on_room` is called when a thread or process becomes free
    and the last fetch brought all it asked for, so there may be more.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = limits
        self._taken = dict.fromkeys(limits, 0)
        self._asked = dict.fromkeys(limits, 0)
        self.on_room: Callable[[], None] | None = None

    def add(self, delivery: Delivery) -> None:
        """Count a job that waits or runs here."""
        if (kind := delivery.lane[-1]) in self._taken:
            self._taken[kind] += 1
            self._asked[kind] -= 1

    def remove(self, delivery: Delivery) -> None:
        """Stop counting a job: it no longer waits or runs here."""
        if (kind := delivery.lane[-1]) not in self._taken:
            return
        self._taken[kind] -= 1
        if self.on_room is not None and self._lacks(kind):
            self.on_room()

    def ask(self, kind: str, ahead: int) -> int:
        """How many more jobs a fetch may bring, `ahead` of them to wait."""
        limit = self._limits[kind]
        room = max(0, limit + min(ahead, AHEAD_MOST * limit) - self._taken[kind])
        self._asked[kind] = room
        return room

    @property
    def lacks_jobs(self) -> bool:
        """Whether a thread or process became free that the last fetch did not ask jobs for."""
        return any(self._lacks(kind) for kind in self._limits)

    def _lacks(self, kind: str) -> bool:
        return self._asked[kind] <= 0 and self._taken[kind] < self._limits[kind]


class InFlightJobs:
    """Starts fetched jobs as slots become free, and settles those that have ended.

    `concurrency`: how many jobs run at once. `ahead`: how many more may wait for a slot. `changed`
    is set whenever a slot or the backlog changes.
    """

    def __init__(
        self,
        session: Session,
        slots: Slots,
        tally: Tally,
        claims: StartClaims,
        *,
        concurrency: int,
        load: Load,
    ) -> None:
        self._session = session
        self._tally = tally
        self._claims = claims
        self._concurrency = concurrency
        self._backlog: deque[Delivery] = deque()
        self._known: set[bytes] = set()
        self._closed = False
        self._filling = False
        self._loop = asyncio.get_running_loop()
        self.ahead = 0
        self.load = load
        self.slots = slots
        slots.on_end = self._ended
        self.settler = Settler(session, tally, self._confirmed)
        self.changed = asyncio.Event()
        self.on_settled: Callable[[], None] | None = None

    @property
    def running(self) -> int:
        """The number of jobs that occupy a slot."""
        return len(self.slots)

    @property
    def known(self) -> int:
        """The number of fetched jobs whose outcome the server has not confirmed."""
        return len(self._known)

    @property
    def busy(self) -> bool:
        """Whether a job waits, runs or is being settled."""
        return bool(len(self.slots) or self._backlog) or not self.settler.idle

    def knows(self, entry: bytes) -> bool:
        """Whether this delivery is held here."""
        return entry in self._known

    def room(self) -> int:
        """How many jobs may be fetched."""
        return self._concurrency - len(self.slots) + self.ahead - len(self._backlog)

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries and start those for which there are slots; when closed, hand them back.

        A delivery that is already held is ignored: a server that lost its last writes may deliver
        it again under the same fence. With a higher fence, it was handed back in the meantime and
        delivered anew.
        """
        known = self._known
        for delivery in deliveries:
            if delivery.entry in known:
                old = _older(self._backlog, delivery)
                if old is None:
                    continue
                self._backlog.remove(old)
                self.load.remove(old)
            known.add(delivery.entry)
            self._backlog.append(delivery)
            if delivery.lane[-1] > "9":
                self.load.add(delivery)
        if self._closed:
            self.give_back_backlog()
        else:
            self.fill()

    def fill(self) -> None:
        """Start waiting jobs in free slots, once the server has confirmed this worker lately."""
        self._filling = False
        slots, backlog = self.slots, self._backlog
        may_start = self._session.fresh and not self._closed
        free = self._concurrency - len(slots) if may_start else 0
        while free > 0 and backlog:
            slots.start(backlog.popleft())
            free -= 1
        self.changed.set()

    def close(self) -> None:
        """Start no more jobs; hand back those that wait for a slot and those that still arrive."""
        self._closed = True
        self.give_back_backlog()

    def give_back_backlog(self) -> None:
        """Hand back the jobs that wait for a slot; their attempts are not counted."""
        while self._backlog:
            delivery = self._backlog.popleft()
            self.load.remove(delivery)
            if self._claims.start(delivery):
                self.settler.hand_back(delivery)
            else:
                self._known.discard(delivery.entry)

    def cancel(self, job_id: str) -> None:
        """Cancel a job: a running one is interrupted, a waiting one never starts."""
        waiting = next((delivery for delivery in self._backlog if delivery.id == job_id), None)
        if waiting is None:
            self.slots.cancel(job_id)
            return
        self._backlog.remove(waiting)
        self.load.remove(waiting)
        if self._claims.start(waiting):
            self.settler.settle(waiting, Cancelled(), 0)
        else:
            self._known.discard(waiting.entry)

    def forget_all(self) -> None:
        """Stop all jobs without reporting outcomes: they belong to other workers now."""
        for delivery in self._backlog:
            self.load.remove(delivery)
        self._backlog.clear()
        self._known.clear()
        self._claims.clear()
        self._tally.lost += len(self.slots)
        self.slots.interrupt_all(Interruption.LOST)

    async def until_idle(self) -> None:
        """Wait until no job runs or waits for a slot."""
        while len(self.slots) or self._backlog:
            self.changed.clear()
            await self.changed.wait()

    def _ended(self, delivery: Delivery, outcome: Outcome | None, result_ttl: float) -> None:
        if outcome is not None:
            self.settler.settle(delivery, outcome, int(result_ttl * 1000))
        else:
            self._known.discard(delivery.entry)
        if delivery.lane[-1] > "9":
            self.load.remove(delivery)
        if not len(self.slots):
            # No other job can end in this turn of the loop.
            self.settler.flush()
            self.fill()
        elif not self._filling:
            # Together with everything else that ends in this turn of the loop.
            self._filling = True
            self._loop.call_soon(self.fill)

    def _confirmed(self, delivery: Delivery) -> None:
        self._known.discard(delivery.entry)
        self._claims.end(delivery)
        if not self._known:
            self.changed.set()
        if self.on_settled is not None:
            self.on_settled()


def _older(waiting: Iterable[Delivery], new: Delivery) -> Delivery | None:
    """An earlier delivery of the same entry, which was handed back before it started."""
    same = (one for one in waiting if one.entry == new.entry and one.fence < new.fence)
    return next(same, None)

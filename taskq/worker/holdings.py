"""Holdings: every job this worker has in its hands, from the fetch to the server's last word.

A job that was fetched waits in the backlog for a slot, runs in it, and is known until the server
has its outcome. The backlog is short, so that priorities stay honest: it holds what the slots take
in a few milliseconds, and is handed back when they take longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from taskq.core.job import Delivery
from taskq.core.outcome import Cancelled, Outcome
from taskq.execution.attempt import Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.worker.backlog import Backlog
from taskq.worker.intake import Intake
from taskq.worker.session import Session
from taskq.worker.settler import Settler
from taskq.worker.slots import Slots
from taskq.worker.tally import Tally

__all__ = ["Holdings"]


class Holdings:
    """Starts what was fetched as slots come free, and settles what has ended.

    `concurrency`: jobs that run at once. `suspect_from`: see `Backlog`. `changed` is set whenever
    a slot or the backlog changes.
    """

    def __init__(
        self,
        session: Session,
        intake: Intake,
        executors: ExecutorSet,
        tally: Tally,
        *,
        concurrency: int,
        suspect_from: int,
    ) -> None:
        self._session = session
        self._concurrency = concurrency
        self._backlog = Backlog(suspect_from)
        self._known: set[bytes] = set()
        self._closed = False
        self._filling = False
        self._loop = asyncio.get_running_loop()
        self._tally = tally
        self.slots = Slots(intake, executors, tally, self._ended)
        self.settler = Settler(session, tally, self._confirmed)
        self.changed = asyncio.Event()
        self.on_settled: Callable[[], None] | None = None

    @property
    def running(self) -> int:
        """Jobs that occupy a slot."""
        return len(self.slots)

    @property
    def known(self) -> int:
        """Jobs fetched whose outcome the server has not confirmed."""
        return len(self._known)

    @property
    def busy(self) -> bool:
        """Whether a job waits, runs, or is being settled."""
        return bool(len(self.slots) or len(self._backlog)) or not self.settler.idle

    def knows(self, entry: bytes) -> bool:
        """Whether this delivery is held here."""
        return entry in self._known

    def room(self, ahead: int) -> int:
        """How many jobs may be fetched, `ahead` of them for the backlog."""
        if self._backlog.blocked:
            return 0
        room = self._concurrency - len(self.slots) + ahead - len(self._backlog)
        return min(room, 1) if self._backlog.wary else room

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Hold deliveries, and start what there are slots for; when closed, hand them back.

        One that is held already is the same: a server that lost what it had written last may hand
        it out again, under the number it had.
        """
        known = self._known
        new = [delivery for delivery in deliveries if delivery.entry not in known]
        if self._closed:
            self.settler.hand_back(new)
            return
        for delivery in new:
            known.add(delivery.entry)
            self._backlog.add(delivery)
        self.fill()

    def fill(self) -> None:
        """Start what there are slots for, unless the server has to say first that it knows us."""
        self._filling = False
        slots, backlog = self.slots, self._backlog
        may_start = self._session.fresh and not self._closed
        free = self._concurrency - len(slots) if may_start else 0
        while free > 0 and (delivery := backlog.next(len(slots), len(self._known))) is not None:
            slots.start(delivery)
            free -= 1
        if backlog.blocked:
            self.settler.hand_back(backlog.surplus(len(slots)))
        self.changed.set()

    def close(self) -> None:
        """Start nothing more; what waits for a slot is handed back, and so is what arrives."""
        self._closed = True
        self.give_back_backlog()

    def give_back_backlog(self, *, suspects: bool = True) -> None:
        """Hand back what waits for a slot; its attempts are not counted.

        Without `suspects` those that wait to run alone stay.
        """
        self.settler.hand_back(self._backlog.clear(suspects=suspects))

    def cancel(self, job_id: str) -> None:
        """Interrupt a job that runs here; one in the backlog never starts."""
        waiting = self._backlog.remove(job_id)
        if waiting is not None:
            self.settler.settle(waiting, Cancelled(), 0)
        else:
            self.slots.cancel(job_id)

    def forget_all(self) -> None:
        """Nothing of what is held is ours any more: stop it, and tell nobody."""
        self._backlog.clear()
        self._known.clear()
        self._tally.lost += len(self.slots)
        self.slots.interrupt_all(Interruption.LOST)

    async def until_idle(self) -> None:
        """Wait until nothing runs and nothing waits for a slot."""
        while len(self.slots) or len(self._backlog):
            self.changed.clear()
            await self.changed.wait()

    def _ended(self, delivery: Delivery, outcome: Outcome | None, result_ttl: float) -> None:
        if outcome is not None:
            self.settler.settle(delivery, outcome, int(result_ttl * 1000))
        if not len(self.slots):
            # Nothing else can end in this turn.
            self.settler.flush()
            self.fill()
        elif not self._filling:
            # With all that ends in this turn.
            self._filling = True
            self._loop.call_soon(self.fill)

    def _confirmed(self, delivery: Delivery) -> None:
        self._known.discard(delivery.entry)
        if self.on_settled is not None:
            self.on_settled()
        if self._backlog.blocked:
            self.fill()

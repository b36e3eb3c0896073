"""A scheduler: wires election and leader, and starts and stops them.

::

    Election ── looks, takes, renews, resigns ──> record of the leader on the server
        │ in office
        v
    Leader ── looks ahead ──> Agenda (plans) ── ticks ──> server: job made, schedule moved on
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType

from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.connection import ConnectionLost
from taskq.core.errors import ServerError, ServerRefused
from taskq.core.ids import process_name
from taskq.scheduler.declared import Declared
from taskq.scheduler.election import Election
from taskq.scheduler.leader import Leader
from taskq.scheduler.reconcile import declare_again, reconcile
from taskq.scheduler.tally import Tally

__all__ = ["Scheduler"]

_log = logging.getLogger("taskq.scheduler")

LONGEST_PAUSE = 5.0


class Scheduler:
    """Fires schedules while it leads, and stands by while another one does.

    `declared` are the schedules of the code, compared with the stored ones once, at the start.
    `modules` are those whose tasks this process knows. Use it as `async with scheduler: ...`; it
    starts without a server and waits for one.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        declared: Sequence[Declared] = (),
        modules: frozenset[str] = frozenset(),
        *,
        name: str | None = None,
    ) -> None:
        self.name = name or process_name()
        self.tally = Tally()
        self._settings = settings
        self._declared = declared
        self._modules = modules
        self._election: Election | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def term(self) -> int | None:
        """The term in which it leads; None while it does not."""
        return None if self._election is None else self._election.term

    async def __aenter__(self) -> Scheduler:
        self._task = asyncio.create_task(self.run(), name="taskq-scheduler")
        self._task.add_done_callback(_tell_if_failed)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def run(self) -> None:
        """Until cancelled; then it gives up its office at once."""
        broker = Broker(self._settings, name="taskq-scheduler")
        leader = Leader(broker, self.name, self.tally)

        async def lead(term: int) -> None:
            self.tally.terms += 1
            await declare_again(broker, self._declared)
            await leader.lead(term)

        election = self._election = Election(
            broker.leadership, self.name, lead, lambda: leader.has_schedules
        )
        try:
            await self._prepare(broker, election, leader)
            await self._stand(election)
        finally:
            self._election = None
            await broker.aclose()

    async def _stand(self, election: Election) -> None:
        """Stand for office, whatever goes wrong in between."""
        while True:
            try:
                await election.run()
            except Exception:
                _log.exception("the election failed, which is an error of taskq; it goes on")
                await asyncio.sleep(1.0)

    async def _prepare(self, broker: Broker, election: Election, leader: Leader) -> None:
        """Listen, and store what the code declares; waits for the server."""
        client, keys = broker.client, broker.keys
        pause = 0.1
        while True:
            try:
                await client.subscribe(keys.lead_channel, lambda _: election.freed())
                await client.subscribe(keys.schedule_channel, lambda _: leader.changed())
                await reconcile(broker, self._declared, self._modules)
                break
            except (ServerError, ConnectionLost) as error:
                level = logging.ERROR if isinstance(error, ServerRefused) else logging.WARNING
                _log.log(level, "cannot store the code's schedules: %s; trying again", error)
            except Exception:
                _log.exception(
                    "storing the code's schedules failed, which is an error of taskq; trying again"
                )
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        client.on_reconnect(election.freed)
        client.on_reconnect(leader.changed)


def _tell_if_failed(task: asyncio.Task[None]) -> None:
    """Nobody awaits a scheduler: its end must not go unnoticed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the scheduler has ended: %r", error, exc_info=error)

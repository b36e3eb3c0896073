"""How the schedules of one namespace stand: how many there are, and who fires them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from taskq.broker.client import Client
from taskq.broker.clock import ClockOffset
from taskq.broker.keys import Keys
from taskq.broker.leadership import Leadership
from taskq.broker.schedules import ScheduleStore
from taskq.broker.trouble import Trouble
from taskq.core.counting import counted
from taskq.core.liveness import LEADER_SILENT_SECONDS

__all__ = ["Scheduling", "read_scheduling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """Schedules, and the leader who fires them (None: nobody does).

    There are `count` schedules, `active` of them have a next fire. The leader leads since `since`
    in its `term`; `silent` is how long ago it was heard, in seconds.
    """

    count: int = 0
    active: int = 0
    leader: str | None = None
    term: int = 0
    since: datetime | None = None
    silent: float | None = None

    @property
    def led(self) -> bool:
        """Whether somebody leads, and was heard of late."""
        return self.leader is not None and (self.silent or 0.0) < LEADER_SILENT_SECONDS

    def troubles(self) -> Iterable[Trouble]:
        """That nobody fires what is to be fired."""
        if self.active and not self.led:
            schedules = counted(self.active, "schedule waits", "schedules wait")
            what = f"{schedules} for the next fire, and nobody is there to make it"
            yield Trouble("schedules", what, "taskq worker, or taskq scheduler")


async def read_scheduling(client: Client, keys: Keys, offset: ClockOffset) -> Scheduling:
    """Look who leads, and count the schedules. Raises `ServerError`."""
    record = await Leadership(client, keys, offset).look()
    stored = await ScheduleStore(client, keys, offset).count()
    silent = (record.taken_at - record.heard).total_seconds() if record.heard else None
    return Scheduling(
        count=stored.count,
        active=stored.active,
        leader=record.owner,
        term=record.term,
        since=record.since,
        silent=silent,
    )

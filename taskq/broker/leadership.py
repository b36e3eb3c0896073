"""Who leads the schedulers: one record, changed by compare-and-set; and how schedules stand."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from taskq.broker.keys import Keys
from taskq.broker.lenient import Trouble
from taskq.broker.schedules import ScheduleStore
from taskq.broker.scripts import ClockOffset, script
from taskq.core.liveness import LEADER_SILENT_SECONDS
from taskq.core.text import counted
from taskq.redis.client import Client

__all__ = ["LeaderRecord", "Leadership", "Scheduling", "read_scheduling"]


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


_log = logging.getLogger("taskq.scheduler")


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    """Who leads as of now: `owner` is None when nobody does; `beat` moves while the owner lives.

    `since`, `heard` (its last beat) and `taken_at` are instants of the server's clock. Only people
    look at them.
    """

    owner: str | None
    term: int
    beat: str
    since: datetime | None
    heard: datetime | None
    taken_at: datetime


class Leadership:
    """Reads and changes the record. No call is repeated here: the next look tells what became."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._keys = (keys.leader, keys.lead_channel)
        self._offset = offset
        self._script = script("lead")

    async def look(self) -> LeaderRecord:
        """Who leads."""
        return (await self._call("look"))[1]

    async def take(self, name: str, seen: LeaderRecord) -> LeaderRecord:
        """Take the office if the record is still as `seen`; the record as it is then."""
        return (await self._call("take", name, seen.term, seen.owner or "", seen.beat))[1]

    async def renew(self, name: str, term: int) -> bool:
        """Say that the leader lives; false when it leads no more."""
        return (await self._call("renew", name, term))[0]

    async def resign(self, name: str, term: int) -> bool:
        """Give up the office and tell the others; false when it was somebody else's."""
        return (await self._call("resign", name, term))[0]

    async def _call(
        self, what: Literal["look", "take", "renew", "resign"], name: str = "", *seen: str | int
    ) -> tuple[bool, LeaderRecord]:
        done, owner, term, beat, since, heard, now, removed = await self._client.script(
            self._script, self._keys, self._offset.ms, what, name, *seen
        )
        if removed:
            _log.error(
                "%s was not a record of the leader, and was removed: somebody else writes there",
                self._keys[0],
            )
        record = LeaderRecord(
            owner.decode() or None,
            term,
            beat.decode(),
            _instant(since) if owner else None,
            _instant(heard) if owner else None,
            _instant(now),
        )
        return done == 1, record


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)

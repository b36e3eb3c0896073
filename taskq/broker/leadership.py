"""The leader record of the schedulers, changed by compare-and-set, and the state of scheduling."""

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
    """How many schedules there are, and the leader that fires them (None: no scheduler leads).

    Of `count` schedules, `active` have a next fire. The leader has led since `since` in its `term`;
    its last heartbeat was `silent` seconds ago.
    """

    count: int = 0
    active: int = 0
    leader: str | None = None
    term: int = 0
    since: datetime | None = None
    silent: float | None = None

    @property
    def led(self) -> bool:
        """Whether there is a leader with a recent heartbeat."""
        return self.leader is not None and (self.silent or 0.0) < LEADER_SILENT_SECONDS

    def troubles(self) -> Iterable[Trouble]:
        """Reports schedules that no leader fires."""
        if self.active and not self.led:
            schedules = counted(self.active, "schedule waits", "schedules wait")
            what = f"{schedules} for the next fire, and no scheduler is running"
            yield Trouble("schedules", what, "taskq worker, or taskq scheduler")


async def read_scheduling(client: Client, keys: Keys, offset: ClockOffset) -> Scheduling:
    """Read the leader and count the schedules. Raises `ServerError`."""
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
    """The leader as of now: `owner` (None: no leader), whose `beat` changes while it lives.

    `since`, `heard` (its last heartbeat) and `taken_at` (now) are instants of the server's clock,
    for display only.
    """

    owner: str | None
    term: int
    beat: str
    since: datetime | None
    heard: datetime | None
    taken_at: datetime


class Leadership:
    """Reads and changes the record. No call is repeated: the next look shows its outcome."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._keys = (keys.leader, keys.lead_channel)
        self._offset = offset
        self._script = script("lead")

    async def look(self) -> LeaderRecord:
        """The current leader."""
        return (await self._call("look"))[1]

    async def take(self, name: str, seen: LeaderRecord) -> LeaderRecord:
        """Become leader if the record is still as `seen`; returns the record as it is then."""
        return (await self._call("take", name, seen.term, seen.owner or "", seen.beat))[1]

    async def renew(self, name: str, term: int) -> bool:
        """Send the leader's heartbeat; false when it no longer leads."""
        return (await self._call("renew", name, term))[0]

    async def resign(self, name: str, term: int) -> bool:
        """Stop leading and notify the others; false when another scheduler leads."""
        return (await self._call("resign", name, term))[0]

    async def _call(
        self, what: Literal["look", "take", "renew", "resign"], name: str = "", *seen: str | int
    ) -> tuple[bool, LeaderRecord]:
        done, owner, term, beat, since, heard, now, removed = await self._client.script(
            self._script, self._keys, self._offset.ms, what, name, *seen
        )
        if removed:
            _log.error(
                "%s was not a leader record and was removed: another program writes to this key",
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

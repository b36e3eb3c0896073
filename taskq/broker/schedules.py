"""Stores, lists and fires schedules on the server, which does not know what they mean."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from taskq.broker.keys import Keys
from taskq.broker.lenient import text_of, time_of
from taskq.broker.schedule_record import StoredSchedule, read_schedule, revision_of
from taskq.broker.scripts import ClockOffset, in_pieces, script
from taskq.codec.signing import Signing
from taskq.core.liveness import CALL_SECONDS
from taskq.redis.client import Client, retrying
from taskq.redis.connection import MESSAGE_BYTES

__all__ = [
    "ChangedSchedule",
    "DueSchedule",
    "Firing",
    "FiringJob",
    "Overlap",
    "ScheduleStore",
    "StoredSchedules",
    "Ticked",
]

Overlap = Literal["allow", "skip", "wait", "cancel"]
"""What `tick.lua` does while earlier jobs of a schedule have not ended."""

_log = logging.getLogger("taskq.scheduler")

_BATCH = 200
_REPLACED = 2


class DueSchedule(NamedTuple):
    """A schedule that fires soon; `next` and `last` in ms. `waits`: for its last job to end."""

    id: str
    revision: str
    next: int | None
    last: int | None
    waits: bool


class FiringJob(NamedTuple):
    """One job of a fire; times in milliseconds of the server's clock."""

    slot: int
    due: int
    id: str
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What a tick does for one schedule, and from which state that was computed.

    `slot` is the next fire time as it was read, `following` the one after this tick (None: none,
    and the schedule is removed unless `keep`). From `until` (ms) on the plan is out of date.
    `left_out` fires are skipped because of `why`. `expires` is `""` or `"+<ms>"`. `broken` says why
    `following` cannot be computed: then the schedule is paused after this tick.
    """

    id: str
    revision: str
    slot: int
    following: int | None
    until: int | None
    jobs: tuple[FiringJob, ...]
    lane: str
    overlap: Overlap = "allow"
    limit: int = 1
    left_out: int = 0
    why: str = "misfire"
    expires: str = ""
    keep: bool = False
    broken: str = ""

    def frame(self, again_ms: int, signing: Signing) -> Iterable[Any]:
        """The arguments of `tick.lua`, with signed envelopes."""
        yield from (self.id, _sent(self.revision), self.slot)
        yield from (_text(self.following), _text(self.until))
        yield from (self.left_out, self.why, self.overlap, self.limit, self.lane, self.expires)
        yield from (int(self.keep), self.broken, again_ms, len(self.jobs))
        for job in self.jobs:
            envelope = signing.seal_job(job.id, self.lane, job.envelope)
            yield from (job.slot, job.due, job.id, envelope)


class Ticked(NamedTuple):
    """What a tick did: see the codes in `tick.lua`. `running` are the jobs that have not ended."""

    code: int
    fired: int
    skipped: int
    running: tuple[str, ...]


class ChangedSchedule(NamedTuple):
    """A schedule to be stored. `expected` is the revision that was read, "" for a new one.

    `spec` is None to keep the stored one. `broken`: it is paused because its next fire cannot be
    computed. `begins`: `next` is the first fire of a new trigger.
    """

    id: str
    expected: str
    revision: str
    spec: bytes | None
    next: int | None
    paused: str
    broken: bool = False
    begins: bool = False


@dataclass(frozen=True, slots=True)
class StoredSchedules:
    """The server's time (ms), counts of all schedules, and the schedules that were asked for.

    `declared` is how many are listed as declared by code, `looked` how many positions of a page or
    ids were read, and `more` whether some of these did not fit into the reply.
    """

    now: int
    count: int
    active: int
    declared: int
    looked: int = 0
    more: bool = False
    found: dict[str, StoredSchedule] = field(default_factory=dict[str, StoredSchedule])


class ScheduleStore:
    """Typed calls of the scripts that read and write schedules."""

    def __init__(
        self, client: Client, keys: Keys, offset: ClockOffset, *, signing: Signing | None = None
    ) -> None:
        self._client = client
        self._keys = keys
        self._offset = offset
        self._signing = signing or Signing(keys.namespace)
        self._scripts = {
            name: script(name)
            for name in ("fires", "tick", "schedule_put", "schedule_read", "schedule_remove")
        }
        self._run = script("schedule_run")

    async def due(self, ahead_ms: int, limit: int) -> tuple[int, float | None, list[DueSchedule]]:
        """The server's time (ms), seconds until the first later fire, and what is due before."""
        keys = self._keys
        now, beyond, removed, *rows = await self._client.script(
            self._scripts["fires"],
            (keys.schedules, keys.schedule_prefix),
            self._offset.ms,
            ahead_ms,
            limit,
        )
        if removed:
            _log.error(
                "%d members of %s were not schedules and were removed: "
                "another program writes to this key",
                removed,
                keys.schedules,
            )
        found = [
            DueSchedule(i.decode(), revision_of(v), time_of(n), time_of(last), w != b"")
            for i, v, n, last, w in rows
        ]
        return now, None if beyond < 0 else beyond / 1000, found

    async def tick(
        self, leader: str, term: int, firings: Sequence[Firing], *, again_ms: int = 250
    ) -> list[Ticked] | None:
        """Fire; returns an answer for each, or None when `leader` does not lead."""
        keys = self._keys
        named = (
            keys.schedules,
            keys.schedule_prefix,
            keys.leader,
            keys.jobs,
            keys.lane_prefix,
            keys.lanes,
            keys.due,
            keys.expiry,
            keys.idle,
            keys.wake_channel,
            keys.next_channel,
            keys.stats,
            keys.skip_channel,
        )
        ticked: list[Ticked] = []
        pieces = in_pieces(firings, _envelope_bytes, len(firings), MESSAGE_BYTES)
        # An empty call still checks who leads.
        for some, _ in pieces or [([], 0)]:
            frames = [part for firing in some for part in firing.frame(again_ms, self._signing)]
            reply = await self._client.script(
                self._scripts["tick"], named, self._offset.ms, leader, term, *frames
            )
            if reply is None:
                return None
            ticked += [
                Ticked(code, fired, skipped, tuple(text_of(running).split()))
                for code, fired, skipped, running in reply
            ]
        return ticked

    async def put(self, changes: Sequence[ChangedSchedule]) -> list[bool]:
        """Store schedules; false for those that were changed by others meanwhile."""
        stored: list[bool] = []
        for some, _ in in_pieces(changes, _spec_bytes, _BATCH, MESSAGE_BYTES):
            frames = [part for change in some for part in self._frame(change)]
            answers = await self._write("schedule_put", self._offset.ms, *frames)
            for change, answer in zip(some, answers, strict=True):
                if answer == _REPLACED:
                    key = self._keys.schedule_prefix + change.id
                    _log.error(
                        "%s was not a schedule and was replaced by the schedule of this id", key
                    )
                stored.append(answer != 0)
        return stored

    async def remove(self, *schedules: tuple[str, str]) -> list[int]:
        """Remove schedules (id, revision or "" for any): 1 removed, 0 not there, -1 changed."""
        removed: list[int] = []
        for i in range(0, len(schedules), _BATCH):
            some = schedules[i : i + _BATCH]
            pairs = [part for id, revision in some for part in (id, _sent(revision))]
            removed += await self._write("schedule_remove", *pairs)
        return removed

    async def run(
        self, schedule: str, revision: str, job_id: str, envelope: bytes, lane: str, expires: str
    ) -> bool:
        """Make a job of a schedule now; false when the schedule was changed meanwhile."""
        keys = self._keys

        async def once(_: bool) -> int:
            return await self._client.script(
                self._run,
                (
                    keys.schedules,
                    keys.schedule_prefix,
                    keys.jobs,
                    keys.lane_prefix,
                    keys.lanes,
                    keys.due,
                    keys.expiry,
                    keys.idle,
                    keys.wake_channel,
                    keys.next_channel,
                ),
                self._offset.ms,
                *(schedule, _sent(revision), job_id),
                self._signing.seal_job(job_id, lane, envelope),
                *(lane, expires),
            )

        return await retrying(once, seconds=CALL_SECONDS, what="the schedule could not be run") == 1

    async def read(self, ids: Sequence[str]) -> StoredSchedules:
        """The schedules of these ids, without those that do not exist."""
        look = await self._read("ids", *ids)
        found, looked = look.found, look.looked
        while look.more:
            look = await self._read("ids", *ids[looked:])
            looked += look.looked
            found |= look.found
        return replace(look, found=found, looked=looked)

    async def page(self, start: int = 0, most: int = 1000) -> StoredSchedules:
        """Schedules by next fire, those without one last.

        Returns fewer than `most`, with `more` set, when one reply cannot hold them.
        """
        return await self._read("page", start, most)

    async def count(self) -> StoredSchedules:
        """Only the counts."""
        return await self._read("count")

    async def declared(self) -> dict[str, str]:
        """The schedules that code has declared: module by id."""
        reply = await self._client.command("HGETALL", self._keys.declared)
        # Unreadable names do not match any schedule declared by code.
        return {text_of(schedule): text_of(module) for schedule, module in reply.items()}

    async def declare(self, modules: Mapping[str, str]) -> None:
        """List schedules as declared by code: module by id."""
        if modules:
            pairs = [word for pair in modules.items() for word in pair]
            await self._client.command("HSET", self._keys.declared, *pairs)

    async def undeclare(self, schedules: Sequence[str]) -> None:
        """Remove schedules from the list of declared ones."""
        if schedules:
            await self._client.command("HDEL", self._keys.declared, *schedules)

    def _frame(self, change: ChangedSchedule) -> Iterable[Any]:
        spec = b""
        if change.spec is not None:
            spec = self._signing.seal(change.spec, "schedule", change.id)
        yield from (change.id, _sent(change.expected), change.revision, spec)
        yield from (_text(change.next), change.paused)
        yield from (_flag(change.broken), _flag(change.begins))

    async def _read(self, what: str, *arguments: Any) -> StoredSchedules:
        keys = self._keys

        async def once(_: bool) -> list[Any]:
            return await self._client.script(
                self._scripts["schedule_read"],
                (keys.schedules, keys.schedule_prefix, keys.leader, keys.declared),
                self._offset.ms,
                what,
                *arguments,
            )

        now, count, active, declared, more, *rows = await retrying(
            once, seconds=CALL_SECONDS, what="schedules could not be read"
        )
        stored = [read_schedule(row, self._signing) for row in rows if len(row) > 1]
        found = {schedule.id: schedule for schedule in stored}
        return StoredSchedules(now, count, active, declared, len(rows), more == 1, found)

    async def _write(self, name: str, *arguments: Any) -> list[Any]:
        keys = self._keys

        async def once(_: bool) -> list[Any]:
            return await self._client.script(
                self._scripts[name],
                (keys.schedules, keys.schedule_prefix, keys.schedule_channel),
                *arguments,
            )

        return await retrying(once, seconds=CALL_SECONDS, what="the schedules could not be changed")


def _spec_bytes(change: ChangedSchedule) -> int:
    return len(change.spec or b"")


def _envelope_bytes(firing: Firing) -> int:
    return sum(len(job.envelope) for job in firing.jobs)


def _sent(revision: str) -> bytes:
    """The bytes of a revision, as they were read."""
    return revision.encode("latin-1")


def _flag(value: bool) -> str:
    return "1" if value else ""


def _text(number: int | None) -> str | int:
    return "" if number is None else number

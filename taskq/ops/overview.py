"""The whole state of one namespace at one moment: queues, workers, schedules, rates, troubles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from taskq.broker.keys import Keys
from taskq.broker.leadership import Scheduling, read_scheduling
from taskq.broker.lenient import Trouble, count_of, text_of
from taskq.broker.scripts import ClockOffset, script
from taskq.core.liveness import LEASE_SECONDS
from taskq.core.text import counted
from taskq.ops.descriptions import (
    DESCRIPTION_MS,
    DeferringState,
    read_deferring,
    read_description,
)
from taskq.redis.client import Client

__all__ = [
    "OUTCOMES",
    "Overview",
    "QueueState",
    "Rate",
    "Trouble",
    "WorkerState",
    "in_words",
    "read_overview",
]

OUTCOMES: Final[tuple[str, ...]] = ("succeeded", "failed", "retried", "cancelled", "released")
"""The outcomes counted per queue and minute."""

_LATE_SECONDS = 30.0
_LANE = re.compile(r"(.+)/([0-9])[tp]?")
_MOST_WORKERS = 2_000
_QUEUES_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per second, over the last minute and over the last five minutes."""

    last_minute: float = 0.0
    last_five: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One queue now.

    `waiting` jobs could run and have not started; the first of them has waited for `oldest` seconds
    (a scheduled or retried job: since it became due). Workers hold `running` jobs. `failed` jobs
    are kept. `workers` serve the queue; `stopping` ones take no more jobs. `consumers` is the
    largest number of consumers that the server remembers for one lane.
    """

    name: str
    waiting: int = 0
    by_priority: Mapping[int, int] = field(default_factory=dict[int, int])
    oldest: float | None = None
    running: int = 0
    failed: int = 0
    workers: int = 0
    stopping: int = 0
    consumers: int = 0
    rates: Mapping[str, Rate] = field(default_factory=dict[str, Rate])


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One registered worker, as it described itself with its last heartbeat.

    The server counts `held` jobs of it, and the worker reports `running` ones. `silent` is the time
    since its last heartbeat in seconds, None after a minute. A worker that is `stopping` finishes
    its running jobs and takes no more.
    """

    name: str
    host: str = ""
    pid: int = 0
    queues: tuple[str, ...] = ()
    concurrency: int = 0
    running: int = 0
    held: int = 0
    finished: int = 0
    started_at: datetime | None = None
    rss: int = 0
    stopping: bool = False
    silent: float | None = None

    @property
    def alive(self) -> bool:
        """Whether its heartbeats arrive."""
        return self.silent is not None and self.silent < LEASE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Everything about one namespace at one moment of the server's clock.

    `scheduled` jobs are due later or wait for a retry; `overdue` of them are past their time.
    `next_due` is in seconds, negative when overdue, None without such jobs. `partially_reaped` are
    dead workers whose jobs are being recovered. `left_out` counts workers above the limit of one
    overview.
    """

    taken_at: datetime
    queues: tuple[QueueState, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    deferring: tuple[DeferringState, ...] = ()
    scheduled: int = 0
    overdue: int = 0
    next_due: float | None = None
    malformed: int = 0
    partially_reaped: tuple[str, ...] = ()
    rates: Mapping[str, Rate] = field(default_factory=dict[str, Rate])
    left_out: int = 0
    scheduling: Scheduling = field(default_factory=Scheduling)

    @property
    def waiting(self) -> int:
        """Jobs of all queues that could run and have not started."""
        return sum(queue.waiting for queue in self.queues)

    @property
    def running(self) -> int:
        """Jobs of all queues that workers hold."""
        return sum(queue.running for queue in self.queues)

    @property
    def failed(self) -> int:
        """Failed jobs of all queues that are kept."""
        return sum(queue.failed for queue in self.queues)

    @property
    def healthy(self) -> bool:
        """Whether every job that could run has a worker that will run it."""
        return not any(trouble.serious for trouble in self.troubles())

    def troubles(self) -> list[Trouble]:
        """The problems that an operator has to solve, serious ones first."""
        found = [*self._unserved(), *self._overdue(), *self._silent(), *self.scheduling.troubles()]
        if self.malformed:
            one, many = (
                "entry in the streams was not a job, and is",
                "entries in the streams were not jobs, and are",
            )
            what = f"{counted(self.malformed, one, many)} kept aside"
            found.append(Trouble("entries", what, "taskq doctor", serious=False))
        return sorted(found, key=lambda trouble: not trouble.serious)

    def _unserved(self) -> Iterable[Trouble]:
        if self.left_out:
            # A worker that is not in the overview may serve it.
            return
        for queue in self.queues:
            if queue.waiting and not queue.workers:
                jobs = counted(queue.waiting, "job waits", "jobs wait")
                age = "" if queue.oldest is None else f", the oldest for {in_words(queue.oldest)}"
                stopping = counted(queue.stopping, "is stopping", "are stopping")
                why = f" ({stopping})" if queue.stopping else ""
                yield Trouble(
                    "queues",
                    f"queue {queue.name}: {jobs}{age}, and no worker listens{why}",
                    f"taskq worker -q {queue.name}",
                )

    def _overdue(self) -> Iterable[Trouble]:
        if not self.overdue or self.next_due is None:
            return
        jobs = counted(self.overdue, "scheduled job is", "scheduled jobs are")
        what = f"{jobs} due, the first for {in_words(-self.next_due)}"
        if not self._any_alive():
            yield Trouble("queues", f"{what}, and no worker is running", "taskq worker")
        elif -self.next_due > _LATE_SECONDS:
            yield Trouble(
                "queues",
                f"{what}, and the workers do not keep up",
                "add workers, or check their logs",
                serious=False,
            )

    def _silent(self) -> Iterable[Trouble]:
        others = self._any_alive()
        for worker in self.workers:
            if worker.alive or not worker.held:
                continue
            span = "over a minute" if worker.silent is None else in_words(worker.silent)
            them = "it" if worker.held == 1 else "them"
            held = counted(worker.held, "job", "jobs")
            what = f"worker {worker.name} is silent for {span} and holds {held}"
            if others:
                fix = f"nothing, the others are about to recover {them}"
                yield Trouble("leases", what, fix, serious=False)
            else:
                yield Trouble("leases", f"{what}, and no other worker is alive", "taskq worker")

    def _any_alive(self) -> bool:
        return any(worker.alive for worker in self.workers)


async def read_overview(
    client: Client, keys: Keys, offset: ClockOffset, *, failure_ttl: float = 604_800.0
) -> Overview:
    """Read one namespace at one moment; the leader of schedules and deferred calls right after.

    Failed jobs older than `failure_ttl` (seconds) are not counted. Raises `ServerError`.
    """
    reply = await client.script(
        script("overview"),
        (keys.due, keys.workers, keys.held, keys.worker_info, keys.stats, keys.malformed),
        offset.ms,
        _MOST_WORKERS,
    )
    now, minutes, workers, due, malformed, dead, left_out = reply
    lanes, failed = await _read_queues(client, keys, offset, failure_ttl)
    deferring = await client.command("HGETALL", keys.deferring)
    described = sorted(map(_worker, workers), key=lambda worker: worker.name)
    rates = _rates(minutes, (now % 60_000) / 60_000)
    scheduled, overdue, *first = due
    return Overview(
        taken_at=datetime.fromtimestamp(now / 1000, UTC),
        queues=_queues(lanes, failed, described, rates),
        workers=tuple(described),
        deferring=tuple(read_deferring(deferring, now)),
        scheduled=scheduled,
        overdue=overdue,
        next_due=first[0] / 1000 if first else None,
        malformed=malformed,
        partially_reaped=tuple(sorted(map(text_of, dead))),
        rates=_total(rates.values()),
        left_out=left_out,
        scheduling=await read_scheduling(client, keys, offset),
    )


async def _read_queues(
    client: Client, keys: Keys, offset: ClockOffset, failure_ttl: float
) -> tuple[list[Sequence[Any]], list[Sequence[Any]]]:
    """Lanes and failed jobs by queue, a hundred at a time, so that other clients get a turn."""
    lanes: dict[bytes, Sequence[Any]] = {}
    failed: dict[bytes, Sequence[Any]] = {}
    cursor = b"0"
    while True:
        cursor, some_lanes, some_failed = await client.script(
            script("queues"),
            (keys.jobs, keys.lane_prefix, keys.lanes, keys.failed),
            offset.ms,
            int(failure_ttl * 1000),
            cursor,
            _QUEUES_AT_ONCE,
        )
        lanes |= {row[0]: row for row in some_lanes}
        failed |= {row[0]: row for row in some_failed}
        if cursor == b"0":
            return list(lanes.values()), list(failed.values())


def _queues(
    lanes: Iterable[Sequence[Any]],
    failed: Iterable[Sequence[Any]],
    workers: Sequence[WorkerState],
    rates: Mapping[str, Mapping[str, Rate]],
) -> tuple[QueueState, ...]:
    by_queue: dict[str, list[tuple[int, Sequence[int]]]] = {}
    for lane, *numbers in lanes:
        if found := _LANE.fullmatch(text_of(lane)):
            by_queue.setdefault(found[1], []).append((int(found[2]), numbers))
    listeners: dict[str, int] = {}
    stopping: dict[str, int] = {}
    for worker in workers:
        for queue in worker.queues:
            alive, leaves = worker.alive, worker.stopping
            listeners[queue] = listeners.get(queue, 0) + (alive and not leaves)
            stopping[queue] = stopping.get(queue, 0) + (alive and leaves)
    failures = {text_of(queue): count for queue, count in failed}
    return tuple(
        _queue(
            name,
            sorted(by_queue.get(name, ()), reverse=True),
            failed=failures.get(name, 0),
            workers=listeners.get(name, 0),
            stopping=stopping.get(name, 0),
            rates=rates.get(name, {}),
        )
        for name in sorted(by_queue.keys() | listeners.keys())
    )


def _queue(name: str, lanes: Sequence[tuple[int, Sequence[int]]], **others: Any) -> QueueState:
    ages = [numbers[3] / 1000 for _, numbers in lanes if numbers[3] >= 0]
    return QueueState(
        name=name,
        waiting=sum(numbers[0] for _, numbers in lanes),
        by_priority=_by_priority(lanes),
        oldest=max(ages, default=None),
        running=sum(numbers[1] for _, numbers in lanes),
        consumers=max((numbers[2] for _, numbers in lanes), default=0),
        **others,
    )


def _by_priority(lanes: Sequence[tuple[int, Sequence[int]]]) -> dict[int, int]:
    waiting: dict[int, int] = {}
    for priority, numbers in lanes:
        if numbers[0]:
            waiting[priority] = waiting.get(priority, 0) + numbers[0]
    return waiting


def _worker(row: Sequence[Any]) -> WorkerState:
    name, held, description, left_ms = row
    described: dict[str, Any] = read_description(description)
    started = described.get("started_at")
    return WorkerState(
        name=text_of(name),
        host=str(described.get("host", "")),
        pid=int(described.get("pid", 0)),
        queues=tuple(map(str, described.get("queues", ()))),
        concurrency=int(described.get("concurrency", 0)),
        running=int(described.get("running", 0)),
        held=held,
        finished=int(described.get("finished", 0)),
        started_at=datetime.fromtimestamp(started, UTC) if started else None,
        rss=int(described.get("rss", 0)),
        stopping=described.get("stopping", False),
        silent=max(0.0, (DESCRIPTION_MS - left_ms) / 1000) if left_ms > 0 else None,
    )


def _rates(minutes: Sequence[Sequence[Any]], elapsed: float) -> dict[str, dict[str, Rate]]:
    """Rates by queue and outcome, from the counters of this minute and the five before.

    A window ends now, so it begins within a minute and counts its share of that minute.
    """
    one: dict[str, float] = {}
    five: dict[str, float] = {}
    for back, counters in enumerate(minutes):
        for counter, count in zip(counters[::2], counters[1::2], strict=True):
            name = text_of(counter)
            for window, total in ((1, one), (5, five)):
                share = 1.0 if back < window else 1.0 - elapsed if back == window else 0.0
                total[name] = total.get(name, 0.0) + count_of(count) * share
    rates: dict[str, dict[str, Rate]] = {}
    for name, recent in one.items():
        queue, _, outcome = name.rpartition(":")
        rates.setdefault(queue, {})[outcome] = Rate(recent / 60, five[name] / 300)
    return rates


def _total(queues: Iterable[Mapping[str, Rate]]) -> dict[str, Rate]:
    total = {outcome: Rate() for outcome in OUTCOMES}
    for rates in queues:
        for outcome, rate in rates.items():
            before = total.get(outcome, Rate())
            total[outcome] = Rate(
                before.last_minute + rate.last_minute, before.last_five + rate.last_five
            )
    return total


def in_words(seconds: float) -> str:
    """A span of time for people: `3 min`, `2 h`, `340 ms`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"

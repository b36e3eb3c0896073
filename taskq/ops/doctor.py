"""The checks of `taskq doctor`: the server, the connection and the namespace, with verdicts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from taskq.broker.keys import GROUP, Keys
from taskq.broker.scripts import ClockOffset
from taskq.codec.signing import Signing
from taskq.core.errors import ServerRefused
from taskq.core.job import KINDS
from taskq.core.text import counted
from taskq.ops.acl import judge_permissions
from taskq.ops.overview import Overview, QueueState, read_overview
from taskq.redis.client import Client
from taskq.redis.server_check import (
    BUFFERS,
    Facts,
    Verdict,
    judge_buffers,
    judge_eviction,
    judge_memory,
    judge_persistence,
    judge_replication,
    judge_version,
    read_facts,
)

__all__ = ["examine", "judge_clock", "judge_latency", "judge_overview", "judge_signing"]

_PINGS: Final = 50
_PING_SECONDS: Final = 3.0
_SLOW_SECONDS, _STALL_SECONDS = 0.01, 0.5
_SKEW_SECONDS: Final = 2.0
_SAMPLE: Final = 200
_LONG: Final = 1_000
_MOST_SAMPLED: Final = 5
_IDLE_CONSUMERS: Final = 100


async def examine(
    client: Client,
    keys: Keys,
    offset: ClockOffset,
    *,
    signing: Signing,
    failure_ttl: float = 604_800.0,
) -> list[Verdict]:
    """Check the server and the namespace; only reads.

    What the server does not report counts as unknown and is never guessed.

    Raises `ServerError` when the server cannot be reached at all.
    """

    async def ask(*command: Any) -> Any:
        try:
            return await client.command(*command)
        except ServerRefused:
            return None

    facts = await read_facts(ask, "save", "appendfsync", BUFFERS)
    if facts is not None and client.address is not None:
        facts = replace(facts, flags=client.address.flags)
    verdicts = _server(facts)
    verdicts.append(judge_latency(await _pings(client)))
    verdicts.append(judge_clock(*await _skew(client)))
    overview = await read_overview(client, keys, offset, failure_ttl=failure_ttl)
    verdicts += judge_overview(overview, keys)
    verdicts.append(await _streams(client, keys, overview))
    database = 0 if client.address is None else client.address.database
    verdicts.append(await judge_permissions(ask, keys.namespace, database))
    verdicts.append(judge_signing(signing))
    return verdicts


def _server(facts: Facts | None) -> list[Verdict]:
    if facts is None:
        return [
            Verdict(
                "version",
                "warn",
                "this user may not run INFO, so version, eviction, persistence, memory and "
                "replication are unknown",
                "give the user +info: taskq doctor --acl prints the whole rule",
            )
        ]
    return [
        judge_version(facts),
        judge_eviction(facts),
        judge_persistence(facts),
        judge_memory(facts),
        judge_replication(facts),
        judge_buffers(facts),
    ]


def judge_signing(signing: Signing) -> Verdict:
    """Whether this process signs; the keys of other processes cannot be seen from here."""
    if signing.enabled:
        what = "signed: this process refuses unsigned and forged jobs and results"
    else:
        what = "off: anyone who can write to the server can run any task"
    return Verdict("signing", "ok", what)


# ------------------------------------------------------------------------- latency and clock


async def _pings(client: Client) -> list[float]:
    """Measure some round trips, one after the other, in seconds."""
    await client.command("PING")
    took: list[float] = []
    end = time.perf_counter() + _PING_SECONDS
    while len(took) < _PINGS and time.perf_counter() < end:
        began = time.perf_counter()
        await client.command("PING")
        took.append(time.perf_counter() - began)
    return took


def judge_latency(round_trips: Iterable[float]) -> Verdict:
    """Whether the server answers fast, without stalls. `round_trips` are in seconds."""
    took = sorted(round_trips)
    half, most = took[len(took) // 2], took[(len(took) * 99) // 100]
    what = f"p50 {half * 1000:.2f} ms, p99 {most * 1000:.2f} ms over {len(took)} round trips"
    if most > _STALL_SECONDS:
        fix = (
            "look for slow commands (SLOWLOG GET 10), swapping, or a loaded network: a worker "
            "whose heartbeats take 6 s loses its jobs"
        )
        return Verdict("latency", "bad", what, fix)
    if half > _SLOW_SECONDS:
        fix = "run workers and applications near the server: a result takes about three round trips"
        return Verdict("latency", "warn", what, fix)
    return Verdict("latency", "ok", what)


async def _skew(client: Client) -> tuple[float, float]:
    """How far the server's clock is ahead of ours, and the uncertainty (both in seconds)."""
    before = time.time()
    seconds, micros = await client.command("TIME")
    after = time.time()
    return int(seconds) + int(micros) / 1e6 - (before + after) / 2, (after - before) / 2


def judge_clock(skew: float, uncertain: float) -> Verdict:
    """Whether this machine's clock agrees with the server's, which decides when jobs are due."""
    if abs(skew) <= _SKEW_SECONDS + uncertain:
        return Verdict("clock", "ok", f"within {abs(skew) + uncertain:.3f} s of the server's")
    way = "behind" if skew > 0 else "ahead of"
    return Verdict(
        "clock",
        "warn",
        f"this machine's clock is {abs(skew):.1f} s {way} the server's: jobs with eta= run as much "
        "too early or too late; jobs with delay= are on time",
        "synchronise the clocks: timedatectl set-ntp true",
    )


# ---------------------------------------------------------------------------- the namespace


def judge_overview(overview: Overview, keys: Keys) -> list[Verdict]:
    """Queues without workers, dead workers, schedules that no process fires, foreign entries."""
    found: dict[str, list[Verdict]] = {"queues": [], "leases": [], "schedules": []}
    for trouble in overview.troubles():
        if trouble.about in found:
            level = "bad" if trouble.serious else "warn"
            found[trouble.about].append(Verdict(trouble.about, level, trouble.what, trouble.fix))
    if overview.partially_reaped:
        found["leases"].append(_partially_reaped(overview))
    alive = sum(worker.alive for worker in overview.workers)
    queues = "no job waits"
    if overview.waiting:
        queues = (
            f"{counted(len(overview.queues), 'queue', 'queues')}, "
            f"{counted(overview.waiting, 'job waits', 'jobs wait')}, each queue has a worker"
        )
    leases = counted(alive, "worker is alive", "workers are alive") if alive else "no workers"
    return [
        *(found["queues"] or [Verdict("queues", "ok", queues)]),
        *(found["leases"] or [Verdict("leases", "ok", leases)]),
        *(found["schedules"] or [Verdict("schedules", "ok", _schedules(overview))]),
        _entries(overview, keys),
    ]


def _schedules(overview: Overview) -> str:
    scheduling = overview.scheduling
    if not scheduling.active:
        return "no active schedules"
    return f"{scheduling.active:,} active, {scheduling.leader} leads"


def _partially_reaped(overview: Overview) -> Verdict:
    names = ", ".join(overview.partially_reaped[:5])
    if any(worker.alive for worker in overview.workers):
        return Verdict(
            "leases",
            "warn",
            f"jobs of dead workers are being recovered: {names}",
            "nothing: check again in a few seconds",
        )
    return Verdict(
        "leases",
        "bad",
        f"jobs of dead workers were recovered in part, and no worker is left to go on: {names}",
        "taskq worker",
    )


def _entries(overview: Overview, keys: Keys) -> Verdict:
    if not overview.malformed:
        return Verdict("entries", "ok", "no foreign entries in the streams")
    return Verdict(
        "entries",
        "warn",
        counted(
            overview.malformed,
            "entry of the streams was not a job",
            "entries of the streams were not jobs",
        )
        + f": another program writes to the keys of namespace {keys.namespace}",
        f"show them: LRANGE '{keys.malformed}' 0 9; then DEL '{keys.malformed}', or wait a week",
    )


async def _streams(client: Client, keys: Keys, overview: Overview) -> Verdict:
    """Whether streams hold entries or consumers that are no longer needed."""
    registered = len(overview.workers)
    for queue in overview.queues:
        if queue.consumers > registered + _IDLE_CONSUMERS:
            return _consumers(keys, queue, registered)
    long = sorted(
        (
            (depth, queue.name, priority)
            for queue in overview.queues
            for priority, depth in queue.by_priority.items()
            if depth >= _LONG
        ),
        reverse=True,
    )
    for depth, queue, priority in long[:_MOST_SAMPLED]:
        dead = await _dead_share(client, keys, queue, priority)
        if dead > 0.5:
            return Verdict(
                "streams",
                "warn",
                f"queue {queue}, priority {priority}: about {dead:.0%} of the first of {depth:,} "
                "entries belong to jobs that were cancelled or have expired",
                f"taskq worker -q {queue}: a worker that fetches them removes them",
            )
    return Verdict("streams", "ok", "only entries of jobs that wait or run")


def _consumers(keys: Keys, queue: QueueState, registered: int) -> Verdict:
    stream = keys.lane(queue.name, max(queue.by_priority, default=5))
    return Verdict(
        "streams",
        "warn",
        f"queue {queue.name}: the server remembers "
        f"{counted(queue.consumers, 'consumer', 'consumers')}, and "
        f"{counted(registered, 'worker is', 'workers are')} registered",
        f"XINFO CONSUMERS '{stream}' {GROUP}; then, of those with pending 0, XGROUP DELCONSUMER "
        f"'{stream}' {GROUP} NAME",
    )


async def _dead_share(client: Client, keys: Keys, queue: str, priority: int) -> float:
    """The share of the first waiting entries whose jobs no longer wait."""
    entries: list[Any] = []
    for executor in KINDS:
        stream = keys.lane(queue, priority, executor)
        if not await client.command("XLEN", stream):
            continue
        groups = await client.command("XINFO", "GROUPS", stream)
        last = next(
            (found[b"last-delivered-id"] for found in groups if found[b"name"] == b"g"), b"0-0"
        )
        entries += await client.command("XRANGE", stream, b"(" + last, "+", "COUNT", _SAMPLE)
    states = await asyncio.gather(
        *(client.command("HGET", keys.jobs.encode() + fields[1], "s") for _, fields in entries),
        return_exceptions=True,
    )
    return sum(state != b"q" for state in states) / len(states) if states else 0.0

"""The chaos driver: starts everything, lets things happen, comes to rest, and asks the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from taskq import JobState, TaskQ
from taskq.broker.keys import Keys
from tests.faults.chaos.events import EVENTS, Stage
from tests.faults.chaos.fleet import Fleet
from tests.faults.ledger import Ledger
from tests.faults.oracle import Expected, Verdict, judge
from tests.support.proxy import Proxy
from tests.support.scripts import lanes_of
from tests.support.server import TestServer, debug_options

__all__ = ["Plan", "Report", "run"]

REST_SECONDS = 120.0

EXPECTED_STATES = {
    "ok": frozenset({JobState.SUCCEEDED}),
    "retry": frozenset({JobState.SUCCEEDED}),
    "later": frozenset({JobState.SUCCEEDED}),
    "fail": frozenset({JobState.FAILED}),
    "ok+expires": frozenset({JobState.SUCCEEDED, JobState.EXPIRED}),
    "retry+expires": frozenset({JobState.SUCCEEDED, JobState.EXPIRED}),
    "later+expires": frozenset({JobState.SUCCEEDED, JobState.EXPIRED}),
    "fail+expires": frozenset({JobState.FAILED, JobState.EXPIRED}),
}


@dataclass(frozen=True)
class Plan:
    """What to do: things happen for `seconds`, or until `jobs` are acknowledged and `kills` done.

    `pause`: mean seconds between two events. The same seed draws the same events in the same
    order; when they hit what is left to the machine.
    """

    seed: int
    seconds: float = 60.0
    jobs: int = 2_000
    kills: int = 0
    pause: float = 1.5
    lone: int = 3
    supervisors: int = 1
    producers: int = 2
    rate: float = 60.0
    longest: float = 15.0
    longest_stop: float = 15.0
    keep: Path | None = None


@dataclass
class Report:
    """How it went."""

    plan: Plan
    verdict: Verdict
    seconds: float
    happened: Counter[str] = field(default_factory=Counter[str])
    cuts: int = 0

    @property
    def kills(self) -> int:
        """Processes of workers, producers and the server ended by SIGKILL."""
        return sum(count for name, count in self.happened.items() if name.startswith("kill_a"))

    def __str__(self) -> str:
        events = ", ".join(f"{count} x {name}" for name, count in self.happened.most_common())
        return (
            f"seed {self.plan.seed}: {self.seconds:.0f} s, {self.kills} processes and "
            f"{self.happened['kill_the_server']} times the server killed, {self.cuts} lines cut\n"
            f"{events}\n{self.verdict}"
        )


async def run(plan: Plan, say: Callable[[str], None] = print) -> Report:
    """Carry a plan out, and judge it."""
    began = time.monotonic()
    async with _stage(plan) as stage:
        stage.fleet.wrong += await _let_things_happen(plan, stage, say)
        say("coming to rest")
        await _come_to_rest(stage)
        verdict = await _judge(stage)
        verdict.wrong[:0] = stage.fleet.wrong
        report = Report(
            plan, verdict, time.monotonic() - began, stage.happened,
            sum(proxy.cuts for proxy in stage.proxies),
        )  # fmt: skip
        if verdict.wrong and plan.keep is not None:
            shutil.copytree(stage.fleet.directory, plan.keep, dirs_exist_ok=True)
            say(f"ledger and logs are kept in {plan.keep}")
    return report


@contextlib.asynccontextmanager
async def _stage(plan: Plan) -> AsyncIterator[Stage]:
    directory = Path(tempfile.mkdtemp(prefix="tqc"))
    server = TestServer("--appendfsync", "always", *debug_options())
    try:
        async with Proxy(server.socket) as one, Proxy(server.socket) as two:
            fleet = Fleet(
                directory, [server.url, one.url, two.url], "chaos", random.Random(plan.seed),
                rate=plan.rate / plan.producers, longest=plan.longest,
            )  # fmt: skip
            stage = Stage(fleet, server, [one, two], plan.longest_stop)
            try:
                for kind, count in (
                    ("lone", plan.lone),
                    ("supervisor", plan.supervisors),
                    ("producer", plan.producers),
                ):
                    for _ in range(count):
                        fleet.add(kind)
                yield stage
            finally:
                for task in stage.beside:
                    task.cancel()
                fleet.kill_all()
    finally:
        server.close()
        shutil.rmtree(directory, ignore_errors=True)


async def _let_things_happen(plan: Plan, stage: Stage, say: Callable[[str], None]) -> list[str]:
    """Draw events until the plan is fulfilled."""
    draw, ledger = random.Random(plan.seed + 1), Ledger(stage.fleet.directory / "ledger")
    until, said = time.monotonic() + plan.seconds, 0.0
    while time.monotonic() < until:
        await asyncio.sleep(min(4 * plan.pause, draw.expovariate(1 / plan.pause)))
        [event] = draw.choices(list(EVENTS), list(EVENTS.values()))
        if await event(stage):
            stage.happened[event.__name__] += 1
        stage.fleet.look_for_deaths()
        if time.monotonic() - said > 10:
            said = time.monotonic()
            acknowledged = await asyncio.to_thread(ledger.count, "ack")
            kills = sum(n for name, n in stage.happened.items() if name.startswith("kill_a"))
            say(f"{acknowledged} jobs, {kills} kills, {stage.happened.total()} events")
            if plan.kills and acknowledged >= plan.jobs and kills >= plan.kills:
                break
    return []


async def _come_to_rest(stage: Stage) -> None:
    """Heal, let the producers end, the workers work everything off, and the workers leave."""
    fleet = stage.fleet
    for proxy in stage.proxies:
        proxy.heal()
    while stage.beside:
        await asyncio.wait(stage.beside)
    for proxy in stage.proxies:
        proxy.heal()
    await asyncio.gather(*(_leave(fleet, "producer", REST_SECONDS)))
    look = redis.Redis(unix_socket_path=str(stage.server.socket))
    deadline, keys = time.monotonic() + REST_SECONDS, Keys(fleet.namespace)
    beats = _beats(look, keys)
    while (busy := _busy(look, keys, beats)) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    if busy:
        fleet.wrong.append(f"not at rest after {REST_SECONDS:g} s: {busy}")
    look.close()
    await asyncio.gather(*(_leave(fleet, "lone", 20.0)), *(_leave(fleet, "supervisor", 20.0)))


def _leave(fleet: Fleet, kind: str, within: float) -> list[Any]:
    return [fleet.leave(member, within) for member in fleet.of(kind)]


def _beats(look: Any, keys: Keys) -> set[tuple[bytes, float]]:
    return set(look.zrange(keys.workers, 0, -1, withscores=True))


def _busy(look: Any, keys: Keys, beats: set[tuple[bytes, float]]) -> str:
    """What waits or runs, and who was not heard since `beats`: perhaps dead, and not missed yet."""
    entries = {lane: look.xlen(keys.lane_prefix + lane) for lane in lanes_of(look, keys)}
    waiting = {lane: count for lane, count in entries.items() if count}
    due, dead = look.zcard(keys.due), look.zrange(keys.workers, "-inf", "(0", byscore=True)
    silent = beats & _beats(look, keys)
    if not (waiting or due or dead or silent):
        return ""
    held = look.hgetall(keys.held)
    return f"{waiting} in queues, {due} due, {dead} being reaped, {silent} silent, held {held}"


async def _judge(stage: Stage) -> Verdict:
    fleet = stage.fleet
    q = TaskQ(stage.server.url, namespace=fleet.namespace)
    look = redis.Redis(unix_socket_path=str(stage.server.socket))
    # Each of these may cost every run that a worker holds.
    blows = sum(
        stage.happened[name]
        for name in (
            "kill_a_lone_worker", "kill_a_supervised_worker", "stop_a_worker_for_a_while",
            "a_worker_leaves",
        )
    )  # fmt: skip
    expected = Expected(
        EXPECTED_STATES, interrupted=(blows + len(fleet.members)) * fleet.concurrency, poisoned=True
    )
    try:
        return await judge(Ledger(fleet.directory / "ledger"), q, look, expected)
    finally:
        look.close()
        await q.aclose()


def shorter(plan: Plan, **changes: Any) -> Plan:
    """The same plan with other numbers."""
    return dataclasses.replace(plan, **changes)

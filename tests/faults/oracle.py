"""The judge of a fault test: compares the ledger with the server once everything has come to rest.

What it holds against taskq:

* a request that was acknowledged and has not ended, or ended in a state nobody asked for;
* a request that became two jobs;
* an attempt that was started twice (its number is the fence, and fences are given once);
* a success whose attempt never came to its end, or whose result is another attempt's;
* a job whose end was counted more or less than once by the server;
* more interrupted runs than the faults explain;
* whatever is left on the server: entries, consumers, leases, sets, keys without TTL.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import redis

from taskq import JobInfo, JobState, TaskQ
from taskq.broker.keys import GROUP, Keys
from tests.faults.ledger import Ledger, Line
from tests.support.leaks import keys_left
from tests.support.scripts import lanes_of

__all__ = ["Expected", "Verdict", "judge", "left_on_server"]

MAX_CRASHES = 3
"""How many deaths of its worker make a job poison."""

_SUCCEEDED = frozenset({JobState.SUCCEEDED})


@dataclass(frozen=True)
class Expected:
    """What the faults of a run explain.

    `states`: by the note a request was asked with, how its job may end (default: succeed).
    `interrupted`: how many runs may have been cut short and repeated. `poisoned`: whether jobs may
    have been given up as poison.
    """

    states: dict[str, frozenset[JobState]] = field(default_factory=dict)
    interrupted: int = 0
    poisoned: bool = False


@dataclass
class Verdict:
    """What was counted, and what is wrong."""

    jobs: int = 0
    acknowledged: int = 0
    executions: int = 0
    interrupted: int = 0
    poisoned: int = 0
    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        head = (
            f"{self.acknowledged} acknowledged, {self.jobs} jobs ({states}), {self.executions} "
            f"executions, {self.interrupted} cut short, {self.poisoned} given up as poison: "
        )
        if not self.wrong:
            return head + "nothing wrong"
        shown = "\n  ".join(self.wrong[:40])
        return f"{head}{len(self.wrong)} things wrong\n  {shown}"


@dataclass
class _Story:
    """Everything the ledger says about one job."""

    token: str
    starts: Counter[int] = field(default_factory=Counter)
    ends: set[int] = field(default_factory=set)


async def judge(ledger: Ledger, q: TaskQ, look: redis.Redis, expected: Expected) -> Verdict:
    """The verdict on what happened in `q`'s namespace; call it when nothing is due any more."""
    lines = ledger.read()
    verdict = Verdict()
    _no_request_became_two(lines, verdict)
    stories = _stories(lines)
    infos = await _infos(q, stories)
    notes = {line.token: line.note for line in lines if line.what == "ask"}
    cancelled = {line.token for line in lines if line.what == "cancel"}
    acknowledged = {line.job for line in lines if line.what == "ack"}
    verdict.jobs, verdict.acknowledged = len(stories), len(acknowledged)
    for job, story in stories.items():
        may_be = expected.states.get(notes.get(story.token, ""), _SUCCEEDED)
        if story.token in cancelled:
            may_be |= {JobState.CANCELLED}
        _judge_job(job, story, infos[job], may_be, expected, verdict)
    for line in lines:
        if line.what == "got" and line.note != str(infos[line.job] and infos[line.job].attempt):
            verdict.wrong.append(f"{line.job}: who waited got the result of attempt {line.note}")
    _counted_once(look, q._settings.keys, verdict)
    if verdict.interrupted > expected.interrupted:
        verdict.wrong.append(
            f"{verdict.interrupted} runs were cut short; the faults explain {expected.interrupted}"
        )
    verdict.wrong += left_on_server(look, q._settings.keys)
    return verdict


def left_on_server(look: redis.Redis, keys: Keys) -> list[str]:
    """What is still there though no job lives and no worker runs."""
    client: Any = look
    left: list[str] = []
    for lane in lanes_of(client, keys):
        stream = keys.lane_prefix + lane
        if not client.exists(stream):
            continue
        pending = client.xpending(stream, GROUP)["pending"]
        # Those in brackets are no workers; they go with the next fetch.
        consumers = [
            consumer
            for consumer in client.xinfo_consumers(stream, GROUP)
            if not consumer["name"].startswith(b"(")
        ]
        if client.xlen(stream) or pending or consumers:
            names = [consumer["name"].decode() for consumer in consumers]
            left.append(f"{stream}: {client.xlen(stream)} entries, {pending} pending, {names}")
    left += [
        f"{key} is left: {client.dump(key)!r:.200}"
        for key in (keys.workers, keys.held, keys.slots, keys.serves, keys.due, keys.expiry)
        if client.exists(key)
    ]
    left += [f"{key.decode()} is left" for key in client.scan_iter(match=keys.cancels + "*")]
    left += [f"{name} is left without a TTL" for name in keys_left(look, keys.namespace)]
    return left


def _no_request_became_two(lines: Iterable[Line], verdict: Verdict) -> None:
    jobs: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line.what in ("ack", "start"):
            jobs[line.token].add(line.job)
    verdict.wrong += [
        f"request {token} became {len(found)} jobs: {sorted(found)}"
        for token, found in jobs.items()
        if len(found) > 1
    ]


def _stories(lines: Iterable[Line]) -> dict[str, _Story]:
    stories: dict[str, _Story] = {}
    for line in lines:
        if line.what not in ("ack", "start", "end"):
            continue
        story = stories.setdefault(line.job, _Story(line.token))
        if line.what == "start":
            story.starts[line.attempt] += 1
        elif line.what == "end":
            story.ends.add(line.attempt)
    return stories


async def _infos(q: TaskQ, jobs: Iterable[str]) -> dict[str, JobInfo | None]:
    found: dict[str, JobInfo | None] = {}
    ids = list(jobs)
    broker = q._backend.current()
    for at in range(0, len(ids), 500):
        some = ids[at : at + 500]
        found.update(zip(some, await asyncio.gather(*map(broker.jobs.info, some)), strict=True))
    return found


def _judge_job(
    job: str,
    story: _Story,
    info: JobInfo | None,
    may_be: frozenset[JobState],
    expected: Expected,
    verdict: Verdict,
) -> None:
    wrong, executions = verdict.wrong, sum(story.starts.values())
    verdict.executions += executions
    if info is None:
        wrong.append(f"{job} ({story.token}) is lost: the server does not know it")
        return
    verdict.states[str(info.state)] += 1
    if info.state is JobState.FAILED and info.error_type == "Poison":
        verdict.poisoned += 1
        wrong += _poison(job, story, info, expected)
    elif info.state not in may_be:
        wrong.append(f"{job} ({story.token}) is {info.state}; may be {sorted(map(str, may_be))}")
    elif info.state is JobState.SUCCEEDED:
        wrong += _success(job, story, info)
    wrong += [
        f"{job}: attempt {attempt} was started {count} times"
        for attempt, count in story.starts.items()
        if count > 1
    ]
    if any(attempt > info.attempt for attempt in story.starts):
        wrong.append(f"{job}: attempts {sorted(story.starts)} were started, {info.attempt} is last")
    over = {record.number for record in info.attempts if record.outcome not in ("lost", "released")}
    verdict.interrupted += sum(
        count for number, count in story.starts.items() if number not in over
    )


def _poison(job: str, story: _Story, info: JobInfo, expected: Expected) -> list[str]:
    wrong: list[str] = []
    if not expected.poisoned or info.crashes < MAX_CRASHES:
        wrong.append(f"{job} was given up as poison after {info.crashes} crashes")
    if info.attempt not in story.starts:
        wrong.append(f"{job} was given up as poison, and its last attempt had not started")
    return wrong


def _success(job: str, story: _Story, info: JobInfo) -> list[str]:
    wrong: list[str] = []
    if info.attempt not in story.ends:
        wrong.append(f"{job} succeeded with attempt {info.attempt}, which never ended")
    if info.result != info.attempt:
        wrong.append(f"{job}: the result {info.result!r} is not that of {info.attempt}")
    return wrong


def _counted_once(look: redis.Redis, keys: Keys, verdict: Verdict) -> None:
    """The server counts a success in the script that stores it: twice stored is twice counted."""
    client: Any = look
    counts: Counter[str] = Counter()
    for minute in client.scan_iter(match=keys.stats + "*"):
        for name, count in client.hgetall(minute).items():
            counts[name.decode().rpartition(":")[2]] += int(count)
    if counts["succeeded"] != verdict.states["succeeded"]:
        verdict.wrong.append(
            f"{verdict.states['succeeded']} jobs succeeded, and the server counted "
            f"{counts['succeeded']}"
        )

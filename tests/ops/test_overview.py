"""The overview: what it counts, and what it complains of."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import msgpack
import pytest
import redis

from taskq import TaskQ
from taskq.ops import overview as module
from taskq.ops.overview import Overview, QueueState, WorkerState, read_overview
from tests.support.waiting import eventually

pytestmark = pytest.mark.leaves_jobs

DAY_MS = 86_400_000


async def look_at(q: TaskQ) -> Overview:
    settings = q._settings
    return await read_overview(
        q._backend.current().client,
        settings.keys,
        settings.offset,
        failure_ttl=settings.retention.failure_seconds,
    )


async def queue_of(q: TaskQ, name: str = "default") -> QueueState:
    return next(queue for queue in (await look_at(q)).queues if queue.name == name)


def complaints(overview: Overview, *, serious: bool = True) -> list[str]:
    return [str(trouble) for trouble in overview.troubles() if trouble.serious is serious]


@pytest.fixture
async def described(q: TaskQ) -> AsyncIterator[str]:
    """A worker that beat once, serves `default`, and says no more."""
    told = {"host": "h", "pid": 7, "queues": ["default"], "concurrency": 3, "rss": 1 << 20}
    leases = q._backend.current().leases
    await leases.register("quiet", msgpack.packb(told), 1, ["default"])
    yield "quiet"
    await leases.reap("quiet", q._backend.current().reap_policy, died=False)


async def test_a_namespace_nobody_used_is_empty_and_healthy(q: TaskQ) -> None:
    overview = await look_at(q)

    assert overview.queues == ()
    assert overview.workers == ()
    assert overview.next_due is None
    assert overview.healthy
    assert {name: rate.last_five for name, rate in overview.rates.items()} == dict.fromkeys(
        module.OUTCOMES, 0.0
    )


async def test_waiting_jobs_are_counted_by_priority_with_the_age_of_the_oldest(q: TaskQ) -> None:
    for priority, count in ((9, 1), (5, 100), (0, 2)):
        await q.enqueue_many(
            [q.remote("t").options(priority=priority).s(number) for number in range(count)]
        )

    queue = await eventually(lambda: aged(q, 0.1), within=5)

    assert queue.waiting == 103
    assert list(queue.by_priority.items()) == [(9, 1), (5, 100), (0, 2)]
    assert queue.oldest is not None
    assert 0.1 <= queue.oldest < 10


async def aged(q: TaskQ, least: float) -> QueueState | None:
    queue = await queue_of(q)
    return queue if (queue.oldest or 0) >= least else None


async def test_a_cancelled_job_does_not_wait_though_its_entry_is_there(q: TaskQ) -> None:
    jobs = await q.enqueue_many([q.remote("t").s(number) for number in range(5)])
    for job in jobs[:4]:
        await job.cancel()
    assert (await queue_of(q)).waiting == 1

    await jobs[4].cancel()

    queue = await queue_of(q)
    assert (queue.waiting, queue.oldest) == (0, None)
    assert (await look_at(q)).healthy


async def test_a_running_job_and_its_worker_are_seen(q: TaskQ) -> None:
    end = asyncio.Event()

    @q.task(name="waits", queue="slow")
    async def waits() -> None:
        await end.wait()

    async with q.worker(["slow", "idle"], concurrency=7) as worker:
        job = await waits.enqueue()
        await eventually(lambda: holds(q, 1))
        overview = await look_at(q)
        end.set()
        await job.result(timeout=5)
        after = await eventually(lambda: holds(q, 0))

    seen = overview.workers[0]
    assert (seen.name, seen.pid, seen.concurrency) == (worker.name, os.getpid(), 7)
    assert seen.queues == ("slow", "idle")
    assert seen.alive
    assert seen.rss > 1 << 20
    assert seen.started_at is not None
    assert abs((overview.taken_at - seen.started_at).total_seconds()) < 30
    slow = next(queue for queue in overview.queues if queue.name == "slow")
    assert (slow.waiting, slow.running, slow.workers) == (0, 1, 1)
    assert next(queue for queue in overview.queues if queue.name == "idle").workers == 1
    assert overview.healthy
    assert after.workers[0].held == 0


async def holds(q: TaskQ, count: int) -> Overview | None:
    overview = await look_at(q)
    return overview if overview.workers and overview.workers[0].held == count else None


async def test_jobs_that_wait_for_nobody_are_a_serious_trouble(q: TaskQ) -> None:
    await q.remote("t").options(queue="images").enqueue()
    async with q.worker(["other"]):
        overview = await look_at(q)

    assert not overview.healthy
    (complaint,) = complaints(overview)
    assert complaint.startswith("queue images: 1 job waits, the oldest for ")
    assert complaint.endswith("and no worker listens: taskq worker -q images")


async def test_scheduled_jobs_are_counted_until_somebody_should_have_moved_them(q: TaskQ) -> None:
    job = await q.remote("t").options(delay=60).enqueue()
    early = await look_at(q)

    q._settings.offset.ms += 75_000
    late = await look_at(q)
    await job.cancel()

    assert (early.scheduled, early.overdue) == (1, 0)
    assert early.next_due == pytest.approx(60, abs=5)
    assert early.healthy
    assert (late.scheduled, late.overdue) == (1, 1)
    assert late.next_due == pytest.approx(-15, abs=5)
    assert complaints(late) == [
        f"1 scheduled job is due, the first for {module.in_words(-late.next_due)}, and no worker "
        "is running: taskq worker"
    ]


async def test_failed_jobs_count_as_long_as_they_are_kept(q: TaskQ) -> None:
    @q.task(name="fails")
    async def fails() -> None:
        raise ValueError("no")

    for _ in range(3):
        await fails.enqueue()
    await q.run_until_empty()
    assert (await queue_of(q)).failed == 3

    q._settings.offset.ms += 8 * DAY_MS

    assert (await queue_of(q)).failed == 0


async def test_rates_are_of_the_last_minute_and_the_last_five(q: TaskQ) -> None:
    @q.task(name="sometimes")
    async def sometimes(number: int) -> None:
        if number == 0:
            raise ValueError("no")

    # A quarter of a minute has passed: no minute ends in the middle of this test.
    now_ms = int((await look_at(q)).taken_at.timestamp() * 1000)
    q._settings.offset.ms += (15_000 - now_ms) % 60_000
    for number in range(4):
        await sometimes.enqueue(number)
    await q.run_until_empty()

    async def counts() -> tuple[float, float]:
        rate = (await look_at(q)).rates["succeeded"]
        return rate.last_minute * 60, rate.last_five * 300

    assert await counts() == pytest.approx((3, 3), abs=0.2)
    assert (await queue_of(q)).rates["failed"].last_minute * 60 == pytest.approx(1, abs=0.1)
    # A minute on, the window has left a quarter of the minute they fell into; two on, all of it.
    q._settings.offset.ms += 60_000
    assert await counts() == pytest.approx((2.25, 3), abs=0.2)
    q._settings.offset.ms += 60_000
    assert await counts() == pytest.approx((0, 3), abs=0.2)
    q._settings.offset.ms += 5 * 60_000
    assert await counts() == (0, 0)


async def test_entries_that_are_no_jobs_are_counted_and_no_serious_trouble(
    q: TaskQ, look: redis.Redis
) -> None:
    @q.task(name="fine")
    async def fine() -> None: ...

    await fine.enqueue()
    look.xadd(q._settings.keys.lane("default", 5), {"garbage": "here"})
    await q.run_until_empty()

    overview = await look_at(q)

    assert overview.malformed == 1
    assert overview.healthy
    assert complaints(overview, serious=False) == [
        "1 entry in the streams was not a job, and is kept aside: taskq doctor"
    ]


async def test_a_worker_is_silent_when_its_last_beat_is_long_ago(
    q: TaskQ, look: redis.Redis, described: str
) -> None:
    await q.send("t")
    assert (await look_at(q)).healthy

    # Its description lives a minute from its last beat: this is what it looks like 10 s after.
    look.pexpire(q._settings.keys.worker_info + described, 50_000)
    overview = await look_at(q)

    (worker,) = overview.workers
    assert not worker.alive
    assert worker.silent == pytest.approx(10, abs=1)
    assert worker.queues == ("default",)
    assert complaints(overview) != []
    assert (await queue_of(q)).workers == 0


async def test_a_silent_worker_that_holds_jobs_is_a_trouble_unless_another_lives(
    q: TaskQ, look: redis.Redis, described: str
) -> None:
    keys = q._settings.keys
    look.delete(keys.worker_info + described)
    look.hset(keys.held, described, 1)
    assert "and holds 1 job, and no other worker" in complaints(await look_at(q))[0]
    look.hset(keys.held, described, 2)

    alone = await look_at(q)
    async with q.worker(["other"]):
        accompanied = await look_at(q)

    assert complaints(alone) == [
        "worker quiet is silent for over a minute and holds 2 jobs, and no other worker is alive: "
        "taskq worker"
    ]
    assert accompanied.healthy
    assert len(complaints(accompanied, serious=False)) == 1


@pytest.mark.parametrize("description", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({})])
async def test_a_description_of_another_version_hides_nothing_else(
    q: TaskQ, look: redis.Redis, described: str, description: bytes
) -> None:
    look.set(q._settings.keys.worker_info + described, description, px=60_000)

    overview = await look_at(q)

    assert overview.workers == (WorkerState(name="quiet", silent=overview.workers[0].silent),)


async def test_what_is_over_the_limit_is_counted_and_nothing_is_concluded_from_the_rest(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    await q.remote("t").enqueue()
    for name in ("w1", "w2", "w3"):
        await q._backend.current().leases.register(name, b"", 1, ["a"])
    monkeypatch.setattr(module, "_MOST_WORKERS", 2)

    overview = await look_at(q)

    assert len(overview.workers) == 2
    assert overview.left_out == 1
    assert overview.healthy


async def test_however_many_queues_there_are_an_unserved_one_is_reported(
    q: TaskQ, look: redis.Redis
) -> None:
    lanes, streams = q._settings.keys.lanes, q._settings.keys.lane_prefix
    look.hset(lanes, mapping={f"tenant-{n}": "5" for n in range(7_000)})
    await q.remote("t").options(queue="unserved").enqueue()

    overview = await look_at(q)

    assert len(overview.queues) == 7_001
    assert [trouble.fix for trouble in overview.troubles()] == ["taskq worker -q unserved"]
    look.delete(lanes, streams + "unserved/5")


async def test_what_came_back_waits_and_is_the_oldest(q: TaskQ) -> None:
    leases = q._backend.current().leases
    await leases.register("w1", b"", 1, ["default"])
    await q.remote("t").enqueue()
    await q._backend.current().consumer("w1").fetch(1, ["default"])
    await q.remote("t").enqueue()
    await leases.reap("w1", q._backend.current().reap_policy)

    queue = await queue_of(q)

    assert (queue.waiting, queue.running, queue.consumers) == (2, 0, 0)
    assert queue.oldest is not None


async def test_a_stream_somebody_deleted_is_an_empty_queue(q: TaskQ, look: redis.Redis) -> None:
    await q.send("t")
    look.delete(q._settings.keys.lane("default", 5))

    assert (await queue_of(q)).waiting == 0


async def test_looking_writes_nothing(q: TaskQ, look: redis.Redis) -> None:
    await q.remote("t").options(queue="images").enqueue()
    await q._backend.current().client.command("PING")
    before = look.info("persistence")["rdb_changes_since_last_save"]

    for _ in range(3):
        await look_at(q)

    assert look.info("persistence")["rdb_changes_since_last_save"] == before


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.34, "340 ms"),
        (1.4, "1 s"),
        (119, "119 s"),
        (180, "3 min"),
        (7300, "2 h"),
        (200_000, "2 d"),
    ],
)
def test_spans_are_said_in_words(seconds: float, words: str) -> None:
    assert module.in_words(seconds) == words

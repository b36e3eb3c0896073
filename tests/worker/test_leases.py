"""Who holds a job: workers that die, that only seem dead, and that come back too late."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Any, Literal

import pytest
import redis

from taskq import (
    AttemptLost,
    ConfigError,
    Job,
    JobFailed,
    JobState,
    Retry,
    RetryLater,
    TaskQ,
    current_job,
)
from taskq.broker.broker import Broker
from taskq.broker.keys import Keys
from taskq.worker import heartbeat as heartbeat
from taskq.worker import session
from taskq.worker.heartbeat import Observer
from tests.support.proxy import Proxy
from tests.support.scripts import last_heartbeat
from tests.support.server import TestServer
from tests.support.waiting import eventually


@pytest.fixture
def quick_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats every 50 ms; a worker is dead after half a second instead of six."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "Observer", functools.partial(Observer, 0.5, silent_after=0.2))


async def fetch_and_die(
    q: TaskQ, name: str, want: int = 100, which: Literal["h", "s"] = "h"
) -> int:
    """What is left of a worker that took jobs and was killed; how many it took."""
    broker = Broker(q._settings)
    await broker.leases.register(name, b"", 1, ["default"])
    taken = len(await broker.consumer(name).fetch(want, ["default"], which))
    await broker.aclose()
    return taken


async def reap(q: TaskQ, name: str) -> None:
    """What a living worker does once it has seen that `name` is dead."""
    broker = Broker(q._settings)
    await broker.leases.reap(name, broker.reap_policy)
    await broker.aclose()


async def beats_of(q: TaskQ, name: str) -> int:
    """How often the worker has beaten, its registration included; 0 for one that is not alive."""
    broker = Broker(q._settings)
    counters = await broker.leases.heartbeats()
    await broker.aclose()
    return int(counters.get(name, 0))


async def is_dead(q: TaskQ, name: str) -> bool:
    return await beats_of(q, name) == 0


async def has_beaten(q: TaskQ, name: str) -> bool:
    return await beats_of(q, name) >= 2


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants the name of a dead worker waits for half a second instead of six."""
    monkeypatch.setattr(session, "LEASE_SECONDS", 0.5)


@pytest.fixture
def slow_to_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its first beat a worker is not told for a minute that it was declared dead."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 60.0)


# ------------------------------------------------------------------------------------- names


async def test_the_name_of_a_living_worker_is_refused_to_another(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> str:
        return current_job().id

    # Given a worker of this name
    async with q.worker(name="same") as first:
        # When another one is started, then it is refused within the next beats
        with pytest.raises(ConfigError, match="a worker with the name 'same' is running"):
            async with asyncio.timeout(5):
                await q.worker(name="same").run()

        # And the first goes on under its name
        job = await one.enqueue()
        assert await job.result(timeout=5) == job.id
        assert first.name == "same"

    # Left in order, the name is free at once
    async with asyncio.timeout(5), q.worker(name="same") as next_one:
        assert next_one.name == "same"


@pytest.mark.usefixtures("short_lease")
async def test_the_name_of_a_dead_worker_is_free_after_its_lease(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return current_job().attempt

    # Given a worker that was killed with a job, and nobody else who would notice
    job = await one.enqueue()
    assert await fetch_and_die(q, "same") == 1

    # When it is started again under its name
    async with q.worker(name="same") as worker:
        # Then the job is given back first: the attempt of the dead one counts as lost
        assert await job.result(timeout=5) == 2
        assert worker.name == "same"
    info = await job.info()
    assert [record.outcome for record in info.attempts] == ["lost", "succeeded"]


# ------------------------------------------------------------------------------ dead workers


@pytest.mark.usefixtures("quick_judgement")
async def test_jobs_of_a_dead_worker_run_elsewhere(
    q: TaskQ, look: redis.Redis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return current_job().attempt

    jobs = await q.enqueue_many([one.s() for _ in range(3)])
    assert await fetch_and_die(q, "dead") == 3

    async with q.worker() as worker:
        assert [await job.result(timeout=10) for job in jobs] == [2, 2, 2]

    # Then the lost attempts are remembered, and count as crashes but not as failures
    info = await jobs[0].info()
    assert [(record.number, record.worker, record.outcome) for record in info.attempts] == [
        (1, "dead", "lost"),
        (2, worker.name, "succeeded"),
    ]
    assert (info.crashes, info.failures) == (1, 0)
    assert worker.tally.reaped == 3
    assert "worker dead is dead: 3 of its jobs go to others" in caplog.text
    assert not look.hexists(Keys(namespace).held, "dead")


@pytest.mark.usefixtures("quick_judgement")
async def test_many_observers_reap_a_worker_once(q: TaskQ) -> None:
    runs: list[int] = []

    @q.task(name="one")
    async def one(number: int) -> None:
        runs.append(number)

    await q.enqueue_many([one.s(number) for number in range(50)])
    await fetch_and_die(q, "dead")

    async with q.worker() as first, q.worker() as second, q.worker() as third:
        await eventually(lambda: len(runs) == 50)
        workers = (first, second, third)
        await eventually(lambda: sum(worker.tally.reaped for worker in workers) >= 50)

    assert sorted(runs) == list(range(50))
    assert sum(worker.tally.reaped for worker in workers) == 50


@pytest.mark.usefixtures("quick_judgement")
async def test_a_worker_that_dies_in_the_middle_of_a_reaping_leaves_it_to_others(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    await fetch_and_die(q, "dead")
    # Given that somebody began to take its jobs back, and got no further
    look.zadd(Keys(namespace).workers, {"dead": -1})

    async with q.worker():
        assert await job.result(timeout=10) == 1

    assert look.zscore(Keys(namespace).workers, "dead") is None


@pytest.mark.usefixtures("quick_judgement")
async def test_a_long_job_stays_with_its_worker_as_long_as_that_lives(q: TaskQ) -> None:
    go = asyncio.Event()

    @q.task(name="long")
    async def long() -> str:
        await go.wait()
        return f"{current_job().worker} {current_job().attempt}"

    job = await long.enqueue()
    async with q.worker() as holder:
        await eventually(lambda: holder.in_flight.running == 1)
        async with q.worker() as observer:
            # Given another worker that has had time to see a dead one reaped
            await fetch_and_die(q, "dead", want=1)
            await eventually(lambda: is_dead(q, "dead"))
            assert observer.tally.reaped == holder.tally.reaped == 0
            go.set()
            assert await job.result(timeout=5) == f"{holder.name} 1"


@pytest.mark.usefixtures("quick_judgement")
async def test_a_job_that_blocks_the_loop_keeps_its_lease_and_is_named_in_the_log(
    q: TaskQ, look: redis.Redis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    beats: list[int] = []

    def count() -> None:
        beats.append(last_heartbeat(look, Keys(namespace)))

    @q.task(name="blocking")
    async def blocking() -> int:
        count()
        # Three times as long as a silent worker is waited for
        time.sleep(1.6)  # noqa: ASYNC251
        count()
        return current_job().attempt

    job = await blocking.enqueue()
    async with q.worker():
        assert await job.result(timeout=20) == 1

    # Then its worker beat all the while, from its own thread
    assert beats[1] - beats[0] > 10
    [warning] = [record for record in caplog.records if "blocked the event loop" in record.message]
    assert warning.levelno == logging.WARNING
    line = blocking.function.__code__.co_firstlineno + 4
    assert f"task blocking (job {job.id}) has blocked the event loop for 1." in warning.message
    assert f"{__file__}:{line};" in warning.message
    assert "Make it a plain def" in warning.message


# ---------------------------------------------------------------------------------- the fence


async def test_a_worker_declared_dead_stops_its_jobs_and_goes_on_under_a_new_name(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)
    started, interrupted = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> str:
        if current_job().attempt > 1:
            return current_job().worker
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()
        return ""

    job = await wait.enqueue()
    async with q.worker(concurrency=1) as worker:
        await started.wait()
        old = worker.name
        await reap(q, old)

        # Then its job is interrupted, and runs again: here, under the worker's new name
        await asyncio.wait_for(interrupted.wait(), 5)
        assert await job.result(timeout=5) == worker.name
        assert worker.name != old
        assert worker.tally.lost == 1

    assert "this worker was declared dead" in caplog.text
    assert f"continuing as {worker.name}" in caplog.text
    info = await job.info()
    assert [(record.outcome, record.worker) for record in info.attempts] == [
        ("lost", old),
        ("succeeded", worker.name),
    ]


async def test_a_late_outcome_is_refused(q: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait", retry=Retry(max_attempts=5, backoff=0))
    async def wait() -> str:
        if current_job().attempt > 1:
            return "second"
        started.set()
        await go.wait()
        return "first"

    job = await wait.enqueue()
    async with q.worker(concurrency=1) as late:
        await started.wait()
        # Given that its job was given away, and that another worker has run it
        await reap(q, late.name)
        async with q.worker() as other:
            assert await job.result(timeout=5) == "second"
        go.set()
        await eventually(lambda: late.tally.fenced + late.tally.lost)

    # Then what the first one made of it changes nothing
    info = await job.info()
    assert (info.state, info.result) == (JobState.SUCCEEDED, "second")
    assert [(record.number, record.outcome) for record in info.attempts] == [
        (1, "lost"),
        (2, "succeeded"),
    ]
    assert info.worker == other.name


@pytest.mark.parametrize(
    ("raised", "attempts"),
    [(None, 1), (OSError("late"), 1), (OSError("late"), 2), (RetryLater(0), 1)],
    ids=["success", "failure", "retry", "retry later"],
)
@pytest.mark.usefixtures("slow_to_hear")
async def test_no_kind_of_late_outcome_passes_the_fence(
    q: TaskQ, raised: Exception | None, attempts: int
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait", retry=Retry(max_attempts=attempts, backoff=0))
    async def wait() -> str:
        started.set()
        await go.wait()
        if raised is not None:
            raise raised
        return "late"

    job = await wait.enqueue()
    async with q.worker(concurrency=1) as late:
        await started.wait()
        await eventually(lambda: has_beaten(q, late.name))
        await reap(q, late.name)
        # Given that its job is held by another one now
        assert await fetch_and_die(q, "new-holder") == 1
        go.set()
        await eventually(lambda: late.tally.fenced == 1)

        info = await job.info()
        assert (info.state, info.worker, info.attempt) == (JobState.RUNNING, "new-holder", 2)
        assert (info.result, info.failures) == (None, 0)

    await job.cancel()
    await reap(q, "new-holder")
    assert await q.run_until_empty() == 0


@pytest.mark.usefixtures("slow_to_hear")
async def test_progress_of_an_attempt_that_lost_its_job_is_refused(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    refused: list[str] = []

    @q.task(name="wait")
    async def wait() -> None:
        if current_job().attempt > 1:
            return
        started.set()
        await go.wait()
        try:
            await current_job().progress(1, 2)
        except AttemptLost as error:
            refused.append(str(error))

    job = await wait.enqueue()
    async with q.worker(concurrency=1) as worker:
        await started.wait()
        await eventually(lambda: has_beaten(q, worker.name))
        await reap(q, worker.name)
        go.set()
        await eventually(lambda: refused)

    assert f"attempt 1 of job {job.id} has lost it" in refused[0]
    assert (await job.info()).progress is None
    await q.run_until_empty()


async def test_the_fence_a_job_sees_grows_with_each_run(q: TaskQ) -> None:
    fences: list[int] = []

    @q.task(name="fenced", retry=Retry(max_attempts=3, backoff=0))
    async def fenced() -> None:
        fences.append(current_job().fence)
        raise OSError("again")

    await fenced.enqueue()
    # Given that the first run was lost with its worker
    await fetch_and_die(q, "dead")
    await reap(q, "dead")
    await q.run_until_empty()

    assert fences == [2, 3, 4]


# -------------------------------------------------------------------------- stranded deliveries


async def test_jobs_stranded_by_a_lost_reply_are_found_and_run(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)

    @q.task(name="one")
    async def one() -> int:
        return current_job().attempt

    @q.task(name="ready")
    async def ready() -> None: ...

    async with q.worker(concurrency=2) as worker:
        await (await ready.enqueue()).result(timeout=5)
        # Given jobs handed to this worker in a reply that never arrived
        broker = Broker(q._settings)
        consumer = broker.consumer(worker.name)
        jobs: list[Job[int]] = []
        while len(jobs) < 3:
            new = await q.enqueue_many([one.s(), one.s(), one.s()])
            taken = {delivery.id for delivery in await consumer.fetch(10, ["default"])}
            jobs += [job for job in new if job.id in taken]
        await broker.aclose()

        assert {await job.result(timeout=5) for job in jobs} == {1}
        assert worker.tally.adopted == len(jobs)

    assert "whose delivery was lost with its reply" in caplog.text


async def test_what_is_on_its_way_is_not_taken_for_stranded(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.01)
    runs: list[int] = []

    @q.task(name="note")
    async def note(number: int) -> None:
        runs.append(number)

    await q.enqueue_many([note.s(number) for number in range(3000)])
    async with q.worker(concurrency=20) as worker:
        await eventually(lambda: len(runs) >= 3000)
        await eventually(lambda: worker.in_flight.known == 0)

    assert sorted(runs) == list(range(3000))
    assert worker.tally.adopted == 0


# -------------------------------------------------------------------------------------- poison


async def test_a_job_that_kills_its_worker_three_times_is_not_tried_again(q: TaskQ) -> None:
    runs: list[str] = []

    @q.task(name="poison", retry=Retry(max_attempts=9, backoff=0))
    async def poison() -> None:
        runs.append("poison")

    @q.task(name="innocent")
    async def innocent() -> int:
        return current_job().attempt

    job = await poison.enqueue()
    bystander = await innocent.enqueue()
    for number in range(2):
        assert await fetch_and_die(q, f"dead{number}") == 2
        await reap(q, f"dead{number}")
    # Given that the third worker got the poison alone, as two suspects never run together
    assert await fetch_and_die(q, "dead2") == 0
    assert await fetch_and_die(q, "dead2", which="s") == 1
    await reap(q, "dead2")

    with pytest.raises(JobFailed, match="3 workers died while they ran this job") as caught:
        await job.result(timeout=5)
    assert caught.value.error_type == "Poison"
    info = await job.info()
    assert (info.state, info.crashes) == (JobState.FAILED, 3)
    assert [record.outcome for record in info.attempts] == ["lost", "lost", "lost"]

    # Then the others are none the worse for it
    await q.run_until_empty()
    assert await bystander.result(timeout=5) == 3
    assert runs == []


async def make_suspects(q: TaskQ) -> None:
    """Two workers die with what is queued now."""
    for number in range(2):
        await fetch_and_die(q, f"dead{number}")
        await reap(q, f"dead{number}")


async def test_innocent_suspects_run_together_and_the_rest_of_the_queue_goes_on(q: TaskQ) -> None:
    gate = asyncio.Barrier(25)

    @q.task(name="innocent")
    async def innocent() -> None:
        # Half of those that crashed together run together: one by one they would never pass
        await gate.wait()

    @q.task(name="other")
    async def other() -> str:
        return "in time"

    jobs = await q.enqueue_many([innocent.s() for _ in range(50)])
    await make_suspects(q)

    async with q.worker(concurrency=100):
        # Given that suspects run: an unrelated job does not wait for them
        assert await (await other.enqueue()).result(timeout=5) == "in time"
        for job in jobs:
            await job.result(timeout=20)

    assert {(await job.info()).crashes for job in jobs} == {2}


async def test_beside_a_suspect_that_takes_long_others_run(q: TaskQ) -> None:
    release = asyncio.Event()

    @q.task(name="long")
    async def long() -> None:
        await release.wait()

    @q.task(name="short")
    async def short() -> int:
        return 1

    slow = await long.enqueue()
    quick = await short.enqueue()
    await make_suspects(q)

    async with q.worker():
        assert await quick.result(timeout=10) == 1
        assert await slow.status() in (JobState.RUNNING, JobState.QUEUED)
        release.set()
        await slow.result(timeout=10)


async def test_a_suspect_that_was_cancelled_never_runs(q: TaskQ) -> None:
    ran: list[int] = []

    @q.task(name="suspect")
    async def suspect() -> None:
        ran.append(1)

    job = await suspect.enqueue()
    await make_suspects(q)
    assert await job.cancel() is True

    await q.run_until_empty()

    assert ran == []


async def test_a_suspect_runs_though_its_worker_is_busy(q: TaskQ) -> None:
    over = False

    @q.task(name="suspect")
    async def suspect() -> str:
        return "ran"

    @q.task(name="busy")
    async def busy(seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not over:
            await busy.enqueue(0.8)

    job = await suspect.enqueue()
    for number in range(2):
        await fetch_and_die(q, f"dead{number}")
        await reap(q, f"dead{number}")
    # Given jobs that follow each other, and take longer than what waits for a slot is kept
    for seconds in (0.3, 0.55, 0.8):
        await busy.enqueue(seconds)

    async with q.worker(concurrency=4) as worker:
        assert await job.result(timeout=20) == "ran"
        assert worker.tally.released == 0
        over = True
    await q.run_until_empty()


@pytest.mark.usefixtures("quick_judgement")
async def test_a_fetch_that_is_answered_to_a_dead_worker_gives_it_nothing(
    server: TestServer, namespace: str
) -> None:
    """The answer comes after the worker was told, and has begun again under another name."""
    async with Proxy(server.socket) as proxy:
        q = TaskQ(proxy.url, namespace=namespace)
        runs: list[str] = []

        @q.task(name="note")
        async def note() -> None:
            runs.append(current_job().worker)

        async with q.worker() as worker:
            old, consumer = worker.name, worker._session.consumer
            fetch, held_back = consumer.fetch, asyncio.Event()

            async def late(*args: Any, **kwargs: Any) -> Any:
                jobs = await fetch(*args, **kwargs)
                if jobs:
                    await held_back.wait()
                return jobs

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(consumer, "fetch", late)
                # (one alone would be handed over)
                job, _ = await q.enqueue_many([note.s(), note.s()])
                await eventually(lambda: is_running(job))
                await reap(q, old)
                await eventually(lambda: worker.name != old)
                held_back.set()
                await job.result(timeout=10)

        await q.run_until_empty()
        assert len(runs) == 2
        assert old not in runs
        assert [record.outcome for record in (await job.info()).attempts] == ["lost", "succeeded"]
        await q.aclose()


async def is_running(job: Job[Any]) -> bool:
    return await job.status() is JobState.RUNNING


@pytest.mark.usefixtures("quick_judgement")
async def test_burst_waits_for_jobs_of_the_dead_and_not_for_those_of_the_living(
    q: TaskQ, other: TaskQ
) -> None:
    """It may be the only worker that ever comes by."""
    go = asyncio.Event()

    @q.task(name="one")
    async def one() -> int:
        return current_job().attempt

    @other.task(name="wait")
    async def wait() -> None:
        await go.wait()

    async with other.worker(["other"]) as living:
        await wait.options(queue="other").enqueue()
        await eventually(lambda: living.in_flight.running == 1)
        job = await one.enqueue()
        await fetch_and_die(q, "dead")

        assert await q.run_until_empty() == 1

        assert await job.result(timeout=5) == 2
        assert living.in_flight.running == 1
        go.set()


async def test_what_is_handed_out_twice_runs_once(q: TaskQ) -> None:
    """A server that lost what it had written last does so, under the number it had given."""
    started, go = asyncio.Semaphore(0), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> str:
        started.release()
        await go.wait()
        return "done"

    async with q.worker() as worker:
        job = await wait.enqueue()
        await started.acquire()
        [delivery] = [run.delivery for run in worker.in_flight.slots._running.values()]

        worker.in_flight.take([delivery])

        assert (worker.in_flight.running, worker.in_flight.known) == (1, 1)
        go.set()
        assert await job.result(timeout=5) == "done"
    assert started.locked()
    assert worker.tally.leaked == worker.tally.fenced == 0

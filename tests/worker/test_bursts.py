"""Working until nothing is due: for tests and one-shot scripts."""

from __future__ import annotations

import asyncio

import pytest
import redis

from taskq import JobState, Retry, TaskQ, current_job


async def test_it_runs_what_is_queued_and_says_how_much(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    assert await q.run_until_empty() == 0
    jobs = await q.enqueue_many([one.s() for _ in range(250)])

    assert await q.run_until_empty(concurrency=10) == 250
    assert {await job.status() for job in jobs} == {JobState.SUCCEEDED}
    assert await q.run_until_empty() == 0


async def test_it_runs_what_its_jobs_enqueue(q: TaskQ) -> None:
    @q.task(name="countdown")
    async def countdown(number: int) -> None:
        if number:
            await countdown.enqueue(number - 1)

    await countdown.enqueue(5)

    assert await q.run_until_empty() == 6


async def test_it_waits_for_jobs_that_take_their_time(q: TaskQ) -> None:
    @q.task(name="slow")
    async def slow() -> str:
        await asyncio.sleep(0.2)
        return "done"

    @q.task(name="blocking")
    def blocking() -> str:
        return asyncio.run(asyncio.sleep(0.2, "done"))

    jobs = [await slow.enqueue(), await blocking.enqueue()]
    await q.run_until_empty()

    assert [await job.status() for job in jobs] == [JobState.SUCCEEDED] * 2


async def test_it_leaves_alone_what_is_not_due(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    now = await one.enqueue()
    later = await one.options(delay=3600).enqueue()

    assert await q.run_until_empty() == 1
    assert [await now.status(), await later.status()] == [JobState.SUCCEEDED, JobState.SCHEDULED]
    await later.cancel()


async def test_it_promotes_what_became_due(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    jobs = await q.enqueue_many([one.options(delay=60).s() for _ in range(2500)])
    q._settings.offset.ms += 61_000

    # More than are promoted at once
    assert await q.run_until_empty() == 2500
    assert await jobs[-1].status() is JobState.SUCCEEDED


async def test_it_runs_retries_that_need_no_pause(q: TaskQ) -> None:
    @q.task(name="flaky", retry=Retry(max_attempts=4, backoff=0))
    async def flaky() -> int:
        if current_job().attempt < 4:
            raise OSError("busy")
        return current_job().attempt

    job = await flaky.enqueue()

    assert await q.run_until_empty() == 4
    assert await job.result(timeout=5) == 4


async def test_it_leaves_retries_that_wait(q: TaskQ) -> None:
    @q.task(name="flaky", retry=Retry(max_attempts=4, backoff=60, jitter=False))
    async def flaky() -> None:
        raise OSError("busy")

    job = await flaky.enqueue()

    assert await q.run_until_empty() == 1
    assert await job.status() is JobState.SCHEDULED
    await job.cancel()


async def test_a_failed_job_does_not_end_it(q: TaskQ) -> None:
    @q.task(name="broken")
    async def broken() -> None:
        raise OSError("no disk")

    @q.task(name="one")
    async def one() -> int:
        return 1

    await q.enqueue_many([broken.s(), one.s(), broken.s(), one.s()])

    assert await q.run_until_empty(concurrency=1) == 4


async def test_it_goes_on_after_its_connection_was_cut(q: TaskQ, look: redis.Redis) -> None:
    cut = False

    @q.task(name="cut")
    async def cut_connections() -> None:
        nonlocal cut
        if not cut:
            cut = True
            for client in look.client_list():
                if client["name"] in ("taskq-worker", "taskq-heart"):
                    look.client_kill_filter(_id=client["id"])

    @q.task(name="one")
    async def one() -> int:
        return 1

    jobs = await q.enqueue_many([cut_connections.s(), *(one.s() for _ in range(20))])
    await asyncio.wait_for(q.run_until_empty(concurrency=1), 20)

    assert {await job.status() for job in jobs} == {JobState.SUCCEEDED}


async def test_two_at_once_share_the_work(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        await asyncio.sleep(0)
        return 1

    await q.enqueue_many([one.s() for _ in range(400)])
    counts = await asyncio.gather(
        q.run_until_empty(concurrency=5), q.run_until_empty(concurrency=5)
    )

    assert sum(counts) == 400


async def test_with_nobody_to_ask_it_raises(tmp_path: object) -> None:
    q = TaskQ(f"unix://{tmp_path}/no-server", enqueue_deadline=0.1)

    with pytest.raises(ConnectionError, match="cannot reach"):
        await q.run_until_empty(["default"])

"""Waiting for a result: before and after the end, by many, from elsewhere, and in vain."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from taskq import (
    ConfigError,
    JobFailed,
    JobNotFound,
    JobState,
    ResultExpired,
    ResultNotKept,
    ResultTimeout,
    TaskQ,
)
from taskq.broker.keys import Keys
from tests.support.server import TestServer
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Size:
    width: int


async def test_who_waits_is_told_when_the_job_ends(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    waiting = asyncio.create_task(job.result(timeout=10))
    async with q.worker():
        assert await waiting == 1


async def test_a_result_can_be_read_again_and_again_and_by_any_handle(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> dict[str, int]:
        return {"a": 1}

    job = await one.enqueue()
    await q.run_until_empty()

    handles = [job, job, q.job(job.id)]
    assert [await handle.result() for handle in handles] == [{"a": 1}] * 3


async def test_a_handle_from_an_id_of_a_task_gives_what_its_function_returns(q: TaskQ) -> None:
    @q.task(name="measure")
    async def measure(width: int) -> Size:
        return Size(width)

    job = await measure.enqueue(3)
    await q.run_until_empty()

    assert await measure.job(job.id).result(timeout=5) == Size(3)
    assert (await measure.job(job.id).info()).result == Size(3)
    assert await q.job(job.id).result(timeout=5) == {"width": 3}
    assert measure.job(job.id).created is None
    with pytest.raises(ConfigError, match="job id"):
        measure.job("no id")


async def test_many_wait_for_one_job_and_one_for_many(q: TaskQ) -> None:
    go = asyncio.Event()

    @q.task(name="wait")
    async def wait(number: int) -> int:
        await go.wait()
        return number

    jobs = await q.enqueue_many([wait.s(number) for number in range(300)])
    shared = [jobs[0].result(timeout=20) for _ in range(300)]
    waiting = asyncio.gather(*shared, *(job.result(timeout=20) for job in jobs))
    async with q.worker(concurrency=300):
        await eventually(lambda: _running(q, jobs[-1].id))
        go.set()
        results = await waiting

    assert results == [0] * 300 + list(range(300))


async def _running(q: TaskQ, job_id: str) -> bool:
    return await q.job(job_id).status() is JobState.RUNNING


async def test_a_result_is_pushed_to_who_waits_and_not_polled_for(
    q: TaskQ, look: redis.Redis
) -> None:
    go = asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        await go.wait()

    @q.task(name="open")
    async def opening() -> None:
        go.set()

    jobs = await q.enqueue_many([wait.s() for _ in range(5)])
    waiting = [asyncio.create_task(job.result(timeout=10)) for job in jobs]
    async with q.worker():
        await eventually(lambda: _running(q, jobs[-1].id))
        before = look.info("commandstats")["cmdstat_hmget"]["calls"]
        await opening.enqueue()
        await asyncio.gather(*waiting)
        asked = look.info("commandstats")["cmdstat_hmget"]["calls"] - before

    # One look at each job by the fetch and by the script that ends it, none by those who wait
    assert asked <= 12


WAITER = """
import asyncio, sys
from taskq import TaskQ

async def main():
    async with TaskQ(sys.argv[1], namespace=sys.argv[2]) as q:
        job = q.job(sys.argv[3])
        print("state", await job.status(), flush=True)
        print("result", await job.result(timeout=20), flush=True)

asyncio.run(main())
"""


async def test_once_a_result_was_waited_for_the_next_enqueues_carry_the_wait(
    q: TaskQ, look: redis.Redis
) -> None:
    """Whoever waits for one result of a task waits for the next: its end comes unasked."""

    @q.task(name="one")
    async def one() -> int:
        return 1

    client, asked = q._backend.current().client, 0
    script_of = client.script

    async def counting(script: Any, *call: Any) -> Any:
        nonlocal asked
        asked += script.name == "wait"
        return await script_of(script, *call)

    client.script = counting  # type: ignore[method-assign]
    async with q.worker():
        assert [await (await one.enqueue()).result(timeout=10) for _ in range(20)] == [1] * 20
    assert asked == 1

    jobs = [await one.enqueue() for _ in range(10)]
    waits = [look.hexists(q._settings.keys.job(job.id), "n") for job in jobs]
    assert waits == [True] * 8 + [False] * 2, "nobody waits: the enqueues no longer say so"
    async with q.worker():
        assert [await job.result(timeout=10) for job in jobs] == [1] * 10


async def test_other_processes_wait_for_the_same_job(
    q: TaskQ, server: TestServer, namespace: str
) -> None:
    @q.task(name="sum")
    async def total(*numbers: int) -> int:
        return sum(numbers)

    job = await total.enqueue(1, 2, 3)
    waiters = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WAITER, server.url, namespace, job.id,
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for waiter in waiters:
        assert waiter.stdout is not None
        assert await waiter.stdout.readline() == b"state queued\n"

    await q.run_until_empty()

    for waiter in waiters:
        output, _ = await waiter.communicate()
        assert output == b"result 6\n"
        assert waiter.returncode == 0


async def test_giving_up_waiting_says_why_and_leaves_the_job_alone(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait", queue="slow")
    async def wait() -> int:
        started.set()
        await go.wait()
        return 1

    job = await wait.enqueue()

    # Given no worker
    with pytest.raises(ResultTimeout) as caught:
        await job.result(timeout=0.02)
    assert "it is queued. Is a worker running? taskq worker -q slow" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.job_id == job.id

    # Given one that is busy with it
    async with q.worker():
        await started.wait()
        with pytest.raises(ResultTimeout, match=r"within 0\.02 s; it is running, attempt 1"):
            await job.result(timeout=0.02)
        go.set()
        assert await job.result(timeout=5) == 1

    # Given one that is not due yet
    later = await wait.options(delay=60).enqueue()
    with pytest.raises(ResultTimeout, match="it is scheduled"):
        await later.result(timeout=0.02)
    await later.cancel()


async def test_a_wait_that_is_cancelled_leaves_the_others(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    impatient, patient = [asyncio.create_task(job.result(timeout=10)) for _ in range(2)]
    await asyncio.sleep(0)
    impatient.cancel()
    await q.run_until_empty()

    assert await patient == 1
    with pytest.raises(asyncio.CancelledError):
        await impatient


@pytest.mark.parametrize("size", [1_000, 100_000, 1_000_000])
async def test_large_results_arrive(q: TaskQ, size: int) -> None:
    @q.task(name="blob")
    async def blob(size: int) -> bytes:
        return b"x" * size

    job = await blob.enqueue(size)
    waiting = asyncio.create_task(job.result(timeout=10))
    await asyncio.sleep(0)
    await q.run_until_empty()

    assert await waiting == b"x" * size
    assert await q.job(job.id).result(timeout=5) == b"x" * size


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_result_that_is_not_kept_still_reaches_who_waits_for_it(
    q: TaskQ, look: redis.Redis, namespace: str, size: int
) -> None:
    go = asyncio.Event()

    @q.task(name="blob", result_ttl=0)
    async def blob(size: int) -> str:
        await go.wait()
        return "x" * size

    job = await blob.enqueue(size)
    async with q.worker():
        waiting = asyncio.create_task(job.result(timeout=5))
        await eventually(lambda: look.hget(Keys(namespace).job(job.id), "n"))
        go.set()
        assert await waiting == "x" * size

    # And nothing is left of it
    assert not look.exists(Keys(namespace).job(job.id))
    with pytest.raises(ResultNotKept, match="it is over and kept no result"):
        await job.result(timeout=5)
    with pytest.raises(ResultNotKept):
        await job.status()
    with pytest.raises(ResultNotKept):
        await job.info()
    with pytest.raises(ResultNotKept):
        await job.cancel()


async def test_failures_are_kept_also_where_results_are_not(q: TaskQ) -> None:
    @q.task(name="broken", result_ttl=0)
    async def broken() -> None:
        raise OSError("no disk")

    job = await broken.enqueue()
    await q.run_until_empty()

    with pytest.raises(JobFailed, match="no disk"):
        await job.result(timeout=5)


async def test_a_result_that_was_kept_and_is_gone_is_told_from_one_that_never_was(
    q: TaskQ,
) -> None:
    @q.task(name="one", result_ttl=600)
    async def one() -> int:
        return 1

    job = await one.enqueue()
    await q.run_until_empty()
    q._settings.offset.ms += 599_000
    assert await job.result(timeout=5) == 1
    q._settings.offset.ms += 2_000

    # For a while its record says that there was one, to anybody
    for handle in (job, q.job(job.id)):
        with pytest.raises(ResultExpired, match="its result has expired"):
            await handle.result(timeout=5)
        with pytest.raises(ResultExpired):
            await handle.status()
    # And what never was is not found
    with pytest.raises(JobNotFound, match="the server does not know job") as caught:
        await q.job("no-such-job").result(timeout=5)
    assert not isinstance(caught.value, (ResultExpired, ResultNotKept))


async def test_after_its_record_a_handle_knows_that_there_was_a_job_not_that_it_is_over(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    await q.run_until_empty()
    look.delete(Keys(namespace).job(job.id))

    for handle, says in ((job, "has no record of job"), (q.job(job.id), "does not know job")):
        with pytest.raises(JobNotFound, match=says) as caught:
            await handle.result(timeout=5)
        assert not isinstance(caught.value, ResultExpired)


async def test_info_tells_of_a_job_as_long_as_its_record_is_there(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one", result_ttl=600)
    async def one() -> int:
        return 1

    job = await one.enqueue()
    await q.run_until_empty()
    assert (await job.info()).result == 1
    q._settings.offset.ms += 601_000

    info = await job.info()
    assert (info.state, info.result) == (JobState.SUCCEEDED, None)
    look.delete(Keys(namespace).job(job.id))
    with pytest.raises(JobNotFound, match="has no record of job"):
        await job.info()


async def test_an_unknown_job_has_no_state_no_info_and_nothing_to_cancel(q: TaskQ) -> None:
    job = q.job("no-such-job")

    for question in (job.status, job.info, job.cancel, job.result):
        with pytest.raises(JobNotFound, match="'no-such-job'") as caught:
            await question()
        assert caught.value.job_id == "no-such-job"


async def test_a_failure_shows_the_worker_s_traceback(q: TaskQ) -> None:
    @q.task(name="resize")
    async def resize(path: str) -> None:
        raise FileNotFoundError(f"no picture {path}") from OSError("disk")

    job = await resize.enqueue("a.png")
    await q.run_until_empty()

    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=5)
    text = str(caught.value)
    assert text.startswith(f"job {job.id} failed: FileNotFoundError: no picture a.png")
    assert "On the worker:" in text
    assert "OSError: disk" in text
    assert f'File "{__file__}"' in text
    assert "taskq/execution/runner.py" not in text


async def test_an_id_is_free_again_once_its_result_has_expired(q: TaskQ) -> None:
    @q.task(name="answer", result_ttl=10)
    async def answer() -> int:
        return 42

    first = await answer.options(id="the-answer").enqueue()
    await q.run_until_empty()
    assert (await answer.options(id="the-answer").enqueue()).created is False

    q._settings.offset.ms += 11_000

    again = await answer.options(id="the-answer").enqueue()
    assert (first.created, again.created) == (True, True)
    await q.run_until_empty()
    assert await again.result(timeout=5) == 42

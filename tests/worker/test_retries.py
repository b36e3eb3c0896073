"""Another attempt: when, how often, and what is remembered of those before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import redis

from taskq import (
    Job,
    JobFailed,
    JobState,
    Reject,
    ResultTimeout,
    Retention,
    Retry,
    RetryLater,
    TaskQ,
    current_job,
)
from taskq.broker.keys import Keys
from tests.worker import sample_tasks

SECOND = 1000
"""A second of the server's clock, which `q._settings.offset.ms` moves."""


async def test_without_a_policy_there_is_one_attempt(q: TaskQ) -> None:
    runs: list[int] = []

    @q.task(name="broken")
    async def broken() -> None:
        runs.append(current_job().attempt)
        raise OSError("no disk")

    job = await broken.enqueue()
    await q.run_until_empty()

    assert runs == [1]
    assert await job.status() is JobState.FAILED
    with pytest.raises(JobFailed, match="no disk") as caught:
        await job.result(timeout=5)
    assert caught.value.error_type == "OSError"
    assert caught.value.error_text == "no disk"
    assert "in broken" in caught.value.traceback
    assert caught.value.job_id == job.id


async def test_a_number_of_retries_comes_on_top_of_the_first_attempt(q: TaskQ) -> None:
    runs: list[tuple[int, int, int]] = []

    @q.task(name="broken", retry=2)
    async def broken() -> None:
        job = current_job()
        runs.append((job.attempt, job.failures, job.max_attempts))
        raise OSError("no disk")

    job = await broken.enqueue()
    for _ in range(5):
        await q.run_until_empty()
        q._settings.offset.ms += 600 * SECOND

    assert runs == [(1, 0, 3), (2, 1, 3), (3, 2, 3)]
    info = await job.info()
    assert (info.state, info.attempt, info.failures) == (JobState.FAILED, 3, 3)


async def test_a_job_that_recovers_succeeds(q: TaskQ) -> None:
    @q.task(name="flaky", retry=Retry(max_attempts=3, backoff=0))
    async def flaky() -> int:
        if current_job().attempt < 3:
            raise OSError("busy")
        return current_job().attempt

    job = await flaky.enqueue()
    assert await q.run_until_empty() == 3

    assert await job.result(timeout=5) == 3
    info = await job.info()
    assert info.state is JobState.SUCCEEDED
    assert (info.error_type, info.error) == (None, None)


async def test_pauses_grow_until_their_cap(q: TaskQ) -> None:
    @q.task(name="broken", retry=Retry(max_attempts=5, backoff=10, max_delay=60, jitter=False))
    async def broken() -> None:
        raise OSError("no disk")

    job = await broken.enqueue()
    pauses: list[float] = []
    for _ in range(4):
        assert await q.run_until_empty() == 1
        info = await job.info()
        assert info.state is JobState.SCHEDULED
        ended = info.attempts[-1].ended
        assert info.due_at is not None
        assert ended is not None
        pauses.append((info.due_at - ended).total_seconds())

        # Nothing happens before the pause is over
        q._settings.offset.ms += int(pauses[-1] * SECOND) - SECOND
        assert await q.run_until_empty() == 0
        q._settings.offset.ms += 2 * SECOND

    assert pauses == [10, 20, 40, 60]
    assert await q.run_until_empty() == 1
    assert await job.status() is JobState.FAILED


async def test_jitter_spreads_jobs_that_failed_together(q: TaskQ) -> None:
    @q.task(name="broken", retry=Retry(max_attempts=2, backoff=100))
    async def broken() -> None:
        raise OSError("no disk")

    jobs = await q.enqueue_many([broken.s() for _ in range(40)])
    await q.run_until_empty()

    pauses: list[float] = []
    for job in jobs:
        info = await job.info()
        assert info.due_at is not None
        assert info.attempts[-1].ended is not None
        pauses.append((info.due_at - info.attempts[-1].ended).total_seconds())
    assert all(0 <= pause <= 100 for pause in pauses)
    assert max(pauses) - min(pauses) > 20
    assert len(set(pauses)) > 30
    for job in jobs:
        await job.cancel()


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(ConnectionError("reset"), 3), (FileNotFoundError("gone"), 1), (ValueError("no"), 1)],
    ids=["wanted", "never", "not wanted"],
)
async def test_only_wanted_errors_are_retried(q: TaskQ, error: Exception, attempts: int) -> None:
    policy = Retry(max_attempts=3, backoff=0, on=(OSError,), never=(FileNotFoundError,))

    @q.task(name="broken", retry=policy)
    async def broken() -> None:
        raise error

    job = await broken.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert (info.state, info.attempt) == (JobState.FAILED, attempts)


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        (Retry(max_attempts=2, backoff=0, on=(ValueError,)), 2),
        (Retry(max_attempts=2, backoff=0, on=(ArithmeticError,)), 1),
        (Retry(max_attempts=2, backoff=0, never=(ValueError,)), 1),
    ],
    ids=["wanted", "not wanted", "never"],
)
async def test_errors_from_a_process_are_told_apart_by_their_names(
    q: TaskQ, policy: Retry, attempts: int
) -> None:
    tasks = sample_tasks.register(q, retry=policy)

    job = await tasks.raise_named.enqueue("ValueError")
    await q.run_until_empty()

    info = await job.info()
    assert (info.attempt, info.error_type, info.error) == (attempts, "ValueError", "no number")
    assert "in raise_named" in (info.traceback or "")


async def test_every_attempt_is_remembered(q: TaskQ) -> None:
    @q.task(name="flaky", retry=Retry(max_attempts=3, backoff=60, jitter=False))
    async def flaky() -> str:
        if current_job().attempt < 3:
            raise OSError(f"busy {current_job().attempt}")
        return "done"

    job = await flaky.enqueue()
    for _ in range(3):
        await q.run_until_empty()
        q._settings.offset.ms += 1000 * SECOND
    info = await job.info()

    told = [(record.number, record.outcome, record.error) for record in info.attempts]
    assert told == [
        (1, "error", "OSError: busy 1"),
        (2, "error", "OSError: busy 2"),
        (3, "succeeded", ""),
    ]
    # Each with its worker, which was another one each time
    assert len({record.worker for record in info.attempts}) == 3
    # And its times, one after the other
    moments = [moment for record in info.attempts for moment in (record.started, record.ended)]
    assert None not in moments
    assert moments == sorted(moment for moment in moments if moment)
    first, second = info.attempts[:2]
    assert first.ended is not None
    assert second.started is not None
    assert second.started - first.ended >= timedelta(seconds=60)


async def test_between_its_attempts_a_job_is_scheduled_and_waited_for(q: TaskQ) -> None:
    @q.task(name="flaky", retry=Retry(max_attempts=2, backoff=60))
    async def flaky() -> str:
        if current_job().attempt == 1:
            raise OSError("busy")
        return "done"

    job = await flaky.enqueue()
    await q.run_until_empty()

    assert await job.status() is JobState.SCHEDULED
    with pytest.raises(ResultTimeout, match="it is scheduled, attempt 1"):
        await job.result(timeout=0.02)
    q._settings.offset.ms += 120 * SECOND
    await q.run_until_empty()
    assert await job.result(timeout=5) == "done"


async def test_a_retry_keeps_its_queue_priority_and_headers(q: TaskQ) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    @q.task(name="flaky", retry=Retry(max_attempts=2, backoff=0))
    async def flaky() -> None:
        seen.append((current_job().queue, current_job().headers))
        raise OSError("busy")

    job = await flaky.options(queue="slow", priority=2, headers={"a": "b"}).enqueue()
    await q.run_until_empty(["slow"])

    assert seen == [("slow", {"a": "b"})] * 2
    assert (await job.info()).priority == 2


async def test_retry_later_asks_for_another_attempt_and_uses_up_no_retry(q: TaskQ) -> None:
    runs: list[tuple[int, int]] = []

    @q.task(name="poll", retry=1)
    async def poll() -> str:
        runs.append((current_job().attempt, current_job().failures))
        if len(runs) < 6:
            raise RetryLater(timedelta(minutes=5), "not ready")
        return "ready"

    job = await poll.enqueue()
    for _ in range(5):
        assert await q.run_until_empty() == 1
        assert await job.status() is JobState.SCHEDULED
        q._settings.offset.ms += 290 * SECOND
        assert await q.run_until_empty() == 0
        q._settings.offset.ms += 20 * SECOND
    await q.run_until_empty()

    assert await job.result(timeout=5) == "ready"
    assert runs == [(number, 0) for number in range(1, 7)]
    info = await job.info()
    assert [record.outcome for record in info.attempts] == ["retry asked"] * 5 + ["succeeded"]
    assert info.attempts[0].error == "not ready"
    assert info.failures == 0


async def test_reject_fails_the_job_at_once_whatever_its_policy(q: TaskQ) -> None:
    @q.task(name="order", retry=Retry(max_attempts=9, backoff=0, on=(BaseException,)))
    async def order() -> None:
        raise Reject("there is no such product")

    job = await order.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert (info.state, info.attempt) == (JobState.FAILED, 1)
    assert (info.error_type, info.error) == ("Reject", "there is no such product")
    assert info.attempts[0].outcome == "rejected"


@pytest.mark.parametrize(
    ("raised", "state", "outcome"),
    [
        ("RetryLater", JobState.SCHEDULED, "retry asked"),
        ("Reject", JobState.FAILED, "rejected"),
    ],
)
async def test_a_process_steers_its_job_too(
    q: TaskQ, raised: str, state: JobState, outcome: str
) -> None:
    tasks = sample_tasks.register(q, retry=Retry(max_attempts=5, backoff=0))

    job = await tasks.raise_named.enqueue(raised)
    await q.run_until_empty()

    info = await job.info()
    assert (info.state, info.attempt) == (state, 1)
    assert info.attempts[0].outcome == outcome
    await job.cancel()


async def test_failures_and_successes_are_counted(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="flaky", retry=Retry(max_attempts=2, backoff=0))
    async def flaky(works: bool) -> None:
        if not works:
            raise OSError("busy")

    await q.enqueue_many([flaky.s(True), flaky.s(True), flaky.s(False)])
    await q.run_until_empty()

    counts: dict[Any, int] = {}
    for key in look.scan_iter(match=f"{Keys(namespace).stats}*"):
        for name, count in look.hgetall(key).items():
            counts[name] = counts.get(name, 0) + int(count)
    assert counts == {
        b"default:succeeded": 2,
        b"default:retried": 1,
        b"default:failed": 1,
    }


async def test_of_failed_jobs_only_so_many_are_kept(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    few = TaskQ(
        f"unix://{look.connection_pool.connection_kwargs['path']}",
        namespace=namespace,
        retention=Retention(keep_failed=3),
    )

    @few.task(name="broken")
    async def broken() -> None:
        raise OSError("no disk")

    jobs: list[Job[None]] = []
    for _ in range(5):
        jobs.append(await broken.enqueue())
        await few.run_until_empty(concurrency=1)
        # No two of them fail in the same millisecond: "oldest" would say nothing.
        few._settings.offset.ms += 1

    kept = [bool(look.exists(Keys(namespace).job(job.id))) for job in jobs]
    assert kept == [False, False, True, True, True]
    await few.aclose()


@pytest.mark.parametrize(
    "delay",
    [-5, timedelta(seconds=-1), float("nan"), float("inf"), 10**400, "soon", None],
    ids=lambda value: f"{value!r:.10}",
)
async def test_a_delay_nobody_can_mean_is_refused_where_it_is_typed(q: TaskQ, delay: Any) -> None:
    @q.task(name="poll")
    async def poll() -> None:
        raise RetryLater(delay)

    job = await poll.enqueue()
    await q.run_until_empty()

    # It would ask again at once, as often as the worker can, or never
    info = await job.info()
    assert (info.state, info.attempt, info.error_type) == (JobState.FAILED, 1, "ConfigError")
    assert "use seconds from 0 on, such as RetryLater(30)" in (info.error or "")


async def test_another_attempt_may_be_asked_for_at_once(q: TaskQ) -> None:
    @q.task(name="poll")
    async def poll() -> str:
        if current_job().attempt == 1:
            raise RetryLater(0)
        return "ready"

    job = await poll.enqueue()
    await q.run_until_empty()

    assert await job.result(timeout=5) == "ready"


async def test_a_request_for_another_attempt_may_be_of_ones_own_kind(q: TaskQ) -> None:
    class NotReady(RetryLater):
        def __init__(self) -> None:
            Exception.__init__(self, "not ready")

    @q.task(name="poll")
    async def poll() -> str:
        if current_job().attempt == 1:
            raise NotReady
        return "ready"

    job = await poll.enqueue()
    await q.run_until_empty()

    assert await job.result(timeout=5) == "ready"

"""Jobs whose task this worker does not know: another may."""

from __future__ import annotations

import pytest

from taskq import JobFailed, JobState, TaskQ

SECOND = 1000


async def test_a_job_of_an_unknown_task_is_given_back(q: TaskQ, other: TaskQ) -> None:
    @other.task(name="app.resize")
    async def resize() -> str:
        return "resized"

    job = await other.send("app.resize")
    # Given a worker whose code is older than the job
    await q.run_until_empty(["default"])

    # Then it waits, and no retry was used up
    info = await job.info()
    assert (info.state, info.failures) == (JobState.SCHEDULED, 0)
    assert [(record.outcome, record.error) for record in info.attempts] == [
        ("released", "unknown task")
    ]

    # And the worker that knows it runs it
    q._settings.offset.ms += 2 * SECOND
    other._settings.offset.ms += 2 * SECOND
    await other.run_until_empty()
    assert await job.result(timeout=5) == "resized"


async def test_it_is_given_back_for_longer_and_longer(q: TaskQ, other: TaskQ) -> None:
    job = await other.send("app.resize")

    pauses: list[float] = []
    for _ in range(8):
        assert await q.run_until_empty(["default"]) == 1
        info = await job.info()
        assert info.due_at is not None
        assert info.attempts[-1].ended is not None
        pauses.append((info.due_at - info.attempts[-1].ended).total_seconds())
        q._settings.offset.ms += 61 * SECOND

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    await job.cancel()


async def test_after_so_many_times_it_fails_and_names_what_is_near(
    q: TaskQ, other: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    @q.task(name="app.tasks.resize", retry=5)
    async def resize() -> None: ...

    job = await other.send("app.tasks.rezise")
    for _ in range(12):
        await q.run_until_empty(unknown_limit=3)
        q._settings.offset.ms += 61 * SECOND

    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=5)
    assert caught.value.error_type == "UnknownTask"
    assert "no task is registered as 'app.tasks.rezise'" in caught.value.error_text
    assert "the nearest registered name is 'app.tasks.resize'" in caught.value.error_text
    assert "tried 3 times" in caught.value.error_text
    info = await job.info()
    assert info.attempts[-1].outcome == "unknown_task"
    assert len(info.attempts) == 3
    assert "app.tasks.rezise" in caplog.text


async def test_a_job_cancelled_while_nobody_knows_it_is_over(q: TaskQ, other: TaskQ) -> None:
    job = await other.send("nobody")
    await q.run_until_empty(["default"])

    assert await job.cancel() is True
    q._settings.offset.ms += 61 * SECOND
    assert await q.run_until_empty(["default"]) == 0
    assert await job.status() is JobState.CANCELLED

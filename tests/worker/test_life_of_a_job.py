"""From enqueue to result, with a worker in the same program."""

from __future__ import annotations

import pytest

from taskq import JobFailed, JobState, TaskQ


async def test_a_job_runs_and_gives_its_result(q: TaskQ) -> None:
    @q.task(name="add")
    async def add(a: int, b: int = 1) -> int:
        return a + b

    job = await add.enqueue(1, b=2)
    assert await job.status() is JobState.QUEUED

    async with q.worker():
        assert await job.result(timeout=5) == 3

    assert await job.status() is JobState.SUCCEEDED


async def test_a_failed_job_tells_what_its_worker_saw(q: TaskQ) -> None:
    @q.task(name="broken")
    async def broken() -> None:
        raise KeyError("no such picture")

    job = await broken.enqueue()
    async with q.worker():
        with pytest.raises(JobFailed, match="no such picture") as caught:
            await job.result(timeout=5)

    assert caught.value.error_type == "KeyError"
    assert "test_life_of_a_job.py" in caught.value.traceback

"""A worker whose event loop is torn down under it, or whose own asyncio tasks are cancelled."""

from __future__ import annotations

import asyncio

import pytest

from taskq import JobInfo, JobState, TaskQ
from taskq.worker import services
from tests.support.server import TestServer


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_jobs_beside_one_that_ends_the_program_are_handed_back(
    server: TestServer, namespace: str, error: BaseException
) -> None:
    q = TaskQ(server.url, namespace=namespace)
    started = asyncio.Event()

    async def leave() -> None:
        raise error

    @q.task(name="guilty")
    async def guilty() -> None:
        await started.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(leave())

    @q.task(name="innocent")
    async def innocent() -> None:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            # As clients of databases do
            raise OSError("the query was cancelled") from None

    ids: list[str] = []

    async def program() -> None:
        async with q:
            ids.extend([(await guilty.enqueue()).id, (await innocent.enqueue()).id])
            async with q.worker():
                await asyncio.sleep(600)

    async def told() -> list[JobInfo]:
        async with q:
            infos = [await q.job(job_id).info() for job_id in ids]
            await q.job(ids[1]).cancel()
            return infos

    with pytest.raises(type(error)):
        asyncio.run(program())

    failed, released = asyncio.run(told())
    assert (failed.state, failed.error_type) == (JobState.FAILED, type(error).__name__)
    assert (released.state, released.failures) == (JobState.QUEUED, 0)
    assert [attempt.outcome for attempt in released.attempts] == ["released"]


async def test_a_service_that_was_cancelled_begins_again(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "RESTART_SECONDS", 0.01)

    @q.task(name="meddle")
    async def meddle() -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("taskq-"):
                task.cancel()

    @q.task(name="well")
    async def well() -> str:
        return "alive"

    async with q.worker(scheduler=False):
        job = await meddle.enqueue()
        await job.result(timeout=5)
        # One that is due later needs the promoter, the fetcher, and no wake-up that was lost
        later = await well.options(delay=0.1).enqueue()
        assert await later.result(timeout=5) == "alive"

    assert "the fetcher was cancelled by a job or by this program; restarting it" in caplog.text
    assert f"job {job.id} cancels every asyncio task" in caplog.text

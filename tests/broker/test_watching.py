"""Watching jobs: all who look at one share a subscription and a reader, and changes are pushed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
import redis

from taskq import JobState, TaskQ, current_job
from taskq.broker import watching
from taskq.broker.keys import Keys
from taskq.core.job import JobInfo
from tests.support.waiting import eventually


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen within a test was pushed."""
    monkeypatch.setattr(watching, "LOOK_SECONDS", 3600.0)


class Viewer:
    """Somebody who watches a job, in a task of its own."""

    def __init__(self, q: TaskQ, job_id: str) -> None:
        self.seen: list[JobInfo] = []
        self._q = q
        self.task = asyncio.create_task(self._watch(job_id))

    async def _watch(self, job_id: str) -> None:
        async with aclosing(self._q._backend.watch(job_id)) as changes:
            async for info in changes:
                self.seen.append(info)

    @property
    def steps(self) -> list[float]:
        return [info.progress.done for info in self.seen if info.progress]

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_twenty_who_watch_a_job_share_a_subscription_and_a_reader(
    q: TaskQ, look: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    again = watching.Watching._again  # pyright: ignore[reportPrivateUsage]

    async def counted(self: Any, known: JobInfo) -> JobInfo | None:
        reads.append(known)
        return await again(self, known)

    monkeypatch.setattr(watching.Watching, "_again", counted)
    go_on = asyncio.Event()

    @q.task(name="report")
    async def report() -> None:
        await current_job().progress(1, 2, "half")
        await go_on.wait()

    job = await report.enqueue()
    viewers = [Viewer(q, job.id) for _ in range(20)]
    await eventually(lambda: all(viewer.seen for viewer in viewers))
    async with q.worker():
        await eventually(lambda: all(viewer.steps == [1] for viewer in viewers))
        topics = look.pubsub_channels(f"{Keys(namespace).watch_channel}*")
        names: Any = look.hget(Keys(namespace).job(job.id), "v")
        go_on.set()
        await asyncio.wait([viewer.task for viewer in viewers])

    assert len(topics) == 1
    assert len(names.split()) == 1
    # A read after each change, and one a second; not one for each of them
    assert len(reads) < 20
    assert {viewer.seen[-1].state for viewer in viewers} == {JobState.SUCCEEDED}


async def test_progress_and_the_end_are_pushed(q: TaskQ, slow_looks: None) -> None:
    step = asyncio.Event()

    @q.task(name="report")
    async def report() -> None:
        for page in range(1, 4):
            await current_job().progress(page, 3)
            await step.wait()
            step.clear()

    job = await report.enqueue()
    async with q.worker():
        await eventually(lambda: _runs(q, job.id))
        viewer = Viewer(q, job.id)
        for page in range(1, 4):
            await eventually(lambda page=page: viewer.steps[-1:] == [page])
            step.set()
        await asyncio.wait({viewer.task})

    assert viewer.seen[-1].state is JobState.SUCCEEDED


async def _runs(q: TaskQ, job_id: str) -> bool:
    return (await q.job(job_id).info()).progress is not None


async def test_a_change_that_is_not_pushed_is_seen_within_a_moment(q: TaskQ) -> None:
    started = asyncio.Event()

    @q.task(name="report")
    async def report() -> None:
        started.set()
        await asyncio.sleep(3600)

    job = await report.enqueue()
    viewer = Viewer(q, job.id)
    await eventually(lambda: viewer.seen)
    async with q.worker():
        await eventually(lambda: viewer.seen[-1].state is JobState.RUNNING)
        await job.cancel()
        await asyncio.wait({viewer.task})
    assert viewer.seen[-1].state is JobState.CANCELLED


async def test_a_failure_is_told_as_info_tells_it(q: TaskQ) -> None:
    @q.task(name="fails")
    async def fails() -> None:
        raise ValueError("no")

    job = await fails.enqueue()
    viewer = Viewer(q, job.id)
    await eventually(lambda: viewer.seen)
    await q.run_until_empty()
    await asyncio.wait({viewer.task})

    reported, last = await job.info(), viewer.seen[-1]
    for name in (
        "state",
        "error_type",
        "error",
        "traceback",
        "attempt",
        "failures",
        "task",
        "args",
    ):
        assert getattr(last, name) == getattr(reported, name), name


async def test_a_job_that_is_over_or_unknown_is_watched_no_longer(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    await q.run_until_empty()
    over, unknown = Viewer(q, job.id), Viewer(q, "none")
    await asyncio.wait({over.task, unknown.task})

    assert [info.state for info in over.seen] == [JobState.SUCCEEDED]
    assert unknown.seen == []


async def test_who_leaves_leaves_nothing_behind(q: TaskQ) -> None:
    job = await q.remote("elsewhere").options(delay=3600).enqueue()
    first, second = Viewer(q, job.id), Viewer(q, job.id)
    await eventually(lambda: first.seen and second.seen)

    await first.leave()
    await asyncio.sleep(0)
    assert not second.task.done()
    await second.leave()

    broker = q._backend.current()
    assert not broker.watching._watched  # pyright: ignore[reportPrivateUsage]
    assert not broker.waiting._waits  # pyright: ignore[reportPrivateUsage]
    # Who comes again is served again
    again = Viewer(q, job.id)
    await eventually(lambda: again.seen)
    await job.cancel()
    await asyncio.wait({again.task})


async def test_a_job_keeps_the_names_of_so_many_who_watch_and_no_more(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    job = await q.remote("elsewhere").options(delay=3600).enqueue()
    key = Keys(namespace).job(job.id)
    look.hset(key, "v", " ".join(f"{n:026}" for n in range(1000)))

    viewer = Viewer(q, job.id)
    await eventually(lambda: len(look.hget(key, "v") or b"") < 20_000)

    names: Any = look.hget(key, "v")
    assert names.split()[-2] == b"%026d" % 999
    await job.cancel()
    await asyncio.wait({viewer.task})

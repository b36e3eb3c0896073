"""Middleware around attempts and around handing in, for jobs of workers and deferred calls."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from taskq import (
    CallNext,
    Deferred,
    Job,
    JobContext,
    JobDraft,
    JobFailed,
    TaskQ,
    TaskqError,
    current_job,
)


async def test_the_first_registered_is_the_outermost_for_both_verbs(q: TaskQ) -> None:
    seen: list[str] = []

    def layer(name: str) -> None:
        @q.middleware
        async def around(job: JobContext, call_next: CallNext) -> Any:
            assert current_job().id == job.id
            seen.append(f"> {name} {job.task}")
            value = await call_next(job)
            seen.append(f"< {name} {value}")
            return value

    @q.task(name="work")
    async def work(number: int) -> int:
        seen.append("work")
        return number

    layer("outer")
    layer("inner")
    expected = ["> outer work", "> inner work", "work", "< inner 7", "< outer 7"]

    async with q:
        job = await work.enqueue(7)
        await q.run_until_empty()
        assert await job.result() == 7
        assert await work.defer(7) == 7

    assert seen == expected * 2


def square(number: int) -> int:
    return number * number


async def test_it_may_change_the_result_and_catch_errors_on_every_executor(q: TaskQ) -> None:
    @q.middleware
    async def around(job: JobContext, call_next: CallNext) -> Any:
        try:
            return 1 + await call_next()
        except ValueError:
            return "caught"

    @q.task(name="broken")
    async def broken() -> None:
        raise ValueError

    def thread(number: int) -> int:
        return number

    tasks = [
        q.task(name="thread")(thread),
        q.task(name="process", executor="process")(square),
    ]
    async with q:
        jobs = [await task.enqueue(3) for task in tasks]
        caught = await broken.enqueue()
        await q.run_until_empty()

        assert [await job.result() for job in jobs] == [4, 10]
        assert [await task.defer(3) for task in tasks] == [4, 10]
        assert await caught.result() == "caught"


async def test_what_it_raises_is_the_attempt_s_failure(alone_or: TaskQ) -> None:
    @alone_or.middleware
    async def refuses(job: JobContext, call_next: CallNext) -> Any:
        raise PermissionError(job.task)

    async def never() -> None:
        raise AssertionError

    async with alone_or.deferred:
        with pytest.raises(JobFailed, match="PermissionError") as failed:
            await alone_or.defer(never)

    assert isinstance(failed.value.__cause__, PermissionError)


@pytest.fixture
def alone_or() -> TaskQ:
    return TaskQ("redis://localhost:1")


async def test_an_interrupted_attempt_passes_through_it(alone_or: TaskQ) -> None:
    ended: list[str] = []

    @alone_or.middleware
    async def around(job: JobContext, call_next: CallNext) -> Any:
        try:
            return await call_next(job)
        finally:
            ended.append(job.task)

    async def hang() -> None:
        await asyncio.Event().wait()

    async with alone_or.deferred:
        with pytest.raises(JobFailed, match="Timeout"):
            await alone_or.deferred.options(timeout=0.02).defer(hang)
    assert len(ended) == 1


async def test_handing_in_is_wrapped_for_every_way_in(q: TaskQ) -> None:
    verbs: list[str] = []

    @q.middleware("enqueue")
    async def trace(job: JobDraft, call_next: CallNext) -> Any:
        verbs.append(f"{job.verb} {job.task} {job.args} {job.headers}")
        handle = await call_next(job.with_headers(trace="7f"))
        assert isinstance(handle, (Job, Deferred))
        return handle

    @q.middleware("enqueue")
    async def inner(job: JobDraft, call_next: CallNext) -> Any:
        assert job.headers["trace"] == "7f"
        return await call_next()

    @q.task(name="work")
    async def work(number: int) -> str:
        return f"{number} {current_job().headers}"

    async with q:
        one = await work.options(headers={"own": "1"}).enqueue(1)
        two = await q.enqueue_many([work.s(2), work.s(3)])
        sent = await q.send("work", 4)
        await q.run_until_empty()
        results = [await job.result() for job in (one, *two, sent)]
        results.append(await work.defer(5))
        results.append(await work.options(durable=True).defer(6))

    assert results[0] == "1 {'own': '1', 'trace': '7f'}"
    assert results[1:] == [f"{n} {{'trace': '7f'}}" for n in range(2, 7)]
    assert verbs[0] == "enqueue work (1,) {'own': '1'}"
    assert verbs[1:4] == [f"enqueue work ({n},) {{}}" for n in (2, 3, 4)]
    assert verbs[4:] == ["defer work (5,) {}", "defer work (6,) {}"]


async def test_it_may_refuse_a_job_but_not_swallow_it(q: TaskQ) -> None:
    @q.middleware("enqueue")
    async def refuses(job: JobDraft, call_next: CallNext) -> Any:
        if job.args == (1,):
            raise PermissionError("not you")
        return None

    @q.task(name="work")
    async def work(number: int) -> None: ...

    async with q:
        with pytest.raises(PermissionError):
            await work.enqueue(1)
        with pytest.raises(TaskqError, match="return await call_next"):
            await work.enqueue(2)
        handle = work.defer(1)
        with pytest.raises(PermissionError):
            await handle.accepted()
        with pytest.raises(JobFailed, match="not you"):
            await handle
        assert await q.run_until_empty() == 0


@pytest.mark.parametrize("late", [True, False])
async def test_a_debounced_call_runs_as_the_last_one_was_handed_in(
    alone_or: TaskQ, late: bool
) -> None:
    begun, go, saved = asyncio.Event(), asyncio.Event(), list[str]()

    @alone_or.middleware("enqueue")
    async def louder(job: JobDraft, call_next: CallNext) -> Any:
        if job.args == ("old",):
            begun.set()
            await go.wait()
        handle = await call_next(replace(job, args=(job.args[0].upper(),)))
        if job.args == ("old",):
            raise PermissionError
        return handle

    async def save(text: str) -> None:
        saved.append(text)

    async with alone_or.deferred:
        # Given a call whose handing in takes long
        quiet = alone_or.deferred.options(key="draft", debounce=0.05)
        handle = quiet.defer(save, "old")
        await begun.wait()

        # When another takes its place, and is handed in before or after it
        quiet.defer(save, "new")
        if late:
            await handle.accepted()
        go.set()
        await handle

    # Then what came of the first counts for nothing
    assert saved == ["NEW"]


def test_there_are_two_kinds(q: TaskQ) -> None:
    with pytest.raises(ValueError, match="there is no middleware around 'result'"):
        q.middleware("result")(print)  # pyright: ignore[reportCallIssue,reportArgumentType]

"""Where a job runs, what it knows of itself, and what others see of it meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taskq import JobState, Progress, TaskQ, TaskqError, current_job
from tests.support.waiting import eventually
from tests.worker import sample_tasks
from tests.worker.sample_tasks import facts_of_current_job

flavour: ContextVar[str] = ContextVar("flavour", default="plain")


async def test_a_coroutine_runs_in_the_worker_s_own_loop(q: TaskQ) -> None:
    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    @q.task(name="here")
    async def here() -> list[bool]:
        return [asyncio.get_running_loop() is loop, threading.get_ident() == thread]

    job = await here.enqueue()
    await q.run_until_empty()

    assert await job.result(timeout=5) == [True, True]


async def test_coroutines_run_at_the_same_time(q: TaskQ) -> None:
    meeting = asyncio.Barrier(50)

    @q.task(name="meet")
    async def meet() -> None:
        await meeting.wait()

    await q.enqueue_many([meet.s() for _ in range(50)])

    # Then nobody waits for ever for the others
    assert await q.run_until_empty() == 50


async def test_a_plain_function_runs_in_a_thread_of_taskq_and_leaves_the_loop_alone(
    q: TaskQ,
) -> None:
    go = threading.Event()

    @q.task(name="block")
    def block() -> str:
        assert go.wait(20)
        return threading.current_thread().name

    @q.task(name="release")
    async def release() -> None:
        go.set()

    blocked = await block.enqueue()
    await release.enqueue()
    await q.run_until_empty()

    assert (await blocked.result(timeout=5)).startswith("taskq-thread-")


async def test_threads_are_limited_apart_from_coroutines(q: TaskQ) -> None:
    lock, at_once, most = threading.Lock(), 0, 0

    @q.task(name="count")
    def count() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.01)
        with lock:
            at_once -= 1

    await q.enqueue_many([count.s() for _ in range(20)])
    await q.run_until_empty(threads=3)

    assert most == 3


async def test_a_task_can_have_a_process_of_its_own(q: TaskQ) -> None:
    tasks = sample_tasks.register(q)
    decorated = q.task(name="decorated", executor="process")(sample_tasks.decorated_pid.function)
    jobs = [
        await tasks.pid.enqueue(),
        await tasks.pid_in_loop.enqueue(),
        await decorated.enqueue(),
    ]

    async with q.worker(processes=1):
        pids = [await job.result(timeout=20) for job in jobs]

    # Then all of them ran outside of this process, one after the other in the same
    assert os.getpid() not in pids
    assert len(set(pids)) == 1


async def test_a_function_no_other_process_could_import_fails_with_the_way_out(q: TaskQ) -> None:
    @q.task(name="local", executor="process")
    def local() -> None: ...

    job = await local.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert info.state is JobState.FAILED
    assert "top level of the module" in (info.error or "")


def expected_facts(job_id: str, task: str, worker: str) -> dict[str, Any]:
    return {
        "id": job_id,
        "task": task,
        "queue": "images",
        "worker": worker,
        "headers": {"trace": "7f"},
        "attempt": 1,
        "fence": 1,
        "max_attempts": 3,
        "failures": 0,
    }


@pytest.mark.parametrize("executor", ["loop", "thread", "process"])
async def test_a_job_knows_itself_wherever_it_runs(q: TaskQ, executor: str) -> None:
    async def in_loop() -> dict[str, Any]:
        return facts_of_current_job()

    functions = {"loop": in_loop, "thread": sample_tasks.facts, "process": sample_tasks.facts}
    task = q.task(name="facts", queue="images", retry=2, timeout=60, executor=executor)(  # type: ignore[call-overload]
        functions[executor]
    )

    job = await task.options(headers={"trace": "7f"}).enqueue()
    async with q.worker() as worker:
        told = await job.result(timeout=20)
    info = await job.info()

    deadline = told.pop("deadline")
    assert timedelta(seconds=30) < deadline - datetime.now(UTC) < timedelta(seconds=60)
    assert told.pop("enqueued_at") == info.enqueued_at
    assert told == expected_facts(job.id, "facts", worker.name)


async def test_what_a_coroutine_starts_belongs_to_the_same_job(q: TaskQ) -> None:
    @q.task(name="parent")
    async def parent() -> list[str]:
        async def child() -> str:
            return current_job().id

        ids = await asyncio.gather(child(), asyncio.create_task(child()))
        return [*ids, await asyncio.to_thread(lambda: current_job().id)]

    job = await parent.enqueue()
    await q.run_until_empty()

    assert await job.result(timeout=5) == [job.id] * 3


async def test_outside_of_a_job_there_is_no_current_one(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> str:
        return current_job().id

    with pytest.raises(TaskqError, match="outside of a job"):
        await one()
    with pytest.raises(TaskqError, match="outside of a job"):
        await asyncio.to_thread(current_job)


@pytest.mark.parametrize("executor", ["loop", "thread"])
async def test_context_variables_of_a_job_reach_no_other(q: TaskQ, executor: str) -> None:
    def change() -> str:
        before = flavour.get()
        flavour.set("changed")
        return before

    async def change_in_loop() -> str:
        return change()

    function = change if executor == "thread" else change_in_loop
    task = q.task(name="change")(function)

    flavour.set("of the caller")
    jobs = await q.enqueue_many([task.s() for _ in range(3)])
    await q.run_until_empty(concurrency=1, threads=1)

    assert "changed" not in [await job.result(timeout=5) for job in jobs]
    assert flavour.get() == "of the caller"


async def test_nor_do_those_of_jobs_that_made_room_for_them(q: TaskQ) -> None:
    """What waits for a slot starts when another job ends, and within its last step."""

    @q.task(name="change")
    async def change(steps: int) -> str:
        before = flavour.get()
        flavour.set("changed")
        for _ in range(steps):
            await asyncio.sleep(0)
        return before

    flavour.set("of the caller")
    jobs = await q.enqueue_many([change.s(number % 3) for number in range(300)])
    await q.run_until_empty(concurrency=2)

    assert {await job.result(timeout=5) for job in jobs} == {"of the caller"}


async def test_a_running_job_can_be_looked_at(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await go.wait()

    job = await wait.enqueue()
    async with q.worker() as worker:
        await started.wait()
        info = await job.info()
        go.set()
        await job.result(timeout=5)

    assert info.state is JobState.RUNNING
    assert info.worker == worker.name
    assert info.finished_at is None
    [attempt] = info.attempts
    assert (attempt.number, attempt.worker, attempt.outcome, attempt.ended) == (
        1,
        worker.name,
        None,
        None,
    )
    assert attempt.started == info.started_at


async def test_info_of_a_finished_job_tells_its_whole_life(q: TaskQ) -> None:
    @q.task(name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    before = datetime.now(UTC) - timedelta(seconds=1)
    job = await add.options(priority=7).enqueue(1, b=2)
    await q.run_until_empty()
    info = await job.info()

    assert (info.id, info.task, info.state) == (job.id, "add", JobState.SUCCEEDED)
    assert (info.queue, info.priority) == ("default", 7)
    assert (info.args, info.kwargs, info.result) == ((1,), {"b": 2}, 3)
    assert (info.attempt, info.failures, info.crashes) == (1, 0, 0)
    moments = [before, info.enqueued_at, info.started_at, info.finished_at, datetime.now(UTC)]
    assert moments == sorted(moment for moment in moments if moment)
    [attempt] = info.attempts
    assert (attempt.number, attempt.outcome, attempt.error) == (1, "succeeded", "")
    assert (attempt.started, attempt.ended) == (info.started_at, info.finished_at)
    assert not info.cancel_requested
    assert (info.error_type, info.error, info.traceback) == (None, None, None)


async def test_progress_that_was_awaited_has_arrived(q: TaskQ) -> None:
    reported, go = asyncio.Event(), asyncio.Event()

    @q.task(name="cut")
    async def cut() -> None:
        await current_job().progress(3, 10, "cutting")
        reported.set()
        await go.wait()

    job = await cut.enqueue()
    async with q.worker():
        await reported.wait()
        seen = (await job.info()).progress
        go.set()
        await job.result(timeout=5)

    assert seen == Progress(3, 10, "cutting")
    # The last word stays with the job
    assert (await job.info()).progress == Progress(3, 10, "cutting")


async def test_progress_of_any_kind_fails_no_job(q: TaskQ) -> None:
    @q.task(name="cut")
    async def cut() -> str:
        await current_job().progress(Decimal(1), 2**64, "a\udc80" + "x" * 5_000_000)
        await current_job().progress(2, 4, 5)  # type: ignore[arg-type]
        return "done"

    job = await cut.enqueue()
    async with q.worker():
        assert await job.result(timeout=5) == "done"

    assert (await job.info()).progress == Progress(2, 4, "5")


async def test_progress_need_not_be_awaited(q: TaskQ) -> None:
    go = asyncio.Event()

    @q.task(name="cut")
    async def cut() -> None:
        current_job().progress(0.5)
        await go.wait()

    job = await cut.enqueue()
    async with q.worker():
        await eventually(lambda: _progress_of(q, job.id))
        go.set()
        await job.result(timeout=5)

    assert (await job.info()).progress == Progress(0.5, None, "")


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_plain_functions_report_progress_too(q: TaskQ, executor: str, tmp_path: Path) -> None:
    task = q.task(name="report", executor=executor)(sample_tasks.report)  # type: ignore[call-overload]
    until = tmp_path / "go"

    job = await task.enqueue(str(until))
    async with q.worker():
        seen = await eventually(lambda: _progress_of(q, job.id), within=20)
        until.touch()
        assert await job.result(timeout=20) == "done"

    assert seen == Progress(3, 10, "cutting")


async def _progress_of(q: TaskQ, job_id: str) -> Progress | None:
    return (await q.job(job_id).info()).progress


async def test_a_task_enqueues_more_work_from_inside(q: TaskQ) -> None:
    @q.task(name="leaf")
    async def leaf(number: int) -> int:
        return number

    @q.task(name="tree")
    async def tree(count: int) -> list[str]:
        jobs = await q.enqueue_many([leaf.s(number) for number in range(count)])
        return [job.id for job in jobs]

    job = await tree.enqueue(3)
    assert await q.run_until_empty() == 4

    leaves = [q.job(job_id) for job_id in await job.result(timeout=5)]
    assert [await leaf.result(timeout=5) for leaf in leaves] == [0, 1, 2]


async def test_a_task_may_wait_for_another_s_result(q: TaskQ) -> None:
    @q.task(name="inner")
    async def inner() -> int:
        return 20

    @q.task(name="outer")
    async def outer() -> int:
        return 1 + await (await inner.enqueue()).result(timeout=10)

    job = await outer.enqueue()
    async with q.worker():
        assert await job.result(timeout=10) == 21

"""What type checkers know of taskq. Read by all of `test_checkers.py`, and never run.

`assert_type` says what a call gives. A line with a call that must not pass ends in `# refused`.
ty knows no unexpected keyword where a TypedDict says which there are.
"""

# pyright: strict

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, assert_type

from fastapi import Depends, FastAPI

from taskq import (
    Job,
    JobContext,
    JobInfo,
    JobState,
    Retention,
    Retry,
    Secret,
    Signature,
    TaskQ,
    current_job,
)
from taskq.core.job import Progress
from taskq.execution.task import AsyncTask, ConfiguredTask, SyncTask
from taskq.fastapi import (
    AfterResponse,
    BackgroundTasks,
    OnCommit,
    StrictBackgroundTasks,
    enqueue_on_commit,
    injected,
    lifespan,
)

q = TaskQ()


@q.task
async def resize(path: str, width: int = 800) -> str:
    return f"{path}-{width}"


@q.task
def count(*words: str, unique: bool = False) -> int:
    return len(set(words) if unique else words)


@q.task(queue="images", priority=9, retry=Retry(max_attempts=4), timeout=timedelta(minutes=1))
async def configured(numbers: list[int]) -> dict[str, int]:
    return {"sum": sum(numbers)}


@q.task(executor="process", soft_timeout=30, timeout=60, result_ttl=0, retry=3, name="app.compute")
def compute(seed: int) -> bytes:
    return bytes(seed)


@q.task()
async def nothing() -> None: ...


async def tasks_keep_the_signature_of_their_function() -> None:
    assert_type(await resize("a.png"), str)
    assert_type(await resize("a.png", width=400), str)
    assert_type(count("a", "b", unique=True), int)
    assert_type(await configured([1]), dict[str, int])
    assert_type(compute(7), bytes)
    assert_type(await nothing(), None)

    await resize()  # refused
    await resize(7)  # refused
    count(7)  # refused
    compute(seed="7")  # refused


async def tasks_know_how_they_were_written() -> None:
    as_async: AsyncTask[[], None] = nothing
    as_sync: SyncTask[..., bytes] = compute
    other: AsyncTask[[int], bytes] = compute  # refused
    print(as_async, as_sync, other, resize.name, resize.function)


async def enqueue_takes_the_same_arguments_and_gives_a_job_of_the_result() -> None:
    assert_type(await resize.enqueue("a.png"), Job[str])
    assert_type(await resize.enqueue("a.png", width=400), Job[str])
    assert_type(await count.enqueue("a", "b", unique=True), Job[int])
    assert_type(await configured.enqueue([1, 2]), Job[dict[str, int]])
    assert_type(await compute.enqueue(7), Job[bytes])
    assert_type(await nothing.enqueue(), Job[None])

    await resize.enqueue()  # refused
    await resize.enqueue("a.png", 400, 1)  # refused
    await resize.enqueue(path="a.png", wdth=400)  # refused
    await resize.enqueue("a.png", width="wide")  # refused
    await count.enqueue("a", 7)  # refused
    await configured.enqueue(["a"])  # refused
    await nothing.enqueue(1)  # refused


async def options_keep_the_signature() -> None:
    later = resize.options(delay=30, priority=9, queue="images", id="img:a", expires=3600)
    assert_type(await later.enqueue("a.png"), Job[str])
    assert_type(await later.options(timeout=timedelta(minutes=1)).enqueue("a.png"), Job[str])
    dated = count.options(eta=datetime.now(UTC), expires=datetime.now(UTC), headers={"a": "b"})
    assert_type(await dated.enqueue("a"), Job[int])
    assert_type(await compute.options(retry=Retry(), result_ttl=0.5).enqueue(7), Job[bytes])

    await later.enqueue(7)  # refused
    await later.enqueue()  # refused
    resize.options(prioritty=9)  # refused, but not by ty
    resize.options(priority="high")  # refused
    resize.options(eta="tomorrow")  # refused
    resize.options(headers={"n": 1})  # refused
    resize.options(executor="thread")  # refused, but not by ty


def options_of_tasks_are_known() -> None:
    q.task(retries=3)  # refused, but not by ty
    q.task(executor="gpu")  # refused
    q.task(timeout="1 minute")  # refused
    q.task(delay=5)  # refused, but not by ty


async def signatures_remember_the_result() -> None:
    assert_type(resize.s("a.png"), Signature[str])
    assert_type(resize.options(priority=1).s("a.png", width=400), Signature[str])
    assert_type(resize.s("a.png").options(delay=5), Signature[str])
    assert_type(await count.s("a").enqueue(), Job[int])

    jobs = await q.enqueue_many([resize.s(path) for path in ("a.png", "b.png")])
    assert_type(jobs, list[Job[str]])
    assert_type(await q.enqueue_many(count.s(word) for word in "ab"), list[Job[int]])

    await q.enqueue_many([resize])  # refused


async def signatures_take_the_arguments_of_their_function() -> None:
    assert_type(count.s("a", "b", unique=True), Signature[int])
    assert_type(compute.options(priority=9).s(seed=7), Signature[bytes])
    assert_type(with_dependencies.s(7), Signature[str])

    resize.s()  # refused
    resize.s("a.png", "wide")  # refused
    count.s("a", 7)  # refused
    resize.options(priority=9).s(path="a.png", wdth=4)  # refused
    nothing.s(1)  # refused


async def handles_give_what_the_function_returns() -> None:
    job = await resize.enqueue("a.png")
    assert_type(await job.result(), str)
    assert_type(await job.result(timeout=timedelta(seconds=5)), str)
    assert_type(await job.status(), JobState)
    assert_type(await job.info(), JobInfo)
    assert_type(await job.cancel(), bool)
    assert_type(job.id, str)
    assert_type(job.created, bool | None)
    assert_type((await job.info()).progress, Progress | None)

    known = resize.job("01h")
    assert_type(known, Job[str])
    assert_type(await known.result(), str)
    assert_type(compute.job("01h"), Job[bytes])

    resize.job(7)  # refused
    number: int = await job.result()  # refused
    await job.result(timeout="5 s")  # refused
    print(number)


async def what_is_known_by_name_only_is_anything() -> None:
    assert_type(q.job("01h"), Job[Any])
    assert_type(await q.send("app.tasks.resize", "a.png", width=400), Job[Any])
    assert_type(q.remote("app.tasks.resize"), ConfiguredTask[..., Any])
    assert_type(await q.remote("app.resize").options(queue="images").enqueue("a", 1), Job[Any])

    q.job(7)  # refused


def the_door_from_synchronous_code_gives_the_value() -> None:
    assert_type(q.run(resize.enqueue("a.png")), Job[str])
    assert_type(q.run(q.run(resize.enqueue("a.png")).result(timeout=5)), str)
    assert_type(q.run(q.run_until_empty()), int)

    q.run(resize)  # refused


async def a_taskq_is_opened_and_closed() -> None:
    async with q as opened:
        assert_type(opened, TaskQ)
    async with q.worker(queues=["default"], concurrency=100) as worker:
        assert_type(worker.name, str)
    async with q.worker(grace=timedelta(seconds=5), name=None, scheduler=False, max_jobs=10):
        await q.run_until_empty(["default"], concurrency=1, burst=True)
    async with q.lifespan(None):
        assert_type(await q.run_until_empty(["default"]), int)

    lifespan(q, worker={"concurrency": 10, "queues": ["default"]}, scheduler=True)
    lifespan(q, worker=True)

    q.worker(concurency=10)  # refused, but not by ty
    q.worker(concurrency="10")  # refused
    q.worker(7)  # refused
    await q.run_until_empty(threads="4")  # refused
    lifespan(q, worker={"threads": "4"})  # refused
    TaskQ(7)  # refused
    TaskQ("redis://localhost", namspace="shop")  # refused


async def the_running_job_is_known() -> None:
    job = current_job()
    assert_type(job, JobContext)
    assert_type(job.attempt, int)
    assert_type(job.headers, dict[str, str])
    assert_type(job.deadline, datetime | None)
    await job.progress(3, 10, "cutting")
    job.progress(0.5)

    job.progress("half")  # refused


@q.task
async def login(user: str, token: Secret[str], pin: Secret[int] | None = None) -> Secret[bytes]:
    assert_type(token.reveal(), str)
    return Secret(user.encode())


async def secrets() -> None:
    job = await login.enqueue("ada", Secret("hunter2"), pin=Secret(7))
    assert_type((await job.result()).reveal(), bytes)
    await login.enqueue("ada", Secret(7))  # refused
    await login.enqueue("ada", "hunter2")  # refused
    TaskQ(signing_keys=["k" * 32, b"k" * 32], retention=Retention(failure_ttl=timedelta(days=1)))
    TaskQ(signing_keys=[7])  # refused


Session = Annotated[str, Depends(lambda: "session")]


@q.task
async def with_dependencies(
    user: int, session: Session = injected, other: str = Depends(lambda: "")
) -> str:
    return session + other


async def dependencies_need_no_argument() -> None:
    assert_type(await with_dependencies.enqueue(7), Job[str])
    assert_type(enqueue_on_commit(object(), with_dependencies.s(7)), OnCommit[str])

    await with_dependencies.enqueue()  # refused


async def background_tasks_have_the_calls_of_fastapi(
    tasks: BackgroundTasks, strict: StrictBackgroundTasks
) -> None:
    tasks.add_task(with_dependencies, 7)
    strict.add_task(print, "a")
    FastAPI(lifespan=q.lifespan).add_middleware(AfterResponse)
    tasks.options(retry=3, when="always").add_task(print, "a")

    tasks.add_task(with_dependencies, "7")  # refused
    tasks.options(when="never")  # refused
    tasks.options(retries=3)  # refused, but not by ty

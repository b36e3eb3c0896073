"""Deferred calls run as attempts of the same kind as in a worker, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from taskq import (
    CallError,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobState,
    Reject,
    ResultTimeout,
    Retry,
    RetryLater,
    TaskDefinitionError,
    TaskQ,
    current_job,
)
from tests.support.waiting import eventually


async def test_a_task_and_plain_functions_give_their_objects(alone: TaskQ) -> None:
    # Given values that could never travel
    session, seen = object(), threading.Event()

    @alone.task
    async def echo(value: Any) -> Any:
        return value

    @alone.task
    def in_a_thread(value: Any) -> tuple[Any, str]:
        return value, threading.current_thread().name

    async def coroutine(value: Any) -> Any:
        return value

    class Callable:
        async def __call__(self, value: Any) -> Any:
            return value

    # When they are deferred
    same, thread = await in_a_thread.defer(session)

    # Then they are the same objects
    assert await echo.defer(session) is session
    assert same is session
    assert thread.startswith("taskq-thread")
    assert await alone.defer(echo, session) is session
    assert await alone.defer(coroutine, session) is session
    assert await alone.defer(functools.partial(coroutine, session)) is session
    assert await alone.defer(Callable(), session) is session
    assert await alone.defer(lambda: coroutine(session)) is session
    await alone.defer(seen.set)
    assert seen.is_set()


async def test_it_does_not_run_before_the_caller_lets_go(alone: TaskQ) -> None:
    ran: list[int] = []

    async def note() -> None:
        ran.append(1)

    handle = alone.defer(note)

    assert ran == []
    assert handle.status in (JobState.QUEUED, JobState.RUNNING)
    await handle
    assert handle.status is JobState.SUCCEEDED


async def test_the_running_job_is_known_and_retries_count(alone: TaskQ) -> None:
    seen: list[tuple[str, int, int, dict[str, str]]] = []

    @alone.task(retry=Retry(max_attempts=3, backoff=0.0))
    async def flaky() -> int:
        job = current_job()
        seen.append((job.id, job.attempt, job.failures, job.headers))
        if job.attempt == 1:
            raise RetryLater(0.0)
        if job.attempt == 2:
            raise OSError("not yet")
        return job.max_attempts

    handle = flaky.options(headers={"trace": "7"}).defer()

    assert await handle == 3
    assert seen == [(handle.id, n, f, {"trace": "7"}) for n, f in ((1, 0), (2, 0), (3, 1))]
    assert alone.deferred.stats().retried == 2


async def test_a_failure_is_the_exception_itself(alone: TaskQ) -> None:
    class Broken(Exception): ...

    @alone.task(retry=5)
    async def broken() -> None:
        raise Reject("never")

    async def raises() -> None:
        raise Broken("no")

    with pytest.raises(JobFailed, match="Broken: no") as failed:
        await alone.defer(raises)
    with pytest.raises(JobFailed, match="never"):
        await broken.defer()

    assert isinstance(failed.value.__cause__, Broken)
    assert "raise Broken" in failed.value.traceback
    assert [failure.error_type for failure in alone.deferred.failures()] == ["Reject", "Broken"]


async def test_one_failure_harms_no_other(alone: TaskQ) -> None:
    async def work(number: int) -> int:
        if number == 1:
            raise ValueError(number)
        return number

    handles = [alone.defer(work, number) for number in range(3)]

    assert [await handles[0], await handles[2]] == [0, 2]
    assert handles[1].status is JobState.FAILED


async def test_a_timeout_ends_it(alone: TaskQ) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(JobFailed, match="TimeoutError"):
        await alone.deferred.options(timeout=0.02).defer(hang)


async def test_waiting_has_a_limit_of_its_own(alone: TaskQ) -> None:
    go = asyncio.Event()
    handle = alone.defer(go.wait)

    with pytest.raises(ResultTimeout, match="it is running"):
        await handle.result(timeout=0.02)

    go.set()
    assert await handle is True


async def test_cancelling_one_that_runs_and_one_that_waits(alone: TaskQ) -> None:
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    running = alone.defer(hang)
    waiting = alone.deferred.options(delay=60).defer(hang)
    await started.wait()
    assert waiting.status is JobState.SCHEDULED

    assert waiting.cancel()
    assert await running.cancel() is True

    for handle in (running, waiting):
        assert handle.status is JobState.CANCELLED
        assert await handle.cancel() is False
        with pytest.raises(JobCancelled):
            await handle


async def test_a_call_that_does_not_fit_is_refused_at_once(alone: TaskQ) -> None:
    @alone.task
    async def one(a: int) -> None: ...

    async def two(a: int, b: int) -> None: ...

    def rows() -> Iterator[int]:
        yield 1

    async def arows() -> AsyncIterator[int]:
        yield 1

    class Rows:
        def __call__(self) -> Iterator[int]:
            yield 1

        def each(self) -> Iterator[int]:
            yield 1

    with pytest.raises(CallError, match=r"one\(a"):
        one.defer(1, 2)  # pyright: ignore[reportCallIssue]
    with pytest.raises(CallError, match=r"two\(a"):
        alone.defer(two, 1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TaskDefinitionError, match="already called"):
        alone.defer(two(1, 2))  # pyright: ignore[reportArgumentType,reportCallIssue]
    for generator in (rows, arows, functools.partial(rows), Rows(), Rows().each):
        with pytest.raises(TaskDefinitionError, match="is a generator: calling it runs none"):
            alone.defer(generator)
    with pytest.raises(TypeError, match="did you mean 'timeout'"):
        one.options(timout=3)  # pyright: ignore[reportCallIssue]


async def test_what_does_not_tell_its_signature_is_called_all_the_same(alone: TaskQ) -> None:
    known: dict[str, int] = {}

    await alone.defer(known.update, {"a": 1}, b=2)
    with pytest.raises(JobFailed, match=r"builtins\.dict\.update failed: TypeError"):
        await alone.defer(known.update, 1, 2)  # pyright: ignore[reportCallIssue,reportArgumentType]

    assert known == {"a": 1, "b": 2}


async def test_options_of_defer_are_none_of_enqueue(alone: TaskQ) -> None:
    @alone.task
    async def work() -> None: ...

    with pytest.raises(ValueError, match=r"key= is an option of \.defer"):
        await work.options(key="a").enqueue()


async def test_context_is_that_of_the_call(alone: TaskQ) -> None:
    # Given a variable that two requests set differently
    tenant: ContextVar[str] = ContextVar("tenant", default="none")

    async def who() -> str:
        before = tenant.get()
        tenant.set("changed")
        return before

    def set_and_defer(name: str) -> Any:
        tenant.set(name)
        return alone.defer(who)

    # When they defer, in a coroutine and in a thread
    tenant.set("a")
    first = alone.defer(who)
    second = await asyncio.to_thread(set_and_defer, "b")
    tenant.set("c")

    # Then each sees its own, and changes nothing for others
    assert [await first, await second, tenant.get()] == ["a", "b", "c"]


async def test_it_may_be_deferred_and_awaited_in_threads(alone: TaskQ) -> None:
    loop = asyncio.get_running_loop()

    async def where() -> bool:
        return asyncio.get_running_loop() is loop

    def in_a_thread() -> tuple[bool, bool, bool]:
        handle = alone.defer(where)
        first = asyncio.run(handle.result(timeout=5))
        hanging = alone.deferred.options(delay=60).defer(where)
        return first, bool(hanging.cancel()), asyncio.run(handle.result())

    assert await asyncio.to_thread(in_a_thread) == (True, True, True)
    await eventually(lambda: alone.deferred.stats().pending == 0)


async def test_one_of_a_thread_may_be_cancelled_before_the_loop_has_heard_of_it(
    alone: TaskQ,
) -> None:
    handles: list[Any] = []
    thread = threading.Thread(target=lambda: handles.append(alone.defer(print)))

    # Given a loop that does nothing else until the thread has deferred
    thread.start()
    thread.join()
    assert await handles[0].cancel()

    # Then it takes no slot
    await alone.defer(asyncio.sleep, 0)
    stats = alone.deferred.stats()
    assert (stats.pending, stats.cancelled, stats.succeeded) == (0, 1, 1)


async def test_an_expired_call_never_runs(alone: TaskQ) -> None:
    async def never() -> None:
        raise AssertionError

    handle = alone.deferred.options(delay=0.05, expires=0.01).defer(never)

    with pytest.raises(JobExpired):
        await handle


async def test_a_call_that_is_over_leaves_nothing_to_the_collector(alone: TaskQ) -> None:
    class Session: ...

    carried: ContextVar[Session] = ContextVar("carried")

    async def nothing() -> None: ...

    # Given a runner at work, and a call whose context leads to an object that nobody else holds
    await alone.defer(nothing)
    session, context = Session(), copy_context()
    gone = weakref.ref(session)
    context.run(carried.set, session)
    handle = context.run(alone.defer, nothing)
    del session, context

    # When it is over
    gc.disable()
    try:
        await handle
        await asyncio.sleep(0)

        # Then the object is gone
        assert gone() is None
    finally:
        gc.enable()


async def test_a_failure_keeps_nothing_alive_that_nobody_holds(
    alone: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session: ...

    async def broken(session: Session) -> None:
        raise ValueError(session)

    # Log records of tests are kept, and the error with them
    monkeypatch.setattr(logging.getLogger("taskq.deferred"), "disabled", True)
    session = Session()
    gone = weakref.ref(session)
    handle = alone.deferred.options(timeout=5).defer(broken, session)
    gc.disable()
    try:
        with contextlib.suppress(JobFailed):
            await handle
        del session, handle
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()

"""What type checkers know of deferred calls and of middleware. Never run."""

# pyright: strict

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, assert_type

from taskq import (
    CallNext,
    Deferred,
    DeferredSettings,
    Job,
    JobContext,
    JobDraft,
    JobState,
    TaskQ,
)
from taskq.deferred.report import DeferredFailure, DeferredStats

request: ContextVar[str] = ContextVar("request")
q = TaskQ(deferred=DeferredSettings(concurrency=10, request_id=request, when_full="spill"))


@q.task
async def resize(path: str, width: int = 800) -> str:
    return f"{path}-{width}"


@q.task
def count(*words: str) -> int:
    return len(words)


async def plain_coroutine(number: int) -> float:
    return float(number)


def plain_function(number: int, text: str = "") -> bytes:
    return text.encode() * number


async def tasks_are_deferred_with_their_own_signature() -> None:
    assert_type(resize.defer("a.png"), Deferred[str])
    assert_type(count.defer("a", "b"), Deferred[int])
    assert_type(await resize.defer("a.png", width=400), str)
    keyed = resize.options(key="a", timeout=5, durable=True, when_full="wait")
    assert_type(keyed.defer("a.png"), Deferred[str])

    resize.defer()  # refused
    resize.defer(7)  # refused
    keyed.defer("a.png", widht=4)  # refused
    resize.options(when_full="drop")  # refused
    resize.options(order="sorted")  # refused
    resize.options(durabel=True)  # refused, but not by ty


async def plain_functions_are_too() -> None:
    assert_type(q.defer(plain_coroutine, 1), Deferred[float])
    assert_type(q.defer(plain_function, 1, text="a"), Deferred[bytes])
    assert_type(q.defer(resize, "a.png"), Deferred[str])
    assert_type(q.deferred.options(timeout=1).defer(plain_coroutine, 1), Deferred[float])
    assert_type(await q.deferred.options(key="a").defer(plain_function, 1), bytes)

    q.defer(plain_coroutine)  # refused
    q.defer(plain_function, "a")  # refused
    q.deferred.options(timout=1)  # refused, but not by ty


async def handles_give_what_the_function_returns() -> None:
    handle = resize.defer("a.png")
    assert_type(await handle, str)
    assert_type(await handle.result(timeout=1), str)
    assert_type(handle.status, JobState)
    assert_type(handle.id, str)
    assert_type(handle.job, Job[str] | None)
    assert_type(await handle.cancel(), bool)
    assert_type(bool(handle.cancel()), bool)
    assert_type(await handle.accepted(), None)


async def the_runner_tells_how_it_is() -> None:
    assert_type(q.deferred.stats(), DeferredStats)
    assert_type(q.deferred.failures(), list[DeferredFailure])
    async with q.deferred, q.deferred.lifespan(None):
        await q.deferred.drain(5)

    @q.deferred.on_error
    def hook(failure: DeferredFailure) -> None:
        assert_type(failure.error, BaseException | None)

    hook(q.deferred.failures()[0])
    DeferredSettings(concurency=1)  # refused


@q.middleware
async def around_attempts(job: JobContext, call_next: CallNext) -> Any:
    assert_type(call_next(job), Awaitable[Any])
    return await call_next()


@q.middleware("enqueue")
async def around_handing_in(job: JobDraft, call_next: CallNext) -> Any:
    assert_type(job.with_headers(trace="7"), JobDraft)
    return await call_next(job.with_options(priority=9))


q.middleware("result")  # refused

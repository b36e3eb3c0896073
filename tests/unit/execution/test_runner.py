"""One attempt, from arguments to outcome; no broker far and wide."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from taskq import Reject, RetryLater, TaskQ, current_job
from taskq.codec.payload import decode_value, encode_call
from taskq.core.outcome import Cancelled, Failed, Outcome, RetryAsked, Succeeded
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.runner import run_attempt


@pytest.fixture
async def executors() -> AsyncIterator[ExecutorSet]:
    made = ExecutorSet(threads=2, processes=1)
    yield made
    await made.aclose()


def attempt(function: Callable[..., Any], *args: Any, **options: Any) -> Attempt:
    task = TaskQ("redis://localhost").task(name="work", **options)(function)
    return Attempt(task, "01h", encode_call(args, {}), number=2)


def value_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return decode_value(outcome.result)


@dataclass
class Size:
    width: int


async def test_a_coroutine_and_a_function_give_the_same(executors: ExecutorSet) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    def add_plainly(a: int, b: int) -> int:
        return a + b

    for function in (add, add_plainly):
        assert value_of(await run_attempt(attempt(function, 1, 2), executors)) == 3


async def test_arguments_are_rebuilt_and_results_lowered(executors: ExecutorSet) -> None:
    async def double(size: Size) -> Size:
        assert isinstance(size, Size)
        return Size(2 * size.width)

    assert value_of(await run_attempt(attempt(double, Size(3)), executors)) == {"width": 6}


async def test_the_job_is_the_current_one_while_it_runs(executors: ExecutorSet) -> None:
    async def who() -> str:
        return f"{current_job().id} {current_job().attempt}"

    async def run() -> Outcome:
        return await run_attempt(attempt(who), executors)

    assert value_of(await asyncio.create_task(run())) == "01h 2"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("no disk"), ("OSError", "no disk", "error")),
        (Reject("never"), ("Reject", "never", "rejected")),
        (SystemExit(3), ("SystemExit", "3", "error")),
        (KeyboardInterrupt(), ("KeyboardInterrupt", "", "error")),
        (GeneratorExit("out"), ("GeneratorExit", "out", "error")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_it_never_raises_what_the_function_raised(
    executors: ExecutorSet, error: BaseException, expected: tuple[str, str, str]
) -> None:
    async def broken() -> None:
        raise error

    outcome = await run_attempt(attempt(broken), executors)

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.error_text, outcome.kind) == expected


async def test_retry_later_is_an_outcome_too(executors: ExecutorSet) -> None:
    def later() -> None:
        raise RetryLater(30, "not yet")

    assert await run_attempt(attempt(later), executors) == RetryAsked(30, "not yet")


async def test_arguments_that_do_not_fit_are_told_from_errors_inside(
    executors: ExecutorSet,
) -> None:
    async def one(a: int) -> None:
        raise TypeError("inside")

    unfit = await run_attempt(attempt(one, 1, 2), executors)
    inside = await run_attempt(attempt(one, 1), executors)
    unreadable = Attempt(attempt(one).task, "01h", b"\xc1")
    malformed = await run_attempt(unreadable, executors)

    kinds = [outcome.kind for outcome in (unfit, inside, malformed) if isinstance(outcome, Failed)]
    assert kinds == ["unfit_arguments", "error", "malformed"]


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "function"])
async def test_an_interruption_ends_it(executors: ExecutorSet, plain: bool) -> None:
    go = threading.Event()

    async def wait() -> None:
        await asyncio.Event().wait()

    def block() -> None:
        assert go.wait(20)

    run = attempt(block if plain else wait)
    running = asyncio.create_task(run_attempt(run, executors))
    while run._runner is None or (plain and not executors.threads.running):
        await asyncio.sleep(0)
    run.interrupt(Interruption.CANCEL)

    assert await running == Cancelled()
    go.set()


async def test_the_clock_starts_with_the_function_and_stops_with_it(
    executors: ExecutorSet,
) -> None:
    async def quick() -> int:
        return 1

    async def slow() -> None:
        await asyncio.Event().wait()

    in_time = attempt(quick, timeout=0.02)
    assert value_of(await run_attempt(in_time, executors)) == 1
    outcome = await asyncio.create_task(run_attempt(attempt(slow, timeout=0.02), executors))

    assert isinstance(outcome, Failed)
    assert outcome.kind == "timeout"
    assert in_time.interruption is None


async def test_a_job_s_own_timeout_goes_before_that_of_its_task() -> None:
    async def work() -> None: ...

    task = attempt(work, timeout=60).task

    assert Attempt(task, "01h", b"").timeout == 60
    assert Attempt(task, "01h", b"", timeout=5).timeout == 5

"""One attempt, from arguments to Outcome. It knows no broker, and never raises for a user's error.

::

    enter the context ─> load the arguments ─> start the clock ─> run on the task's executor
                      ─> encode the result  ─> classify what was raised ─> Outcome
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from taskq.core.outcome import Outcome, Succeeded
from taskq.core.payload import decode_call, encode_value
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.classify import classify, unfit_arguments, unfit_result
from taskq.execution.context import enter
from taskq.execution.executors.failure import Unfit
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.masking import masked
from taskq.execution.ports import Injector

__all__ = ["run_attempt"]


async def run_attempt(attempt: Attempt, executors: ExecutorSet) -> Outcome:
    """Run `attempt` once on the executor of its task, and say how it ended.

    Must be the whole of an asyncio task: an interruption cancels the task it runs in.
    """
    loop = asyncio.get_running_loop()
    attempt.begin()
    enter(attempt)
    clock = _Clock(attempt, loop)
    try:
        return Succeeded(await _RUN[attempt.task.task_options.executor](attempt, executors, clock))
    except Unfit as unfit:
        describe = unfit_arguments if unfit.kind == "unfit_arguments" else unfit_result
        return masked(describe(unfit.error), attempt)
    except BaseException as error:
        return masked(classify(attempt, error), attempt)
    finally:
        clock.stop()


class _Clock:
    """The attempt's timeout, counted from the moment its function starts."""

    __slots__ = ("_attempt", "_loop", "_timer")

    def __init__(self, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> None:
        self._attempt = attempt
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        timeout = self._attempt.timeout
        if timeout is not None:
            # One timer handle, not asyncio.timeout(): that costs a fifth of the drain rate.
            self._timer = self._loop.call_later(
                timeout, self._attempt.interrupt, Interruption.TIMEOUT
            )

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _load(attempt: Attempt) -> tuple[Any, Any]:
    try:
        args, kwargs = decode_call(attempt.payload)
        check = attempt.task.callee.check
        if check is not None:
            # Who enqueued it by name could not check it.
            check(tuple(args), kwargs)
        rebuilder = attempt.task.call_rebuilder()
        return (args, kwargs) if rebuilder is None else rebuilder.apply(args, kwargs)
    except Exception as error:
        raise Unfit("unfit_arguments", error) from None


def _encode(value: Any) -> bytes:
    try:
        return encode_value(value)
    except Exception as error:
        raise Unfit("unfit_result", error) from None


async def _in_loop(attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> bytes:
    args, kwargs = _load(attempt)
    clock.start()
    if attempt.task.injector is not None:
        return await _injected(attempt, args, kwargs, executors)
    return _encode(await attempt.task.function(*args, **kwargs))


async def _in_thread(attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> bytes:
    args, kwargs = _load(attempt)
    if attempt.task.injector is not None:
        clock.start()
        return await _injected(attempt, args, kwargs, executors)
    value = await executors.threads.run(attempt.task.function, args, kwargs, on_start=clock.start)
    return _encode(value)


async def _injected(attempt: Attempt, args: Any, kwargs: Any, executors: ExecutorSet) -> bytes:
    """Run with dependencies. What they do at the end is part of the attempt, and of its timeout."""
    failure: BaseException | None = None
    task = attempt.task
    try:
        async with cast("Injector", task.injector).filled(args, kwargs, executors) as (
            given,
            named,
        ):
            try:
                if task.task_options.executor == "thread":
                    return _encode(await executors.threads.run(task.function, given, named))
                return _encode(await task.function(*given, **named))
            except BaseException as error:
                failure = error
                raise
        # A dependency may clean up after a failure, and never makes a success of it.
        raise failure or RuntimeError("a dependency ended the attempt")
    finally:
        # The error holds this frame.
        del failure


async def _in_process(attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> bytes:
    return await executors.run_in_process(attempt, clock.start)


_RUN = {"loop": _in_loop, "thread": _in_thread, "process": _in_process}

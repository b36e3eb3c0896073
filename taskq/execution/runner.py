"""One attempt, from arguments to Outcome. It knows no broker and never raises a user's error.

::

    enter the context ─> middleware ─> start the clock ─> load the arguments ─> run on the executor
                      ─> encode the result ─> classify what was raised ─> Outcome

A call that stays in this process is neither decoded nor encoded; see `LocalCall`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import CoroutineType
from typing import Any, Final, cast

from taskq.codec.payload import decode_call, decode_value, encode_value
from taskq.core.errors import PayloadError
from taskq.core.exception_types import is_a
from taskq.core.outcome import (
    Cancelled,
    Failed,
    FailureKind,
    Outcome,
    Released,
    RetryAsked,
    Succeeded,
)
from taskq.execution.attempt import Attempt, Interruption, masked
from taskq.execution.context import JobContext, set_current_job
from taskq.execution.executors.reports import ProcessDied, RemoteError, Unfit, failure_of, meant_by
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.middleware import call_through
from taskq.execution.ports import Injector

__all__ = [
    "classify",
    "internal_error",
    "interrupted",
    "judged",
    "run_attempt",
    "unfit_arguments",
    "unfit_result",
]

_log = logging.getLogger("taskq.worker")


def classify(attempt: Attempt, error: BaseException) -> Outcome:
    """The outcome of an attempt that raised `error`.

    A cancellation counts as an interruption only if taskq requested it; a task that cancels itself
    has failed. An error that a cancelled or released task raises instead of `CancelledError` is not
    a failure either, since database clients turn cancellations into errors of their own. An attempt
    that ends with its event loop is handed back.
    """
    why = attempt.interruption
    if why is not None and (why is not Interruption.TIMEOUT or is_a(error, asyncio.CancelledError)):
        return interrupted(attempt, why, failure_of(error)["traceback"])
    if attempt.mass_cancelled and not is_a(error, SystemExit, KeyboardInterrupt):
        # Something else ended it, except for these two, which may be what ends the program.
        return Released()
    if type(error) is RemoteError:
        return _remote(attempt, error)
    failure, meant = failure_of(error), meant_by(error)
    if failure["kind"] == "retry_later":
        return RetryAsked(failure["delay"], failure["text"])
    kind: FailureKind = "error"
    if failure["kind"] == "reject":
        kind = "rejected"
    elif is_a(meant, ProcessDied):
        kind = "process_died"
    retry_in = attempt.retry.decide(meant, attempt.failures + 1)
    return Failed(failure["type"], failure["text"], failure["traceback"], kind, retry_in)


def interrupted(attempt: Attempt, why: Interruption, trace: str = "") -> Outcome:
    """The outcome of an attempt that taskq interrupted."""
    if why is Interruption.CANCEL:
        return Cancelled()
    if why is Interruption.TIMEOUT:
        error = TimeoutError(f"the attempt ran longer than its timeout of {attempt.timeout:g} s")
        retry_in = attempt.retry.decide(error, attempt.failures + 1)
        return Failed("TimeoutError", str(error), trace, "timeout", retry_in)
    return Released()


def unfit_arguments(error: Exception) -> Failed:
    """The failure for unreadable or unfit arguments, which another attempt would not change."""
    kind: FailureKind = "malformed" if is_a(error, PayloadError) else "unfit_arguments"
    failure = failure_of(error)
    return Failed(failure["type"], failure["text"], "", kind)


def unfit_result(error: Exception) -> Failed:
    """The failure for a result that cannot be sent; another attempt would repeat the work."""
    failure = failure_of(error)
    return Failed(failure["type"], failure["text"], "", "unfit_result")


def internal_error(job_id: str, error: BaseException) -> Failed:
    """The failure for an error in taskq itself: it fails only this job."""
    failure = failure_of(error)
    _log.error(
        "job %s failed because of an error in taskq; please report it:\n%s",
        *(job_id, failure["traceback"]),
        extra={"job": job_id, "error_type": failure["type"]},
    )
    return Failed("TaskqError", f"taskq itself failed: {failure['type']}", failure["traceback"])


def _remote(attempt: Attempt, error: RemoteError) -> Outcome:
    if error.kind == "retry_later":
        return RetryAsked(error.delay or 0.0, error.text)
    kind = _REMOTE_KINDS[error.kind]
    wanted = error.kind in ("error", "soft_timeout") and attempt.retry.wants_names(error.mro)
    retry_in = attempt.retry.decide_by(attempt.failures + 1, wanted=wanted)
    return Failed(error.type_name, error.text, error.traceback_text, kind, retry_in)


_REMOTE_KINDS: dict[str, FailureKind] = {
    "error": "error",
    "reject": "rejected",
    "soft_timeout": "timeout",
    "unfit_arguments": "unfit_arguments",
    "unfit_result": "unfit_result",
}


_ELSEWHERE: Final = object()


async def run_attempt(attempt: Attempt, executors: ExecutorSet) -> Outcome:
    """Run `attempt` once on the executor of its task and return its outcome.

    Must be all that an asyncio task runs, since an interruption cancels that task.
    """
    loop = asyncio.get_running_loop()
    attempt.begin(loop)
    set_current_job(attempt)
    clock = _NO_LIMIT if attempt.timeout is None else _Clock(attempt, loop)
    try:
        run = _RUN[attempt.task.task_options.executor]
        if attempt.spec.middleware.attempts:
            value = await _wrapped(run, attempt, executors, clock)
        else:
            value = await run(attempt, executors, clock)
        return Succeeded(_result_data(attempt, value))
    except Unfit as unfit:
        describe = unfit_arguments if unfit.kind == "unfit_arguments" else unfit_result
        return _judged(attempt, unfit.error, describe)
    except BaseException as error:
        return judged(attempt, error)
    finally:
        clock.stop()
        attempt.end()


class _Clock:
    """The attempt's timeout: it covers loading the arguments, and running once a thread is free."""

    __slots__ = ("_attempt", "_left", "_loop", "_timer")

    def __init__(self, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> None:
        self._attempt = attempt
        self._loop = loop
        self._left = attempt.timeout or 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        # A timer handle rather than asyncio.timeout(), which costs a fifth of the drain rate.
        self._timer = self._loop.call_later(
            self._left, self._attempt.interrupt, Interruption.TIMEOUT
        )

    def load(self, attempt: Attempt) -> tuple[Any, Any]:
        """Load the arguments. This blocks the loop, so a timer could not interrupt it."""
        begun = self._loop.time()
        loaded = _load(attempt)
        self._left -= self._loop.time() - begun
        if self._left <= 0:
            attempt.interruption = Interruption.TIMEOUT
            raise asyncio.CancelledError
        return loaded

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _NoClock(_Clock):
    """The clock of attempts without a timeout, which all share it."""

    __slots__ = ()

    def __init__(self) -> None: ...

    def start(self) -> None: ...

    def load(self, attempt: Attempt) -> tuple[Any, Any]:
        return _load(attempt)

    def stop(self) -> None: ...


_NO_LIMIT: Final = _NoClock()


@dataclass(slots=True)
class _Serialised:
    """A serialised value, with the value itself unless it was made in another process."""

    data: bytes
    value: Any = _ELSEWHERE

    def decoded(self) -> Any:
        return decode_value(self.data) if self.value is _ELSEWHERE else self.value


async def _wrapped(run: _Run, attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> Any:
    made: Any = None
    opened: Any = None

    async def innermost(_: JobContext) -> Any:
        nonlocal made, opened
        made = await run(attempt, executors, clock)
        opened = made.decoded() if isinstance(made, _Serialised) else made
        return opened

    layers = attempt.spec.middleware.attempts
    value = await call_through(layers, JobContext(attempt), innermost)
    # A value that middleware returned unchanged is not serialised again.
    return made if value is opened else value


def judged(attempt: Attempt, error: BaseException) -> Outcome:
    """The outcome of an attempt that raised `error`; never raises.

    Callers of `run_attempt` need it for an error that closes coroutines, `run_attempt` included.
    """
    return _judged(attempt, error, partial(classify, attempt))


def _judged(attempt: Attempt, error: Any, judge: Callable[[Any], Outcome]) -> Outcome:
    if attempt.local is not None:
        attempt.local.error = error
    try:
        return masked(judge(error), attempt)
    except BaseException as failure:
        return internal_error(attempt.id, failure)


def _load(attempt: Attempt) -> tuple[Any, Any]:
    if attempt.local is not None:
        return attempt.local.args, attempt.local.kwargs
    try:
        args, kwargs = decode_call(attempt.payload)
        check = attempt.spec.check
        if check is not None:
            # An enqueue by name does not check the arguments.
            check(tuple(args), kwargs)
        rebuilder = attempt.spec.call_rebuilder()
        return (args, kwargs) if rebuilder is None else rebuilder.apply(args, kwargs)
    except Exception as error:
        raise Unfit("unfit_arguments", error) from None


def _result_data(attempt: Attempt, value: Any) -> bytes:
    local = attempt.local
    if local is not None:
        local.returned = _local_value(attempt, value)
        return b""
    return value.data if isinstance(value, _Serialised) else _encoded(value)


def _encoded(value: Any) -> bytes:
    try:
        return encode_value(value)
    except Exception as error:
        raise Unfit("unfit_result", error) from None


def _local_value(attempt: Attempt, value: Any) -> Any:
    if not isinstance(value, _Serialised):
        return value
    plain, rebuild = decode_value(value.data), attempt.spec.rebuild
    return plain if rebuild is None else rebuild(plain)


async def _in_loop(attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> Any:
    args, kwargs = clock.load(attempt)
    clock.start()
    if attempt.spec.injector is not None:
        return await _injected(attempt, args, kwargs, executors)
    return await attempt.task.function(*args, **kwargs)


async def _in_thread(attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> Any:
    args, kwargs = clock.load(attempt)
    if attempt.spec.injector is not None:
        clock.start()
        return await _injected(attempt, args, kwargs, executors)
    value = await executors.threads.run(attempt.task.function, args, kwargs, on_start=clock.start)
    # A plain function, such as a wrapper, may return the coroutine of another one.
    return await value if _is_coroutine(value) else value


def _is_coroutine(value: object) -> bool:
    # By its type: an unbound proxy raises when asked for its class.
    return type(value) is CoroutineType


async def _injected(attempt: Attempt, args: Any, kwargs: Any, executors: ExecutorSet) -> Any:
    """Run with dependencies. Their clean-up is part of the attempt and of its timeout."""
    failure: BaseException | None = None
    task = attempt.task
    try:
        async with cast("Injector", attempt.spec.injector).filled(args, kwargs, executors) as (
            given,
            named,
        ):
            try:
                if task.task_options.executor == "thread":
                    value = await executors.threads.run(task.function, given, named)
                    if _is_coroutine(value):
                        value = await value
                else:
                    value = await task.function(*given, **named)
                # Serialise it while the dependencies are still open.
                return value if attempt.local is not None else _Serialised(_encoded(value), value)
            except BaseException as error:
                failure = error
                raise
        # A dependency may clean up after a failure, but cannot turn it into a success.
        if failure is None:
            failure = RuntimeError("a dependency ended the attempt")
        raise failure
    finally:
        # The error refers to this frame.
        del failure


async def _in_process(attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> _Serialised:
    local = attempt.local
    if local is not None:
        try:
            attempt.payload = attempt.spec.payload(local.args, local.kwargs)
        except Exception as error:
            raise Unfit("unfit_arguments", error) from None
    return _Serialised(await executors.run_in_process(attempt, clock.start))


_Run = Callable[[Attempt, ExecutorSet, _Clock], Awaitable[Any]]
_RUN: dict[str, _Run] = {"loop": _in_loop, "thread": _in_thread, "process": _in_process}

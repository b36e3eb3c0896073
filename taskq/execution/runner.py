"""One attempt, from arguments to Outcome. It knows no broker, and never raises for a user's error.

::

    enter the context ─> middleware ─> start the clock ─> load the arguments ─> run on the executor
                      ─> encode the result ─> classify what was raised ─> Outcome

A call that stays in this process is neither decoded nor encoded: see `LocalCall`.
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
from taskq.execution.context import JobContext, enter
from taskq.execution.executors.reports import ProcessDied, RemoteError, Unfit, failure_of, meant_by
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.middleware import through
from taskq.execution.ports import Injector

__all__ = [
    "classify",
    "interrupted",
    "judged",
    "run_attempt",
    "unfit_arguments",
    "unfit_result",
    "unforeseen",
]

_log = logging.getLogger("taskq.worker")


def classify(attempt: Attempt, error: BaseException) -> Outcome:
    """The outcome of an attempt that raised `error`.

    A cancellation counts as an interruption only when taskq asked for it; a task that cancels
    itself has failed. What a cancelled or released task makes of its interruption is no failure
    either: clients of databases turn it into errors of their own. An attempt that ends with its
    event loop is handed back.
    """
    why = attempt.interruption
    if why is not None and (why is not Interruption.TIMEOUT or is_a(error, asyncio.CancelledError)):
        return interrupted(attempt, why, failure_of(error)["traceback"])
    if attempt.mass_cancelled and not is_a(error, SystemExit, KeyboardInterrupt):
        # Its end is no fault of its own; these two may be what ends the program.
        return Released()
    if type(error) is RemoteError:
        return _remote(attempt, error)
    told, meant = failure_of(error), meant_by(error)
    if told["kind"] == "retry_later":
        return RetryAsked(told["delay"], told["text"])
    kind: FailureKind = "error"
    if told["kind"] == "reject":
        kind = "rejected"
    elif is_a(meant, ProcessDied):
        kind = "process_died"
    retry_in = attempt.retry.decide(meant, attempt.failures + 1)
    return Failed(told["type"], told["text"], told["traceback"], kind, retry_in)


def interrupted(attempt: Attempt, why: Interruption, trace: str = "") -> Outcome:
    """The outcome of an attempt that taskq itself stopped."""
    if why is Interruption.CANCEL:
        return Cancelled()
    if why is Interruption.TIMEOUT:
        error = TimeoutError(f"the attempt ran longer than its timeout of {attempt.timeout:g} s")
        retry_in = attempt.retry.decide(error, attempt.failures + 1)
        return Failed("TimeoutError", str(error), trace, "timeout", retry_in)
    return Released()


def unfit_arguments(error: Exception) -> Failed:
    """Arguments that cannot be read or do not fit the function: another attempt cannot help."""
    kind: FailureKind = "malformed" if is_a(error, PayloadError) else "unfit_arguments"
    told = failure_of(error)
    return Failed(told["type"], told["text"], "", kind)


def unfit_result(error: Exception) -> Failed:
    """The function returned what cannot travel: running it again would do its work twice."""
    told = failure_of(error)
    return Failed(told["type"], told["text"], "", "unfit_result")


def unforeseen(job_id: str, error: BaseException) -> Failed:
    """taskq itself failed: the job fails and others are unhurt, as with an error of the task."""
    told = failure_of(error)
    _log.error(
        "job %s failed by an error of taskq; please report it:\n%s",
        *(job_id, told["traceback"]),
        extra={"job": job_id, "error_type": told["type"]},
    )
    return Failed("TaskqError", f"taskq itself failed: {told['type']}", told["traceback"])


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
    """Run `attempt` once on the executor of its task, and say how it ended.

    Must be the whole of an asyncio task: an interruption cancels the task it runs in.
    """
    loop = asyncio.get_running_loop()
    attempt.begin(loop)
    enter(attempt)
    clock = _NO_LIMIT if attempt.timeout is None else _Clock(attempt, loop)
    try:
        run = _RUN[attempt.task.task_options.executor]
        if attempt.spec.middleware.attempts:
            value = await _wrapped(run, attempt, executors, clock)
        else:
            value = await run(attempt, executors, clock)
        return Succeeded(_seal(attempt, value))
    except Unfit as unfit:
        describe = unfit_arguments if unfit.kind == "unfit_arguments" else unfit_result
        return _judged(attempt, unfit.error, describe)
    except BaseException as error:
        return judged(attempt, error)
    finally:
        clock.stop()
        attempt.end()


class _Clock:
    """The attempt's timeout: time to load the arguments, and to run once a thread is free."""

    __slots__ = ("_attempt", "_left", "_loop", "_timer")

    def __init__(self, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> None:
        self._attempt = attempt
        self._loop = loop
        self._left = attempt.timeout or 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        # One timer handle, not asyncio.timeout(): that costs a fifth of the drain rate.
        self._timer = self._loop.call_later(
            self._left, self._attempt.interrupt, Interruption.TIMEOUT
        )

    def load(self, attempt: Attempt) -> tuple[Any, Any]:
        """Load the arguments. It blocks the loop, so that no timer could end it."""
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
    """The clock of attempts that have no timeout; all of them share one."""

    __slots__ = ()

    def __init__(self) -> None: ...

    def start(self) -> None: ...

    def load(self, attempt: Attempt) -> tuple[Any, Any]:
        return _load(attempt)

    def stop(self) -> None: ...


_NO_LIMIT: Final = _NoClock()


@dataclass(slots=True)
class _Sealed:
    """A value that was serialised where it was made; it is here too unless that was elsewhere."""

    data: bytes
    value: Any = _ELSEWHERE

    def opened(self) -> Any:
        return decode_value(self.data) if self.value is _ELSEWHERE else self.value


async def _wrapped(run: _Run, attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> Any:
    made: Any = None
    opened: Any = None

    async def innermost(_: JobContext) -> Any:
        nonlocal made, opened
        made = await run(attempt, executors, clock)
        opened = made.opened() if isinstance(made, _Sealed) else made
        return opened

    layers = attempt.spec.middleware.attempts
    value = await through(layers, JobContext(attempt), innermost)
    # What middleware leaves as it is need not be serialised again.
    return made if value is opened else value


def judged(attempt: Attempt, error: BaseException) -> Outcome:
    """The outcome of an attempt that raised `error`; never raises.

    For who runs it: an error that closes coroutines leaves `run_attempt` no answer to give.
    """
    return _judged(attempt, error, partial(classify, attempt))


def _judged(attempt: Attempt, error: Any, judge: Callable[[Any], Outcome]) -> Outcome:
    if attempt.local is not None:
        attempt.local.error = error
    try:
        return masked(judge(error), attempt)
    except BaseException as failure:
        return unforeseen(attempt.id, failure)


def _load(attempt: Attempt) -> tuple[Any, Any]:
    if attempt.local is not None:
        return attempt.local.args, attempt.local.kwargs
    try:
        args, kwargs = decode_call(attempt.payload)
        check = attempt.spec.check
        if check is not None:
            # Who enqueued it by name could not check it.
            check(tuple(args), kwargs)
        rebuilder = attempt.spec.call_rebuilder()
        return (args, kwargs) if rebuilder is None else rebuilder.apply(args, kwargs)
    except Exception as error:
        raise Unfit("unfit_arguments", error) from None


def _seal(attempt: Attempt, value: Any) -> bytes:
    local = attempt.local
    if local is not None:
        local.returned = _opened(attempt, value)
        return b""
    return value.data if isinstance(value, _Sealed) else _encoded(value)


def _encoded(value: Any) -> bytes:
    try:
        return encode_value(value)
    except Exception as error:
        raise Unfit("unfit_result", error) from None


def _opened(attempt: Attempt, value: Any) -> Any:
    if not isinstance(value, _Sealed):
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
    # A plain function, such as a wrapper or a lambda, may give the coroutine of another one.
    return await value if _is_coroutine(value) else value


def _is_coroutine(value: object) -> bool:
    # By its type: a proxy that leads nowhere raises when it is asked for its class.
    return type(value) is CoroutineType


async def _injected(attempt: Attempt, args: Any, kwargs: Any, executors: ExecutorSet) -> Any:
    """Run with dependencies. What they do at the end is part of the attempt, and of its timeout."""
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
                # Here, where what it needs is still open.
                return value if attempt.local is not None else _Sealed(_encoded(value), value)
            except BaseException as error:
                failure = error
                raise
        # A dependency may clean up after a failure, and never makes a success of it.
        if failure is None:
            failure = RuntimeError("a dependency ended the attempt")
        raise failure
    finally:
        # The error holds this frame.
        del failure


async def _in_process(attempt: Attempt, executors: ExecutorSet, clock: _Clock) -> _Sealed:
    local = attempt.local
    if local is not None:
        try:
            attempt.payload = attempt.spec.payload(local.args, local.kwargs)
        except Exception as error:
            raise Unfit("unfit_arguments", error) from None
    return _Sealed(await executors.run_in_process(attempt, clock.start))


_Run = Callable[[Attempt, ExecutorSet, _Clock], Awaitable[Any]]
_RUN: dict[str, _Run] = {"loop": _in_loop, "thread": _in_thread, "process": _in_process}

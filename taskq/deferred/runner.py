"""The deferred runner: what `f.defer(...)`, `q.defer(...)` and `q.deferred` are.

`HeldCalls` holds the calls of a request back until it is over: see `taskq.fastapi.AfterResponse`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, Unpack, overload

from taskq.core.errors import TaskqError
from taskq.core.job import JobState
from taskq.core.options import JobOptions
from taskq.core.signatures import register
from taskq.deferred.call import Call, CrossLoopEvent
from taskq.deferred.durable import Backing
from taskq.deferred.handover import check_enqueueable
from taskq.deferred.plain import PlainTasks
from taskq.deferred.report import (
    DeferredFailure,
    DeferredSettings,
    DeferredStats,
    ErrorHook,
    Report,
)
from taskq.deferred.runtime import Runtime, Runtimes
from taskq.execution.handle import Deferred
from taskq.execution.request import PLAIN
from taskq.execution.resources import STATE_KEY
from taskq.execution.task import JobOptionValues, Task, task_spec_of
from taskq.execution.task_context import TaskContext

__all__ = ["HELD", "ConfiguredRunner", "DeferredRunner", "HeldCalls"]

_log = logging.getLogger("taskq.deferred")


class HeldCalls:
    """The calls that one request has deferred, held back until it ends. Used in any thread."""

    def __init__(self) -> None:
        self._calls: list[tuple[Call, Callable[[Call], None]]] = []
        self._open = True
        self._lock = threading.Lock()

    def keep(self, call: Call, start: Callable[[Call], None]) -> bool:
        """Hold a call back, and pass it to `start` later; false when the request is over."""
        with self._lock:
            if self._open:
                call.accepted, call.before_waiting = CrossLoopEvent(), self._refuse_to_wait
                self._calls.append((call, start))
            return self._open

    def release(self) -> None:
        """Start the calls in their order: the request has succeeded."""
        for call, start in self._close():
            start(call)

    def drop(self, reason: str) -> None:
        """Cancel the calls and log a warning: the request has failed."""
        calls = [call for call, _ in self._close() if call.cancel()]
        if calls:
            _log.warning(
                "%d deferred calls are dropped because their request %s: %s",
                len(calls),
                reason,
                ", ".join(call.task.name for call in calls),
            )

    def _close(self) -> list[tuple[Call, Callable[[Call], None]]]:
        with self._lock:
            self._open = False
            calls, self._calls = self._calls, []
            return calls

    def _refuse_to_wait(self) -> None:
        """Raise where the request would wait for a call that waits for the request."""
        if self._open and HELD.get() is self:
            raise TaskqError(
                "this call starts when its request is over (AfterResponse), so the request cannot "
                "wait for it: await the function itself, or wait outside the request"
            )


HELD: Final = ContextVar[HeldCalls | None]("taskq_held", default=None)
"""Holds back the calls that are deferred in this context, if set."""

# A forked process never learns of the end of the request.
os.register_at_fork(after_in_child=lambda: HELD.set(None))


P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=ErrorHook)

MAX_DRAINS = 10
"""How often a drain is repeated at most, for calls deferred by calls that end."""


class DeferredRunner:
    """Runs calls in this process: `q.deferred`.

    Calls run in the event loop that opened the TaskQ, or else in the loop that defers first. In a
    script without an event loop they run in the background loop of `q.run`, and the program waits
    for them when it ends. `async with q` and `q.lifespan` drain the runner when they close; a
    program without a server opens the runner alone: `async with q.deferred`,
    `FastAPI(lifespan=q.deferred.lifespan)`.
    """

    def __init__(self, context: TaskContext, backing: Backing, settings: DeferredSettings) -> None:
        self.settings = settings
        self._context = context
        self._backing = backing
        self._report = Report(settings)
        self._plain = PlainTasks(context)
        self._runtimes = Runtimes(context, self._new_runtime)

    @overload
    def defer(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[R]: ...

    @overload
    def defer(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]: ...

    def defer(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run a function soon in this process; a plain `def` runs in a thread. See `Task.defer`.

        >>> handle = q.defer(send_mail, "ada@example.org")
        """
        return self.take(function, PLAIN, args, kwargs)

    def options(self, **changes: Unpack[JobOptionValues]) -> ConfiguredRunner:
        """Options for single calls: `q.deferred.options(timeout=5).defer(function, ...)`.

        Raises `UnknownOption` and `ConfigError`.
        """
        return ConfiguredRunner(self, self._plain, PLAIN.with_changes(**changes))

    def take(
        self,
        task: Task[Any, Any] | Callable[..., Any],
        options: JobOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
    ) -> Deferred[Any]:
        """Run a call soon: the common part of every `defer`.

        `context`: the call's context variables; by default a copy of the current ones. A call with
        a `context` is not held back until the end of its request.
        """
        task = self._plain.of(task)
        spec = task_spec_of(task)
        if spec.check is not None:
            spec.check(args, kwargs)
        if spec.conceal is not None:
            args, kwargs = spec.conceal(args, kwargs)
        runtime, here = self._runtimes.current()
        call = Call(task, options, args, kwargs, runtime.cancel, context)
        if options.durable:
            check_enqueueable(call)
        held = HELD.get() if context is None else None
        if held is not None and held.keep(call, self._admit_soon):
            return Deferred(call)
        if here:
            return Deferred(runtime.admission.admit(call))
        if runtime.admission.full:
            runtime.admission.check_from_thread(call)
        call.accepted = CrossLoopEvent()
        self._admit_soon(call)
        return Deferred(call)

    def stats(self) -> DeferredStats:
        """How many calls run and wait now, and how the others ended."""
        runtimes = [*self._runtimes]
        calls = [call for runtime in runtimes for call in [*runtime.call_queue.calls]]
        scheduled = sum(call.state is JobState.SCHEDULED for call in calls)
        running = sum(len(runtime.call_queue.slots.running) for runtime in runtimes)
        for_room = sum(len(runtime.admission.waiting_for_room) for runtime in runtimes)
        first = min((call.deferred_at for call in calls), default=None)
        return DeferredStats(
            running=running,
            waiting=len(calls) - running - scheduled + for_room,
            scheduled=scheduled,
            durable=sum(bool(call.owner) for call in calls),
            oldest=None if first is None else max(0.0, time.time() - first),
            **asdict(self._report.tally),
        )

    def failures(self) -> list[DeferredFailure]:
        """The last failures, the newest first."""
        return list(reversed(self._report.failures))

    def on_error(self, hook: H) -> H:
        """Call `hook` with each failure, in the event loop, with the call's context variables.

        >>> @q.deferred.on_error
        ... def report(failure): sentry_sdk.capture_exception(failure.error)
        """
        register(self._report.hooks, hook)
        return hook

    async def drain(self, grace: float | None = None) -> None:
        """Let calls end within `grace` seconds (default: the grace of the settings).

        Calls that have not ended by then are interrupted and enqueued. Those that cannot be
        enqueued are lost; each is logged. Calls deferred afterwards run as usual.
        """
        seconds = self.settings.grace if grace is None else grace
        for _ in range(MAX_DRAINS):
            runtime = self._runtimes.here()
            if runtime is None:
                return
            await runtime.drain(seconds, partial(self._runtimes.forget, runtime))
            # Calls deferred during the hand-over get no further grace.
            seconds = 0.0

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncGenerator[dict[str, Any], None]:
        """The lifespan of an ASGI application without a queue: `lifespan=q.deferred.lifespan`."""
        async with self:
            yield {STATE_KEY: self}

    async def __aenter__(self) -> DeferredRunner:
        self._context.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._context.drain()

    def reset_after_fork(self) -> None:
        """Start over in a forked process: the parent keeps the event loops and their calls."""
        self._runtimes.reset_after_fork()

    def _new_runtime(self, loop: asyncio.AbstractEventLoop) -> Runtime:
        middleware = self._context.middleware
        return Runtime(loop, self._backing, middleware, self.settings, self._report, self.stats)

    def _admit_soon(self, call: Call) -> None:
        runtime, _ = self._runtimes.current()
        runtime.loop.call_soon_threadsafe(self._admit_late, call)

    def _admit_late(self, call: Call) -> None:
        runtime = self._runtimes.here()
        if runtime is None:
            # The runtime it was meant for was drained meanwhile.
            runtime, here = self._runtimes.current()
            if not here:
                runtime.loop.call_soon_threadsafe(self._admit_late, call)
                return
        call.on_cancel = runtime.cancel
        runtime.admission.admit_late(call)


class ConfiguredRunner:
    """Options for single deferred calls; made by `q.deferred.options(...)`."""

    __slots__ = ("_options", "_plain", "_runner")

    def __init__(self, runner: DeferredRunner, plain: PlainTasks, options: JobOptions) -> None:
        self._runner = runner
        self._plain = plain
        self._options = options

    @overload
    def defer(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[R]: ...

    @overload
    def defer(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]: ...

    def defer(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run a function soon in this process, with these options."""
        return self._runner.take(self._plain.of(function), self._options, args, kwargs)

    def options(self, **changes: Unpack[JobOptionValues]) -> ConfiguredRunner:
        """Add further options."""
        return ConfiguredRunner(self._runner, self._plain, self._options.with_changes(**changes))

"""One deferred call: what was asked for, its state, how it ended, and who waits for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import datetime
from typing import Any

from taskq.core.durations import seconds
from taskq.core.errors import JobCancelled, JobExpired, JobFailed
from taskq.core.ids import IdSeries
from taskq.core.job import JobState
from taskq.core.options import JobOptions
from taskq.core.outcome import Failed
from taskq.execution.attempt import Attempt
from taskq.execution.handle import Job
from taskq.execution.request import PLAIN
from taskq.execution.task import Task

__all__ = ["BEHIND_OTHERS", "NOT_DUE", "PREPARING", "Call", "CrossLoopEvent", "WaitingCalls"]


class CrossLoopEvent:
    """An event that is set once, and awaited in any event loop and thread.

    Setting writes the flag before it looks for waiters; waiting adds the waiter before it looks at
    the flag. One of the two sees the other, whatever threads they run in.
    """

    __slots__ = ("_callbacks", "_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        """Set it, in a running event loop."""
        self.is_set = True
        here = asyncio.get_running_loop()
        while self._waiting:
            _wake(self._waiting.pop(), here)
        while self._callbacks:
            self._callbacks.pop()()

    def then(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it is set, or now; at least once, in any thread."""
        self._callbacks.append(callback)
        if self.is_set:
            callback()

    async def wait(self) -> None:
        """Wait until it is set."""
        here = asyncio.get_running_loop()
        future = here.create_future()
        self._waiting.append(future)
        if not self.is_set:
            await future


def _wake(future: asyncio.Future[None], here: asyncio.AbstractEventLoop) -> None:
    loop = future.get_loop()
    if loop is here:
        _resolve(future)
        return
    with suppress(RuntimeError):
        # A closed loop has no waiters left.
        loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


PREPARING, BEHIND_OTHERS, NOT_DUE = 1, 2, 4
"""The gates of a call, as bits. A call may start when none of them is set.

`BEHIND_OTHERS`: an earlier call with the same ordering key has not ended.
"""

WaitingCalls = OrderedDict["Call", None]
"""Calls that wait for a slot, or for room in the backlog, in their order."""

_next_id = IdSeries().next


class Call:
    """The state of one call. Changed in the runner's event loop only.

    `gates`: what it waits for before it may start. `waiting_in`: where it stands once it waits for
    a slot or for room only. `ordering_key`: calls that share it run one at a time. `revision`
    counts how often a later call changed what it asks for. `over` is final: it ended here, or `job`
    replaced it. `owner`: the token under which the queue keeps a durable call for this process;
    empty when the queue does not have it.
    """

    # Defaults that most calls never change stay on the class: writing them costs more than running
    # many a call.
    state = JobState.QUEUED
    over = False
    owner = ""
    gates = 0
    revision = 0
    attempts = 0
    failures = 0
    waiting_in: WaitingCalls | None = None
    ordering_key: tuple[str, ...] | None = None
    attempt: Attempt | None = None
    timer: asyncio.TimerHandle | None = None
    job: Job[Any] | None = None
    returned: Any = None
    failed: Failed | None = None
    error: BaseException | None = None
    refusal: BaseException | None = None
    accepted: CrossLoopEvent | None = None
    ended: CrossLoopEvent | None = None
    before_waiting: Callable[[], None] | None = None
    expires_at: float | None = None

    def __init__(
        self,
        task: Task[Any, Any],
        options: JobOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        on_cancel: Callable[[Call], bool],
        context: Context | None = None,
    ) -> None:
        self.id = options.id or _next_id()
        self.task = task
        self.options = options
        self.args = args
        self.kwargs = kwargs
        self.context = copy_context() if context is None else context
        self.on_cancel = on_cancel
        self.deferred_at = time.time()
        if options.expires is not None or task.task_options.expires is not None:
            self.expires_at = _expires_at(task, options)

    def update_from(self, later: Call) -> None:
        """Ask for what a later call of the same key asks for."""
        self.revision += 1
        self.task, self.options, self.context = later.task, later.options, later.context
        self.args, self.kwargs, self.expires_at = later.args, later.kwargs, later.expires_at

    def next_attempt(self) -> Attempt:
        """The attempt that is about to run."""
        self.attempts += 1
        task, options = self.task, self.options
        attempt = Attempt(task, self.id, b"", number=self.attempts, failures=self.failures)
        attempt.local = self
        attempt.worker = "deferred"
        if options is not PLAIN:
            attempt.headers = options.headers
            if options.timeout is not None:
                attempt.timeout = options.timeout
            if options.retry is not None:
                attempt.retry = options.retry
            if options.queue is not None:
                attempt.queue = options.queue
        attempt.enqueued_ms = int(self.deferred_at * 1000)
        self.attempt = attempt
        return attempt

    def end(self, state: JobState) -> None:
        """Record the final state, and wake those who wait for it."""
        self.state = state
        self.close()

    def close(self) -> None:
        """Mark it as over, and release what only a call that may still run needs."""
        self.over = True
        self.stop_waiting()
        del self.args, self.kwargs, self.context
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.accepted is not None:
            self.accepted.set()
        if self.ended is not None:
            self.ended.set()

    def wait_in(self, waiting: WaitingCalls) -> None:
        """Wait behind the other calls of `waiting`."""
        waiting[self] = None
        self.waiting_in = waiting

    def stop_waiting(self) -> None:
        """Leave the calls it waits among, if it does."""
        if self.waiting_in is not None:
            del self.waiting_in[self]
            self.waiting_in = None

    def accept(self, refusal: BaseException | None = None) -> None:
        """Answer `accepted()`; `refusal`: why the call was not taken or stored after all."""
        if refusal is not None:
            self.refusal = refusal
        if self.accepted is not None:
            self.accepted.set()

    def follow(self, other: Call) -> None:
        """End as `other` does, which runs in place of this one."""
        if other.ended is None:
            other.ended = CrossLoopEvent()

        def end_alike() -> None:
            if not self.over:
                self.returned, self.failed, self.error = other.returned, other.failed, other.error
                self.job = other.job
                self.end(other.state)

        if other.accepted is None:
            self.accept(other.refusal)
        else:
            other.accepted.then(lambda: self.accept(other.refusal))
        if other.over:
            end_alike()
        else:
            other.ended.then(end_alike)

    async def until_over(self) -> None:
        """Wait until it is over."""
        if self.before_waiting is not None:
            self.before_waiting()
        if self.ended is None:
            self.ended = CrossLoopEvent()
        if not self.over:
            await self.ended.wait()

    async def until_accepted(self) -> None:
        """Wait until it is accepted; raises why it could not be."""
        if self.before_waiting is not None:
            self.before_waiting()
        if self.accepted is not None:
            await self.accepted.wait()
        if self.refusal is not None:
            raise self.refusal

    def cancel(self) -> bool:
        """Cancel it; false when it was over."""
        return not self.over and self.on_cancel(self)

    def value(self) -> Any:
        """What the function returned; raises `JobFailed`, `JobCancelled` or `JobExpired`."""
        if self.state is JobState.SUCCEEDED:
            return self.returned
        if self.state is JobState.CANCELLED:
            raise JobCancelled(f"the deferred call {self.id} was cancelled", job_id=self.id)
        if self.state is JobState.EXPIRED:
            raise JobExpired(
                f"the deferred call {self.id} expired before it could start", job_id=self.id
            )
        failed = self.failed or Failed("Lost", "it never ran", "")
        raise JobFailed(
            f"the deferred call {self.id} of {self.task.name} failed: {failed.error_type}: "
            f"{failed.error_text}",
            job_id=self.id,
            error_type=failed.error_type,
            error_text=failed.error_text,
            traceback=failed.traceback,
        ) from self.error


def _expires_at(task: Task[Any, Any], options: JobOptions) -> float:
    """When the call expires, on this process's monotonic clock: the call starts here."""
    expires: Any = options.expires
    if expires is None:
        expires = task.task_options.expires
    if isinstance(expires, datetime):
        return time.monotonic() + expires.timestamp() - time.time()
    return time.monotonic() + seconds("expires", expires)

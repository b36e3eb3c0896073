"""One deferred call: what was asked for, how far it has come, how it ended, and who waits."""

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

__all__ = ["Call", "CrossLoopEvent", "Row"]


class CrossLoopEvent:
    """Set once; waiting for it afterwards takes no time.

    Setting writes the flag before it looks for waiters, and waiting leaves the waiter before it
    looks at the flag: one of the two sees the other, whatever threads they run in.
    """

    __slots__ = ("_callbacks", "_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        """It has happened. Called in an event loop."""
        self.is_set = True
        here = asyncio.get_running_loop()
        while self._waiting:
            _tell(self._waiting.pop(), here)
        while self._callbacks:
            self._callbacks.pop()()

    def then(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it happens, or now; at least once, in any thread."""
        self._callbacks.append(callback)
        if self.is_set:
            callback()

    async def wait(self) -> None:
        """Wait until it has happened."""
        here = asyncio.get_running_loop()
        future = here.create_future()
        self._waiting.append(future)
        if not self.is_set:
            await future


def _tell(future: asyncio.Future[None], here: asyncio.AbstractEventLoop) -> None:
    loop = future.get_loop()
    if loop is here:
        _resolve(future)
        return
    with suppress(RuntimeError):
        # That loop may be closed: nobody waits there any more.
        loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


PREPARING, IN_LINE, NOT_DUE = 1, 2, 4
"""The gates of a call: it may start when it waits behind none."""

Row = OrderedDict["Call", None]
"""Calls that wait for the same thing, in their order: all of them may go on when it comes."""

_next_id = IdSeries().next


class Call:
    """What the runner keeps of one call. Changed in the runner's event loop only.

    `gates` are those it waits behind, `row` the one it stands in when it waits behind none: for a
    slot, or for room. `edition` counts how often a later call changed what it asks for. `over` is
    final: it ended here, or `job` has taken its place. `owner` is the token under which the queue
    keeps it for this process; empty when it does not.
    """

    # What most calls never change stays the class's: writing it costs more than running many.
    state = JobState.QUEUED
    over = False
    owner = ""
    gates = 0
    edition = 0
    attempts = 0
    failures = 0
    row: Row | None = None
    line: tuple[str, ...] | None = None
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
        self.asked_at = time.time()
        if options.expires is not None or task.task_options.expires is not None:
            self.expires_at = _expires_at(task, options)

    def amend(self, later: Call) -> None:
        """Ask for what a later call of the same key asks for."""
        self.edition += 1
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
        attempt.enqueued_ms = int(self.asked_at * 1000)
        self.attempt = attempt
        return attempt

    def end(self, state: JobState) -> None:
        """It is over, and whoever waits is told."""
        self.state = state
        self.close()

    def close(self) -> None:
        """Let go of everything that only a call to come needs."""
        self.over = True
        self.step_out()
        del self.args, self.kwargs, self.context
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.accepted is not None:
            self.accepted.set()
        if self.ended is not None:
            self.ended.set()

    def stand_in(self, row: Row) -> None:
        """Stand at the end of a row."""
        row[self] = None
        self.row = row

    def step_out(self) -> None:
        """Leave the row it stands in, if it does."""
        if self.row is not None:
            del self.row[self]
            self.row = None

    def accept(self, refusal: BaseException | None = None) -> None:
        """There is room for it; `refusal`: why it could not be taken or stored after all."""
        if refusal is not None:
            self.refusal = refusal
        if self.accepted is not None:
            self.accepted.set()

    def follow(self, other: Call) -> None:
        """End as `other` does, which runs in place of this one."""
        if other.ended is None:
            other.ended = CrossLoopEvent()

        def same() -> None:
            if not self.over:
                self.returned, self.failed, self.error = other.returned, other.failed, other.error
                self.job = other.job
                self.end(other.state)

        if other.accepted is None:
            self.accept(other.refusal)
        else:
            other.accepted.then(lambda: self.accept(other.refusal))
        if other.over:
            same()
        else:
            other.ended.then(same)

    async def until_over(self) -> None:
        """Wait until it is over."""
        if self.before_waiting is not None:
            self.before_waiting()
        latch = self.ended
        if latch is None:
            latch = self.ended = CrossLoopEvent()
        if self.over:
            return
        await latch.wait()

    async def until_accepted(self) -> None:
        """Wait until it is taken; raises why it could not be."""
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
        """What the function returned; raises why there is nothing."""
        if self.state is JobState.SUCCEEDED:
            return self.returned
        if self.state is JobState.CANCELLED:
            raise JobCancelled(f"the deferred call {self.id} was cancelled", job_id=self.id)
        if self.state is JobState.EXPIRED:
            raise JobExpired(
                f"the deferred call {self.id} expired before it could start", job_id=self.id
            )
        failed = self.failed or Failed("Lost", "nobody ran it", "")
        raise JobFailed(
            f"the deferred call {self.id} of {self.task.name} failed: {failed.error_type}: "
            f"{failed.error_text}",
            job_id=self.id,
            error_type=failed.error_type,
            error_text=failed.error_text,
            traceback=failed.traceback,
        ) from self.error


def _expires_at(task: Task[Any, Any], options: JobOptions) -> float:
    """On this process's own clock, for it is this process that starts it."""
    expires: Any = options.expires
    if expires is None:
        expires = task.task_options.expires
    if isinstance(expires, datetime):
        return time.monotonic() + expires.timestamp() - time.time()
    return time.monotonic() + seconds("expires", expires)

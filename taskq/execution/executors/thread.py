"""Runs plain functions in threads of taskq's own.

In the thread pools of asyncio or AnyIO, a few slow tasks would starve everything else that needs a
thread, such as the `def` endpoints of a web application. concurrent.futures has no daemon threads:
it joins its threads at exit, so that one function that never returns would keep the process alive.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from taskq.core.errors import ConfigError
from taskq.core.exception_types import is_a, name_of

__all__ = ["ThreadExecutor"]

T = TypeVar("T")

_NO_KEYWORDS: Mapping[str, Any] = {}


@dataclass(slots=True, eq=False)
class _Call:
    """One call on its way to a thread and back.

    Only the thread uses `value` and `error` until it reports the call; only the loop uses the rest.
    """

    fn: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    context: Context
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None
    abandoned: bool = False
    ended: bool = False

    def execute(self) -> None:
        if self.abandoned:
            return
        try:
            self.value = self.context.run(self.fn, *self.args, **self.kwargs)
        except BaseException as error:
            self.error = error
        finally:
            # The error refers to this frame; a reference from here to the call, which refers to the
            # error, would be a cycle that keeps all of the function's values alive.
            del self

    def deliver(self) -> None:
        error, value = self.error, self.value
        self.error = self.value = None
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        elif is_a(error, StopIteration, GeneratorExit):
            # A future cannot carry them, as they would end the coroutines that await it. Python
            # treats a coroutine that raises StopIteration in the same way.
            wrapped = RuntimeError(f"the function raised {name_of(type(error))}")
            wrapped.__cause__ = error
            self.future.set_exception(wrapped)
        else:
            self.future.set_exception(error)


def _work(queue: SimpleQueue[_Call | None], report: Callable[[_Call], None]) -> None:
    while (call := queue.get()) is not None:
        call.execute()
        report(call)
        # An idle thread must not keep the arguments of its last call alive.
        del call


class ThreadExecutor:
    """Runs functions in daemon threads, at most `limit` at once, in order of arrival.

    A call whose caller is cancelled cannot be stopped: its thread is *leaked* until the function
    returns. Leaked threads do not count against `limit`; the caller decides how many are too many.
    An executor belongs to the event loop that first uses it.

    `limit`: how many calls run at once, 1 or more. Raises `ConfigError` for less.

    >>> executor = ThreadExecutor(limit=40)
    >>> await executor.run(resize, ("a.png",), {"width": 400})
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ConfigError(f"limit={limit} leaves no thread to run a task: use 1 or more")
        self._limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._ended: deque[_Call] = deque()
        self._waking = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._names = itertools.count(1)
        # Living threads, including leaked ones: at least `running + leaked`, at most
        # `limit + leaked`. Changed only in the loop.
        self._threads = 0
        self._running = 0
        self._leaked = 0
        self._closed = False
        self._idle = asyncio.Event()

    @property
    def running(self) -> int:
        """How many awaited calls run now."""
        return self._running

    @property
    def leaked(self) -> int:
        """How many threads still run a function whose caller was cancelled."""
        return self._leaked

    async def run(
        self,
        fn: Callable[..., T],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] = _NO_KEYWORDS,
        *,
        on_start: Callable[[], None] | None = None,
    ) -> T:
        """Call `fn` in a thread, in a copy of the caller's context, and return its value.

        `on_start` is called in the loop when a thread is free and the call begins, so that waiting
        for a thread does not count against a timeout.

        Raises what `fn` raises, including `BaseException`s such as `SystemExit` (`StopIteration`
        and `GeneratorExit` as the cause of a `RuntimeError`), and `RuntimeError` once the executor
        is closed. If the awaiting task is cancelled, `CancelledError` is raised at once and the
        thread is leaked.
        """
        await self._slots.acquire()
        call: _Call | None = None
        self._running += 1
        try:
            loop = self._bound_loop()
            self._ensure_thread()
            if on_start is not None:
                on_start()
            call = _Call(fn, args, kwargs, copy_context(), loop.create_future())
            self._calls.put(call)
            return await call.future
        finally:
            self._running -= 1
            if call is not None and not call.ended:
                call.abandoned = True
                self._leaked += 1
            self._slots.release()
            if self._closed and not self._running:
                self._idle.set()
            # The call refers to the future, which refers to the error that passes through this
            # frame.
            del call

    async def aclose(self, grace: float = 0.0) -> None:
        """Stop the threads: idle ones now, running ones when their function returns.

        Waits at most `grace` seconds for running calls, but not for leaked ones, which are daemon
        threads and end with the process. May be called twice.
        """
        self._closed = True
        # Every call in the queue has a thread of its own, and the queue is in order, so a thread
        # stops only after the calls before it.
        for _ in range(self._threads):
            self._calls.put(None)
        self._threads = 0
        if self._running and grace > 0:
            # The last call to end sets it after `_closed`.
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._idle.wait()

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("the thread executor is closed and takes no more calls")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "the thread executor belongs to another event loop: create one for each loop"
            )
        return loop

    def _ensure_thread(self) -> None:
        if self._threads >= self._running + self._leaked:
            return
        thread = threading.Thread(
            target=_work,
            args=(self._calls, self._report),
            name=f"taskq-thread-{next(self._names)}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            if threading.main_thread().is_alive():
                raise
            # From Python 3.12 on, no thread can start while the interpreter shuts down. Existing
            # threads take the call in turn; if there are none, the loop runs it.
            if not self._threads:
                self._bound_loop().call_soon(self._work_in_loop)
            return
        self._threads += 1

    def _work_in_loop(self) -> None:
        with suppress(Empty):
            call = self._calls.get_nowait()
            if call is not None:
                call.execute()
                self._report(call)

    def _report(self, call: _Call) -> None:
        """Report an ended call from its thread; one wake-up of the loop serves several calls."""
        self._ended.append(call)
        # `_settle` clears the flag before it empties the deque, so a thread that reads True here
        # has its call taken along. Two threads that read False wake the loop twice, which is
        # harmless.
        if self._waking:
            return
        self._waking = True
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            # The loop is closed, and with it the caller.
            return

    def _settle(self) -> None:
        self._waking = False
        while self._ended:
            call = self._ended.popleft()
            call.ended = True
            if call.abandoned:
                self._leaked -= 1
                self._stop_surplus_thread()
            call.deliver()

    def _stop_surplus_thread(self) -> None:
        if self._threads > self._limit + self._leaked:
            self._threads -= 1
            self._calls.put(None)

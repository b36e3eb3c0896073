"""The one door from synchronous code: a background event loop."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import inspect
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from taskq.core.errors import TaskqError
from taskq.execution.address import refuse_unguarded_main

__all__ = ["Portal"]

T = TypeVar("T")

_Farewell = Callable[[], Coroutine[Any, Any, None]]


class _LoopThread(threading.Thread):
    """Runs `loop` until it is ended; then awaits `farewell` and cancels what is left."""

    def __init__(self, farewell: _Farewell | None) -> None:
        super().__init__(name="taskq-portal", daemon=True)
        self.loop = asyncio.new_event_loop()
        self._farewell = farewell
        self._ended = False

    def run(self) -> None:
        """What the thread does."""
        loop = self.loop
        try:
            while not self._ended:
                # asyncio ends a loop for these two, and the loop has other callers.
                with suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
        finally:
            if self._farewell is not None:
                loop.run_until_complete(self._farewell())
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=1.0))
            loop.close()

    def end(self, patience: float) -> None:
        """End the thread, and wait `patience` seconds for that."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._stop_loop)
        if self is not threading.current_thread():
            self.join(patience)

    def _stop_loop(self) -> None:
        self._ended = True
        self.loop.stop()


_inherited: Final[list[_LoopThread]] = []
"""Of a parent process. Closed here, their loops would take its sockets out of its own poll."""


class Portal:
    """Runs awaitables on a loop in a daemon thread of its own, started when first used.

    The thread ends with the portal, or with the interpreter. `farewell` is awaited there last: it
    closes what belongs to the loop, and the interpreter waits `patience` seconds for it. A forked
    process has none of the threads of its parent: it gets a loop of its own when it first needs
    one. AnyIO's portal was measured and not taken: see docs/decisions/0009-two-libraries.md.
    """

    def __init__(self, farewell: _Farewell | None = None, patience: float = 1.0) -> None:
        self._farewell = farewell
        self._patience = patience
        self._thread: _LoopThread | None = None
        self._lock = threading.Lock()
        self._ending: weakref.finalize[..., Portal] | None = None
        _portals.add(self)

    def run(self, awaitable: Awaitable[T], timeout: float | None = None) -> T:
        """Run `awaitable` to its end; `timeout` is in seconds.

        Raises `TaskqError` in a coroutine, whose event loop this call would block, and when the
        interpreter can no longer start threads; `ConfigError` in a process that only imports the
        main module.
        """
        try:
            refuse_unguarded_main()
            _refuse_in_a_coroutine()
            loop = self._started()
        except TaskqError:
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()
            raise
        try:
            if loop is None:
                return asyncio.run(_alone(awaitable, timeout, self._farewell))
            return _result(asyncio.run_coroutine_threadsafe(_coroutine(awaitable), loop), timeout)
        except RuntimeError as error:
            if _is_of_shutdown(error):
                raise TaskqError(
                    "the interpreter is shutting down and can no longer start threads, which a new "
                    "connection may need; call q.run() before the program ends, in a `finally:` "
                    "for example, and not in an atexit handler"
                ) from error
            raise

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started if it is not running yet.

        Raises `ConfigError` in a process that only imports the main module, and `TaskqError` when
        the interpreter shuts down.
        """
        refuse_unguarded_main()
        loop = self._started()
        if loop is None:
            raise TaskqError("the interpreter is shutting down: there is no event loop to use")
        return loop

    def owns(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is that of this portal."""
        return self._thread is not None and loop is self._thread.loop

    def _started(self) -> asyncio.AbstractEventLoop | None:
        """The loop; None when the interpreter shuts down, and its thread has ended already."""
        with self._lock:
            if self._thread is None:
                thread = _LoopThread(self._farewell)
                try:
                    thread.start()
                except RuntimeError:
                    thread.loop.close()
                    return None
                self._thread = thread
                self._ending = weakref.finalize(self, thread.end, 1.0)
                self._ending.atexit = False
                atexit.register(_end_at_exit, weakref.ref(self), thread)
            loop = self._thread.loop
            return None if loop.is_closed() else loop

    def reset_after_fork(self) -> None:
        """In a forked process: leave the loop to the parent, whose thread runs it."""
        # A thread of the parent may hold the previous lock.
        self._lock = threading.Lock()
        if self._thread is not None:
            _inherited.append(self._thread)
        if self._ending is not None:
            self._ending.detach()
        self._thread, self._ending = None, None

    def end(self, thread: _LoopThread) -> None:
        """End this thread, unless it belongs to a parent process, and wait for its farewell."""
        if self._thread is thread:
            thread.end(self._patience)


_portals: Final[weakref.WeakSet[Portal]] = weakref.WeakSet()


def _forked() -> None:
    for portal in _portals:
        portal.reset_after_fork()


os.register_at_fork(after_in_child=_forked)


def _end_at_exit(known: weakref.ref[Portal], thread: _LoopThread) -> None:
    portal = known()
    if portal is not None:
        portal.end(thread)


def _result(future: concurrent.futures.Future[T], timeout: float | None) -> T:
    try:
        return future.result(timeout)
    except BaseException:
        future.cancel()
        raise


async def _alone(awaitable: Awaitable[T], timeout: float | None, farewell: _Farewell | None) -> T:
    """Run in a new loop, at the end of the interpreter, when the background loop has ended."""
    try:
        async with asyncio.timeout(timeout):
            return await awaitable
    finally:
        if farewell is not None:
            await farewell()


def _is_of_shutdown(error: RuntimeError) -> bool:
    """Whether Python refused to start a thread: `cannot schedule new futures after shutdown`."""
    return "shutdown" in str(error) and not threading.main_thread().is_alive()


def _refuse_in_a_coroutine() -> None:
    if _in_a_coroutine():
        raise TaskqError("q.run() would block the event loop it is called in; use `await` instead")


def _in_a_coroutine() -> bool:
    """Whether the caller is a coroutine, or was called by one.

    A notebook runs a cell in a task too, but a cell may block it: the cell itself is not a
    coroutine, and its frame is found first.
    """
    try:
        if asyncio.current_task() is None:
            return False
    except RuntimeError:
        return False
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        if frame.f_code.co_flags & inspect.CO_COROUTINE:
            return True
        frame = frame.f_back
    return False


def _coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    # Not wrapped when it is one: cancelled before it starts, it would never have been awaited.
    if inspect.iscoroutine(awaitable):
        return awaitable

    async def wait() -> T:
        return await awaitable

    return wait()

"""The soft time limit of a process job: `SoftTimeout`, raised inside the user's code.

SIGALRM rather than a thread: it also interrupts what waits in a system call, such as `time.sleep`.
Python runs the handler in the main thread between two bytecodes, and the handler raises there. So
three places must be safe from it: a frame half written to the pipe (`held`), the time after the
function returned (`disarm`), and the inside of the event loop (`_Interruptible`).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from taskq.core.errors import SoftTimeout

__all__ = ["SoftLimit"]

# How often, and for how long each time, an alarm waits where an error would do harm.
_PATIENCE = 50
_PAUSE = 0.001

# The alarm is repeated until it is heard: one that rings just before a system call is noticed only
# when the call returns, and a `time.sleep` of a minute would have its minute.
_AGAIN = 0.05

_SWALLOWING = frozenset({"_weakrefset", "weakref"})


class SoftLimit:
    """Raises `SoftTimeout` in the running function, once, when its seconds have passed.

    Belongs to the main thread. Between `arm` and `disarm` the process's SIGALRM is its own;
    otherwise it is the user's.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._armed = False
        self._held = False
        self._due = False
        self._patience = 0
        self._users: Any = signal.SIG_DFL
        self._driver: _Interruptible | None = None

    def arm(self, seconds: float | None) -> None:
        """Start the clock; None for no limit."""
        if seconds is None:
            return
        self._seconds = seconds
        self._due = False
        self._patience = _PATIENCE
        self._armed = True
        self._users = signal.signal(signal.SIGALRM, self._on_alarm)
        # Zero would switch the timer off.
        _ring(max(seconds, 0.000_001))

    def disarm(self) -> None:
        """Stop the clock. An alarm on its way raises before the first line here or not at all."""
        if self._armed:
            self._armed = False
            self._give_back()

    @contextmanager
    def held(self) -> Generator[None]:
        """Inside, an alarm waits: what is done here is done whole or not at all."""
        if threading.current_thread() is not threading.main_thread():
            # Handlers run in the main thread only; another thread is never interrupted.
            yield
            return
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._due:
                self._fire(None)

    async def drive(self, coroutine: Coroutine[Any, Any, Any], seconds: float | None) -> Any:
        """Await `coroutine` under the limit; it gets `SoftTimeout` at its current await.

        What it awaits is cancelled, but for the members of an `asyncio.TaskGroup` that it waits
        for at the end of the `async with`: the group does not take the error for a cancellation.
        """
        self._driver = _Interruptible(coroutine, self._error, asyncio.current_task())
        self.arm(seconds)
        try:
            return await self._driver
        finally:
            self.disarm()
            self._driver = None

    def _on_alarm(self, _signum: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        if self._held:
            self._due = True
        else:
            self._fire(frame)

    def _fire(self, frame: FrameType | None) -> None:
        if not self._armed:
            return
        driver = self._driver
        inside = driver is None or driver.runs(frame)
        if inside and self._patience and _would_do_harm(frame):
            # It is over in microseconds, unless such code only stands between two functions of the
            # user: hence the limit to patience.
            self._patience -= 1
            _ring(_PAUSE)
            return
        self._armed = self._due = False
        self._give_back()
        if driver is not None and not inside:
            driver.interrupt_soon()
        else:
            raise self._error()

    def _give_back(self) -> None:
        """The alarm is the user's again; one that is on its way is heard here, and ignored."""
        _silence()
        # None: it was set by a library in C, and Python cannot set it again. Another one than ours:
        # the function has set it meanwhile.
        if self._users is not None and signal.getsignal(signal.SIGALRM) == self._on_alarm:
            signal.signal(signal.SIGALRM, self._users)

    def _error(self) -> SoftTimeout:
        return SoftTimeout(f"the soft limit of {self._seconds:g} s passed")


class _Interruptible:
    """Awaits a coroutine, step by step, and can raise an error of its own at the current await.

    asyncio can only throw `CancelledError` into a task. The task is cancelled, so that whatever it
    waits for is cancelled as well, and the cancellation is exchanged for the error on its way in.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        error: Callable[[], BaseException],
        task: asyncio.Task[Any] | None,
    ) -> None:
        self._coroutine = coroutine
        self._error = error
        self._task = task
        self._inside = False
        self._interrupted = False
        self._over = False

    def runs(self, frame: FrameType | None) -> bool:
        """Whether the user's code is what the alarm interrupted, not the loop or this class."""
        return self._inside and (frame is None or frame.f_code is not _STEPS)

    def interrupt_soon(self) -> None:
        """Have the loop interrupt the coroutine; called from the signal handler."""
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._task is not None and not self._over:
            self._interrupted = True
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = None
        try:
            while True:
                self._inside = True
                try:
                    if thrown is None:
                        awaited = self._coroutine.send(None)
                    else:
                        awaited = self._coroutine.throw(thrown)
                except StopIteration as stop:
                    return stop.value
                finally:
                    self._inside = False
                try:
                    yield awaited
                    thrown = None
                except BaseException as error:
                    thrown = self._exchanged(error)
        finally:
            self._over = True

    def _exchanged(self, error: BaseException) -> BaseException:
        if not self._interrupted or not isinstance(error, asyncio.CancelledError):
            return error
        self._interrupted = False
        if self._task is not None:
            self._task.uncancel()
        return self._error()


def _ring(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)


def _silence() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


_STEPS = _Interruptible.__await__.__code__


def _would_do_harm(frame: FrameType | None) -> bool:
    """Whether an error raised in this frame would be swallowed or break what runs the function.

    Finalisers and weak references swallow what is raised in them; asyncio would leave half a task
    or half a lock behind.
    """
    while frame is not None and frame.f_code is not _STEPS:
        module = frame.f_globals.get("__name__", "")
        if module in _SWALLOWING or module.startswith("asyncio."):
            return True
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False

"""The soft timeout of a process job: raises `SoftTimeout` inside the user's code.

It uses SIGALRM rather than a thread, because that also interrupts system calls such as
`time.sleep`. Python runs the handler in the main thread between two bytecodes, and the handler
raises there. Three places must be protected from it: a frame half written to the pipe (`held`), the
time after the function has returned (`disarm`), and the inside of the loop (`_Interruptible`).
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

# How often, and for how many seconds each time, an alarm is put off where an error would do harm.
_MAX_DELAYS = 50
_DELAY = 0.001

# The alarm repeats until it takes effect: one that arrives just before a system call is noticed
# only when the call returns, and a `time.sleep` of a minute would last a minute.
_REPEAT = 0.05

_SWALLOWING = frozenset({"_weakrefset", "weakref"})


class SoftLimit:
    """Raises `SoftTimeout` once in the running function when its time is over.

    Used only in the main thread. Between `arm` and `disarm` it owns SIGALRM of the process;
    otherwise the signal belongs to the user's code.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._armed = False
        self._held = False
        self._due = False
        self._delays_left = 0
        self._user_handler: Any = signal.SIG_DFL
        self._driver: _Interruptible | None = None

    def arm(self, seconds: float | None) -> None:
        """Start the clock; None for no limit."""
        if seconds is None:
            return
        self._seconds = seconds
        self._due = False
        self._delays_left = _MAX_DELAYS
        self._armed = True
        self._user_handler = signal.signal(signal.SIGALRM, self._on_alarm)
        # Zero would switch the timer off.
        _set_alarm(max(seconds, 0.000_001))

    def disarm(self) -> None:
        """Stop the clock. A pending alarm raises before the first line here or not at all."""
        if self._armed:
            self._armed = False
            self._give_back()

    @contextmanager
    def held(self) -> Generator[None]:
        """A block that an alarm does not interrupt: it runs as a whole or not at all."""
        if threading.current_thread() is not threading.main_thread():
            # Handlers run only in the main thread; other threads are never interrupted.
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
        """Await `coroutine` under the limit; `SoftTimeout` is raised at its current await.

        What it awaits is cancelled, except for members of an `asyncio.TaskGroup` that it waits for
        at the end of the `async with`, because the group does not see the error as a cancellation.
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
        if inside and self._delays_left and _would_do_harm(frame):
            # That code ends in microseconds, unless it merely calls another function of the user:
            # hence the limit on delays.
            self._delays_left -= 1
            _set_alarm(_DELAY)
            return
        self._armed = self._due = False
        self._give_back()
        if driver is not None and not inside:
            driver.interrupt_soon()
        else:
            raise self._error()

    def _give_back(self) -> None:
        """Give SIGALRM back to the user's code; a pending alarm is handled here and ignored."""
        _clear_alarm()
        # None: a C library set it, and Python cannot restore it. If the current handler is not
        # ours, the function has set its own in the meantime.
        if self._user_handler is not None and signal.getsignal(signal.SIGALRM) == self._on_alarm:
            signal.signal(signal.SIGALRM, self._user_handler)

    def _error(self) -> SoftTimeout:
        return SoftTimeout(f"the soft limit of {self._seconds:g} s passed")


class _Interruptible:
    """Awaits a coroutine step by step, and can raise an error at its current await.

    asyncio can only throw `CancelledError` into a task. So the task is cancelled, and with it what
    it waits for, and the cancellation is replaced by the error before the coroutine sees it.
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
        """Whether the alarm interrupted the user's code rather than the loop or this class."""
        return self._inside and (frame is None or frame.f_code is not _STEPS)

    def interrupt_soon(self) -> None:
        """Make the loop interrupt the coroutine; called from the signal handler."""
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
                    thrown = self._replaced(error)
        finally:
            self._over = True

    def _replaced(self, error: BaseException) -> BaseException:
        if not self._interrupted or not isinstance(error, asyncio.CancelledError):
            return error
        self._interrupted = False
        if self._task is not None:
            self._task.uncancel()
        return self._error()


def _set_alarm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT)


def _clear_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


_STEPS = _Interruptible.__await__.__code__


def _would_do_harm(frame: FrameType | None) -> bool:
    """Whether an error raised in this frame would be swallowed, or break what runs the function.

    Finalisers and weak references swallow errors; asyncio would leave a task or a lock in an
    inconsistent state.
    """
    while frame is not None and frame.f_code is not _STEPS:
        module = frame.f_globals.get("__name__", "")
        if module in _SWALLOWING or module.startswith("asyncio."):
            return True
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False

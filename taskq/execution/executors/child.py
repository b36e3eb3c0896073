"""The child's side of the process executor: imports functions and runs them, one at a time.

A child lives as long as its pipe to the parent. It is told addresses, which the parent made from
registered functions, and never names out of a message.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import logging
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from types import CoroutineType, FrameType, TracebackType
from typing import Any, NoReturn, Protocol

from taskq.codec.payload import decode_call, encode_value
from taskq.codec.rebuild import CallRebuilder
from taskq.core.job import Progress
from taskq.core.signals import stop_signals
from taskq.core.signatures import call_signature
from taskq.execution.context import DistantJob, enter
from taskq.execution.executors.address import FunctionAddress, load_function
from taskq.execution.executors.frames import (
    HEADER_SIZE,
    frame_size,
    pack_frame,
    unpack_frame,
)
from taskq.execution.executors.reports import LogSender, Unfit, failure_of, set_levels
from taskq.execution.executors.soft_limit import SoftLimit
from taskq.execution.lifespan import run_through
from taskq.execution.ports import RunningJob

__all__ = ["ChildLink", "Original", "flush_output", "job_scope", "main"]


class Original:
    """The process that this object was made in; around what may fork, it ends the copies.

    A copy ends as a program does that ran to its end or raised, without exit handlers: those are
    the child's own.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is the process itself, and no copy."""
        return os.getpid() == self._pid

    def end_copies(self) -> None:
        """Go on in the process itself only."""
        if not self.here:
            _end(None)

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.here:
            _end(error)


def flush_output() -> None:
    """Write out what was printed: a process that is killed later would take it along."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _end(error: BaseException | None) -> NoReturn:
    code = 1
    try:
        code = _exit_code(error)
        flush_output()
    finally:
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


class ChildLink:
    """What a running job says to its parent: each message arrives at the parent's `on_message`.

    There is one for each job, and it is closed with it: what a thread left over by an earlier job
    sends goes nowhere, rather than to the job that runs now. Nor does what a process sends that the
    job forked: it may outlive the job, and two that write at once cut each other's frames in two.
    """

    def __init__(self, channel: _Channel, limit: SoftLimit) -> None:
        self._channel = channel
        self._limit = limit
        self._closed = False
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        """Send plain data: None, booleans, numbers, text, bytes, lists and maps of them.

        May be called from any thread. Raises `TypeError` or `ValueError` for anything else.
        """
        frame = pack_frame({"m": message})
        if not self._channel.original.here:
            return
        # An alarm must cut no frame in two and leave no lock taken.
        with self._limit.held(), self._lock:
            if not self._closed:
                self._channel.send(frame)

    def close(self) -> None:
        """After this nothing more is sent."""
        with self._lock:
            self._closed = True


@contextmanager
def job_scope(context: dict[str, Any], link: ChildLink) -> Generator[None]:
    """Around every job, in its own contextvars context: makes it the current one.

    `context` is what the caller of `ProcessExecutor.run` gave, `link` is the way back to it.
    """

    def report(_job: RunningJob, progress: Progress) -> None:
        link.send([progress.done, progress.total, progress.text])

    enter(DistantJob(**context, report=report))
    yield


class _Rebuilder(Protocol):
    def apply(
        self, args: list[Any], kwargs: dict[str, Any], /
    ) -> tuple[list[Any], dict[str, Any]]: ...


class _Channel:
    """Frames over the socket, both ways; blocking. In a copy of this process, none."""

    def __init__(self, sock: socket.socket) -> None:
        self.original = Original()
        self._sock = sock
        self._reader = sock.makefile("rb")
        self._lock = threading.Lock()

    def receive(self) -> dict[str, Any] | None:
        """The next frame, or None when the parent closed its end."""
        self.original.end_copies()
        header = self._reader.read(HEADER_SIZE)
        if len(header) < HEADER_SIZE:
            return None
        return unpack_frame(self._reader.read(frame_size(header)))

    def send(self, frame: bytes) -> None:
        self.original.end_copies()
        with self._lock:
            self._sock.sendall(frame)


class _Child:
    """Answers the parent's frames until there are no more."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._limit = SoftLimit()
        # Between a frame of the parent and the answer to it somebody reads what is sent.
        self._heard = False
        self._log_lock = threading.Lock()
        logging.getLogger().addHandler(LogSender(self._send_log))
        self._functions: dict[tuple[Any, ...], tuple[Callable[..., Any], _Rebuilder | None]] = {}

    def serve(self) -> None:
        # One loop for all jobs, made by the first coroutine: clients that a module keeps between
        # its jobs are bound to a loop.
        with closing(asyncio.Runner()) as runner:
            try:
                while (frame := self._channel.receive()) is not None:
                    self._channel.send(self._answer(frame, runner))
            except (OSError, ValueError):
                # The pipe is broken, as by a job that closed every file: nobody hears us.
                os._exit(1)

    def _send_log(self, described: dict[str, Any]) -> bool:
        """Send a log record to the parent; false where nobody would read it."""
        frame = pack_frame({"log": described})
        if not self._channel.original.here:
            return False
        # An alarm must cut no frame in two and leave no lock taken.
        with self._limit.held(), self._log_lock:
            if self._heard:
                self._channel.send(frame)
            return self._heard

    def _answer(self, frame: dict[str, Any], runner: asyncio.Runner) -> bytes:
        self._heard = True
        try:
            if "load" in frame:
                set_levels(frame["levels"])
                self._load(tuple(frame["load"]), frame["argv"])
                return pack_frame({"ready": True})
            return pack_frame({"ok": self._perform(frame, runner)})
        except BaseException as error:
            # SystemExit and KeyboardInterrupt too: they end the job, not the process.
            return pack_frame({"error": failure_of(error)})
        finally:
            flush_output()
            with self._log_lock:
                self._heard = False

    def _load(self, address: tuple[Any, ...], argv: list[str]) -> None:
        sys.argv[:] = argv
        function = load_function(FunctionAddress(*address))
        self._functions[address] = function, CallRebuilder.of(function)

    def _perform(self, frame: dict[str, Any], runner: asyncio.Runner) -> bytes:
        function, rebuilder = self._functions[tuple(frame["call"])]
        try:
            args, kwargs = decode_call(frame["payload"])
            _check_fit(function, args, kwargs)
            if rebuilder is not None:
                args, kwargs = rebuilder.apply(args, kwargs)
        except Exception as error:
            raise Unfit("unfit_arguments", error) from error
        link = ChildLink(self._channel, self._limit)

        def run() -> Any:
            with job_scope(frame["context"], link):
                return self._call(partial(function, *args, **kwargs), frame["soft"], runner)

        try:
            value = copy_context().run(run)
        finally:
            link.close()
        try:
            return encode_value(value)
        except Exception as error:
            raise Unfit("unfit_result", error) from error

    def _call(self, call: partial[Any], soft: float | None, runner: asyncio.Runner) -> Any:
        if inspect.iscoroutinefunction(call.func):
            return self._run_coroutine(call(), soft, runner)
        self._limit.arm(soft)
        try:
            with self._channel.original:
                value = call()
        finally:
            self._limit.disarm()
        # A wrapper that is a plain function may give the coroutine of what it wraps.
        return self._run_coroutine(value, soft, runner) if type(value) is CoroutineType else value

    def _run_coroutine(self, coroutine: Any, soft: float | None, runner: asyncio.Runner) -> Any:
        # Its outcome comes back as a value: an exception such as SystemExit would break out of the
        # loop before the tasks it left over are ended. One in another task of the job does, and
        # what would be left in the loop then is the next job's to stumble over: so it goes on.
        value, error = run_through(
            runner.get_loop(),
            self._outcome(coroutine, soft),
            # In a copy of this process, it is the copy's end.
            lambda _: self._channel.original.end_copies(),
            context=copy_context(),
        )
        if error is not None:
            raise error
        return value

    async def _outcome(
        self, coroutine: Any, soft: float | None
    ) -> tuple[Any, BaseException | None]:
        value, failure = None, None
        try:
            with self._channel.original:
                value = await self._limit.drive(coroutine, soft)
        except BaseException as error:
            failure = error
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        # Nothing of a job outlives it, as with `asyncio.run`.
        await asyncio.gather(*left, return_exceptions=True)
        return value, failure


def main(sock: socket.socket, parent: int) -> None:
    """Serve `sock` until the process `parent` closes its end; entry point of a child process."""
    os.set_inheritable(sock.fileno(), False)
    _die_with(parent, sock)
    _leave_signals_to_parent()
    with sock:
        _Child(_Channel(sock)).serve()
    if os.getppid() != parent:
        # Nobody waits for threads and exit handlers of user code any more.
        os._exit(1)


def _die_with(parent: int, sock: socket.socket) -> None:
    """Have this process killed when its parent dies, in the middle of a job too."""
    if not (sys.platform == "linux" and _signalled_by_kernel()):
        threading.Thread(target=_exit_at_hang_up, args=(sock.fileno(),), daemon=True).start()
    if os.getppid() != parent:
        # It died before the kernel was asked.
        os._exit(1)


def _signalled_by_kernel() -> bool:
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0


def _exit_at_hang_up(fd: int) -> None:
    hang_up = select.poll()
    hang_up.register(fd, 0)
    hang_up.poll()
    os._exit(1)


def _leave_signals_to_parent() -> None:
    """A service manager may signal every process of a worker; the worker decides what ends.

    Handlers, not SIG_IGN: programs that a job starts would inherit the latter.
    """
    own = os.getpid()

    def ignore(signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != own:
            # A process that the job forked: it ends as it would have ended without us.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    for signum in stop_signals():
        signal.signal(signum, ignore)


def _check_fit(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> None:
    """Raise `TypeError` for a call that does not fit: by name it is enqueued unchecked."""
    signature = call_signature(function)
    if signature is not None:
        signature.bind(*args, **kwargs)

"""The child's side of the process executor: imports functions and runs them, one at a time.

A child lives as long as its pipe to the parent. It receives addresses that the parent made from
registered functions, never names from a message.
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
from taskq.execution.address import FunctionAddress, load_function
from taskq.execution.context import RemoteJob, set_current_job
from taskq.execution.event_loop import run_through
from taskq.execution.executors.frames import (
    HEADER_SIZE,
    frame_size,
    pack_frame,
    unpack_frame,
)
from taskq.execution.executors.reports import LogSender, Unfit, failure_of, set_levels
from taskq.execution.executors.soft_limit import SoftLimit
from taskq.execution.ports import RunningJob

__all__ = ["ChildLink", "Original", "flush_output", "job_scope", "main"]


class Original:
    """The process that created this object. As a context around code that forks, it ends copies.

    A copy ends like a program that returned or raised, but without exit handlers, which belong to
    the child.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is the process itself rather than a copy."""
        return os.getpid() == self._pid

    def end_copies(self) -> None:
        """Exit if this process is a copy."""
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
    """Flush what was printed: it would be lost if the process is killed later."""
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
    """Sends messages of a running job to its parent, which calls `on_message` with each.

    Each job has its own link, closed when it ends: messages of a thread left over from an earlier
    job are dropped instead of being taken for the current job's. So are messages of a process that
    the job forked: it may outlive the job, and two concurrent writers would corrupt frames.
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
        # An alarm must not interrupt a half-written frame or leave a lock taken.
        with self._limit.held(), self._lock:
            if not self._closed:
                self._channel.send(frame)

    def close(self) -> None:
        """Send nothing more."""
        with self._lock:
            self._closed = True


@contextmanager
def job_scope(context: dict[str, Any], link: ChildLink) -> Generator[None]:
    """Make a job the current one inside the block, in its own contextvars context.

    `context` comes from the caller of `ProcessExecutor.run`; `link` leads back to it.
    """

    def report(_job: RunningJob, progress: Progress) -> None:
        link.send([progress.done, progress.total, progress.text])

    set_current_job(RemoteJob(**context, report=report))
    yield


class _Rebuilder(Protocol):
    def apply(
        self, args: list[Any], kwargs: dict[str, Any], /
    ) -> tuple[list[Any], dict[str, Any]]: ...


class _Channel:
    """Frames over the socket in both directions, blocking. Copies of this process exit instead."""

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
        # The parent reads log records only between its frame and the answer to it.
        self._parent_reads = False
        self._log_lock = threading.Lock()
        logging.getLogger().addHandler(LogSender(self._send_log))
        self._functions: dict[tuple[Any, ...], tuple[Callable[..., Any], _Rebuilder | None]] = {}

    def serve(self) -> None:
        # One loop for all jobs, created by the first coroutine: clients that a module keeps between
        # jobs are bound to a loop.
        with closing(asyncio.Runner()) as runner:
            try:
                while (frame := self._channel.receive()) is not None:
                    self._channel.send(self._answer(frame, runner))
            except (OSError, ValueError):
                # The pipe is broken, for example by a job that closed every file.
                os._exit(1)

    def _send_log(self, described: dict[str, Any]) -> bool:
        """Send a log record to the parent; false if the parent does not read now."""
        frame = pack_frame({"log": described})
        if not self._channel.original.here:
            return False
        # An alarm must not interrupt a half-written frame or leave a lock taken.
        with self._limit.held(), self._log_lock:
            if self._parent_reads:
                self._channel.send(frame)
            return self._parent_reads

    def _answer(self, frame: dict[str, Any], runner: asyncio.Runner) -> bytes:
        self._parent_reads = True
        try:
            if "load" in frame:
                set_levels(frame["levels"])
                self._load(tuple(frame["load"]), frame["argv"])
                return pack_frame({"ready": True})
            return pack_frame({"ok": self._perform(frame, runner)})
        except BaseException as error:
            # Including SystemExit and KeyboardInterrupt: they end the job, not the process.
            return pack_frame({"error": failure_of(error)})
        finally:
            flush_output()
            with self._log_lock:
                self._parent_reads = False

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
        # A plain wrapper function may return the coroutine of the function it wraps.
        return self._run_coroutine(value, soft, runner) if type(value) is CoroutineType else value

    def _run_coroutine(self, coroutine: Any, soft: float | None, runner: asyncio.Runner) -> Any:
        # The outcome is returned as a value: an exception such as SystemExit would end the loop
        # before leftover tasks are cancelled. SystemExit in another task of the job does end it;
        # then the loop continues, so that nothing is left in it for the next job.
        value, error = run_through(
            runner.get_loop(),
            self._outcome(coroutine, soft),
            # A copy of this process ends here.
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
        # No task outlives its job, as with `asyncio.run`.
        await asyncio.gather(*left, return_exceptions=True)
        return value, failure


def main(sock: socket.socket, parent: int) -> None:
    """Serve `sock` until the process `parent` closes its end; entry point of a child process."""
    os.set_inheritable(sock.fileno(), False)
    _die_with_parent(parent, sock)
    _ignore_stop_signals()
    with sock:
        _Child(_Channel(sock)).serve()
    if os.getppid() != parent:
        # The parent is gone: do not wait for threads and exit handlers of user code.
        os._exit(1)


def _die_with_parent(parent: int, sock: socket.socket) -> None:
    """Arrange that this process is killed when its parent dies, even during a job."""
    if not (sys.platform == "linux" and _signalled_by_kernel()):
        threading.Thread(target=_exit_at_hang_up, args=(sock.fileno(),), daemon=True).start()
    if os.getppid() != parent:
        # It died before the kernel could be asked.
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


def _ignore_stop_signals() -> None:
    """Ignore stop signals: a service manager may signal all processes, but the worker decides.

    Uses handlers rather than SIG_IGN, which programs that a job starts would inherit.
    """
    own = os.getpid()

    def ignore(signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != own:
            # In a process that a job forked: end as it would have ended without this handler.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    for signum in stop_signals():
        signal.signal(signum, ignore)


def _check_fit(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> None:
    """Raise `TypeError` for arguments that do not fit: an enqueue by name does not check them."""
    signature = call_signature(function)
    if signature is not None:
        signature.bind(*args, **kwargs)

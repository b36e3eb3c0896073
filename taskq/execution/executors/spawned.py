"""The parent's side of one child process: start it, exchange frames, and notice its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

from taskq.execution.address import FunctionAddress
from taskq.execution.executors.frames import (
    HEADER_SIZE,
    frame_size,
    how_it_ended,
    pack_frame,
    unpack_frame,
)
from taskq.execution.executors.reports import (
    ProcessDied,
    RemoteError,
    configured_levels,
    handle_record,
)

__all__ = ["SpawnedChild"]

# The child must import taskq from where its parent did, so it reads the parent's sys.path from the
# pipe before any import: the length, then the entries, joined by NULs. The first entry says how
# many of the next are for taskq's own imports. The parent did those before the application's folder
# came first on its path, so a logging.py in that folder must not replace a library.
_BOOT = """\
import socket, sys
pipe = socket.socket(fileno=int(sys.argv[1]))
size = int.from_bytes(pipe.recv(4, socket.MSG_WAITALL), "big") or sys.exit(1)
path = pipe.recv(size, socket.MSG_WAITALL).decode("utf-8", "surrogateescape").split("\\0")
own = int(path.pop(0))
sys.path[:] = path[:own]
from taskq.execution.executors.child import main
sys.path[:] = path[own:]
main(pipe, int(sys.argv[2]))
"""

# The folder that contains the package taskq.
_PACKAGE_FOLDER = str(Path(__file__).parents[3])

# A killed process ends in milliseconds, unless the kernel keeps it in a system call.
_KILL_SECONDS = 5.0

# Between the end of a process and the closing of its pipe, so that its last frames are still read.
_PIPE_CLOSE_SECONDS = 0.1


class SpawnedChild:
    """A child process that runs one job at a time; created by `start`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        exited: asyncio.Future[int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._exited = exited
        self._reader = reader
        self._writer = writer
        self._known: set[FunctionAddress] = set()
        self._reason: str | None = None
        exited.add_done_callback(self._close_pipe_soon)

    @classmethod
    async def start(cls, directory: str | Path | None = None) -> SpawnedChild:
        """Spawn a child in `directory`; raises `OSError` if the system cannot start a process."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = _spawn(theirs.fileno(), directory)
        except BaseException:
            ours.close()
            raise
        exited = _watch(process)
        ours.setblocking(False)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            process.kill()
            ours.close()
            raise
        path = _paths()
        writer.write(len(path).to_bytes(4, "big") + path)
        return cls(process, exited, reader, writer)

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return not self._exited.done() and not self._reader.at_eof()

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its process group."""
        return self._process.pid

    def knows(self, address: FunctionAddress) -> bool:
        """Whether it has imported this function."""
        return address in self._known

    async def load(self, address: FunctionAddress) -> None:
        """Make it import a function; raises `RemoteError` with what the import raised."""
        levels = configured_levels()
        load = {"load": _as_list(address), "argv": sys.argv, "levels": levels}
        reply = await self._ask(load, None)
        if "error" in reply:
            raise RemoteError.of(reply["error"])
        self._known.add(address)

    async def call(
        self,
        address: FunctionAddress,
        payload: bytes,
        context: dict[str, Any],
        soft_timeout: float | None,
        on_message: Callable[[Any], None] | None,
    ) -> dict[str, Any]:
        """Make it run a function that it has imported; returns the last frame of its answer."""
        frame = {
            "call": _as_list(address),
            "payload": payload,
            "context": context,
            "soft": soft_timeout,
        }
        return await self._ask(frame, on_message)

    def kill(self, reason: str | None = None) -> None:
        """Kill it and the programs its job started; its caller gets `reason`."""
        if self._exited.done():
            return
        self._reason = self._reason or reason
        # It leads its own process group and is not reaped before `_exited`, so the id is still its.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def drop(self) -> None:
        """Kill it and close its pipe."""
        self.kill()
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Kill it and wait until it has been reaped."""
        self.drop()
        await asyncio.wait({self._exited}, timeout=_KILL_SECONDS)

    async def end(self, grace: float) -> None:
        """Let it exit, exit handlers included, within `grace` seconds; else kill it."""
        self._writer.close()
        await asyncio.wait({self._exited}, timeout=grace)
        await self.gone()

    async def _ask(
        self, frame: dict[str, Any], on_message: Callable[[Any], None] | None
    ) -> dict[str, Any]:
        packed = pack_frame(frame)
        try:
            self._writer.write(packed)
            await self._writer.drain()
        except ConnectionError:
            raise await self._death() from None
        while True:
            reply = await self._receive()
            if "log" in reply:
                handle_record(reply["log"])
            elif "m" not in reply:
                return reply
            elif on_message is not None:
                on_message(reply["m"])

    async def _receive(self) -> dict[str, Any]:
        try:
            header = await self._reader.readexactly(HEADER_SIZE)
            return unpack_frame(await self._reader.readexactly(frame_size(header)))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._death() from None
        except ValueError as error:
            self.kill(f"it wrote to the pipe that taskq uses: {error}")
            raise await self._death() from error

    async def _death(self) -> ProcessDied:
        await asyncio.wait({self._exited}, timeout=_KILL_SECONDS)
        if self._reason is not None:
            how = f"was killed: {self._reason}"
        elif not self._exited.done():
            how = "closed its pipe to the worker"
        else:
            how = how_it_ended(self._exited.result())
        return ProcessDied(f"the process of the job (pid {self.pid}) {how}")

    def _close_pipe_soon(self, exited: asyncio.Future[int]) -> None:
        # A process that the job forked may keep the child's end open; then there is no EOF.
        exited.get_loop().call_later(_PIPE_CLOSE_SECONDS, self._writer.transport.abort)


def _as_list(address: FunctionAddress) -> list[str | None]:
    return [address.module, address.qualname, address.main_path, address.main_name]


def _paths() -> bytes:
    """The import paths for taskq and for the application, in the form that the child reads."""
    # Imports use strings only and skip a `Path` that was put there.
    texts: list[Any] = [*sys.path]
    known = [entry for entry in texts if isinstance(entry, str)]
    library = os.path.dirname(os.__file__)
    standard = [entry for entry in known if entry.startswith(library) and "-packages" not in entry]
    libraries = os.path.dirname(os.path.dirname(str(msgpack.__file__)))
    own = list(dict.fromkeys((*standard, _PACKAGE_FOLDER, libraries, *known)))
    return "\0".join((str(len(own)), *own, *known)).encode("utf-8", "surrogateescape")


def _spawn(fd: int, directory: str | Path | None) -> subprocess.Popen[bytes]:
    # As in multiprocessing: -O, -W, -X and so on apply to the child too.
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    # And -P, so that nothing in the current folder shadows the standard library.
    flags += [] if "-P" in flags else ["-P"]
    # Not asyncio's own subprocesses: under uvloop they leak file descriptors into the child.
    return subprocess.Popen(  # noqa: S603 - the interpreter itself, without user input
        [sys.executable, *flags, "-c", _BOOT, str(fd), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        cwd=directory,
        pass_fds=(fd,),
        # Ctrl-C in the terminal reaches only the parent, which decides what ends and when.
        start_new_session=True,
    )


def _watch(process: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """A future for the exit code, set when the process has ended and been reaped."""
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        threading.Thread(target=_wait, args=(process, loop, exited), daemon=True).start()
        return exited

    def reap() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        exited.set_result(process.wait())

    loop.add_reader(pidfd, reap)
    return exited


def _wait(
    process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, exited: asyncio.Future[int]
) -> None:
    code = process.wait()
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(exited.set_result, code)

"""The protocol between a worker process and its supervisor, from either side.

A worker process gets its name and its end of a socket in one environment variable. It removes that
variable at once, so that a program started by a job does not believe that it is supervised.

The worker writes one byte when it is ready, so that its supervisor can tell a process that failed
to start from one that died later. One byte from the supervisor stops the worker at once; a closed
socket means that the supervisor is gone. SIGTERM drains the worker, however often it is sent: a
service manager may signal the supervisor and all its children.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

__all__ = [
    "CLEAN_EXITS",
    "DRAIN",
    "END_NOW",
    "ENVIRONMENT",
    "READY",
    "RECYCLED",
    "SupervisorLink",
    "SupervisorMessage",
    "WorkerProcess",
]


class WorkerProcess:
    """A child process that runs one worker under a name its parent chose; created by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self._served = False
        self._born = time.monotonic()
        self.name = name
        self.killed = False

    @classmethod
    async def start(
        cls, command: Sequence[str], name: str, directory: Path, *, suspects: bool = False
    ) -> WorkerProcess:
        """Start `command` in `directory`; with `suspects`, the worker serves only those.

        Raises `OSError` if the process cannot be started.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = f"{name} {theirs.fileno()}" + " suspects" * suspects
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=directory,
                env=os.environ | {ENVIRONMENT: link},
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # Ctrl-C in the terminal reaches only the supervisor, which stops all workers.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, name, ours)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def served(self) -> bool:
        """Whether it was ever ready to take jobs."""
        if not self._served:
            with suppress(OSError):  # it is not ready yet, or has ended
                self._served = self._line.recv(1) == READY
        return self._served

    async def wait(self) -> tuple[int, float]:
        """Wait for its end: the exit code (negative: a signal) and its age in seconds."""
        code = await self._process.wait()
        _ = self.served
        self._line.close()
        return code, time.monotonic() - self._born

    def drain(self) -> None:
        """Make it finish its running jobs and stop."""
        self._signal(DRAIN)

    def end_now(self) -> None:
        """Make it hand back its running jobs and stop."""
        if self.served:
            with suppress(OSError):  # it has ended
                self._line.send(END_NOW)
        else:
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kill it and everything else in its process group."""
        self.killed = True
        with suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, which: signal.Signals) -> None:
        # Not Process.send_signal: it polls first, which reaps a process that has just ended before
        # asyncio learns its exit code.
        with suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.kill(self.pid, which)


ENVIRONMENT: Final = "TASKQ_SUPERVISED"
DRAIN: Final = signal.SIGTERM
READY: Final = b"1"
END_NOW: Final = b"!"
RECYCLED: Final = 75
"""Exit code of a worker that is to be replaced by a new one."""

CLEAN_EXITS: Final = (0, RECYCLED, -DRAIN)
"""How a stopped process ends; one that was just exiting is killed by our signal."""


class SupervisorMessage(Enum):
    """What a worker process learns from its supervisor."""

    NOTHING = "nothing"
    END_NOW = "end now"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class SupervisorLink:
    """A worker process's link to its supervisor; `line` is the file descriptor of its socket."""

    name: str
    line: int
    suspects: bool = False
    """Whether it serves only suspects, and stops when none wait."""

    @classmethod
    def from_environment(cls) -> SupervisorLink | None:
        """The link of this process, or None if it has no supervisor."""
        text = os.environ.pop(ENVIRONMENT, None)
        if text is None:
            return None
        name, line, *suspects = text.split()
        os.set_inheritable(int(line), False)
        return cls(name, int(line), bool(suspects))

    def send_ready(self) -> None:
        """Tell the supervisor that this worker is ready; call it once."""
        with suppress(OSError):  # it is gone, as `receive` will report
            os.write(self.line, READY)

    def receive(self, within: float) -> SupervisorMessage:
        """Wait up to `within` seconds for a message from the supervisor, or for its end."""
        waiting = select.poll()
        waiting.register(self.line, select.POLLIN)
        if not waiting.poll(within * 1000):
            return SupervisorMessage.NOTHING
        try:
            message = os.read(self.line, 1)
        except OSError:
            message = b""
        return SupervisorMessage.END_NOW if message == END_NOW else SupervisorMessage.GONE

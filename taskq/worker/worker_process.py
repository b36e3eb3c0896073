"""A worker process and its supervisor: what they have agreed on, seen from either side.

A worker process is given its name and its end of a socket in one environment variable. It removes
that variable at once: a program that a job starts must not believe that it is supervised.

The worker writes one byte when it serves, so that its supervisor can tell a process that could not
start from one that died at work. One byte from the supervisor ends it now; the end of the line
means that the supervisor is gone. SIGTERM drains the worker, however often it comes: a service
manager may signal the supervisor and all its children.
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
    "AS_ASKED",
    "DRAIN",
    "END_NOW",
    "ENVIRONMENT",
    "READY",
    "RECYCLED",
    "Heard",
    "Supervised",
    "WorkerProcess",
]


class WorkerProcess:
    """A child process that runs one worker under a name the supervisor chose; made by `start`."""

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
        """Start `command` in `directory`, to serve `suspects` alone if they are named.

        Raises `OSError` when the system does not let it.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        tie = f"{name} {theirs.fileno()}" + " suspects" * suspects
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=directory,
                env=os.environ | {ENVIRONMENT: tie},
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # Ctrl-C in the terminal reaches the supervisor alone, which says it to all.
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
        """Its process id."""
        return self._process.pid

    @property
    def served(self) -> bool:
        """Whether it ever came so far as to take jobs."""
        if not self._served:
            with suppress(OSError):  # it has said nothing, or has ended
                self._served = self._line.recv(1) == READY
        return self._served

    async def wait(self) -> tuple[int, float]:
        """Its exit code (minus the signal that killed it) and its age in seconds, once it ended."""
        code = await self._process.wait()
        _ = self.served
        self._line.close()
        return code, time.monotonic() - self._born

    def drain(self) -> None:
        """Have it finish its running jobs and end."""
        self._signal(DRAIN)

    def end_now(self) -> None:
        """Have it hand back its running jobs and end."""
        if self.served:
            with suppress(OSError):  # it has ended
                self._line.send(END_NOW)
        else:
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """End it without asking, and whatever else is in its process group."""
        self.killed = True
        with suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, which: signal.Signals) -> None:
        # Not Process.send_signal: it polls first, and a process that has just ended is then reaped
        # before asyncio learns its exit code.
        with suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.kill(self.pid, which)


ENVIRONMENT: Final = "TASKQ_SUPERVISED"
DRAIN: Final = signal.SIGTERM
READY: Final = b"1"
END_NOW: Final = b"!"
RECYCLED: Final = 75
"""Exit code of a worker that made way for a fresh one."""

AS_ASKED: Final = (0, RECYCLED, -DRAIN)
"""How a process ends that was stopped: killed by our signal means that it was just leaving."""


class Heard(Enum):
    """What a worker process learns of its supervisor."""

    NOTHING = "nothing"
    END_NOW = "end now"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Supervised:
    """A worker process's tie to its supervisor: `line` is a file descriptor."""

    name: str
    line: int
    suspects: bool = False
    """Whether it is to serve suspects alone, and to end when none wait."""

    @classmethod
    def from_environment(cls) -> Supervised | None:
        """The tie of this process, or None when nobody supervises it."""
        text = os.environ.pop(ENVIRONMENT, None)
        if text is None:
            return None
        name, line, *suspects = text.split()
        os.set_inheritable(int(line), False)
        return cls(name, int(line), bool(suspects))

    def tell_ready(self) -> None:
        """Tell the supervisor that this worker serves; once."""
        with suppress(OSError):  # it died: `hear` says so
            os.write(self.line, READY)

    def hear(self, within: float) -> Heard:
        """Wait up to `within` seconds for a word of the supervisor, or its end."""
        waiting = select.poll()
        waiting.register(self.line, select.POLLIN)
        if not waiting.poll(within * 1000):
            return Heard.NOTHING
        try:
            said = os.read(self.line, 1)
        except OSError:
            said = b""
        return Heard.END_NOW if said == END_NOW else Heard.GONE

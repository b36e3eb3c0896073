"""A worker process, seen from its supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from taskq.worker.supervised import DRAIN, END_NOW, ENVIRONMENT, READY

__all__ = ["WorkerProcess"]


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

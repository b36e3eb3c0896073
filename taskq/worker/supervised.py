"""What a supervisor and its worker processes have agreed on, and the worker's side of it.

A worker process is told its name, its supervisor's pid and a pipe in one environment variable. It
takes that away at once: a program that a job starts must not believe that it is supervised.

It writes one byte to the pipe when it serves, so that its supervisor can tell a process that could
not start from one that died at work. SIGTERM drains it, however often it comes, because a service
manager may signal the supervisor and all its children; SIGQUIT ends it now.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

__all__ = ["DRAIN", "END_NOW", "ENVIRONMENT", "RECYCLED", "Supervised"]

ENVIRONMENT: Final = "TASKQ_SUPERVISED"
DRAIN: Final = signal.SIGTERM
END_NOW: Final = signal.SIGQUIT
RECYCLED: Final = 75
"""Exit code of a worker that made way for a fresh one."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """A worker process's tie to its supervisor."""

    name: str
    supervisor: int
    pipe: int

    @classmethod
    def from_environment(cls) -> Supervised | None:
        """The tie of this process, or None when nobody supervises it."""
        text = os.environ.pop(ENVIRONMENT, None)
        if text is None:
            return None
        name, supervisor, pipe = text.split()
        os.set_inheritable(int(pipe), False)
        return cls(name, int(supervisor), int(pipe))

    def tell_ready(self) -> None:
        """Tell the supervisor that this worker serves; once."""
        with suppress(OSError):  # it died: `orphaned` says so
            os.write(self.pipe, b"1")
        with suppress(OSError):
            os.close(self.pipe)

    @property
    def orphaned(self) -> bool:
        """Whether the supervisor is gone."""
        return os.getppid() != self.supervisor

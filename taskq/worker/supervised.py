"""What a supervisor and its worker processes have agreed on, and the worker's side of it.

A worker process is told its name and its end of a socket in one environment variable. It takes that
away at once: a program that a job starts must not believe that it is supervised.

It writes one byte when it serves, so that its supervisor can tell a process that could not start
from one that died at work. A byte of the supervisor ends it now; the end of the line is the
supervisor's. SIGTERM drains it, however often it comes: a service manager may signal the supervisor
and all its children.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
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
]

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

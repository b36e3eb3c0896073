"""Copies of a child process: what a job makes of it that forks.

A copy goes on where the job forked, and has the pipe to the parent too. What it read there would be
lost to the child, and what it wrote would be taken for the answer to another job. So it ends where
the function of the job does.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

__all__ = ["Original", "flush_output"]


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

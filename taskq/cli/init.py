"""The first process of a container: it ends the orphans of others, which become its children.

A process whose parent has ended becomes a child of process 1, and stays a zombie until that waits
for it. A worker cannot: it would take the ends of its own children from those who wait for them. So
where a command is process 1 it runs in a child, and process 1 does nothing but this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import Final

__all__ = ["leave_orphans_to_init"]

_PR_GET_CHILD_SUBREAPER: Final = 37
"""<linux/prctl.h>"""

_PATIENCE_SECONDS = 2.0
"""For what is left when the command has ended, such as the keeper of an embedded server."""

_OF_A_FAULT = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGTRAP,
)


def leave_orphans_to_init() -> None:
    """Where this process inherits orphans, go on in a child, and let this one look after them.

    It passes on signals, and ends when the child has, with its exit code. Elsewhere nothing is
    done. To be called while there is one thread.
    """
    if not _inherits_orphans():
        return
    passed_on = signal.valid_signals() - {*_OF_A_FAULT, signal.SIGTTIN, signal.SIGTTOU}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child:
        sys.exit(_look_after(child, passed_on))
    _take_the_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _inherits_orphans() -> bool:
    return os.getpid() == 1 or (sys.platform == "linux" and _is_subreaper())


def _is_subreaper() -> bool:
    answer = ctypes.c_int(0)
    try:
        ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return bool(answer.value)


def _take_the_terminal() -> None:
    """Ctrl-C is for the command: process 1 would pass it on, and it would come twice."""
    os.setpgid(0, 0)
    if os.isatty(0):
        os.tcsetpgrp(0, os.getpgrp())


def _look_after(child: int, passed_on: Iterable[int]) -> int:
    while True:
        number = signal.sigwait(passed_on)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        code = _reap(child)
        if code is not None:
            _reap_the_rest()
            return code


def _reap(child: int) -> int | None:
    """Ask for the end of all that have ended; the exit code of `child` if it is one of them."""
    code = None
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else 128 - ended
            if pid == 0:
                return code
    except ChildProcessError:
        return code


def _reap_the_rest() -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, min(left, 0.1))

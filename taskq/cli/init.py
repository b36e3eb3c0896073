"""Process 1 of a container: it reaps orphans, which become its children.

A process whose parent has ended becomes a child of process 1, and stays a zombie until process 1
waits for it. A worker cannot do that, because it would take the exit codes of its own children. So
a command that is process 1 goes on in a child, and process 1 only reaps.
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
"""The wait for other children after the command, such as the keeper of an embedded server."""

_OF_A_FAULT = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGTRAP,
)


def leave_orphans_to_init() -> None:
    """If this process inherits orphans, go on in a child while this process reaps them.

    This process passes on signals, and ends with the exit code of the child. A process that
    inherits no orphans just goes on. Call it while there is a single thread.
    """
    if not _inherits_orphans():
        return
    passed_on = signal.valid_signals() - {*_OF_A_FAULT, signal.SIGTTIN, signal.SIGTTOU}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child:
        sys.exit(_reap_until_end(child, passed_on))
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
    """Let Ctrl-C reach the command alone: process 1 would pass it on a second time."""
    os.setpgid(0, 0)
    if os.isatty(0):
        os.tcsetpgrp(0, os.getpgrp())


def _reap_until_end(child: int, passed_on: Iterable[int]) -> int:
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
    """Reap all ended children; returns the exit code of `child` if it is among them."""
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

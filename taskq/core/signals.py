"""The signals with which users, service managers and closing terminals stop a process."""

from __future__ import annotations

import signal
import time

__all__ = ["HangUps", "stop_signals"]

_ECHO_SECONDS = 0.5


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT, SIGHUP and SIGQUIT.

    Without SIGHUP or SIGQUIT if the process was started to ignore it, as `nohup` and shells do.
    """
    named = [getattr(signal, name, None) for name in ("SIGHUP", "SIGQUIT")]
    optional = [each for each in named if each and signal.getsignal(each) is not signal.SIG_IGN]
    return [signal.SIGTERM, signal.SIGINT, *optional]


class HangUps:
    """Tells a second SIGHUP from an echo: a closing terminal sends it more than once.

    The shell passes it on, and the kernel sends it again when the shell exits.
    """

    def __init__(self) -> None:
        self._last = float("-inf")

    def is_echo(self, signum: int) -> bool:
        """Whether this signal is a repetition of the one just before it."""
        if signum != getattr(signal, "SIGHUP", None):
            return False
        before, self._last = self._last, time.monotonic()
        return self._last - before < _ECHO_SECONDS

"""What a worker says about itself when it starts: what it serves, from where, and how to end it."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

from taskq.cli.logs import LogFormat, wants_colour
from taskq.core.counting import counted

__all__ = ["Banner", "shortened"]

_log = logging.getLogger("taskq.cli")
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The facts; `server` never has its password in it. `grace` is in seconds.

    `signed` tells whether only jobs run that were signed.
    """

    version: str
    target: str
    server: str
    namespace: str
    signed: bool
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    concurrency: int
    threads: int
    executor_processes: int
    workers: int
    loop: str
    pid: int
    grace: float

    def show(self, form: LogFormat) -> None:
        """Say it on stderr: a few lines of text, or one JSON line."""
        if form is LogFormat.JSON:
            facts = {name: getattr(self, name) for name in self.__slots__}
            _log.info("taskq worker", extra=facts)
        elif wants_colour(sys.stderr):
            self._show_in_colour()
        else:
            for line in [f"taskq {self.version} worker", *self._lines(), self._how_to_end()]:
                print(line, file=sys.stderr, flush=True)

    def _show_in_colour(self) -> None:
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text(f"taskq {self.version} worker", style="bold cyan"))
        for line in self._lines():
            console.print(Text(line[:_WIDTH], style="dim").append(line[_WIDTH:], style="not dim"))
        console.print(Text(self._how_to_end(), style="dim"))

    def _lines(self) -> list[str]:
        count = len(self.tasks)
        jobs = counted(self.concurrency, "job", "jobs")
        facts = {
            "target": self.target,
            "server": f"{self.server}, namespace {self.namespace}",
            "signing": "signed: unsigned and forged jobs are refused" if self.signed else "off",
            "queues": ", ".join(self.queues),
            "tasks": f"{count}: {shortened(self.tasks)}" if count else "none are registered",
            "concurrency": f"{jobs} at once (in threads up to {self.threads}, in processes of "
            f"their own up to {self.executor_processes})",
            "workers": f"{self.workers} on {self.loop}, pid {self.pid}",
        }
        return [f"  {name:<{_WIDTH - 2}}{value}" for name, value in facts.items()]

    def _how_to_end(self) -> str:
        return f"Ctrl-C once: finish running jobs ({self.grace:g} s); twice: stop now"


_WIDTH = 15


def shortened(names: tuple[str, ...], most: int = _MOST_NAMES) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")

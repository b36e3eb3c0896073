"""Options that several commands share, and the banner with which a worker starts."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from taskq.cli.logs import LogFormat, LogLevel, wants_colour
from taskq.core.durations import parse_duration
from taskq.core.errors import ConfigError
from taskq.core.text import counted

__all__ = [
    "PROCESS",
    "AsJson",
    "Banner",
    "Format",
    "Level",
    "Target",
    "duration",
    "shortened",
    "size",
]

_log = logging.getLogger("taskq.cli")
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """What a worker prints when it starts; `server` never holds a password, `grace` is in seconds.

    `signed`: only signed jobs run.
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
        """Print it on stderr: a few lines of text, or one JSON line."""
        if form is LogFormat.JSON:
            facts = {name: getattr(self, name) for name in self.__slots__}
            _log.info("taskq worker", extra=facts)
        elif wants_colour(sys.stderr):
            self._show_in_colour()
        else:
            for line in [f"taskq {self.version} worker", *self._lines(), self._how_to_stop()]:
                print(line, file=sys.stderr, flush=True)

    def _show_in_colour(self) -> None:
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text(f"taskq {self.version} worker", style="bold cyan"))
        for line in self._lines():
            console.print(Text(line[:_WIDTH], style="dim").append(line[_WIDTH:], style="not dim"))
        console.print(Text(self._how_to_stop(), style="dim"))

    def _lines(self) -> list[str]:
        count = len(self.tasks)
        jobs = counted(self.concurrency, "job", "jobs")
        facts = {
            "target": self.target,
            "server": f"{self.server}, namespace {self.namespace}",
            "signing": "signed: unsigned and forged jobs are refused" if self.signed else "off",
            "queues": ", ".join(self.queues),
            "tasks": f"{count}: {shortened(self.tasks)}" if count else "none are registered",
            "concurrency": f"{jobs} at once (up to {self.threads} in threads, up to "
            f"{self.executor_processes} in processes)",
            "workers": f"{self.workers} on {self.loop}, pid {self.pid}",
        }
        return [f"  {name:<{_WIDTH - 2}}{value}" for name, value in facts.items()]

    def _how_to_stop(self) -> str:
        return f"Ctrl-C once: finish running jobs ({self.grace:g} s); twice: stop now"


_WIDTH = 15


def shortened(names: tuple[str, ...], most: int = _MOST_NAMES) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


PROCESS = "Process"
"""The help panel for options of the process itself."""


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET",
        envvar="TASKQ_APP",
        show_default=False,
        help="The TaskQ: module:attr, app.py or app.py:attr. Default: \\[tool.taskq] app "
        "in pyproject.toml, else the one in app.py, main.py, tasks.py or PACKAGE/tasks.py.",
    ),
]

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, for scripts.", envvar="TASKQ_JSON")
]

Level = Annotated[
    LogLevel,
    typer.Option(
        "--log-level",
        envvar="TASKQ_LOG_LEVEL",
        metavar="LEVEL",
        case_sensitive=False,
        rich_help_panel=PROCESS,
        help="debug, info, warning or error. At debug, workers print a line for each job.",
    ),
]

Format = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="TASKQ_LOG_FORMAT",
        metavar="FORMAT",
        case_sensitive=False,
        rich_help_panel=PROCESS,
        help="text, or json with one object per line.",
    ),
]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def duration(text: str | float) -> float:
    """Parse a duration into seconds: `30`, `30s`, `5m`, `1h30m`.

    Raises `typer.BadParameter`.
    """
    try:
        seconds = parse_duration(str(text))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    if not 0 <= seconds < 3e9:
        raise typer.BadParameter(f"{text!r} is out of range; use 0s or more, such as 30s")
    return seconds


def size(text: str | float) -> int:
    """Parse a size into bytes: `500MB`, `1.5GB`, `512MiB`, `1000000`.

    Raises `typer.BadParameter`.
    """
    found = _SIZE.fullmatch(str(text).strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a size; use 500MB, 1.5GB or 512MiB")
    number, unit, binary = found.groups()
    base = 1024 if binary else 1000
    count = int(float(number) * base ** _POWERS.get((unit or "").lower(), 0))
    if count < 1:
        raise typer.BadParameter(f"{text!r} is less than a byte; use a size such as 500MB")
    return count

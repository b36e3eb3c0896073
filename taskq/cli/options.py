"""What several commands let users type: the target, logs, durations and sizes."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from taskq.cli.logs import LogFormat, LogLevel
from taskq.core.durations import parse_duration
from taskq.core.errors import ConfigError

__all__ = ["PROCESS", "AsJson", "Format", "Level", "Target", "duration", "size"]

PROCESS = "Process"
"""Where the help shows the options of the process itself."""


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET",
        envvar="TASKQ_APP",
        show_default=False,
        help="Where the TaskQ is: module:attr, app.py or app.py:attr. Default: \\[tool.taskq] app "
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
    """Seconds of what was typed for a duration: `30`, `30s`, `5m`, `1h30m`.

    Raises `typer.BadParameter`.
    """
    try:
        seconds = parse_duration(str(text))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    if not 0 <= seconds < 3e9:
        raise typer.BadParameter(f"{text!r} is out of range; type 0s or more, such as 30s")
    return seconds


def size(text: str | float) -> int:
    """Bytes of what was typed for a size: `500MB`, `1.5GB`, `512MiB`, `1000000`.

    Raises `typer.BadParameter`.
    """
    found = _SIZE.fullmatch(str(text).strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size; type 500MB, 1.5GB or 512MiB")
    number, unit, binary = found.groups()
    base = 1024 if binary else 1000
    count = int(float(number) * base ** _POWERS.get((unit or "").lower(), 0))
    if count < 1:
        raise typer.BadParameter(f"{text!r} is nothing; type a size such as 500MB")
    return count

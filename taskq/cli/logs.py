"""Log lines on stderr: text for people, JSON for machines. They never show arguments of jobs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from enum import StrEnum
from typing import Any, TextIO

from taskq.cli.terminal import indented, printable
from taskq.execution.executors.reports import text_of
from taskq.execution.job_log import JOB_LINES, JobLogFilter
from taskq.ops.as_json import json_printable

__all__ = ["LogFormat", "LogLevel", "configure_logs", "wants_colour"]

_COLOURS = {
    logging.DEBUG: "2",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """The format of log lines."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The lowest level to show."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logs(
    level: LogLevel, form: LogFormat, *, with_pid: bool = False, jobs: bool = False
) -> None:
    """Send the lines of every logger to stderr; `with_pid` tells processes apart in text.

    With `jobs`, each attempt logs a line at INFO.

    Called before the application is imported, so that its `logging.basicConfig()` changes nothing,
    and any other configuration by the application replaces this one.
    """
    handler = logging.StreamHandler()
    handler.addFilter(JobLogFilter())
    if form is LogFormat.JSON:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter(colour=wants_colour(sys.stderr), with_pid=with_pid))
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)
    if jobs:
        logging.getLogger(JOB_LINES).setLevel(logging.INFO)


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that accepts colour (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class TextFormatter(logging.Formatter):
    """`2026-11-23 07:02:14.123 WARNING taskq.worker: message`, in local time.

    Only a record begins at the first column: its further lines are indented, and messages of taskq
    have one line. So no quoted name or error can pass for a record.
    """

    def __init__(self, *, colour: bool, with_pid: bool) -> None:
        process = " [%(process)d]" if with_pid else ""
        super().__init__(
            f"%(asctime)s.%(msecs)03d{process} %(levelname)-7s %(name)s: %(message)s",
            "%Y-%m-%d %H:%M:%S",
        )
        self._colour = colour

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        text = super().formatMessage(record)
        return printable(text) if record.name.partition(".")[0] == "taskq" else text

    def format(self, record: logging.LogRecord) -> str:
        text = indented(super().format(record))
        code = _COLOURS.get(record.levelno)
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code else text


class JsonFormatter(logging.Formatter):
    """One object per line: ts, level, logger, message, pid, fields of `extra=`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": self._utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line.setdefault(name, value)
        if record.exc_text:
            line["exception"] = record.exc_text
        elif record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return _written(line) or str(_written({name: _plain(line[name]) for name in line}))

    @staticmethod
    def _utc(record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{moment}.{int(record.msecs):03d}Z"


def _written(value: object) -> str | None:
    """As JSON; None for values that JSON lacks: NaN, keys that are not text, cycles."""
    try:
        text = json.dumps(value, default=text_of, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return json_printable(text)


def _plain(value: object) -> object:
    """The value if JSON has it, else its text."""
    return text_of(value) if _written(value) is None else value

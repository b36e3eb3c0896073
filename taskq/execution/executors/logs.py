"""Log records of process tasks: written in the job's process, handled by the worker's loggers.

A fresh process has no logging configuration: its records would be lost, or bare. They travel as
plain data: which ones is decided by the worker's levels, and their text is made in the process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgpack

from taskq.core.errors import SoftTimeout
from taskq.execution.executors.failure import plain_text

__all__ = ["LogSender", "configured_levels", "handle_record", "set_levels", "text_of"]

_FIELDS: Final = (
    "name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName",
    "created", "msecs", "relativeCreated", "thread", "threadName", "process", "processName",
    "taskName",
)  # fmt: skip
_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})

_packb = cast("Callable[..., bytes]", msgpack.packb)
_unpackb = cast("Callable[..., Any]", msgpack.unpackb)


class LogSender(logging.Handler):
    """The handler of a job's process: gives records as plain data to `send`.

    One that `send` refuses, with false, is printed as Python does where logging is not configured.
    """

    def __init__(self, send: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__()
        self._send = send

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """None: a soft limit may raise anywhere, and would leave it taken."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, or print it."""
        try:
            sent = self._send(_described(record))
        except (RecursionError, SoftTimeout):
            raise
        except Exception:
            self.handleError(record)
            return
        last = logging.lastResort
        if not sent and last is not None and record.levelno >= last.level:
            last.handle(record)


def handle_record(described: Mapping[str, Any]) -> None:
    """Have this process's logging handle a record of another one."""
    name, level = described.get("name"), described.get("levelno")
    if not isinstance(name, str) or not isinstance(level, int):
        return
    log = logging.getLogger(name)
    if not log.isEnabledFor(level):
        return
    fields = {field: described[field] for field in _FIELDS if field in described}
    record = logging.makeLogRecord(fields)
    record.msg = str(described.get("msg"))
    record.exc_text = described.get("exc_text")
    record.stack_info = described.get("stack_info")
    for field, value in dict(described.get("extra") or {}).items():
        if not hasattr(record, field):
            setattr(record, field, value)
    log.handle(record)


def configured_levels() -> dict[str, int]:
    """The levels that were given to this process's loggers; "" is the root."""
    known = list(logging.root.manager.loggerDict.items())
    own = {name: log.level for name, log in known if isinstance(log, logging.Logger) and log.level}
    return own | {"": logging.root.level}


def set_levels(levels: Mapping[str, int]) -> None:
    """Give this process's loggers the levels of another process's."""
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


def text_of(value: object) -> str:
    """The text of any value: a log line is written whatever it was given."""
    try:
        return plain_text(str(value))
    except Exception:
        return f"<{type(value).__name__} without a text>"


def _described(record: logging.LogRecord) -> dict[str, Any]:
    fields = vars(record)
    trace = record.exc_text
    if record.exc_info and not trace:
        trace = logging.Formatter().formatException(record.exc_info)
    return {
        **{name: _plain(fields[name]) for name in _FIELDS if name in fields},
        "msg": plain_text(record.getMessage()),
        "exc_text": trace and plain_text(trace),
        "stack_info": record.stack_info and plain_text(record.stack_info),
        "extra": {name: _plain(fields[name]) for name in fields.keys() - _STANDARD},
    }


def _plain(value: Any) -> Any:
    """The value where msgpack has it, lists and maps of such as well; its text otherwise."""
    try:
        return _unpackb(_packb(value, default=text_of), strict_map_key=False)
    except Exception:
        return text_of(value)

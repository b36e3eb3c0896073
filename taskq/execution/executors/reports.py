"""What a child process reports to its parent: failures as text, and log records as plain data.

Exceptions are never rebuilt from their names.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, cast

import msgpack

from taskq.core.errors import Reject, RetryLater, SoftTimeout, TaskqError
from taskq.core.exception_types import bases_of, is_a, name_of
from taskq.core.text import fitting

__all__ = [
    "LogSender",
    "ProcessDied",
    "RemoteError",
    "RemoteKind",
    "Unfit",
    "configured_levels",
    "failure_of",
    "handle_record",
    "meant_by",
    "plain_text",
    "set_levels",
    "text_of",
]

_FIELDS: Final = (
    "name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName",
    "created", "msecs", "relativeCreated", "thread", "threadName", "process", "processName",
    "taskName",
)  # fmt: skip
_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})

_packb = cast("Callable[..., bytes]", msgpack.packb)
_unpackb = cast("Callable[..., Any]", msgpack.unpackb)


class LogSender(logging.Handler):
    """The logging handler of a child process: passes records as plain data to `send`.

    If `send` returns false, the record is printed as in a program that does not configure logging.
    """

    def __init__(self, send: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__()
        self._send = send

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """No lock: a soft limit may raise anywhere, and would leave it locked."""
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
    """Handle a record of another process in this process's logging."""
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
    """The levels that were set on this process's loggers; "" is the root."""
    known = list(logging.root.manager.loggerDict.items())
    own = {name: log.level for name, log in known if isinstance(log, logging.Logger) and log.level}
    return own | {"": logging.root.level}


def set_levels(levels: Mapping[str, int]) -> None:
    """Set the levels of another process on this process's loggers."""
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


def text_of(value: object) -> str:
    """The text of any value, so that a log line can always be written."""
    try:
        return plain_text(str(value))
    except Exception:
        return f"<{type(value).__name__} without text>"


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
    """The value if msgpack can encode it, else its text, also inside lists and maps."""
    try:
        return _unpackb(_packb(value, default=text_of), strict_map_key=False)
    except Exception:
        return text_of(value)


RemoteKind = Literal[
    "error", "retry_later", "reject", "soft_timeout", "unfit_arguments", "unfit_result"
]

_KINDS: tuple[tuple[type[BaseException], RemoteKind], ...] = (
    (RetryLater, "retry_later"),
    (Reject, "reject"),
    (SoftTimeout, "soft_timeout"),
)

_TEXT_LIMIT = 64 * 1024

# A century: an absurd delay must not prevent the report of a failure.
_MOST_DELAY = 3e9

# Not as attributes of the error, whose class may override them.
_MEMBERS: Final[Any] = BaseExceptionGroup.exceptions
_TRACEBACK: Final[Any] = BaseException.__traceback__

# The package that runs attempts, whose frames say nothing about a failure.
_EXECUTION_FOLDER = os.path.dirname(os.path.dirname(__file__)) + os.sep


class ProcessDied(TaskqError):
    """The process of the job ended before the job did; the message says how."""


class RemoteError(TaskqError):
    """The function raised an exception in its own process.

    `type_name` is the name of the exception's class, `mro` the names of that class and its bases,
    `text` its message and `traceback_text` its traceback. `kind` is `error`, or one with a meaning
    to taskq: `retry_later` (with `delay` in seconds), `reject`, `soft_timeout`, `unfit_arguments`
    (the payload does not fit the function) or `unfit_result` (the value cannot be serialised).
    """

    def __init__(
        self,
        type_name: str,
        text: str,
        traceback_text: str,
        kind: RemoteKind = "error",
        *,
        mro: tuple[str, ...] = (),
        delay: float | None = None,
    ) -> None:
        super().__init__(f"{type_name}: {text}")
        self.type_name = type_name
        self.text = text
        self.traceback_text = traceback_text
        self.kind: RemoteKind = kind
        self.mro = mro or (type_name,)
        self.delay = delay

    @classmethod
    def of(cls, failure: dict[str, Any]) -> RemoteError:
        """The error that `failure_of` described."""
        return cls(
            failure["type"],
            failure["text"],
            failure["traceback"],
            failure["kind"],
            mro=tuple(failure["mro"]),
            delay=failure["delay"],
        )

    def control(self) -> RetryLater | Reject | SoftTimeout | None:
        """The `RetryLater`, `Reject` or `SoftTimeout` that the function raised, None otherwise."""
        if self.kind == "retry_later":
            return RetryLater(self.delay or 0.0, self.text)
        if self.kind == "reject":
            return Reject(self.text)
        if self.kind == "soft_timeout":
            return SoftTimeout(self.text)
        return None


class Unfit(Exception):
    """The arguments do not fit the function, or its result cannot be serialised; see `error`."""

    def __init__(self, kind: RemoteKind, error: Exception) -> None:
        super().__init__(kind)
        self.kind: RemoteKind = kind
        self.error = error


def failure_of(error: BaseException) -> dict[str, Any]:
    """Describe any error as plain data for `RemoteError.of`; never raises."""
    if type(error) is Unfit:
        return failure_of(error.error) | {"kind": error.kind}
    meant = meant_by(error)
    kind, text = _kind_of(meant), _text_of(meant)
    delay = _delay_of(meant) if kind == "retry_later" else None
    if kind == "retry_later" and delay is None:
        # Without a valid delay, the job would retry at once and for ever.
        kind, text = "error", f"{text} (and its delay is not a number of seconds, 0 or more)"
    return {
        "type": name_of(type(meant)),
        "text": plain_text(text),
        "traceback": plain_text(_traceback_of(error)),
        "kind": kind,
        "mro": [name_of(base) for base in bases_of(type(meant))],
        "delay": delay,
    }


def meant_by(error: BaseException) -> BaseException:
    """The single `RetryLater` or `Reject` in a group, else `error` itself.

    An asyncio.TaskGroup wraps whatever its body raises.
    """
    meant = error
    while is_a(meant, BaseExceptionGroup):
        members = _MEMBERS.__get__(meant)
        if len(members) != 1:
            return error
        meant = members[0]
    return meant if is_a(meant, RetryLater, Reject) else error


def _kind_of(error: BaseException) -> RemoteKind:
    if not is_a(error, BaseExceptionGroup):
        for known, kind in _KINDS:
            if is_a(error, known):
                return kind
        return "error"
    only_soft = all(is_a(member, SoftTimeout) for member in _leaves(error))
    return "soft_timeout" if only_soft else "error"


def _leaves(group: BaseException) -> list[BaseException]:
    """The exceptions in a group at any depth that are not groups themselves, each once."""
    found: list[BaseException] = []
    seen: set[int] = set()
    left = [group]
    while left:
        member = left.pop()
        if id(member) in seen:
            continue
        seen.add(id(member))
        if is_a(member, BaseExceptionGroup):
            left.extend(_MEMBERS.__get__(member))
        else:
            found.append(member)
    return found


def _text_of(error: BaseException) -> str:
    try:
        # An instance of a subclass of `str` may misbehave like the error itself.
        return str.__str__(str(error))
    except BaseException as failure:
        return f"<str() of this {name_of(type(error))} raised {name_of(type(failure))}>"


def _traceback_of(error: BaseException) -> str:
    trace = _user_frames(_TRACEBACK.__get__(error))
    whole = _shown(lambda: traceback.format_exception(type(error), error, trace))
    if whole is not None:
        return whole
    frames = _shown(lambda: traceback.format_tb(trace)) or ""
    return f"{frames}<the rest of the traceback cannot be shown>\n"


def _shown(lines: Callable[[], list[str]]) -> str | None:
    try:
        return "".join(lines())
    except BaseException:
        return None


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame of the user's code on; all of it if there is none."""
    first = trace
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_EXECUTION_FOLDER):
        first = first.tb_next
    return first or trace


def _delay_of(error: BaseException) -> float | None:
    try:
        delay = getattr(error, "delay", 0.0)
        # NaN fails the comparison, too.
        return float(min(delay, _MOST_DELAY)) if delay >= 0 else None
    except BaseException:
        return None


def plain_text(text: str) -> str:
    """Text that can be encoded, shortened to a readable length."""
    return fitting(text, _TEXT_LIMIT)

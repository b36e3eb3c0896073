"""The immutable part of a job as bytes: task name, arguments and what overrides the task's options.

Everything here is msgpack and begins with a version number. Arguments are bytes inside bytes, so
that whoever reads the envelope need not decode what users wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from taskq.codec.payload import judge_record
from taskq.core.durations import seconds
from taskq.core.errors import ConfigError, DecodeError
from taskq.core.job import Fire
from taskq.core.outcome import Failed, FailureKind
from taskq.core.retry import Retry
from taskq.core.text import MOST_TEXTS, fitting

__all__ = [
    "Envelope",
    "FailureRecord",
    "pack_envelope",
    "pack_failure",
    "unpack_envelope",
    "unpack_failure",
]

VERSION: Final = 1
_LIMIT: Final = 2 * 1_048_576
_MOST_VALUES: Final = 2 * MOST_TEXTS + 64
_TEXT_LIMIT: Final = 8_192
_TRACEBACK_LIMIT: Final = 65_536


class Envelope(NamedTuple):
    """What a producer says of a job. `version` above ours is for a newer worker.

    `attempts` and `failures` are those it had before the server knew it. A tuple: one is made for
    each job that runs, and a frozen dataclass takes three times as long.
    """

    task: str
    payload: bytes
    timeout: float | None = None
    result_ttl: float | None = None
    retry: Retry | None = None
    headers: dict[str, str] | None = None
    attempts: int = 0
    failures: int = 0
    fire: Fire | None = None
    version: int = VERSION


def pack_envelope(
    task: str,
    payload: bytes,
    *,
    timeout: float | None = None,
    result_ttl: float | None = None,
    retry: Retry | None = None,
    headers: dict[str, str] | None = None,
    before: tuple[int, int] = (0, 0),
    fire: Fire | None = None,
) -> bytes:
    """The bytes of an envelope; what is None or empty takes no room.

    `before`: attempts and failures that the job had in this process.
    """
    plain = timeout is None and result_ttl is None and retry is None and not headers
    if plain and not before[0] and fire is None:
        return msgpack.packb((VERSION, task, payload))
    extras: dict[str, Any] = {}
    if timeout is not None:
        extras["t"] = timeout
    if result_ttl is not None:
        extras["l"] = result_ttl
    if retry is not None:
        extras["r"] = _pack_retry(retry)
    if headers:
        extras["h"] = headers
    if before[0]:
        extras["b"] = before
    if fire is not None:
        extras["s"] = list(fire if fire.zone else fire[:3])
    return msgpack.packb((VERSION, task, payload, extras))


def unpack_envelope(data: bytes) -> Envelope:
    """Read an envelope; unknown extras of a newer producer are ignored.

    Raises `DecodeError` for bytes that are none.
    """
    try:
        if len(data) > _MOST_VALUES:
            judge_record(data, most_bytes=_LIMIT, most_values=_MOST_VALUES)
        parts = msgpack.unpackb(data, max_array_len=64, max_map_len=MOST_TEXTS)
        version, task, payload, *rest = parts
        if type(version) is not int or type(task) is not str or type(payload) is not bytes:
            raise TypeError("fields of another type")
        if not rest:
            return Envelope(task, payload, version=version)
        extras: dict[str, Any] = rest[0]
        attempts, failures = _counts(extras.get("b"))
        return Envelope(
            task,
            payload,
            timeout=_number("timeout", extras.get("t"), least=0.001),
            result_ttl=_number("result_ttl", extras.get("l")),
            retry=_unpack_retry(extras.get("r")),
            headers=_texts(extras.get("h") or {}) or None,
            attempts=attempts,
            failures=failures,
            fire=_fire(extras.get("s")),
            version=version,
        )
    except Exception as error:
        raise DecodeError(f"these bytes are no envelope of taskq: {error}") from error


def _pack_retry(retry: Retry) -> list[Any]:
    if retry.on != (Exception,) or retry.never:
        raise ConfigError(
            "on= and never= name classes, which cannot travel with one job; set them on the task: "
            "@q.task(retry=Retry(on=..., never=...))"
        )
    return [retry.max_attempts, _seconds(retry.backoff), _seconds(retry.max_delay), retry.jitter]


def _number(what: str, value: Any, *, least: float = 0.0) -> float | None:
    return None if value is None else seconds(what, value, least=least)


def _texts(headers: dict[Any, Any]) -> dict[str, str]:
    if not all(type(key) is str and type(text) is str for key, text in headers.items()):
        raise TypeError("headers that are no text")
    return headers


def _counts(before: Any) -> tuple[int, int]:
    attempts, failures = before or (0, 0)
    if type(attempts) is not int or type(failures) is not int or not 0 <= failures <= attempts:
        raise TypeError("counts of attempts that are none")
    return attempts, failures


def _fire(parts: list[Any] | None) -> Fire | None:
    if parts is None:
        return None
    schedule, slot, by_hand, zone, *_ = (*parts, "") if len(parts) == 3 else parts
    if type(schedule) is not str or type(slot) is not int or type(zone) is not str:
        raise TypeError("a schedule's fire of another type")
    return Fire(schedule, slot, bool(by_hand), zone)


def _unpack_retry(parts: list[Any] | None) -> Retry | None:
    return None if parts is None else Retry(*parts[:4])


def _seconds(value: Any) -> float:
    return value.total_seconds() if hasattr(value, "total_seconds") else float(value)


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A failure as it is stored: names and text, never the exception itself."""

    error_type: str
    error_text: str
    traceback: str
    kind: FailureKind


def pack_failure(failure: Failed) -> bytes:
    """The bytes of a failure, its texts cut to a bounded length."""
    return msgpack.packb(
        (
            VERSION,
            fitting(failure.error_type, 200),
            fitting(failure.error_text, _TEXT_LIMIT),
            fitting(failure.traceback, _TRACEBACK_LIMIT),
            failure.kind,
        )
    )


def unpack_failure(data: bytes) -> FailureRecord:
    """Read a failure; bytes that are none give a record that says so."""
    try:
        judge_record(data, most_bytes=_LIMIT, most_values=16)
        parts = msgpack.unpackb(data, max_array_len=16, max_map_len=0)
        _, error_type, error_text, traceback, kind = parts
        if not all(type(part) is str for part in parts[1:]):
            raise TypeError("fields of another type")
        return FailureRecord(error_type, error_text, traceback, kind)
    except Exception:
        return FailureRecord("UnreadableError", "the stored error cannot be read", "", "malformed")

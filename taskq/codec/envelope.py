"""The immutable part of a job, and its failure, as bytes.

An envelope holds the task's name, the arguments and the options that override the task's own. Both
are msgpack and begin with a version number. The arguments are bytes inside the envelope, so reading
an envelope does not decode user values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from taskq.codec.payload import check_record
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
    """What a producer says about a job. A `version` above ours needs a newer worker.

    `attempts` and `failures` count what happened before the job reached the server. It is a tuple
    because every run creates one, and a frozen dataclass takes three times as long.
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
    """The bytes of an envelope; options that are None or empty take no space.

    `before`: the attempts and failures that the job had in this process.
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
    """Read an envelope, ignoring unknown extras of a newer producer.

    Raises `DecodeError` for other bytes.
    """
    try:
        if len(data) > _MOST_VALUES:
            check_record(data, most_bytes=_LIMIT, most_values=_MOST_VALUES)
        parts = msgpack.unpackb(data, max_array_len=64, max_map_len=MOST_TEXTS)
        version, task, payload, *rest = parts
        if type(version) is not int or type(task) is not str or type(payload) is not bytes:
            raise TypeError("a field has the wrong type")
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
        raise DecodeError(f"not a taskq envelope: {error}") from error


def _pack_retry(retry: Retry) -> list[Any]:
    if retry.on != (Exception,) or retry.never:
        raise ConfigError(
            "on= and never= name classes, which a single job cannot carry; set them on the task: "
            "@q.task(retry=Retry(on=..., never=...))"
        )
    backoff, max_delay = seconds("backoff", retry.backoff), seconds("max_delay", retry.max_delay)
    return [retry.max_attempts, backoff, max_delay, retry.jitter]


def _number(what: str, value: Any, *, least: float = 0.0) -> float | None:
    return None if value is None else seconds(what, value, least=least)


def _texts(headers: dict[Any, Any]) -> dict[str, str]:
    if not all(type(key) is str and type(text) is str for key, text in headers.items()):
        raise TypeError("a header is not text")
    return headers


def _counts(before: Any) -> tuple[int, int]:
    attempts, failures = before or (0, 0)
    if type(attempts) is not int or type(failures) is not int or not 0 <= failures <= attempts:
        raise TypeError("the counts of attempts are invalid")
    return attempts, failures


def _fire(parts: list[Any] | None) -> Fire | None:
    if parts is None:
        return None
    schedule, slot, by_hand, zone, *_ = (*parts, "") if len(parts) == 3 else parts
    if type(schedule) is not str or type(slot) is not int or type(zone) is not str:
        raise TypeError("a field of the schedule's fire has the wrong type")
    return Fire(schedule, slot, bool(by_hand), zone)


def _unpack_retry(parts: list[Any] | None) -> Retry | None:
    return None if parts is None else Retry(*parts[:4])


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A stored failure: names and text, never the exception itself."""

    error_type: str
    error_text: str
    traceback: str
    kind: FailureKind


def pack_failure(failure: Failed) -> bytes:
    """The bytes of a failure, with its texts cut to a maximum length."""
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
    """Read a failure; unreadable bytes give a record that says so."""
    try:
        check_record(data, most_bytes=_LIMIT, most_values=16)
        parts = msgpack.unpackb(data, max_array_len=16, max_map_len=0)
        _, error_type, error_text, traceback, kind = parts
        if not all(type(part) is str for part in parts[1:]):
            raise TypeError("a field has the wrong type")
        return FailureRecord(error_type, error_text, traceback, kind)
    except Exception:
        return FailureRecord("UnreadableError", "the stored error cannot be read", "", "malformed")

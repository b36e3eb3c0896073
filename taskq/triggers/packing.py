"""Convert triggers to plain data and back, for stored schedules.

A packed trigger is `[kind, fields]`. Instants and periods are whole microseconds. A missing field
has its default, so a newer taskq reads what an older one wrote. Unreadable data raises
`DecodeError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, cast

from taskq.core.durations import seconds
from taskq.core.errors import ConfigError, DecodeError
from taskq.triggers.calendar import Calendar, time_of_day
from taskq.triggers.combined import AllOf, AnyOf, At
from taskq.triggers.cron import Cron
from taskq.triggers.interval import Every
from taskq.triggers.trigger import INSTANT, Trigger, utc

__all__ = ["pack_trigger", "unpack_trigger"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Deeper than any valid trigger: the limit is for untrusted data.
_DEEPEST = 16


def pack_trigger(trigger: Trigger) -> list[Any]:
    """`trigger` as lists, dicts with text keys, text, numbers and booleans."""
    for kind, (cls, codecs) in _KINDS.items():
        if type(trigger) is cls:
            packed: dict[str, Any] = {}
            for item in fields(cls):
                value = getattr(trigger, item.name)
                if item.init and value != item.default:
                    write = codecs[item.name][0] if item.name in codecs else _as_is
                    packed[item.name] = write(value)
            return [kind, packed]
    raise ConfigError(f"{trigger!r} is a custom trigger, which other processes could not read")


def unpack_trigger(data: Any) -> Trigger:
    """The trigger that `pack_trigger` packed.

    Raises:
        DecodeError: `data` is not a packed trigger, or its kind or time zone is unknown to this
            process.
    """
    return _unpack(data, _DEEPEST)


def _unpack(data: Any, depth: int) -> Trigger:
    match data:
        case [str(kind), dict()] if depth:
            given = cast("dict[Any, Any]", data[1])
        case _:
            raise DecodeError(f"not a stored trigger: {str(data)[:80]}")
    if kind not in _KINDS:
        raise DecodeError(
            f"this version of taskq does not know triggers of the kind {kind[:40]!r}; it knows "
            f"{', '.join(_KINDS)}"
        )
    cls, codecs = _KINDS[kind]
    names = {item.name for item in fields(cls) if item.init}
    try:
        if unknown := sorted(set(given) - names):
            raise ConfigError(f"it has the unknown field {str(unknown[0])[:40]!r}")
        values = {name: _reader(name, codecs)(value) for name, value in given.items()}
        if kind in ("any_of", "all_of"):
            values["parts"] = tuple(_unpack(part, depth - 1) for part in given["parts"])
        return cls(**values)
    except DecodeError:
        raise
    except Exception as error:  # constructors raise anything for invalid values
        raise DecodeError(f"a stored {kind} trigger cannot be read: {error}") from error


def _reader(name: str, codecs: dict[str, _Codec]) -> Callable[[Any], Any]:
    if name == "jitter":
        return _unpack_jitter
    return codecs[name][1] if name in codecs else _as_is


def _as_is(value: Any) -> Any:
    return value


def _pack_instant(value: datetime) -> int:
    return (utc("instant", value) - _EPOCH) // INSTANT


def _unpack_instant(value: int) -> datetime:
    return _EPOCH + value * INSTANT


def _pack_period(value: timedelta) -> int:
    return value // INSTANT


def _unpack_period(value: int) -> timedelta:
    return value * INSTANT


def _pack_parts(value: tuple[Trigger, ...]) -> list[Any]:
    return [pack_trigger(part) for part in value]


def _unpack_jitter(value: float) -> float:
    return seconds("jitter", value)


def _unpack_flag(value: bool) -> bool:
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{str(value)[:40]!r} is neither true nor false")
    return value


def _unpack_text(value: str) -> str:
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{str(value)[:40]!r} is not text")
    return value


_Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]
_INSTANT: _Codec = (_pack_instant, _unpack_instant)
_FLAG: _Codec = (_as_is, _unpack_flag)
_TEXT: _Codec = (_as_is, _unpack_text)
_PARTS: _Codec = (_pack_parts, _as_is)
_KINDS: dict[str, tuple[type[Trigger], dict[str, _Codec]]] = {
    "at": (At, {"instant": _INSTANT, "tz": _TEXT}),
    "every": (
        Every,
        {
            "period": (_pack_period, _unpack_period),
            "anchor": _INSTANT,
            "immediate": _FLAG,
            "end": _INSTANT,
            "tz": _TEXT,
        },
    ),
    "cron": (Cron, {"start": _INSTANT, "end": _INSTANT}),
    "calendar": (
        Calendar,
        {
            "at": (time.isoformat, time_of_day),
            "start": (date.isoformat, date.fromisoformat),
            "end": _INSTANT,
        },
    ),
    "any_of": (AnyOf, {"parts": _PARTS}),
    "all_of": (AllOf, {"parts": _PARTS}),
}

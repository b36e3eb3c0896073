"""Durations and instants: what users type, in seconds and milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from taskq.core.errors import ConfigError

__all__ = [
    "Duration",
    "base_date",
    "base_datetime",
    "base_timedelta",
    "instant_ms",
    "parse_duration",
    "seconds",
]

Duration = float | timedelta
"""A timedelta or a number of seconds."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


# Subclasses, such as pendulum's, change what arithmetic and attributes give. So their values are
# reduced first, by methods of the base: a subclass cannot redefine those.


def base_datetime(value: datetime) -> datetime:
    """The same instant in the same zone, without what a subclass makes of it."""
    return datetime.combine(datetime.date(value), datetime.timetz(value))


def base_date(value: date) -> date:
    """The same day, without what a subclass makes of it."""
    return date.fromordinal(date.toordinal(value))


base_timedelta = timedelta.__pos__
"""The same duration, without what a subclass makes of it."""


def seconds(what: str, value: Duration, *, least: float = 0.0) -> float:
    """`value` in seconds.

    Raises `ConfigError` for what is no duration, is below `least` seconds, or no number.
    """
    if isinstance(value, timedelta):
        value = timedelta.total_seconds(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{what}={value!r} is no duration; type seconds (30) or a timedelta")
    if not least <= value < 3e9:
        raise ConfigError(
            f"{what}={value!r} is out of range; type at least {least:g} seconds, below 3e9"
        )
    return float(value)


def instant_ms(what: str, value: datetime) -> int:
    """An aware datetime in milliseconds since the epoch.

    Raises `ConfigError` for a naive one, whose instant depends on the machine that reads it.
    """
    if not isinstance(value, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{what}={value!r} is no instant; type datetime.now(UTC) + timedelta(1)")
    plain = base_datetime(value)
    # A tzinfo that gives no offset is as none.
    if plain.utcoffset() is None:
        raise ConfigError(
            f"{what}={value!r} has no time zone; type datetime(..., tzinfo=UTC) or "
            "datetime.now(UTC)"
        )
    # Not by way of a float, which would make some of them a millisecond early.
    return (plain - _EPOCH) // timedelta(milliseconds=1)


def zone_text(value: datetime) -> str:
    """The zone of an aware datetime as text: an IANA name or an offset; empty for UTC."""
    key = getattr(value.tzinfo, "key", None)
    if isinstance(key, str):
        return "" if key == "UTC" else key
    return f"{value:%z}" if value.utcoffset() else ""


def in_zone(instant: datetime, zone: str) -> datetime:
    """The instant on the clock of `zone`, as `zone_text` gives it; in UTC where that is unknown."""
    try:
        if zone[:1] in ("+", "-"):
            return instant.astimezone(datetime.strptime(zone, "%z").tzinfo)
        return instant.astimezone(ZoneInfo(zone) if zone else UTC)
    except Exception:  # a name that is none, a directory, a zone this machine has not
        return instant.astimezone(UTC)


def parse_duration(text: str) -> float:
    """Seconds of a duration as typed on a command line: `30`, `30s`, `5m`, `1h30m`, `250ms`.

    >>> parse_duration("1h30m")
    5400.0
    """
    text = text.strip().lower()
    parts = _PART.findall(text if text[-1:].isalpha() else text + "s")
    read = "".join(number + unit for number, unit in parts)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or read not in (text, text + "s") or total >= 3e9:
        raise ConfigError(f"{text!r} is no duration; type 30s, 5m, 1h30m or 250ms")
    return total

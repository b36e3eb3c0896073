"""Durations and instants: convert what users pass to seconds and milliseconds."""

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


# Subclasses, such as pendulum's, change the results of arithmetic and attributes. So values
# are first converted to the base class, by methods that a subclass cannot override.


def base_datetime(value: datetime) -> datetime:
    """The same instant in the same zone, as a plain `datetime`."""
    return datetime.combine(datetime.date(value), datetime.timetz(value))


def base_date(value: date) -> date:
    """The same day, as a plain `date`."""
    return date.fromordinal(date.toordinal(value))


base_timedelta = timedelta.__pos__
"""The same duration, as a plain `timedelta`."""


def seconds(what: str, value: Duration, *, least: float = 0.0) -> float:
    """`value` in seconds.

    Raises `ConfigError` for anything but a duration of at least `least` seconds.
    """
    if isinstance(value, timedelta):
        value = timedelta.total_seconds(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{what}={value!r} is not a duration; use seconds (30) or a timedelta")
    if not least <= value < 3e9:
        raise ConfigError(
            f"{what}={value!r} is out of range; use at least {least:g} seconds, below 3e9"
        )
    return float(value)


def instant_ms(what: str, value: datetime) -> int:
    """An aware datetime in milliseconds since the epoch.

    Raises `ConfigError` for a naive one, which means another instant on another machine.
    """
    if not isinstance(value, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"{what}={value!r} is not an instant; use datetime.now(UTC) + timedelta(1)"
        )
    plain = base_datetime(value)
    # A tzinfo without an offset counts as naive.
    if plain.utcoffset() is None:
        raise ConfigError(
            f"{what}={value!r} has no time zone; use datetime(..., tzinfo=UTC) or datetime.now(UTC)"
        )
    # Not via a float, which would make some instants a millisecond early.
    return (plain - _EPOCH) // timedelta(milliseconds=1)


def zone_text(value: datetime) -> str:
    """The zone of an aware datetime as text: an IANA name or an offset; empty for UTC."""
    key = getattr(value.tzinfo, "key", None)
    if isinstance(key, str):
        return "" if key == "UTC" else key
    return f"{value:%z}" if value.utcoffset() else ""


def in_zone(instant: datetime, zone: str) -> datetime:
    """The instant in `zone`, which is a text of `zone_text`; in UTC if the zone is unknown here."""
    try:
        if zone[:1] in ("+", "-"):
            return instant.astimezone(datetime.strptime(zone, "%z").tzinfo)
        return instant.astimezone(ZoneInfo(zone) if zone else UTC)
    except Exception:  # an invalid name, a directory, a zone this machine lacks
        return instant.astimezone(UTC)


def parse_duration(text: str) -> float:
    """Seconds of a duration as written on a command line: `30`, `30s`, `5m`, `1h30m`, `250ms`.

    >>> parse_duration("1h30m")
    5400.0
    """
    text = text.strip().lower()
    parts = _PART.findall(text if text[-1:].isalpha() else text + "s")
    read = "".join(number + unit for number, unit in parts)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or read not in (text, text + "s") or total >= 3e9:
        raise ConfigError(f"{text!r} is not a duration; use 30s, 5m, 1h30m or 250ms")
    return total

"""Time zones by their IANA names; the zone of the machine is never read."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from taskq.core.errors import ConfigError

__all__ = ["zone_name", "zone_of"]

# Names that mean another zone on another machine, or none.
_NOT_ZONES = re.compile(r"(localtime|posixrules|factory|tzdata|posix/.*|right/.*)$", re.IGNORECASE)
_OFFSET = re.compile(r"(utc|gmt)?\s*[+-]\d{1,2}(:?\d\d)?$", re.IGNORECASE)


def zone_of(tz: str) -> ZoneInfo:
    """The zone of this IANA name.

    Raises `ConfigError` with the nearest name when there is none.
    """
    if _OFFSET.match(tz):
        raise ConfigError(
            f"tz={tz!r} is an offset, which knows no clock changes; type the name of a place: "
            "tz='Europe/Berlin'"
        )
    if not _NOT_ZONES.match(tz):
        try:
            return ZoneInfo(tz)
        except (OSError, ValueError, LookupError):  # no such name, a directory, no path at all
            pass
    known = sorted(available_timezones())
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(tz.casefold(), folded, n=1, cutoff=0.6) or [
        name for name in folded if name.endswith("/" + tz.casefold().replace(" ", "_"))
    ]
    raise ConfigError(
        f"there is no time zone {tz!r}; "
        + (f"did you mean {folded[near[0]]!r}?" if near else "type an IANA name: 'Europe/Berlin'")
    )


def zone_name(tz: str | tzinfo) -> str:
    """The IANA name of what users give as `tz`.

    Raises `ConfigError` for what is none, such as a fixed offset.
    """
    given: Any = tz
    if isinstance(given, ZoneInfo) and given.key:
        return zone_of(given.key).key
    if given is UTC:
        return "UTC"
    if not isinstance(given, str):
        raise ConfigError(f"tz={given!r} has no IANA name; type one: tz='Europe/Berlin'")
    return zone_of(given).key

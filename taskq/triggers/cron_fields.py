"""Parse cron expressions strictly: anything ambiguous or unknown is refused with the reason."""

from __future__ import annotations

import re
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from taskq.core.errors import ConfigError
from taskq.core.options import nearest
from taskq.triggers.cron_dialects import ALIASES, FIELDS, Dialect, Field

__all__ = ["LAST", "CronFields", "SecondsPlace", "parse"]

SecondsPlace = Literal["first", "last"]
"""The place of the seconds in an expression of more than five fields."""

LAST = 0
"""In place of the number of a weekday in its month (2 in `5#2`): the last one (`5L`)."""

# A zone as crontabs and other schedulers write it.
_ZONE = re.compile(r"\s*(?:CRON_)?TZ\s*=\s*['\"]?([^\s'\"]+)['\"]?\s+(.*\S)", re.I | re.S)
_LONGEST = 500
_ITEM = re.compile(r"(?:\*|(?P<first>[a-z0-9]+)(?:-(?P<last>[a-z0-9]+))?)(?:/(?P<step>\d{1,5}))?$")
_HASHED = re.compile(r"h(?:\((?P<low>\d{1,4})-(?P<high>\d{1,4})\))?(?:/(?P<step>\d{1,5}))?$")
_NEAREST = re.compile(r"(?:(\d{1,2})w|w(\d{1,2}))$")
_NTH = re.compile(r"(?P<days>[a-z0-9]+(?:-[a-z0-9]+)?)#(?P<nth>\d{1,3})$")
_LAST_WEEKDAY = re.compile(r"(?:l(\d)|(\d)l)$")
_UNTIL_LAST = re.compile(r"(\d{1,2})-l$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CronFields:
    """The meaning of an expression, independent of its spelling.

    Weekdays count from Sunday, 0. `nearest` are days that stand for the weekday nearest to them
    (`15W`); `nth` are pairs of a weekday and its number in the month. With `both_days` a day must
    match day of month and day of week, otherwise one of them. `elapsed`: the minute or the hour
    begins with a star, so the expression follows elapsed time through daylight saving time.
    """

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    last_day: bool
    nearest: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    nth: frozenset[tuple[int, int]]
    years: frozenset[int]
    both_days: bool
    elapsed: bool


class _Invalid(Exception):
    """Why an expression is invalid."""


class _Item(NamedTuple):
    """One item of a list, and its context."""

    text: str
    field: Field
    dialect: Dialect
    hash_id: str | None


@dataclass(slots=True)
class _Found:
    """What the items of one field stand for."""

    values: set[int]
    last_day: bool
    nearest: set[int]
    nth: set[tuple[int, int]]


def parse(
    expr: str, dialect: Dialect, *, seconds: SecondsPlace | None = None, hash_id: str | None = None
) -> CronFields:
    """The meaning of `expr` in `dialect`.

    Raises `ConfigError` with the field, the reason and what to use instead.
    """
    try:
        texts = _split(expr, dialect, seconds)
        found = {
            name: _field(name, text, dialect, hash_id)
            for name, text in zip(_order(len(texts), seconds), texts, strict=True)
        }
        fields = _combined(
            found, dict(zip(_order(len(texts), seconds), texts, strict=True)), dialect
        )
        _check_possible(fields)
    except _Invalid as invalid:
        raise ConfigError(f"cron({expr!r}): {invalid}") from None
    return fields


def _expression(expr: str, dialect: Dialect) -> str:
    """The fields as text, in lower case."""
    if not isinstance(expr, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _Invalid("use text for the expression: '0 8 * * *'")
    text = expr.strip().lower()
    if len(text) > _LONGEST:
        raise _Invalid(f"an expression has at most {_LONGEST} characters")
    if zone := _ZONE.match(expr):
        raise _Invalid(f"the zone is an option: use cron({zone[2]!r}, tz={zone[1]!r})")
    return _alias(text, dialect) if text.startswith("@") else text


def _split(expr: str, dialect: Dialect, seconds: SecondsPlace | None) -> list[str]:
    text = _expression(expr, dialect)
    texts = re.findall(r"\S+", text, re.ASCII)
    if len(texts) == 5:
        if seconds is not None:
            raise _Invalid(f"seconds={seconds!r} needs 6 fields, and there are 5")
        return texts
    if len(texts) not in (6, 7) or not dialect.extras:
        raise _Invalid(
            f"it has {len(texts)} fields; use 5: minute, hour, day of month, month, day of week"
        )
    if seconds is None:
        raise _Invalid(
            f"it has {len(texts)} fields, and schedulers differ in where the seconds go; use "
            "seconds='first' or seconds='last'"
        )
    return texts


def _alias(text: str, dialect: Dialect) -> str:
    if text in ALIASES and dialect.extras:
        return ALIASES[text]
    if text == "@reboot":
        raise _Invalid("a queue does not start with the machine; use at(...) or enqueue the job")
    if text.startswith("@every"):
        raise _Invalid("use every(minutes=5) in place of '@every 5m'")
    if not dialect.extras:
        raise _Invalid(f"the dialect {dialect.name!r} has no {text}; use the five fields")
    raise _Invalid(f"there is no {text!r}{nearest(text, list(ALIASES))}")


def _order(count: int, seconds: SecondsPlace | None) -> list[str]:
    names = list(FIELDS)
    if seconds == "first":
        names = ["second", *names[:5], "year"]
    return names[:count]


def _field(name: str, text: str, dialect: Dialect, hash_id: str | None) -> _Found:
    field = dialect.field(name)
    found = _Found(set(), False, set(), set())
    if text == "?":
        if not dialect.extras or name not in ("day of month", "day of week"):
            raise _Invalid(f"{name} '?': use '*'")
        text = "*"
    for part in text.split(","):
        item = _Item(part, field, dialect, hash_id)
        special = _SPECIALS.get(name)
        if special is None or not special(item, found):
            found.values |= _canonical(_values(item), item)
    return found


def _values(item: _Item) -> list[int]:
    if item.dialect.extras and (hashed := _HASHED.match(item.text)):
        return _hashed(hashed, item)
    matched = _ITEM.match(item.text)
    if matched is None:
        raise _Invalid(_unreadable(item))
    first, last, step = matched["first"], matched["last"], _step(matched["step"], item)
    low, high = item.field.low, item.field.high
    if first is None:
        _check_step(step, high - low, item)
        return list(range(low, high + 1, step or 1))
    start = _number(first, item)
    if last is None:
        return _from(start, step, item)
    if step and not item.dialect.name_steps and not (first + last).isdigit():
        raise _Invalid(f"{_quoted(item)}: this dialect does not allow steps of names; use numbers")
    return _range(start, _number(last, item), step, item)


def _from(start: int, step: int | None, item: _Item) -> list[int]:
    if step is None:
        return [start]
    if not item.dialect.open_steps or (item.text[0].isalpha() and not item.dialect.name_steps):
        raise _Invalid(f"{_quoted(item)}: add the end: '{start}-{item.field.high}/{step}'")
    _check_step(step, item.field.high - start, item)
    return list(range(start, item.field.high + 1, step))


def _range(start: int, end: int, step: int | None, item: _Item) -> list[int]:
    if start == end and not item.dialect.equal_ranges:
        raise _Invalid(
            f"{_quoted(item)}: croniter takes a range from a value to itself for every value, "
            f"others for that value; use '{start}' or '*'"
        )
    # Sunday is 7 at the end of a range and 0 at its start: 5-7, 7-2.
    top = 6 if item.field.name == "day of week" else item.field.high
    if start > end and top == 6:
        start %= 7
    if start <= end:
        _check_step(step, (end or item.field.high) - start, item)
        return list(range(start, end + 1, step or 1))
    if not item.dialect.wraps:
        raise _Invalid(
            f"{_quoted(item)}: a range must ascend in this dialect; use "
            f"'{start}-{top},{item.field.low}-{end}'"
        )
    return [*range(start, top + 1), *range(item.field.low, end + 1)][:: step or 1]


def _hashed(matched: re.Match[str], item: _Item) -> list[int]:
    if item.hash_id is None:
        raise _Invalid(
            f"{_quoted(item)}: H derives its value from a name; add hash_id='the schedule\\'s id'"
        )
    low, high = item.field.low, item.field.high if item.field.name != "day of week" else 6
    if matched["low"]:
        begin, end = int(matched["low"]), int(matched["high"])
        if not low <= begin < end <= high:
            raise _Invalid(
                f"{_quoted(item)}: use two numbers from {low} to {high}, the smaller first"
            )
        low, high = begin, end
    step = _step(matched["step"], item)
    spread = high if step is None else min(low + step - 1, high)
    place = list(FIELDS).index(item.field.name)
    value = (crc32(item.hash_id.encode()) >> place) % (spread - low + 1) + low
    return [value] if step is None else list(range(value, high + 1, step))


def _number(text: str, item: _Item) -> int:
    field = item.field
    if text.isdigit():
        value = int(text) if len(text) < 6 else 10**6
        top = 7 if field.name == "day of week" and item.dialect.seven else field.high
        if not field.low <= value <= top:
            raise _Invalid(f"{_quoted(item)}: {text} is out of range; use {field.low} to {top}")
        return value
    for number, name in enumerate(field.names, field.low):
        if text == name[:3] or (
            item.dialect.long_names and len(text) > 3 and name.startswith(text)
        ):
            return number
    raise _Invalid(_unreadable(item))


def _step(text: str | None, item: _Item) -> int | None:
    if text is None:
        return None
    if int(text) == 0:
        raise _Invalid(f"{_quoted(item)}: a step is at least 1")
    return int(text)


def _check_step(step: int | None, width: int, item: _Item) -> None:
    if step and item.dialect.steps_fit and step > width:
        raise _Invalid(f"{_quoted(item)}: the step is wider than the range, {width}")


def _canonical(values: list[int], item: _Item) -> set[int]:
    if item.field.name != "day of week":
        return set(values)
    shift = 1 if item.field.names[0] == "monday" else 0
    return {(value + shift) % 7 for value in values}


def _day_of_month(item: _Item, found: _Found) -> bool:
    text, extras = item.text, item.dialect.extras
    if text == ("l" if extras else "last" if item.dialect.last_word else ""):
        found.last_day = True
    elif extras and text == "lw":
        # The last weekday is the one nearest to the 31st, and never in the next month.
        found.nearest.add(31)
    elif extras and (near := _NEAREST.match(text)):
        found.nearest.add(_number(near[1] or near[2], item))
    elif extras and (until := _UNTIL_LAST.match(text)):
        found.values |= set(range(_number(until[1], item), 32))
    else:
        return False
    return True


def _day_of_week(item: _Item, found: _Found) -> bool:
    if not item.dialect.extras:
        return False
    if last := _LAST_WEEKDAY.match(item.text):
        found.nth.add((_number(last[1] or last[2], item) % 7, LAST))
        return True
    if nth := _NTH.match(item.text):
        place = int(nth["nth"])
        if not 1 <= place <= 5:
            raise _Invalid(
                f"{_quoted(item)}: a month has a weekday 1 to 5 times; for the last one use '5L'"
            )
        days = _canonical(_values(item._replace(text=nth["days"])), item)
        found.nth |= {(day, place) for day in days}
        return True
    return False


_SPECIALS: dict[str, Callable[[_Item, _Found], bool]] = {
    "day of month": _day_of_month,
    "day of week": _day_of_week,
}


def _combined(found: dict[str, _Found], texts: dict[str, str], dialect: Dialect) -> CronFields:
    day, week = found["day of month"], found["day of week"]
    either = {
        "star": not any(texts[name][0] in "*?" for name in _SPECIALS),
        "both": False,
        "either": not any(texts[name] in "*?" for name in _SPECIALS),
    }[dialect.days]
    return CronFields(
        seconds=frozenset(found["second"].values) if "second" in found else frozenset({0}),
        minutes=frozenset(found["minute"].values),
        hours=frozenset(found["hour"].values),
        days=frozenset(day.values),
        last_day=day.last_day,
        nearest=frozenset(day.nearest),
        months=frozenset(found["month"].values),
        weekdays=frozenset(week.values),
        nth=frozenset(week.nth),
        years=frozenset(found["year"].values) if "year" in found else frozenset(),
        both_days=not either,
        elapsed=any(texts[name][0] == "*" for name in ("minute", "hour")),
    )


_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _check_possible(fields: CronFields) -> None:
    if not fields.both_days or fields.last_day or fields.nearest or not fields.days:
        return
    longest = max(_LENGTHS[month - 1] for month in fields.months)
    if set(fields.months) == {2} and fields.years and not any(map(_is_leap, fields.years)):
        longest = 28
    if min(fields.days) > longest:
        raise _Invalid(
            f"none of its months has a day {min(fields.days)}; for the last day of the month use "
            "'L'"
        )
    places = {place for _, place in fields.nth}
    if places and not fields.weekdays and not any(_may_fall(fields.days, n) for n in places):
        raise _Invalid("none of its days of the month can be that weekday of the month")


def _may_fall(days: frozenset[int], place: int) -> bool:
    first, last = (22, 31) if place == LAST else (7 * place - 6, 7 * place)
    return any(first <= day <= last for day in days)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _quoted(item: _Item) -> str:
    return f"{item.field.name} {item.text!r}"


def _unreadable(item: _Item) -> str:
    names = [name[:3] for name in item.field.names]
    if not item.dialect.extras and re.search(r"[#lwh?]", item.text) and len(item.text) < 6:
        return (
            f"{_quoted(item)}: the dialect {item.dialect.name!r} has no #, L, W, H or ?; use "
            "dialect='standard'"
        )
    if item.text[:1] == "r" and item.dialect.extras and not names:
        return f"{_quoted(item)}: R varies between processes; use H with hash_id=, or jitter="
    words = f", or {names[0]} to {names[-1]}" if names else ""
    return (
        f"{_quoted(item)} is invalid; use a number from {item.field.low} to "
        f"{item.field.high}{words}, a range such as 1-5, a list such as 1,2 or a step such as */5"
    )

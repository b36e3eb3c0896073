"""Durations and instants as users type them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskq import at, calendar, cron, every
from taskq.codec.payload import decode_value, encode_value
from taskq.core.durations import instant_ms, parse_duration, seconds
from taskq.core.errors import ConfigError
from taskq.core.options import JobOptions
from taskq.schedules.policy import ScheduleOptions

ANY_TIME = settings(deadline=None, max_examples=300)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# ------------------------------------------------------------------------------------ durations


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0.0), (3, 3.0), (2.5, 2.5), (timedelta(minutes=2), 120.0)]
)
def test_seconds_and_timedeltas_are_durations(value: Any, expected: float) -> None:
    result = seconds("delay", value)

    assert result == expected
    assert type(result) is float


@pytest.mark.parametrize("value", ["30", None, True, [1], 3j])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"delay=.* is not a duration; use seconds \(30\)"):
        seconds("delay", value)


@pytest.mark.parametrize(
    "value", [-1, -0.001, timedelta(seconds=-1), float("nan"), float("inf"), float("-inf"), 1e12]
)
def test_what_is_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"delay=.* is out of range"):
        seconds("delay", value)


def test_the_least_is_named() -> None:
    with pytest.raises(ConfigError, match=r"timeout=0.* at least 0\.5 seconds"):
        seconds("timeout", 0, least=0.5)


# ------------------------------------------------------------------------------------- instants


def test_an_instant_is_milliseconds_since_the_epoch() -> None:
    assert instant_ms("eta", datetime(2026, 1, 1, tzinfo=UTC)) == 1767225600000


def test_the_zone_does_not_matter() -> None:
    shanghai = datetime(2026, 1, 1, 8, tzinfo=ZoneInfo("Asia/Shanghai"))

    assert instant_ms("eta", shanghai) == 1767225600000


def test_the_fold_does_matter() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)

    assert instant_ms("eta", first.replace(fold=1)) - instant_ms("eta", first) == 3_600_000


@given(st.integers(0, 7_258_118_400_000), st.integers(0, 999), st.integers(-840, 840))
@example(1_074_806_831_853, 0, 0)
@ANY_TIME
def test_milliseconds_are_exact(ms: int, microseconds: int, offset: int) -> None:
    """Whole milliseconds as typed, not a float's idea of them: a job must not be due early."""
    instant = EPOCH + timedelta(milliseconds=ms, microseconds=microseconds)

    there = instant.astimezone(timezone(timedelta(minutes=offset)))

    assert instant_ms("eta", there) == ms


class Floating(tzinfo):
    """A time zone that says nothing: what has it is naive."""

    def utcoffset(self, _: datetime | None) -> None:
        return None


@pytest.mark.parametrize("zone", [None, Floating()])
def test_a_naive_datetime_is_refused(zone: tzinfo | None) -> None:
    with pytest.raises(ConfigError, match=r"eta=.* has no time zone; use datetime\("):
        instant_ms("eta", datetime(2026, 1, 1, tzinfo=zone))


@pytest.mark.parametrize("value", [1767225600, "2026-01-01", timedelta(1), None])
def test_what_is_no_instant_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"eta=.* is not an instant"):
        instant_ms("eta", value)


# ------------------------------------------------------------------------------------- as typed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30.0),
        ("2.5", 2.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        (" 5M ", 300.0),
        ("1m250ms", 60.25),
        ("0", 0.0),
    ],
)
def test_durations_as_typed_on_a_command_line(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "soon", "5x", "m5", "5 m", "1h-30m", "5m!", "s", "-5", "-5s", "nan", "inf", "1e400"],
)
def test_what_is_no_typed_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a duration; use 30s, 5m, 1h30m or 250ms"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
@ANY_TIME
def test_parts_add_up(hours: int, minutes: int, some: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{some}s") == hours * 3600 + minutes * 60 + some


@given(st.text(max_size=20))
@ANY_TIME
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        value = parse_duration(text)
    except ConfigError:
        return
    assert 0 <= value < float("inf")


# ----------------------------------------------------------------------------------- subclasses


def odd(base: type[Any]) -> type[Any]:
    """A subclass that answers like no datetime, date or timedelta would."""
    names = (
        *("__sub__", "__rsub__", "__floordiv__", "astimezone", "replace", "date", "timetz"),
        *("total_seconds", "days", "seconds", "microseconds", "toordinal", "combine"),
    )

    def fail(*_: Any, **__: Any) -> Any:
        raise AttributeError("not in this library")

    return type("Odd", (base,), {name: fail for name in names if hasattr(base, name)})


INSTANT = datetime(2026, 10, 25, 2, 30, 0, 7000, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
ODD_INSTANT = odd(datetime)(2026, 10, 25, 2, 30, 0, 7000, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)


def test_subclasses_are_reduced_to_their_base_wherever_a_time_is_given() -> None:
    hour = odd(timedelta)(hours=1)
    options = JobOptions()

    assert instant_ms("eta", ODD_INSTANT) == instant_ms("eta", INSTANT)
    assert seconds("delay", hour) == 3600.0
    for name in ("eta", "expires"):
        kept = getattr(options.with_changes(**{name: ODD_INSTANT}), name)
        assert (type(kept), kept) == (datetime, INSTANT)
    assert options.with_changes(delay=hour).delay == 3600.0
    assert at(ODD_INSTANT) == at(INSTANT)
    assert every(hours=1, anchor=ODD_INSTANT, end=ODD_INSTANT, jitter=hour) == every(
        hours=1, anchor=INSTANT, end=INSTANT, jitter=3600
    )
    assert cron("0 8 * * *", start=ODD_INSTANT, end=ODD_INSTANT) == cron(
        "0 8 * * *", start=INSTANT, end=INSTANT
    )
    fire = at(INSTANT).next(odd(datetime)(2026, 1, 1, tzinfo=UTC))
    assert fire is not None
    # An instant that the clock shows twice equals none of another zone (PEP 495).
    assert fire.timestamp() == INSTANT.timestamp()
    day = calendar(months=1, at="08:00", start=odd(date)(2026, 1, 31), end=ODD_INSTANT)
    assert day == calendar(months=1, at="08:00", start=date(2026, 1, 31), end=INSTANT)
    assert type(day.start) is date
    policy = ScheduleOptions().with_changes({"start": ODD_INSTANT, "end": ODD_INSTANT}).policy
    assert policy.start == instant_ms("start", INSTANT)


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        (ODD_INSTANT, INSTANT),
        (odd(date)(2026, 1, 2), date(2026, 1, 2)),
        (odd(timedelta)(-1, 5, 7), timedelta(-1, 5, 7)),
    ],
)
def test_subclasses_travel_as_their_base(sent: Any, plain: Any) -> None:
    came = decode_value(encode_value([sent]))[0]

    assert (type(came), came) == (type(plain), plain)
    assert getattr(came, "fold", 0) == getattr(plain, "fold", 0)

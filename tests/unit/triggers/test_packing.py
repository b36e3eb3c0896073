"""Triggers as stored data: the same ones come back, and what cannot be read says why."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import all_of, any_of, at, calendar, cron, every
from taskq.core.errors import ConfigError, DecodeError
from taskq.triggers.packing import pack_trigger, unpack_trigger
from taskq.triggers.trigger import Trigger

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
JITTERS = st.sampled_from([0, 2.5, 60])
PLAIN = st.one_of(
    st.builds(at, INSTANTS),
    st.builds(
        every,
        seconds=st.integers(1, 10**7),
        anchor=st.none() | INSTANTS,
        immediate=st.booleans(),
        end=st.none() | INSTANTS,
        jitter=JITTERS,
    ),
    st.builds(
        cron,
        st.sampled_from(["0 8 * * mon-fri", "*/7 * 1 * *", "@daily", "0 0 LW * *"]),
        tz=st.sampled_from(["UTC", "Europe/Berlin"]),
        dst=st.sampled_from(["once", "both"]),
        start=st.none() | INSTANTS,
        end=st.none() | INSTANTS,
        jitter=JITTERS,
    ),
    st.builds(cron, st.just("H 5 0 * * *"), seconds=st.just("first"), hash_id=st.text()),
    st.builds(cron, st.just("0 8 * * 6"), dialect=st.sampled_from(["celery", "apscheduler3"])),
    st.builds(
        calendar,
        months=st.integers(1, 30),
        at=st.times().map(lambda at: at.replace(microsecond=0)),
        tz=st.sampled_from(["UTC", "Europe/Berlin"]),
        start=st.none() | st.dates(),
        end=st.none() | INSTANTS,
        missing=st.sampled_from(["skip", "last"]),
    ),
    st.builds(calendar, weeks=st.integers(1, 30), dst=st.sampled_from(["skip", "shift"])),
)
TRIGGERS = st.recursive(
    PLAIN,
    lambda inner: st.builds(
        lambda make, parts: make(*parts),
        st.sampled_from([any_of, all_of]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


@given(TRIGGERS)
def test_a_trigger_comes_back_as_it_went(trigger):
    data = msgpack.unpackb(msgpack.packb(pack_trigger(trigger)))

    back = unpack_trigger(data)

    assert back == trigger
    assert hash(back) == hash(trigger)
    assert back.explain() == trigger.explain()


def test_defaults_are_not_written():
    assert pack_trigger(every(seconds=2)) == ["every", {"period": 2_000_000}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "not a stored trigger: None"),
        ("every", "not a stored trigger"),
        (["every"], "not a stored trigger"),
        (["moon", {}], "does not know triggers of the kind 'moon'; it knows at, every, cron"),
        (["cron", {"expr": "61 * * * *"}], "cron trigger cannot be read: .*out of range"),
        (["cron", {"expr": "0 8 * * *", "tz": "Mars/Olympus"}], "no time zone 'Mars/Olympus'"),
        (["cron", {"expr": 5}], "cron trigger cannot be read"),
        (["cron", {"expr": "0 8 * * *", "dialect": 5}], "dialect=5"),
        (["calendar", {"days": 1, "at": "25:00"}], "not a time of day"),
        (["calendar", {"days": "1"}], "days='1'"),
        (["calendar", {"days": 1, "start": "soon"}], "calendar trigger cannot be read"),
        (["every", {}], "every trigger cannot be read: .*period"),
        (["every", {"period": 0}], "every trigger cannot be read: every.. of 0 seconds"),
        (["every", {"period": "1"}], "every trigger cannot be read"),
        (["every", {"period": 10**30}], "every trigger cannot be read"),
        (["every", {"period": 10**6, "speed": 1}], "unknown field 'speed'"),
        (["every", {"period": 10**6, "jitter": -1}], "jitter=-1"),
        (["every", {"period": 10**6, "jitter": float("nan")}], "jitter=nan"),
        (["every", {"period": 10**6, "immediate": 3}], "neither true nor false"),
        (["any_of", {"parts": []}], "combine 1 to 32"),
        (["any_of", {"parts": [["moon", {}]]}], "kind 'moon'"),
        (["at", {"instant": 10**20}], "at trigger cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why(data, said):
    with pytest.raises(DecodeError, match=said):
        unpack_trigger(data)


def test_no_depth_of_data_overflows_the_stack():
    data = pack_trigger(at(NOON))
    for _ in range(5000):
        data = ["any_of", {"parts": [data]}]

    with pytest.raises(DecodeError):
        unpack_trigger(data)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda s: (
            st.lists(s)
            | st.dictionaries(st.sampled_from(["parts", "period", "expr", "tz", "days", "at"]), s)
        ),
    )
)
def test_noise_is_a_decode_error_or_a_trigger(noise):
    for kind in ("every", "at", "any_of", "cron", "calendar"):
        with contextlib.suppress(DecodeError):
            assert isinstance(unpack_trigger([kind, noise]), Trigger)


def test_a_trigger_of_your_own_cannot_be_kept():
    class Mine(Trigger):
        def explain(self):
            return ""

        def _next(self, after):
            return None

    with pytest.raises(ConfigError, match="is a custom trigger"):
        pack_trigger(Mine())

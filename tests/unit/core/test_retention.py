"""How long ended jobs are kept is checked when it is typed."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from taskq import ConfigError, Retention, TaskQ


def test_failed_jobs_are_kept_a_week_and_ten_thousand_of_them() -> None:
    kept = Retention()

    assert (kept.failure_seconds, kept.failure_ms, kept.keep_failed) == (
        604_800.0,
        604_800_000,
        10_000,
    )


def test_a_ttl_may_be_seconds_or_a_timedelta() -> None:
    assert Retention(failure_ttl=90).failure_ms == 90_000
    assert Retention(failure_ttl=timedelta(minutes=1.5)).failure_ms == 90_000
    assert Retention(failure_ttl=0, keep_failed=0).failure_ms == 0


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retention().keep_failed = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"failure_ttl": -1}, "failure_ttl=-1.*at least 0 seconds"),
        ({"failure_ttl": "7d"}, "failure_ttl='7d' is not a duration"),
        ({"failure_ttl": float("nan")}, "failure_ttl=nan is out of range"),
        ({"keep_failed": -1}, "keep_failed=-1: use the number"),
        ({"keep_failed": 1.5}, "keep_failed=1.5"),
        ({"keep_failed": True}, "keep_failed=True"),
    ],
)
def test_what_makes_no_sense_says_what_would(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Retention(**given)


def test_an_application_hands_it_to_everything_that_keeps_records() -> None:
    kept = Retention(failure_ttl=60, keep_failed=7)

    assert TaskQ("redis://localhost", retention=kept)._settings.retention is kept

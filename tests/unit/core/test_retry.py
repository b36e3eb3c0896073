"""When a failed job gets another attempt, and how long it waits for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.core.errors import ConfigError, Reject
from taskq.core.retry import NO_RETRY, Retry

ANY_TIME = settings(deadline=None, max_examples=200)

policies = st.builds(
    Retry,
    max_attempts=st.integers(1, 50),
    backoff=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    jitter=st.booleans(),
)
draws = st.floats(0, 1)


# --------------------------------------------------------------------------------------- pauses


def test_pauses_double_up_to_the_cap() -> None:
    policy = Retry(max_attempts=9, backoff=2.0, max_delay=30.0, jitter=False)

    assert [policy.delay(n) for n in range(1, 7)] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_durations_may_be_timedeltas() -> None:
    policy = Retry(backoff=timedelta(minutes=1), max_delay=timedelta(minutes=3), jitter=False)

    assert [policy.delay(n) for n in (1, 2, 3)] == [60.0, 120.0, 180.0]


@given(policies, st.integers(1, 10_000), draws)
@ANY_TIME
def test_a_pause_is_never_negative_nor_over_the_cap(
    policy: Retry, failures: int, draw: float
) -> None:
    assert isinstance(policy.max_delay, float)
    assert 0 <= policy.delay(failures, lambda: draw) <= policy.max_delay


@given(policies, st.integers(1, 10_000), draws)
@ANY_TIME
def test_jitter_draws_from_nothing_to_the_whole_pause(
    policy: Retry, failures: int, draw: float
) -> None:
    whole = Retry(policy.max_attempts, policy.backoff, policy.max_delay, False).delay(failures)

    pause = policy.delay(failures, lambda: draw)

    assert pause == (whole * draw if policy.jitter else whole)


@given(policies.filter(lambda policy: not policy.jitter), st.integers(1, 200))
@ANY_TIME
def test_without_jitter_pauses_never_shrink(policy: Retry, failures: int) -> None:
    assert policy.delay(failures) <= policy.delay(failures + 1)


def test_jitter_spreads_jobs_that_failed_together() -> None:
    policy = Retry(backoff=100.0, jitter=True)

    pauses = {policy.delay(1) for _ in range(200)}

    assert len(pauses) > 150
    assert min(pauses) < 25
    assert max(pauses) > 75


# --------------------------------------------------------------------------------------- budget


@given(policies, st.integers(1, 100))
@ANY_TIME
def test_the_budget_counts_failures(policy: Retry, failures: int) -> None:
    again = policy.decide(ValueError(), failures)

    assert (again is not None) == (failures < policy.max_attempts)


def test_one_attempt_is_the_default_of_a_task() -> None:
    assert NO_RETRY.decide(ValueError(), 1) is None


@pytest.mark.parametrize(
    ("value", "attempts"), [(None, 1), (0, 1), (1, 2), (5, 6), (Retry(max_attempts=3), 3)]
)
def test_a_number_is_a_number_of_retries(value: Retry | int | None, attempts: int) -> None:
    assert Retry.of(value).max_attempts == attempts


def test_no_more_retries_are_taken_than_can_travel() -> None:
    assert Retry.of(999_999_999).max_attempts == 1_000_000_000
    with pytest.raises(ConfigError, match="retry=1000000000: use at most 999,999,999"):
        Retry.of(1_000_000_000)


# -------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(), True),
        (ConnectionResetError(), True),
        (FileNotFoundError(), False),
        (ValueError(), False),
    ],
)
def test_only_the_errors_asked_for_are_retried(error: Exception, again: bool) -> None:
    policy = Retry(on=(OSError,), never=(FileNotFoundError,))

    assert (policy.decide(error, 1) is not None) == again


def test_one_class_needs_no_tuple() -> None:
    policy = Retry(on=OSError, never=FileNotFoundError)  # pyright: ignore[reportArgumentType]

    assert (policy.on, policy.never) == ((OSError,), (FileNotFoundError,))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError(), GeneratorExit()]
)
def test_what_is_no_exception_is_not_retried_unless_asked_for(error: BaseException) -> None:
    assert Retry().decide(error, 1) is None
    assert Retry(on=(type(error),)).decide(error, 1) is not None


def test_a_rejected_job_is_never_retried() -> None:
    assert Retry(on=(Reject, Exception)).decide(Reject(), 1) is None


def test_a_group_is_retried_as_what_it_is() -> None:
    group = ExceptionGroup("both", [OSError(), ValueError()])

    assert Retry().decide(group, 1) is not None
    assert Retry(on=(OSError,)).decide(group, 1) is None


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("ConnectionResetError", "ConnectionError", "OSError", "Exception"), True),
        (("FileNotFoundError", "OSError", "Exception"), False),
        (("ValueError", "Exception"), False),
        ((), False),
    ],
)
def test_errors_known_by_name_are_judged_likewise(names: tuple[str, ...], wanted: bool) -> None:
    assert Retry(on=(OSError,), never=(FileNotFoundError,)).wants_names(names) == wanted


def test_an_error_known_by_name_uses_up_the_same_budget() -> None:
    policy = Retry(max_attempts=2, backoff=3.0, jitter=False)

    assert policy.decide_by(1, wanted=True) == 3.0
    assert policy.decide_by(2, wanted=True) is None
    assert policy.decide_by(1, wanted=False) is None


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "max_attempts=0 allows no attempt at all; use 1 for no retry"),
        ({"max_attempts": -3}, "allows no attempt"),
        ({"max_attempts": 2.5}, r"max_attempts=2\.5 is not a whole number"),
        ({"max_attempts": True}, "max_attempts=True is not a whole number"),
        ({"max_attempts": 10**30}, "max_attempts=1000.*: use at most 1,000,000,000"),
        ({"backoff": -1}, "backoff=-1 is out of range"),
        ({"backoff": "2s"}, "backoff='2s' is not a duration"),
        ({"max_delay": float("inf")}, "max_delay=inf is out of range"),
        ({"max_delay": float("nan")}, "max_delay=nan is out of range"),
        ({"on": "OSError"}, "on='OSError': use exception classes"),
        ({"on": (OSError, 3)}, "use exception classes"),
        ({"never": (OSError(),)}, "never="),
        ({"never": int}, "never=.*use exception classes"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Retry(**options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", [-1, True, "3", 1.5])
def test_what_is_no_number_of_retries_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="use a number of retries"):
        Retry.of(value)  # pyright: ignore[reportArgumentType]

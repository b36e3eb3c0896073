"""Options of tasks and of single jobs, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.core.errors import ConfigError, UnknownOption
from taskq.core.options import JobOptions, TaskOptions, nearest, task_options
from taskq.core.retry import NO_RETRY, Retry

SOON = datetime(2100, 1, 1, tzinfo=UTC)


# -------------------------------------------------------------------------------------- of tasks


def test_the_defaults_of_a_coroutine() -> None:
    assert task_options(is_async=True, given={}) == TaskOptions(
        queue="default",
        priority=5,
        retry=NO_RETRY,
        timeout=None,
        soft_timeout=None,
        executor="loop",
        result_ttl=3600.0,
        expires=None,
    )


def test_a_plain_function_runs_in_a_thread() -> None:
    assert task_options(is_async=False, given={}).executor == "thread"


def test_what_is_given_is_checked_and_made_uniform() -> None:
    options = task_options(
        is_async=False,
        given={
            "queue": "images",
            "priority": 9,
            "retry": 2,
            "timeout": timedelta(minutes=1),
            "soft_timeout": 30,
            "executor": "process",
            "result_ttl": 0,
            "expires": timedelta(hours=1),
        },
    )

    assert options == TaskOptions(
        queue="images",
        priority=9,
        retry=Retry(max_attempts=3),
        timeout=60.0,
        soft_timeout=30.0,
        executor="process",
        result_ttl=0.0,
        expires=3600.0,
    )


def test_none_means_the_default() -> None:
    given = {field.name: None for field in dataclasses.fields(TaskOptions)}

    assert task_options(is_async=True, given=given) == TaskOptions()


@pytest.mark.parametrize(
    ("is_async", "given", "message"),
    [
        (True, {"executor": "thread"}, "an async def runs in the 'loop'"),
        (False, {"executor": "loop"}, "would block every other job"),
        (True, {"soft_timeout": 3}, "soft_timeout needs executor='process'"),
        (
            False,
            {"executor": "process", "timeout": 3, "soft_timeout": 3},
            "soft_timeout must be shorter than timeout",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    is_async: bool, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        task_options(is_async=is_async, given=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"queue": "a b"}, "queue 'a b' cannot be part of a key"),
        ({"queue": ""}, "queue '' cannot be part of a key"),
        ({"queue": 3}, "queue 3 cannot be part of a key"),
        ({"priority": 10}, "priority=10: use a whole number from 0 to 9"),
        ({"priority": -1}, "priority=-1"),
        ({"priority": 5.0}, r"priority=5\.0"),
        ({"priority": True}, "priority=True"),
        ({"priority": "high"}, "priority='high'"),
        ({"retry": -1}, "retry=-1: use a number of retries"),
        ({"retry": "3"}, "retry='3'"),
        ({"timeout": 0}, "timeout=0 is out of range"),
        ({"timeout": -1}, "timeout=-1 is out of range"),
        ({"timeout": "60"}, "timeout='60' is not a duration"),
        ({"executor": "fork"}, "executor='fork': use 'loop', 'thread' or 'process'"),
        ({"executor": ["loop"]}, "executor="),
        ({"result_ttl": -1}, "result_ttl=-1 is out of range"),
        ({"expires": -1}, "expires=-1 is out of range"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_type(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_options(is_async=True, given=given)


def test_an_instant_is_no_expiry_of_a_whole_task() -> None:
    """It would make every job of the task stale at once, for ever after."""
    with pytest.raises(ConfigError, match="expires="):
        task_options(is_async=True, given={"expires": SOON})


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("prioritty", "priority"),
        ("retries", "retry"),
        ("time_out", "timeout"),
        ("que", "queue"),
        ("nmae", "name"),
        ("result_tll", "result_ttl"),
    ],
)
def test_an_unknown_option_names_the_nearest_known_one(name: str, suggestion: str) -> None:
    with pytest.raises(UnknownOption, match=f"no option {name!r}; did you mean '{suggestion}'"):
        task_options(is_async=True, given={name: 1})


def test_an_unknown_option_like_none_lists_them_all() -> None:
    with pytest.raises(UnknownOption) as caught:
        task_options(is_async=True, given={"xyzzy": 1})

    assert str(caught.value) == (
        "tasks have no option 'xyzzy'; known are executor, expires, name, priority, queue, "
        "result_ttl, retry, soft_timeout, timeout"
    )


def test_an_unknown_option_is_a_type_error_as_for_any_function() -> None:
    with pytest.raises(TypeError):
        task_options(is_async=True, given={"xyzzy": 1})


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskOptions().priority = 3  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------------------------- of single jobs


def test_what_is_not_given_leaves_the_tasks_own() -> None:
    assert JobOptions().with_changes() == JobOptions()
    assert JobOptions().with_changes(delay=None, queue=None) == JobOptions()


def test_changes_add_up_and_the_last_counts() -> None:
    first = JobOptions().with_changes(queue="images", priority=1)

    second = first.with_changes(priority=9, delay=30)

    assert second == JobOptions(queue="images", priority=9, delay=30.0)
    assert first == JobOptions(queue="images", priority=1)


def test_zeros_are_values() -> None:
    options = JobOptions().with_changes(delay=0, priority=0, result_ttl=0, retry=0)

    assert options == JobOptions(delay=0.0, priority=0, result_ttl=0.0, retry=Retry(max_attempts=1))


def test_instants_are_kept() -> None:
    options = JobOptions().with_changes(eta=SOON, expires=SOON)

    assert (options.eta, options.expires) == (SOON, SOON)


def test_headers_are_copied() -> None:
    headers = {"trace": "1"}
    options = JobOptions().with_changes(headers=headers)
    headers["trace"] = "2"

    assert options.headers == {"trace": "1"}


@pytest.mark.parametrize(
    ("first", "second"), [({"delay": 1, "eta": SOON}, {}), ({"delay": 1}, {"eta": SOON})]
)
def test_delay_and_eta_exclude_each_other(first: dict[str, Any], second: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="delay and eta both set when the job is due"):
        JobOptions().with_changes(**first).with_changes(**second)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delay": -1}, "delay=-1 is out of range"),
        ({"delay": "30"}, "delay='30' is not a duration"),
        ({"eta": datetime(2100, 1, 1)}, "eta=.* has no time zone"),
        ({"eta": 30}, "eta=30 is not an instant"),
        ({"expires": datetime(2100, 1, 1)}, "expires=.* has no time zone"),
        ({"id": "a/b"}, "id 'a/b' cannot be part of a key"),
        ({"id": ""}, "id ''"),
        ({"headers": ["a"]}, r"headers=\['a'\]: use a dict of strings"),
        ({"headers": {"a": 1}}, r"headers\['a'\]=1: use strings"),
        ({"headers": {1: "a"}}, r"headers\[1\]='a': use strings"),
        ({"headers": dict.fromkeys(map(str, range(1025)), "")}, "1,025 entries; use at most 1,024"),
        ({"headers": {"a": "ö" * 262_144}}, "has 524,289 bytes; use at most 524,288"),
        ({"headers": {"a": "\udc80"}}, r"headers\['a'\] is not valid Unicode"),
        ({"headers": {"\udc80": "a"}}, r"headers\['\\udc80'\] is not valid Unicode"),
    ],
)
def test_a_wrong_value_of_a_job_is_named_too(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobOptions().with_changes(**given)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("delya", "delay"), ("etas", "eta"), ("expire", "expires")]
)
def test_an_unknown_option_of_a_job_names_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UnknownOption, match=f"jobs have no option {name!r}.*'{suggestion}'"):
        JobOptions().with_changes(**{name: 1})


@pytest.mark.parametrize("name", ["executor", "soft_timeout"])
def test_what_belongs_to_the_task_is_unknown_to_its_jobs(name: str) -> None:
    with pytest.raises(UnknownOption):
        JobOptions().with_changes(**{name: "process"})


# ------------------------------------------------------------------------------------ suggestions


@given(st.text(max_size=20), st.lists(st.text(min_size=1), min_size=1, max_size=5))
@settings(deadline=None, max_examples=100)
def test_a_suggestion_is_always_one_of_the_known(name: str, known: list[str]) -> None:
    text = nearest(name, known)

    assert any(f"{word!r}?" in text for word in known) or text.startswith("; known are ")

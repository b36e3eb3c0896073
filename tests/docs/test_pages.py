"""What the pages list is what the code has: nothing is missing and nothing is made up."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

import pytest

from taskq import (
    AttemptRecord,
    DeferredSettings,
    JobContext,
    JobInfo,
    JobState,
    Retention,
    Retry,
    TaskQ,
)
from taskq.core import errors
from taskq.core.options import JobOptions, TaskOptions
from taskq.core.outcome import FailureKind
from taskq.execution.task import JobOptionValues, TaskOptionValues
from taskq.schedules.info import ScheduleInfo
from taskq.schedules.policy import ScheduleOptionValues
from taskq.worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading (or below `::: name`)."""
    source = (DOCS / page).read_text("utf-8")
    below = re.search(rf"^(?:#+|:::) {re.escape(heading)}$(.*)", source, re.M | re.S)
    assert below, f"{page} has no heading {heading!r}"
    table = re.search(r"^\|.*?\n(?!\|)", below[1] + "\n", re.M | re.S)
    assert table, f"{page} has no table below {heading!r}"
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in table[0].splitlines()[2:]]


def named(page: str, heading: str) -> set[str]:
    """The names in the first column."""
    return {
        name for row in rows(page, heading) for name in re.findall(r"`(\w+)(?:\([^`]*)?`", row[0])
    }


def names_of(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("page", "heading", "names"),
    [
        ("guides/tasks.md", "Options of a task", set(TaskOptionValues.__annotations__)),
        ("guides/tasks.md", "Options of one job", set(JobOptionValues.__annotations__)),
        ("guides/tasks.md", "Retries", names_of(Retry)),
        (
            "guides/tasks.md",
            "From inside: `current_job()`",
            {name for name in dir(JobContext) if not name.startswith("_")},
        ),
        ("guides/results.md", "States", {str(state) for state in JobState} - {"waiting"}),
        ("reference/jobs.md", "taskq.JobInfo", names_of(JobInfo)),
        ("reference/jobs.md", "taskq.AttemptRecord", names_of(AttemptRecord)),
        ("reference/worker.md", "Settings", names_of(WorkerSettings)),
        (
            "guides/scheduling.md",
            "Options of a schedule",
            set(ScheduleOptionValues.__annotations__),
        ),
        ("reference/schedules.md", "taskq.ScheduleInfo", names_of(ScheduleInfo)),
        ("guides/deferred.md", "Settings", names_of(DeferredSettings)),
    ],
)
def test_a_table_lists_what_there_is(page: str, heading: str, names: set[str]) -> None:
    assert named(page, heading) == names


def test_what_a_table_of_options_is_compared_with_is_what_the_code_takes() -> None:
    assert set(TaskOptionValues.__annotations__) == names_of(TaskOptions) | {"name"}
    assert set(JobOptionValues.__annotations__) == names_of(JobOptions)


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("guides/tasks.md", "Options of a task", TaskOptions),
        ("guides/tasks.md", "Retries", Retry),
        ("reference/worker.md", "Settings", WorkerSettings),
        ("guides/deferred.md", "Settings", DeferredSettings),
    ],
)
def test_numbers_of_a_table_are_the_defaults(page: str, heading: str, kind: Any) -> None:
    defaults = {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    compared = 0
    for row in rows(page, heading):
        name, told = row[0].strip(" `"), re.match(r" `([\d.]+)`", row[1])
        if told:
            assert float(told[1]) == defaults[name], name
            compared += 1

    assert compared >= 2


def test_every_way_to_fail_is_told() -> None:
    told = {
        outcome
        for row in rows("guides/tasks.md", "How an attempt ends, and what happens next")
        for outcome in re.findall(r"`([a-z_ ]+)`", row[1])
    }
    others = {"succeeded", "retry asked", "cancelled", "released", "lost"}

    # `poison` stands beside `lost`: no attempt ends with it.
    assert told == {*get_args(FailureKind), *others} - {"poison"}


def test_keywords_of_taskq_in_the_guides_are_its_own() -> None:
    known = set(inspect.signature(TaskQ).parameters)
    known |= names_of(Retention) | names_of(DeferredSettings)
    used = {
        name
        for page in DOCS.rglob("*.md")
        for call in re.findall(r"TaskQ\(([^)]*)\)", page.read_text("utf-8"))
        for name in re.findall(r"(\w+)=", call)
    }

    assert used
    assert used <= known


def test_every_check_of_the_doctor_is_explained_and_no_other() -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "taskq").rglob("*.py")]
    checks = {
        name
        for source in sources
        for name in re.findall(r"(?:Verdict|Trouble)\(\s*\"(\w+)\"", source)
    }

    assert named("guides/troubleshooting.md", "The checks of the doctor") == checks


def test_every_exception_is_explained_and_no_other() -> None:
    # Injected is for tests of taskq; the last three steer a job and are explained below the table.
    apart = {"Injected", "RetryLater", "Reject", "SoftTimeout"}

    assert named("guides/troubleshooting.md", "Exceptions") == set(errors.__all__) - apart


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_outside_of_the_site_lead_somewhere(page: str) -> None:
    source = (ROOT / page).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", source) if "://" not in link]

    assert [link for link in links if not (ROOT / link).exists()] == []

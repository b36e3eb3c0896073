"""What a running job may know and say about itself."""

from __future__ import annotations

import asyncio
import time
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from taskq import ConfigError, Progress, TaskqError, current_job
from taskq.execution.context import RemoteJob, job_facts, set_current_job
from taskq.execution.ports import RunningJob
from tests.support.names import steady_name


def running_job() -> RemoteJob:
    return RemoteJob(
        id="01h",
        task_name="app.resize",
        number=3,
        fence=3,
        max_attempts=4,
        failures=1,
        queue="images",
        worker="host-1",
        headers=None,
        enqueued_ms=1_000,
        timeout=60.0,
    )


def test_there_is_none_outside_of_a_job() -> None:
    with pytest.raises(TaskqError, match="outside of a job"):
        copy_context().run(current_job)


def test_it_knows_its_own_facts() -> None:
    def inside() -> None:
        set_current_job(running_job())
        job = current_job()
        assert (job.id, job.task, job.queue, job.worker) == (
            "01h",
            "app.resize",
            "images",
            "host-1",
        )
        assert (job.attempt, job.fence, job.max_attempts, job.failures) == (3, 3, 4, 1)
        assert job.enqueued_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        assert job.headers == {}

    copy_context().run(inside)


def test_its_headers_are_a_copy() -> None:
    def inside() -> None:
        job = running_job()
        job.headers = {"a": "b"}
        set_current_job(job)
        current_job().headers["a"] = "changed"
        assert current_job().headers == {"a": "b"}

    copy_context().run(inside)


def test_its_deadline_counts_from_its_start() -> None:
    def inside() -> None:
        job = running_job()
        job.started = time.monotonic() - 20
        set_current_job(job)
        deadline = current_job().deadline
        assert deadline is not None
        left = deadline - datetime.now(UTC)
        assert timedelta(seconds=39) < left < timedelta(seconds=41)
        job.timeout = None
        assert current_job().deadline is None

    copy_context().run(inside)


def test_its_facts_travel_to_another_process_as_plain_data() -> None:
    job = running_job()

    facts = job_facts(job)
    assert all(isinstance(value, (str, int, float, dict, type(None))) for value in facts.values())
    again = RemoteJob(**facts)
    again.started = job.started
    assert again == job


async def test_progress_is_sent_once_whether_it_is_awaited_or_not() -> None:
    sent: list[tuple[str, int, Progress]] = []

    def report(job: RunningJob, progress: Progress) -> asyncio.Future[None]:
        sent.append((job.id, job.fence, progress))
        arrived = asyncio.get_running_loop().create_future()
        arrived.set_result(None)
        return arrived

    job = running_job()
    job.report = report
    set_current_job(job)
    current_job().progress(1, 2, "half")
    assert await current_job().progress(2) is None

    assert sent == [
        (job.id, job.fence, Progress(1, 2, "half")),
        (job.id, job.fence, Progress(2, None, "")),
    ]


async def test_progress_that_nobody_takes_is_no_error() -> None:
    set_current_job(running_job())

    await current_job().progress(1, 2)


async def test_progress_that_was_refused_is_told_to_who_awaits_it() -> None:
    def report(_job: RunningJob, _: Progress) -> asyncio.Future[None]:
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(TaskqError("lost"))
        return refused

    job = running_job()
    job.report = report
    set_current_job(job)
    with pytest.raises(TaskqError, match="lost"):
        await current_job().progress(1, 2)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ((1, 2, "half"), Progress(1, 2, "half")),
        ((Decimal("1.5"), Fraction(5, 2)), Progress(1.5, 2.5)),
        ((2**64, 2**65), Progress(2.0**64, 2.0**65)),
        ((True, 1), Progress(1, 1)),
        ((0.5, None, 5), Progress(0.5, None, "5")),
        ((1, 1, "a\udc80"), Progress(1, 1, "a\\udc80")),
    ],
    ids=steady_name,
)
def test_progress_is_made_to_fit_what_can_be_stored(given: Any, stored: Progress) -> None:
    made = Progress.of(*given)

    assert made == stored
    assert (type(made.done), type(made.total)) == (type(stored.done), type(stored.total))


def test_long_words_of_progress_are_cut() -> None:
    text = Progress.of(1, 1, "x" * 5_000_000).text

    assert len(text) <= 1000
    assert "characters left out" in text


@pytest.mark.parametrize("value", ["3", b"3", None, float("nan"), float("inf"), 10**400, object()])
def test_progress_that_is_no_number_is_refused_where_it_is_reported(value: Any) -> None:
    def inside() -> None:
        set_current_job(running_job())
        with pytest.raises(ConfigError, match=r"progress\(done=.*: use a finite number"):
            current_job().progress(value)
        if value is not None:
            with pytest.raises(ConfigError, match=r"progress\(total="):
                current_job().progress(1, value)

    copy_context().run(inside)

"""What a handle makes of what the server says about its job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from taskq import (
    ConfigError,
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobInfo,
    JobNotFound,
    JobState,
    ResultExpired,
    ResultNotKept,
    ResultTimeout,
    ServerUnavailable,
)
from taskq.codec.envelope import pack_failure
from taskq.codec.payload import encode_value
from taskq.core.job import Ending, NewJob
from taskq.core.outcome import Failed


@dataclass
class Answers:
    """A desk that answers what it was told to; `ending=None` never ends."""

    ending: Ending | None = None
    info: JobInfo | Exception | None = None
    cancelled: int = 1
    asked: list[str] = field(default_factory=list[str])

    async def submit(self, jobs: Sequence[NewJob], *, awaited: bool = False) -> list[bool]:
        raise NotImplementedError

    async def until_over(self, job_id: str, within: float | None = None) -> Ending:
        self.asked.append(job_id)
        if self.ending is None:
            async with asyncio.timeout(within):
                await asyncio.Event().wait()
        assert self.ending is not None
        return self.ending

    async def look(self, job_id: str) -> Ending:
        assert self.ending is not None
        return self.ending

    async def job_info(self, job_id: str) -> JobInfo | None:
        if isinstance(self.info, Exception):
            raise self.info
        return self.info

    async def cancel_job(self, job_id: str) -> int:
        return self.cancelled


def job(answers: Answers, **known: Any) -> Job[Any]:
    return Job(answers, "01h", **known)


def info(state: JobState, **known: Any) -> JobInfo:
    return JobInfo(id="01h", task="work", state=state, queue="images", priority=5, **known)


async def test_a_result_is_decoded_and_rebuilt() -> None:
    answers = Answers(Ending(JobState.SUCCEEDED, encode_value([1, 2])))

    assert await job(answers).result() == [1, 2]
    assert await job(answers, rebuild=tuple).result() == (1, 2)
    assert answers.asked == ["01h", "01h"]


async def test_a_failure_is_raised_with_its_traceback() -> None:
    failure = pack_failure(Failed("OSError", "no disk", "Traceback: line 7\n"))

    with pytest.raises(JobFailed) as caught:
        await job(Answers(Ending(JobState.FAILED, failure))).result()
    assert str(caught.value).splitlines() == [
        "job 01h failed: OSError: no disk",
        "",
        "On the worker:",
        "Traceback: line 7",
    ]


@pytest.mark.parametrize(
    ("state", "error"),
    [(JobState.CANCELLED, JobCancelled), (JobState.EXPIRED, JobExpired)],
)
async def test_other_ends_are_errors_of_their_own(state: JobState, error: type[Exception]) -> None:
    with pytest.raises(error, match="job 01h"):
        await job(Answers(Ending(state))).result()


@pytest.mark.parametrize(
    ("known", "gone", "error"),
    [
        ({}, False, JobNotFound),
        ({}, True, ResultExpired),
        ({"created": True}, False, JobNotFound),
        ({"created": False}, True, ResultExpired),
        ({"created": True, "keeps_result": False}, False, ResultNotKept),
        ({"created": True, "keeps_result": False}, True, ResultExpired),
    ],
)
async def test_what_is_missing_is_told_apart(
    known: dict[str, Any], gone: bool, error: type[Exception]
) -> None:
    handle = job(Answers(Ending(None, gone=gone)), **known)

    for question in (handle.result, handle.status):
        with pytest.raises(JobNotFound) as caught:
            await question()
        assert type(caught.value) is error


@pytest.mark.parametrize("keeps_result", [True, False])
async def test_of_a_job_without_a_record_nothing_is_claimed(keeps_result: bool) -> None:
    # A server that lost its data answers the same, be the job over or not
    handle = job(Answers(Ending(None)), created=True, keeps_result=keeps_result)

    with pytest.raises(JobNotFound) as caught:
        await handle.result()

    assert str(caught.value).startswith("the server has no record of job 01h")
    assert "or the server lost its data" in str(caught.value)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (info(JobState.QUEUED), "Is a worker running\\? taskq worker -q images"),
        (info(JobState.RUNNING, attempt=2), "it is running, attempt 2"),
        (info(JobState.SCHEDULED), "it is scheduled"),
        (None, "the server does not know it"),
        (ServerUnavailable("gone"), "the server does not answer"),
    ],
    ids=["queued", "running", "scheduled", "unknown", "away"],
)
async def test_a_wait_that_ends_first_says_why(known: Any, reason: str) -> None:
    with pytest.raises(ResultTimeout, match=reason) as caught:
        await job(Answers(None, known)).result(timeout=timedelta(milliseconds=5))
    assert "did not end within 0.005 s" in str(caught.value)


async def test_a_wait_takes_a_duration() -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        await job(Answers()).result(timeout="5 s")  # type: ignore[arg-type]


@pytest.mark.parametrize(("answer", "done"), [(1, True), (2, True), (0, False)])
async def test_cancel_says_whether_there_was_something_to_cancel(answer: int, done: bool) -> None:
    assert await job(Answers(cancelled=answer)).cancel() is done


async def test_cancelling_nothing_is_an_error() -> None:
    with pytest.raises(JobNotFound):
        await job(Answers(cancelled=-1)).cancel()


async def test_info_shows_the_rebuilt_result() -> None:
    answers = Answers(info=info(JobState.SUCCEEDED, result=[1, 2]))

    assert (await job(answers, rebuild=tuple).info()).result == (1, 2)
    assert (await job(answers).info()).result == [1, 2]


def test_a_handle_shows_its_id() -> None:
    assert repr(job(Answers())) == "Job('01h')"

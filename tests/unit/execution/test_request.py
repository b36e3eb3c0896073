"""From a call to a job: where it waits, when it is due, and what travels with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq import CallError, EncodeError, Retry, TaskQ
from taskq.codec.envelope import unpack_envelope
from taskq.codec.payload import decode_call
from taskq.core.job import NewJob
from taskq.execution.task import Signature, request_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def signature(**task_options: Any) -> Signature[str]:
    q = TaskQ("redis://localhost")

    @q.task(name="resize", **task_options)
    async def resize(path: str, width: int = 800) -> str:
        return path

    return resize.s("a.png", width=400)


def job_of(signature: Signature[Any]) -> NewJob:
    return request_of(signature).job


def test_a_plain_call_carries_the_name_and_the_arguments_and_nothing_else() -> None:
    job = job_of(signature())

    envelope = unpack_envelope(job.envelope)
    assert envelope.task == "resize"
    assert decode_call(envelope.payload) == (["a.png"], {"width": 400})
    assert (envelope.timeout, envelope.result_ttl, envelope.retry) == (None, None, None)
    assert not envelope.headers
    assert (job.lane, job.when, job.expires, job.origin) == ("default/5", "", "", "")


def test_every_job_has_an_id_of_its_own_and_they_sort_by_time() -> None:
    one = signature()

    ids = [job_of(one).id for _ in range(100)]
    assert len(set(ids)) == 100
    assert [name[:9] for name in ids] == sorted(name[:9] for name in ids)


def test_two_integers_take_few_bytes() -> None:
    q = TaskQ("redis://localhost")

    @q.task(name="app.add")
    async def add(a: int, b: int) -> int:
        return a + b

    assert len(job_of(add.s(1, 2)).envelope) < 24


@pytest.mark.parametrize(
    ("of_task", "of_job", "lane"),
    [
        ({}, {}, "default/5"),
        ({"queue": "images", "priority": 7}, {}, "images/7"),
        ({"queue": "images", "priority": 7}, {"priority": 0}, "images/0"),
        ({"queue": "images", "priority": 7}, {"queue": "mail"}, "mail/7"),
    ],
)
def test_where_it_waits(of_task: dict[str, Any], of_job: dict[str, Any], lane: str) -> None:
    assert job_of(signature(**of_task).options(**of_job)).lane == lane


@pytest.mark.parametrize(
    ("options", "when"),
    [
        ({"delay": 1.5}, "+1500"),
        ({"delay": 0}, "+0"),
        ({"delay": timedelta(days=1)}, "+86400000"),
        ({"eta": EPOCH + timedelta(seconds=2)}, "@2000"),
    ],
)
def test_when_it_is_due(options: dict[str, Any], when: str) -> None:
    assert job_of(signature().options(**options)).when == when


@pytest.mark.parametrize(
    ("of_task", "of_job", "expires"),
    [
        ({}, {}, ""),
        ({"expires": 60}, {}, "+60000"),
        ({"expires": 60}, {"delay": 1}, "+60000"),
        ({"expires": 60}, {"expires": timedelta(minutes=2)}, "+120000"),
        ({"expires": 60}, {"expires": EPOCH + timedelta(seconds=1)}, "@1000"),
    ],
)
def test_when_it_is_too_late(of_task: dict[str, Any], of_job: dict[str, Any], expires: str) -> None:
    assert job_of(signature(**of_task).options(**of_job)).expires == expires


def test_an_id_of_the_caller_comes_with_what_tells_its_requests_apart() -> None:
    named = signature().options(id="img:a")

    first, second = job_of(named), job_of(named)
    assert first.id == second.id == "img:a"
    assert first.origin
    assert first.origin != second.origin


def test_what_overrides_the_task_travels_with_the_job() -> None:
    job = job_of(
        signature(timeout=60, retry=1).options(
            timeout=timedelta(minutes=2), result_ttl=0, retry=3, headers={"a": "b"}
        )
    )

    envelope = unpack_envelope(job.envelope)
    assert (envelope.timeout, envelope.result_ttl) == (120, 0)
    assert envelope.retry == Retry(max_attempts=4)
    assert envelope.headers == {"a": "b"}


@pytest.mark.parametrize(
    ("of_task", "of_job", "keeps"),
    [
        ({}, {}, True),
        ({"result_ttl": 0}, {}, False),
        ({"result_ttl": 0}, {"result_ttl": 1}, True),
        ({}, {"result_ttl": 0}, False),
        ({"result_ttl": 0}, {"priority": 1}, False),
    ],
)
def test_whether_a_result_will_be_kept(
    of_task: dict[str, Any], of_job: dict[str, Any], keeps: bool
) -> None:
    assert request_of(signature(**of_task).options(**of_job)).keeps_result is keeps


def test_nothing_is_asked_for_that_could_not_run() -> None:
    q = TaskQ("redis://localhost")

    @q.task(name="resize")
    async def resize(path: str) -> None: ...

    with pytest.raises(CallError):
        request_of(resize.s())
    with pytest.raises(EncodeError, match=r"args\[0\]"):
        request_of(resize.s(object()))

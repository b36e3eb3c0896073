"""The server's side of durable calls: whoever takes the id out of the due set has the job."""

from __future__ import annotations

import pytest

from taskq import JobCancelled, JobFailed, JobState, TaskQ
from taskq.core.envelope import pack_envelope, pack_failure, unpack_envelope
from taskq.core.job import NewJob
from taskq.core.outcome import Failed
from taskq.core.payload import encode_call, encode_value
from tests.support.server import TestServer

pytestmark = pytest.mark.asyncio


def job(number: int = 1, when: str = "+1000", before: tuple[int, int] = (0, 0)) -> NewJob:
    envelope = pack_envelope("work", encode_call((number,), {}), before=before)
    return NewJob(f"job-{number}", envelope, "default/5", when)


async def test_holding_puts_off_what_is_still_there(q: TaskQ) -> None:
    # Given two durable calls, one of which somebody cancels
    await q.desk.submit([job(1), job(2)])
    await q.job("job-2").cancel()

    # When they are held for longer than the time that passes
    held = await q.desk.deferrals().hold([("job-1", 5000), ("job-2", 5000), ("job-3", 5000)])
    q.settings.offset.ms += 2000

    # Then the one that is there is not due
    assert held == [True, False, False]
    assert await q.run_until_empty() == 0
    assert await q.job("job-1").status() is JobState.SCHEDULED
    await q.job("job-1").cancel()


async def test_settling_ends_it_once(q: TaskQ) -> None:
    store = q.desk.deferrals()
    await q.desk.submit([job(1), job(2), job(3)])

    assert await store.settle("job-1", JobState.SUCCEEDED, encode_value(7), 3600)
    assert not await store.settle("job-1", JobState.SUCCEEDED, encode_value(8), 3600)
    failure = pack_failure(Failed("ValueError", "no", ""))
    assert await store.settle("job-2", JobState.FAILED, failure, 3600)
    assert await store.settle("job-3", JobState.CANCELLED, b"", 3600)

    assert await q.job("job-1").result() == 7
    with pytest.raises(JobFailed, match="ValueError: no"):
        await q.job("job-2").result()
    with pytest.raises(JobCancelled):
        await q.job("job-3").result()
    assert await q.run_until_empty() == 0


async def test_without_a_ttl_nothing_is_left(q: TaskQ) -> None:
    await q.desk.submit([job()])

    assert await q.desk.deferrals().settle("job-1", JobState.SUCCEEDED, encode_value(7), 0)

    assert await q.desk.job_info("job-1") is None


async def test_what_a_worker_took_over_cannot_be_settled(q: TaskQ) -> None:
    @q.task(name="work")
    async def work(number: int) -> int:
        return number

    await q.desk.submit([job()])
    q.settings.offset.ms += 1500
    assert await q.run_until_empty() == 1

    store = q.desk.deferrals()
    assert await store.hold([("job-1", 5000)]) == [False]
    assert not await store.settle("job-1", JobState.SUCCEEDED, encode_value(8), 3600)
    assert not await store.let_go(job())
    assert await q.job("job-1").result() == 1


async def test_letting_go_makes_it_due_with_what_it_has_behind_it(q: TaskQ) -> None:
    @q.task(name="work")
    async def work(number: int) -> int:
        return number

    await q.desk.submit([job()])

    assert await q.desk.deferrals().let_go(job(when="", before=(2, 1)))

    stored = await q.desk.current().client.command("HGET", q.settings.keys.job("job-1"), "e")
    envelope = unpack_envelope(stored)
    assert (envelope.attempts, envelope.failures) == (2, 1)
    assert await q.run_until_empty() == 1


async def test_with_signing_keys_everything_is_sealed(server: TestServer, namespace: str) -> None:
    q = TaskQ(server.url, namespace=namespace, signing_keys=["k" * 32])

    @q.task(name="work")
    async def work(number: int) -> int:
        return number

    await q.desk.submit([job(1), job(2)])
    store = q.desk.deferrals()
    assert await store.settle("job-1", JobState.SUCCEEDED, encode_value(7), 3600)
    assert await store.let_go(job(2, when="", before=(1, 0)))

    assert await q.run_until_empty() == 1
    assert await q.job("job-1").result() == 7
    assert await q.job("job-2").result() == 2
    await q.aclose()

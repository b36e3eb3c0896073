"""The server's side of durable calls: their process holds them under a token of its own."""

from __future__ import annotations

import pytest

from taskq import JobCancelled, JobFailed, JobState, Retry, TaskQ
from taskq.codec.envelope import pack_envelope, pack_failure, unpack_envelope
from taskq.codec.payload import encode_call, encode_value
from taskq.core.job import NewJob
from taskq.core.outcome import Failed
from tests.support.server import TestServer

pytestmark = pytest.mark.asyncio


def job(number: int = 1, when: str = "+1000", before: tuple[int, int] = (0, 0)) -> NewJob:
    envelope = pack_envelope("work", encode_call((number,), {}), before=before)
    return NewJob(f"job-{number}", envelope, "default/5", when, owner="me")


async def test_holding_puts_off_what_is_still_there(q: TaskQ) -> None:
    # Given two durable calls, one of which is cancelled
    await q._backend.submit([job(1), job(2)])
    await q.job("job-2").cancel()

    # When they are held for longer than the time that passes
    held = await q._backend.durable_calls().hold([(f"job-{n}", "me", 5000) for n in (1, 2, 3)])
    q._settings.offset.ms += 2000

    # Then the one that is there is not due
    assert held == [True, False, False]
    assert await q.run_until_empty() == 0
    assert await q.job("job-1").status() is JobState.SCHEDULED
    await q.job("job-1").cancel()


async def test_settling_ends_it_once(q: TaskQ) -> None:
    store = q._backend.durable_calls()
    await q._backend.submit([job(1), job(2), job(3)])

    assert await store.settle("job-1", "me", JobState.SUCCEEDED, encode_value(7), 3600)
    assert not await store.settle("job-1", "me", JobState.SUCCEEDED, encode_value(8), 3600)
    failure = pack_failure(Failed("ValueError", "no", ""))
    assert await store.settle("job-2", "me", JobState.FAILED, failure, 3600)
    assert await store.settle("job-3", "me", JobState.CANCELLED, b"", 3600)

    assert await q.job("job-1").result() == 7
    with pytest.raises(JobFailed, match="ValueError: no"):
        await q.job("job-2").result()
    with pytest.raises(JobCancelled):
        await q.job("job-3").result()
    assert await q.run_until_empty() == 0


async def test_without_a_ttl_nothing_is_left(q: TaskQ) -> None:
    await q._backend.submit([job()])

    assert await q._backend.durable_calls().settle(
        "job-1", "me", JobState.SUCCEEDED, encode_value(7), 0
    )

    assert await q._backend.job_info("job-1") is None


async def test_what_a_worker_took_over_cannot_be_settled(q: TaskQ) -> None:
    @q.task(name="work")
    async def work(number: int) -> int:
        return number

    await q._backend.submit([job()])
    q._settings.offset.ms += 1500
    assert await q.run_until_empty() == 1

    store = q._backend.durable_calls()
    assert await store.hold([("job-1", "me", 5000)]) == [False]
    assert not await store.settle("job-1", "me", JobState.SUCCEEDED, encode_value(8), 3600)
    assert not await store.release(job())
    assert await q.job("job-1").result() == 1


async def test_what_a_worker_retries_is_no_longer_its_owners(q: TaskQ) -> None:
    # Given a durable call that a worker took over, and will try again
    @q.task(name="work", retry=Retry(max_attempts=2, backoff=60.0, jitter=False))
    async def work(number: int) -> int:
        raise OSError

    await q._backend.submit([job()])
    q._settings.offset.ms += 1500
    assert await q.run_until_empty() == 1
    due = await q._backend.current().client.command("ZSCORE", q._settings.keys.due, "job-1")

    # When its owner comes back
    store = q._backend.durable_calls()
    assert await store.hold([("job-1", "me", 5000)]) == [False]
    assert not await store.settle("job-1", "me", JobState.SUCCEEDED, encode_value(8), 3600)
    assert not await store.release(job(when="", before=(9, 9)))

    # Then the retry is what it was
    assert await q._backend.current().client.command("ZSCORE", q._settings.keys.due, "job-1") == due
    info = await q.job("job-1").info()
    assert (info.state, info.attempt, info.failures) == (JobState.SCHEDULED, 1, 1)
    await q.job("job-1").cancel()


async def test_only_its_owner_may_say_anything_of_it(q: TaskQ) -> None:
    # Given a durable call, an ordinary job with a delay, and one that was let go
    store = q._backend.durable_calls()
    await q._backend.submit([job(1), job(2)._replace(owner=""), job(3)])
    assert await store.release(job(3, when="+1000"))

    # Then another owner changes none of them, nor does one without a token
    for owner in ("you", ""):
        leases = [(f"job-{n}", owner, 5000) for n in (1, 2, 3)]
        assert await store.hold(leases) == [False] * 3
        for number in (1, 2, 3):
            assert not await store.settle(f"job-{number}", owner, JobState.CANCELLED, b"", 3600)
            assert not await store.release(job(number)._replace(owner=owner))
    assert await store.hold([("job-3", "me", 5000)]) == [False]

    for number in (1, 2, 3):
        assert await q.job(f"job-{number}").cancel()


async def test_the_owner_is_stored_with_durable_calls_alone(q: TaskQ) -> None:
    @q.task(name="work")
    async def work(number: int) -> None: ...

    await q._backend.submit([job(1), job(2)._replace(owner=""), job(3, when="")._replace(owner="")])

    client, keys = q._backend.current().client, q._settings.keys
    owners = [await client.command("HGET", keys.job(f"job-{n}"), "w") for n in (1, 2, 3)]
    assert owners == [b"me", None, None]
    # And it is not shown as a worker
    assert (await q.job("job-1").info()).worker is None

    for number in (1, 2):
        assert await q.job(f"job-{number}").cancel()
    assert await q.run_until_empty() == 1


async def test_letting_go_makes_it_due_with_what_it_has_behind_it(q: TaskQ) -> None:
    @q.task(name="work")
    async def work(number: int) -> int:
        return number

    await q._backend.submit([job()])

    assert await q._backend.durable_calls().release(job(when="", before=(2, 1)))

    stored = await q._backend.current().client.command("HGET", q._settings.keys.job("job-1"), "e")
    envelope = unpack_envelope(stored)
    assert (envelope.attempts, envelope.failures) == (2, 1)
    assert await q.run_until_empty() == 1


async def test_with_signing_keys_everything_is_sealed(server: TestServer, namespace: str) -> None:
    q = TaskQ(server.url, namespace=namespace, signing_keys=["k" * 32])

    @q.task(name="work")
    async def work(number: int) -> int:
        return number

    await q._backend.submit([job(1), job(2)])
    store = q._backend.durable_calls()
    assert await store.settle("job-1", "me", JobState.SUCCEEDED, encode_value(7), 3600)
    assert await store.release(job(2, when="", before=(1, 0)))

    assert await q.run_until_empty() == 1
    assert await q.job("job-1").result() == 7
    assert await q.job("job-2").result() == 2
    await q.aclose()

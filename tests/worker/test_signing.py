"""With signing keys, a worker runs what was sealed for this job, and nothing else.

The attacker of these tests can write to the server as he likes, and has no key.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
import redis

from taskq import (
    ForgedMessage,
    Job,
    JobFailed,
    JobState,
    Retry,
    TaskQ,
    UnsignedMessage,
    current_job,
)
from taskq.broker.keys import Keys
from taskq.codec.envelope import pack_envelope
from taskq.codec.payload import encode_call, encode_value
from tests.support.server import TestServer
from tests.support.waiting import eventually
from tests.worker import sample_tasks

OLD, NEW = "old-" + "0" * 32, "new-" + "1" * 32


@pytest.fixture
async def signed(q: TaskQ, server: TestServer, namespace: str) -> AsyncIterator[TaskQ]:
    """An application with a key, on the namespace of `q`, which has none."""
    del q  # it looks at what is left, once this one is closed
    app = TaskQ(server.url, namespace=namespace, signing_keys=[NEW])
    yield app
    await app.aclose()


class Attacker:
    """Writes to the server behind taskq's back."""

    def __init__(self, look: redis.Redis, namespace: str) -> None:
        self._look: Any = look
        self._keys = Keys(namespace)

    def envelope(self, job: Job[Any]) -> bytes:
        return self._look.hget(self._keys.job(job.id), "e")

    def change(self, job: Job[Any], **fields: Any) -> None:
        self._look.hset(self._keys.job(job.id), mapping=fields)

    def plant(self, job_id: str, envelope: bytes, lane: str = "default/5") -> None:
        job: dict[Any, Any] = {"s": "q", "q": lane, "t": 1_700_000_000_000, "e": envelope}
        self._look.hset(self._keys.job(job_id), mapping=job)
        self._look.hset(self._keys.lanes, *lane.split("/"))
        self._look.xadd(self._keys.lane_prefix + lane, {"i": job_id})

    def push(self, worker: str, job: Job[Any], lane: str, attempt: Any = 1, **past: int) -> None:
        """Hand a job over as `enqueue.lua` does."""
        row = [job.id, lane, "1-1", attempt, self.envelope(job), "0"]
        if past:
            row += [past.get(name, 0) for name in ("failures", "crashes", "unknown", "unstarted")]
        self._look.publish(self._keys.wake_channel + worker, b"job " + msgpack.packb(row))

    def adopt(self, worker: str, job: Job[Any], lane: str, attempt: int) -> None:
        """Have the worker hold a job as if the reply that handed it out had been lost."""
        stream = self._keys.lane_prefix + lane
        self._look.xreadgroup("g", worker, {stream: ">"}, count=1)
        self.change(job, s="r", w=worker, a=attempt)
        self._look.hincrby(self._keys.held, worker, 1)


@pytest.fixture
def attacker(look: redis.Redis, namespace: str) -> Attacker:
    return Attacker(look, namespace)


def pays(app: TaskQ, ran: list[Any]) -> Any:
    @app.task(name="pay")
    async def pay(amount: int) -> int:
        ran.append(amount)
        return amount

    return pay


# --------------------------------------------------------------------------------- honest jobs


async def test_signed_jobs_run_and_their_results_are_read(signed: TaskQ) -> None:
    ran: list[Any] = []
    pay = pays(signed, ran)
    chosen = pay.options(id="invoice:7", queue="slow", headers={"by": "me"}, timeout=5)

    async with signed.worker(["default", "slow"]):
        # One by one they are handed over with a push, together they are fetched
        assert await (await pay.enqueue(1)).result(timeout=5) == 1
        jobs = await signed.enqueue_many([pay.s(2), pay.s(3)])
        assert [await job.result(timeout=5) for job in jobs] == [2, 3]
        assert await (await chosen.enqueue(4)).result(timeout=5) == 4
        assert await (await pay.options(delay=0.01).enqueue(5)).result(timeout=5) == 5

    assert sorted(ran) == [1, 2, 3, 4, 5]
    info = await signed.job("invoice:7").info()
    assert (info.task, info.args, info.result, info.headers) == ("pay", (4,), 4, {"by": "me"})


async def test_a_retried_job_is_still_signed(signed: TaskQ) -> None:
    @signed.task(name="flaky", retry=Retry(max_attempts=3, backoff=0.001))
    async def flaky() -> int:
        if current_job().attempt < 3:
            raise OSError("again")
        return current_job().attempt

    async with signed.worker():
        assert await (await flaky.enqueue()).result(timeout=5) == 3


async def test_failures_reach_who_waits(signed: TaskQ) -> None:
    @signed.task(name="broken")
    async def broken() -> None:
        raise ValueError("no such thing")

    async with signed.worker():
        with pytest.raises(JobFailed, match="no such thing"):
            await (await broken.enqueue()).result(timeout=5)


async def test_processes_run_signed_jobs(server: TestServer, namespace: str, q: TaskQ) -> None:
    app = TaskQ(server.url, namespace=namespace, signing_keys=[NEW])
    pid = app.task(name="pid", executor="process")(sample_tasks.pid)

    async with app.worker(processes=1):
        assert await (await pid.enqueue()).result(timeout=20) != os.getpid()
    await app.aclose()


# --------------------------------------------------------------------------------- forged jobs


async def refused(app: TaskQ, job_id: str, caplog: pytest.LogCaptureFixture) -> str | None:
    """Work until all is done; how the job's attempt ended, which is counted and logged."""
    with caplog.at_level(logging.WARNING, "taskq.worker"):
        worker = app.worker(["default", "slow"], burst=True)
        await worker.run()
    info = await app.job(job_id).info()
    assert (info.state, info.attempt) == (JobState.FAILED, 1)
    assert worker.tally.untrusted == 1
    assert [record for record in caplog.records if job_id in record.getMessage()]
    return info.attempts[0].outcome


async def test_an_unsigned_job_goes_to_the_dead_letter(
    signed: TaskQ, attacker: Attacker, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[Any] = []
    pays(signed, ran)
    attacker.plant("evil", pack_envelope("pay", encode_call((1_000_000,), {})))

    assert await refused(signed, "evil", caplog) == "unsigned"
    assert ran == []
    with pytest.raises(JobFailed, match="UnsignedMessage"):
        await signed.job("evil").result(timeout=5)


async def test_a_program_without_the_key_cannot_enqueue(
    signed: TaskQ, q: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[Any] = []
    pays(signed, ran)
    job = await q.send("pay", 1_000_000)

    assert await refused(signed, job.id, caplog) == "unsigned"
    assert ran == []


async def test_a_job_signed_with_another_key_is_forged(
    signed: TaskQ, server: TestServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[Any] = []
    pays(signed, ran)
    stranger = TaskQ(server.url, namespace=namespace, signing_keys=[OLD])
    job = await stranger.send("pay", 1_000_000)
    await stranger.aclose()

    assert await refused(signed, job.id, caplog) == "forged"
    assert ran == []


async def test_a_signed_job_cannot_be_replayed_under_another_id(
    signed: TaskQ, attacker: Attacker, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[Any] = []
    pay = pays(signed, ran)
    attacker.plant("again", attacker.envelope(await pay.enqueue(1)))

    assert await refused(signed, "again", caplog) == "forged"
    assert ran == [1]


async def test_a_signed_job_cannot_be_moved_to_other_workers(
    signed: TaskQ, attacker: Attacker, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[Any] = []
    pay = pays(signed, ran)
    job = await pay.options(delay=3600).enqueue(1)
    envelope = attacker.envelope(job)
    await job.cancel()
    attacker.plant(job.id, envelope, lane="slow/5")

    assert await refused(signed, job.id, caplog) == "forged"
    assert ran == []


@pytest.mark.parametrize("lane", ["admin/5", "admin/9", "default/x", "default/10", "default"])
async def test_a_worker_runs_only_jobs_of_its_own_lanes_when_they_are_pushed(
    signed: TaskQ, attacker: Attacker, lane: str
) -> None:
    ran: list[Any] = []
    pay = pays(signed, ran)
    queue = "admin" if lane.startswith("admin") else "default"
    async with signed.worker(["default"]) as worker:
        job = await pay.options(queue=queue, delay=3600).enqueue(1)
        attacker.push(worker.name, job, lane)
        await eventually(lambda: worker.tally.misdelivered == 1)
        # It did not hurt the worker
        assert await (await pay.enqueue(2)).result(timeout=5) == 2

    assert ran == [2]
    assert await job.status() is JobState.SCHEDULED
    await job.cancel()


@pytest.mark.leaves_jobs
async def test_a_worker_adopts_no_jobs_of_other_queues(signed: TaskQ, attacker: Attacker) -> None:
    ran: list[Any] = []
    pay = pays(signed, ran)
    async with signed.worker(["default"]) as worker:
        job = await pay.options(queue="admin").enqueue(1)
        attacker.adopt(worker.name, job, "admin/5", attempt=7)

        # What it holds in lanes that are not its own is not even listed
        assert await signed._backend.current().leases.held(worker.name) == []
        assert await (await pay.enqueue(2)).result(timeout=5) == 2

    assert ran == [2]


@pytest.mark.parametrize("attempt", [0, -1, 2**53, 2**63, b"9" * 5000, b"\xff"])
async def test_a_pushed_attempt_that_is_not_a_count_is_not_run(
    signed: TaskQ, attacker: Attacker, attempt: Any
) -> None:
    ran: list[Any] = []
    pay = pays(signed, ran)
    async with signed.worker(["default"]) as worker:
        job = await pay.options(delay=3600).enqueue(1)
        attacker.push(worker.name, job, "default/5", attempt)
        attacker.push(worker.name, job, "default/5", failures=-5)
        assert await (await pay.enqueue(2)).result(timeout=5) == 2
        assert worker.tally.started == 1

    assert ran == [2]
    await job.cancel()


@pytest.mark.parametrize("what", ["arguments", "task", "timeout"])
async def test_nothing_of_a_signed_job_can_be_changed(
    signed: TaskQ, attacker: Attacker, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    ran: list[Any] = []
    pay = pays(signed, ran)
    job = await pay.enqueue(1)
    seal = attacker.envelope(job)[:34]
    changed = {
        "arguments": pack_envelope("pay", encode_call((1_000_000,), {})),
        "task": pack_envelope("refund", encode_call((1,), {})),
        "timeout": pack_envelope("pay", encode_call((1,), {}), timeout=0.001),
    }
    attacker.change(job, e=seal + changed[what])

    assert await refused(signed, job.id, caplog) == "forged"
    assert ran == []


# ----------------------------------------------------------------------------- forged results


async def finished(app: TaskQ) -> Job[int]:
    job = await pays(app, []).enqueue(7)
    await app.run_until_empty()
    return job


async def test_a_result_the_attacker_wrote_is_not_believed(
    signed: TaskQ, attacker: Attacker
) -> None:
    job = await finished(signed)
    attacker.change(job, r=encode_value(1_000_000))

    with pytest.raises(UnsignedMessage, match="this result is not signed"):
        await job.result(timeout=5)
    # What else is known of the job can be looked at
    assert await job.status() is JobState.SUCCEEDED
    info = await job.info()
    assert (info.state, info.result, info.error_type) == (
        JobState.SUCCEEDED,
        None,
        "UnsignedMessage",
    )


async def test_the_result_of_another_job_is_not_believed(
    signed: TaskQ, attacker: Attacker, look: redis.Redis, namespace: str
) -> None:
    job, another = await finished(signed), await signed.send("pay", 8)
    await signed.run_until_empty()
    stolen: Any = look.hget(Keys(namespace).job(another.id), "r")
    attacker.change(job, r=stolen)

    assert await another.result(timeout=5) == 8
    with pytest.raises(ForgedMessage, match="the seal of this result"):
        await job.result(timeout=5)


async def test_the_envelope_of_a_job_is_no_result_of_it(signed: TaskQ, attacker: Attacker) -> None:
    job = await finished(signed)
    attacker.change(job, r=attacker.envelope(job))

    with pytest.raises(ForgedMessage):
        await job.result(timeout=5)


# -------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("what", ["unsigned", "of another job", "moved to another queue", "gone"])
async def test_nothing_of_an_unverified_envelope_is_shown(
    signed: TaskQ, attacker: Attacker, look: redis.Redis, namespace: str, what: str
) -> None:
    pay = pays(signed, [])
    job = await pay.options(delay=60, headers={"user": "ada"}).enqueue(1)
    other = await pay.options(delay=60, headers={"user": "bob"}).enqueue(2)
    forged = pack_envelope("pay", encode_call((9,), {}), headers={"user": "eve"})
    match what:
        case "unsigned":
            attacker.change(job, e=forged)
        case "of another job":
            attacker.change(job, e=attacker.envelope(other))
        case "moved to another queue":
            attacker.change(job, q="admin/5")
        case _:
            look.hdel(Keys(namespace).job(job.id), "e")

    info = await job.info()

    assert (info.task, info.args, info.kwargs, info.headers) == ("", (), {}, {})
    assert info.untrusted is not None
    assert info.state is JobState.SCHEDULED
    honest = await other.info()
    assert (honest.args, honest.headers, honest.untrusted) == ((2,), {"user": "bob"}, None)
    await job.cancel()
    await other.cancel()


# ------------------------------------------------------------------------ with keys and without


async def test_a_worker_without_keys_runs_what_is_signed(signed: TaskQ, q: TaskQ) -> None:
    ran: list[Any] = []
    pays(q, ran)
    job = await signed.send("pay", 1)
    await q.run_until_empty()

    assert ran == [1]
    assert await q.job(job.id).result(timeout=5) == 1
    # Whoever has keys does not believe its results
    with pytest.raises(UnsignedMessage):
        await job.result(timeout=5)


async def test_a_reader_without_keys_reads_what_is_signed(signed: TaskQ, q: TaskQ) -> None:
    job = await finished(signed)

    assert await q.job(job.id).result(timeout=5) == 7
    info = await q.job(job.id).info()
    assert (info.args, info.result) == ((7,), 7)


async def test_jobs_and_results_of_the_old_key_are_good_while_it_is_listed(
    server: TestServer, namespace: str, q: TaskQ
) -> None:
    before = TaskQ(server.url, namespace=namespace, signing_keys=[OLD])
    after = TaskQ(server.url, namespace=namespace, signing_keys=[NEW, OLD])
    both = TaskQ(server.url, namespace=namespace, signing_keys=[OLD, NEW])
    pays(after, [])
    job = await before.send("pay", 3)
    await after.run_until_empty()

    assert await both.job(job.id).result(timeout=5) == 3
    with pytest.raises(ForgedMessage):
        await job.result(timeout=5)
    for app in (before, after, both):
        await app.aclose()

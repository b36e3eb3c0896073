"""What others wrote into the queue: it is set aside or fails, and hurts nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest
import redis

from taskq import JobState, TaskQ
from taskq.broker.keys import Keys
from taskq.codec.payload import encode_call
from tests.support.waiting import eventually

NOTHING = encode_call((), {})


def plant(look: redis.Redis, namespace: str, job_id: str, fields: dict[str, Any]) -> None:
    """Write a job behind taskq's back."""
    keys = Keys(namespace)
    job: dict[Any, Any] = {"s": "q", "q": "default/5", "t": 1_700_000_000_000, **fields}
    look.hset(keys.job(job_id), mapping=job)
    look.hset(keys.lanes, "default", "5")
    look.xadd(keys.lane("default", 5), {"i": job_id})


async def test_stream_entries_that_are_no_jobs_are_set_aside(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    keys = Keys(namespace)
    before = await one.enqueue()
    entries: list[dict[Any, Any]] = [{"x": "y"}, {b"\xff": b"\x00"}, {"job": "1", "i": "2"}]
    for entry in entries:
        look.xadd(keys.lane("default", 5), entry)
    after = await one.enqueue()

    assert await q.run_until_empty() == 2
    assert [await before.result(timeout=5), await after.result(timeout=5)] == [1, 1]
    # They are kept for a while, for who looks for the sender
    assert look.llen(keys.malformed) == 3
    assert look.xlen(keys.lane("default", 5)) == 0


async def test_stream_entries_without_a_job_are_dropped(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    keys = Keys(namespace)
    job = await one.enqueue()
    for name in ("no-such-job", "", "\x00", "{x}", job.id):
        look.xadd(keys.lane("default", 5), {"i": name})

    # A second entry of a job runs it no second time
    assert await q.run_until_empty() == 1
    assert await job.result(timeout=5) == 1
    assert look.xlen(keys.lane("default", 5)) == 0


def envelope_with(**extras: Any) -> bytes:
    return msgpack.packb([1, "one", NOTHING, extras])


ENVELOPES = {
    "empty": b"",
    "no msgpack": b"\xc1",
    "text": b"x" * 100,
    "nothing": msgpack.packb(None),
    "no arguments": msgpack.packb([1, "one"]),
    "version of text": msgpack.packb(["1", "one", NOTHING]),
    "name of bytes": msgpack.packb([1, b"one", NOTHING]),
    "arguments of text": msgpack.packb([1, "one", "text"]),
    "a map": msgpack.packb({"task": "one"}),
    "extras of text": msgpack.packb([1, "one", NOTHING, "extras"]),
    "timeout of text": envelope_with(t="soon"),
    "negative timeout": envelope_with(t=-5),
    "timeout that is no number": envelope_with(t=float("nan")),
    "ttl of text": envelope_with(l="long"),
    "negative ttl": envelope_with(l=-1),
    "ttl that is no number": envelope_with(l=float("nan")),
    "retry that makes no sense": envelope_with(r=[0, "a", None, 7]),
    "retry of one number": envelope_with(r=3),
    "headers in a list": envelope_with(h=[1, 2]),
    "too large": msgpack.packb([1, "one", b"x" * 3_000_000]),
    "too deep": b"\x91" * 200_000,
}


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES.keys())
async def test_an_envelope_that_cannot_be_read_fails_its_job_alone(
    q: TaskQ, look: redis.Redis, namespace: str, envelope: bytes
) -> None:
    @q.task(name="one", retry=5)
    async def one() -> int:
        return 1

    plant(look, namespace, "bad", {"e": envelope})
    good = await one.enqueue()
    async with q.worker(concurrency=1, grace=0.5) as worker:
        assert await good.result(timeout=5) == 1

    info = await q.job("bad").info()
    assert (info.state, info.attempt) == (JobState.FAILED, 1)
    assert info.attempts[0].outcome == "malformed"
    assert info.error
    assert worker.in_flight.running == 0


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", msgpack.packb([1, 2]), msgpack.packb([[], {1: 2}]), b"\x91" * 1000],
    ids=["empty", "no msgpack", "no call", "no keywords", "too deep"],
)
async def test_arguments_that_cannot_be_read_fail_their_job_alone(
    q: TaskQ, look: redis.Redis, namespace: str, payload: bytes
) -> None:
    ran: list[Any] = []

    @q.task(name="any", retry=5)
    async def anything(*args: Any, **kwargs: Any) -> None:
        ran.append(args)

    plant(look, namespace, "bad", {"e": msgpack.packb([1, "any", payload])})
    await q.run_until_empty()

    info = await q.job("bad").info()
    assert ran == []
    assert (info.state, info.attempt) == (JobState.FAILED, 1)
    assert info.attempts[0].outcome == "malformed"


async def test_a_job_of_a_newer_version_is_left_to_a_newer_worker(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    plant(look, namespace, "new", {"e": msgpack.packb([2, "one", NOTHING])})
    await q.run_until_empty()

    info = await q.job("new").info()
    assert info.state is JobState.SCHEDULED
    assert info.attempts[0].outcome == "released"
    await q.job("new").cancel()


async def test_unknown_extras_of_a_newer_producer_are_ignored(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    plant(look, namespace, "new", {"e": msgpack.packb([1, "one", NOTHING, {"zz": [1]}])})
    await q.run_until_empty()

    assert await q.job("new").result(timeout=5) == 1


async def test_a_result_nobody_can_read_is_an_error_of_reading_it(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    await q.run_until_empty()
    look.hset(Keys(namespace).job(job.id), "r", b"\xc1")

    with pytest.raises(ValueError, match="not a taskq payload"):
        await job.result(timeout=5)
    # The rest of the job can still be looked at
    assert (await job.info()).state is JobState.SUCCEEDED


async def test_an_error_nobody_can_read_is_a_failure_all_the_same(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="broken")
    async def broken() -> None:
        raise OSError("no disk")

    job = await broken.enqueue()
    await q.run_until_empty()
    look.hset(Keys(namespace).job(job.id), "E", b"\xc1")

    info = await job.info()
    assert (info.state, info.error) == (JobState.FAILED, "the stored error cannot be read")


GARBAGE = [b"", b"job ", b"job \xc1", b"job \x90", b"cancel \xff", b"\xff\x00", b"id\n", b"x\ny\nz"]


async def test_what_others_publish_costs_no_connection(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    keys, began = Keys(namespace), asyncio.Event()

    @q.task(name="waits")
    async def waits() -> int:
        began.set()
        await asyncio.sleep(0.3)
        return 2

    async with q.worker() as worker:
        waiting = asyncio.create_task((await waits.enqueue()).result(timeout=5))
        await asyncio.wait_for(began.wait(), 5)
        # Its heartbeat connects from a thread of its own
        await eventually(lambda: any(c["name"] == "taskq-heart" for c in look.client_list()))
        connections = look.info("stats")["total_connections_received"]
        channels: Any = look.pubsub_channels(f"{{{namespace}}}:*")
        assert any(channel.startswith(keys.done_channel.encode()) for channel in channels)
        for channel in channels:
            for message in GARBAGE:
                look.publish(channel, message)
        assert await waiting == 2
        assert await (await one.enqueue()).result(timeout=5) == 1
        assert look.info("stats")["total_connections_received"] == connections
        assert worker.tally.succeeded == 2


async def test_a_job_whose_numbers_are_none_takes_no_other_along(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    envelope = msgpack.packb([1, "one", NOTHING])
    plant(look, namespace, "odd", {"e": envelope, "c": "x", "k": b"\xff", "u": "", "t": "soon"})
    good = await one.enqueue()
    async with q.worker():
        assert await good.result(timeout=5) == 1
        assert await q.job("odd").result(timeout=5) == 1
        info = await q.job("odd").info()

    assert (info.state, info.failures, info.crashes, info.enqueued_at) == (
        JobState.SUCCEEDED,
        0,
        0,
        None,
    )

"""`wait.lua` through `Waiting`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskq.broker.waiting import Waiting
from taskq.core.job import Delivery, Ending, JobState
from tests.support.scripts import Scene, frame, job
from tests.support.waiting import eventually

STATES = {
    "d": JobState.SCHEDULED,
    "w": JobState.WAITING,
    "q": JobState.QUEUED,
    "r": JobState.RUNNING,
    "s": JobState.SUCCEEDED,
    "f": JobState.FAILED,
    "c": JobState.CANCELLED,
    "x": JobState.EXPIRED,
}


def put_ended(scene: Scene, job_id: str, state: str, **fields: Any) -> None:
    scene.put_job(job_id, state, **{"f": scene.now(), "l": 60_000, "E": b""} | fields)


async def listening(scene: Scene, job_id: str = "a") -> asyncio.Task[Ending]:
    """A wait that the server has taken down."""
    waiter = asyncio.ensure_future(scene.waiting.until_over(job_id))
    await eventually(lambda: "n" in scene.job(job_id) or waiter.done(), within=5)
    return waiter


# -------------------------------------------------------------------------------------- looking


@pytest.mark.parametrize("state", ["d", "w", "q", "r"])
async def test_a_look_at_a_job_that_is_not_over(scene: Scene, state: str) -> None:
    scene.put_job("a", state)
    before = scene.state()

    assert await scene.waiting.look(["a"]) == [Ending(STATES[state])]

    assert scene.state() == before


async def test_a_look_at_a_result(scene: Scene) -> None:
    put_ended(scene, "a", "s", r=b"\xc0result")
    scene.look.hdel(scene.keys.job("a"), "E")

    assert await scene.waiting.look(["a"]) == [Ending(JobState.SUCCEEDED, b"\xc0result")]


@pytest.mark.parametrize("state", ["f", "c", "x"])
async def test_a_look_at_an_error(scene: Scene, state: str) -> None:
    put_ended(scene, "a", state, E=b"\xc0error")

    assert await scene.waiting.look(["a"]) == [Ending(STATES[state], b"\xc0error")]


async def test_a_result_past_its_ttl_is_gone_and_not_unknown(scene: Scene) -> None:
    put_ended(scene, "a", "s", r=b"result")
    scene.later(61)

    assert await scene.waiting.look(["a"]) == [Ending(None, gone=True)]
    assert await scene.waiting.look(["b"]) == [Ending(None)]


async def test_many_looks_are_one_request_with_answers_in_order(scene: Scene) -> None:
    for name, state in (("a", "q"), ("c", "r")):
        scene.put_job(name, state)
    put_ended(scene, "b", "s", r=b"result")

    assert await scene.waiting.look("abxc") == [
        Ending(JobState.QUEUED),
        Ending(JobState.SUCCEEDED, b"result"),
        Ending(None),
        Ending(JobState.RUNNING),
    ]


# -------------------------------------------------------------------------------------- waiting


async def test_who_waits_leaves_its_channel_once(scene: Scene) -> None:
    scene.put_job("a", "q", n="other")
    waiters = [await listening(scene) for _ in range(3)]
    await eventually(lambda: " " in scene.job("a")["n"])
    scene.waiting._ask_all()
    await scene.waiting.look(["a"])

    assert scene.job("a")["n"] == f"other {scene.waiting._channel}"
    for waiter in waiters:
        waiter.cancel()


async def test_a_job_that_is_over_is_answered_at_once_and_not_listened_to(scene: Scene) -> None:
    put_ended(scene, "a", "s", r=b"result")
    before = scene.state()

    ending = await asyncio.wait_for(scene.waiting.until_over("a"), 5)

    assert ending == Ending(JobState.SUCCEEDED, b"result")
    assert scene.state() == before


async def test_a_job_nobody_knows_is_answered_at_once_and_not_made(scene: Scene) -> None:
    assert await asyncio.wait_for(scene.waiting.until_over("a"), 5) == Ending(None)

    assert scene.state() == {}


@pytest.mark.parametrize("size", [10, 65_536, 65_537, 1_000_000])
async def test_the_end_is_heard_whatever_the_size_of_the_result(scene: Scene, size: int) -> None:
    consumer = await scene.consumer()
    job = scene.put_running("a")
    waiter = await listening(scene)

    await consumer.finish([frame("S", job, b"\n" * size)])

    # Well before the next look by itself, which is 5 s away.
    assert await asyncio.wait_for(waiter, 3) == Ending(JobState.SUCCEEDED, b"\n" * size)


async def test_the_end_is_heard_even_if_nothing_of_it_is_kept(scene: Scene) -> None:
    consumer = await scene.consumer()
    job = scene.put_running("a")
    waiter = await listening(scene)

    await consumer.finish([frame("S", job, b"result", ttl=0)])

    assert await asyncio.wait_for(waiter, 3) == Ending(JobState.SUCCEEDED, b"result")


async def test_cancels_and_expiries_are_heard(scene: Scene) -> None:
    scene.put_queued("a")
    scene.put_queued("b")
    scene.put_expiry("b", scene.now() + 60_000)
    waiters = [await listening(scene, name) for name in "ab"]

    await scene.jobs.cancel("a")
    scene.later(61)
    await scene.upkeep.promote(100, 60.0)

    endings = await asyncio.wait_for(asyncio.gather(*waiters), 3)
    assert [ending.state for ending in endings] == [JobState.CANCELLED, JobState.EXPIRED]


async def test_a_retry_is_not_the_end(scene: Scene) -> None:
    consumer = await scene.consumer()
    job = scene.put_running("a")
    waiter = await listening(scene)

    await consumer.finish([frame("R", job, b"error", count=1)])
    [second] = await consumer.fetch(1, ["default"])
    assert not waiter.done()
    await consumer.finish([frame("S", second, b"result")])

    assert (await asyncio.wait_for(waiter, 3)).payload == b"result"


async def test_a_message_that_was_lost_is_made_up_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq.broker.waiting.RECHECK_SECONDS", 0.2)
    scene.put_running("a")
    waiter = await listening(scene)

    put_ended(scene, "a", "s", r=b"result")

    assert (await asyncio.wait_for(waiter, 3)).payload == b"result"


async def test_thousands_wait_on_one_connection(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_entry("none")
    with scene.look.pipeline(transaction=False) as pipeline:
        for n in range(2000):
            job = {"e": b"e", "s": "q", "q": "default/5", "t": 1}
            pipeline.hset(scene.keys.job(f"j{n}"), mapping=job)
            pipeline.xadd(scene.keys.lane("default", 5), {"i": f"j{n}"})
        pipeline.execute()
    waiters = [asyncio.ensure_future(scene.waiting.until_over(f"j{n}")) for n in range(2000)]
    await eventually(lambda: scene.look.hexists(scene.keys.job("j1999"), "n"))
    connections = scene.look.info("clients")["connected_clients"]

    jobs = await consumer.fetch(2000, ["default"])
    await consumer.finish([frame("S", job, job.id.encode(), ttl=0) for job in jobs])

    endings = await asyncio.wait_for(asyncio.gather(*waiters), 10)
    assert [ending.payload for ending in endings] == [b"j%d" % n for n in range(2000)]
    assert connections <= 4


async def test_many_may_wait_for_one_job_and_some_may_give_up(scene: Scene) -> None:
    consumer = await scene.consumer()
    job = scene.put_running("a")
    other = Waiting(scene.client, scene.keys, scene.offset)
    waiters = [await listening(scene) for _ in range(3)]
    waiters.append(asyncio.ensure_future(other.until_over("a")))
    await eventually(lambda: " " in scene.job("a")["n"])
    waiters[0].cancel()

    await consumer.finish([frame("S", job, b"result")])

    endings = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 3)
    other.close()
    assert isinstance(endings[0], asyncio.CancelledError)
    assert endings[1:] == [Ending(JobState.SUCCEEDED, b"result")] * 3


async def test_who_gave_up_leaves_nothing_behind(scene: Scene) -> None:
    scene.put_queued("a")
    waiter = await listening(scene)

    waiter.cancel()
    await asyncio.wait([waiter])

    assert scene.waiting._waits == {}


async def test_a_name_that_contains_another_is_not_taken_for_it(scene: Scene) -> None:
    scene.put_job("a", "q", n=f"x{scene.waiting._channel[:10]}")
    waiter = asyncio.ensure_future(scene.waiting.until_over("a"))

    await eventually(lambda: " " in scene.job("a")["n"])

    waiter.cancel()


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    scene.put_job("a", "q")
    scene.look.script_flush()

    assert await scene.waiting.look(["a"]) == [Ending(JobState.QUEUED)]


# ------------------------------------------------------------- waits that an enqueue carried along


async def subscribed(scene: Scene) -> None:
    """The waits of the scene listen from now on."""
    put_ended(scene, "before", "s", r=b"r")
    await scene.waiting.until_over("before")


async def enqueued(scene: Scene, job_id: str = "a") -> Delivery:
    """A job whose enqueue named the channel, in the hands of a worker."""
    channel = scene.waiting.listen(job_id)
    assert channel
    await scene.producer.add(job(job_id, channel=channel))
    [delivery] = await (await scene.consumer()).fetch(1, ["default"])
    return delivery


async def test_who_listens_to_nothing_yet_names_no_channel(scene: Scene) -> None:
    assert scene.waiting.listen("a") == ""


async def test_an_end_that_was_heard_before_somebody_waits_is_not_asked_for(scene: Scene) -> None:
    await subscribed(scene)
    delivery = await enqueued(scene)
    await (await scene.consumer()).finish([frame("S", delivery, b"\xc0", ttl=0)])
    await scene.client.command("PING")
    scene.look.set(scene.keys.job("a"), "not even a hash: who asks would hear of it")

    assert await scene.waiting.until_over("a", 5) == Ending(JobState.SUCCEEDED, b"\xc0")
    scene.look.delete(scene.keys.job("a"))


async def test_an_end_that_comes_later_is_waited_for_without_a_word(scene: Scene) -> None:
    await subscribed(scene)
    delivery = await enqueued(scene)
    waiter = asyncio.ensure_future(scene.waiting.until_over("a", 5))
    await asyncio.sleep(0)

    await (await scene.consumer()).finish([frame("S", delivery, b"\xc0", ttl=0)])

    assert await waiter == Ending(JobState.SUCCEEDED, b"\xc0")


async def test_a_large_result_that_was_announced_is_read_from_the_job(scene: Scene) -> None:
    await subscribed(scene)
    delivery = await enqueued(scene)
    await (await scene.consumer()).finish([frame("S", delivery, b"x" * 70_000)])
    await scene.client.command("PING")

    assert await scene.waiting.until_over("a", 5) == Ending(JobState.SUCCEEDED, b"x" * 70_000)


async def test_only_the_last_hundred_ends_are_kept_and_the_others_asked_for(scene: Scene) -> None:
    await subscribed(scene)
    delivery = await enqueued(scene)
    await (await scene.consumer()).finish([frame("S", delivery, b"kept")])
    await scene.client.command("PING")
    for n in range(100):
        scene.waiting.listen(f"other{n}")
    scene.look.hset(scene.keys.job("a"), "r", b"asked for")

    assert await scene.waiting.until_over("a", 5) == Ending(JobState.SUCCEEDED, b"asked for")


@pytest.mark.faults
async def test_an_end_that_was_said_while_the_line_was_down_is_asked_for(scene: Scene) -> None:
    await subscribed(scene)
    delivery = await enqueued(scene)
    consumer = await scene.consumer()
    scene.look.hset(scene.keys.job("a"), "n", "nobody")
    connection = scene.client._connection
    assert connection is not None
    connection.abort()
    await consumer.finish([frame("S", delivery, b"\xc0")])

    assert await scene.waiting.until_over("a", 2) == Ending(JobState.SUCCEEDED, b"\xc0")


async def test_a_wait_ends_at_its_time(scene: Scene) -> None:
    scene.put_job("a", "q")

    with pytest.raises(TimeoutError):
        await scene.waiting.until_over("a", 0.05)

    assert scene.waiting._waits == {}


async def test_a_job_keeps_the_names_of_so_many_who_wait_and_no_more(scene: Scene) -> None:
    scene.put_job("a", n=" ".join(f"{number:026d}" for number in range(2_000)))

    def names() -> list[bytes]:
        return scene.look.hget(scene.keys.job("a"), "n").split()

    waiting = asyncio.create_task(scene.waiting.until_over("a"))
    await eventually(lambda: len(names()) < 2_000)

    # Then the last ones are left, whole, and the new one
    *others, _ = names()
    assert others == [f"{number:026d}".encode() for number in range(2_000 - len(others), 2_000)]
    assert 1_000 < len(others) < 1_500
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


# ----------------------------------------------------------------------------------------- bytes


async def test_many_large_results_are_asked_for_in_replies_of_bounded_bytes(scene: Scene) -> None:
    sizes = [900_000] * 11 + [6_000_000] + [10] * 3
    for n, size in enumerate(sizes):
        put_ended(scene, f"j{n}", "s", r=bytes([n]) * size)
    ids = [f"j{n}" for n in range(len(sizes))]
    expected = [Ending(JobState.SUCCEEDED, bytes([n]) * size) for n, size in enumerate(sizes)]

    with scene.measured() as replies:
        assert await scene.waiting.look(ids) == expected
        assert await asyncio.gather(*map(scene.waiting.until_over, ids)) == expected

    # Four mebibytes at most, but for a single result that is larger (a state is one byte)
    assert set(replies) == {3_600_004, 2_700_003, 6_000_001, 33}

"""Lines that fail in the middle of an exchange: nothing is done twice, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskq.broker.consumer import Consumer
from taskq.broker.jobs import Jobs
from taskq.broker.producer import Producer
from taskq.broker.waiting import Waiting
from taskq.core.clock import monotonic
from taskq.core.errors import ServerUnavailable
from taskq.core.job import Ending, JobState
from taskq.redis.client import Client
from taskq.redis.connection import ConnectionLost
from tests.support.proxy import Proxy
from tests.support.scripts import Lane, Scene, frame, job
from tests.support.waiting import eventually

EVALSHA = b"EVALSHA"

# ----------------------------------------------------------------------------------------- enqueue


@pytest.mark.faults
@pytest.mark.parametrize("times", range(1, 11))
async def test_a_lost_reply_to_an_enqueue_makes_no_second_job(
    proxy: Proxy,
    producer: Producer,
    scene: Scene,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taskq.redis.client.RNG.uniform", lambda low, high: 0.001)
    proxy.lose_reply(EVALSHA, times)

    assert await producer.add(job("a"))

    assert proxy.cuts == times
    assert scene.lane() == Lane(waiting=["first", "a"])


@pytest.mark.faults
@pytest.mark.parametrize("stood_still", [120, 7200])
async def test_who_stood_still_meanwhile_makes_no_second_job_either(
    proxy: Proxy,
    producer: Producer,
    scene: Scene,
    stood_still: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch number is remembered for an hour; after that it must not be sent again."""
    remembered = scene.keys.sent + producer._name
    await producer.add(job("b"))
    proxy.mute()
    asking = asyncio.create_task(producer.add(job("a")))
    await eventually(lambda: scene.look.get(remembered) == b"2")
    # Given that the job ended, and that the process goes on long after
    deliveries = await (await scene.consumer()).fetch(5, ["default"])
    await (await scene.consumer()).finish([frame("S", delivery) for delivery in deliveries])
    scene.look.pexpire(remembered, max(1, scene.look.pttl(remembered) - stood_still * 1000))
    now = monotonic()
    monkeypatch.setattr("taskq.broker.producer.monotonic", lambda: now + stood_still)
    proxy.heal()

    if stood_still < 3600:
        assert await asking
    else:
        producer._deadline.seconds = 0.5
        with pytest.raises(ServerUnavailable, match="it may or may not have been done"):
            await asking

    assert scene.lane() == Lane()
    assert scene.job("a")["s"] == "s"


@pytest.mark.faults
async def test_a_lost_request_to_enqueue_is_sent_again(
    proxy: Proxy, producer: Producer, scene: Scene
) -> None:
    proxy.lose_request(EVALSHA, times=3)

    assert await producer.add(job("a"))

    assert proxy.cuts == 3
    assert scene.lane() == Lane(waiting=["first", "a"])


@pytest.mark.faults
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_cut_at_any_byte_makes_exactly_one_job(
    proxy: Proxy, scene: Scene, direction: Any
) -> None:
    """From the first byte of the greeting to the last of the reply."""
    await scene.producer.add(job("first"))
    most, step = (900, 27) if direction == "up" else (250, 17)
    for count in range(0, most, step):
        proxy.cut_after(count, direction)
        client = Client(proxy.locate)
        producer = Producer(client, scene.keys, scene.offset)

        assert await producer.add(job(f"j{count}"))

        await client.aclose()
        proxy.heal()

    waiting = scene.lane().waiting
    assert len(waiting) == len(set(waiting))
    assert proxy.cuts > 6


@pytest.mark.faults
async def test_many_batches_arrive_once_each_while_replies_are_lost(
    proxy: Proxy, producer: Producer, scene: Scene
) -> None:
    proxy.lose_reply(EVALSHA, times=4)
    ids = [f"j{n}" for n in range(1200)]

    created = await asyncio.gather(*(producer.add(job(name)) for name in ids))

    assert created == [True] * 1200
    assert scene.lane().waiting == ["first", *ids]


@pytest.mark.faults
@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_a_batch_whose_predecessor_was_lost_is_not_done_before_it(
    proxy: Proxy, producer: Producer, scene: Scene, lost: str
) -> None:
    """Two batches travel at once; the server knows only the number of the last one it did."""
    ids = [f"j{n}" for n in range(2500)]
    for _ in range(3):
        (proxy.lose_request if lost == "request" else proxy.lose_reply)(ids[500].encode())
        proxy.lose_reply(ids[1400].encode())

    assert await producer.add_many([job(name) for name in ids]) == [True] * 2500

    assert proxy.cuts >= 2
    assert scene.lane().waiting == ["first", *ids]


@pytest.mark.faults
async def test_the_maker_of_a_chosen_id_learns_that_it_made_it(
    proxy: Proxy, producer: Producer, scene: Scene
) -> None:
    proxy.lose_reply(EVALSHA)

    assert await producer.add(job("mine", origin="o1"))
    assert not await producer.add(job("mine", origin="o2"))

    assert scene.lane() == Lane(waiting=["first", "mine"])


@pytest.mark.faults
async def test_the_script_may_be_unknown_and_its_reply_lost(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    scene.look.script_flush()
    proxy.lose_reply(b"redis.call")

    assert await Producer(client, scene.keys, scene.offset).add(job("a"))

    assert proxy.cuts == 1
    assert scene.lane() == Lane(waiting=["a"])


# -------------------------------------------------------------- other requests that are sent again


@pytest.mark.faults
@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_reply_to_a_finish_ends_the_job_once(
    proxy: Proxy, client: Client, scene: Scene, times: int
) -> None:
    consumer = await scene.consumer()
    await consumer.finish([frame("S", scene.put_running("warm"), b"r")])
    held = scene.put_running("a")
    consumer._client = client
    proxy.lose_reply(EVALSHA, times)

    answers = await consumer.finish([frame("R", held, b"error", count=1)])

    assert answers == [2], "done before"
    assert proxy.cuts == times
    assert scene.lane() == Lane(waiting=["a"])
    assert scene.job("a")["c"] == 1
    assert scene.state()["held"] == {"w1": 0}


@pytest.mark.faults
async def test_a_lost_reply_to_a_fetch_is_not_asked_for_again(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    """What it took is found by looking at what the server says is held."""
    consumer = await scene.consumer()
    await consumer.fetch(1, ["default"])
    for name in "ab":
        scene.put_queued(name)
    consumer._client = client
    proxy.lose_reply(EVALSHA)

    with pytest.raises(ConnectionLost):
        await consumer.fetch(1, ["default"])

    assert scene.lane() == Lane(waiting=["b"], held={"w1": ["a"]})
    [stray] = await scene.leases.redeliver("w1", await scene.held())
    assert stray.id == "a"


@pytest.mark.faults
async def test_a_lost_reply_to_a_cancel_is_made_up_for(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    scene.put_queued("warm")
    await scene.jobs.cancel("warm")
    scene.put_queued("a")
    scene.jobs._client = client
    proxy.lose_reply(EVALSHA)

    assert await scene.jobs.cancel("a") == 1
    assert proxy.cuts == 1


# ----------------------------------------------------------------------------------------- waiting


async def listening(scene: Scene, waiting: Waiting, job_id: str) -> asyncio.Task[Ending]:
    waiter = asyncio.ensure_future(waiting.until_over(job_id))
    await eventually(lambda: waiting._channel in scene.job(job_id).get("n", ""))
    return waiter


@pytest.mark.faults
async def test_a_connection_cut_during_a_wait_does_not_lose_the_result(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    consumer = await scene.consumer()
    held = scene.put_running("a")
    waiting = Waiting(client, scene.keys, scene.offset)
    waiter = await listening(scene, waiting, "a")

    await proxy.refuse()
    await consumer.finish([frame("S", held, b"result")])
    await proxy.accept()

    # Nobody calls: the client comes back by itself, before the waits look by themselves (5 s).
    assert await asyncio.wait_for(waiter, 4) == Ending(JobState.SUCCEEDED, b"result")
    waiting.close()


@pytest.mark.faults
async def test_after_a_reconnection_messages_are_heard_again(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    consumer = await scene.consumer()
    held = scene.put_running("a")
    waiting = Waiting(client, scene.keys, scene.offset)
    waiter = await listening(scene, waiting, "a")
    proxy.cut()
    await eventually(lambda: proxy.accepted >= 2)
    await client.command("PING")

    await consumer.finish([frame("S", held, b"result")])

    assert await asyncio.wait_for(waiter, 3) == Ending(JobState.SUCCEEDED, b"result")
    waiting.close()


# ------------------------------------------------------------------------------------- silent lines


@pytest.mark.faults
async def test_an_enqueue_keeps_its_deadline_on_a_silent_line(proxy: Proxy, scene: Scene) -> None:
    client = Client(proxy.locate)
    producer = Producer(client, scene.keys, scene.offset, deadline=0.5)
    await producer.add(job("first"))
    proxy.mute()
    began = time.monotonic()

    # Given two batches on their way, and others that wait behind them
    enqueues = []
    for n in range(5):
        enqueues.append(asyncio.ensure_future(producer.add(job(f"j{n}"))))
        await asyncio.sleep(0.01)
    errors = await asyncio.gather(*enqueues, return_exceptions=True)

    # Then each fails long before the connection would be closed, with what is known of it
    assert time.monotonic() - began < 3
    assert all(isinstance(error, ServerUnavailable) for error in errors)
    assert all(f"within 0.5 s: {client.where} does not answer" in str(error) for error in errors)
    known = ["it may or may not have been done" in str(error) for error in errors]
    assert known == [True, True, False, False, False]
    assert all("nothing could be enqueued" in str(error) for error in errors[2:])
    assert scene.lane().waiting == ["first", "j0", "j1"]

    # And the next one works as soon as the line does
    proxy.heal()
    assert await producer.add(job("next"))
    assert scene.lane().waiting == ["first", "j0", "j1", "next"]
    await client.aclose()


@pytest.mark.faults
@pytest.mark.parametrize("ask", ["cancel", "info", "look", "progress"])
async def test_what_is_asked_about_a_job_is_bounded_on_a_silent_line(
    proxy: Proxy, scene: Scene, ask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("jobs", "waiting", "consumer"):
        monkeypatch.setattr(f"taskq.broker.{module}.CALL_SECONDS", 0.3)
    client = Client(proxy.locate)
    shared = (client, scene.keys, scene.offset)
    await client.command("PING")
    proxy.mute()
    began = time.monotonic()

    jobs, waiting = Jobs(*shared, failure_ttl=1.0), Waiting(*shared)
    consumer = Consumer(*shared, "w", failure_ttl=1.0, keep_failed=1)
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "cancel": lambda: jobs.cancel("a"),
        "info": lambda: jobs.info("a"),
        "look": lambda: waiting.look(["a"]),
        "progress": lambda: consumer.progress("a", 1, b""),
    }

    with pytest.raises(ServerUnavailable, match=r"within 0\.3 s: the server does not answer"):
        await asked[ask]()

    assert time.monotonic() - began < 3
    await client.aclose()

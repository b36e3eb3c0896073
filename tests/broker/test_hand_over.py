"""`enqueue.lua`: a single job goes straight to a worker that waits for one."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.broker.consumer import handed_over
from taskq.core.errors import QueueFull
from tests.support.scripts import (
    LANE,
    REMEMBERED,
    Kept,
    Lane,
    Listener,
    Scene,
    entry_name,
    frame,
    job,
)


@pytest.fixture
def w1(scene: Scene) -> Listener:
    """What a worker hears that is registered and waits for a job of the default queue."""
    register(scene, "w1")
    return scene.listen("wake:w1")


def register(scene: Scene, *workers: str, queue: str = "default", slots: int = 1) -> None:
    for worker in workers:
        scene.put_worker(worker, slots=slots)
        scene.look.sadd(scene.keys.idle + queue, worker)


def running(scene: Scene, **fields: Any) -> dict[str, Any]:
    given = {"e": b"envelope", "s": "r", "q": LANE, "t": scene.about_now(), "a": 1, "w": "w1"}
    return given | {"b": scene.about_now()} | fields


async def test_an_idle_worker_is_handed_the_job(scene: Scene, w1: Listener) -> None:
    assert await scene.producer.add(job("a"))

    assert scene.state() == {
        "j:a": running(scene),
        "q:default/5": Lane(held={"w1": ["a"]}),
        "lanes": {"default": "5"},
        "workers": {"w1": 7},
        "slots": {"w1": 1},
        "held": {"w1": 1},
        "sent": Kept(1, REMEMBERED),
    }
    [(channel, message)] = w1.messages()
    assert channel == "wake:w1"
    assert message.startswith(b"job ")


async def test_what_is_handed_over_is_what_a_fetch_would_give(scene: Scene, w1: Listener) -> None:
    await scene.producer.add(job("a", envelope=bytes(range(256))))
    [(_, message)] = w1.messages()

    delivery = handed_over(message.removeprefix(b"job "))

    assert delivery.envelope == bytes(range(256))
    [same] = await scene.leases.redeliver("w1", [delivery.entry])
    assert delivery == same


async def test_sent_again_it_is_not_handed_over_again(scene: Scene, w1: Listener) -> None:
    await scene.producer.add(job("a"))
    w1.messages()
    register(scene, "w1")
    before = scene.state()

    scene.producer._number = 0
    assert await scene.producer.add(job("a"))

    assert scene.state() == before
    assert w1.messages() == []


async def test_a_message_that_is_lost_leaves_a_stray_that_is_found(
    scene: Scene, w1: Listener
) -> None:
    await scene.producer.add(job("a"))

    beat = await scene.leases.beat("w1", b"who")
    assert beat is not None
    assert beat.held == 1

    strays = await scene.leases.redeliver("w1", await scene.held())
    assert [delivery.id for delivery in strays] == ["a"]


async def test_a_job_that_waited_longer_goes_first(scene: Scene, w1: Listener) -> None:
    entry = scene.put_queued("old")

    await scene.producer.add(job("new"))

    [(_, message)] = w1.messages()
    delivery = handed_over(message.removeprefix(b"job "))
    assert (delivery.id, delivery.entry) == ("old", entry_name(LANE, entry))
    assert scene.lane() == Lane(waiting=["new"], held={"w1": ["old"]})


async def test_workers_that_do_not_listen_or_are_dead_are_passed_over(
    scene: Scene, w1: Listener
) -> None:
    register(scene, *(f"gone{n}" for n in range(8)))

    await scene.producer.add(job("a"))

    assert scene.lane() == Lane(held={"w1": ["a"]})
    assert len(w1.messages()) == 1


async def test_with_nobody_there_the_job_waits(scene: Scene) -> None:
    register(scene, "gone")

    assert await scene.producer.add(job("a"))

    assert scene.lane() == Lane(waiting=["a"])
    assert scene.job("a")["s"] == "q"
    assert "held" not in scene.state()


async def test_a_worker_that_is_not_registered_gets_no_job(scene: Scene, w1: Listener) -> None:
    """It listens still, but the server has declared it dead."""
    scene.look.zrem(scene.keys.workers, "w1")
    scene.look.hdel(scene.keys.slots, "w1")

    await scene.producer.add(job("a"))

    assert scene.lane() == Lane(waiting=["a"])
    assert [message for _, message in w1.messages()] == [b"work"]


async def test_one_that_is_not_registered_is_not_in_the_way_of_another(
    scene: Scene, w1: Listener
) -> None:
    for n in range(8):
        scene.look.sadd(scene.keys.idle + "default", f"forgotten{n}")

    await scene.producer.add(job("a"))

    assert scene.lane() == Lane(held={"w1": ["a"]})
    assert len(w1.messages()) == 1


async def test_a_worker_that_held_nothing_and_has_another_slot_stays_idle(scene: Scene) -> None:
    register(scene, "w1", slots=2)
    listener = scene.listen("wake:w1")

    await scene.producer.add(job("a"))
    assert scene.state()["idle:default"] == {"w1"}
    await scene.producer.add(job("b"))

    assert "idle:default" not in scene.state()
    assert scene.lane() == Lane(held={"w1": ["a", "b"]})
    assert len(listener.messages()) == 2


async def test_a_worker_that_stands_still_is_handed_two_jobs_at_most(scene: Scene) -> None:
    register(scene, "w1", slots=100)
    listener = scene.listen("wake:w1")

    for name in ("a", "b", "c", "d"):
        await scene.producer.add(job(name))

    assert scene.lane() == Lane(waiting=["c", "d"], held={"w1": ["a", "b"]})
    assert len(listener.messages()) == 2


async def test_it_stays_idle_as_often_as_it_has_handed_in_what_it_held(scene: Scene) -> None:
    register(scene, "w1", slots=2)
    listener = scene.listen("wake:w1")
    consumer = await scene.consumer("w1")

    for name in ("a", "b", "c"):
        await scene.producer.add(job(name))
        [(_, message)] = listener.messages()
        delivery = handed_over(message.removeprefix(b"job "))
        assert delivery.id == name
        await consumer.finish([frame("S", delivery, b"r")])

    assert scene.state()["idle:default"] == {"w1"}
    assert scene.lane() == Lane()


async def test_a_worker_with_one_slot_is_not_idle_any_more(scene: Scene, w1: Listener) -> None:
    await scene.producer.add(job("a"))
    await scene.producer.add(job("b"))

    assert scene.lane() == Lane(waiting=["b"], held={"w1": ["a"]})
    assert len(w1.messages()) == 1


async def test_a_client_that_waits_already_is_told_of_the_end(scene: Scene, w1: Listener) -> None:
    """The enqueue names the waiting client, so no second call is needed."""
    client = scene.listen("done:c1")

    await scene.producer.add(job("a", channel="c1"))

    assert scene.job("a") == running(scene, n="c1")
    [(_, message)] = w1.messages()
    consumer = await scene.consumer("w1")
    await consumer.finish([frame("S", handed_over(message.removeprefix(b"job ")), b"r")])
    assert client.messages() == [("done:c1", b"a\ns\nr")]


async def test_a_worker_of_another_queue_gets_no_job(scene: Scene) -> None:
    register(scene, "w1", queue="images")
    listener = scene.listen("wake:w1")

    await scene.producer.add(job("a"))

    assert scene.lane() == Lane(waiting=["a"])
    assert listener.messages() == []


@pytest.mark.parametrize(
    "fields", [{"envelope": b"x" * 65_537}, {"when": "+60000"}], ids=["large", "later"]
)
async def test_jobs_that_are_not_handed_over(
    scene: Scene, w1: Listener, fields: dict[str, Any]
) -> None:
    await scene.producer.add(job("a", **fields))

    assert "held" not in scene.state()
    assert all(message == b"work" for _, message in w1.messages())


async def test_several_jobs_are_fetched_together(scene: Scene, w1: Listener) -> None:
    """One fetch takes them all; pushes would take them one by one."""
    await scene.producer.add_many([job("a"), job("b")])

    assert w1.messages() == [("wake:w1", b"work")]
    assert scene.lane() == Lane(waiting=["a", "b"])


async def test_a_job_that_is_stale_already_is_not_handed_over(scene: Scene, w1: Listener) -> None:
    await scene.producer.add(job("a", expires="@1000"))

    assert "held" not in scene.state()
    assert w1.messages() == [("wake:w1", b"work")]
    assert await (await scene.consumer("w1")).fetch(1, ["default"]) == []
    assert scene.job("a")["s"] == "x"
    assert scene.lane() == Lane()


async def test_a_cancelled_job_in_front_is_dropped(scene: Scene, w1: Listener) -> None:
    scene.put_job("gone", "c")
    scene.put_entry("gone")

    await scene.producer.add(job("a"))

    assert [message for _, message in w1.messages()] == [b"work"]
    assert scene.lane() == Lane(waiting=["a"])


@pytest.mark.faults
async def test_a_full_server_hands_nothing_over(alone: Scene) -> None:
    register(alone, "w1")
    listener = alone.listen("wake:w1")
    alone.look.config_set("maxmemory", 1)
    before = alone.state()

    with pytest.raises(QueueFull):
        await alone.producer.add(job("a"))

    assert alone.state() == before
    assert listener.messages() == []

"""A key of another type in the place of one of taskq's own keeps no job from running, once.

The keys below its tag are taskq's: what others put there is removed where it stands in the way. The
key of a job is judged with its job, and costs no other one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from taskq import JobState, TaskQ
from taskq.broker.keys import Keys
from taskq.core.errors import ServerRefused
from tests.support.scripts import LANE, Lane, Scene, frame, job
from tests.support.waiting import eventually

FIXED = ("lanes", "due", "expiry", "held", "slots", "promoter", "swept", "malformed")


def put_foreign(look: Any, key: str) -> None:
    """A key of a type that no key of taskq's has in that place."""
    look.delete(key)
    if key.endswith(":promoter"):
        look.lpush(key, "text")
    else:
        look.set(key, "text")


# ----------------------------------------------------------------------------- workers and lanes


@pytest.mark.leaves_jobs
@pytest.mark.parametrize("place", [*FIXED, "idle:default", "idle:default/t", "workers", "serves"])
async def test_a_worker_goes_on_whatever_takes_the_place_of_a_key(
    q: TaskQ,
    clean: Any,
    look: redis.Redis,
    namespace: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taskq.worker.promoter.SWEEP_ROUND_SECONDS", 0.5)
    ran: list[str] = []

    @q.task(name="note")
    async def note(name: str) -> None:
        ran.append(name)

    async with q.worker() as worker:
        await note.enqueue("first")
        await eventually(lambda: ran == ["first"])
        put_foreign(look, f"{{{namespace}}}:{place}")
        await note.options(id="own").enqueue("own")
        await q.enqueue_many([note.s(f"many{n}") for n in range(3)])
        await note.options(delay=0.1).enqueue("delayed")
        await note.options(expires=60, priority=9).enqueue("expires")
        await eventually(lambda: len(ran) >= 7, within=20)
        await eventually(lambda: worker.in_flight.known == 0)

    assert sorted(ran) == ["delayed", "expires", "first", "many0", "many1", "many2", "own"]


@pytest.mark.leaves_jobs
@pytest.mark.parametrize("place", [*FIXED, "idle:default", "workers"])
async def test_a_worker_starts_whatever_takes_the_place_of_a_key(
    q: TaskQ, clean: Any, look: redis.Redis, namespace: str, place: str
) -> None:
    ran: list[str] = []

    @q.task(name="note")
    async def note(name: str) -> None:
        ran.append(name)

    put_foreign(look, f"{{{namespace}}}:{place}")
    async with q.worker():
        await note.enqueue("one")
        await eventually(lambda: ran == ["one"])


async def test_a_lane_that_is_not_a_stream_keeps_no_other_from_being_fetched(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a", "default/9")
    scene.put_queued("b", "default/5")
    scene.put_queued("c", "other/1")
    put_foreign(scene.look, scene.keys.lane("default", 5))

    taken = await consumer.fetch(9, ["default", "other"])

    assert [delivery.id for delivery in taken] == ["a", "c"]
    assert scene.state()["held"] == {"w1": 2}


async def test_a_job_takes_the_place_of_what_is_not_its_lane(scene: Scene) -> None:
    scene.put_queued("lost")
    put_foreign(scene.look, scene.keys.lane("default", 5))

    assert await scene.producer.add_many([job("a"), job("b")]) == [True, True]

    assert scene.lane() == Lane(waiting=["a", "b"])


async def test_what_a_word_does_where_the_number_of_a_producer_is_expected(scene: Scene) -> None:
    await scene.producer.add(job("a"))
    scene.look.set(scene.keys.sent + scene.producer._name, "word")

    assert await scene.producer.add(job("b"))

    scene.look.delete(scene.keys.sent + scene.producer._name)
    scene.look.lpush(scene.keys.sent + scene.producer._name, "word")
    assert await scene.producer.add(job("c"))
    assert scene.lane() == Lane(waiting=["a", "b", "c"])


# ------------------------------------------------------------------------------------------- due


@pytest.mark.parametrize("place", ["lane", "lanes", "expiry", "idle:default"])
async def test_due_jobs_are_not_lost_when_promoting_breaks_off(scene: Scene, place: str) -> None:
    at = scene.now() - 1000
    for n in range(3):
        scene.put_due(f"j{n}", at + n)
    key = scene.keys.lane("default", 5) if place == "lane" else scene._prefix + place
    put_foreign(scene.look, key)

    moved, _ = await scene.upkeep.promote(100, 60.0)

    assert moved == 3
    assert scene.lane() == Lane(waiting=["j0", "j1", "j2"])


@pytest.mark.parametrize("lane", ["", "5", "/", "default/55x"])
async def test_a_due_job_without_a_lane_keeps_no_other_waiting(scene: Scene, lane: str) -> None:
    at = scene.now() - 1000
    scene.put_due("bad", at, lane=lane)
    scene.put_due("good", at + 1)

    moved, _ = await scene.upkeep.promote(100, 60.0)

    assert moved == 1
    assert scene.lane() == Lane(waiting=["good"])


# --------------------------------------------------------------------------- each job for itself


async def test_of_a_batch_the_offending_job_alone_is_refused_by_its_id(scene: Scene) -> None:
    """The others are made once: what is sent again would double them."""
    scene.look.set(scene.keys.job("img:a"), "text")
    jobs = [job("x"), job("y"), job("img:a", origin="o"), job("z")]
    calls = [scene.producer.add(one) for one in jobs]

    *results, refused, last = await asyncio.gather(*calls, return_exceptions=True)

    assert [*results, last] == [True, True, True]
    assert isinstance(refused, ServerRefused)
    assert "'img:a' could not be enqueued" in str(refused)
    assert f"{scene.keys.job('img:a')} on" in str(refused)
    assert scene.lane() == Lane(waiting=["x", "y", "z"])


async def test_jobs_beside_an_offending_one_run_once(scene: Scene) -> None:
    """Also where a worker has run them before the batch is sent again."""
    consumer = await scene.consumer()
    scene.look.set(scene.keys.job("bad"), "text")

    with pytest.raises(ServerRefused, match="'bad'"):
        await scene.producer.add_many([job("a"), job("bad", origin="o"), job("b")])

    first = await consumer.fetch(9, ["default"])
    await consumer.finish([frame("S", delivery) for delivery in first])
    assert [delivery.id for delivery in first] == ["a", "b"]
    assert await consumer.fetch(9, ["default"]) == []


@pytest.mark.parametrize(
    ("stored", "new"),
    [
        ({"f": "soon", "l": "1000"}, True),
        ({"f": "1", "l": "long"}, True),
        ({"f": "1"}, True),
        ({"f": "9" * 400, "l": "1"}, False),
    ],
    ids=str,
)
async def test_an_id_is_looked_up_whatever_times_its_record_has(
    scene: Scene, stored: dict[str, str], new: bool
) -> None:
    scene.put_job("mine", "s", o="other", **stored)

    assert await scene.producer.add_many([job("a"), job("mine", origin="o"), job("b")]) == [
        True,
        new,
        True,
    ]


@pytest.mark.parametrize("record", [{"s": "r"}, {"s": "r", "w": ""}], ids=str)
async def test_a_job_that_runs_nowhere_is_cancelled_at_once(
    scene: Scene, record: dict[str, str]
) -> None:
    scene.look.hset(scene.keys.job("a"), mapping={"e": "e", "q": LANE, **record})

    assert await scene.jobs.cancel("a") == 1

    assert scene.job("a")["s"] == "c"


async def test_a_key_that_is_not_a_job_is_no_job_to_cancel(scene: Scene) -> None:
    scene.look.set(scene.keys.job("a"), "text")

    assert await scene.jobs.cancel("a") == -1


# ----------------------------------------------------------------------------------------- ending


@pytest.mark.parametrize("place", ["due", "expiry", "held", "lane", "lanes", "idle:default"])
@pytest.mark.parametrize("kind", ["S", "F", "R", "B"])
async def test_outcomes_are_stored_whatever_takes_the_place_of_a_key(
    scene: Scene, place: str, kind: str
) -> None:
    consumer = await scene.consumer()
    held = [scene.put_running("a", x=scene.now() + 60_000), scene.put_running("b", o="mine")]
    key = scene.keys.lane("default", 5) if place == "lane" else scene._prefix + place
    put_foreign(scene.look, key)
    delay = 5000 if place == "due" else 0

    answers = await consumer.finish([frame(kind, one, b"x\ny", delay=delay) for one in held])

    assert answers == [1, 1]
    states = {scene.job(name)["s"] for name in "ab"}
    assert states == {{"S": "s", "F": "f"}.get(kind, "d" if delay else "q")}
    if kind in "RB" and not delay:
        # And they run again
        await scene.upkeep.sweep("0")
        assert len(await consumer.fetch(9, ["default"])) == 2


async def test_a_job_given_back_waits_again_though_its_stream_was_deleted(scene: Scene) -> None:
    consumer = await scene.consumer()
    first, second = scene.put_running("a"), scene.put_running("b", lane="default/9")
    scene.look.delete(scene.keys.lane("default", 5))

    assert await consumer.finish([frame("B", first), frame("S", second, b"r")]) == [1, 1]

    assert scene.lane() == Lane(waiting=["a"])
    assert scene.job("b")["s"] == "s"


async def test_a_job_whose_lane_is_gone_from_its_record_ends(scene: Scene) -> None:
    consumer = await scene.consumer()
    held, other = scene.put_running("a", o="mine"), scene.put_running("b")
    scene.look.hdel(scene.keys.job("a"), "q")
    scene.look.xack(scene.keys.lane("default", 5), "g", held.entry.split()[1])

    assert await consumer.finish([frame("S", held, b"r"), frame("S", other, b"r")]) == [1, 1]


# ------------------------------------------------------------------------------------ who is dead


@pytest.mark.parametrize("place", ["held", "slots", "promoter", "lanes", "idle:default"])
async def test_the_dead_are_reaped_whatever_takes_the_place_of_a_key(
    scene: Scene, place: str
) -> None:
    scene.put_running("a")
    put_foreign(scene.look, scene._prefix + place)

    reaped = await scene.leases.reap("w1", scene.policy, heartbeat=7)

    assert reaped is not None
    if place != "lanes":
        assert scene.lane() == Lane(returned=["a"])


async def test_a_number_that_no_heartbeat_has_takes_none_from_the_others(scene: Scene) -> None:
    await scene.leases.register("w1", b"", 1, ["default"])
    for score in ("inf", "1e300", "9007199254740993"):
        scene.look.zadd(scene.keys.workers, {"foreign": score})

        first = await scene.leases.beat("w1", b"")
        second = await scene.leases.beat("w1", b"")

        assert first is not None
        assert second is not None
        assert 0 < first.heartbeat < second.heartbeat < 2**53


@pytest.mark.parametrize("key", ["text", "list"])
async def test_suspects_run_whatever_others_write_of_them(scene: Scene, key: str) -> None:
    for name in ("a", "b", "c"):
        scene.put_running(name, k=1)
    await scene.leases.reap("w1", scene.policy)
    if key == "text":
        scene.look.hset(scene.keys.job("a"), "g", "many")
    else:
        put_foreign(scene.look, scene.keys.job("a"))
    worker = await scene.consumer("w2")

    found = [one.id for _ in range(3) for one in await worker.fetch(9, ["default"], "s")]

    assert sorted(found)[-2:] == ["b", "c"]


async def test_an_enqueued_job_reaches_its_worker_though_the_state_is_read_by_others(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    """A look at a job never fails for what stands beside it."""

    @q.task(name="one")
    async def one() -> int:
        return 1

    put_foreign(look, Keys(namespace).due)
    queued = await one.options(delay=0.05).enqueue()
    async with q.worker():
        assert await queued.result(timeout=10) == 1
    assert await queued.status() is JobState.SUCCEEDED

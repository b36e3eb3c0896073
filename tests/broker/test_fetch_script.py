"""`fetch.lua` through `Consumer`."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from taskq.broker.consumer import QUEUES_AT_ONCE, UNLIMITED, Capacity, DeclaredDead
from taskq.broker.leases import ReapPolicy
from taskq.redis.connection import ConnectionLost
from tests.support.scripts import (
    FAILURE_TTL,
    GRACE,
    LANE,
    About,
    Kept,
    Lane,
    Scene,
    entry_name,
    job,
)

PARKED = About(60_000)
"""How long a worker that is gone may still look idle, in milliseconds."""


def running(scene: Scene, worker: str = "w1", **fields: Any) -> dict[str, Any]:
    given = {"e": b"envelope", "s": "r", "q": LANE, "t": 1000, "a": 1, "w": worker}
    return given | {"b": scene.about_now()} | fields


def expired(scene: Scene, **fields: Any) -> Kept:
    given = {"e": b"envelope", "s": "x", "q": LANE, "t": 1000, "E": b""}
    times = {"f": scene.about_now(), "l": FAILURE_TTL}
    return Kept(given | times | fields, About(FAILURE_TTL + GRACE))


# ---------------------------------------------------------------------------------- one delivery


async def test_a_fetched_job_is_running_and_held(scene: Scene) -> None:
    consumer = await scene.consumer()
    entry = scene.put_queued("a")
    before = scene.state()

    delivered = await consumer.fetch(1, ["default"])

    assert [tuple(delivery) for delivery in delivered] == [
        ("a", LANE, entry_name(LANE, entry), 1, b"envelope", 0, 0, 0, 1000, 0)
    ]
    assert scene.state() == before | {
        "j:a": running(scene),
        "q:default/5": Lane(held={"w1": ["a"]}),
        "held": {"w1": 1},
    }


async def test_a_delivery_says_what_happened_before(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a", a=4, c=2, k=1, u=3, w="w0", b=5)

    [delivery] = await consumer.fetch(5, ["default"])

    assert delivery.attempt == 5
    assert (delivery.failures, delivery.crashes, delivery.unknown) == (2, 1, 3)
    assert scene.job("a") == running(scene, a=5, c=2, k=1, u=3)


async def test_a_job_without_its_envelope_is_delivered_all_the_same(scene: Scene) -> None:
    """The worker reports what is wrong with the job; the script cannot."""
    consumer = await scene.consumer()
    scene.put_queued("a")
    scene.look.hdel(scene.keys.job("a"), "e")

    [delivery] = await consumer.fetch(5, ["default"])

    assert delivery.envelope == b""


async def test_entries_of_different_lanes_never_share_a_name(scene: Scene) -> None:
    """The server numbers the entries of each stream for itself."""
    consumer = await scene.consumer()
    await scene.producer.add_many([job(f"j{n}", lane=f"default/{n}") for n in range(10)])

    delivered = await consumer.fetch(10, ["default"])

    assert len({delivery.entry for delivery in delivered}) == 10


# ------------------------------------------------------------------------------------- how many


async def test_no_more_than_wanted_are_taken_in_the_order_they_came(scene: Scene) -> None:
    consumer = await scene.consumer()
    for n in range(5):
        scene.put_queued(f"j{n}")

    first = await consumer.fetch(2, ["default"])
    second = await consumer.fetch(2, ["default"])

    assert [delivery.id for delivery in first] == ["j0", "j1"]
    assert [delivery.id for delivery in second] == ["j2", "j3"]
    assert scene.lane() == Lane(waiting=["j4"], held={"w1": ["j0", "j1", "j2", "j3"]})
    assert scene.state()["held"] == {"w1": 4}


async def test_two_workers_never_get_the_same_job(scene: Scene) -> None:
    one, two = await scene.consumer("w1"), await scene.consumer("w2")
    for n in range(4):
        scene.put_queued(f"j{n}")

    first, second = await one.fetch(2, ["default"]), await two.fetch(9, ["default"])

    assert [delivery.id for delivery in first] == ["j0", "j1"]
    assert [delivery.id for delivery in second] == ["j2", "j3"]
    assert scene.state()["held"] == {"w1": 2, "w2": 2}


async def test_nothing_is_taken_for_a_worker_without_room(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    before = scene.state()

    assert await consumer.fetch(0, ["default"]) == []

    assert scene.state() == before


# ----------------------------------------------------------------------- priorities and queues


async def test_priorities_are_strict_over_all_queues(scene: Scene) -> None:
    consumer = await scene.consumer()
    for lane in ("a/0", "b/9", "a/5", "b/5", "a/9"):
        scene.put_queued(lane.replace("/", ""), lane)

    delivered = await consumer.fetch(10, ["a", "b"])

    assert [delivery.id for delivery in delivered] == ["a9", "b9", "a5", "b5", "a0"]


async def test_among_equal_priorities_the_queue_named_first_goes_first(scene: Scene) -> None:
    consumer = await scene.consumer()
    for lane in ("a/5", "b/5"):
        scene.put_queued(lane.replace("/", ""), lane)

    delivered = await consumer.fetch(1, ["b", "a"])

    assert [delivery.id for delivery in delivered] == ["b5"]


async def test_lowest_first_turns_the_order_around(scene: Scene) -> None:
    consumer = await scene.consumer()
    for lane in ("a/0", "b/9", "a/5", "b/0"):
        scene.put_queued(lane.replace("/", ""), lane)

    delivered = await consumer.fetch(10, ["a", "b"], which="l")

    assert [delivery.id for delivery in delivered] == ["a0", "b0", "a5", "b9"]


async def test_queues_that_are_not_asked_for_are_left_alone(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a", "images/9")

    assert await consumer.fetch(10, ["default"]) == []

    assert scene.lane("images/9") == Lane(waiting=["a"])


@pytest.mark.parametrize("queue", ["a.b", "default", "x", "1", "rs"])
async def test_a_queues_name_is_taken_as_it_is(scene: Scene, queue: str) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a", f"{queue}/5")

    [delivery] = await consumer.fetch(10, [queue])

    assert delivery.lane == f"{queue}/5"


# ------------------------------------------------------------------------------------ idleness


async def test_a_worker_with_room_left_is_idle_on_all_its_queues(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a", "a/5")

    await consumer.fetch(2, ["a", "b"])

    state = scene.state()
    assert state["idle:a"] == Kept({"w1"}, PARKED)
    assert state["idle:b"] == Kept({"w1"}, PARKED)


async def test_a_full_worker_is_not_idle(scene: Scene) -> None:
    """It must not be woken in the place of one that has room."""
    consumer = await scene.consumer()
    for queue in ("a", "b"):
        scene.look.sadd(scene.keys.idle + queue, "w1", "w2")
    scene.put_queued("a", "a/5")

    await consumer.fetch(1, ["a", "b"])

    state = scene.state()
    assert state["idle:a"] == {"w2"}
    assert state["idle:b"] == {"w2"}


async def test_a_worker_that_stays_full_says_once_that_it_no_longer_waits(scene: Scene) -> None:
    consumer = await scene.consumer()
    await consumer.fetch(1, ["default", "other"])
    for n in range(4):
        await scene.producer.add_many([job(f"j{n}.{i}") for i in range(2)])
    assert "idle:other" in scene.state()

    await consumer.fetch(2, ["default", "other"])

    assert not [name for name in scene.state() if name.startswith("idle:")]
    scene.look.config_resetstat()
    await consumer.fetch(2, ["default", "other"])
    await consumer.fetch(2, ["default", "other"])
    assert "cmdstat_srem" not in scene.look.info("commandstats")
    # And waits again as soon as it has room
    assert len(await consumer.fetch(3, ["default", "other"])) == 2
    assert scene.state()["idle:default"].value == {"w1"}


async def test_an_idle_worker_leaves_nothing_when_it_is_gone(scene: Scene) -> None:
    consumer = await scene.consumer()

    assert await consumer.fetch(1, ["never-used"]) == []
    await scene.leases.reap("w1", ReapPolicy(), died=False)

    assert all(isinstance(value, Kept) for value in scene.state().values())


# ------------------------------------------------------------------- entries that are no jobs


@pytest.mark.parametrize("state", ["d", "w", "r", "s", "f", "c", "x"])
async def test_an_entry_of_a_job_that_is_not_queued_is_dropped(scene: Scene, state: str) -> None:
    consumer = await scene.consumer()
    scene.put_job("a", state)
    scene.put_entry("a")
    before = scene.state()

    assert await consumer.fetch(5, ["default"]) == []

    after = before | {"q:default/5": Lane(), "idle:default": Kept({"w1"}, PARKED)}
    assert scene.state() == after


async def test_an_entry_of_a_job_nobody_knows_is_dropped(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_entry("a")

    assert await consumer.fetch(5, ["default"]) == []

    assert scene.lane() == Lane()
    assert "j:a" not in scene.state()


async def test_of_two_entries_of_a_job_one_is_run(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    scene.put_entry("a")

    assert len(await consumer.fetch(5, ["default"])) == 1

    assert scene.lane() == Lane(held={"w1": ["a"]})
    assert scene.state()["held"] == {"w1": 1}


async def test_jobs_behind_dropped_entries_are_found_in_the_same_call(scene: Scene) -> None:
    consumer = await scene.consumer()
    for n in range(50):
        scene.put_entry(f"gone{n}")
    scene.put_queued("a")

    delivered = await consumer.fetch(1, ["default"])

    assert [delivery.id for delivery in delivered] == ["a"]
    assert scene.lane() == Lane(held={"w1": ["a"]})


async def test_any_number_of_dropped_entries_can_stand_in_the_way(scene: Scene) -> None:
    """Tens of thousands of jobs may have been cancelled or expired while no worker ran."""
    consumer = await scene.consumer()
    scene.put_entry("gone")
    with scene.look.pipeline(transaction=False) as pipeline:
        for _ in range(20_000):
            pipeline.xadd(scene.keys.lane("default", 5), {"i": "gone"})
        pipeline.execute()
    scene.put_queued("a")

    scene.look.config_resetstat()

    delivered = await consumer.fetch(100, ["default"])

    assert [delivery.id for delivery in delivered] == ["a"]
    assert scene.lane() == Lane(held={"w1": ["a"]})
    stats = scene.look.info("commandstats")
    slowest = max(stats[f"cmdstat_{name}"]["usec_per_call"] for name in stats_of_scripts(stats))
    assert slowest < 200_000, "no call keeps others waiting until all of them are gone"


def stats_of_scripts(stats: dict[str, Any]) -> list[str]:
    return [name for name in ("eval", "evalsha") if f"cmdstat_{name}" in stats]


async def test_what_was_taken_before_a_lost_reply_is_not_lost_with_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a", "default/9")
    scene.put_entry("gone")
    with scene.look.pipeline(transaction=False) as pipeline:
        for _ in range(3_000):
            pipeline.xadd(scene.keys.lane("default", 5), {"i": "gone"})
        pipeline.execute()
    scene.put_queued("b")
    script, calls = scene.client.script, []

    async def loses_the_second_reply(*args: Any) -> Any:
        calls.append(await script(*args))
        if len(calls) == 2:
            raise ConnectionLost("lost on the way back")
        return calls[-1]

    monkeypatch.setattr(scene.client, "script", loses_the_second_reply)

    assert [delivery.id for delivery in await consumer.fetch(5, ["default"])] == ["a"]
    assert scene.lane() == Lane(held={"w1": ["b"]})


@pytest.mark.parametrize(
    "fields", [{"x": "y"}, {"job": b"\xff\x00"}, {"I": "a"}, {"x": "1", "i": "a"}]
)
async def test_a_malformed_entry_is_put_aside_and_the_rest_goes_on(
    scene: Scene, fields: dict[str, Any]
) -> None:
    consumer = await scene.consumer()
    entry = scene.put_entry("", **fields)
    scene.put_queued("a")

    delivered = await consumer.fetch(5, ["default"])

    assert [delivery.id for delivery in delivered] == ["a"]
    assert scene.lane() == Lane(held={"w1": ["a"]})
    kept, ttl = scene.state()["malformed"]
    parts = [part for pair in fields.items() for part in pair]
    raw = [part if isinstance(part, bytes) else part.encode() for part in parts]
    assert [msgpack.unpackb(item, raw=True) for item in kept] == [[LANE.encode(), entry, raw]]
    assert ttl == About(7 * 86_400_000)


async def test_of_malformed_entries_the_last_hundred_are_kept(scene: Scene) -> None:
    consumer = await scene.consumer()
    for n in range(130):
        scene.put_entry("", x=n)

    await consumer.fetch(5, ["default"])

    kept = [msgpack.unpackb(item) for item in scene.state()["malformed"].value]
    assert len(kept) == 100
    assert kept[0][2] == ["x", "129"]
    assert scene.lane() == Lane()


# --------------------------------------------------------------------------------- bytes and room


async def test_no_reply_is_larger_than_its_bound_and_order_is_kept(scene: Scene) -> None:
    """Sixty jobs of 700 kB would end the connection that listens: its limit is 32 MiB."""
    consumer = await scene.consumer()
    size = 700_000
    await scene.producer.add_many([job(f"j{n:02}", envelope=b"x" * size) for n in range(60)])

    with scene.measured() as sizes:
        taken = await consumer.fetch(60, ["default"])

    assert [one.id for one in taken] == [f"j{n:02}" for n in range(60)]
    assert max(sizes) < 4_194_304 + size + 10_000
    assert len(sizes) == 10
    assert scene.state()["held"] == {"w1": 60}
    assert scene.lane().returned == []


async def test_what_does_not_fit_goes_back_to_its_place(scene: Scene) -> None:
    consumer, other = await scene.consumer(), await scene.consumer("w2")
    for n in range(9):
        scene.put_queued(f"j{n}", e=b"x" * 1_000_000)
    scene.put_queued("last")

    taken, more = await consumer._fetch_some(8, ["default"], "h", UNLIMITED)

    assert ([one.id for one in taken], more) == ([f"j{n}" for n in range(5)], True)
    assert scene.lane() == Lane(
        waiting=["j8", "last"], held={"w1": [one.id for one in taken]}, returned=["j5", "j6", "j7"]
    )
    assert [one.id for one in await other.fetch(9, ["default"])] == ["j5", "j6", "j7", "j8", "last"]
    assert scene.look.hget(scene.keys.lanes, "default") == b"5"


async def test_a_full_reply_leaves_its_worker_awake(scene: Scene) -> None:
    consumer = await scene.consumer()
    for n in range(5):
        scene.put_queued(f"j{n}", e=b"x" * 1_000_000)

    taken, more = await consumer._fetch_some(9, ["default"], "h", UNLIMITED)

    assert (len(taken), more) == (5, True)
    assert "idle:default" not in scene.state()


async def test_a_job_that_fills_a_reply_by_itself_travels_alone(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("huge", e=b"x" * 5_000_000)
    scene.put_queued("small")

    taken, more = await consumer._fetch_some(9, ["default"], "h", UNLIMITED)

    assert ([one.id for one in taken], more) == (["huge"], True)
    assert [one.id for one in await consumer.fetch(9, ["default"])] == ["small"]


async def test_of_threads_and_processes_no_more_are_taken_than_can_start(scene: Scene) -> None:
    consumer = await scene.consumer()
    for kind in ("", "t", "p"):
        for n in range(4):
            await scene.producer.add(job(f"{kind or 'l'}{n}", lane=f"default/5{kind}"))

    taken = await consumer.fetch(12, ["default"], "h", Capacity(2, 1))

    assert [one.id for one in taken] == ["l0", "l1", "l2", "l3", "t0", "t1", "p0"]
    assert scene.lane("default/5t") == Lane(waiting=["t2", "t3"], held={"w1": ["t0", "t1"]})


async def test_threads_that_came_back_stay_where_there_is_no_room_for_them(scene: Scene) -> None:
    for n in range(3):
        await scene.producer.add(job(f"t{n}", lane="default/5t"))
        await scene.producer.add(job(f"l{n}"))
    await (await scene.consumer("w0")).fetch(6, ["default"])
    await scene.leases.reap("w0", scene.policy, died=False)
    consumer = await scene.consumer()

    first = await consumer.fetch(9, ["default"], "h", Capacity(1, 0))
    second = await consumer.fetch(9, ["default"], "h", Capacity(0, 0))
    third = await consumer.fetch(9, ["default"], "h", Capacity(9, 0))

    assert [one.id for one in first] == ["l0", "l1", "l2", "t0"]
    assert second == []
    assert [one.id for one in third] == ["t1", "t2"]


async def test_room_is_not_used_twice_by_a_fetch_in_pieces(scene: Scene) -> None:
    consumer = await scene.consumer()
    for n in range(12):
        await scene.producer.add(job(f"t{n:02}", lane="default/5t", envelope=b"x" * 900_000))

    taken = await consumer.fetch(100, ["default"], "h", Capacity(7, 0))

    assert [one.id for one in taken] == [f"t{n:02}" for n in range(7)]


async def test_a_worker_waits_for_the_kinds_it_has_room_for(scene: Scene) -> None:
    consumer = await scene.consumer()

    await consumer.fetch(9, ["default"], "h", Capacity(1, 0, waits_for="ltp"))

    parked = {name for name in scene.state() if name.startswith("idle:")}
    assert parked == {"idle:default", "idle:default/t"}


async def test_the_kinds_of_one_priority_take_turns_and_priorities_stay_strict(
    scene: Scene,
) -> None:
    consumer = await scene.consumer()
    lanes = ("default/5", "default/5t", "default/5p", "default/6p", "other/5t")
    for lane in lanes:
        await scene.producer.add(job(lane, lane=lane))

    taken = await consumer.fetch(9, ["other", "default"], "h", Capacity(9, 9, "ptl"))

    assert [one.id for one in taken] == [
        "default/6p",
        "other/5t",
        "default/5p",
        "default/5t",
        "default/5",
    ]


async def test_a_fetch_of_many_queues_looks_at_the_lanes_there_are(scene: Scene) -> None:
    consumer = await scene.consumer()
    queues = [f"tenant-{n}" for n in range(3000)]
    scene.look.hset(scene.keys.lanes, mapping=dict.fromkeys(queues, ""))
    for n in (17, 2999):
        await scene.producer.add(job(f"j{n}", lane=f"tenant-{n}/5"))
    scene.look.config_resetstat()

    taken = await consumer.fetch(2, queues)

    assert [one.id for one in taken] == ["j17", "j2999"]
    assert scene.look.info("commandstats")["cmdstat_xreadgroup"]["calls"] == 2


# -------------------------------------------------------------------------- thousands of queues


async def test_of_thousands_of_queues_each_call_looks_at_some(scene: Scene) -> None:
    queues = [f"tenant-{n}" for n in range(1000)]
    consumer = await scene.consumer()
    for n in (3, 450, 999):
        await scene.producer.add(job(f"j{n}", lane=f"tenant-{n}/5"))
    calls: list[int] = []
    send = scene.client.script

    async def counting(script: Any, keys: tuple[str, ...], *given: Any) -> Any:
        calls.append(sum(str(one).startswith("tenant-") for one in given))
        return await send(script, keys, *given)

    scene.client.script = counting  # type: ignore[method-assign]

    taken = await consumer.fetch(9, queues)

    assert [one.id for one in taken] == ["j3", "j450", "j999"]
    assert calls == [QUEUES_AT_ONCE] * 5
    parked = {name for name in scene.state() if name.startswith("idle:")}
    assert parked == {f"idle:{queue}" for queue in queues}


async def test_a_full_worker_of_thousands_of_queues_waits_for_none(scene: Scene) -> None:
    queues = [f"tenant-{n}" for n in range(1000)]
    consumer = await scene.consumer()
    assert await consumer.fetch(9, queues) == []
    for n in (450, 451):
        await scene.producer.add_many([job(f"j{n}.{i}", lane=f"tenant-{n}/5") for i in range(2)])

    taken = await consumer.fetch(3, queues)

    assert [one.id for one in taken] == ["j450.0", "j450.1", "j451.0"]
    assert not [name for name in scene.state() if name.startswith("idle:")]


async def test_suspects_of_thousands_of_queues_run_no_more_together(scene: Scene) -> None:
    queues = [f"tenant-{n}" for n in range(1000)]
    scene.put_worker("w1", *queues)
    for n in (1, 700):
        scene.put_running(f"j{n}", lane=f"tenant-{n}/5", k=1)
    await scene.leases.reap("w1", scene.policy)
    consumer = await scene.consumer("w2")

    assert await consumer.fetch(9, queues) == []
    assert consumer.saw_suspects

    first = await consumer.fetch(9, queues, "s")
    second = await consumer.fetch(9, queues, "s")
    assert ([one.id for one in first], [one.id for one in second]) == (["j1"], ["j700"])


async def test_what_a_worker_of_thousands_of_queues_holds_is_listed_in_pieces(
    scene: Scene,
) -> None:
    queues = [f"tenant-{n}" for n in range(3000)]
    scene.put_worker("w1", *queues)
    entries = [scene.put_running(f"j{n}", lane=f"tenant-{n}/5").entry for n in (0, 700, 1500, 2999)]
    scene.look.config_resetstat()

    assert await scene.held() == entries

    assert scene.look.info("commandstats")["cmdstat_evalsha"]["calls"] >= 3
    again = await scene.leases.redeliver("w1", entries[1:3])
    assert [one.id for one in again] == ["j700", "j1500"]


# ------------------------------------------------------------------------------------- expires


async def test_a_job_past_its_expiry_is_not_run(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    at = scene.now() + 60_000
    scene.put_expiry("a", at)
    scene.look.hset(scene.keys.job("a"), "n", "c1 c2")
    before = scene.state()
    listener = scene.listen()
    scene.later(61)

    assert await consumer.fetch(5, ["default"]) == []

    del before["expiry"]
    assert scene.state() == before | {
        "j:a": expired(scene, x=at, n="c1 c2"),
        "q:default/5": Lane(),
        "idle:default": Kept({"w1"}, PARKED),
    }
    assert listener.messages() == [("done:c1", b"a\nx\n"), ("done:c2", b"a\nx\n")]


async def test_a_job_fetched_in_time_keeps_its_expiry_for_a_later_attempt(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    at = scene.now() + 60_000
    scene.put_expiry("a", at)

    assert len(await consumer.fetch(5, ["default"])) == 1

    assert scene.job("a") == running(scene, x=at)
    assert scene.state()["expiry"] == {"a": at}


# -------------------------------------------------------------------------------------- fences


async def test_a_worker_that_is_not_registered_is_told_that_it_is_dead(scene: Scene) -> None:
    consumer = await scene.consumer(register=False)
    scene.put_queued("a")
    before = scene.state()

    with pytest.raises(DeclaredDead):
        await consumer.fetch(5, ["default"])

    assert scene.state() == before


async def test_after_the_server_lost_its_data_a_worker_is_told_that_it_is_dead(
    scene: Scene,
) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    scene.clear()  # what FLUSHALL does to this namespace

    with pytest.raises(DeclaredDead):
        await consumer.fetch(5, ["default"])

    assert scene.state() == {}


async def test_a_stream_that_was_deleted_gets_its_group_again(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    scene.look.delete(scene.keys.lane("default", 5))
    scene.look.xadd(scene.keys.lane("default", 5), {"i": "a"})

    delivered = await consumer.fetch(5, ["default"])

    assert [delivery.id for delivery in delivered] == ["a"]


async def test_a_lost_reply_leaves_the_next_fetch_to_take_other_jobs(scene: Scene) -> None:
    """A fetch is the one script that must not be repeated blindly; this is what it would do."""
    consumer = await scene.consumer()
    scene.put_queued("a")
    scene.put_queued("b")

    await consumer.fetch(1, ["default"])
    again = await consumer.fetch(1, ["default"])

    assert [delivery.id for delivery in again] == ["b"]
    assert scene.lane() == Lane(held={"w1": ["a", "b"]})


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    scene.look.script_flush()

    assert len(await consumer.fetch(5, ["default"])) == 1
    assert scene.state()["held"] == {"w1": 1}


@pytest.mark.parametrize(
    "fields", [{"a": "abc"}, {"a": "9" * 400}, {"a": "nan"}, {"x": "soon"}], ids=str
)
async def test_a_job_that_others_wrote_keeps_nobody_from_the_rest(
    scene: Scene, fields: dict[str, str]
) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    bad = scene.put_queued("bad", **fields)
    scene.put_queued("b")

    delivered = await consumer.fetch(3, ["default"])

    assert [delivery.id for delivery in delivered] == ["a", "b"]
    kept = [msgpack.unpackb(row) for row in scene.look.lrange(scene.keys.malformed, 0, -1)]
    assert kept == [[LANE, bad.decode(), ["i", "bad"]]]


async def test_a_key_that_is_no_job_keeps_nobody_from_the_rest(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_entry("bad")
    scene.look.set(scene.keys.job("bad"), "garbage")
    scene.put_queued("b")

    assert [delivery.id for delivery in await consumer.fetch(3, ["default"])] == ["b"]
    assert scene.lane() == Lane(held={"w1": ["b"]})


async def test_an_entry_of_a_lane_its_job_is_not_in_is_dropped(scene: Scene) -> None:
    """An id the caller chose: its first job is gone, its second waits in another queue."""
    scene.put_entry("a")
    scene.put_queued("a", "mail/9")
    consumer = await scene.consumer()

    assert await consumer.fetch(1, ["default"]) == []
    [delivery] = await consumer.fetch(1, ["mail"])

    assert (delivery.id, delivery.lane) == ("a", "mail/9")


async def test_lanes_of_other_queues_are_not_looked_at(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.look.hset(scene.keys.lanes, mapping={f"tenant-{n}": "5" for n in range(20_000)})
    scene.put_queued("a", "default/9")
    scene.put_queued("b", "mail/0")
    scene.look.config_resetstat()

    delivered = await consumer.fetch(5, ["default", "mail"])

    assert [delivery.id for delivery in delivered] == ["a", "b"]
    assert scene.look.info("commandstats")["cmdstat_xreadgroup"]["calls"] == 2
    scene.look.delete(scene.keys.lanes)

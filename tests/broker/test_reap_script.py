"""`reap.lua` through `Leases`: the jobs of a worker that died or left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskq.broker.consumer import DeclaredDead
from taskq.broker.leases import Reaped, ReapPolicy, SilentWorker
from taskq.codec.envelope import unpack_failure
from tests.support.scripts import (
    FAILURE_TTL,
    GRACE,
    LANE,
    About,
    Kept,
    Lane,
    Scene,
    frame,
    job,
    without,
)


def fields(state: str, **more: Any) -> dict[str, Any]:
    given = {"e": b"envelope", "s": state, "q": LANE, "t": 1000, "a": 1, "b": 2000}
    return given | more


def record(scene: Scene, outcome: str) -> list[Any]:
    return ["2000", scene.about_now(), "w1", outcome]


# ------------------------------------------------------------------------------------ died, left


async def test_the_jobs_of_a_dead_worker_are_given_to_others_and_count_a_crash(
    scene: Scene,
) -> None:
    scene.put_running("a")
    scene.put_running("b", "w2")
    scene.put_queued("c")
    scene.look.set(scene.keys.worker_info + "w1", "who")
    before = scene.state()

    assert await scene.leases.reap("w1", scene.policy, heartbeat=7) == Reaped(1, 0)

    assert scene.state() == without(before, "worker:w1") | {
        "j:a": fields("q", w="", k=1, h1=record(scene, "lost")),
        "lanes": {"default": "5r"},
        "q:default/5": Lane(waiting=["c"], held={"w2": ["b"]}, returned=["a"]),
        "workers": {"w2": 7},
        "held": {"w2": 1},
    }


async def test_the_jobs_of_a_worker_that_left_count_no_crash(scene: Scene) -> None:
    scene.put_running("a", c=1, k=1)
    before = scene.state()

    assert await scene.leases.reap("w1", scene.policy, died=False) == Reaped(1, 0)

    assert scene.state() == without(before, "workers", "held") | {
        "j:a": fields("q", w="", c=1, k=1, h1=record(scene, "released")),
        "lanes": {"default": "5r"},
        "q:default/5": Lane(returned=["a"]),
    }


async def test_what_was_given_away_is_run_under_the_next_number(scene: Scene) -> None:
    scene.put_running("a")
    other = await scene.consumer("w2")
    await scene.leases.reap("w1", scene.policy)

    [delivery] = await other.fetch(1, ["default"])

    assert (delivery.attempt, delivery.crashes) == (2, 1)


async def test_jobs_of_all_lanes_are_taken_back_in_their_order(scene: Scene) -> None:
    for n in range(3):
        scene.put_running(f"a{n}", lane="a/9")
        scene.put_running(f"b{n}", lane="b/0")

    assert await scene.leases.reap("w1", scene.policy) == Reaped(6, 0)

    assert scene.lane("a/9") == Lane(returned=["a0", "a1", "a2"])
    assert scene.lane("b/0") == Lane(returned=["b0", "b1", "b2"])


async def test_a_worker_without_jobs_leaves_nothing(scene: Scene) -> None:
    await scene.leases.register("w1", b"who", 1, ["default"])
    scene.look.sadd(scene.keys.cancels + "w1", "a")

    assert await scene.leases.reap("w1", scene.policy, died=False) == Reaped(0, 0)

    assert scene.state() == {}


async def test_the_consumer_and_its_idleness_go_too(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_entry("nothing")
    await consumer.fetch(1, ["default"])
    stream = scene.keys.lane("default", 5)
    assert len(scene.look.xinfo_consumers(stream, "g")) == 1

    await scene.leases.reap("w1", scene.policy)

    assert scene.look.xinfo_consumers(stream, "g") == []
    assert "idle:default" not in scene.state()


async def test_idle_workers_are_woken_for_what_is_given_to_them(scene: Scene) -> None:
    scene.put_running("a")
    scene.look.sadd(scene.keys.idle + "default", "w1", "w2")
    listener = scene.listen()

    await scene.leases.reap("w1", scene.policy)

    assert listener.messages() == [("wake:w2", b"work")]


@pytest.mark.parametrize("state", ["d", "s", "f", "c", "x"])
async def test_a_job_that_is_not_running_is_left_as_it_is(scene: Scene, state: str) -> None:
    scene.put_running("a")
    scene.look.hset(scene.keys.job("a"), "s", state)
    kept = scene.job("a")

    assert await scene.leases.reap("w1", scene.policy) == Reaped(0, 0)

    assert scene.job("a") == kept
    assert scene.lane() == Lane()


async def test_a_job_whose_fetch_was_broken_off_is_queued_again(scene: Scene) -> None:
    scene.put_worker("w1")
    scene.put_queued("a")
    # Given that it was handed out, and not marked
    stream = scene.keys.lane("default", 5)
    scene.look.xreadgroup("g", "w1", {stream: ">"})
    kept = scene.job("a")

    assert await scene.leases.reap("w1", scene.policy) == Reaped(1, 0)

    assert scene.job("a") == kept
    assert scene.lane() == Lane(returned=["a"])


async def test_a_job_that_is_no_hash_any_more_is_only_removed(scene: Scene) -> None:
    scene.put_running("a")
    scene.put_running("b")
    scene.look.delete(scene.keys.job("a"))
    scene.look.set(scene.keys.job("a"), "garbage")

    assert await scene.leases.reap("w1", scene.policy) == Reaped(1, 0)

    assert scene.lane() == Lane(returned=["b"])


async def test_a_job_that_runs_elsewhere_is_left_as_it_is(scene: Scene) -> None:
    scene.put_running("a")
    scene.look.hset(scene.keys.job("a"), "w", "w2")
    kept = scene.job("a")

    assert await scene.leases.reap("w1", scene.policy) == Reaped(0, 0)

    assert scene.job("a") == kept


async def test_entries_that_are_no_jobs_are_only_removed(scene: Scene) -> None:
    scene.put_running("a")
    stream = scene.keys.lane("default", 5)
    for values in ({"x": "y"}, {"i": "gone"}):
        entry = scene.look.xadd(stream, values)
        scene.look.xclaim(stream, "g", "w1", 0, [entry], force=True, justid=True)
    deleted = scene.look.xadd(stream, {"i": "deleted"})
    scene.look.xclaim(stream, "g", "w1", 0, [deleted], force=True, justid=True)
    scene.look.xdel(stream, deleted)

    assert await scene.leases.reap("w1", scene.policy) == Reaped(1, 0)

    assert scene.look.xlen(stream) == 1
    assert scene.lane() == Lane(returned=["a"])


# ---------------------------------------------------------------------------------- the counter


async def test_a_worker_that_was_heard_since_lives(scene: Scene) -> None:
    scene.put_running("a")
    before = scene.state()

    assert await scene.leases.reap("w1", scene.policy, heartbeat=6) is None

    assert scene.state() == before


async def test_one_that_is_being_reaped_neither_beats_nor_fetches(scene: Scene) -> None:
    put_many(scene, 300)
    consumer = await scene.consumer(register=False)
    await scene.leases._reap_some("w1", scene.policy, 7, True)

    assert await scene.leases.beat("w1", b"who") is None
    with pytest.raises(DeclaredDead):
        await consumer.fetch(1, ["default"])


async def test_of_many_observers_one_gives_the_jobs_away(scene: Scene) -> None:
    for n in range(10):
        scene.put_running(f"j{n}")

    reaped = await asyncio.gather(
        *(scene.leases.reap("w1", scene.policy, heartbeat=7) for _ in range(5))
    )

    assert sorted(result.moved for result in reaped if result is not None) == [0, 0, 0, 0, 10]
    assert len(scene.lane().returned) == 10
    assert all(scene.job(f"j{n}")["k"] == 1 for n in range(10))


async def test_reaping_again_changes_nothing(scene: Scene) -> None:
    scene.put_running("a")
    await scene.leases.reap("w1", scene.policy)
    before = scene.state()

    assert await scene.leases.reap("w1", scene.policy) == Reaped(0, 0)

    assert scene.state() == before


# --------------------------------------------------------------------------------------- poison


async def test_a_job_that_killed_too_many_workers_is_not_tried_again(scene: Scene) -> None:
    scene.put_running("a", a=3, k=2, n="c1")
    scene.put_expiry("a", scene.now() + 60_000)
    listener = scene.listen()

    assert await scene.leases.reap("w1", scene.policy) == Reaped(0, 1)

    ttl = About(FAILURE_TTL + GRACE)
    job = scene.job("a")
    error = job.pop("E")
    assert job == fields(
        "f",
        a=3,
        k=3,
        n="c1",
        w="w1",
        f=scene.about_now(),
        l=FAILURE_TTL,
        x=scene.about_now(60),
        h3=record(scene, "lost"),
    )
    state = scene.state()
    assert state["j:a"].ms == ttl
    assert state["failed:default"] == Kept({"a": scene.about_now()}, ttl)
    assert scene.lane() == Lane()
    assert "expiry" not in state
    assert listener.messages() == [("done:c1", b"a\nf\n" + error)]


@pytest.mark.parametrize("crashes", [2, 7])
async def test_of_several_jobs_none_is_proven_guilty(scene: Scene, crashes: int) -> None:
    scene.put_running("a", k=crashes)
    scene.put_running("b", lane="other/9", k=crashes)

    assert await scene.leases.reap("w1", scene.policy) == Reaped(2, 0)

    assert scene.job("a")["k"] == scene.job("b")["k"] == crashes + 1
    assert scene.lane() == Lane(suspects=["a"])
    assert scene.lane("other/9") == Lane(suspects=["b"])


# ------------------------------------------------------------------------------------- suspects


async def test_jobs_that_crashed_twice_are_suspects_and_the_others_go_on(scene: Scene) -> None:
    scene.put_running("first")
    scene.put_running("again", k=1, y=1)
    scene.put_queued("later")

    await scene.leases.reap("w1", scene.policy)

    assert scene.lane() == Lane(waiting=["later"], returned=["first"], suspects=["again"])
    assert scene.look.hget(scene.keys.lanes, "default") == b"5rs"
    other = await scene.consumer("w2")
    assert [job.id for job in await other.fetch(9, ["default"])] == ["first", "later"]
    assert other.saw_suspects


@pytest.mark.parametrize(("together", "most"), [(1, 1), (2, 1), (3, 1), (4, 2), (51, 25)])
async def test_of_suspects_that_crashed_together_half_run_together(
    scene: Scene, together: int, most: int
) -> None:
    for n in range(together):
        scene.put_running(f"j{n:02}", k=1)
    await scene.leases.reap("w1", scene.policy)
    one, two = await scene.consumer("w2"), await scene.consumer("w3")

    first = await one.fetch(100, ["default"], "s")
    second = await two.fetch(100, ["default"], "s")

    assert [job.id for job in first] == [f"j{n:02}" for n in range(most)]
    assert [job.id for job in second] == [f"j{n:02}" for n in range(most, min(2 * most, together))]


async def test_of_jobs_that_crashed_before_those_that_had_not_begun_count_no_crash(
    scene: Scene,
) -> None:
    scene.put_running("fresh")
    scene.put_running("began", k=1, y=1)
    scene.put_running("waited", k=1)

    await scene.leases.reap("w1", scene.policy)

    assert [scene.job(name)["k"] for name in ("fresh", "began", "waited")] == [1, 2, 1]
    assert scene.lane() == Lane(returned=["fresh", "waited"], suspects=["began"])


async def test_the_one_that_is_known_to_have_run_alone_is_proven_guilty(scene: Scene) -> None:
    scene.put_running("guilty", k=2, y=1)
    scene.put_running("waited", k=2)

    assert await scene.leases.reap("w1", scene.policy) == Reaped(1, 1)

    assert scene.job("guilty")["s"] == "f"
    assert scene.lane() == Lane(returned=["waited"])


async def test_the_one_that_began_last_runs_alone(scene: Scene) -> None:
    for n in range(6):
        scene.put_running(f"j{n}", k=1, y=1, b=2000 + (n == 4))

    await scene.leases.reap("w1", scene.policy)

    assert [scene.job(f"j{n}")["g"] for n in range(6)] == [3, 3, 3, 3, 1, 3]
    worker = await scene.consumer("w2")
    first = await worker.fetch(9, ["default"], "s")
    second = await worker.fetch(9, ["default"], "s")
    assert [job.id for job in first] == ["j0", "j1", "j2"]
    assert [job.id for job in second] == ["j3"]
    assert [job.id for job in await worker.fetch(9, ["default"], "s")] == ["j4"]


async def test_a_job_that_was_in_a_crash_says_that_it_begins(scene: Scene) -> None:
    held = scene.put_running("a", k=1, a=3)
    consumer = await scene.consumer()

    assert await consumer.begin(held)

    assert (scene.job("a")["y"], scene.job("a")["b"]) == (3, scene.about_now())
    assert not await consumer.begin(held._replace(fence=2))
    assert not await (await scene.consumer("w2")).begin(held)


async def test_the_guilty_one_of_many_is_found_by_halves(scene: Scene) -> None:
    """Each round runs every suspect; the guilty one brings its worker down, the others end."""
    for n in range(50):
        scene.put_running(f"j{n:02}")
    await scene.leases.reap("w1", scene.policy)
    worker = await scene.consumer("w2")
    await worker.fetch(100, ["default"])
    await scene.leases.reap("w2", scene.policy)

    crashes, rounds, done = 0, 0, set[str]()
    while len(done) < 49 or scene.job("j17")["s"] != "f":
        rounds += 1
        name = f"q{rounds}"
        worker = await scene.consumer(name)
        group = await worker.fetch(100, ["default"], "s")
        if any(job.id == "j17" for job in group):
            crashes += 1
            await scene.leases.reap(name, scene.policy)
        else:
            assert await worker.finish([frame("S", job) for job in group]) == [1] * len(group)
            done |= {job.id for job in group}

    assert crashes <= 6
    assert rounds <= 12
    assert scene.lane() == Lane()
    assert scene.look.hget(scene.keys.lanes, "default") in (b"5", b"5s")


async def test_suspects_are_not_seen_once_all_are_taken(scene: Scene) -> None:
    scene.put_running("a", k=1)
    await scene.leases.reap("w1", scene.policy)
    worker = await scene.consumer("w2")

    assert len(await worker.fetch(9, ["default"], "s")) == 1
    assert await worker.fetch(9, ["default"], "s") == []

    assert scene.look.hget(scene.keys.lanes, "default") == b"5"
    await worker.fetch(9, ["default"])
    assert not worker.saw_suspects


async def test_who_serves_suspects_is_handed_nothing_else(scene: Scene) -> None:
    scene.put_queued("a")
    worker = await scene.consumer()

    assert await worker.fetch(9, ["default"], "s") == []

    assert scene.lane() == Lane(waiting=["a"])
    assert "idle:default" not in scene.state()


async def test_a_suspect_that_was_cancelled_is_dropped(scene: Scene) -> None:
    scene.put_running("a", k=1)
    await scene.leases.reap("w1", scene.policy)
    await scene.jobs.cancel("a")
    worker = await scene.consumer("w2")

    assert await worker.fetch(9, ["default"], "s") == []

    assert scene.lane() == Lane()


@pytest.mark.parametrize("want", [1, 2])
async def test_suspects_behind_cancelled_ones_are_not_lost(scene: Scene, want: int) -> None:
    for n in range(6):
        scene.put_running(f"j{n}", k=1)
    await scene.leases.reap("w1", scene.policy)
    for n in range(5):
        await scene.jobs.cancel(f"j{n}")
    worker = await scene.consumer("w2")

    found = [one.id for _ in range(6) for one in await worker.fetch(want, ["default"], "s")]

    assert found == ["j5"]
    assert scene.lane() == Lane(held={"w2": ["j5"]})


async def test_large_suspects_run_no_more_together_than_small_ones(scene: Scene) -> None:
    """Not even where those that may run together fill a reply."""
    for n in range(8):
        scene.put_running(f"j{n}", k=1, e=b"x" * 1_200_000)
    await scene.leases.reap("w1", scene.policy)
    worker = await scene.consumer("w2")

    first = await worker.fetch(100, ["default"], "s")

    assert [one.id for one in first] == ["j0", "j1", "j2", "j3"]


async def test_a_poison_job_says_what_happened(scene: Scene) -> None:
    scene.put_running("a", k=2)
    await scene.leases.reap("w1", scene.policy)

    failure = unpack_failure(scene.job("a")["E"])

    assert failure.kind == "poison"
    assert "3 workers died" in failure.error_text


@pytest.mark.parametrize(("crashes", "poisoned"), [(0, 0), (3, 0), (4, 1), (9, 1)])
async def test_the_number_of_crashes_that_makes_poison_is_the_policys(
    scene: Scene, crashes: int, poisoned: int
) -> None:
    scene.put_running("a", k=crashes)

    reaped = await scene.leases.reap("w1", ReapPolicy(max_crashes=5))

    assert reaped == Reaped(1 - poisoned, poisoned)
    assert scene.job("a")["k"] == crashes + 1


async def test_poison_jobs_are_bounded_as_failed_ones_are(scene: Scene) -> None:
    for n in range(4):
        scene.put_running(f"j{n}")
        await scene.leases.reap("w1", ReapPolicy(max_crashes=1, keep_failed=2))
        scene.later(1)

    assert set(scene.state()["failed:default"].value) == {"j2", "j3"}
    assert scene.job("j1") == {}


async def test_poison_nobody_keeps_leaves_nothing(scene: Scene) -> None:
    scene.put_running("a")

    assert await scene.leases.reap("w1", ReapPolicy(max_crashes=1, failure_ttl=0)) == Reaped(0, 1)

    assert scene.state() == {"lanes": {"default": "5"}, "q:default/5": Lane()}


# ------------------------------------------------------------------------------------ cancelled


@pytest.mark.parametrize("died", [True, False])
async def test_a_job_that_was_to_be_cancelled_is_not_run_again(scene: Scene, died: bool) -> None:
    scene.put_running("a", z=1, n="c1")
    scene.put_expiry("a", scene.now() + 60_000)
    scene.look.sadd(scene.keys.cancels + "w1", "a")
    listener = scene.listen()

    assert await scene.leases.reap("w1", scene.policy, died=died) == Reaped(0, 0)

    record = fields("c", w="w1", z=1, n="c1", E=b"", f=scene.about_now(), l=FAILURE_TTL)
    assert scene.state() == {
        "j:a": Kept(record | {"x": scene.about_now(60)}, About(FAILURE_TTL + GRACE)),
        "lanes": {"default": "5"},
        "q:default/5": Lane(),
    }
    assert listener.messages() == [("done:c1", b"a\nc\n")]


# ------------------------------------------------------------------- more than one call's worth


def put_many(scene: Scene, count: int) -> None:
    """As many jobs, all held by w1."""
    scene.put_running("j0")
    stream = scene.keys.lane("default", 5)
    with scene.look.pipeline(transaction=False) as pipeline:
        for n in range(1, count):
            job = {"e": b"e", "s": "r", "q": LANE, "a": 1, "w": "w1", "b": 2000}
            pipeline.hset(scene.keys.job(f"j{n}"), mapping=job)
            pipeline.xadd(stream, {"i": f"j{n}"})
        pipeline.execute()
    scene.look.xreadgroup("g", "w1", {stream: ">"}, count=count)


async def test_a_worker_with_more_jobs_than_one_call_takes_is_reaped_to_the_end(
    scene: Scene,
) -> None:
    put_many(scene, 2500)

    assert await scene.leases.reap("w1", scene.policy) == Reaped(2500, 0)

    assert len(scene.lane().returned) == 2500
    assert scene.lane().held == {}
    assert scene.being_reaped() == []


async def test_whoever_comes_next_goes_on_with_what_is_left(scene: Scene) -> None:
    put_many(scene, 1500)
    scene.look.sadd(scene.keys.cancels + "w1", "j1400")
    scene.look.hset(scene.keys.job("j1400"), "z", 1)

    await scene.leases._reap_some("w1", scene.policy, 7, True)

    assert scene.being_reaped() == ["w1"]
    assert scene.look.smembers(scene.keys.cancels + "w1") == {b"j1400"}
    assert len(scene.lane().returned) == 200
    # The next heartbeat reports it
    await scene.leases.register("w2", b"who", 1, ["default"])
    reply = await scene.leases.beat("w2", b"who")
    assert reply is not None
    assert reply.silent == (SilentWorker("w1", -1),)

    assert await scene.leases.reap("w1", scene.policy, heartbeat=-1) == Reaped(1299, 0)

    assert scene.being_reaped() == []
    assert scene.job("j1400")["s"] == "c"
    assert not scene.look.exists(scene.keys.cancels + "w1")


async def test_a_new_worker_of_the_name_is_not_reaped_with_the_old_one(scene: Scene) -> None:
    """Two reap it at once; the other one takes the last, and the name is used again meanwhile."""
    put_many(scene, 500)
    ask, calls = scene.leases._reap_some, 0

    async def overtaken(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            while (await ask("w1", scene.policy, -1, True))[2] == b"1":  # type: ignore[index]
                pass
            await scene.leases.register("w1", b"", 1, ["default"])
        return await ask(*given)

    scene.leases._reap_some = overtaken  # type: ignore[method-assign]

    assert await scene.leases.reap("w1", scene.policy, heartbeat=7) == Reaped(200, 0)

    assert await scene.leases.last_heartbeat("w1") == 1
    assert len(scene.lane().returned) == 500


async def test_the_last_job_of_many_is_not_taken_for_the_only_one(scene: Scene) -> None:
    put_many(scene, 1001)
    scene.look.hset(scene.keys.job("j1000"), "k", 7)

    assert await scene.leases.reap("w1", scene.policy) == Reaped(1001, 0)

    assert scene.job("j1000")["s"] == "q"
    assert scene.job("j1000")["k"] == 8


async def test_a_worker_of_thousands_of_queues_is_taken_apart_a_few_at_a_time(scene: Scene) -> None:
    queues = [f"tenant-{n}" for n in range(2000)]
    lanes = [f"{queue}/{lane}" for queue in queues for lane in ("5", "7t")]
    await scene.leases.register("w1", b"", 100, queues)
    await scene.producer.add_many([job(f"j{n}", lane=lane) for n, lane in enumerate(lanes[:500])])
    consumer = await scene.consumer(register=False)
    while await consumer.fetch(500, queues):
        pass
    scene.look.hset(scene.keys.lanes, mapping=dict.fromkeys(queues, "5H9"))
    scene.look.config_resetstat()
    calls, ask = 0, scene.leases._reap_some

    async def counted(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return await ask(*given)

    scene.leases._reap_some = counted  # type: ignore[method-assign]

    assert await scene.leases.reap("w1", scene.policy) == Reaped(500, 0)

    looks = scene.look.info("commandstats")["cmdstat_xpending"]["calls"]
    assert looks / calls <= 500
    assert scene.being_reaped() == []
    other = await scene.consumer("w2")
    found = [one.id for _ in range(2) for one in await other.fetch(500, queues)]
    assert sorted(found) == sorted(f"j{n}" for n in range(500))


async def test_the_one_job_of_a_worker_of_thousands_of_queues_is_proven_guilty(
    scene: Scene,
) -> None:
    queues = [f"tenant-{n}" for n in range(2000)]
    await scene.leases.register("w1", b"", 100, queues)
    await scene.producer.add(job("guilty", lane="tenant-1500/5"))
    scene.look.hset(scene.keys.job("guilty"), "k", 2)
    [held] = await (await scene.consumer(register=False)).fetch(1, queues)
    scene.look.hset(scene.keys.job("guilty"), "y", held.fence)

    assert await scene.leases.reap("w1", scene.policy) == Reaped(0, 1)


async def test_what_is_not_taken_back_yet_may_still_be_ended_and_leaves_no_trace(
    scene: Scene,
) -> None:
    put_many(scene, 1001)
    consumer = await scene.consumer(register=False)
    last = await scene.leases.redeliver("w1", await scene.held())
    await scene.leases._reap_some("w1", scene.policy, 7, True)

    assert await consumer.finish([frame("S", last[-1], b"r")]) == [1]

    assert await scene.leases.reap("w1", scene.policy) == Reaped(800, 0)
    assert not scene.look.exists(scene.keys.held)
    assert scene.job("j1000")["s"] == "s"


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    scene.put_running("a")
    scene.look.script_flush()

    assert await scene.leases.reap("w1", scene.policy) == Reaped(1, 0)

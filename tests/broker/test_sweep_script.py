"""`sweep.lua` through `Upkeep`: what is not used any more goes, and what is in use stays."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.broker import broker as upkeep
from tests.support.scripts import Lane, Scene, job, lanes_of

LONG_AGO = 1000
"""The milliseconds of an entry's id: older than a minute by far."""


def put_old(scene: Scene, job_id: str, lane: str = "default/5", *, seq: int, **fields: Any) -> str:
    """A queued job whose entry has waited for years."""
    scene.put_job(job_id, fields.pop("s", "q"), q=lane, **fields)
    stream, entry = scene.keys.lane_prefix + lane, f"{LONG_AGO}-{seq}"
    queue, sign = lane.split("/")
    if not scene.look.exists(stream):
        scene.look.xgroup_create(stream, "g", "0", mkstream=True)
        signs = (scene.look.hget(scene.keys.lanes, queue) or b"").decode()
        scene.look.hset(scene.keys.lanes, queue, signs + sign)
    scene.look.xadd(stream, {"i": job_id}, id=entry)
    return entry


async def sweep(scene: Scene) -> int:
    """One round; how many calls it takes."""
    cursor, calls = "0", 0
    while True:
        cursor, calls = await scene.upkeep.sweep(cursor), calls + 1
        if cursor == "0":
            return calls


@pytest.fixture
def keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty lane goes at once."""
    monkeypatch.setattr(upkeep, "_KEEP_EMPTY_MS", -1)


# ---------------------------------------------------------------------------------- empty lanes


async def test_a_lane_that_was_empty_for_its_time_goes(scene: Scene, keep_nothing: None) -> None:
    for n in range(300):
        await scene.producer.add(job(f"j{n}", lane=f"tenant-{n}/5"))
    consumer = await scene.consumer()
    await consumer.fetch(300, [f"tenant-{n}" for n in range(300)])
    for n in range(300):
        scene.look.xtrim(f"{scene.keys.lane_prefix}tenant-{n}/5", maxlen=0, approximate=False)
    await scene.producer.add(job("stays", lane="tenant-7/9"))

    await sweep(scene)

    assert lanes_of(scene.look, scene.keys) == ["tenant-7/9"]
    streams = list(scene.look.scan_iter(match=scene.keys.lane_prefix + "*", count=1000))
    assert streams == [f"{scene.keys.lane_prefix}tenant-7/9".encode()]


async def test_an_empty_lane_is_kept_for_a_while(scene: Scene) -> None:
    await scene.producer.add(job("a"))
    [entry] = scene.look.xrange(scene.keys.lane("default", 5))
    scene.look.xdel(scene.keys.lane("default", 5), entry[0])
    before = scene.state()

    await sweep(scene)

    assert scene.state() == before


async def test_lanes_of_threads_and_processes_go_as_the_others_do(
    scene: Scene, keep_nothing: None
) -> None:
    for lane in ("a/5", "a/5t", "a/0p", "b/9p"):
        await scene.producer.add(job(lane, lane=lane))
        scene.look.xtrim(scene.keys.lane_prefix + lane, maxlen=0, approximate=False)

    await sweep(scene)

    assert not scene.look.exists(scene.keys.lanes)
    await scene.producer.add(job("again", lane="a/5t"))
    consumer = await scene.consumer()
    assert [one.id for one in await consumer.fetch(9, ["a"])] == ["again"]


async def test_a_lane_with_a_running_job_stays(scene: Scene, keep_nothing: None) -> None:
    scene.put_running("a")
    before = scene.state()

    await sweep(scene)

    assert scene.state() == before


async def test_what_is_said_of_a_lane_without_a_stream_goes(scene: Scene) -> None:
    scene.look.hset(scene.keys.lanes, mapping={"gone": "5", "back": "5rs"})

    await sweep(scene)

    assert not scene.look.exists(scene.keys.lanes)


# ---------------------------------------------------------------------------------- stale entries


@pytest.mark.parametrize("state", ["c", "x", "s", "f"])
async def test_entries_of_jobs_that_wait_no_more_go_from_queues_that_nobody_serves(
    scene: Scene, state: str
) -> None:
    put_old(scene, "over", seq=1, s=state)
    put_old(scene, "waits", seq=2)
    put_old(scene, "unknown", seq=3)
    scene.look.delete(scene.keys.job("unknown"))

    await sweep(scene)

    assert scene.lane() == Lane(waiting=["waits"])


async def test_jobs_that_wait_stay_in_their_order(scene: Scene) -> None:
    for n in range(250):
        put_old(scene, f"j{n}", seq=n + 1, s="c" if n % 2 else "q")

    for _ in range(3):
        await sweep(scene)

    assert scene.lane().waiting == [f"j{n}" for n in range(0, 250, 2)]
    assert not scene.look.exists(scene.keys.swept)


async def test_a_lane_that_moves_is_left_to_its_workers(scene: Scene) -> None:
    scene.put_queued("fresh")
    await scene.jobs.cancel("fresh")

    await sweep(scene)

    assert scene.lane() == Lane(waiting=["fresh"])


async def test_it_goes_on_where_it_stopped(scene: Scene) -> None:
    for n in range(350):
        put_old(scene, f"j{n}", seq=n + 1, s="c" if n >= 300 else "q")

    for looked in range(3):
        assert len(scene.lane().waiting) == 350
        await sweep(scene)
        assert scene.look.hget(scene.keys.swept, "default/5") == b"1000-%d" % (100 * looked + 100)
    await sweep(scene)

    assert len(scene.lane().waiting) == 300


async def test_what_workers_run_is_never_taken_from_them(scene: Scene) -> None:
    """A look that stopped before what has been delivered since begins behind that."""
    for n in range(350):
        put_old(scene, f"j{n}", seq=n + 1)
    await sweep(scene)
    consumer = await scene.consumer()
    running = await consumer.fetch(250, ["default"])

    for _ in range(4):
        await sweep(scene)

    # Then all of them come back when their worker dies
    assert len(running) == 250
    await scene.leases.reap("w1", scene.policy)
    assert scene.lane().returned == [f"j{n}" for n in range(250)]


@pytest.mark.parametrize("crashes", [0, 1])
async def test_entries_of_jobs_that_came_back_and_were_cancelled_go_too(
    scene: Scene, crashes: int
) -> None:
    for n in range(250):
        scene.put_running(f"j{n:03}", k=crashes)
    for _ in range(2):
        await scene.leases.reap("w1", scene.policy)
    for n in range(0, 250, 2):
        await scene.jobs.cancel(f"j{n:03}")

    for _ in range(3):
        await sweep(scene)

    lane = scene.lane()
    assert lane.returned + lane.suspects == [f"j{n:03}" for n in range(1, 250, 2)]
    assert scene.look.xlen(scene.keys.lane("default", 5)) == 125


async def test_an_entry_that_is_not_a_job_stays_for_the_fetch_that_keeps_it_aside(
    scene: Scene,
) -> None:
    put_old(scene, "text", seq=1)
    scene.look.delete(scene.keys.job("text"))
    scene.look.set(scene.keys.job("text"), "text")

    await sweep(scene)

    assert scene.lane() == Lane(waiting=["text"])


# ------------------------------------------------------------------------------------ in pieces


async def test_no_call_looks_at_more_than_its_share(scene: Scene) -> None:
    """Also where the server gives a whole hash at once."""
    for n in range(60):
        for seq in range(60):
            put_old(scene, f"j{n}.{seq}", f"q{n}/5", seq=seq + 1, s="c" if seq else "q")
    scene.look.config_resetstat()

    calls = await sweep(scene)

    looks = scene.look.info("commandstats")["cmdstat_hget"]["calls"]
    assert calls >= 3
    assert looks / calls <= 1300
    assert all(scene.lane(f"q{n}/5").waiting == [f"j{n}.0"] for n in range(60))


async def test_more_queues_than_one_page_are_all_looked_at(scene: Scene) -> None:
    for n in range(1500):
        put_old(scene, f"j{n}", f"q{n}/5", seq=1, s="c")

    calls = await sweep(scene)

    assert calls > 1
    left = [lane for lane in lanes_of(scene.look, scene.keys) if scene.lane(lane).waiting]
    assert left == []


# -------------------------------------------------------------------------------- foreign things


@pytest.mark.parametrize("place", ["lane", "swept", "position", "workers", "serves"])
async def test_what_others_wrote_hides_nothing(scene: Scene, place: str) -> None:
    scene.put_worker("w1", "a")
    put_old(scene, "a", "a/5", seq=1, s="c")
    put_old(scene, "b", "b/5", seq=1, s="c")
    put_old(scene, "c", "c/5", seq=1, s="c")
    key = {"lane": scene.keys.lane("b", 5), "swept": scene.keys.swept}.get(place)
    if place == "position":
        scene.look.hset(scene.keys.swept, mapping={"a/5": "word", "b/5": "9-", "serves": "x"})
    else:
        key = key or scene._prefix + place
        scene.look.delete(key)
        scene.look.set(key, "text")

    await sweep(scene)

    assert scene.lane("a/5").waiting == scene.lane("c/5").waiting == []
    if place != "lane":
        assert scene.lane("b/5").waiting == []
    for key in (scene.keys.lane("b", 5), scene.keys.workers, scene.keys.serves):
        scene.look.delete(key)


async def test_a_lane_whose_name_was_lost_is_listed_again(scene: Scene) -> None:
    scene.put_worker("w1", "default", "other")
    await scene.producer.add_many([job("a", lane="default/5"), job("b", lane="default/9t")])
    await scene.producer.add(job("c", lane="other/0p"))
    consumer = await scene.consumer()
    held = await consumer.fetch(1, ["default"])
    await scene.leases.register("w2", b"", 1, ["default", "other"])
    await scene.leases.reap("w1", scene.policy)
    scene.look.delete(scene.keys.lanes)
    other = await scene.consumer("w2")
    assert await other.fetch(9, ["default", "other"]) == []

    await sweep(scene)

    found = await other.fetch(9, ["default", "other"])
    assert {one.id for one in found} == {"a", "b", "c"}
    assert held[0].id in {one.id for one in found}


async def test_a_worker_whose_place_among_the_heartbeats_was_lost_is_reaped(scene: Scene) -> None:
    scene.put_running("a")
    await scene.leases.register("w2", b"", 1, ["default"])
    scene.look.zrem(scene.keys.workers, "w1")
    assert (await scene.leases.beat("w2", b"")).silent == ()  # type: ignore[union-attr]

    await sweep(scene)

    reply = await scene.leases.beat("w2", b"")
    assert reply is not None
    assert [silent.worker for silent in reply.silent] == ["w1"]
    await scene.leases.reap("w1", scene.policy, heartbeat=-1)
    assert scene.lane() == Lane(returned=["a"])
    assert scene.being_reaped() == []

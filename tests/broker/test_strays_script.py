"""`strays.lua` through `Leases`: jobs whose delivery was lost on its way."""

from __future__ import annotations

import pytest

from tests.support.scripts import LANE, Scene, entry_name, job


async def test_everything_a_worker_holds_is_listed(scene: Scene) -> None:
    mine = {scene.put_running("a").entry, scene.put_running("b", lane="other/9").entry}
    scene.put_running("c", "w2")
    scene.put_queued("d")
    before = scene.state()

    assert set(await scene.held()) == mine

    assert scene.state() == before


async def test_a_worker_that_holds_nothing_is_told_so(scene: Scene) -> None:
    scene.put_queued("a")

    assert await scene.held() == []


async def test_a_stray_is_handed_again_as_it_was_fetched(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a", a=2, c=1, k=1, u=3)
    fetched = await consumer.fetch(1, ["default"])
    before = scene.state()

    again = await scene.leases.redeliver("w1", await scene.held())

    assert again == fetched
    assert scene.state() == before


async def test_only_what_is_asked_for_is_handed_again(scene: Scene) -> None:
    first, _ = scene.put_running("a"), scene.put_running("b")

    again = await scene.leases.redeliver("w1", [first.entry])

    assert [delivery.id for delivery in again] == ["a"]


async def test_nothing_asked_for_is_nothing_handed_again(scene: Scene) -> None:
    scene.put_running("a")

    assert await scene.leases.redeliver("w1", []) == []


async def test_entries_of_two_lanes_are_told_apart(scene: Scene) -> None:
    """Jobs enqueued together have entries of the same number in their lanes."""
    consumer = await scene.consumer()
    await scene.producer.add_many([job("low", lane="default/1"), job("high", lane="default/8")])
    high, low = await consumer.fetch(2, ["default"])
    assert set(await scene.held()) == {high.entry, low.entry}

    again = await scene.leases.redeliver("w1", [low.entry])

    assert [delivery.id for delivery in again] == ["low"]


@pytest.mark.parametrize("state", ["d", "q", "s", "f", "c", "x"])
async def test_a_job_that_is_not_running_any_more_is_not_handed_again(
    scene: Scene, state: str
) -> None:
    entry = scene.put_running("a").entry
    scene.look.hset(scene.keys.job("a"), "s", state)

    assert await scene.leases.redeliver("w1", [entry]) == []


async def test_a_job_that_runs_elsewhere_is_not_handed_again(scene: Scene) -> None:
    entry = scene.put_running("a").entry
    scene.look.hset(scene.keys.job("a"), "w", "w2")

    assert await scene.leases.redeliver("w1", [entry]) == []


async def test_another_workers_job_is_not_handed_again(scene: Scene) -> None:
    entry = scene.put_running("a", "w2").entry

    assert await scene.leases.redeliver("w1", [entry]) == []


async def test_entries_that_are_gone_or_no_jobs_are_passed_over(scene: Scene) -> None:
    entry = scene.put_running("a").entry
    stream = scene.keys.lane("default", 5)
    malformed = scene.look.xadd(stream, {"x": "y"})
    deleted = scene.look.xadd(stream, {"i": "deleted"})
    scene.look.xclaim(stream, "g", "w1", 0, [malformed, deleted], force=True, justid=True)
    scene.look.xdel(stream, deleted)
    names = {entry_name(LANE, malformed), entry_name(LANE, deleted), entry}

    assert set(await scene.held()) == names
    again = await scene.leases.redeliver("w1", names)

    assert [delivery.id for delivery in again] == ["a"]


async def test_a_lane_without_a_stream_is_passed_over(scene: Scene) -> None:
    scene.put_running("a")
    scene.look.hset(scene.keys.lanes, "email", "5")

    assert len(await scene.leases.held("w1")) == 1


async def test_what_does_not_fit_into_one_reply_is_handed_again_later(scene: Scene) -> None:
    entries = [scene.put_running(f"j{n}", e=b"x" * 700_000).entry for n in range(10)]

    first = await scene.leases.redeliver("w1", entries)
    second = await scene.leases.redeliver("w1", entries[len(first) :])

    assert [delivery.id for delivery in first + second] == [f"j{n}" for n in range(10)]
    assert len(first) == 6


async def test_only_lanes_of_the_workers_queues_are_looked_at(scene: Scene) -> None:
    scene.put_running("a")
    scene.look.hset(scene.keys.lanes, mapping={f"tenant-{n}": "5" for n in range(20_000)})
    scene.look.config_resetstat()

    assert len(await scene.held()) == 1

    assert scene.look.info("commandstats")["cmdstat_xpending"]["calls"] == 1

"""`tick.lua` and `fires.lua` through `ScheduleStore`: each fire makes exactly one job."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from taskq.broker.schedules import Firing, FiringJob, Overlap, Ticked
from tests.support.scripts import LANE, About, Kept, Lane, Scene, without

MINUTE = 60_000
DONE, CHANGED, EARLY, LATE, WAITS, CANCEL = 1, 0, 2, 3, 4, 5


@pytest.fixture
def slot(scene: Scene) -> int:
    """A fire time that has just come, while "leader" leads in term 3 and "s" is due."""
    scene.look.hset(scene.keys.leader, mapping={"o": "leader", "t": 3, "b": 7, "s": 1000})
    slot = scene.now() - 1_000
    put_schedule(scene, "s", slot)
    return slot


def put_schedule(scene: Scene, name: str, slot: int, **fields: Any) -> None:
    given = {"v": "rev", "s": "spec", "n": slot, "a": 1, "m": 1} | fields
    scene.look.hset(scene.keys.schedule_prefix + name, mapping=given)
    scene.look.zadd(scene.keys.schedules, {name: slot})


def job(slot: int, *, later: int = 0, name: str = "s") -> FiringJob:
    return FiringJob(slot, slot + later, f"{name}:{slot}", b"envelope")


def firing(slot: int, *jobs: FiringJob, **changes: Any) -> Firing:
    given: dict[str, Any] = {
        "id": "s", "revision": "rev", "slot": slot, "following": slot + MINUTE, "until": None,
        "jobs": jobs, "lane": LANE,
    }  # fmt: skip
    return Firing(**given | changes)


async def tick(scene: Scene, *firings: Firing, leader: str = "leader", term: int = 3) -> Any:
    return await scene.schedules.tick(leader, term, firings)


def schedule(scene: Scene, name: str = "s") -> dict[str, str]:
    found = scene.look.hgetall(scene.keys.schedule_prefix + name)
    return {field.decode(): value.decode("utf-8", "replace") for field, value in found.items()}


def stats(scene: Scene, **counts: int) -> dict[str, Kept]:
    found = {f"default:{name}": count for name, count in counts.items()}
    return {f"stats:{scene.now() // MINUTE}": Kept(found, About(600_000))}


# ----------------------------------------------------------------------------- one fire, one job


async def test_a_fire_makes_its_job_and_moves_the_schedule_on(scene: Scene, slot: int) -> None:
    before = scene.state()

    assert await tick(scene, firing(slot, job(slot))) == [Ticked(DONE, 1, 0, ())]

    moved = {"n": b"%d" % (slot + MINUTE), "l": b"%d" % slot, "c": b"1"}
    assert scene.state() == before | stats(scene, fired=1) | {
        "schedules": {"s": slot + MINUTE},
        "schedule:s": before["schedule:s"] | moved,
        f"j:s:{slot}": {"e": b"envelope", "s": "q", "q": LANE, "t": scene.about_now()},
        "q:default/5": Lane(waiting=[f"s:{slot}"]),
        "lanes": {"default": "5"},
    }


async def test_the_same_tick_again_does_nothing(scene: Scene, slot: int) -> None:
    await tick(scene, firing(slot, job(slot)))
    before = scene.state()

    assert await tick(scene, firing(slot, job(slot))) == [Ticked(CHANGED, 0, 0, ())]

    assert scene.state() == before


async def test_a_tick_of_who_does_not_lead_does_nothing(scene: Scene, slot: int) -> None:
    before = scene.state()

    assert await tick(scene, firing(slot, job(slot)), leader="other") is None
    assert await tick(scene, firing(slot, job(slot)), term=2) is None

    assert scene.state() == before


async def test_without_the_fence_each_fire_would_still_make_one_job(
    scene: Scene, slot: int
) -> None:
    put_schedule(scene, "s", slot - 500)
    slots = [slot - 500 + n * 10 for n in range(50)]

    # When two leaders with the same term fire the same fifty slots, in any order
    async def fire() -> int:
        fired = 0
        for at in slots:
            [answer] = await tick(scene, firing(at, job(at), following=at + 10))
            fired += answer.fired
        return fired

    by_each = await asyncio.gather(fire(), fire())

    # Then each slot has one job, and one entry
    assert sum(by_each) == 50
    assert scene.lane().waiting == [f"s:{at}" for at in slots]
    assert schedule(scene)["c"] == "50"


async def test_a_job_of_a_fire_that_exists_is_not_made_again(scene: Scene, slot: int) -> None:
    # Given a cursor that was lost after its job was made
    await tick(scene, firing(slot, job(slot)))
    put_schedule(scene, "s", slot, l=0)
    before = scene.job(f"s:{slot}")

    await tick(scene, firing(slot, job(slot)))

    assert scene.lane().waiting == [f"s:{slot}"]
    assert scene.job(f"s:{slot}") == before


async def test_a_fire_time_that_was_decided_is_not_fired_again(scene: Scene, slot: int) -> None:
    # Given a schedule that was set back, after the record of its job had gone
    put_schedule(scene, "s", slot, l=slot)

    assert await tick(scene, firing(slot, job(slot))) == [Ticked(DONE, 0, 0, ())]

    assert "lanes" not in scene.state()
    assert schedule(scene)["n"] == str(slot + MINUTE)


async def test_a_fire_that_another_trigger_begins_with_may_be_before_the_last_one(
    scene: Scene, slot: int
) -> None:
    put_schedule(scene, "s", slot - 20, l=slot, b=slot - 20)

    # The fires behind it are judged as ever
    jobs = (job(slot - 20), job(slot - 10), job(slot))
    assert await tick(scene, firing(slot - 20, *jobs)) == [Ticked(DONE, 1, 0, ())]

    assert scene.lane().waiting == [f"s:{slot - 20}"]
    stored = schedule(scene)
    assert (stored["l"], stored["c"]) == (str(slot), "1")
    assert "b" not in stored


async def test_a_fire_before_the_last_one_may_wait_for_its_run(scene: Scene, slot: int) -> None:
    put_run(scene, slot - 20, "r")
    put_schedule(scene, "s", slot - 20, l=slot, b=slot - 20)

    planned = firing(slot - 20, job(slot - 20), overlap="wait")
    assert [answer.code for answer in await tick(scene, planned)] == [WAITS]
    scene.put_job("earlier", "s")

    assert await tick(scene, planned) == [Ticked(DONE, 1, 0, ())]


async def test_a_schedule_that_was_changed_is_not_fired(scene: Scene, slot: int) -> None:
    before = scene.state()

    answers = await tick(
        scene,
        firing(slot, job(slot), revision="older"),
        firing(slot - 1, job(slot - 1)),
        firing(slot, job(slot), id="unknown"),
    )

    assert [answer.code for answer in answers] == [CHANGED] * 3
    assert scene.state() == before


async def test_the_servers_clock_decides_what_is_due(scene: Scene, slot: int) -> None:
    soon = slot + 10 * MINUTE
    put_schedule(scene, "s", soon)
    before = scene.state()

    assert [a.code for a in await tick(scene, firing(soon, job(soon)))] == [EARLY]
    assert scene.state() == before
    scene.later(601)
    assert [a.code for a in await tick(scene, firing(soon, job(soon)))] == [DONE]


async def test_a_plan_that_is_out_of_date_is_not_done(scene: Scene, slot: int) -> None:
    before = scene.state()

    assert [a.code for a in await tick(scene, firing(slot, job(slot), until=slot + 500))] == [LATE]

    assert scene.state() == before


async def test_one_bad_schedule_among_many_changes_nothing_for_them(
    scene: Scene, slot: int
) -> None:
    put_schedule(scene, "t", slot)

    answers = await tick(
        scene,
        firing(slot, job(slot), revision="older"),
        firing(slot, job(slot, name="t"), id="t"),
    )

    assert [answer.code for answer in answers] == [CHANGED, DONE]
    assert scene.lane().waiting == [f"t:{slot}"]


# --------------------------------------------------------------------------- when and how it runs


async def test_a_fire_with_jitter_waits_in_the_due_set(scene: Scene, slot: int) -> None:
    listener = scene.listen()

    await tick(scene, firing(slot, job(slot, later=5 * MINUTE)))

    due = slot + 5 * MINUTE
    assert scene.job(f"s:{slot}")["s"] == "d"
    assert scene.state()["due"] == {f"s:{slot}": due}
    assert ("next", b"due") in listener.messages()
    # And promoting takes it from there
    scene.later(301)
    assert (await scene.upkeep.promote(10, 60.0))[0] == 1
    assert scene.lane().waiting == [f"s:{slot}"]


async def test_a_job_expires_after_its_time(scene: Scene, slot: int) -> None:
    await tick(scene, firing(slot, job(slot), expires="+60000"))

    assert scene.job(f"s:{slot}")["x"] == scene.about_now(60)
    assert scene.state()["expiry"] == {f"s:{slot}": scene.about_now(60)}


async def test_idle_workers_are_woken(scene: Scene, slot: int) -> None:
    listener = scene.listen("wake:w1")
    scene.look.sadd(scene.keys.idle + "default", "w1")

    await tick(scene, firing(slot, job(slot)))

    assert listener.messages() == [("wake:w1", b"work")]


async def test_a_fired_job_is_fetched_as_any_other(scene: Scene, slot: int) -> None:
    consumer = await scene.consumer("w1")
    await tick(scene, firing(slot, job(slot)))

    [delivery] = await consumer.fetch(5, ["default"])

    assert (delivery.id, delivery.envelope, delivery.attempt) == (f"s:{slot}", b"envelope", 1)


async def test_the_last_fire_removes_the_schedule(scene: Scene, slot: int) -> None:
    await tick(scene, firing(slot, job(slot), following=None))

    assert {"schedules", "schedule:s"}.isdisjoint(scene.state())
    assert scene.lane().waiting == [f"s:{slot}"]


async def test_a_declared_schedule_stays_after_its_last_fire(scene: Scene, slot: int) -> None:
    await tick(scene, firing(slot, job(slot), following=None, keep=True))

    assert scene.state()["schedules"] == {"s": float("inf")}
    assert "n" not in schedule(scene)
    assert schedule(scene)["l"] == str(slot)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_schedule_that_cannot_go_on_is_paused_after_its_fire(
    scene: Scene, slot: int, keep: bool
) -> None:
    last = firing(slot, job(slot), following=None, keep=keep, broken="why")
    assert await tick(scene, last) == [Ticked(DONE, 1, 0, ())]

    assert scene.state()["schedules"] == {"s": float("inf")}
    stored = (await scene.schedules.read(["s"])).found["s"]
    assert (stored.next, stored.paused, stored.broken) == (None, "why", True)
    assert (stored.fired, stored.last) == (1, slot)


# ------------------------------------------------------------------------------- fires left out


async def test_fires_left_out_are_counted_and_told(scene: Scene, slot: int) -> None:
    listener = scene.listen("skips")

    put_schedule(scene, "s", slot - 3 * MINUTE)
    answers = await tick(scene, firing(slot - 3 * MINUTE, job(slot), left_out=3, why="coalesced"))

    assert answers == [Ticked(DONE, 1, 3, ())]
    assert (schedule(scene)["c"], schedule(scene)["k"]) == ("1", "3")
    skip = ["s", About(scene.now()), 3, "coalesced"]
    assert [(c, msgpack.unpackb(m)) for c, m in listener.messages()] == [("skips", skip)]
    assert without(scene.state(), "schedule:s")[f"stats:{scene.now() // MINUTE}"].value == {
        "default:fired": 1,
        "default:skipped": 3,
    }


async def test_a_fire_may_be_left_out_altogether(scene: Scene, slot: int) -> None:
    assert await tick(scene, firing(slot, left_out=1)) == [Ticked(DONE, 0, 1, ())]

    assert schedule(scene)["n"] == str(slot + MINUTE)
    assert "lanes" not in scene.state()


# -------------------------------------------------------------------------------------- overlaps


def put_run(scene: Scene, slot: int, state: str) -> str:
    """An earlier run of the schedule, in a state."""
    scene.put_job("earlier", state)
    put_schedule(scene, "s", slot, j="earlier")
    return "earlier"


@pytest.mark.parametrize("state", ["q", "r", "d", "w"])
async def test_a_run_that_has_not_ended_is_skipped_over(
    scene: Scene, slot: int, state: str
) -> None:
    put_run(scene, slot, state)

    answer = await tick(scene, firing(slot, job(slot), overlap="skip"))

    assert answer == [Ticked(DONE, 0, 1, ())]
    assert schedule(scene)["n"] == str(slot + MINUTE)
    assert schedule(scene)["j"] == "earlier"


@pytest.mark.parametrize("state", ["s", "f", "c", "x"])
async def test_a_run_that_has_ended_is_not_in_the_way(scene: Scene, slot: int, state: str) -> None:
    put_run(scene, slot, state)

    assert await tick(scene, firing(slot, job(slot), overlap="skip")) == [Ticked(DONE, 1, 0, ())]

    assert schedule(scene)["j"] == f"s:{slot}"


async def test_a_run_whose_record_is_gone_is_not_in_the_way(scene: Scene, slot: int) -> None:
    put_schedule(scene, "s", slot, j="gone")

    assert await tick(scene, firing(slot, job(slot), overlap="skip")) == [Ticked(DONE, 1, 0, ())]


async def test_a_number_of_runs_may_be_there_at_once(scene: Scene, slot: int) -> None:
    put_run(scene, slot, "r")
    jobs = (job(slot - 2), job(slot - 1), job(slot))

    answer = await tick(scene, firing(slot, *jobs, overlap="skip", limit=3))

    assert answer == [Ticked(DONE, 2, 1, ())]
    assert schedule(scene)["j"] == f"earlier s:{slot - 2} s:{slot - 1}"


async def test_a_fire_that_waits_stays_due_and_is_seen_again(scene: Scene, slot: int) -> None:
    put_run(scene, slot, "r")

    answer = await tick(scene, firing(slot, job(slot), overlap="wait", left_out=2))

    # Then nothing is decided yet
    assert answer == [Ticked(WAITS, 0, 0, ("earlier",))]
    stored = schedule(scene)
    assert (stored["n"], stored["w"]) == (str(slot), "1")
    assert not {"c", "k", "l"} & stored.keys()
    assert scene.state()["schedules"] == {"s": scene.about_now()}
    # And when the run has ended, it is
    scene.put_job("earlier", "s")
    assert await tick(scene, firing(slot, job(slot), overlap="wait", left_out=2)) == [
        Ticked(DONE, 1, 2, ())
    ]
    assert "w" not in schedule(scene)


async def test_of_many_fires_that_run_one_by_one_the_first_is_made(scene: Scene, slot: int) -> None:
    put_schedule(scene, "s", slot - 2)
    jobs = (job(slot - 2), job(slot - 1), job(slot))

    answer = await tick(scene, firing(slot - 2, *jobs, overlap="wait"))

    assert answer == [Ticked(WAITS, 1, 0, (f"s:{slot - 2}",))]
    assert schedule(scene)["n"] == str(slot - 1)
    assert scene.lane().waiting == [f"s:{slot - 2}"]


async def test_who_cancels_the_previous_run_is_told_which(scene: Scene, slot: int) -> None:
    put_run(scene, slot, "r")
    before = scene.state()

    answer = await tick(scene, firing(slot, job(slot), overlap="cancel"))

    assert answer == [Ticked(CANCEL, 0, 0, ("earlier",))]
    assert scene.state() == before


@pytest.mark.parametrize("overlap", ["allow", "skip", "wait", "cancel"])
async def test_without_an_earlier_run_every_way_fires(
    scene: Scene, slot: int, overlap: Overlap
) -> None:
    answer = await tick(scene, firing(slot, job(slot), overlap=overlap))

    assert answer == [Ticked(DONE, 1, 0, ())]


# ----------------------------------------------------------------------------------- a full server


async def test_a_full_server_takes_no_fire_and_loses_none(alone: Scene) -> None:
    alone.look.hset(alone.keys.leader, mapping={"o": "leader", "t": 3, "b": 7, "s": 1000})
    slot = alone.now() - 1_000
    put_schedule(alone, "s", slot)
    before = alone.state()
    alone.look.config_set("maxmemory", 1)

    with pytest.raises(ConnectionError, match="maxmemory"):
        await tick(alone, firing(slot, job(slot)))

    assert alone.state() == before
    alone.look.config_set("maxmemory", 0)
    assert await tick(alone, firing(slot, job(slot))) == [Ticked(DONE, 1, 0, ())]


# ---------------------------------------------------------------------------------- what is due


async def test_what_fires_soon_is_listed_with_what_it_is_computed_from(
    scene: Scene, slot: int
) -> None:
    put_schedule(scene, "soon", slot + 2_500, l=slot - 5, w=1)
    put_schedule(scene, "later", slot + 10 * MINUTE)
    before = scene.state()

    now, beyond, rows = await scene.schedules.due(2_000, 10)

    assert About(scene.now()) == now
    assert beyond == pytest.approx(600, abs=3)
    assert [tuple(row) for row in rows] == [
        ("s", "rev", slot, None, False),
        ("soon", "rev", slot + 2_500, slot - 5, True),
    ]
    assert scene.state() == before


async def test_more_than_the_limit_is_due_at_once(scene: Scene, slot: int) -> None:
    for n in range(5):
        put_schedule(scene, f"s{n}", slot + n)

    _, beyond, rows = await scene.schedules.due(2_000, 3)

    assert beyond == 0.0
    assert len(rows) == 3


async def test_what_is_listed_and_is_no_schedule_is_listed_no_more(scene: Scene, slot: int) -> None:
    # Given keys that another program deleted and replaced
    scene.look.zadd(scene.keys.schedules, {"gone": 1, "other": 2})
    scene.look.set(scene.keys.schedule_prefix + "other", "text")

    _, _, rows = await scene.schedules.due(2_000, 10)

    assert [row.id for row in rows] == ["s"]
    assert scene.state()["schedules"] == {"s": slot}
    scene.look.zadd(scene.keys.schedules, {"other": 2})
    assert list((await scene.schedules.page()).found) == ["s"]


async def test_paused_schedules_are_never_due(scene: Scene) -> None:
    scene.look.zadd(scene.keys.schedules, {"s": "inf"})

    assert (await scene.schedules.due(2_000, 10))[1:] == (None, [])


async def test_large_fires_travel_in_calls_of_bounded_bytes(scene: Scene, slot: int) -> None:
    names = [f"s{n}" for n in range(6)]
    for name in names:
        put_schedule(scene, name, slot)
    send, sent = scene.client.script, []

    async def counting(script: Any, keys: tuple[str, ...], *args: Any) -> Any:
        sent.append(sum(len(arg) for arg in args if isinstance(arg, bytes) and len(arg) > 100))
        return await send(script, keys, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.client, "script", counting)
        large = [
            firing(slot, FiringJob(slot, slot, f"{name}:1", b"x" * 1_500_000), id=name)
            for name in names
        ]
        ticked = await tick(scene, *large)

    assert [answer.code for answer in ticked] == [DONE] * 6
    assert sent == [3_000_000] * 3
    assert sorted(scene.lane().waiting) == [f"{name}:1" for name in names]

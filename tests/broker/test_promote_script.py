"""`promote.lua` through `Upkeep`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.scripts import FAILURE_TTL, GRACE, LANE, About, Kept, Lane, Scene, without

RECORD = FAILURE_TTL / 1000


def fields(state: str, **more: Any) -> dict[str, Any]:
    return {"e": b"envelope", "s": state, "q": LANE, "t": 1000} | more


def expired(scene: Scene, **more: Any) -> Kept:
    given = fields("x", E=b"", f=scene.about_now(), l=FAILURE_TTL)
    return Kept(given | more, About(FAILURE_TTL + GRACE))


async def promote(scene: Scene, limit: int = 100) -> tuple[int, float | None]:
    return await scene.upkeep.promote(limit, RECORD)


# ------------------------------------------------------------------------------------- due jobs


async def test_a_due_job_is_queued_in_its_lane(scene: Scene) -> None:
    due = scene.now() + 60_000
    scene.put_due("a", due, "images/7")
    before = scene.state()
    scene.later(61)

    assert await promote(scene) == (1, None)

    assert scene.state() == without(before, "due") | {
        "j:a": fields("q", q="images/7", d=due),
        "q:images/7": Lane(waiting=["a"]),
        "lanes": {"images": "7"},
    }


async def test_promoting_again_does_nothing(scene: Scene) -> None:
    scene.put_due("a", scene.now() - 1)
    await promote(scene)
    before = scene.state()

    assert await promote(scene) == (0, None)

    assert scene.state() == before


async def test_a_job_that_is_not_due_stays_and_tells_how_long(scene: Scene) -> None:
    scene.put_due("a", scene.now() + 60_000)
    before = scene.state()

    moved, wait = await promote(scene)

    assert moved == 0
    assert wait is not None
    assert 58 <= wait <= 60
    assert scene.state() == before


async def test_a_job_is_due_at_its_millisecond_and_not_before(scene: Scene) -> None:
    due = scene.now() + 60_000
    scene.put_due("a", due)
    scene.later(59)

    assert (await promote(scene))[0] == 0
    scene.later(1)
    assert (await promote(scene))[0] == 1


async def test_the_wait_is_until_the_next_of_those_left(scene: Scene) -> None:
    for n, seconds in enumerate((-5, 120, 600)):
        scene.put_due(f"j{n}", scene.now() + seconds * 1000)

    moved, wait = await promote(scene)

    assert moved == 1
    assert wait is not None
    assert 118 <= wait <= 120


async def test_jobs_are_queued_in_the_order_they_were_due(scene: Scene) -> None:
    first = scene.now() - 10_000
    for n in (3, 1, 2, 0):
        scene.put_due(f"j{n}", first + n)

    await promote(scene)

    assert scene.lane().waiting == ["j0", "j1", "j2", "j3"]


async def test_no_more_than_the_limit_are_moved(scene: Scene) -> None:
    for n in range(5):
        scene.put_due(f"j{n}", scene.now() - 10_000 + n)

    assert await promote(scene, limit=3) == (3, 0.0)
    assert scene.lane().waiting == ["j0", "j1", "j2"]

    assert await promote(scene, limit=3) == (2, None)
    assert len(scene.lane().waiting) == 5


async def test_a_thousand_can_be_moved_at_once(scene: Scene) -> None:
    due = scene.now() - 1000
    with scene.look.pipeline(transaction=False) as pipeline:
        for n in range(1200):
            pipeline.hset(scene.keys.job(f"j{n}"), mapping={"e": b"e", "s": "d", "q": LANE})
            pipeline.zadd(scene.keys.due, {f"j{n}": due})
        pipeline.execute()

    assert await promote(scene, limit=1000) == (1000, 0.0)
    assert await promote(scene, limit=1000) == (200, None)


@pytest.mark.parametrize("state", ["q", "r", "s", "f", "c", "x", "w"])
async def test_a_job_that_is_not_scheduled_any_more_is_only_unlisted(
    scene: Scene, state: str
) -> None:
    scene.put_due("a", scene.now() - 1)
    scene.look.hset(scene.keys.job("a"), "s", state)
    before = scene.state()

    assert await promote(scene) == (0, None)

    assert scene.state() == without(before, "due")


async def test_a_job_nobody_knows_is_only_unlisted(scene: Scene) -> None:
    scene.look.zadd(scene.keys.due, {"a": 1})

    assert await promote(scene) == (0, None)

    assert scene.state() == {}


async def test_idle_workers_of_the_queue_are_woken(scene: Scene) -> None:
    scene.put_due("a", scene.now() - 1)
    scene.put_due("b", scene.now() - 1)
    scene.look.sadd(scene.keys.idle + "default", "w1", "w2", "w3")
    listener = scene.listen()

    await promote(scene)

    heard = listener.messages()
    assert len(heard) == 2
    assert {message for _, message in heard} == {b"work"}
    assert len(scene.state()["idle:default"]) == 1


# ------------------------------------------------------------------------------------- expiring


@pytest.mark.parametrize("state", ["d", "q"])
async def test_a_job_that_waited_past_its_expiry_is_expired(scene: Scene, state: str) -> None:
    at = scene.now() + 60_000
    if state == "d":
        scene.put_due("a", scene.now() + 600_000, n="c1")
    else:
        scene.put_queued("a", n="c1")
    scene.put_expiry("a", at)
    before, kept = scene.state(), scene.job("a")
    listener = scene.listen()
    scene.later(61)

    assert await promote(scene) == (0, None)

    # The entry of a queued one stays: the fetch that meets it drops it.
    given = {name: kept[name] for name in kept if name in "dxn"}
    assert scene.state() == without(before, "due", "expiry") | {"j:a": expired(scene, **given)}
    assert listener.messages() == [("done:c1", b"a\nx\n")]


async def test_a_job_whose_expiry_and_due_time_have_both_passed_is_expired(scene: Scene) -> None:
    scene.put_due("a", scene.now() - 1000)
    scene.put_expiry("a", scene.now() - 500)

    assert await promote(scene) == (0, None)

    assert scene.job("a")["s"] == "x"
    assert "lanes" not in scene.state()


async def test_a_running_job_has_started_in_time(scene: Scene) -> None:
    scene.put_running("a")
    scene.put_expiry("a", scene.now() - 1)
    before = scene.state()

    assert await promote(scene) == (0, None)

    assert scene.state() == without(before, "expiry")


@pytest.mark.parametrize("state", ["s", "f", "c", "x"])
async def test_a_job_that_is_over_does_not_expire(scene: Scene, state: str) -> None:
    scene.put_job("a", state)
    scene.put_expiry("a", scene.now() - 1)
    before = scene.state()

    await promote(scene)

    assert scene.state() == without(before, "expiry")


@pytest.mark.parametrize(("due", "expiry", "wait"), [(90, 30, 30), (30, 90, 30), (None, 40, 40)])
async def test_the_wait_is_also_until_the_next_expiry(
    scene: Scene, due: int | None, expiry: int, wait: int
) -> None:
    scene.put_queued("a")
    scene.put_expiry("a", scene.now() + expiry * 1000)
    if due is not None:
        scene.put_due("b", scene.now() + due * 1000)

    moved, seconds = await promote(scene)

    assert moved == 0
    assert seconds is not None
    assert wait - 2 <= seconds <= wait


async def test_no_more_than_the_limit_are_expired_at_once(scene: Scene) -> None:
    for n in range(5):
        scene.put_queued(f"j{n}")
        scene.put_expiry(f"j{n}", scene.now() - 10_000 + n)

    assert await promote(scene, limit=3) == (0, 0.0)

    assert set(scene.state()["expiry"]) == {"j3", "j4"}


async def test_a_record_nobody_keeps_leaves_nothing(scene: Scene) -> None:
    scene.put_due("a", scene.now() + 600_000)
    scene.put_expiry("a", scene.now() - 1)

    assert await scene.upkeep.promote(100, 0.0) == (0, None)

    assert scene.state() == {}


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    scene.put_due("a", scene.now() - 1)
    scene.look.script_flush()

    assert await promote(scene) == (1, None)

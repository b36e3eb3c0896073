"""`cancel.lua` through `Jobs`."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.redis.connection import ConnectionLost
from tests.support.scripts import FAILURE_TTL, GRACE, LANE, About, Kept, Lane, Scene, without


def cancelled(scene: Scene, **more: Any) -> Kept:
    given = {"e": b"envelope", "s": "c", "q": LANE, "t": 1000, "E": b""}
    times = {"f": scene.about_now(), "l": FAILURE_TTL}
    return Kept(given | times | more, About(FAILURE_TTL + GRACE))


async def test_a_scheduled_job_never_runs(scene: Scene) -> None:
    due, at = scene.now() + 60_000, scene.now() + 90_000
    scene.put_due("a", due, n="c1 c2")
    scene.put_expiry("a", at)
    listener = scene.listen()

    assert await scene.jobs.cancel("a") == 1

    assert scene.state() == {"j:a": cancelled(scene, d=due, x=at, n="c1 c2")}
    assert listener.messages() == [("done:c1", b"a\nc\n"), ("done:c2", b"a\nc\n")]
    scene.later(61)
    assert await scene.upkeep.promote(100, 1.0) == (0, None)


async def test_a_queued_job_never_runs(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_queued("a")
    before = scene.state()

    assert await scene.jobs.cancel("a") == 1

    # Its entry stays: the fetch that meets it drops it.
    assert scene.state() == before | {"j:a": cancelled(scene)}
    assert await consumer.fetch(5, ["default"]) == []
    assert scene.lane() == Lane()


async def test_a_waiting_job_never_runs(scene: Scene) -> None:
    scene.put_job("a", "w")

    assert await scene.jobs.cancel("a") == 1

    assert scene.state() == {"j:a": cancelled(scene)}


async def test_the_worker_of_a_running_job_is_asked(scene: Scene) -> None:
    scene.put_running("a")
    before = scene.state()
    listener = scene.listen()

    assert await scene.jobs.cancel("a") == 2

    assert scene.state() == before | {
        "j:a": scene.job("a") | {"s": "r", "z": 1},
        "cancels:w1": Kept({"a"}, About(86_400_000)),
    }
    assert listener.messages() == [("wake:w1", b"cancel a")]


async def test_asking_again_asks_again(scene: Scene) -> None:
    scene.put_running("a")
    await scene.jobs.cancel("a")
    before = scene.state()

    assert await scene.jobs.cancel("a") == 2

    assert scene.state() == before


@pytest.mark.parametrize("state", ["s", "f", "c", "x"])
async def test_a_job_that_is_over_stays_as_it_ended(scene: Scene, state: str) -> None:
    scene.put_job("a", state)
    before = scene.state()

    assert await scene.jobs.cancel("a") == 0

    assert scene.state() == before


async def test_a_job_nobody_knows_is_answered_so(scene: Scene) -> None:
    assert await scene.jobs.cancel("a") == -1

    assert scene.state() == {}


async def test_who_cancelled_a_job_is_told_so_even_if_the_answer_was_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put_queued("a")
    script, calls = scene.client.script, []

    async def loses_the_first_reply(*args: Any) -> Any:
        answer = await script(*args)
        calls.append(answer)
        if len(calls) == 1:
            raise ConnectionLost("lost on the way back")
        return answer

    monkeypatch.setattr(scene.client, "script", loses_the_first_reply)

    assert await scene.jobs.cancel("a") == 1
    assert len(calls) == 2


async def test_the_wish_survives_a_retry(scene: Scene) -> None:
    """It is written to the job: who ends the attempt meets it, however late."""
    scene.put_running("a")
    await scene.jobs.cancel("a")

    beat = await scene.leases.beat("w1", b"who")

    assert beat is not None
    assert beat.cancels == ("a",)
    assert scene.job("a")["z"] == 1


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    scene.put_queued("a")
    scene.look.script_flush()

    assert await scene.jobs.cancel("a") == 1


async def test_other_jobs_are_left_alone(scene: Scene) -> None:
    scene.put_due("a", scene.now() + 60_000)
    scene.put_due("b", scene.now() + 60_000)
    before = scene.state()

    await scene.jobs.cancel("a")

    assert without(scene.state(), "j:a", "due") == without(before, "j:a", "due")
    assert set(scene.state()["due"]) == {"b"}

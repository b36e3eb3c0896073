"""`progress.lua` through `Consumer`."""

from __future__ import annotations

import pytest

from tests.support.scripts import Scene


async def test_progress_is_written_to_the_job(scene: Scene) -> None:
    consumer = await scene.consumer()
    job = scene.put_running("a")
    before = scene.state()

    assert await consumer.progress("a", job.attempt, b"\xc0half")

    assert scene.state() == before | {"j:a": scene.job("a") | {"p": b"\xc0half"}}
    assert scene.job("a")["p"] == b"\xc0half"


async def test_the_last_report_counts(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_running("a")

    for report in (b"1", b"2", b"2"):
        assert await consumer.progress("a", 1, report)

    assert scene.job("a")["p"] == b"2"


@pytest.mark.parametrize(
    ("attempt", "worker", "state"), [(1, "w1", "r"), (2, "w2", "r"), (2, "w1", "q"), (2, "w1", "s")]
)
async def test_an_attempt_that_lost_its_job_changes_nothing(
    scene: Scene, attempt: int, worker: str, state: str
) -> None:
    consumer = await scene.consumer()
    scene.put_running("a", worker, a=2)
    scene.look.hset(scene.keys.job("a"), "s", state)
    before = scene.state()

    assert not await consumer.progress("a", attempt, b"report")

    assert scene.state() == before


async def test_a_job_nobody_knows_is_not_made(scene: Scene) -> None:
    consumer = await scene.consumer()
    before = scene.state()

    assert not await consumer.progress("a", 1, b"report")

    assert scene.state() == before


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    consumer = await scene.consumer()
    scene.put_running("a")
    scene.look.script_flush()

    assert await consumer.progress("a", 1, b"report")

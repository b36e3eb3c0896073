"""A server without memory left: it takes no more jobs, and its workers empty it."""

from __future__ import annotations

import asyncio
import time

import pytest

from taskq.core.errors import QueueFull
from taskq.core.job import Ending, JobState
from tests.support.scripts import Lane, Scene, frame, job
from tests.support.waiting import eventually


def fill(scene: Scene) -> None:
    """Leave no memory for anything more."""
    scene.look.config_set("maxmemory", 1)


@pytest.mark.faults
async def test_a_full_server_takes_no_job_and_says_so_at_once(alone: Scene) -> None:
    await alone.producer.add(job("a"))
    before = alone.state()
    fill(alone)
    began = time.monotonic()

    with pytest.raises(QueueFull, match="maxmemory and takes no more jobs"):
        await alone.producer.add_many([job("b"), job("c", when="+1000")])

    assert time.monotonic() - began < 3.0
    assert alone.state() == before
    alone.look.config_set("maxmemory", 0)
    assert await alone.producer.add(job("b"))


@pytest.mark.faults
async def test_what_was_enqueued_before_the_server_was_full_is_acknowledged(
    alone: Scene,
) -> None:
    """Its reply was lost, and it is sent again."""
    await alone.producer.add(job("a"))
    fill(alone)
    alone.producer._number = 0

    assert await alone.producer.add(job("a"))


@pytest.mark.faults
async def test_a_full_server_is_emptied_by_its_workers(alone: Scene) -> None:
    for n in range(30):
        await alone.producer.add(job(f"j{n}", when="+1000" if n % 3 == 0 else ""))
    await alone.producer.add(job("late", expires="+500"))
    fill(alone)
    alone.later(2)

    # A worker comes, promotes, fetches, reports, ends jobs in all ways, and another dies.
    assert await alone.leases.register("w1", b"who", 1, ["default"]) is not None
    assert await alone.leases.register("w2", b"who", 1, ["default"]) is not None
    assert (await alone.upkeep.promote(100, 60.0))[0] == 10
    one = await alone.consumer("w1", register=False)
    two = await alone.consumer("w2", register=False)
    jobs = await one.fetch(20, ["default"])
    lost = await two.fetch(100, ["default"])
    assert len(jobs) + len(lost) == 30
    assert await one.progress(jobs[0].id, 1, b"half")
    assert await alone.jobs.cancel(jobs[1].id) == 2
    assert [ending.state for ending in await alone.waiting.look([jobs[0].id])] == [JobState.RUNNING]
    kinds = [*"SFRB", "B", *"S" * 15]
    frames = [frame(kind, held, b"x", count=1) for kind, held in zip(kinds, jobs, strict=True)]
    assert await one.finish(frames) == [1] * 20
    assert (await alone.leases.reap("w2", alone.policy)) is not None
    assert await alone.leases.beat("w1", b"who") is not None

    # Until nothing is left.
    while jobs := await one.fetch(50, ["default"]):
        assert await one.finish([frame("S", held, b"r", ttl=0) for held in jobs]) == [1] * len(jobs)
    alone.look.config_set("maxmemory", 0)
    assert alone.lane() == Lane()
    assert alone.state()["lanes"] == {"default": "5"}


@pytest.mark.faults
async def test_results_are_waited_for_on_a_full_server(alone: Scene) -> None:
    consumer = await alone.consumer()
    held = alone.put_running("a")
    fill(alone)
    waiter = asyncio.ensure_future(alone.waiting.until_over("a"))
    await eventually(lambda: "n" in alone.job("a"))

    await consumer.finish([frame("S", held, b"result")])

    assert await asyncio.wait_for(waiter, 3) == Ending(JobState.SUCCEEDED, b"result")


@pytest.mark.faults
async def test_an_idle_worker_parks_on_a_full_server(alone: Scene) -> None:
    consumer = await alone.consumer()
    fill(alone)

    assert await consumer.fetch(1, ["default"]) == []

    assert alone.state()["idle:default"].value == {"w1"}

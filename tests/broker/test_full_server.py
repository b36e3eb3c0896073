"""A server without memory left: it takes no more jobs, and its workers empty it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from taskq.core.errors import QueueFull
from taskq.core.job import Ending
from taskq.core.state import JobState
from tests.support.scripts import LANE, Lane, Scene, frame, job
from tests.support.server import TestServer
from tests.support.waiting import eventually


class FullServer:
    """A server that is filled to its limit with jobs."""

    def __init__(self, server: TestServer) -> None:
        self.look = redis.Redis(unix_socket_path=str(server.socket))
        self.scene = Scene(self.look, str(server.socket), "full")

    def fill(self) -> None:
        self.look.config_set("maxmemory", 1)


@pytest.fixture
async def full(own_server: Callable[..., TestServer]) -> AsyncIterator[FullServer]:
    full = FullServer(own_server("--maxmemory-policy", "noeviction"))
    yield full
    full.look.config_set("maxmemory", 0)
    await full.scene.aclose()
    full.look.close()


@pytest.mark.faults
async def test_a_full_server_takes_no_job_and_says_so_at_once(full: FullServer) -> None:
    scene = full.scene
    await scene.producer.add(job("a"))
    before = scene.state()
    full.fill()
    began = time.monotonic()

    with pytest.raises(QueueFull, match="maxmemory and takes no more jobs"):
        await scene.producer.add_many([job("b"), job("c", when="+1000")])

    assert time.monotonic() - began < 1.0
    assert scene.state() == before
    full.look.config_set("maxmemory", 0)
    assert await scene.producer.add(job("b"))


@pytest.mark.faults
async def test_what_was_enqueued_before_the_server_was_full_is_acknowledged(
    full: FullServer,
) -> None:
    """Its reply was lost, and it is sent again."""
    scene = full.scene
    await scene.producer.add(job("a"))
    full.fill()
    scene.producer._number = 0

    assert await scene.producer.add(job("a"))


@pytest.mark.faults
async def test_a_full_server_is_emptied_by_its_workers(full: FullServer) -> None:
    scene = full.scene
    for n in range(30):
        await scene.producer.add(job(f"j{n}", when="+1000" if n % 3 == 0 else ""))
    await scene.producer.add(job("late", expires="+500"))
    full.fill()
    scene.later(2)

    # A worker comes, promotes, fetches, reports, ends jobs in all ways, and another dies.
    assert await scene.leases.beat("w1", b"who", register=True) is not None
    assert await scene.leases.beat("w2", b"who", register=True) is not None
    assert (await scene.upkeep.promote(100, 60.0))[0] == 10
    one = await scene.consumer("w1", register=False)
    two = await scene.consumer("w2", register=False)
    jobs = await one.fetch(20, ["default"])
    lost = await two.fetch(100, ["default"])
    assert len(jobs) + len(lost) == 30
    assert await one.progress(jobs[0].id, 1, b"half")
    assert await scene.jobs.cancel(jobs[1].id) == 2
    assert [ending.state for ending in await scene.waiting.look([jobs[0].id])] == [JobState.RUNNING]
    kinds = [*"SFRB", "B", *"S" * 15]
    frames = [frame(kind, held, b"x", count=1) for kind, held in zip(kinds, jobs, strict=True)]
    assert await one.finish(frames) == [1] * 20
    assert (await scene.leases.reap("w2", scene.policy)) is not None
    assert await scene.leases.beat("w1", b"who") is not None

    # Until nothing is left.
    while jobs := await one.fetch(50, ["default"]):
        assert await one.finish([frame("S", held, b"r", ttl=0) for held in jobs]) == [1] * len(jobs)
    full.look.config_set("maxmemory", 0)
    assert scene.lane() == Lane()
    assert scene.state()["lanes"] == {LANE}


@pytest.mark.faults
async def test_results_are_waited_for_on_a_full_server(full: FullServer) -> None:
    scene = full.scene
    consumer = await scene.consumer()
    held = scene.put_running("a")
    full.fill()
    waiter = asyncio.ensure_future(scene.waiting.until_over("a"))
    await eventually(lambda: "n" in scene.job("a"))

    await consumer.finish([frame("S", held, b"result")])

    assert await asyncio.wait_for(waiter, 3) == Ending(JobState.SUCCEEDED, b"result")


@pytest.mark.faults
async def test_an_idle_worker_parks_on_a_full_server(full: FullServer) -> None:
    scene = full.scene
    consumer = await scene.consumer()
    full.fill()

    assert await consumer.fetch(1, ["default"]) == []

    assert scene.state()["idle:default"].value == {"w1"}

"""What the server may lose, and what a job costs it."""

from __future__ import annotations

import pytest

from taskq.broker.scripts import script
from taskq.codec.envelope import pack_envelope
from taskq.codec.payload import encode_call
from taskq.core.ids import new_id
from tests.support.scripts import Lane, Scene, frame, job
from tests.support.waiting import eventually


@pytest.mark.faults
async def test_the_server_may_forget_its_scripts_at_any_time(alone: Scene) -> None:
    consumer = await alone.consumer()
    for n in range(20):
        alone.look.script_flush()
        assert await alone.producer.add(job(f"j{n}"))
        alone.look.script_flush()
        [held] = await consumer.fetch(1, ["default"])
        alone.look.script_flush()
        assert await consumer.finish([frame("S", held, b"r", ttl=0)]) == [1]
    assert alone.lane() == Lane()
    assert alone.look.script_exists(script("enqueue").sha) == [False]


async def test_a_queued_job_costs_little_memory(alone: Scene) -> None:
    envelope = pack_envelope("app.tasks.add", encode_call((1, 2), {}))
    await alone.producer.add(job("first"))
    before = alone.look.info("memory")["used_memory"]
    # Redis 8 spends some 50 bytes more on every key than its predecessors and Valkey.
    limit = 300 if alone.look.info("server")["redis_version"].startswith("8") else 250

    await alone.producer.add_many([job(new_id(), envelope=envelope) for _ in range(5000)])

    # What the request itself needed is freed a little later.
    each = await eventually(
        lambda: bytes_each(alone, before) < limit and bytes_each(alone, before), within=15
    )
    assert each > 60


def bytes_each(scene: Scene, before: int) -> float:
    return (scene.look.info("memory")["used_memory"] - before) / 5000

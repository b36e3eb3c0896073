"""What the server may lose, and what a job costs it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from taskq.broker.scripts import script
from taskq.core.envelope import pack_envelope
from taskq.core.ids import new_id
from taskq.core.payload import encode_call
from tests.support.scripts import Lane, Scene, frame, job
from tests.support.server import TestServer


@pytest.mark.faults
async def test_the_server_may_forget_its_scripts_at_any_time(
    own_server: Callable[..., TestServer],
) -> None:
    server = own_server()
    look = redis.Redis(unix_socket_path=str(server.socket))
    scene = Scene(look, str(server.socket), "t")
    consumer = await scene.consumer()
    for n in range(20):
        look.script_flush()
        assert await scene.producer.add(job(f"j{n}"))
        look.script_flush()
        [held] = await consumer.fetch(1, ["default"])
        look.script_flush()
        assert await consumer.finish([frame("S", held, b"r", ttl=0)]) == [1]
    assert scene.lane() == Lane()
    assert look.script_exists(script("enqueue").sha) == [False]
    await scene.aclose()
    look.close()


async def test_a_queued_job_costs_little_memory(own_server: Callable[..., TestServer]) -> None:
    server = own_server()
    look = redis.Redis(unix_socket_path=str(server.socket))
    scene = Scene(look, str(server.socket), "t")
    envelope = pack_envelope("app.tasks.add", encode_call((1, 2), {}))
    await scene.producer.add(job("first"))
    before = look.info("memory")["used_memory"]

    await scene.producer.add_many([job(new_id(), envelope=envelope) for _ in range(5000)])

    each = (look.info("memory")["used_memory"] - before) / 5000
    # Redis 8 spends some 50 bytes more on every key than its predecessors and Valkey.
    limit = 300 if look.info("server")["redis_version"].startswith("8") else 250
    assert 60 < each < limit
    await scene.aclose()
    look.close()

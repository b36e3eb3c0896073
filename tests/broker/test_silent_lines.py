"""A reply that is owed: a dead line is left, another server found, and a slow one waited for.

These run with the times that users have: nothing is sped up.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from taskq import TaskQ
from taskq.broker.producer import Producer
from taskq.redis.client import Client
from taskq.redis.url import Address
from tests.support.proxy import Proxy
from tests.support.scripts import Scene, job
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.own_user]


@pytest.fixture
async def patient(proxy: Proxy) -> AsyncIterator[Client]:
    """A client behind the proxy, with the timeouts of every client."""
    client = Client(proxy.locate)
    await client.command("PING")
    yield client
    await client.aclose()


async def test_a_dead_line_to_a_server_that_answers_elsewhere_is_left_soon(
    proxy: Proxy, patient: Client, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.half_open()
    began = time.monotonic()

    with pytest.raises(ConnectionError):
        await patient.command("PING")
    assert await patient.command("ECHO", "back") == b"back"

    # Two looks and a probe, where the reply timeout is 10 s
    assert time.monotonic() - began < 5
    assert "while the server answers on a new one" in caplog.text


async def test_a_new_server_is_found_while_the_old_one_hangs(
    own_server: Callable[..., TestServer],
) -> None:
    old, new = own_server(), own_server()
    now = old.address

    async def locate() -> Address:
        return now

    client = Client(locate)
    await client.command("PING")
    assert old.process is not None
    old.process.send_signal(signal.SIGSTOP)
    asking = asyncio.ensure_future(client.command("ECHO", "x"))
    began = time.monotonic()
    await asyncio.sleep(0)
    now = new.address

    with pytest.raises(ConnectionError):
        await asking
    assert await client.command("ECHO", "new") == b"new"

    assert time.monotonic() - began < 5
    assert client.address == new.address
    old.process.send_signal(signal.SIGCONT)
    await client.aclose()


@pytest.mark.parametrize("how", ["ALL", "WRITE", "SIGSTOP"])
async def test_a_server_that_is_slow_keeps_its_connection(
    own_server: Callable[..., TestServer], how: str
) -> None:
    server = own_server()
    async with Proxy(server.socket) as proxy:
        client = Client(proxy.locate)
        scene_keys = Scene(redis.Redis(unix_socket_path=str(server.socket)), server.address, "t")
        producer = Producer(client, scene_keys.keys, scene_keys.offset)
        await producer.add(job("first"))
        connection = client._connection
        # Given a pause of several doubts, in which nothing or no write is answered
        process = server.process
        assert process is not None
        if how == "SIGSTOP":
            process.send_signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(4, process.send_signal, signal.SIGCONT)
        else:
            await scene_keys.client.command("CLIENT", "PAUSE", 4_000, how)

        assert await producer.add(job("a"))

        assert client._connection is connection
        assert proxy.accepted > 1, "nothing was doubted"
        await client.aclose()
        await scene_keys.aclose()
        scene_keys.look.close()


async def test_a_large_request_on_a_slow_line_is_waited_for(
    proxy: Proxy, patient: Client, scene: Scene
) -> None:
    connection = patient._connection
    producer = Producer(patient, scene.keys, scene.offset, deadline=30.0)
    await producer.add(job("first"))
    # It takes four seconds, and a probe is answered meanwhile
    proxy.delay = 0.3

    assert await producer.add(job("a", envelope=b"x" * 800_000))

    assert proxy.accepted > 1, "nothing was doubted"
    assert patient._connection is connection


# ------------------------------------------------------------------------- replies that do not fit


async def test_a_worker_that_cannot_read_what_it_fetched_says_so(
    own_server: Callable[..., TestServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server()
    with redis.Redis(unix_socket_path=str(server.socket)) as look:
        look.config_set("client-output-buffer-limit", "pubsub 204800 0 0")
    q = TaskQ(server.url)

    @q.task(name="take")
    async def take(text: str) -> int:
        return len(text)

    await take.enqueue("x" * 500_000)
    caplog.set_level(logging.ERROR)
    async with q.worker():
        await eventually(lambda: "client-output-buffer-limit" in caplog.text, within=20)

    assert f"{server.url} closed the connection 3 times with replies outstanding" in caplog.text
    assert "CONFIG SET client-output-buffer-limit 'pubsub 33554432 8388608 60'" in caplog.text

    # And as soon as it may be read, it runs
    with redis.Redis(unix_socket_path=str(server.socket)) as look:
        look.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")
    assert await q.run_until_empty() == 1
    await q.aclose()


async def test_a_server_that_closes_connections_for_other_reasons_is_not_accused(
    proxy: Proxy, patient: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        proxy.lose_reply(b"ECHO")
        with pytest.raises(ConnectionError):
            await patient.command("ECHO", "x")
    await patient.command("PING")

    assert "client-output-buffer-limit" not in caplog.text

"""A scene of its own for each test of a script, and lines that fail for tests of the client."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis

from taskq import TaskQ
from taskq.broker.producer import Producer
from taskq.redis.client import Client
from tests.support.leaks import remove_keys
from tests.support.proxy import Proxy
from tests.support.scripts import Scene, job
from tests.support.server import TestServer


@pytest.fixture(scope="session", autouse=True)
def what_was_imported_is_not_collected() -> None:
    """Every test ends with a collection: let it look at the test's own objects only."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def scene(server: TestServer, namespace: str, look: redis.Redis) -> AsyncIterator[Scene]:
    scene = Scene(look, server.address, namespace)
    yield scene
    await scene.aclose()


@pytest.fixture
async def alone(own_server: Callable[..., TestServer]) -> AsyncIterator[Scene]:
    """A scene on a server of its own, which may be filled and emptied."""
    server = own_server("--maxmemory-policy", "noeviction")
    look = redis.Redis(unix_socket_path=str(server.socket))
    scene = Scene(look, server.address, "alone")
    yield scene
    look.config_set("maxmemory", 0)
    await scene.aclose()
    look.close()


@pytest.fixture
async def proxy(server: TestServer) -> AsyncIterator[Proxy]:
    """The shared server behind a line that fails on demand."""
    async with Proxy(server.socket, server.as_user) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    """A client whose every byte goes through the proxy."""
    client = Client(proxy.locate, reply_timeout=0.6, connect_timeout=0.6)
    yield client
    await client.aclose()


@pytest.fixture
async def producer(client: Client, scene: Scene) -> Producer:
    """A producer behind the proxy, on a server that knows the script and has one job."""
    await scene.producer.add(job("first"))
    return Producer(client, scene.keys, scene.offset, deadline=20.0)


@pytest.fixture
def own_server() -> Iterator[Callable[..., TestServer]]:
    """Servers of the test's own, to be stopped and reconfigured."""
    servers: list[TestServer] = []

    def start(*options: str) -> TestServer:
        servers.append(TestServer(*options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def clean(look: redis.Redis, namespace: str, q: TaskQ) -> Iterator[None]:
    """Schedules and foreign keys have no TTL: what a test leaves of them goes with it."""
    yield
    del q
    remove_keys(look, namespace)

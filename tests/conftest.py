"""Fixtures every test shares: a real server, a namespace of its own, and checks of what is left."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis
import redis.asyncio

from taskq import TaskQ
from tests.support.leaks import children, keys_left, open_sockets, tasks_left
from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

_TESTS = Path(__file__).parent


def pytest_configure() -> None:
    # What the tests start is what a user without these variables gets, here as in CI.
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        if name not in ("PYTHONPATH", "PYTHONHOME"):
            del os.environ[name]
    # In the background of a shell, and below nohup, these are ignored, also by whatever is started.
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(signum) is signal.SIG_IGN:
            own = signal.default_int_handler if signum is signal.SIGINT else signal.SIG_DFL
            signal.signal(signum, own)
    # How long an example takes depends on what else the machine does.
    if find_spec("hypothesis") is not None:
        from hypothesis import settings

        settings.register_profile("any machine", deadline=None)
        settings.load_profile("any machine")


_WHOLE = {"conformance", "docs", "examples", "faults", "fuzz", "model", "typing"}
"""Folders of tests that follow users, kill processes or compare: what they reach is an accident."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tracing doubles the time of a test: only those count that are about the code they reach."""
    for item in items:
        random = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if random or item.path.relative_to(_TESTS).parts[0] in _WHOLE:
            item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    """Every test collects garbage at its end: what was imported until now is none."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server() -> Iterator[TestServer]:
    """One server per test process. A test that stops or reconfigures one starts its own."""
    server = TestServer()
    yield server
    server.close()


@pytest.fixture
def own_server() -> Iterator[TestServer]:
    """A server that this test may empty, stop and start again."""
    server = TestServer()
    yield server
    server.close()


@pytest.fixture
def namespace() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def look(server: TestServer) -> Iterator[redis.Redis]:
    """An independent client to look at the server with."""
    client = redis.Redis(unix_socket_path=str(server.socket))
    yield client
    client.close()


@pytest.fixture
async def q(
    server: TestServer, namespace: str, request: pytest.FixtureRequest
) -> AsyncIterator[TaskQ]:
    """A TaskQ of the test's own, on the shared server; what it leaves behind fails the test."""
    app = TaskQ(server.url, namespace=namespace)
    yield app
    await app.aclose()
    await _no_tasks_left()
    if request.node.get_closest_marker("leaves_jobs") is None:
        client = redis.Redis(unix_socket_path=str(server.socket))
        left = keys_left(client, namespace)
        client.close()
        assert not left, f"keys without TTL are left: {left}"


@pytest.fixture(autouse=True)
def processes_are_traced_as_their_test_is(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting with coverage takes a process a quarter of a second."""
    if request.node.get_closest_marker("no_cover") is not None:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test leaves no child process and no socket."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server")
    before, sockets = children(), open_sockets()
    yield
    gc.collect()
    eventually_sync(lambda: children() <= before, within=5)
    eventually_sync(lambda: open_sockets() <= sockets + 1, within=5)


async def _no_tasks_left() -> None:
    for _ in range(100):
        if not tasks_left():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"asyncio tasks are left running: {tasks_left()}")

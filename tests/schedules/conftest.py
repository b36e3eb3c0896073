"""Schedules on the shared server: what a test leaves of them is removed, and nothing else."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
import redis

from taskq import TaskQ
from taskq.broker.keys import Keys
from tests.support.leaks import remove_keys
from tests.support.server import TestServer


@pytest.fixture
async def q(server: TestServer, namespace: str, look: redis.Redis) -> AsyncIterator[TaskQ]:
    """A TaskQ of the test's own. Schedules live until they are removed: here they are."""
    app = TaskQ(server.url, namespace=namespace)
    yield app
    await app.aclose()
    remove_keys(look, namespace)


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


@pytest.fixture
def now(look: redis.Redis, q: TaskQ) -> Callable[[], datetime]:
    """The server's clock, as scripts see it."""

    def read() -> datetime:
        seconds, microseconds = look.time()
        return datetime.fromtimestamp(
            seconds + microseconds / 1e6 + q._settings.offset.ms / 1e3, UTC
        )

    return read


@pytest.fixture
def later(q: TaskQ) -> Callable[[float], None]:
    """Moves the clock of everything that belongs to `q`."""

    def move(seconds: float) -> None:
        q._settings.offset.ms += int(seconds * 1000)

    return move


@pytest.fixture
def took() -> Callable[[], float]:
    """Seconds since the test began."""
    began = time.monotonic()
    return lambda: time.monotonic() - began

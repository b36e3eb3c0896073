"""Other programs on the same queue, and on a server a test may stop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskq import TaskQ
from tests.support.server import TestServer


@pytest.fixture
async def other(server: TestServer, namespace: str) -> AsyncIterator[TaskQ]:
    """Another program on the same queue: the namespace of `q`, a registry of its own."""
    app = TaskQ(server.url, namespace=namespace)
    yield app
    await app.aclose()


@pytest.fixture
async def fragile(own_server: TestServer) -> AsyncIterator[TaskQ]:
    """A TaskQ on the server of this test."""
    app = TaskQ(own_server.url, namespace="fragile")
    yield app
    await app.aclose()

"""A deferred runner without any server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskq import TaskQ


@pytest.fixture
async def alone() -> AsyncIterator[TaskQ]:
    """A TaskQ with an unreachable server; its runner is drained when the test ends."""
    app = TaskQ("redis://localhost:1")
    async with app.deferred:
        yield app

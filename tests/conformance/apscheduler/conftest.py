"""Both sides of a test: APScheduler's schedulers and a TaskQ, on the same server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import redis

from taskq import TaskQ, current_job
from tests.conformance.apscheduler.sides import RUNS, Apscheduler
from tests.support.leaks import remove_keys
from tests.support.server import TestServer


@pytest.fixture
async def aps(server: TestServer, namespace: str) -> AsyncIterator[Apscheduler]:
    RUNS.clear()
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    yield Apscheduler(server, namespace)
    # Its shutdown takes effect in a later turn of the loop.
    await asyncio.sleep(0.05)


@pytest.fixture
async def q(server: TestServer, namespace: str, look: redis.Redis) -> AsyncIterator[TaskQ]:
    app = TaskQ(server.url, namespace=namespace)
    yield app
    await app.aclose()
    remove_keys(look, namespace)


@pytest.fixture
def fires() -> list[datetime]:
    """The fire times taskq ran."""
    return []


@pytest.fixture
def task(q: TaskQ, fires: list[datetime]) -> Any:
    @q.task(name="shop.note")
    async def noted() -> None:
        slot = current_job().scheduled_for
        assert slot is not None
        fires.append(slot)

    return noted

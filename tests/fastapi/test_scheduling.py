"""Web applications that fire schedules: in several of them each fire makes one job."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from fastapi import FastAPI

from taskq import TaskQ, current_job, every
from tests.support.leaks import remove_keys
from tests.support.server import TestServer
from tests.support.serving import serving
from tests.support.waiting import eventually

pytestmark = pytest.mark.leaves_jobs


async def test_of_many_applications_one_fires(
    q: TaskQ, server: TestServer, namespace: str, tmp_path: Path, look: redis.Redis
) -> None:
    fires: list[str] = []

    def program() -> TaskQ:
        app = TaskQ(server.url, namespace=namespace)

        @app.schedule(every(seconds=0.2))
        @app.task(name="shop.tick")
        async def tick() -> None:
            fires.append(current_job().id)

        return app

    async with AsyncExitStack() as stack:
        for number in range(3):
            own = program()
            api = FastAPI(lifespan=own.lifespan(scheduler=True))
            await stack.enter_async_context(serving(api, tmp_path / f"http{number}"))
        worker = program()
        await stack.enter_async_context(worker.worker(scheduler=False))
        await eventually(lambda: len(fires) >= 6)
        await worker.aclose()

    assert Counter(fires).most_common(1)[0][1] == 1
    remove_keys(look, namespace)


async def test_an_application_fires_nothing_unless_it_is_asked_to(
    q: TaskQ, tmp_path: Path, look: redis.Redis, namespace: str
) -> None:
    @q.schedule(every(seconds=0.2))
    @q.task(name="shop.tick")
    async def tick() -> None: ...

    async with serving(FastAPI(lifespan=q.lifespan), tmp_path / "http"):
        assert look.keys(f"{{{namespace}}}:schedule*") == []
    async with q.lifespan():
        assert await q.schedules.list() == []

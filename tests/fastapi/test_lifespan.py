"""A FastAPI application: `lifespan=q.lifespan` connects at start and closes at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from starlette.background import BackgroundTask
from starlette.background import BackgroundTasks as StarletteTasks

from taskq import ConfigError, JobNotFound, ServerUnavailable, TaskQ, every
from taskq.fastapi import BackgroundTasks, lifespan
from tests.support.server import TestServer
from tests.support.serving import serving
from tests.support.waiting import eventually


def connections(look: redis.Redis, name: str = "taskq") -> int:
    return sum(client["name"] == name for client in look.client_list())


def application(q: TaskQ) -> FastAPI:
    """An application that enqueues jobs and waits for them."""
    app = FastAPI(lifespan=q.lifespan)

    @q.task(name="resize")
    async def resize(path: str, width: int = 800) -> str:
        return f"{path}-{width}"

    @app.post("/pictures/{path}")
    async def enqueue(path: str, width: int = 800) -> dict[str, str]:
        job = await resize.enqueue(path, width)
        return {"job": job.id}

    @app.get("/jobs/{job_id}")
    async def wait(job_id: str) -> dict[str, str]:
        try:
            return {"result": await q.job(job_id).result(timeout=20)}
        except JobNotFound as error:
            raise HTTPException(404, str(error)) from error

    @app.get("/jobs/{job_id}/state")
    async def state(job_id: str) -> dict[str, str]:
        return {"state": await q.job(job_id).status()}

    return app


async def test_endpoints_enqueue_and_await_results(q: TaskQ, tmp_path: Path) -> None:
    async with serving(application(q), tmp_path / "http") as client:
        answer = await client.post("/pictures/a.png", params={"width": 400})
        job = answer.json()["job"]
        assert (await client.get(f"/jobs/{job}/state")).json() == {"state": "queued"}

        async with q.worker():
            assert (await client.get(f"/jobs/{job}")).json() == {"result": "a.png-400"}

        assert (await client.get("/jobs/no-such-job")).status_code == 404


async def test_many_requests_share_one_connection(
    q: TaskQ, look: redis.Redis, tmp_path: Path
) -> None:
    before = connections(look)
    async with serving(application(q), tmp_path / "http") as client:
        async with q.worker():

            async def request(number: int) -> str:
                job = (await client.post(f"/pictures/{number}.png")).json()["job"]
                return (await client.get(f"/jobs/{job}")).json()["result"]

            results = await asyncio.gather(*(request(number) for number in range(100)))
        assert connections(look) == before + 1

    assert results == [f"{number}.png-800" for number in range(100)]


async def test_the_connection_is_opened_at_start_and_closed_at_the_end(
    q: TaskQ, look: redis.Redis, tmp_path: Path
) -> None:
    before = connections(look)

    async with serving(application(q), tmp_path / "http"):
        # Before the first request
        assert connections(look) == before + 1

    await eventually(lambda: connections(look) == before)


async def test_an_application_can_be_started_again(q: TaskQ, tmp_path: Path) -> None:
    app = application(q)
    for number in range(2):
        async with serving(app, tmp_path / f"http{number}") as client:
            assert (await client.post("/pictures/a.png")).status_code == 200
    assert await q.run_until_empty() == 2


async def test_an_application_of_ones_own_lifespan_opens_it_by_hand(
    q: TaskQ, look: redis.Redis, tmp_path: Path
) -> None:
    before = connections(look)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with q:
            yield {"mine": "too"}

    async with serving(FastAPI(lifespan=lifespan), tmp_path / "http"):
        assert connections(look) == before + 1
    await eventually(lambda: connections(look) == before)


async def test_an_application_may_run_a_worker_of_its_own(q: TaskQ, tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with q, q.worker(["default"], concurrency=10):
            yield

    app = application(q)
    app.router.lifespan_context = lifespan
    async with serving(app, tmp_path / "http") as client:
        job = (await client.post("/pictures/a.png")).json()["job"]
        assert (await client.get(f"/jobs/{job}")).json() == {"result": "a.png-800"}


async def test_an_application_without_a_server_does_not_start(tmp_path: Path) -> None:
    q = TaskQ(f"unix://{tmp_path}/nobody")

    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(ServerUnavailable, match="is the server running"):
            await stack.enter_async_context(q.lifespan(FastAPI()))


async def test_requests_during_an_outage_fail_in_bounded_time(
    tmp_path: Path,
) -> None:
    server = TestServer()
    q = TaskQ(server.url, enqueue_deadline=0.2)
    app = application(q)

    @app.exception_handler(ServerUnavailable)
    async def unavailable(_: object, error: ServerUnavailable) -> PlainTextResponse:
        return PlainTextResponse(str(error), 503)

    async with serving(app, tmp_path / "http") as client:
        assert (await client.post("/pictures/a.png")).status_code == 200
        await asyncio.to_thread(server.stop)
        answer = await client.post("/pictures/a.png")
        assert answer.status_code == 503
        assert "nothing could be enqueued" in answer.text

        # And those after it succeed
        await asyncio.to_thread(server.start)
        assert (await client.post("/pictures/a.png")).status_code == 200
    server.close()


async def test_a_lifespan_of_ones_own_is_put_together_with_it(q: TaskQ, tmp_path: Path) -> None:
    order: list[str] = []

    @contextlib.asynccontextmanager
    async def database(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        order.append("opened")
        yield {"database": "mine"}
        order.append("closed")

    @contextlib.asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    async def tidy_up() -> None:
        order.append("tidied up")

    app = FastAPI(lifespan=lifespan(q, database, nothing, worker={"concurrency": 10}))

    @q.task(name="look")
    async def look() -> str:
        return "looked"

    @app.get("/")
    async def endpoint(request: Request) -> dict[str, str]:
        q.defer(tidy_up)
        job = await look.enqueue()
        return {"job": await job.result(5), "database": request.state.database}

    async with serving(app, tmp_path / "http") as client:
        answer = await client.get("/")

    assert answer.json() == {"job": "looked", "database": "mine"}
    assert sorted(order) == ["closed", "opened", "tidied up"]


async def test_an_application_may_fire_schedules(q: TaskQ, tmp_path: Path) -> None:
    app = FastAPI(lifespan=lifespan(q, scheduler=True))

    @q.task(name="tick")
    async def tick() -> None: ...

    await q.schedules.add("often", every(seconds=1), tick.s())
    async with serving(app, tmp_path / "http"):
        q._settings.offset.ms += 5000
        async with q.worker(scheduler=False) as worker:
            await eventually(lambda: worker.tally.finished)
    await q.schedules.remove("often")
    q._settings.offset.ms = 0


async def test_injection_leaves_the_collection_a_class_that_can_be_made() -> None:
    tasks = BackgroundTasks([BackgroundTask(print)])

    assert isinstance(tasks, StarletteTasks)
    assert len(tasks.tasks) == 1
    assert BackgroundTasks(strict=True).strict
    with pytest.raises(ConfigError, match="strict background tasks"):
        BackgroundTasks(strict=True).options(retry=1)
    with pytest.raises(ConfigError, match="when='never'"):
        tasks.options(when="never")

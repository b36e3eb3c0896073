"""What must hold with every FastAPI: `make test-fastapi` runs this with old ones, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import fastapi
import httpx
from fastapi import Depends, FastAPI, HTTPException
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse

from taskq import TaskQ
from taskq.fastapi import BackgroundTasks, StrictBackgroundTasks
from tests.support.serving import serving
from tests.support.waiting import eventually

diary: list[str] = []


async def connection() -> AsyncIterator[str]:
    diary.append("enter")
    try:
        yield "connection"
    except ValueError:
        diary.append("rolled back")
        raise
    finally:
        diary.append("exit")


Connection = Annotated[str, Depends(connection)]


async def below(given: Connection, limit: int = 3) -> str:
    return f"{given} {limit}"


async def report(word: str, given: Annotated[str, Depends(below)], again: Connection) -> str:
    if word == "fail":
        raise ValueError(word)
    diary.append("function")
    return f"{word} {given}"


async def test_dependencies_with_yield_end_with_the_attempt(q: TaskQ) -> None:
    task = q.task(name="report")(report)
    for word, ending in (("go", ["function", "exit"]), ("fail", ["rolled back", "exit"])):
        diary.clear()
        job: Any = await task.enqueue(word)
        await q.run_until_empty()
        assert diary == ["enter", *ending], fastapi.__version__
        if word == "go":
            assert await job.result(5) == "go connection 3"


async def ran_after(client: httpx.AsyncClient, path: str, count: int) -> tuple[int, list[str]]:
    diary.clear()
    status = (await client.get(path)).status_code
    await eventually(lambda: len(diary) >= count)
    return status, sorted(diary)


async def test_background_tasks_run_after_the_answer_and_are_not_dropped(q: TaskQ) -> None:
    app, answered = FastAPI(lifespan=q.lifespan), asyncio.Event()

    async def work() -> None:
        diary.append("done")

    async def wait() -> None:
        await answered.wait()
        diary.append("done")

    @app.get("/")
    async def plain(tasks: BackgroundTasks) -> None:
        tasks.add_task(wait)

    @app.get("/own")
    async def own(tasks: BackgroundTasks) -> JSONResponse:
        tasks.add_task(work)
        return JSONResponse({}, background=BackgroundTask(diary.append, "own"))

    @app.get("/raises")
    async def raises(tasks: BackgroundTasks) -> None:
        tasks.options(when="always").add_task(work)
        raise HTTPException(400)

    @app.get("/strict")
    async def strict(tasks: StrictBackgroundTasks) -> None:
        tasks.add_task(work)

    async with serving(app, 0) as client:
        assert (await client.get("/")).status_code == 200
        answered.set()
        await eventually(lambda: diary[-1:] == ["done"])
        assert await ran_after(client, "/own", 2) == (200, ["done", "own"])
        assert await ran_after(client, "/raises", 1) == (400, ["done"])
        assert await ran_after(client, "/strict", 1) == (200, ["done"])

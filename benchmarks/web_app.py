"""The web application of the endpoint scenario, under uvicorn: `KIND` says whose tasks it has."""

from __future__ import annotations

import asyncio
import os

import fastapi

from taskq import Deferred, TaskQ
from taskq.fastapi import BackgroundTasks

Tasks = {"fastapi": fastapi.BackgroundTasks, "taskq": BackgroundTasks}[os.environ["KIND"]]
q = TaskQ("redis://localhost:1")
app = fastapi.FastAPI(lifespan=q.deferred.lifespan)

pending: list[Deferred[None]] = []


async def nothing() -> None: ...


@app.get("/plain")
async def plain() -> None: ...


@app.get("/one")
async def one(tasks: Tasks) -> None:  # pyright: ignore[reportInvalidTypeForm]
    tasks.add_task(nothing)


@app.get("/fill")
async def fill() -> None:
    pending.extend(q.defer(asyncio.sleep, 3600) for _ in range(1000))


@app.get("/empty")
async def empty() -> None:
    while pending:
        await pending.pop().cancel()

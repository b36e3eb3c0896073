"""The application of the cases that stop or kill the process of a web server.

It keeps a diary in the file DIARY; KIND says which background tasks it has.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import fastapi

from taskq import TaskQ
from taskq.fastapi import BackgroundTasks, StrictBackgroundTasks, lifespan

KIND = os.environ["KIND"]
Tasks = {
    "fastapi": fastapi.BackgroundTasks,
    "strict": StrictBackgroundTasks,
    "taskq": BackgroundTasks,
}[KIND]

q = TaskQ(namespace=os.environ["NAMESPACE"])


def note(word: str) -> None:
    with Path(os.environ["DIARY"]).open("a") as file:
        file.write(word + "\n")


@asynccontextmanager
async def resources(_: fastapi.FastAPI) -> AsyncIterator[None]:
    yield
    note("resources closed")


async def work(seconds: float) -> None:
    note("begun")
    await asyncio.sleep(seconds)
    note("done")


def block(seconds: float) -> None:
    note("begun")
    time.sleep(seconds)
    note("done")


@q.task(name="stored")
async def stored(seconds: float) -> None:
    await work(seconds)


@asynccontextmanager
async def outermost(app: fastapi.FastAPI) -> AsyncIterator[dict[str, object]]:
    async with resources(app):
        if KIND == "taskq":
            async with lifespan(q)(app) as state:
                yield state
        else:
            yield {}


app = fastapi.FastAPI(lifespan=outermost)


@app.post("/work")
async def add_work(seconds: float, tasks: Tasks) -> None:
    tasks.add_task(work, seconds)


@app.post("/block")
async def add_block(seconds: float, tasks: Tasks) -> None:
    tasks.add_task(block, seconds)


@app.post("/stored")
async def add_stored(seconds: float, tasks: Tasks) -> None:
    if KIND == "taskq":
        tasks.options(durable=True).add_task(stored, seconds)
    else:
        tasks.add_task(stored, seconds)

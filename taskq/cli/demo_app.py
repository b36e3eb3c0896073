"""The application of `taskq demo`: a few tasks, each showing one thing, and a web application."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from taskq import Retry, TaskQ, current_job

if TYPE_CHECKING:
    from fastapi import FastAPI

q = TaskQ(namespace="demo")


@q.task(queue="mail")
async def welcome(name: str) -> str:
    """A coroutine: hundreds of them share one event loop."""
    await asyncio.sleep(0.05)
    return f"welcome, {name}"


@q.task(queue="images", priority=3)
def resize(path: str, width: int = 800) -> str:
    """A plain function: it runs in a thread of the worker."""
    time.sleep(0.1)
    return f"{path.removesuffix('.png')}-{width}.png"


@q.task(queue="reports", executor="process")
def primes(limit: int) -> int:
    """Heavy computation: it runs in a process, so other jobs go on."""
    return sum(all(n % k for k in range(2, int(n**0.5) + 1)) for n in range(2, limit))


@q.task(queue="mail", retry=Retry(max_attempts=4, backoff=0.2))
async def flaky() -> str:
    """Fails twice, and is retried with growing delays."""
    if current_job().attempt < 3:
        raise ConnectionError("the mail server is having a moment")
    return f"sent at attempt {current_job().attempt}"


@q.task(queue="reports", timeout=0.5)
async def endless() -> None:
    """Runs into its timeout."""
    await asyncio.sleep(3600)


@q.task(queue="reports")
async def long_report(rows: int) -> str:
    """Reports its progress while it runs."""
    for row in range(rows):
        await current_job().progress(row, rows, "writing")
        await asyncio.sleep(0.2)
    return f"{rows} rows, attempt {current_job().attempt}"


@q.task(queue="mail")
async def note(text: str) -> str:
    """Returns its argument; shows the order of priorities."""
    # Long enough for the order of two to show in milliseconds.
    await asyncio.sleep(0.002)
    return text


def create_api() -> FastAPI:
    """The web application: enqueues in an endpoint, and awaits a result in another."""
    from fastapi import FastAPI

    api = FastAPI(title="taskq demo", lifespan=q.lifespan)

    @api.post("/signup")
    async def signup(name: str) -> dict[str, str]:
        job = await welcome.enqueue(name)
        return {"job": job.id}

    @api.get("/jobs/{job_id}")
    async def result(job_id: str) -> dict[str, object]:
        return {"result": await q.job(job_id).result(timeout=10)}

    return api

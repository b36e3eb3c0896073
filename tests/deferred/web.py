"""A web application whose deferred calls outlive their requests; started by test_web_servers.py.

Written to the file LOG: what was opened and closed, and which calls began and ended.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from taskq import DeferredSettings, TaskQ

LOG = Path(os.environ["LOG"])
GRACE = float(os.environ.get("GRACE", "20"))

q = TaskQ(namespace=os.environ["NAMESPACE"], deferred=DeferredSettings(grace=GRACE))


def note(text: str) -> None:
    with LOG.open("a") as file:
        print(text, file=file, flush=True)


@q.task(name="work")
async def work(seconds: float) -> None:
    note(f"began {seconds:g}")
    await asyncio.sleep(seconds)
    note(f"ended {seconds:g}")


def in_a_thread(seconds: float) -> None:
    note("thread began")
    time.sleep(seconds)
    note("thread ended")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    note("opened")
    async with q:
        yield
    note("closed")


api = FastAPI(lifespan=lifespan)


@api.post("/work")
async def defer(seconds: float) -> str:
    return work.defer(seconds).id


@api.post("/thread")
def defer_in_a_def(seconds: float) -> str:
    return q.defer(in_a_thread, seconds).id

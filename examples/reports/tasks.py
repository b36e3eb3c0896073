"""What runs after the response, on workers, and at night. It knows nothing of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends

from taskq import TaskQ, cron, current_job
from taskq.fastapi import injected


@dataclass
class Store:
    """Stands for a database."""

    members: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    nights: int = 0


@asynccontextmanager
async def resources(_: TaskQ) -> AsyncIterator[Store]:
    """Opened once in each process that runs tasks."""
    yield Store()


q = TaskQ(namespace="reports", lifespan=resources)


async def get_store() -> Store:
    """A dependency of endpoints and of tasks alike."""
    return q.state


StoreDep = Annotated[Store, Depends(get_store)]


@q.task(retry=3, timeout=30)
async def send_welcome(address: str, store: StoreDep = injected) -> None:
    store.mails.append(f"welcome, {address}")


@q.task(timeout=600)
async def write_report(title: str, pages: int, store: StoreDep = injected) -> str:
    for page in range(1, pages + 1):
        await asyncio.sleep(0.2)
        await current_job().progress(page, pages, f"page {page} of {pages}")
    return f"{title}: {pages} pages about {len(store.members)} members"


@q.schedule(cron("0 3 * * *", tz="Europe/Berlin"))
@q.task
async def nightly(store: StoreDep = injected) -> None:
    store.nights += 1

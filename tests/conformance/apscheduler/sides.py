"""APScheduler's side of a test: schedulers, what they run, and what they tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.events import EVENT_ALL, JobEvent
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tests.support.server import TestServer

__all__ = ["RUNS", "SECOND", "Apscheduler", "Events", "note", "note_in_thread"]

RUNS: list[datetime] = []
SECOND = timedelta(seconds=1)


async def note() -> None:
    """APScheduler stores where a function stands, and imports it."""
    RUNS.append(datetime.now(UTC))


def note_in_thread() -> None:
    """The same for its threads."""
    RUNS.append(datetime.now(UTC))


class Events(list[JobEvent]):
    """What schedulers told, in its order."""

    def count(self, code: int) -> int:
        """How many of one kind."""
        return sum(event.code == code for event in self)

    def codes(self) -> list[int]:
        """The kinds, without those of schedulers, executors and stores."""
        return [event.code for event in self if isinstance(event, JobEvent)]


class Apscheduler:
    """Schedulers of APScheduler, on one store of the server or each in its memory."""

    def __init__(self, server: TestServer, namespace: str) -> None:
        self._socket = str(server.socket)
        self._namespace = namespace
        self.events = Events()

    def store(self) -> RedisJobStore:
        prefix = f"{{{self._namespace}}}:aps:"
        return RedisJobStore(
            jobs_key=prefix + "jobs", run_times_key=prefix + "times",
            unix_socket_path=self._socket,
        )  # fmt: skip

    @contextmanager
    def started(
        self,
        kind: type[Any] = AsyncIOScheduler,
        *,
        stored: bool = True,
        paused: bool = False,
        **options: Any,
    ) -> Iterator[Any]:
        store = self.store() if stored else None
        stores = {"default": store} if store else {}
        scheduler = kind(jobstores=stores, timezone=UTC, **options)
        scheduler.add_listener(self.events.append, EVENT_ALL)
        scheduler.start(paused=paused)
        try:
            yield scheduler
        finally:
            if scheduler.running:
                scheduler.shutdown(wait=False)
            if store:
                store.redis.close()

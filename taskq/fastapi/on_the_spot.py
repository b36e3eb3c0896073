"""A deferred runner for one request, where the application has none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn

from taskq.core.errors import ConfigError
from taskq.core.job import Ending, JobInfo, NewJob
from taskq.deferred.ports import DeferralStore
from taskq.deferred.runner import DeferredRunner
from taskq.deferred.settings import DeferredSettings
from taskq.execution.home import Home

__all__ = ["runner_on_the_spot"]


@asynccontextmanager
async def runner_on_the_spot() -> AsyncGenerator[DeferredRunner, None]:
    """A runner without a queue; what still runs at the end of the block is interrupted."""
    home = Home(_QUEUE, lambda home: DeferredRunner(home, _QUEUE, DeferredSettings()))
    home.drains = True
    runner = DeferredRunner(home, _QUEUE, DeferredSettings())
    try:
        yield runner
    finally:
        await runner.drain(0)


class _NoQueue:
    """The queue of an application that has none."""

    @property
    def connected(self) -> bool:
        return False

    @property
    def configured(self) -> bool:
        return False

    def submit(self, jobs: Sequence[NewJob], *, awaited: bool = False) -> Awaitable[list[bool]]:
        _refuse()

    async def until_over(self, job_id: str, within: float | None = None) -> Ending:
        _refuse()

    async def look(self, job_id: str) -> Ending:
        _refuse()

    async def job_info(self, job_id: str) -> JobInfo | None:
        _refuse()

    async def cancel_job(self, job_id: str) -> int:
        _refuse()

    def deferrals(self) -> DeferralStore:
        _refuse()

    async def aclose(self) -> None:
        """There is nothing to close."""


_QUEUE: Final = _NoQueue()


def _refuse() -> NoReturn:
    raise ConfigError(
        "the application has no queue to keep background tasks in: type "
        "FastAPI(lifespan=q.lifespan)"
    )

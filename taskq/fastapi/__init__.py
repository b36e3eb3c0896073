"""taskq in FastAPI applications. This room translates one framework, and nothing imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskq.fastapi.commit import OnCommit, enqueue_on_commit
from taskq.fastapi.lifespan import AfterResponse, lifespan
from taskq.fastapi.router import job_router

if TYPE_CHECKING:
    from taskq.fastapi.background import BackgroundTasks
    from taskq.fastapi.background import BackgroundTasks as StrictBackgroundTasks
else:
    from taskq.fastapi.depends import InjectedTasks as BackgroundTasks
    from taskq.fastapi.depends import StrictTasks as StrictBackgroundTasks

__all__ = [
    "AfterResponse",
    "BackgroundTasks",
    "OnCommit",
    "StrictBackgroundTasks",
    "enqueue_on_commit",
    "injected",
    "job_router",
    "lifespan",
]

injected: Final[Any] = ...
"""A default for parameters that a dependency fills, so that type checkers require no argument.

>>> async def load(user: int, db: Annotated[DB, Depends(get_db)] = injected): ...
"""

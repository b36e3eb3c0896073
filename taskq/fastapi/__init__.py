"""taskq in FastAPI applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.fastapi.commit import OnCommit, enqueue_on_commit
from taskq.fastapi.router import job_router

if TYPE_CHECKING:
    from taskq.fastapi.background import BackgroundTasks
    from taskq.fastapi.background import BackgroundTasks as StrictBackgroundTasks
else:
    from taskq.fastapi.injecting import InjectedTasks as BackgroundTasks
    from taskq.fastapi.injecting import StrictTasks as StrictBackgroundTasks

__all__ = [
    "BackgroundTasks",
    "OnCommit",
    "StrictBackgroundTasks",
    "enqueue_on_commit",
    "job_router",
]

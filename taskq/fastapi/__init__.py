"""taskq in FastAPI applications."""

from __future__ import annotations

from taskq.fastapi.commit import OnCommit, enqueue_on_commit
from taskq.fastapi.router import job_router

__all__ = ["OnCommit", "enqueue_on_commit", "job_router"]

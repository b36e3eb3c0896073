"""taskq in FastAPI applications."""

from __future__ import annotations

from taskq.fastapi.commit import OnCommit, enqueue_on_commit

__all__ = ["OnCommit", "enqueue_on_commit"]

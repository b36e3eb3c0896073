"""Deferred tasks with FastAPI's dependencies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends

from taskq import TaskQ

closed: list[str] = []


class Session:
    def __init__(self) -> None:
        self.open = True


async def session() -> AsyncIterator[Session]:
    opened = Session()
    yield opened
    opened.open = False
    closed.append("session")


async def test_dependencies_are_filled_for_deferred_tasks_too() -> None:
    q = TaskQ("redis://localhost:1")
    closed.clear()

    @q.task
    async def work(value: object, session: Annotated[Session, Depends(session)]) -> object:
        assert session.open
        assert not closed
        return value

    async with q.deferred:
        value = object()
        assert await work.defer(value) is value  # pyright: ignore[reportCallIssue]
    assert closed == ["session"]

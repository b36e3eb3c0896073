"""`enqueue_on_commit`: jobs go with the transaction they were asked for in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from taskq import (
    CallError,
    ConfigError,
    EncodeError,
    JobDraft,
    ServerUnavailable,
    TaskQ,
    TaskqError,
)
from taskq.execution.task import Task
from taskq.fastapi import OnCommit, enqueue_on_commit


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/db", poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.execute(text("create table users (name text)"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


@pytest.fixture
def plain(engine: AsyncEngine, tmp_path: Path) -> Iterator[Session]:
    """A synchronous session on the same database."""
    own = create_engine(f"sqlite:///{tmp_path}/db", poolclass=NullPool)
    with Session(own) as session:
        yield session
    own.dispose()


@pytest.fixture
def greeted() -> list[str]:
    return []


@pytest.fixture
def greet(q: TaskQ, greeted: list[str]) -> Task[[str], None]:
    @q.task(name="greet")
    async def greet(name: str) -> None:
        greeted.append(name)

    return greet


ADD = text("insert into users values ('Ada')")


async def test_a_commit_enqueues(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None], greeted: list[str]
) -> None:
    await session.execute(ADD)
    greeting = enqueue_on_commit(session, greet.s("Ada"))
    with pytest.raises(TaskqError, match="greet is not enqueued yet"):
        _ = greeting.job
    assert await q.run_until_empty() == 0

    await session.commit()

    # Enqueued when the commit returns, not some time later
    assert await greeting.job.status() == "queued"
    assert (await greeting).id == greeting.job.id
    assert await q.run_until_empty() == 1
    assert greeted == ["Ada"]

    # And once only
    await session.execute(ADD)
    await session.commit()
    assert await q.run_until_empty() == 0


async def test_a_rollback_enqueues_nothing(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None]
) -> None:
    await session.execute(ADD)
    greeting = enqueue_on_commit(session, greet.s("Ada"))
    await session.rollback()
    await session.execute(ADD)
    await session.commit()

    assert await q.run_until_empty() == 0
    with pytest.raises(TaskqError, match="was rolled back"):
        await greeting


async def test_an_error_in_the_block_enqueues_nothing(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None]
) -> None:
    with contextlib.suppress(ValueError):
        async with session.begin():
            enqueue_on_commit(session, greet.s("Ada"))
            raise ValueError

    assert await q.run_until_empty() == 0


async def test_a_closed_session_enqueues_nothing(
    q: TaskQ, engine: AsyncEngine, greet: Task[[str], None]
) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(ADD)
        enqueue_on_commit(session, greet.s("Ada"))

    assert await q.run_until_empty() == 0


async def test_it_may_be_asked_for_before_the_first_statement(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None], greeted: list[str]
) -> None:
    enqueue_on_commit(session, greet.s("before"))
    await session.rollback()
    enqueue_on_commit(session, greet.s("nobody"))
    await session.execute(ADD)
    await session.rollback()
    enqueue_on_commit(session, greet.s("Ada"))
    await session.execute(ADD)
    await session.commit()
    await q.run_until_empty()

    assert greeted == ["Ada"]


async def test_savepoints_take_theirs_with_them(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None], greeted: list[str]
) -> None:
    enqueue_on_commit(session, greet.s("first"))
    await session.execute(ADD)
    async with session.begin_nested():
        enqueue_on_commit(session, greet.s("kept"))
        async with session.begin_nested() as inner:
            enqueue_on_commit(session, greet.s("inner, undone"))
            await inner.rollback()
        async with session.begin_nested():
            enqueue_on_commit(session, greet.s("inner, kept"))
    with contextlib.suppress(ValueError):
        async with session.begin_nested():
            async with session.begin_nested():
                enqueue_on_commit(session, greet.s("released, then undone"))
            raise ValueError
    # A released savepoint has committed nothing yet
    assert await q.run_until_empty() == 0

    await session.commit()
    await q.run_until_empty()

    assert sorted(greeted) == ["first", "inner, kept", "kept"]


async def test_savepoints_go_with_the_whole(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None]
) -> None:
    await session.execute(ADD)
    async with session.begin_nested():
        enqueue_on_commit(session, greet.s("Ada"))
    await session.rollback()
    await session.commit()

    assert await q.run_until_empty() == 0


async def test_calls_are_checked_when_they_are_made(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None]
) -> None:
    with pytest.raises(CallError, match="too many"):
        enqueue_on_commit(session, greet.s("Ada", "Lovelace"))
    with pytest.raises(EncodeError):
        enqueue_on_commit(session, greet.s(session))
    with pytest.raises(ConfigError, match="not TaskQ"):
        enqueue_on_commit(q, greet.s("Ada"))


async def test_arguments_are_those_of_the_call(
    q: TaskQ, session: AsyncSession, greeted: list[str]
) -> None:
    @q.task(name="greet-all")
    async def greet_all(names: list[str]) -> None:
        greeted.extend(names)

    names = ["Ada"]
    greeting = enqueue_on_commit(session, greet_all.options(id="mine").s(names))
    names.append("Charles")
    await session.commit()
    await q.run_until_empty()

    assert greeting.job.id == "mine"
    assert greeted == ["Ada"]


async def test_a_server_that_is_gone_does_not_undo_the_commit(
    engine: AsyncEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = TaskQ(f"unix://{tmp_path}/nobody", enqueue_deadline=0.05)

    @app.task(name="greet")
    async def greet(name: str) -> None: ...

    async with AsyncSession(engine) as session:
        await session.execute(ADD)
        greeting = enqueue_on_commit(session, greet.s("Ada"))
        with caplog.at_level(logging.ERROR, "taskq.fastapi"):
            await session.commit()
        assert len((await session.execute(text("select * from users"))).all()) == 1
        await session.rollback()
    with pytest.raises(ServerUnavailable):
        _ = greeting.job
    assert "the transaction is committed, but its job" in caplog.text
    await app.aclose()


async def test_a_request_that_is_cancelled_after_its_commit_has_its_job(
    q: TaskQ, session: AsyncSession, greet: Task[[str], None], greeted: list[str]
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    @q.middleware("enqueue")
    async def hold(job: JobDraft, call_next: Any) -> Any:
        arrived.set()
        await go_on.wait()
        return await call_next(job)

    await session.execute(ADD)
    greeting = enqueue_on_commit(session, greet.s("Ada"))
    committing = asyncio.create_task(session.commit())
    await arrived.wait()
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing

    with pytest.raises(TaskqError, match="greet is still being enqueued after the commit"):
        _ = greeting.job
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await greeting
    go_on.set()
    job = await greeting
    await q.run_until_empty()
    assert await job.status() == "succeeded"
    assert greeted == ["Ada"]


def test_an_event_loop_that_ends_meanwhile_says_so(
    q: TaskQ, plain: Session, greet: Task[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    @q.middleware("enqueue")
    async def hold(job: JobDraft, call_next: Any) -> Any:
        await asyncio.Event().wait()

    async def leave() -> OnCommit[None]:
        greeting = enqueue_on_commit(plain, greet.s("Ada"))
        plain.commit()
        await asyncio.sleep(0)
        return greeting

    greeting = asyncio.run(leave())

    with pytest.raises(TaskqError, match="the event loop ended before the server answered"):
        _ = greeting.job
    assert "could not be enqueued: the event loop ended" in caplog.text


async def test_a_synchronous_session_in_a_coroutine(
    q: TaskQ, plain: Session, greet: Task[[str], None], greeted: list[str]
) -> None:
    plain.execute(ADD)
    greeting = enqueue_on_commit(plain, greet.s("Ada"))
    plain.commit()
    job = await greeting
    await q.run_until_empty()

    assert await job.status() == "succeeded"
    assert greeted == ["Ada"]


async def test_a_synchronous_session_in_a_thread(
    q: TaskQ, plain: Session, greet: Task[[str], None], greeted: list[str], look: redis.Redis
) -> None:
    def work() -> str:
        enqueue_on_commit(plain, greet.s("undone"))
        plain.rollback()
        greeting = enqueue_on_commit(plain, greet.s("Ada"))
        plain.execute(ADD)
        plain.commit()
        return greeting.job.id

    before = len(look.client_list())
    job_id = await asyncio.to_thread(work)
    assert len(look.client_list()) == before
    await q.run_until_empty()

    assert await q.job(job_id).status() == "succeeded"
    assert greeted == ["Ada"]


async def test_a_plain_endpoint_uses_the_connection_of_the_application(
    q: TaskQ, plain: Session, greet: Task[[str], None], greeted: list[str], look: redis.Redis
) -> None:
    app = FastAPI()

    @app.post("/")
    def sign_up() -> str:
        assert threading.current_thread() is not threading.main_thread()
        plain.execute(ADD)
        greeting = enqueue_on_commit(plain, greet.s("Ada"))
        plain.commit()
        return greeting.job.id

    await q.send("greet", "somebody")
    before = len(look.client_list())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        job_id = (await client.post("/")).json()
    assert len(look.client_list()) == before
    await q.run_until_empty()

    assert await q.job(job_id).status() == "succeeded"
    assert greeted == ["somebody", "Ada"]

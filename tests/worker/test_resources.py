"""`TaskQ(lifespan=...)`: what a process opens once for its tasks, and `q.state`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from taskq import ConfigError, TaskQ, TaskqError
from tests.support.server import TestServer
from tests.support.waiting import eventually


class Pool:
    """Something that is opened and closed."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed = 0

    @asynccontextmanager
    async def lifespan(self, q: TaskQ) -> AsyncIterator[SimpleNamespace]:
        # A task group or a cancel scope may only be left by the task that entered it.
        task = asyncio.current_task()
        async with asyncio.TaskGroup():
            self.opened.append(f"pool {len(self.opened) + 1}")
            yield SimpleNamespace(pool=self.opened[-1], q=q)
            assert asyncio.current_task() is task
            self.closed += 1


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
async def pooled(server: TestServer, namespace: str, pool: Pool) -> AsyncGenerator[TaskQ, None]:
    app = TaskQ(server.url, namespace=namespace, lifespan=pool.lifespan)
    yield app
    await app.aclose()


async def test_a_worker_opens_it_and_closes_it_after_its_jobs(pooled: TaskQ, pool: Pool) -> None:
    began: list[int] = []

    @pooled.task(name="use")
    async def use() -> str:
        began.append(1)
        await asyncio.sleep(0.05)
        assert pooled.state.q is pooled
        return f"{pooled.state.pool}, closed {pool.closed}"

    @pooled.task(name="use-in-thread")
    def use_in_thread() -> str:
        assert threading.current_thread() is not threading.main_thread()
        return pooled.state.pool

    async with pooled.worker():
        assert await (await use_in_thread.enqueue()).result(5) == "pool 1"
        job = await use.enqueue()
        await eventually(lambda: began)
        # Leaving drains: the job ends before the pool does
    assert await job.result(5) == "pool 1, closed 0"
    assert (len(pool.opened), pool.closed) == (1, 1)

    # And the next worker opens another
    await use.enqueue()
    await pooled.run_until_empty()
    assert (len(pool.opened), pool.closed) == (2, 2)


async def test_an_application_and_its_worker_share_one(pooled: TaskQ, pool: Pool) -> None:
    async with pooled.lifespan():
        assert pooled.state.pool == "pool 1"
        async with pooled.worker(), pooled.worker():
            assert pool.opened == ["pool 1"]
        assert pooled.state.pool == "pool 1"
        assert await asyncio.to_thread(lambda: pooled.state.pool) == "pool 1"
        assert pool.closed == 0
    assert pool.closed == 1


async def test_outside_there_is_no_state(pooled: TaskQ, q: TaskQ) -> None:
    with pytest.raises(TaskqError, match="while a worker runs, or an application"):
        _ = pooled.state
    with pytest.raises(TaskqError, match=r"TaskQ\(lifespan=\.\.\.\)"):
        _ = q.state


async def test_a_worker_whose_lifespan_fails_does_not_start(
    server: TestServer, namespace: str
) -> None:
    tries: list[int] = []

    @asynccontextmanager
    async def broken(_: TaskQ) -> AsyncIterator[None]:
        tries.append(1)
        raise LookupError("no such database")
        yield

    app = TaskQ(server.url, namespace=namespace, lifespan=broken)
    for _ in range(2):
        with pytest.raises(LookupError, match="no such database"):
            await app.run_until_empty()
    assert len(tries) == 2
    await app.aclose()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (asyncio.CancelledError("the pool gave up"), TaskqError),
        (BaseExceptionGroup("pools", [GeneratorExit()]), BaseExceptionGroup),
    ],
)
async def test_a_lifespan_may_raise_anything(
    server: TestServer, namespace: str, raised: BaseException, expected: type[BaseException]
) -> None:
    @asynccontextmanager
    async def broken(_: TaskQ) -> AsyncIterator[None]:
        raise raised
        yield

    app = TaskQ(server.url, namespace=namespace, lifespan=broken)
    with pytest.raises(expected) as caught:
        async with asyncio.timeout(5) as patience, app.lifespan():
            pass

    assert not patience.expired()
    assert raised in (caught.value, caught.value.__cause__)
    await app.aclose()


async def test_a_worker_that_cannot_reach_its_server_closes_what_it_opened(
    pool: Pool, tmp_path: Any
) -> None:
    app = TaskQ(f"unix://{tmp_path}/nobody", lifespan=pool.lifespan)

    with pytest.raises(ConnectionError):
        await app.run_until_empty()

    assert (len(pool.opened), pool.closed) == (1, 1)


async def test_what_closing_raises_is_raised(server: TestServer, namespace: str) -> None:
    @asynccontextmanager
    async def broken(_: TaskQ) -> AsyncIterator[None]:
        yield
        raise LookupError("closed twice")

    app = TaskQ(server.url, namespace=namespace, lifespan=broken)
    with pytest.raises(LookupError, match="closed twice"):
        await app.run_until_empty()
    await app.aclose()


async def test_a_bare_generator_is_refused(server: TestServer, namespace: str) -> None:
    async def bare(_: TaskQ) -> AsyncIterator[None]:
        yield

    app = TaskQ(server.url, namespace=namespace, lifespan=bare)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="put @asynccontextmanager on the function"):
        await app.run_until_empty()
    await app.aclose()


async def test_each_loop_has_its_own(pooled: TaskQ, pool: Pool) -> None:
    @pooled.task(name="use")
    async def use() -> str:
        return pooled.state.pool

    async def elsewhere() -> None:
        await pooled.run_until_empty()
        await pooled.aclose()

    async with pooled.lifespan():
        job = await use.enqueue()
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert await job.result(5) == "pool 2"
        assert pooled.state.pool == "pool 1"
    assert pool.closed == 2

"""The background loop behind `q.run`."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from taskq import TaskqError
from taskq.execution.portal import Portal
from tests.support.waiting import eventually_sync


def test_it_runs_an_awaitable_to_its_end() -> None:
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    assert Portal().run(add(1, 2)) == 3


def test_it_takes_any_awaitable() -> None:
    class Awaited:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 7

    assert Portal().run(Awaited()) == 7


def test_it_raises_what_the_awaitable_raises() -> None:
    error = KeyError("a")

    async def fail() -> None:
        raise error

    async def cancel() -> None:
        raise asyncio.CancelledError

    with pytest.raises(KeyError) as caught:
        Portal().run(fail())
    assert caught.value is error
    with pytest.raises(CancelledError):
        Portal().run(cancel())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_coroutine_that_ends_the_program_ends_no_other_call(kind: type[BaseException]) -> None:
    portal = Portal()

    async def leave() -> None:
        raise kind

    async def one() -> int:
        await asyncio.sleep(0.1)
        return 1

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(portal.run, one(), 5)
        with pytest.raises(kind):
            portal.run(leave(), timeout=5)
        assert other.result() == 1
    assert portal.run(one(), timeout=5) == 1


def test_a_timeout_holds_though_the_loop_is_blocked() -> None:
    portal, release = Portal(), threading.Event()

    async def one() -> int:
        return 1

    portal.loop().call_soon_threadsafe(release.wait, 10)
    try:
        with pytest.raises(TimeoutError):
            portal.run(one(), timeout=0.05)
        assert not release.is_set()
    finally:
        release.set()


def test_all_calls_share_one_loop() -> None:
    portal = Portal()

    async def loop_and_thread() -> tuple[int, str]:
        return id(asyncio.get_running_loop()), threading.current_thread().name

    with ThreadPoolExecutor(4) as threads:
        seen = set(threads.map(lambda _: portal.run(loop_and_thread()), range(20)))

    assert len(seen) == 1
    assert seen.pop()[1] == "taskq-portal"


def test_nothing_is_started_before_it_is_used() -> None:
    before = threading.active_count()

    Portal()

    assert threading.active_count() == before


def test_its_thread_ends_with_it_and_what_is_left_is_cancelled() -> None:
    cancelled = threading.Event()

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def start() -> threading.Thread:
        lingering.append(asyncio.create_task(linger()))
        await asyncio.sleep(0)
        return threading.current_thread()

    lingering: list[asyncio.Task[None]] = []
    portal = Portal()
    thread = portal.run(start())
    del portal
    gc.collect()

    eventually_sync(lambda: not thread.is_alive())
    assert cancelled.is_set()


async def test_in_a_coroutine_it_refuses_and_leaves_nothing_unawaited() -> None:
    portal = Portal()

    async def one() -> int:
        return 1

    def plain() -> int:
        return portal.run(one())

    with pytest.raises(TaskqError, match="use `await` instead"):
        portal.run(one())
    with pytest.raises(TaskqError, match="use `await` instead"):
        plain()
    # In a thread of its own it may be waited for
    assert await asyncio.to_thread(plain) == 1


async def test_a_callback_of_a_loop_is_not_a_coroutine() -> None:
    portal, seen = Portal(), asyncio.get_running_loop().create_future()

    async def one() -> int:
        return 1

    asyncio.get_running_loop().call_soon(lambda: seen.set_result(portal.run(one())))

    assert await seen == 1

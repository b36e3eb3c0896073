"""Order and keys: which calls wait for which, and which are the same."""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar

import pytest

from taskq import DeferredSettings, JobState, TaskQ, current_job
from tests.support.waiting import eventually


async def test_calls_submitted_in_order_run_in_order(alone: TaskQ) -> None:
    seen: list[int] = []

    async def note(number: int) -> None:
        # The first takes longest
        await asyncio.sleep(0.01 * (3 - number))
        seen.append(number)

    ordered = alone.deferred.options(order="submitted", key="user:7")
    handles = [ordered.defer(note, number) for number in range(3)]
    other = alone.deferred.options(order="submitted", key="user:8").defer(note, 3)

    for handle in (*handles, other):
        await handle
    assert seen == [3, 0, 1, 2]


async def test_the_next_of_an_order_goes_behind_those_that_wait_for_a_slot() -> None:
    q = TaskQ("redis://localhost:1", deferred=DeferredSettings(concurrency=1))
    seen: list[str] = []

    async def note(text: str) -> None:
        seen.append(text)

    async with q.deferred:
        ordered = q.deferred.options(order="submitted", key="user:7")
        for text in ("a1", "a2", "a3"):
            ordered.defer(note, text)
        for text in ("b", "c"):
            q.defer(note, text)

    assert seen == ["a1", "b", "c", "a2", "a3"]


async def test_order_without_a_key_is_that_of_the_request() -> None:
    request: ContextVar[str] = ContextVar("request")
    q = TaskQ("redis://localhost:1", deferred=DeferredSettings(request_id=request))
    seen: list[str] = []

    async def note(text: str, pause: float) -> None:
        await asyncio.sleep(pause)
        seen.append(text)

    async with q.deferred:
        for name, pause in (("slow", 0.05), ("quick", 0.0)):
            request.set(name)
            for number in range(2):
                text = f"{name} {number}"
                q.deferred.options(order="submitted").defer(note, text, pause)

    assert seen == ["quick 0", "quick 1", "slow 0", "slow 1"]


async def test_a_call_of_the_same_key_that_waits_is_the_same_call(alone: TaskQ) -> None:
    go, ran = asyncio.Event(), list[int]()

    async def refresh(number: int) -> None:
        ran.append(number)
        await go.wait()

    keyed = alone.deferred.options(key="page")
    running = keyed.defer(refresh, 1)
    while not ran:
        await asyncio.sleep(0)

    # What changed since it began needs a run of its own, and one is enough
    second = keyed.defer(refresh, 2)
    third = keyed.defer(refresh, 3)
    from_thread = await asyncio.to_thread(keyed.defer, refresh, 4)

    assert running.id != second.id == third.id
    go.set()
    await third
    await from_thread
    assert ran == [1, 2]
    assert alone.deferred.stats().merged == 2


async def test_a_key_belongs_to_its_task(alone: TaskQ) -> None:
    ran: list[tuple[str, int]] = []

    @alone.task
    async def send(user: int) -> str:
        ran.append(("send", user))
        return "sent"

    async def index(user: int, *, all_of_it: bool) -> str:
        ran.append(("index", user))
        return "indexed" if all_of_it else ""

    # Given calls of two functions with the same key
    for debounce in (None, 0.01):
        sent = send.options(key="user:7", debounce=debounce, delay=0.01).defer(7)
        keyed = alone.deferred.options(key="user:7", debounce=debounce, delay=0.01)
        indexed = keyed.defer(index, 7, all_of_it=True)

        # Then each runs, with its own arguments
        assert [await sent, await indexed] == ["sent", "indexed"]
    assert sorted(ran) == [("index", 7)] * 2 + [("send", 7)] * 2


async def test_debounced_calls_run_once_with_the_last_arguments(alone: TaskQ) -> None:
    seen: list[int] = []
    quiet = alone.deferred.options(key="save", debounce=0.05)

    handles = [quiet.defer(seen.append, number) for number in range(5)]

    assert {handle.id for handle in handles} == {handles[0].id}
    assert handles[0].status is JobState.SCHEDULED
    await handles[0]
    assert seen == [4]


async def test_a_debounced_call_is_the_last_one_in_all_that_it_asks_for(alone: TaskQ) -> None:
    seen: list[tuple[str, str]] = []

    async def save(text: str) -> None:
        seen.append((text, current_job().headers["from"]))

    # Given calls that carry their arguments in themselves, the first of which expires early
    quiet = alone.deferred.options(key="draft", debounce=0.05)
    first = quiet.options(headers={"from": "a"}, expires=0.01)
    first.defer(functools.partial(save, "a"))

    # When another takes its place
    await quiet.options(headers={"from": "ab"}).defer(functools.partial(save, "ab"))

    # Then nothing is left of the first
    assert seen == [("ab", "ab")]


async def test_a_debounced_call_that_waits_for_a_slot_waits_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a debounced call that is due, and waits for a slot
    q = TaskQ("redis://localhost:1", deferred=DeferredSettings(concurrency=1))
    go, seen = asyncio.Event(), list[str]()

    async def save(text: str) -> None:
        seen.append(text)

    async with q.deferred:
        blocker = q.defer(go.wait)
        first = q.deferred.options(key="draft", debounce=0.001).defer(save, "a")
        await eventually(lambda: first.status is JobState.QUEUED)

        # When there is another before it has one
        second = q.deferred.options(key="draft", debounce=60).defer(save, "ab")
        go.set()
        await blocker
        await asyncio.sleep(0)

        # Then the slot is not for it
        assert first.id == second.id
        assert first.status is JobState.SCHEDULED

    # And it runs once, at the latest when the drain begins
    assert seen == ["ab"]
    assert q.deferred.stats().succeeded == 2
    assert not caplog.records


async def test_debounce_needs_a_key(alone: TaskQ) -> None:
    with pytest.raises(ValueError, match="needs a key="):
        alone.deferred.options(debounce=1)

"""Who leads: handing over, taking over, and what does not make anybody lose the office."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from taskq import TaskQ, current_job, every
from taskq.broker.broker import Broker
from taskq.broker.keys import Keys
from taskq.broker.leadership import LeaderRecord, Leadership
from taskq.schedules import election
from taskq.schedules.election import Silence
from taskq.schedules.leader import Leader
from taskq.schedules.scheduler import Scheduler
from tests.support.leaks import remove_keys
from tests.support.server import TestServer
from tests.support.waiting import eventually


@pytest.fixture
def fires() -> list[str]:
    """Ids of the jobs that ran."""
    return []


@pytest.fixture
def task(q: TaskQ, fires: list[str]) -> Any:
    @q.task(name="shop.note")
    async def note() -> None:
        fires.append(current_job().id)

    return note


@pytest.fixture
def soon_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers judge after one second, so that a test need not wait for six."""
    monkeypatch.setattr(election, "LEADER_LEASE_SECONDS", 1.5)


@pytest.fixture
async def broker(q: TaskQ) -> AsyncIterator[Broker]:
    broker = Broker(q._settings)
    yield broker
    await broker.aclose()


async def leads(*schedulers: Scheduler) -> Scheduler:
    """The one that leads."""
    return await eventually(lambda: next((s for s in schedulers if s.term is not None), None))


# -------------------------------------------------------------------------------------- silence


def record(beat: int, owner: str | None = "a", term: int = 1) -> LeaderRecord:
    return LeaderRecord(owner, term, str(beat), None, None, None)  # pyright: ignore[reportArgumentType]


def test_silence_grows_while_looks_are_answered():
    heard = Silence()

    assert [heard.of(record(1), at) for at in (0.0, 0.5, 1.0, 1.5)] == [0.0, 0.5, 1.0, 1.5]
    assert heard.of(record(2), 2.0) == 0.0


def test_a_pause_of_the_server_is_nobodys_silence():
    heard = Silence()
    heard.of(record(1), 0.0)

    assert heard.of(record(1), 60.0) == 0.0
    assert heard.of(record(1), 60.5) == 0.5


def test_another_owner_or_term_is_no_silence():
    heard = Silence()
    heard.of(record(1), 0.0)

    assert heard.of(record(1, "b"), 1.0) == 0.0
    assert heard.of(record(1, "b", 2), 2.0) == 0.0


# -------------------------------------------------------------------------------- handing over


async def test_one_of_many_leads(q: TaskQ) -> None:
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(q.scheduler()) for _ in range(4)]
        leader = await leads(*many)
        await asyncio.sleep(1.2)

        assert [s.term for s in many if s is not leader] == [None] * 3
        assert leader.term == 1


async def test_a_clean_stop_hands_over_at_once(q: TaskQ, task: Any, fires: list[str]) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(q.worker(scheduler=False))
        many = [q.scheduler() for _ in range(3)]
        for scheduler in many:
            await scheduler.__aenter__()
        first = await leads(*many)
        await q.schedules.add("s", every(seconds=0.1), task.s(), overlap="allow")
        await eventually(lambda: len(fires) >= 3)

        # When the leader stops, again and again
        spans: list[float] = []
        while many:
            leader = await leads(*many)
            many.remove(leader)
            began = time.monotonic()
            await leader.__aexit__(None, None, None)
            if many:
                await leads(*many)
                spans.append(time.monotonic() - began)

        # Then the next one leads within a tenth of a second
        print("handed over within", [f"{span * 1000:.0f} ms" for span in spans])
        assert min(spans) < 0.1 + 0.4
        assert first.term is None
    # And no fire was lost or doubled
    slots = sorted(fire.rpartition("T")[2] for fire in fires)
    assert Counter(fires).most_common(1)[0][1] == 1
    assert len(slots) == len(set(slots))


async def test_a_stop_while_the_office_is_taken_leaves_no_leader_behind(
    q: TaskQ, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, take = asyncio.Event(), Leadership.take

    async def unanswered(self: Leadership, name: str, seen: LeaderRecord) -> LeaderRecord:
        await take(self, name, seen)
        taken.set()
        await asyncio.Event().wait()
        raise AssertionError

    # Given a scheduler that became leader and was not told so yet
    with monkeypatch.context() as patch:
        patch.setattr(Leadership, "take", unanswered)
        async with q.scheduler():
            await taken.wait()

    # Then it has resigned
    record = await broker.leadership.look()
    assert (record.owner, record.term) == (None, 1)


async def test_a_worker_gives_up_the_office_before_it_waits_for_its_jobs(q: TaskQ) -> None:
    gate = asyncio.Event()

    @q.task(name="shop.slow")
    async def slow() -> None:
        await gate.wait()

    worker = q.worker()
    await worker.__aenter__()
    other = q.scheduler()
    job = await slow.enqueue()
    async with other:
        await eventually(lambda: worker.in_flight.running == 1)
        stopping = asyncio.create_task(worker.__aexit__(None, None, None))
        # When it has 30 s for the job that runs, another one leads already
        await eventually(lambda: other.term is not None, within=5)
        assert not stopping.done()
        gate.set()
        await stopping
    assert await job.result(timeout=5) is None


# --------------------------------------------------------------------------------- taking over


async def test_a_silent_leader_is_replaced_and_its_ticks_are_refused(
    q: TaskQ, task: Any, fires: list[str], broker: Broker, soon_dead: None
) -> None:
    # Given a leader that says nothing more after it took the office
    seen = await broker.leadership.look()
    taken = await broker.leadership.take("silent", seen)
    assert (taken.owner, taken.term) == ("silent", 1)
    await q.schedules.add("s", every(seconds=0.2), task.s(), misfire=None)

    async with q.worker(scheduler=False), q.scheduler() as scheduler:
        await eventually(lambda: scheduler.term == 2)
        await eventually(lambda: len(fires) >= 2)

        # When it wakes up, with a tick in its hands
        assert await broker.schedules.tick("silent", 1, []) is None
        assert not await broker.leadership.renew("silent", 1)
    assert Counter(fires).most_common(1)[0][1] == 1


async def test_two_who_believe_to_lead_fire_each_slot_once(
    q: TaskQ, task: Any, fires: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an election that lets everybody win at once, as often as they like
    take = Leadership.take

    async def take_by_force(self: Leadership, name: str, _: LeaderRecord) -> LeaderRecord:
        return await take(self, name, await self.look())

    class Always(Silence):
        def of(self, record: LeaderRecord, now: float) -> float:
            return 100.0

    monkeypatch.setattr(Leadership, "take", take_by_force)
    monkeypatch.setattr(election, "Silence", Always)
    await q.schedules.add("s", every(seconds=0.1), task.s(), overlap="allow")

    async with q.worker(scheduler=False), AsyncExitStack() as stack:
        many = [await stack.enter_async_context(q.scheduler()) for _ in range(3)]
        await eventually(lambda: len(fires) >= 30, within=20)
        changes = sum(scheduler.tally.terms for scheduler in many)

    # Then there were many terms, and each slot was fired once
    assert changes > 3
    assert Counter(fires).most_common(1)[0][1] == 1


async def test_after_everything_was_deleted_the_code_is_declared_again(
    q: TaskQ, fires: list[str], look: redis.Redis, namespace: str
) -> None:
    @q.schedule(every(seconds=0.3), id="declared")
    @q.task(name="shop.declared")
    async def note() -> None:
        fires.append(current_job().id)

    async with q.worker() as worker, q.scheduler() as other:
        await q.schedules.add("added", every(hours=1), note.s())
        await eventually(lambda: len(fires) >= 2)
        # FLUSHALL, as far as this namespace goes
        remove_keys(look, namespace)
        before = len(fires)

        await eventually(lambda: len(fires) >= before + 2, within=20)

        assert {info.id for info in await q.schedules.list()} == {"declared"}
        assert worker.name
        assert other.tally.fired >= 0
    assert Counter(fires).most_common(1)[0][1] == 1


async def test_a_server_that_comes_back_finds_the_same_leader(own_server: TestServer) -> None:
    q = TaskQ(own_server.url, namespace="back")
    fires: list[str] = []

    @q.schedule(every(seconds=0.2), id="s")
    @q.task(name="shop.note")
    async def note() -> None:
        fires.append(current_job().id)

    async with q.worker(scheduler=False), q.scheduler() as one, q.scheduler() as two:
        leader = await leads(one, two)
        await eventually(lambda: len(fires) >= 2)
        own_server.stop()
        await asyncio.sleep(0.5)
        before = len(fires)
        own_server.start()
        await eventually(lambda: len(fires) >= before + 3, within=20)

        assert leader.term is not None
        assert (one.tally.terms, two.tally.terms) in ((1, 0), (0, 1))
    assert Counter(fires).most_common(1)[0][1] == 1
    await q.aclose()


async def test_a_scheduler_waits_for_its_server(own_server: TestServer) -> None:
    q = TaskQ(own_server.url, namespace="wait")
    own_server.stop()
    async with q.scheduler() as scheduler:
        await asyncio.sleep(0.3)
        assert scheduler.term is None
        own_server.start()

        await leads(scheduler)
    await q.aclose()


async def test_a_leader_whose_look_fails_gives_up_and_another_goes_on(
    q: TaskQ, task: Any, fires: list[str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    async with q.worker(scheduler=False), q.scheduler() as one, q.scheduler() as two:
        leader = await leads(one, two)
        other = two if leader is one else one
        await q.schedules.add("s", every(seconds=0.2), task.s())
        await eventually(lambda: len(fires) >= 1)
        # When something nobody foresaw happens to the one that leads, and only to it
        real = Leader._look

        async def broken(self: Any) -> None:
            if self._name == leader.name:
                raise RuntimeError("nobody foresaw this")
            await real(self)

        monkeypatch.setattr(Leader, "_look", broken)

        await eventually(lambda: other.term is not None)
        before = len(fires)
        await eventually(lambda: len(fires) >= before + 2)
    assert "nobody foresaw this" in caplog.text
    assert Counter(fires).most_common(1)[0][1] == 1


async def test_the_record_goes_a_day_after_the_last_beat(
    q: TaskQ, look: redis.Redis, keys: Keys
) -> None:
    async with q.scheduler() as scheduler:
        await leads(scheduler)

        assert 86_000_000 < look.pttl(keys.leader) <= 86_400_000

"""`@q.schedule`: what a start stores, changes, removes and leaves alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from taskq import CallError, ConfigError, TaskQ, UnknownOption, all_of, at, cron, every
from taskq.broker.keys import Keys
from taskq.schedules.scheduler import reconcile
from taskq.triggers.trigger import Trigger
from tests.support.server import TestServer
from tests.support.waiting import eventually

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def impossible(second: int = 1) -> Trigger:
    """Two that never fire at the same instant."""
    return all_of(
        every(seconds=4, anchor=ANCHOR),
        every(seconds=4, anchor=ANCHOR + timedelta(seconds=second)),
    )


async def start(q: TaskQ) -> None:
    """Run a scheduler until it has compared the code with what is stored."""
    async with q.scheduler() as scheduler:
        await eventually(lambda: scheduler.term is not None)


@pytest.fixture
def version(server: TestServer, namespace: str, q: TaskQ) -> Callable[..., TaskQ]:
    """A version of the program: `version(first=every(...), second=...)` declares these."""

    def make(module: str = "shop", /, **triggers: Any) -> TaskQ:
        app = TaskQ(server.url, namespace=namespace)
        app._settings.offset.ms = q._settings.offset.ms

        async def work() -> None: ...

        work.__module__ = module
        task = app.task(name=f"{module}.work")(work)
        for name, trigger in triggers.items():
            options: dict[str, Any] = {}
            if isinstance(trigger, tuple):
                trigger, options = trigger
            app.schedule(trigger, id=name, **options)(task)
        return app

    return make


async def test_a_decorated_task_stays_the_task(q: TaskQ) -> None:
    @q.schedule(cron("0 8 * * mon-fri", tz="Asia/Shanghai"))
    @q.schedule(every(hours=2), args=("b",), tags=["two"])
    @q.task(name="shop.report")
    async def report(text: str = "a") -> str:
        return text

    assert await report("x") == "x"
    await start(q)

    infos = {info.id: info for info in await q.schedules.list()}
    assert set(infos) == {"shop.report", "shop.report-2"}
    assert infos["shop.report"].args == ("b",)
    assert infos["shop.report"].tags == ("two",)
    assert infos["shop.report-2"].trigger == cron("0 8 * * mon-fri", tz="Asia/Shanghai")
    assert infos["shop.report"].declared == __name__


def test_what_cannot_be_declared_says_so_at_import(q: TaskQ) -> None:
    @q.task(name="shop.report")
    async def report(text: str) -> None: ...

    with pytest.raises(CallError, match="cannot be called"):
        q.schedule(every(hours=1))(report)
    with pytest.raises(UnknownOption, match="did you mean 'jitter'"):
        q.schedule(every(hours=1), jiter=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigError, match="is not a trigger"):
        q.schedule("0 8 * * *")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"above @q.task"):
        q.schedule(every(hours=1))(lambda: None)  # pyright: ignore[reportArgumentType]
    q.schedule(every(hours=1), id="one", args=("a",))(report)
    with pytest.raises(ConfigError, match="two schedules are called 'one'"):
        q.schedule(every(hours=2), id="one", args=("a",))(report)


async def test_a_restart_keeps_the_phase_and_what_was_done_at_run_time(
    q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    await start(version(a=every(hours=1), b=every(hours=1), c=every(hours=1)))
    await q.schedules.pause("b", "by ops")
    await q.schedules.modify("c", metadata={"owner": "me"})
    before = await q.schedules.list()
    q._settings.offset.ms += 100_000

    await start(version(a=every(hours=1), b=every(hours=1), c=every(hours=1)))

    assert await q.schedules.list() == before


async def test_a_change_of_the_code_is_the_only_change(
    q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    await start(version(a=every(hours=1), b=every(hours=1), c=every(hours=1)))
    before = {info.id: info for info in await q.schedules.list()}
    await q.schedules.pause("c", "by ops")
    q._settings.offset.ms += 100_000

    await start(version(a=every(hours=1), b=every(hours=3), c=every(hours=2), d=every(hours=4)))

    after = {info.id: info for info in await q.schedules.list()}
    assert set(after) == {"a", "b", "c", "d"}
    assert after["a"] == before["a"]
    assert after["b"].next_fire is not None
    assert before["b"].next_fire is not None
    assert after["b"].next_fire - before["b"].next_fire > timedelta(hours=2)
    # What somebody paused stays so
    assert after["c"].pause_reason == "by ops"


async def test_another_option_leaves_the_phase(q: TaskQ, version: Callable[..., TaskQ]) -> None:
    await start(version(a=every(hours=1)))
    before = await q.schedules.get("a")
    q._settings.offset.ms += 100_000

    await start(version(a=(every(hours=1), {"tags": ["new"]})))

    after = await q.schedules.get("a")
    assert before is not None
    assert after is not None
    assert (after.next_fire, after.tags) == (before.next_fire, ("new",))


async def test_what_the_code_no_longer_declares_is_removed(
    q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    await start(version(a=every(hours=1), b=every(hours=1)))
    added = version(a=every(hours=1))
    work = added._registry.find("shop.work")
    assert work is not None
    await added.schedules.add("by-hand", every(hours=1), work.s())
    await added.aclose()

    await start(version(a=every(hours=1)))

    # And what was added at run time is not
    assert {info.id for info in await q.schedules.list()} == {"a", "by-hand"}


async def test_two_programs_leave_each_others_schedules_alone(
    q: TaskQ, version: Callable[..., TaskQ], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await start(version("shop", a=every(hours=1)))

    await start(version("mail", b=every(hours=1)))

    assert {info.id for info in await q.schedules.list()} == {"a", "b"}
    assert "left alone" in caplog.text
    assert "a of shop" in caplog.text


async def test_the_version_that_started_last_has_decided(
    q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    old, new = version(a=every(hours=1), b=every(hours=1)), version(a=every(hours=2))
    async with old.scheduler() as first:
        await eventually(lambda: first.term is not None)
        async with new.scheduler():
            await eventually(lambda: _ids(q, {"a"}))
        # When the old one leads on, it does not bring its own back
        await q.schedules.modify("a", metadata={})
        assert {info.id for info in await q.schedules.list()} == {"a"}
    # And when it takes the office again, neither
    async with new.scheduler() as second:
        await eventually(lambda: second.term is not None)
    assert {info.id for info in await q.schedules.list()} == {"a"}


async def _ids(q: TaskQ, expected: set[str]) -> bool:
    return {info.id for info in await q.schedules.list()} == expected


async def test_a_declared_instant_fires_once_however_often_it_starts(
    q: TaskQ, version: Callable[..., TaskQ], look: redis.Redis, keys: Keys
) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)

    for _ in range(3):
        async with version(a=at(past)).scheduler():
            await eventually(lambda: _finished(q, "a"))

    info = await q.schedules.get("a")
    assert info is not None
    assert (info.fired, info.state) == (1, "finished")
    assert look.xlen(keys.lane("default", 5)) == 1


async def test_a_declared_past_instant_fires_once_in_place_of_what_has_fired_since(
    q: TaskQ, version: Callable[..., TaskQ], look: redis.Redis, keys: Keys
) -> None:
    async with version(a=(every(seconds=0.1), {"overlap": "allow"})).scheduler() as scheduler:
        await eventually(lambda: scheduler.tally.fired >= 1)
    made = look.xlen(keys.lane("default", 5))
    past = datetime.now(UTC) - timedelta(hours=1)

    for _ in range(2):
        async with version(a=at(past)).scheduler():
            await eventually(lambda: _finished(q, "a"))

    assert look.xlen(keys.lane("default", 5)) == made + 1


async def _finished(q: TaskQ, schedule: str) -> bool:
    info = await q.schedules.get(schedule)
    return info is not None and info.state == "finished"


async def test_a_schedule_may_begin_paused(q: TaskQ, version: Callable[..., TaskQ]) -> None:
    await start(version(a=(every(hours=1), {"paused": True})))
    assert (await q.schedules.resume("a")).state == "active"

    await start(version(a=(every(hours=1), {"paused": True})))

    info = await q.schedules.get("a")
    assert info is not None
    assert info.state == "active"


async def test_a_removed_schedule_of_the_code_comes_back_with_the_next_start(
    q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    app = version(a=every(hours=1))
    await start(app)
    await q.schedules.remove("a")

    await start(app)

    assert await q.schedules.get("a") is not None


# ------------------------------------------------------------------------- what cannot be computed


async def test_one_that_cannot_be_computed_is_paused_and_the_others_fire(
    q: TaskQ, version: Callable[..., TaskQ], caplog: pytest.LogCaptureFixture
) -> None:
    async with version(bad=impossible(), good=every(seconds=0.1)).scheduler() as scheduler:
        await eventually(lambda: scheduler.tally.fired + scheduler.tally.skipped >= 2)

    info = await q.schedules.get("bad")
    assert info is not None
    assert (info.state, info.next_fire) == ("paused", None)
    assert "do not fire together" in str(info.pause_reason)
    assert "schedule bad is paused, because it cannot be fired" in caplog.text


async def test_when_the_code_is_mended_it_goes_on(q: TaskQ, version: Callable[..., TaskQ]) -> None:
    await start(version(a=impossible(), b=impossible()))
    await q.schedules.modify("b", tags=["seen"])

    await start(version(a=every(hours=1), b=impossible(2)))

    mended, other = await q.schedules.get("a"), await q.schedules.get("b")
    assert mended is not None
    assert other is not None
    assert mended.state == "active"
    assert mended.next_fire is not None
    # And a change that mends nothing leaves it as it is, and mended it goes on all the same
    assert other.state == "paused"
    await start(version(a=every(hours=1), b=every(hours=2)))
    assert [info.state for info in await q.schedules.list()] == ["active", "active"]


async def test_one_that_could_not_be_fired_goes_on_when_the_code_changes(
    q: TaskQ, version: Callable[..., TaskQ], look: redis.Redis, keys: Keys
) -> None:
    # Given one that nobody could read when it was due, and the same one paused by a person then
    await start(version(a=every(seconds=0.1), b=every(seconds=0.1)))
    for name in ("a", "b"):
        look.hset(keys.schedule_prefix + name, "s", b"rubbish")
    async with q.scheduler():
        await eventually(lambda: _paused(q, "a"))
        await eventually(lambda: _paused(q, "b"))
    await q.schedules.pause("b", "by ops")

    await start(version(a=every(hours=1), b=every(hours=1)))

    states = {info.id: (info.state, info.pause_reason) for info in await q.schedules.list()}
    assert states == {"a": ("active", None), "b": ("paused", "by ops")}


async def _paused(q: TaskQ, schedule: str) -> bool:
    info = await q.schedules.get(schedule)
    return info is not None and info.paused


async def test_one_that_is_to_begin_paused_does_so_whether_it_can_be_computed_or_not(
    q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    await start(version(a=(impossible(), {"paused": True})))
    await start(version(a=(every(hours=1), {"paused": True})))

    info = await q.schedules.get("a")
    assert info is not None
    assert info.pause_reason == "paused by the code"
    assert (await q.schedules.resume("a")).state == "active"


async def test_an_error_nobody_foresaw_is_told_and_storing_is_tried_again(
    q: TaskQ, version: Callable[..., TaskQ], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    failed: list[bool] = []

    async def fails_once(*given: Any) -> None:
        if not failed:
            failed.append(True)
            raise RuntimeError("nobody foresaw this")
        await reconcile(*given)

    monkeypatch.setattr("taskq.schedules.scheduler.reconcile", fails_once)

    await start(version(a=every(hours=1)))

    assert await q.schedules.get("a") is not None
    assert "nobody foresaw this" in caplog.text


async def test_a_scheduler_that_ends_by_itself_says_so(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr("taskq.schedules.scheduler.Broker", fails)

    async with q.scheduler():
        await eventually(lambda: "the scheduler has ended" in caplog.text)

    assert "nobody foresaw this" in caplog.text

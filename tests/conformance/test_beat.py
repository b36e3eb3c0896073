"""Celery Beat and taskq, the installed ones, in the same situations.

Beat runs as it does in its process: its own scheduler, with a file beside it, sending through a
broker in memory. What was sent is counted in the queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import crontab
from kombu.transport.memory import Channel

from taskq import TaskQ, UnknownTask, cron, every
from tests.support.leaks import remove_keys
from tests.support.server import TestServer
from tests.support.waiting import eventually


class Beat:
    """Beats of one application, each with a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.app = Celery("shop", broker="memory://", set_as_current=False)

    @contextmanager
    def started(self, file: str = "one", **entries: Any) -> Iterator[PersistentScheduler]:
        """A beat with these entries: `id=schedule` each."""
        self.app.conf.beat_schedule = {
            name: {"task": f"shop.{name}", "schedule": schedule}
            for name, schedule in entries.items()
        }
        scheduler = PersistentScheduler(
            app=self.app, schedule_filename=str(self._folder / file), max_interval=0.05
        )
        yield scheduler
        scheduler.close()

    def sent(self) -> int:
        """How many messages there are."""
        with self.app.connection_for_read() as connection:
            channel = connection.default_channel
            return channel.queue_declare("celery", passive=False).message_count


@pytest.fixture
def beat(tmp_path: Path) -> Iterator[Beat]:
    beat = Beat(tmp_path)
    beat.sent()
    yield beat
    beat.app.close()
    # Its queues belong to the process.
    Channel.queues.clear()


def names(scheduler: PersistentScheduler) -> set[str]:
    """The entries of the code."""
    return {name for name in scheduler.schedule if not name.startswith("celery.")}


@pytest.fixture
async def q(server: TestServer, namespace: str, look: redis.Redis) -> AsyncIterator[TaskQ]:
    app = TaskQ(server.url, namespace=namespace)
    yield app
    await app.aclose()
    remove_keys(look, namespace)


@pytest.fixture
def version(server: TestServer, namespace: str, q: TaskQ) -> Callable[..., TaskQ]:
    """A version of the program that declares these: `id=trigger` each."""

    def make(**triggers: Any) -> TaskQ:
        app = TaskQ(server.url, namespace=namespace)
        app._settings.offset.ms = q._settings.offset.ms

        @app.task(name="shop.work")
        async def work() -> None: ...

        for name, trigger in triggers.items():
            app.schedule(trigger, id=name, overlap="allow")(work)
        return app

    return make


async def started(app: TaskQ) -> None:
    """Start a scheduler and stop it again."""
    async with app.scheduler() as scheduler:
        await eventually(lambda: scheduler.term is not None)


def fired(look: redis.Redis, namespace: str) -> list[str]:
    """Ids of the jobs that were made."""
    entries: Any = look.xrange(f"{{{namespace}}}:q:default/5")
    return [fields[b"i"].decode() for _, fields in entries]


async def test_two_of_them_send_twice_and_taskq_once(
    beat: Beat, q: TaskQ, version: Callable[..., TaskQ], look: redis.Redis, namespace: str
) -> None:
    # Given two of each, with an entry for every fifth of a second
    with beat.started("one", a=0.2) as one, beat.started("two", a=0.2) as two:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            one.tick()
            two.tick()
            await asyncio.sleep(0.01)
        each = one.schedule["a"].total_run_count

    # Then Beat has sent each twice
    assert each >= 4
    assert beat.sent() == 2 * each

    app = version(a=every(seconds=0.2))
    async with app.scheduler(), app.scheduler():
        await eventually(lambda: len(fired(look, namespace)) >= 6)
    # And taskq each once
    made = fired(look, namespace)
    assert len(made) == len(set(made))
    instants = [datetime.fromisoformat(name.partition("@")[2]) for name in made]
    assert (max(instants) - min(instants)) / timedelta(seconds=0.2) == len(made) - 1


async def test_after_hours_without_it_both_catch_up_once(
    beat: Beat, q: TaskQ, version: Callable[..., TaskQ], look: redis.Redis, namespace: str
) -> None:
    # Given an hourly entry, and five hours without anybody
    with beat.started(a=crontab(minute="0", app=beat.app)) as one:
        one.schedule["a"].last_run_at = datetime.now(UTC) - timedelta(hours=5)
    app = version(a=cron("0 * * * *"))
    await started(app)
    later = version(a=cron("0 * * * *"))
    q._settings.offset.ms = later._settings.offset.ms = 5 * 3_600_000

    # When they are back
    with beat.started(a=crontab(minute="0", app=beat.app)) as one:
        for _ in range(5):
            one.tick()
        assert one.schedule["a"].total_run_count == 1
    async with later.scheduler():
        await eventually(lambda: fired(look, namespace))

    assert beat.sent() == 1
    assert len(fired(look, namespace)) == 1
    # And taskq has counted the others
    info = await q.schedules.get("a")
    assert info is not None
    assert (info.fired, info.skipped) == (1, 4)


async def test_changed_and_removed_entries_are_noticed_at_the_next_start(
    beat: Beat, q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    with beat.started(a=60.0, b=60.0) as one:
        assert names(one) == {"a", "b"}
    await started(version(a=every(seconds=60), b=every(seconds=60)))

    with beat.started(a=120.0, c=60.0) as one:
        assert names(one) == {"a", "c"}
        assert one.schedule["a"].schedule.run_every == timedelta(seconds=120)
    await started(version(a=every(seconds=120), c=every(seconds=60)))

    infos = {info.id: info for info in await q.schedules.list()}
    assert set(infos) == {"a", "c"}
    assert infos["a"].explain().startswith("every 2 minutes")


async def test_a_restart_keeps_the_phase_of_an_interval(
    beat: Beat, q: TaskQ, version: Callable[..., TaskQ]
) -> None:
    with beat.started(a=3600.0) as one:
        one.schedule["a"].last_run_at = datetime.now(UTC) - timedelta(minutes=50)
    with beat.started(a=3600.0) as one:
        assert one.schedule["a"].is_due()[1] == pytest.approx(600, abs=5)
    # But only where its file is
    with beat.started("elsewhere", a=3600.0) as one:
        assert one.schedule["a"].is_due()[1] == pytest.approx(3600, abs=5)

    await started(version(a=every(hours=1)))
    before = await q.schedules.get("a")
    q._settings.offset.ms = 50 * 60_000
    await started(version(a=every(hours=1)))

    assert await q.schedules.get("a") == before


async def test_an_entry_added_while_it_runs_is_noticed_by_taskq_alone(
    beat: Beat, q: TaskQ, version: Callable[..., TaskQ], look: redis.Redis, namespace: str
) -> None:
    with beat.started(a=3600.0) as one:
        one.tick()
        beat.app.conf.beat_schedule["b"] = {"task": "shop.b", "schedule": 0.01}
        await asyncio.sleep(0.05)
        one.tick()
        assert names(one) == {"a"}

    app = version(a=every(hours=1))
    async with app.scheduler() as scheduler:
        await eventually(lambda: scheduler.term is not None)
        work = app._registry.find("shop.work")
        assert work is not None
        await app.schedules.add("b", every(seconds=0.2), work.s())
        await eventually(lambda: fired(look, namespace))
    await app.aclose()


async def test_a_task_nobody_knows_is_sent_by_beat_and_refused_by_taskq(
    beat: Beat, q: TaskQ
) -> None:
    with beat.started(misspelt=0.01) as one:
        await asyncio.sleep(0.05)
        one.tick()
        one.tick()
    assert beat.sent() >= 1

    with pytest.raises(UnknownTask):
        await q.schedules.add("a", every(hours=1), q.remote("shop.misspelt").s())

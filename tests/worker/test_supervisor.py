"""The supervisor: what it starts again and when, how it ends, and what it tells the server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from taskq import JobState, TaskQ
from taskq.broker.broker import Broker
from taskq.worker import supervisor as module
from taskq.worker.supervisor import Supervisor, SupervisorSettings
from taskq.worker.worker_process import RECYCLED
from tests.support.waiting import eventually

STAND_IN = Path(__file__).with_name("stand_in.py")


class Diary:
    """What the processes of one supervisor wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, event: str) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    async def until(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until `event` happened so often."""
        return await eventually(lambda: len(found := self.entries(event)) >= times and found)


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def supervisor(q: TaskQ, diary: Diary, *behaviours: str, **settings: Any) -> Supervisor:
    command = [sys.executable, "-S", str(STAND_IN), str(diary.path), *behaviours]
    given = {"workers": 1, "name": "sup", "grace": 5.0} | settings
    return Supervisor(q._settings, SupervisorSettings(command=command, **given))


@asynccontextmanager
async def running(made: Supervisor) -> AsyncIterator[asyncio.Task[bool]]:
    """Run it; whatever the test finds, its processes are ended."""
    run = asyncio.create_task(made.run())
    try:
        yield run
    finally:
        if not run.done():
            made.stop()
            made.stop()
            await run


# ------------------------------------------------------------------------------- starting again


async def test_each_process_gets_a_name_of_its_own(q: TaskQ, diary: Diary) -> None:
    async with running(supervisor(q, diary, "wait", workers=2)):
        served = await diary.until("serve", times=2)
        for entry in served:
            os.kill(entry["pid"], signal.SIGKILL)
        names = [entry["name"] for entry in await diary.until("serve", times=4)]

    assert len(set(names)) == 4
    assert sorted(name.rpartition("-")[0] for name in names) == ["sup-1"] * 2 + ["sup-2"] * 2
    assert {entry["supervisor"] for entry in diary.entries("start")} == {os.getpid()}


async def test_a_process_that_dies_at_work_is_replaced_after_growing_pauses(
    q: TaskQ, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(supervisor(q, diary, "crash", "crash", "exit3", "crash", "wait")):
        starts = [entry["at"] for entry in await diary.until("start", times=5)]

    pauses = [after - before for before, after in pairwise(starts)]
    for pause, least in zip(pauses, [0.1, 0.2, 0.4, 0.8], strict=True):
        assert least <= pause < least + 1.0
    assert "was killed by SIGSEGV" in caplog.text
    assert "ended with exit code 3" in caplog.text


async def test_a_recycled_process_is_replaced_at_once(
    q: TaskQ, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    behaviours = [f"exit{RECYCLED}"] * 8 + ["wait"]

    async with running(supervisor(q, diary, *behaviours)):
        starts = [entry["at"] for entry in await diary.until("start", times=9)]

    # Pauses that doubled would add up to 17 seconds.
    assert starts[-1] - starts[0] < 4.0
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


async def test_a_process_that_cannot_start_is_given_up_after_five_times(
    q: TaskQ,
    diary: Diary,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.1)
    async with running(supervisor(q, diary, "1=wait", "2=fail2", workers=2)) as run:
        all_well = await asyncio.wait_for(run, 15)

    assert all_well is False
    assert len(diary.entries("start")) == 6
    assert "failed to start 5 times in a row and ended with exit code 2" in caplog.text
    assert [entry["slot"] for entry in diary.entries("signal")] == ["1"]


async def test_a_process_that_starts_in_between_is_not_given_up(
    q: TaskQ, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.1)
    failing = ["fail1"] * 4
    behaviours = [*failing, f"exit{RECYCLED}", *failing, "wait"]

    async with running(supervisor(q, diary, *behaviours)) as run:
        await diary.until("serve", times=2)
        assert not run.done()


async def test_a_command_that_is_not_there_is_tried_again(
    q: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    settings = SupervisorSettings(command=["/not/there"], workers=1, name="sup")

    async with running(Supervisor(q._settings, settings)):
        await eventually(lambda: caplog.text.count("cannot start worker 1") >= 2)


# --------------------------------------------------------------------------------------- ending


async def test_burst_is_over_when_every_process_has_ended(q: TaskQ, diary: Diary) -> None:
    behaviours = ["1=exit0", f"2=exit{RECYCLED}", "2=exit0"]

    async with running(supervisor(q, diary, *behaviours, workers=2, burst=True)) as run:
        assert await asyncio.wait_for(run, 10) is True

    assert len(diary.entries("serve")) == 3


async def test_a_process_that_somebody_drained_is_replaced(q: TaskQ, diary: Diary) -> None:
    async with running(supervisor(q, diary, "wait")):
        (first,) = await diary.until("serve")
        os.kill(first["pid"], signal.SIGTERM)

        await diary.until("serve", times=2)


async def test_stopping_drains_and_stopping_again_ends_now(q: TaskQ, diary: Diary) -> None:
    made = supervisor(q, diary, "busy", grace=60.0)
    async with running(made) as run:
        await diary.until("serve")

        made.stop()
        await diary.until("signal")
        assert not run.done()
        made.stop()

        assert await asyncio.wait_for(run, 5) is True
    assert [entry["signal"] for entry in diary.entries("signal")] == ["SIGTERM"]
    # A word, not a signal: any signal may come from a terminal or a service manager as well
    assert [entry["word"] for entry in diary.entries("word")] == ["!"]


async def test_a_process_that_does_not_end_is_killed(
    q: TaskQ, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILL_MARGIN_SECONDS", 0.2)
    made = supervisor(q, diary, "stay", grace=0.1)
    async with running(made) as run:
        await diary.until("serve")

        made.stop()

        assert await asyncio.wait_for(run, 5) is False


async def test_a_process_that_is_still_starting_is_stopped_too(q: TaskQ, diary: Diary) -> None:
    made = supervisor(q, diary, "wait")
    async with running(made) as run:
        await asyncio.sleep(0)

        made.stop()

        assert await asyncio.wait_for(run, 5) is True


# ------------------------------------------------------------------------------------ reloading


async def test_reloading_replaces_every_process(q: TaskQ, diary: Diary) -> None:
    made = supervisor(q, diary, "wait", workers=2, reloads=True)
    async with running(made):
        before = {entry["pid"] for entry in await diary.until("serve", times=2)}

        made.reload()

        served = await diary.until("serve", times=4)
        assert len({entry["pid"] for entry in served} - before) == 2


async def test_reloading_does_not_wait_long_for_jobs(
    q: TaskQ, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_GRACE_SECONDS", 0.2)
    made = supervisor(q, diary, "busy", "wait", grace=60.0, reloads=True)
    async with running(made):
        await diary.until("serve")

        made.reload()

        await diary.until("serve", times=2)
    assert [entry["word"] for entry in diary.entries("word")] == ["!"]


async def test_code_that_does_not_start_waits_for_the_next_change(
    q: TaskQ, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    made = supervisor(q, diary, "fail2", "wait", reloads=True)
    async with running(made):
        await eventually(lambda: "worker 1 could not start; waiting for a change" in caplog.text)
        assert len(diary.entries("start")) == 1

        made.reload()

        await diary.until("serve")


# ------------------------------------------------------------------------- what the server hears


async def held_by(q: TaskQ, worker: str, job_id: str) -> None:
    """Have a worker of this name take the job, as the process that is to die would."""
    broker = Broker(q._settings)
    await broker.leases.register(worker, b"", 1, ["default"])
    taken = await broker.consumer(worker).fetch(1, ["default"])
    assert [delivery.id for delivery in taken] == [job_id]
    await broker.aclose()


@pytest.mark.leaves_jobs
async def test_the_jobs_of_a_process_that_died_are_free_at_once(q: TaskQ, diary: Diary) -> None:
    @q.task(name="job")
    async def job() -> None: ...

    made = supervisor(q, diary, "wait")
    async with running(made):
        (first,) = await diary.until("serve")
        taken = await job.enqueue()
        await held_by(q, first["name"], taken.id)
        assert await taken.status() is JobState.RUNNING

        os.kill(first["pid"], signal.SIGKILL)

        async def is_queued() -> bool:
            return await taken.status() is JobState.QUEUED

        await eventually(is_queued, within=2.0)
        info = await taken.info()
        assert info is not None


@pytest.mark.leaves_jobs
async def test_a_server_that_is_gone_keeps_nobody(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    q = TaskQ("unix:///not/there")
    async with running(supervisor(q, diary, "wait")):
        (first,) = await diary.until("serve")

        os.kill(first["pid"], signal.SIGKILL)

        await diary.until("serve", times=2)
        await eventually(lambda: "they will run some seconds later" in caplog.text)

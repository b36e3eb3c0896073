"""kill -9 of a worker in the middle of its work: nothing is lost, and little is done twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from taskq import Job, JobFailed, JobState, TaskQ
from taskq.broker.keys import Keys
from tests.faults import ledger_app
from tests.faults.conftest import StartWorker
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

SHORT, LONG = 10_000, 20


@pytest.mark.timeout(120)
@pytest.mark.leaves_jobs
async def test_of_ten_thousand_jobs_none_is_lost_and_only_running_ones_run_twice(
    q: TaskQ, server: TestServer, namespace: str, look: redis.Redis, start_worker: StartWorker,
    tmp_path: Path,
) -> None:  # fmt: skip
    ledger = str(tmp_path / "ledger")
    Path(ledger).touch()
    program = ledger_app.program(server.url, namespace)
    task = program._registry.find("run")
    assert task is not None

    # Given two workers in the middle of many short jobs and some long ones
    long = await program.enqueue_many(
        [task.options(priority=9).s(ledger, 3.0) for _ in range(LONG)]
    )
    short = await program.enqueue_many([task.s(ledger, 0.0) for _ in range(SHORT)])
    victim = await asyncio.to_thread(start_worker, "default")
    await eventually(lambda: _starts(ledger) >= LONG)
    survivor = await asyncio.to_thread(start_worker, "default")
    await eventually(lambda: _starts(ledger) >= SHORT // 4, within=30)

    # When one is killed
    victim.kill()
    victim.wait(10)
    killed_at = os.stat(ledger).st_mtime
    held = _held(look, namespace, victim.pid)
    before = ledger_app.read(ledger)

    # Then every job ends, and each with one result
    jobs = [*long, *short]
    results = await asyncio.gather(*(job.result(timeout=60) for job in jobs))
    lines = ledger_app.read(ledger)
    ended = {line.job for line in lines if line.what == "end"}
    assert {job.id for job in jobs} == ended
    assert {await job.status() for job in long} == {JobState.SUCCEEDED}

    # And those that ran twice are those the victim had in its hands
    starts = Counter(line.job for line in lines if line.what == "start")
    twice = {job for job, count in starts.items() if count > 1}
    open_at_kill = {
        line.job for line in before if line.pid == victim.pid and line.what == "start"
    } - {line.job for line in before if line.what == "end"}
    assert {job.id for job in long} & open_at_kill <= twice
    assert len(open_at_kill) <= len(twice) <= held
    assert max(starts.values()) <= 2
    assert all(
        line.pid == survivor.pid for line in lines if line.what == "start" and line.attempt > 1
    )
    assert set(results) == {1, 2}

    recovered = min(line.at for line in lines if line.job in twice and line.attempt > 1)
    print(f"recovered {recovered - killed_at:.1f} s after kill -9; {len(twice)} jobs ran twice")
    assert recovered - killed_at < 15
    await program.aclose()


def _starts(ledger: str) -> int:
    return sum(line.what == "start" for line in ledger_app.read(ledger))


def _held(look: redis.Redis, namespace: str, pid: int) -> int:
    """How many jobs the server says this process holds."""
    held = look.hgetall(Keys(namespace).held)
    return sum(int(count) for name, count in held.items() if f"-{pid}-" in str(name))


@pytest.mark.timeout(120)
@pytest.mark.leaves_jobs
@pytest.mark.parametrize("how", ["kill", "segv"])
async def test_a_job_that_kills_every_worker_is_given_up_and_the_others_are_not(
    q: TaskQ, server: TestServer, namespace: str, start_worker: StartWorker, tmp_path: Path,
    how: str,
) -> None:  # fmt: skip
    ledger = str(tmp_path / "ledger")
    Path(ledger).touch()
    program = ledger_app.program(server.url, namespace)
    kill, run = program._registry.find(how), program._registry.find("run")
    assert kill is not None
    assert run is not None

    # Given a poisonous job among innocent ones, and somebody who starts worker after worker
    poison = await kill.enqueue(ledger)
    innocent = await program.enqueue_many([run.s(ledger, 0.05) for _ in range(10)])
    await asyncio.to_thread(start_worker, "elsewhere", lease=1.0)
    deaths, worker = 0, None
    while not (await poison.status()).finished:
        worker = await asyncio.to_thread(start_worker, "default", lease=1.0)
        await eventually(lambda worker=worker: _either_over(poison, worker), within=20)
        deaths += worker.poll() is not None

    # Then three were enough
    assert deaths == 3
    with pytest.raises(JobFailed, match="3 workers died while they ran this job"):
        await poison.result(timeout=5)
    assert sum(line.job == poison.id for line in ledger_app.read(ledger)) == 3

    # And the others have ended, though they were in the hands of the workers that died
    if worker is None or worker.poll() is not None:
        await asyncio.to_thread(start_worker, "default")
    await asyncio.gather(*(job.result(timeout=20) for job in innocent))
    await program.aclose()


async def _either_over(job: Job[Any], worker: subprocess.Popen[bytes]) -> bool:
    return worker.poll() is not None or (await job.status()).finished

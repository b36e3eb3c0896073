"""`taskq worker -w N`: several worker processes and the supervisor that keeps them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import redis

from taskq import Job, JobState, TaskQ
from tests.cli.terminal import Command, Terminal, is_running
from tests.support.waiting import eventually, eventually_sync

SIGTERM, SIGINT, SIGKILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
SIGHUP, SIGQUIT = signal.SIGHUP, signal.SIGQUIT

pytestmark = pytest.mark.faults


async def until_in(job: Job[object], state: JobState) -> None:
    async def is_in() -> bool:
        return await job.status() is state

    await eventually(is_in)


async def runner_of(q: TaskQ, job: Job[object], command: Command) -> int:
    """The pid of the worker process that runs a job."""
    await until_in(job, JobState.RUNNING)
    info = await job.info()
    assert info is not None
    for pid in command.children:
        if f"TASKQ_SUPERVISED={info.worker} " in Path(f"/proc/{pid}/environ").read_text():
            return pid
    raise AssertionError(f"no child is called {info.worker}")


def registered(look: redis.Redis, namespace: str) -> set[str]:
    """The workers the server counts as living."""
    return {name.decode() for name in look.zrange(f"{{{namespace}}}:workers", 0, -1)}


async def test_jobs_of_a_killed_process_run_again_within_a_second_or_so(
    q: TaskQ, terminal: Terminal
) -> None:
    # Given two processes, one of which runs a job that would never end
    command = terminal.type("worker", "app:q", "-w", "2").until_ready(workers=2)
    job = await q.send("app.hangs_at_first")
    victim = await runner_of(q, job, command)

    # When that one is killed
    os.kill(victim, SIGKILL)
    killed_at = time.monotonic()

    # Then its job runs again at once, elsewhere: nobody waits for its beats to stand still
    attempt, pid = await job.result(timeout=10)
    assert time.monotonic() - killed_at < 3.0
    assert (attempt, pid == victim) == (2, False)

    # And there are two processes again, which drain
    command.until_ready(workers=3)
    assert len(command.children) == 2
    assert "was killed by SIGKILL" in command.errors
    assert "1 of its jobs go to others" in command.errors
    command.signal(SIGTERM)
    assert command.ended() == 0


@pytest.mark.parametrize("which", [SIGTERM, SIGHUP, SIGQUIT])
async def test_a_signal_drains_all_and_the_workers_leave_nothing(
    q: TaskQ, terminal: Terminal, look: redis.Redis, namespace: str, which: signal.Signals
) -> None:
    command = terminal.type("worker", "-w", "2").until_ready(workers=2)
    job = await q.send("app.sleepy", 1.0)
    await eventually(lambda: terminal.asleep)

    # When a service manager signals every process, as systemd does
    children = command.children
    for pid in {command.pid} | children:
        os.kill(pid, which)

    # Then that is the first signal, not the second
    assert command.ended() == 0
    assert await job.result(timeout=1) == "slept"
    assert registered(look, namespace) == set()
    assert not any(is_running(pid) for pid in children)


@pytest.mark.leaves_jobs
@pytest.mark.parametrize("which", [SIGINT, SIGQUIT])
async def test_a_second_signal_ends_all_now(
    q: TaskQ, terminal: Terminal, which: signal.Signals
) -> None:
    command = terminal.type("worker", "-w", "2").until_ready(workers=2)
    job = await q.send("app.sleepy", 600.0)
    await eventually(lambda: terminal.asleep)

    command.signal(which)
    command.until_written("stopping; 1 running job has")
    command.signal(which)

    assert command.ended() == 0
    assert await job.status() is JobState.QUEUED


async def test_workers_whose_supervisor_was_killed_drain_and_end(
    q: TaskQ, terminal: Terminal, look: redis.Redis, namespace: str
) -> None:
    command = terminal.type("worker", "-w", "2").until_ready(workers=2)
    children = command.children
    job = await q.send("app.sleepy", 1.0)
    await eventually(lambda: terminal.asleep)

    command.signal(SIGKILL)

    await eventually(lambda: not any(is_running(pid) for pid in children))
    assert await job.result(timeout=1) == "slept"
    assert registered(look, namespace) == set()


async def test_a_burst_of_several_processes_ends_when_nothing_is_due(
    q: TaskQ, terminal: Terminal
) -> None:
    jobs = [await q.send("app.add", number, 1) for number in range(50)]

    done = terminal.output("worker", "-w", "2", "--burst")

    assert done.returncode == 0, done.stderr
    assert [await job.result(timeout=1) for job in jobs] == list(range(1, 51))


async def test_a_worker_is_replaced_after_max_jobs(q: TaskQ, terminal: Terminal) -> None:
    command = terminal.type("worker", "--max-jobs", "3").until_ready()

    pids = [await (await q.send("app.pid")).result(timeout=5) for _ in range(3)]
    command.until_ready(workers=2)
    pids.append(await (await q.send("app.pid")).result(timeout=5))

    assert len(set(pids)) == 2
    assert pids[0] == pids[2] != pids[3]
    assert "recycling this worker: it ended 3 attempts" in command.errors
    assert "ERROR" not in command.errors
    command.signal(SIGTERM)
    assert command.ended() == 0


async def test_a_worker_that_grew_too_large_is_replaced(q: TaskQ, terminal: Terminal) -> None:
    command = terminal.type("worker", "--max-memory", "1MB")

    command.until_written(r"recycling this worker: it holds \d+ MiB", times=2)

    command.signal(SIGTERM)
    assert command.ended() == 0


@pytest.mark.slow
async def test_changed_code_replaces_the_workers(
    q: TaskQ, terminal: Terminal, tmp_path: Path
) -> None:
    # Given a worker that watches the folder
    command = terminal.type("worker", "--reload", "-w", "1").until_ready()
    command.until_written("watching the Python files")
    assert await (await q.send("app.add", 2, 3)).result(timeout=5) == 5
    source = (tmp_path / "app.py").read_text()

    # When the code is broken for a while
    eventually_sync(lambda: changed(tmp_path, source + "\n1 / 0\n", command, "could not start"))

    # Then the supervisor waits, and the next change is served
    eventually_sync(
        lambda: changed(tmp_path, source.replace("a + b", "a * b"), command, r"ready(.|\n)*ready")
    )
    assert await (await q.send("app.add", 2, 3)).result(timeout=5) == 6
    command.signal(SIGTERM)
    assert command.ended() == 0


def changed(folder: Path, source: str, command: Command, pattern: str) -> bool:
    """Write `source`; whether the command took notice soon. A watch may begin a moment late."""
    (folder / "app.py").write_text(source)
    try:
        command.until_written(pattern, within=4.0)
    except AssertionError:
        return False
    return True


def test_reload_without_watchfiles_says_what_to_install(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "watchfiles.py").write_text("raise ImportError('not installed')\n")

    done = terminal.output("worker", "--reload")

    assert done.returncode == 2
    assert 'pip install ".[reload]"' in done.stderr

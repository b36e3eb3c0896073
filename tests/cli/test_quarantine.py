"""Jobs that bring down their workers, among others, as `taskq worker` runs them."""

from __future__ import annotations

import os
import signal

import pytest

from taskq import JobFailed, TaskQ
from tests.cli.terminal import Terminal, is_running
from tests.support.waiting import eventually, eventually_sync

pytestmark = pytest.mark.faults


async def make_suspect(q: TaskQ) -> None:
    """Two workers die with what is queued now."""
    broker = q._backend.current()
    for name in ("dead1", "dead2"):
        await broker.leases.register(name, b"", 10, ["default"])
        assert await broker.consumer(name).fetch(100, ["default"])
        await broker.leases.reap(name, broker.reap_policy)


async def test_a_poisonous_job_among_others_is_found_and_the_rest_of_the_queue_goes_on(
    q: TaskQ, terminal: Terminal
) -> None:
    # Given a job that kills its worker, beside thirty that take a second
    poison = await q.send("app.kills")
    innocent = await q.enqueue_many([q.remote("app.sleepy").s(1.0) for _ in range(30)])
    await make_suspect(q)

    # When one worker is started, which nobody starts again
    command = terminal.type("worker", "app:q").until_ready()

    # Then an unrelated job runs at once, the innocent ones together, and the worker lives
    assert await (await q.send("app.add", 1, 2)).result(timeout=10) == 3
    for job in innocent:
        assert await job.result(timeout=30) == "slept"
    with pytest.raises(JobFailed, match="workers died while they ran this job"):
        await poison.result(timeout=30)
    assert is_running(command.pid)
    command.signal(signal.SIGTERM)
    assert command.ended(20) == 0
    assert "run in a worker of their own" in command.errors


async def test_a_worker_that_stops_lets_its_suspects_finish(q: TaskQ, terminal: Terminal) -> None:
    job = await q.send("app.sleepy", 1.5)
    await make_suspect(q)
    command = terminal.type("worker", "app:q").until_ready()
    await eventually(lambda: terminal.asleep, within=20)

    command.signal(signal.SIGTERM)

    assert command.ended(20) == 0
    assert await job.result(timeout=5) == "slept"
    assert (await job.info()).crashes == 2


@pytest.mark.leaves_jobs
async def test_the_suspects_of_a_worker_that_was_killed_are_none_the_worse_for_it(
    q: TaskQ, terminal: Terminal
) -> None:
    job = await q.send("app.sleepy", 2.0)
    await make_suspect(q)
    command = terminal.type("worker", "app:q").until_ready()
    await eventually(lambda: terminal.asleep, within=20)
    children = list(command.children)

    os.kill(command.pid, signal.SIGKILL)

    # Then the process that runs it notices, lets it finish, and leaves
    assert await job.result(timeout=20) == "slept"
    assert (await job.info()).crashes == 2
    eventually_sync(lambda: not any(map(is_running, children)), within=20)

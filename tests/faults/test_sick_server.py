"""A server that is there and does not serve: who asks waits, or learns at once what to do."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis

from taskq import QueueFull, ServerRefused, ServerUnavailable, TaskQ
from taskq.broker.keys import GROUP
from tests.support.scripts import last_heartbeat
from tests.support.server import TestServer, debug_options
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

NAMESPACE = "sick"


@pytest.fixture
def sick() -> Iterator[TestServer]:
    """A server that this test may make ill."""
    server = TestServer(*debug_options())
    yield server
    server.close()


@pytest.fixture
def nurse(sick: TestServer) -> Iterator[Any]:
    """An administrator's connection."""
    client = redis.Redis(unix_socket_path=str(sick.socket), socket_timeout=30)
    yield client
    client.close()


@pytest.fixture
async def q(sick: TestServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(sick.url, namespace=NAMESPACE, enqueue_deadline=20.0)
    app.task(name="one")(one)
    yield app
    await app.aclose()


@pytest.fixture
async def hasty(sick: TestServer) -> AsyncIterator[TaskQ]:
    """Another program, that gives up soon."""
    app = TaskQ(sick.url, namespace=NAMESPACE, enqueue_deadline=0.2)
    app.task(name="one")(one)
    yield app
    await app.aclose()


async def one() -> int:
    return 1


def task_of(q: TaskQ) -> Any:
    return q._registry.find("one")


async def survives(
    q: TaskQ, hasty: TaskQ, fall_ill: Callable[[], Any], recover: Callable[[], Any], words: str
) -> None:
    """A job enqueued during the illness runs after it, and who cannot wait is told `words`."""
    async with q.worker() as worker:
        assert await (await task_of(q).enqueue()).result(timeout=10) == 1
        await task_of(hasty).enqueue()
        await asyncio.to_thread(fall_ill)

        patient = asyncio.create_task(task_of(q).enqueue())
        with pytest.raises(ServerUnavailable, match=words):
            await task_of(hasty).enqueue()
        assert not patient.done()

        await asyncio.to_thread(recover)
        assert await (await patient).result(timeout=15) == 1
        # And nobody was taken for dead meanwhile
        assert worker.tally.reaped == worker.tally.lost == worker.tally.fenced == 0


async def test_a_primary_that_became_a_replica_is_looked_for_again(
    q: TaskQ, hasty: TaskQ, nurse: Any
) -> None:
    asked: list[float] = []
    locate = q._settings.locate

    async def asked_where() -> Any:
        asked.append(time.monotonic())
        return await locate()

    object.__setattr__(q._settings, "locate", asked_where)
    await survives(
        q,
        hasty,
        lambda: nurse.replicaof("127.0.0.1", 1),
        lambda: nurse.replicaof("NO", "ONE"),
        "is a replica and takes no writes; looking for the primary again",
    )
    # Given that it was asked where the server is, and not only at the start
    assert len(asked) > 3


async def test_a_server_busy_with_a_script_is_waited_for(
    q: TaskQ, hasty: TaskQ, nurse: Any, sick: TestServer
) -> None:
    nurse.config_set("lua-time-limit", 50)
    other = redis.Redis(unix_socket_path=str(sick.socket))
    running = threading.Thread(target=lambda: _endless(other))

    def recover() -> None:
        nurse.script_kill()
        running.join(10)

    def fall_ill() -> None:
        running.start()
        time.sleep(0.3)

    await survives(q, hasty, fall_ill, recover, "is busy running a script")
    other.close()


def _endless(client: Any) -> None:
    with pytest.raises(redis.ResponseError):
        client.eval("while true do end", 0)


async def test_a_server_whose_disk_is_full_is_waited_for_and_loses_nothing(
    q: TaskQ, hasty: TaskQ, nurse: Any, sick: TestServer
) -> None:
    assert sick.process is not None
    pid = sick.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)

    def fall_ill() -> None:
        largest = max(f.stat().st_size for f in sick.directory.rglob("*.aof"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest + 10, hard))
        deadline = time.monotonic() + 10
        while nurse.info("persistence")["aof_last_write_status"] == "ok":
            assert time.monotonic() < deadline
            try:
                nurse.set("filler", "x" * 100)
            except redis.ResponseError:
                continue

    def recover() -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    await survives(q, hasty, fall_ill, recover, "cannot write its data to its disk")

    # And what was acknowledged is there after a restart
    jobs = [await task_of(q).enqueue() for _ in range(10)]
    await asyncio.to_thread(sick.stop)
    await asyncio.to_thread(sick.start)
    assert await q.run_until_empty() == 10
    assert all([(await job.status()).finished for job in jobs])


async def test_a_server_with_too_many_clients_is_waited_for(
    q: TaskQ, hasty: TaskQ, nurse: Any
) -> None:
    async with q.worker():
        await (await task_of(q).enqueue()).result(timeout=10)
        nurse.config_set("maxclients", len(nurse.client_list()))

        # Given that those who are connected go on
        assert await (await task_of(q).enqueue()).result(timeout=10) == 1
        # When one more comes
        with pytest.raises(ServerUnavailable, match="reached its maxclients"):
            await task_of(hasty).enqueue()

        # Then it gets in as soon as there is room
        nurse.config_set("maxclients", 100)
        assert await (await task_of(hasty).enqueue()).result(timeout=10) == 1


async def test_a_password_that_is_missing_is_explained_at_once(
    q: TaskQ, hasty: TaskQ, nurse: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with q.worker() as worker:
        await (await task_of(q).enqueue()).result(timeout=10)
        nurse.config_set("requirepass", "s3cret")
        nurse.client_kill_filter(_type="normal", skipme=True)
        nurse.client_kill_filter(_type="pubsub", skipme=True)

        before = time.monotonic()
        with pytest.raises(ServerRefused, match="refuses this client: NOAUTH"):
            await task_of(q).enqueue()
        assert time.monotonic() - before < 3
        await eventually(lambda: "cannot fetch jobs" in caplog.text)

        # When it is lifted, the worker goes on by itself
        nurse.config_set("requirepass", "")
        assert await (await task_of(hasty).enqueue()).result(timeout=10) == 1
        assert worker.tally.lost == worker.tally.fenced == 0
    assert "s3cret" not in caplog.text


async def test_a_full_server_refuses_at_once_is_emptied_and_takes_jobs_again(
    q: TaskQ, nurse: Any
) -> None:
    jobs = await q.enqueue_many([task_of(q).s() for _ in range(200)])
    nurse.config_set("maxmemory", 1)

    before = time.monotonic()
    with pytest.raises(QueueFull, match="takes no more jobs"):
        await task_of(q).enqueue()
    assert time.monotonic() - before < 2
    # Then its workers come, though it is full, and run everything
    async with q.worker() as worker:
        await eventually(lambda: worker.tally.succeeded == 200)
        nurse.config_set("maxmemory", 0)
        assert await (await task_of(q).enqueue()).result(timeout=10) == 1
    assert [await job.result(timeout=5) for job in jobs] == [1] * 200


@pytest.mark.parametrize("how", ["DEBUG SLEEP", "CLIENT PAUSE", "SIGSTOP"])
@pytest.mark.timeout(90)
async def test_when_the_server_pauses_nobody_is_declared_dead(
    q: TaskQ, nurse: Any, sick: TestServer, soak: int, how: str
) -> None:
    """Longer than a lease; the counters of all workers stand still, also the observers' own."""
    seconds = 8.0 if soak > 1 or how == "SIGSTOP" else 6.5
    async with q.worker() as first, q.worker() as second, q.worker() as third:
        workers = (first, second, third)
        await (await task_of(q).enqueue()).result(timeout=10)
        names = [worker.name for worker in workers]
        await asyncio.to_thread(_pause, nurse, sick, how, seconds)

        for _ in range(10):
            assert await (await task_of(q).enqueue()).result(timeout=15) == 1
        # Given a second of beats after it, in which a hasty judge would judge
        keys = q._settings.keys
        before = last_heartbeat(nurse, keys)
        await eventually(lambda: last_heartbeat(nurse, keys) >= before + 6)
        assert [worker.name for worker in workers] == names
        assert sum(worker.tally.reaped + worker.tally.lost for worker in workers) == 0


def _pause(nurse: Any, sick: TestServer, how: str, seconds: float) -> None:
    if how == "DEBUG SLEEP":
        nurse.execute_command("DEBUG", "SLEEP", seconds)
    elif how == "CLIENT PAUSE":
        nurse.client_pause(int(seconds * 1000))
        time.sleep(seconds)
    else:
        assert sick.process is not None
        sick.process.send_signal(19)
        time.sleep(seconds)
        sick.process.send_signal(18)


async def test_a_group_that_was_destroyed_is_made_again_and_its_jobs_run(
    q: TaskQ, nurse: Any
) -> None:
    jobs = await q.enqueue_many([task_of(q).s() for _ in range(10)])
    assert nurse.xgroup_destroy(q._settings.keys.lane("default", 5), GROUP) == 1

    async with q.worker():
        assert [await job.result(timeout=10) for job in jobs] == [1] * 10


async def test_a_thousand_connections_come_and_go(q: TaskQ, nurse: Any, sick: TestServer) -> None:
    """A storm of clients beside a worker: it neither spins nor loses its way."""
    async with q.worker() as worker:
        for _ in range(5):
            writers = [
                (await asyncio.open_unix_connection(str(sick.socket)))[1] for _ in range(200)
            ]
            assert await (await task_of(q).enqueue()).result(timeout=10) == 1
            for writer in writers:
                writer.transport.abort()
        await eventually(lambda: len(nurse.client_list()) < 20)
        assert worker.tally.lost == worker.tally.reaped == 0

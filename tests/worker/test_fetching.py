"""Which jobs a worker takes, how many at once, and in which order."""

from __future__ import annotations

import asyncio
import time

from taskq import JobState, TaskQ, current_job
from tests.support.waiting import eventually


async def test_never_more_than_concurrency_run_at_once(q: TaskQ) -> None:
    at_once = most = 0

    @q.task(name="count")
    async def count() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _ in range(5):
            await asyncio.sleep(0)
        at_once -= 1

    await q.enqueue_many([count.s() for _ in range(500)])
    await q.run_until_empty(concurrency=7)

    assert most == 7


async def test_a_worker_without_a_free_slot_leaves_jobs_to_others(q: TaskQ) -> None:
    go = asyncio.Event()

    @q.task(name="wait")
    async def wait() -> str:
        await go.wait()
        return current_job().worker

    jobs = await q.enqueue_many([wait.s() for _ in range(6)])
    async with q.worker(concurrency=3) as first:
        await eventually(lambda: first.in_flight.running == 3)
        async with q.worker(concurrency=3) as second:
            # Given that the first holds no more than it can run
            await eventually(lambda: second.in_flight.running == 3, within=5)
            go.set()
            workers = [await job.result(timeout=5) for job in jobs]

    assert workers.count(first.name) == workers.count(second.name) == 3


async def test_what_was_fetched_ahead_is_handed_back_when_no_slot_comes_free(q: TaskQ) -> None:
    go = asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        await go.wait()

    @q.task(name="quick")
    async def quick() -> str:
        return current_job().worker

    # Given a worker that was fast enough to fetch ahead, and is stuck then
    await q.enqueue_many([quick.s() for _ in range(2000)])
    async with q.worker(concurrency=4) as stuck:
        await eventually(lambda: stuck.tally.finished >= 2000)
        await q.enqueue_many([wait.s() for _ in range(4)])
        await eventually(lambda: stuck.in_flight.running == 4)
        jobs = await q.enqueue_many([quick.s() for _ in range(20)])

        async with q.worker(concurrency=4) as free:
            # Then another one runs what waits
            workers = {await job.result(timeout=5) for job in jobs}
            assert workers == {free.name}
            go.set()

    infos = [await job.info() for job in jobs]
    # And no attempt was counted for waiting in vain
    assert {info.attempt for info in infos} == {1}


async def test_urgent_jobs_overtake_those_that_wait(q: TaskQ) -> None:
    order: list[int] = []
    go = asyncio.Event()

    @q.task(name="first")
    async def first() -> None:
        await go.wait()

    @q.task(name="note")
    async def note(priority: int) -> None:
        order.append(priority)

    await first.enqueue()
    async with q.worker(concurrency=1) as worker:
        await eventually(lambda: worker.in_flight.running == 1)
        for priority in (1, 1, 1, 9):
            await note.options(priority=priority).enqueue(priority)
        go.set()
        await eventually(lambda: len(order) == 4)

    assert order == [9, 1, 1, 1]


async def test_lower_priorities_starve_unless_they_are_given_a_share(q: TaskQ) -> None:
    order: list[int] = []

    @q.task(name="note")
    async def note(priority: int) -> None:
        order.append(priority)

    async def run(low_share: float) -> list[int]:
        order.clear()
        await q.enqueue_many([note.options(priority=9).s(9) for _ in range(40)])
        await q.enqueue_many([note.options(priority=0).s(0) for _ in range(10)])
        await q.run_until_empty(concurrency=1, low_share=low_share)
        return order[:40]

    # Strict by default
    assert await run(0.0) == [9] * 40
    # A share of the fetches serves them first
    assert (await run(0.25)).count(0) >= 4


async def test_queues_of_equal_priority_take_turns(q: TaskQ) -> None:
    order: list[str] = []

    @q.task(name="note")
    async def note() -> None:
        order.append(current_job().queue)

    for queue in ("a", "b"):
        await q.enqueue_many([note.options(queue=queue).s() for _ in range(10)])
    await q.run_until_empty(["a", "b"], concurrency=1)

    # Neither waits until the other is empty
    assert set(order[:6]) == {"a", "b"}
    assert order.count("a") == order.count("b") == 10


async def test_a_high_priority_of_one_queue_goes_before_a_low_one_of_another(q: TaskQ) -> None:
    order: list[str] = []

    @q.task(name="note")
    async def note(text: str) -> None:
        order.append(text)

    await note.options(queue="a", priority=2).enqueue("a2")
    await note.options(queue="b", priority=7).enqueue("b7")
    await note.options(queue="a", priority=9).enqueue("a9")
    await q.run_until_empty(["a", "b"], concurrency=1)

    assert order == ["a9", "b7", "a2"]


async def test_a_worker_touches_no_queue_but_its_own(q: TaskQ) -> None:
    @q.task(name="where")
    async def where() -> str:
        return current_job().worker

    mine = await where.options(queue="mine").enqueue()
    # A name that begins alike is another name
    others = [await where.options(queue=queue).enqueue() for queue in ("mine2", "min", "mine:a")]

    async with q.worker(["mine"]) as worker:
        assert await mine.result(timeout=5) == worker.name

    assert [await job.status() for job in others] == [JobState.QUEUED] * 3
    assert await q.run_until_empty(["mine2", "min", "mine:a"]) == 3


async def test_two_workers_share_and_run_every_job_once(q: TaskQ) -> None:
    runs: list[int] = []

    @q.task(name="note")
    async def note(number: int) -> str:
        runs.append(number)
        await asyncio.sleep(0)
        return current_job().worker

    async with q.worker(concurrency=5), q.worker(concurrency=5):
        jobs = await q.enqueue_many([note.s(number) for number in range(1000)])
        workers = await asyncio.gather(*(job.result(timeout=20) for job in jobs))

    assert sorted(runs) == list(range(1000))
    assert len(set(workers)) == 2


async def test_an_idle_worker_is_woken_by_a_job(q: TaskQ) -> None:
    @q.task(name="stamp")
    async def stamp() -> float:
        return time.monotonic()

    async with q.worker():
        # Given a worker that has looked and found nothing
        await (await stamp.enqueue()).result(timeout=5)
        waits: list[float] = []
        for _ in range(20):
            before = time.monotonic()
            waits.append(await (await stamp.enqueue()).result(timeout=5) - before)

    # Then it does not wait for its next look, which is up to a second away
    assert sorted(waits)[10] < 0.4


async def test_one_of_many_idle_workers_is_woken_for_one_job(q: TaskQ) -> None:
    @q.task(name="where")
    async def where() -> str:
        return current_job().worker

    async with q.worker() as first, q.worker() as second:
        workers = {await (await where.enqueue()).result(timeout=5) for _ in range(30)}
        started = first.tally.started + second.tally.started

    assert workers <= {first.name, second.name}
    assert started == 30


async def test_delayed_jobs_start_when_they_are_due(q: TaskQ) -> None:
    @q.task(name="stamp")
    async def stamp() -> float:
        return time.monotonic()

    async with q.worker():
        before = time.monotonic()
        jobs = [await stamp.options(delay=delay).enqueue() for delay in (0.3, 0.1)]
        started = [await job.result(timeout=5) - before for job in jobs]

    assert started[0] >= 0.29
    assert started[0] > started[1] >= 0.09


async def test_a_worker_started_on_a_full_queue_begins_at_once(q: TaskQ) -> None:
    @q.task(name="square")
    async def square(number: int) -> int:
        return number * number

    jobs = await q.enqueue_many([square.s(number) for number in range(3000)])
    async with q.worker(concurrency=100) as worker:
        assert await jobs[-1].result(timeout=20) == 2999 * 2999
        await eventually(lambda: worker.in_flight.known == 0)

    assert worker.tally.succeeded == 3000
    assert worker.tally.adopted == worker.tally.fenced == worker.tally.lost == 0


async def test_two_tasks_of_one_name_in_two_programs_are_the_same_to_the_queue(
    q: TaskQ, other: TaskQ
) -> None:
    @q.task(name="version")
    async def old() -> str:
        return "old"

    @other.task(name="version")
    async def new(extra: int = 0) -> str:
        return "new"

    # Given two versions of the code, whoever runs it runs its own
    job = await q.send("version")
    await other.run_until_empty()
    assert await job.result(timeout=5) == "new"

    # And a call that the old one does not know fails there, with its signature
    job = await new.enqueue(extra=1)
    await q.run_until_empty()
    assert "version() -> 'str' cannot be called" in ((await job.info()).error or "")


async def test_what_waits_for_a_slot_goes_back_even_while_other_jobs_end(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="hold", queue="own")
    async def hold() -> None:
        started.set()
        await go.wait()

    @q.task(name="next")
    async def next_one() -> int:
        return current_job().attempt

    await hold.enqueue()
    async with q.worker(["own"], concurrency=1) as full:
        await started.wait()
        # Given a job that is fetched ahead, and slots that keep changing
        job = await next_one.enqueue()
        broker = q._backend.current()
        full.in_flight.take(await broker.consumer(full.name).fetch(1, ["default"]))

        async def handed_back() -> bool:
            full.in_flight.changed.set()
            return await job.status() is JobState.QUEUED

        # Then another worker may have it, and its attempt was not counted
        await eventually(handed_back, within=5)
        async with q.worker(["default"]):
            assert await job.result(timeout=5) == 1
        go.set()

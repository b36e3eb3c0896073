"""What the log says of jobs, with the job on every line."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from taskq import Job, JobFailed, JobLogFilter, Reject, Retry, TaskQ
from tests.support.waiting import eventually
from tests.worker.sample_tasks import register

SHOP = logging.getLogger("shop")


class Lines(logging.Handler):
    """A handler as an application has one, with taskq's filter."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.addFilter(JobLogFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)
        self.records.append(record)

    def of(self, logger: str) -> list[Any]:
        return [record for record in self.records if record.name == logger]


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, root, level = Lines(), logging.getLogger(), logging.getLogger().level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    yield lines
    root.removeHandler(lines)
    root.setLevel(level)
    logging.getLogger("taskq.jobs").setLevel(logging.NOTSET)


def fields(record: Any) -> tuple[str, str, int, str]:
    return record.job, record.task, record.attempt, record.queue


async def failed(q: TaskQ, job: Job[Any]) -> None:
    async with q.worker(["default", "images"]):
        with pytest.raises(JobFailed):
            await job.result(timeout=20)


# ----------------------------------------------------------------------- how attempts ended


@pytest.mark.parametrize("executor", ["loop", "process"])
async def test_a_failure_is_a_warning_while_another_attempt_follows_and_an_error_at_the_end(
    q: TaskQ, lines: Lines, executor: str
) -> None:
    tasks = register(q, queue="images", retry=Retry(2, backoff=0.01, jitter=0))

    async def in_loop(name: str) -> None:
        tasks.raise_named.function(name)

    task = tasks.raise_named
    if executor == "loop":
        task = q.task(name="in_loop", queue="images", retry=tasks.log.task_options.retry)(in_loop)
    job = await task.enqueue("ValueError")

    await failed(q, job)

    again, final = lines.of("taskq.worker")[-2:]
    assert [again.levelno, final.levelno] == [logging.WARNING, logging.ERROR]
    assert [fields(again), fields(final)] == [
        (job.id, task.name, 1, "images"),
        (job.id, task.name, 2, "images"),
    ]
    assert {again.error_type, final.error_type} == {"ValueError"}
    assert "attempt 1 failed: ValueError: no number; again in 0.0 s" in again.message
    assert again.exc_text is None
    assert final.message.endswith("attempt 2 failed: ValueError: no number")
    assert "in raise_named" in final.exc_text
    assert final.exc_text.endswith("ValueError: no number")


async def test_what_no_attempt_can_help_is_an_error_at_once(q: TaskQ, lines: Lines) -> None:
    @q.task(name="never", retry=5)
    async def never() -> None:
        raise Reject("never")

    await failed(q, await never.enqueue())

    [line] = lines.of("taskq.worker")[-1:]
    assert line.levelno == logging.ERROR
    assert "failed: Reject: never" in line.message


async def test_arguments_that_do_not_fit_are_an_error_that_names_the_job_and_quotes_none(
    q: TaskQ, other: TaskQ, lines: Lines
) -> None:
    @other.task(name="add")
    async def add_two(left: int, right: str) -> None: ...

    @q.task(name="add")
    async def add(left: int) -> None: ...

    job = await add_two.enqueue(1, "none of your business")

    await failed(q, job)

    [line] = lines.of("taskq.worker")[-1:]
    assert fields(line) == (job.id, "add", 1, "default")
    assert line.levelno == logging.ERROR
    assert "none of your" not in line.message + str(line.exc_text)


async def test_a_job_that_blocks_the_loop_is_named_in_the_fields_too(
    q: TaskQ, lines: Lines
) -> None:
    @q.task(name="blocks")
    async def blocks() -> None:
        time.sleep(1.6)  # noqa: ASYNC251 - what must not be

    job = await blocks.enqueue()
    async with q.worker():
        await job.result(timeout=20)

    [line] = [line for line in lines.of("taskq.worker") if "blocked the event loop" in line.message]
    assert fields(line) == (job.id, "blocks", 1, "default")


async def test_a_line_for_each_job_is_there_on_request(q: TaskQ, lines: Lines) -> None:
    @q.task(name="add")
    async def add(left: int, right: int) -> int:
        return left + right

    # Given that nobody asked
    await add.enqueue(1, 2)
    await q.run_until_empty()
    assert lines.of("taskq.jobs") == []

    logging.getLogger("taskq.jobs").setLevel(logging.INFO)
    job = await add.enqueue(1, 2)
    await q.run_until_empty()

    [line] = lines.of("taskq.jobs")
    assert line.levelno == logging.INFO
    assert fields(line) == (job.id, "add", 1, "default")
    assert line.outcome == "succeeded"
    assert 0 <= line.seconds < 60
    assert line.message.startswith(f"job {job.id}: add attempt 1 succeeded after ")


# --------------------------------------------------------------------- what the tasks say


async def test_every_line_of_a_task_names_its_job_wherever_it_runs(q: TaskQ, lines: Lines) -> None:
    tasks = register(q)

    @q.task(name="in_loop")
    async def in_loop() -> None:
        await asyncio.gather(asyncio.create_task(below()), asyncio.to_thread(SHOP.info, "too"))

    @q.task(name="in_thread")
    def in_thread() -> None:
        SHOP.info("one")

    async def below() -> None:
        SHOP.info("one")

    jobs = [await in_loop.enqueue(), await in_thread.enqueue()]
    jobs.append(await tasks.log.enqueue(logging.INFO, "a.png"))

    await q.run_until_empty()
    SHOP.info("outside of a job")

    inside = [record for record in lines.of("shop") if hasattr(record, "job")]
    assert {fields(record)[:2] for record in inside} == {
        (jobs[0].id, "in_loop"),
        (jobs[1].id, "in_thread"),
        (jobs[2].id, "log"),
    }
    assert len(inside) == 4
    assert len(lines.of("shop")) == 5


async def test_a_field_of_the_record_itself_is_kept(q: TaskQ, lines: Lines) -> None:
    @q.task(name="own")
    async def own() -> None:
        SHOP.info("mine", extra={"task": "polish", "queue": "at the door"})

    job = await own.enqueue()
    await q.run_until_empty()

    [line] = lines.of("shop")
    assert fields(line) == (job.id, "polish", 1, "at the door")


@pytest.fixture
def tasks(q: TaskQ) -> SimpleNamespace:
    return register(q, soft_timeout=None)


async def test_a_line_of_a_process_task_arrives_whole(
    q: TaskQ, lines: Lines, tasks: SimpleNamespace
) -> None:
    await tasks.log.enqueue(logging.ERROR, "a.png")

    await q.run_until_empty()

    first, second = lines.of("shop")
    assert first.getMessage() == "cutting a.png"
    assert (first.levelname, first.funcName, first.filename) == ("ERROR", "log", "sample_tasks.py")
    assert first.process != logging.makeLogRecord({}).process
    assert first.size == 3
    assert first.of["a"].startswith("<object object")
    assert "KeyError" in second.exc_text


async def test_the_levels_of_the_worker_hold_in_the_processes_of_its_tasks(
    q: TaskQ, lines: Lines, tasks: SimpleNamespace
) -> None:
    SHOP.setLevel(logging.ERROR)
    try:
        await tasks.log.enqueue(logging.WARNING, "a.png")
        await q.run_until_empty()
    finally:
        SHOP.setLevel(logging.NOTSET)
    assert lines.of("shop") == []


async def test_a_soft_limit_in_the_middle_of_a_log_line_does_no_harm(
    q: TaskQ, lines: Lines
) -> None:
    tasks = register(q, soft_timeout=0.2)
    job = await tasks.log_for_long.enqueue()

    async with q.worker(processes=1):
        count = await job.result(timeout=20)
        again = await (await tasks.log.enqueue(logging.INFO, "a.png")).result(timeout=20)

    # Each line came once and in order; the one that the limit met may have come and not counted
    texts = [record.getMessage() for record in lines.of("shop")[:-1]]
    assert len(texts) - count in (0, 1)
    assert texts == [f"line {number}" for number in range(len(texts))]
    assert again is None


async def test_a_thread_that_a_job_left_behind_disturbs_no_other_job(
    q: TaskQ, lines: Lines, tasks: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    async with q.worker(processes=1):
        await (await tasks.log_later.enqueue()).result(timeout=20)
        # It goes to stderr, as in any program without a configuration
        await eventually(lambda: "from nowhere" in capfd.readouterr().err)
        assert await (await tasks.pid.enqueue()).result(timeout=20)

    assert lines.of("shop") == []

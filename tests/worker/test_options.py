"""Options of tasks and of single jobs: what each of them changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import redis

from taskq import (
    ConfigError,
    JobExpired,
    JobState,
    ResultNotKept,
    Retry,
    TaskQ,
    UnknownOption,
    current_job,
)
from taskq.broker.keys import Keys

MINUTE = 60_000
"""A minute of the server's clock, which `q._settings.offset.ms` moves."""


async def test_a_job_waits_in_the_queue_of_its_task_or_in_its_own(q: TaskQ) -> None:
    @q.task(name="resize", queue="images")
    async def resize() -> str:
        return current_job().queue

    usual = await resize.enqueue()
    urgent = await resize.options(queue="urgent").enqueue()

    # A worker serves the queues it is told, and no other
    assert await q.run_until_empty(["urgent"]) == 1
    assert await urgent.result(timeout=5) == "urgent"
    assert await usual.status() is JobState.QUEUED

    # Left to itself, it serves the queues of its tasks
    assert await q.run_until_empty() == 1
    assert await usual.result(timeout=5) == "images"


async def test_higher_priorities_run_first_without_exception(q: TaskQ) -> None:
    order: list[int] = []

    @q.task(name="note")
    async def note(priority: int) -> None:
        order.append(priority)

    for priority in (0, 5, 9, 1, 8, 5, 9, 0, 3):
        await note.options(priority=priority).enqueue(priority)
    await q.run_until_empty(concurrency=1)

    assert order == [9, 9, 8, 5, 5, 3, 1, 0, 0]


async def test_a_delayed_job_runs_when_it_is_due_and_not_before(q: TaskQ) -> None:
    @q.task(name="remind")
    async def remind() -> str:
        return "now"

    job = await remind.options(delay=timedelta(minutes=10)).enqueue()

    info = await job.info()
    assert info.state is JobState.SCHEDULED
    assert info.due_at is not None
    assert info.enqueued_at is not None
    assert info.due_at - info.enqueued_at == timedelta(minutes=10)

    q._settings.offset.ms += 9 * MINUTE
    assert await q.run_until_empty() == 0
    q._settings.offset.ms += 2 * MINUTE
    assert await q.run_until_empty() == 1
    assert await job.result(timeout=5) == "now"


async def test_an_eta_is_an_instant(q: TaskQ) -> None:
    @q.task(name="remind")
    async def remind() -> str:
        return "now"

    eta = datetime.now(UTC) + timedelta(hours=1)
    job = await remind.options(eta=eta).enqueue()
    due = (await job.info()).due_at

    assert due is not None
    assert abs(due - eta) < timedelta(milliseconds=2)
    assert await q.run_until_empty() == 0
    q._settings.offset.ms += 61 * MINUTE
    assert await q.run_until_empty() == 1


async def test_what_is_due_already_is_queued_at_once(q: TaskQ) -> None:
    @q.task(name="remind")
    async def remind() -> None: ...

    past = await remind.options(eta=datetime.now(UTC) - timedelta(days=1)).enqueue()
    now = await remind.options(delay=0).enqueue()

    assert [await past.status(), await now.status()] == [JobState.QUEUED, JobState.QUEUED]
    assert await q.run_until_empty() == 2


async def test_delayed_jobs_run_in_the_order_they_are_due(q: TaskQ) -> None:
    order: list[int] = []

    @q.task(name="note")
    async def note(minute: int) -> None:
        order.append(minute)

    for minute in (3, 1, 2):
        await note.options(delay=minute * 60).enqueue(minute)
    q._settings.offset.ms += 5 * MINUTE
    await q.run_until_empty(concurrency=1)

    assert order == [1, 2, 3]


async def test_a_job_that_starts_too_late_never_starts(q: TaskQ) -> None:
    ran: list[str] = []

    @q.task(name="quote", expires=60)
    async def quote(which: str) -> None:
        ran.append(which)

    late = await quote.enqueue("late")
    patient = await quote.options(expires=timedelta(hours=1)).enqueue("patient")
    dated = await quote.options(expires=datetime.now(UTC) + timedelta(seconds=90)).enqueue("dated")

    q._settings.offset.ms += 2 * MINUTE
    await q.run_until_empty()

    assert ran == ["patient"]
    for job in (late, dated):
        assert await job.status() is JobState.EXPIRED
        with pytest.raises(JobExpired, match="give it a longer expires="):
            await job.result(timeout=5)
    assert (await late.info()).attempts == ()
    assert await patient.result(timeout=5) is None


async def test_a_job_that_started_in_time_is_not_expired_by_its_retries(q: TaskQ) -> None:
    @q.task(name="flaky", expires=60, retry=Retry(max_attempts=2, backoff=0))
    async def flaky() -> str:
        if current_job().attempt == 1:
            raise OSError("busy")
        return "done"

    job = await flaky.enqueue()
    await q.run_until_empty()

    assert await job.result(timeout=5) == "done"


async def test_an_id_of_ones_own_makes_one_job_however_often_it_is_asked_for(q: TaskQ) -> None:
    runs: list[str] = []

    @q.task(name="resize")
    async def resize(path: str) -> str:
        runs.append(path)
        return path

    once = resize.options(id="img:a")
    first, second = await once.enqueue("a.png"), await once.enqueue("b.png")

    # Then the second is a handle of the first's job
    assert (first.created, second.created) == (True, False)
    assert first.id == second.id == "img:a"
    assert await q.run_until_empty() == 1
    assert runs == ["a.png"]
    assert await second.result(timeout=5) == "a.png"

    # And it stays so while the job is remembered
    assert (await once.enqueue("c.png")).created is False
    assert await q.run_until_empty() == 0


async def test_ids_are_told_apart_within_one_batch(q: TaskQ) -> None:
    @q.task(name="resize")
    async def resize(path: str) -> str:
        return path

    once = resize.options(id="img:a")
    jobs = await q.enqueue_many([once.s("a.png"), resize.s("x.png"), once.s("b.png")])

    assert [job.created for job in jobs] == [True, True, False]
    assert await q.run_until_empty() == 2
    assert await jobs[2].result(timeout=5) == "a.png"


async def test_a_delayed_job_can_be_named_and_found_again(q: TaskQ) -> None:
    @q.task(name="remind")
    async def remind() -> str:
        return "now"

    await remind.options(id="remind:7", delay=3600).enqueue()

    assert await q.job("remind:7").status() is JobState.SCHEDULED
    assert q.job("remind:7").created is None
    await q.job("remind:7").cancel()


async def test_a_timeout_of_the_job_replaces_that_of_its_task(q: TaskQ) -> None:
    @q.task(name="deadline", timeout=3600)
    async def deadline() -> float:
        due = current_job().deadline
        assert due is not None
        return (due - datetime.now(UTC)).total_seconds()

    usual = await deadline.enqueue()
    short = await deadline.options(timeout=timedelta(minutes=1)).enqueue()
    await q.run_until_empty()

    assert 3590 < await usual.result(timeout=5) <= 3600
    assert 50 < await short.result(timeout=5) <= 60


async def test_a_result_ttl_of_the_job_replaces_that_of_its_task(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="kept", result_ttl=600)
    async def kept() -> int:
        return 1

    usual = await kept.enqueue()
    forgotten = await kept.options(result_ttl=0).enqueue()
    longer = await kept.options(result_ttl=timedelta(days=1)).enqueue()
    await q.run_until_empty()

    # Records outlive their results for a while, to say that there was one
    keys = Keys(namespace)
    assert 600 < look.ttl(keys.job(usual.id)) <= 1200
    assert 86_400 < look.ttl(keys.job(longer.id)) <= 87_000
    assert not look.exists(keys.job(forgotten.id))
    with pytest.raises(ResultNotKept, match="result_ttl=0"):
        await forgotten.result(timeout=5)


async def test_a_retry_of_the_job_replaces_that_of_its_task(q: TaskQ) -> None:
    @q.task(name="broken", retry=Retry(max_attempts=2, backoff=0, on=(OSError,)))
    async def broken(error: str) -> None:
        raise OSError("busy") if error == "os" else ValueError("no number")

    usual = await broken.enqueue("os")
    stubborn = await broken.options(retry=Retry(max_attempts=4, backoff=0)).enqueue("os")
    meek = await broken.options(retry=0).enqueue("os")
    # What its task retries and never retries is the task's to say
    filtered = await broken.options(retry=Retry(max_attempts=4, backoff=0)).enqueue("value")
    await q.run_until_empty()

    attempts = [(await job.info()).attempt for job in (usual, stubborn, meek, filtered)]
    assert attempts == [2, 4, 1, 1]


async def test_exception_filters_cannot_travel_with_a_job(q: TaskQ) -> None:
    @q.task(name="broken")
    async def broken() -> None: ...

    with pytest.raises(ConfigError, match="set them on the task"):
        await broken.options(retry=Retry(on=(OSError,))).enqueue()


async def test_headers_travel_beside_the_arguments(q: TaskQ) -> None:
    @q.task(name="trace")
    async def trace() -> dict[str, str]:
        return current_job().headers

    job = await trace.options(headers={"trace-id": "7f", "user": "Ada Ünïcode"}).enqueue()
    plain = await trace.enqueue()

    assert (await job.info()).headers == {"trace-id": "7f", "user": "Ada Ünïcode"}
    await q.run_until_empty()
    assert await job.result(timeout=5) == {"trace-id": "7f", "user": "Ada Ünïcode"}
    assert await plain.result(timeout=5) == {}


async def test_options_add_up(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.options(queue="a", priority=1).options(priority=9).enqueue()

    info = await job.info()
    assert (info.queue, info.priority) == ("a", 9)
    await q.run_until_empty(["a"])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"prioritty": 9}, "did you mean 'priority'"),
        ({"countdown": 9}, "known are debounce, delay, durable, eta"),
        ({"priority": 10}, "0 to 9"),
        ({"priority": "high"}, "0 to 9"),
        ({"delay": 5, "eta": datetime.now(UTC)}, "use one of them"),
        ({"delay": -1}, "out of range"),
        ({"eta": datetime(2030, 1, 1)}, "no time zone"),
        ({"expires": datetime(2030, 1, 1)}, "no time zone"),
        ({"queue": "two words"}, "A-Z a-z 0-9"),
        ({"id": "{a}"}, "A-Z a-z 0-9"),
        ({"retry": -1}, "number of retries"),
        ({"timeout": 0}, r"at least 0.001"),
        ({"headers": {"n": 1}}, "use strings"),
        ({"headers": ["n"]}, "dict of strings"),
    ],
)
async def test_an_option_of_a_job_that_makes_no_sense_says_what_would(
    q: TaskQ, given: dict[str, object], reason: str
) -> None:
    @q.task(name="one")
    async def one() -> None: ...

    with pytest.raises(ConfigError, match=reason):
        one.options(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"prio": 9}, "did you mean 'priority'"),
        ({"retries": 9}, "did you mean 'retry'"),
        ({"delay": 9}, "tasks have no option 'delay'"),
        ({"executor": "thread"}, "an async def runs in the 'loop'"),
        ({"executor": "gpu"}, "'loop', 'thread' or 'process'"),
        ({"soft_timeout": 5}, "needs executor='process'"),
        ({"executor": "process", "soft_timeout": 5, "timeout": 5}, "shorter than timeout"),
        ({"retry": True}, "number of retries"),
        ({"name": "two words"}, "A-Z a-z 0-9"),
        ({"queue": ""}, "A-Z a-z 0-9"),
    ],
)
async def test_an_option_of_a_task_that_makes_no_sense_says_what_would(
    q: TaskQ, given: dict[str, object], reason: str
) -> None:
    async def one() -> None: ...

    with pytest.raises(ConfigError, match=reason):
        q.task(**given)(one)  # type: ignore[arg-type]


def test_an_unknown_option_is_a_type_error_as_an_unknown_keyword_is() -> None:
    assert issubclass(UnknownOption, TypeError)
    with pytest.raises(UnknownOption, match="did you mean 'concurrency'"):
        TaskQ("redis://localhost").worker(concurency=10)
    with pytest.raises(ConfigError, match="use 1 or more"):
        TaskQ("redis://localhost").worker(concurrency=0)
    with pytest.raises(ConfigError, match="list of names"):
        TaskQ("redis://localhost").worker("images")


async def test_a_plain_function_cannot_run_in_the_loop(q: TaskQ) -> None:
    def compute() -> None: ...

    with pytest.raises(ConfigError, match="would block every other job"):
        q.task(executor="loop")(compute)

"""The oracle finds what it is there to find: a judge that always nods proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from taskq import JobState
from tests.faults.conftest import Book
from tests.faults.oracle import Expected, judge

pytestmark = pytest.mark.faults


async def wrongs(book: Book, **expected: Any) -> str:
    verdict = await judge(book.ledger, book.q, book.look, Expected(**expected))
    return "\n".join(verdict.wrong)


async def test_an_undisturbed_run_is_clean(book: Book) -> None:
    await book.enqueue("run", 20, 0.0)
    await book.q.run_until_empty()

    verdict = await book.verdict()

    assert (verdict.acknowledged, verdict.jobs, verdict.executions) == (20, 20, 20)
    assert (verdict.interrupted, verdict.states) == (0, {"succeeded": 20})


async def test_a_job_that_did_not_end_is_found_with_what_it_left(book: Book) -> None:
    [job] = await book.enqueue("run", 1, 0.0)

    found = await wrongs(book)

    assert f"{job.id} ({job.id}) is queued; may be ['succeeded']" in found
    assert "q:default/5: 1 entries" in found
    await book.q.run_until_empty()
    await book.verdict()


async def test_a_job_the_server_lost_is_found(book: Book) -> None:
    [job] = await book.enqueue("run", 1, 0.0)
    await book.q.run_until_empty()
    book.look.delete(book.q._settings.keys.job(job.id))

    assert f"{job.id} ({job.id}) is lost" in await wrongs(book)


async def test_a_request_that_became_two_jobs_is_found(book: Book) -> None:
    one, other = await book.enqueue("run", 2, 0.0)
    await book.q.run_until_empty()
    book.ledger.write("ack", one.id, other.id)

    assert f"request {one.id} became 2 jobs" in await wrongs(book)


async def test_an_attempt_that_ran_twice_is_found(book: Book) -> None:
    [job] = await book.enqueue("run", 1, 0.0)
    await book.q.run_until_empty()
    book.ledger.write("start", job.id, job.id, 1)

    assert f"{job.id}: attempt 1 was started 2 times" in await wrongs(book)


async def test_a_success_without_an_end_is_found(book: Book) -> None:
    [job] = await book.enqueue("run", 1, 0.0)
    await book.q.run_until_empty()
    lines = book.ledger.path.read_text().splitlines(keepends=True)
    book.ledger.path.write_text("".join(line for line in lines if not line.startswith("end")))

    assert f"{job.id} succeeded with attempt 1, which never ended" in await wrongs(book)


async def test_a_success_that_was_stored_twice_is_found(book: Book) -> None:
    await book.enqueue("run", 1, 0.0)
    await book.q.run_until_empty()
    [minute] = book.look.scan_iter(match=book.q._settings.keys.stats + "*")
    book.look.hincrby(minute, "default:succeeded", 1)

    assert "1 jobs succeeded, and the server counted 2" in await wrongs(book)


async def test_more_interrupted_runs_than_the_faults_explain_are_found(book: Book) -> None:
    [job] = await book.enqueue("run", 1, 0.0)
    await book.q.run_until_empty()
    book.ledger.write("start", job.id, job.id, 0)

    assert "1 runs were cut short; the faults explain 0" in await wrongs(book)
    assert "cut short" not in await wrongs(book, interrupted=1)


async def test_an_end_in_a_state_nobody_asked_for_is_found(book: Book) -> None:
    [job] = await book.enqueue("run", 1, 0.0)
    await job.cancel()
    await book.q.run_until_empty()

    assert "is cancelled; may be" in await wrongs(book)
    book.ledger.write("cancel", job.id)
    assert await wrongs(book) == ""
    book.ledger.path.write_text(book.ledger.path.read_text().replace("cancel", "ask"))
    assert await wrongs(book, states={"-": frozenset({JobState.CANCELLED})}) == ""


async def test_what_is_left_of_workers_is_found(book: Book) -> None:
    keys = book.q._settings.keys
    book.look.zadd(keys.workers, {"w": 1})
    for key in (keys.held, keys.slots, keys.serves):
        book.look.hset(key, "w", 1)
    book.look.sadd(keys.cancels + "w", "job")

    found = await wrongs(book)

    assert all(
        f"{key} is left" in found for key in (keys.workers, keys.held, keys.slots, keys.serves)
    )
    assert "cancels:w is left" in found

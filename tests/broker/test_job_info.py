"""Everything known about a job, read back from its hash."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest

from taskq.codec.envelope import pack_envelope, pack_failure
from taskq.codec.payload import encode_call, encode_value
from taskq.core.job import AttemptRecord, JobInfo, JobState, Progress
from taskq.core.outcome import Failed
from tests.support.scripts import Scene, frame

ENVELOPE = pack_envelope("app.resize", encode_call(("a.png",), {"width": 8}), headers={"by": "me"})


def instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def info(scene: Scene, job_id: str = "a") -> JobInfo:
    found = await scene.jobs.info(job_id)
    assert found is not None
    return found


async def test_a_job_nobody_knows(scene: Scene) -> None:
    assert await scene.jobs.info("a") is None


async def test_a_queued_job(scene: Scene) -> None:
    scene.put_job("a", "q", e=ENVELOPE, q="images/7", t=1500, x=9000)

    assert await info(scene) == JobInfo(
        id="a",
        task="app.resize",
        state=JobState.QUEUED,
        queue="images",
        priority=7,
        args=("a.png",),
        kwargs={"width": 8},
        headers={"by": "me"},
        enqueued_at=instant(1500),
        expires_at=instant(9000),
    )


async def test_a_running_job_is_in_its_attempt(scene: Scene) -> None:
    scene.put_running("a", e=ENVELOPE, a=1, b=2000, p=msgpack.packb((3, 10, "cutting")), z=1)

    found = await info(scene)

    assert (found.state, found.worker, found.attempt) == (JobState.RUNNING, "w1", 1)
    assert found.started_at == instant(2000)
    assert found.attempts == (AttemptRecord(1, instant(2000), None, "w1", None),)
    assert found.progress == Progress(3, 10, "cutting")
    assert found.cancel_requested


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (msgpack.packb((3, 10, "a\n")), Progress(3, 10, "a\n")),
        (msgpack.packb((3, 10, 5)), None),
        (msgpack.packb(("x", 10, "")), None),
        (msgpack.packb((float("nan"), None, "")), None),
        (msgpack.packb((1, 2, "x" * 5_000_000)), None),
        (b"\xc1", None),
    ],
    ids=["text", "number", "words", "nan", "large", "noise"],
)
async def test_progress_that_others_stored_is_shown_as_far_as_it_is_any(
    scene: Scene, stored: bytes, shown: Progress | None
) -> None:
    scene.put_running("a", e=ENVELOPE, p=stored)

    assert (await info(scene)).progress == shown


async def test_a_job_that_succeeded_tells_its_result(scene: Scene) -> None:
    consumer = await scene.consumer()
    held = scene.put_running("a", e=ENVELOPE)

    await consumer.finish([frame("S", held, encode_value({"x": (1, 2)}))])

    found = await info(scene)
    assert (found.state, found.result) == (JobState.SUCCEEDED, {"x": (1, 2)})
    assert [record.outcome for record in found.attempts] == ["succeeded"]
    assert found.finished_at is not None
    assert found.finished_at.timestamp() * 1000 == scene.about_now()


async def test_every_attempt_is_remembered(scene: Scene) -> None:
    """One fails, one asks for more time, one is lost with its worker, one fails for good."""
    consumer = await scene.consumer()
    held = scene.put_running("a", e=ENVELOPE)
    await consumer.finish([frame("R", held, b"error\nOSError: gone", count=1)])
    [held] = await consumer.fetch(1, ["default"])
    await consumer.finish([frame("R", held, b"retry asked\nnot yet", count=1)])
    await consumer.fetch(1, ["default"])
    await scene.leases.reap("w1", scene.policy)
    other = await scene.consumer("w2")
    [held] = await other.fetch(1, ["default"])
    error = pack_failure(Failed("ValueError", "no such picture", "trace"))
    await other.finish([frame("F", held, error, count=2)])

    found = await info(scene)

    story = [(past.number, past.worker, past.outcome, past.error) for past in found.attempts]
    assert story == [
        (1, "w1", "error", "OSError: gone"),
        (2, "w1", "retry asked", "not yet"),
        (3, "w1", "lost", ""),
        (4, "w2", "error", "no such picture"),
    ]
    assert all(record.started and record.ended for record in found.attempts)
    assert (found.attempt, found.failures, found.crashes) == (4, 2, 1)
    assert (found.error_type, found.error, found.traceback) == (
        "ValueError",
        "no such picture",
        "trace",
    )


async def test_a_job_that_was_taken_back_is_in_no_attempt(scene: Scene) -> None:
    scene.put_running("a", e=ENVELOPE)
    await scene.leases.reap("w1", scene.policy, died=False)

    found = await info(scene)

    assert (found.state, found.worker) == (JobState.QUEUED, None)
    assert [(record.number, record.outcome) for record in found.attempts] == [(1, "released")]


async def test_an_attempt_that_never_started_is_not_remembered(scene: Scene) -> None:
    consumer = await scene.consumer()
    await consumer.finish([frame("B", scene.put_running("a", e=ENVELOPE))])

    found = await info(scene)

    assert (found.attempt, found.attempts, found.worker) == (0, (), None)


async def test_attempts_are_numbered_as_they_ran(scene: Scene) -> None:
    """Takes that never started are counted by the fence, and by nothing else."""
    consumer = await scene.consumer()
    held = scene.put_running("a", e=ENVELOPE)
    await consumer.finish([frame("R", held, b"error\nOSError: gone", count=1)])
    [held] = await consumer.fetch(1, ["default"])
    await consumer.finish([frame("B", held)])
    waits = await info(scene)
    [held] = await consumer.fetch(1, ["default"])
    runs = await info(scene)

    assert [past.number for past in waits.attempts] == [1]
    assert (held.attempt, held.fence) == (2, 3)
    assert [(past.number, past.outcome) for past in runs.attempts] == [(1, "error"), (2, None)]
    assert runs.attempt == 2


async def test_a_job_cancelled_while_it_waited_shows_no_error(scene: Scene) -> None:
    scene.put_queued("a", e=ENVELOPE)
    await scene.jobs.cancel("a")

    found = await info(scene)

    assert (found.state, found.error, found.attempts) == (JobState.CANCELLED, None, ())


async def test_a_job_cancelled_during_a_retry_shows_no_error(scene: Scene) -> None:
    consumer = await scene.consumer()
    held = scene.put_running("a", e=ENVELOPE)
    await scene.jobs.cancel("a")
    await consumer.finish([frame("R", held, b"error\nOSError: gone", count=1)])

    found = await info(scene)

    assert (found.state, found.error_type, found.error) == (JobState.CANCELLED, None, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"e": b""},
        {"e": b"\xc1garbage"},
        {"r": b"\xc1garbage"},
        {"E": b"\xc1garbage"},
        {"p": b"\xc1garbage"},
        {"p": msgpack.packb(3)},
        {"h1": b"\xc1garbage"},
        {"h1": msgpack.packb([1])},
        {"s": "?"},
        {"hx": "not an attempt"},
        {"new": "of a newer version"},
    ],
    ids=repr,
)
async def test_bytes_that_cannot_be_read_do_not_hide_the_rest(
    scene: Scene, fields: dict[str, Any]
) -> None:
    given = {"e": ENVELOPE, "a": 1, "b": 2000, "f": 3000, "l": 10, "w": "w1"} | fields
    state = given.pop("s", "f")
    scene.put_job("a", state, **given)

    found = await info(scene)

    assert found.started_at == instant(2000)


async def test_of_many_attempts_the_last_hundred_are_told(scene: Scene) -> None:
    # Given a job that was tried for long, and that many wait for
    record = msgpack.packb((1000, 2000, "w1", "error\n" + "x" * 1000))
    history = {f"h{number}": record for number in range(1, 5001)}
    scene.put_job("a", "q", e=ENVELOPE, a=5000, n="c" * 30_000, **history)

    with scene.measured() as sizes:
        found = await info(scene)

    assert [past.number for past in found.attempts][:100] == list(range(4901, 5001))
    assert found.task == "app.resize"
    assert max(sizes) < 200_000

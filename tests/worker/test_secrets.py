"""Secrets and arguments stay out of everything that is shown, stored as text or logged."""

from __future__ import annotations

import dataclasses
import json
import logging
from enum import Enum
from typing import Annotated, Any

import pytest
from fastapi import Depends

from taskq import JobFailed, JobInfo, Retry, RetryLater, Secret, TaskQ, current_job, every
from tests.worker import sample_tasks

CANARY = "canary/7f3a 91"
QUOTED = "canary%2F7f3a%2091"


class Colour(Enum):
    RED = "red"


def shown(info: JobInfo) -> str:
    return f"{info!r} {json.dumps(dataclasses.asdict(info), default=str)}"


async def test_a_task_gets_the_value_and_info_shows_stars(q: TaskQ) -> None:
    got: list[Any] = []

    @q.task(name="login")
    async def login(user: str, token: Secret[str]) -> Secret[str]:
        got.append(token.reveal())
        return Secret(token.reveal() * 2)

    async with q.worker():
        first = await login.enqueue("ada", Secret(CANARY))
        result = await first.result(timeout=5)
        # Typed without the wrapper, as the command line would
        second = await q.remote("login").enqueue("ada", token=CANARY)
        await second.result(timeout=5)

    assert got == [CANARY, CANARY]
    assert (result.reveal(), repr(result)) == (CANARY * 2, "Secret('********')")
    for job in (first, second):
        told = shown(await job.info())
        assert "Secret('********')" in told
        assert CANARY not in told


async def test_a_dependency_before_a_secret_moves_neither(q: TaskQ) -> None:
    @q.task(name="login")
    async def login(
        session: Annotated[str, Depends(lambda: "session")], token: Secret[str], port: int
    ) -> str:
        return f"{session} {token!r} {port}"

    job = await login.enqueue(CANARY, 22)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await q.run_until_empty()

    assert await job.result(timeout=5) == "session Secret('********') 22"
    info = await job.info()
    assert info.args == (Secret(CANARY), 22)
    assert CANARY not in shown(info)


async def test_a_schedule_and_its_jobs_do_not_tell_it(q: TaskQ) -> None:
    @q.task(name="login")
    async def login(user: str, token: Secret[str]) -> None: ...

    added = await q.schedules.add("nightly", every(hours=1), login, args=("ada", CANARY))
    job = await q.schedules.run_now("nightly")

    told = f"{added!r} {await q.schedules.get('nightly')!r} {shown(await job.info())}"
    assert told.count("Secret('********')") >= 3
    assert CANARY not in told
    await q.schedules.remove("nightly")
    await q.run_until_empty()


async def test_a_failure_does_not_tell_the_secret(
    q: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    @q.task(name="fetch", retry=Retry(max_attempts=2, backoff=0.001))
    async def fetch(url: str, token: Secret[str]) -> None:
        full = f"{url}?token={QUOTED}"
        raise OSError(f"401 for {full}, was {token.reveal()!r} right?") from ValueError(CANARY)

    @q.task(name="wait")
    async def wait(token: Secret[str]) -> None:
        if current_job().attempt == 1:
            raise RetryLater(0, f"{token.reveal()} is not valid yet")

    with caplog.at_level(logging.DEBUG):
        job = await fetch.enqueue("http://x", Secret(CANARY))
        waiting = await wait.enqueue(Secret(CANARY))
        await q.run_until_empty()
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)

    info = await job.info()
    assert info.error == "401 for http://x?token=********, was '********' right?"
    assert "ValueError: ********" in str(info.traceback)
    told = f"{caught.value} {shown(info)} {shown(await waiting.info())} {caplog.text}"
    assert "fetch attempt 2 failed" in told
    assert [word for word in (CANARY, QUOTED) if word in told] == []


async def test_a_process_does_not_tell_it_either(q: TaskQ) -> None:
    task = q.task(name="tell", executor="process")(sample_tasks.tell)
    async with q.worker(processes=1):
        job = await task.enqueue(Secret(CANARY))
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=20)

    assert "ValueError: ********" in str(caught.value)
    assert CANARY not in f"{caught.value} {shown(await job.info())}"


async def test_arguments_are_not_logged(q: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    @q.task(name="paint", retry=Retry(max_attempts=2, backoff=0.001))
    async def paint(what: str, colour: Colour = Colour.RED) -> str:
        if what == "fail " + CANARY:
            raise ValueError("no paint")
        return what

    with caplog.at_level(logging.DEBUG):
        async with q.worker():
            good = await paint.enqueue(CANARY)
            assert await good.result(timeout=5) == CANARY
            unfit = await q.remote("paint").enqueue("wall", CANARY)
            with pytest.raises(JobFailed, match="expected a value of the enum"):
                await unfit.result(timeout=5)
            bad = await paint.enqueue("fail " + CANARY)
            with pytest.raises(JobFailed):
                await bad.result(timeout=5)
            with pytest.raises(TypeError):
                await q.remote("paint").enqueue(CANARY, nothing=CANARY)
        unknown = await q.send("nobody.knows", CANARY)
        await q.run_until_empty()
        await unknown.cancel()

    logged = caplog.text
    assert f"job {unfit.id}: paint attempt 1 failed: CallError: its arguments do not fit" in logged
    assert "paint attempt 1 succeeded" in logged
    assert CANARY not in logged

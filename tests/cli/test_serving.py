"""A worker in its process: what it says while it waits for its server."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from taskq import TaskQ
from taskq.cli import serving


async def test_the_pause_that_is_told_is_the_one_that_is_made(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = q.worker(["default"])
    service = serving._Service(worker, None)
    pauses: list[float] = []

    async def refused(on_ready: object) -> None:
        raise ConnectionError("nobody answers")

    async def passed(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            service._asked.set()

    monkeypatch.setattr(worker, "run", refused)
    monkeypatch.setattr(service, "_asked_within", passed)
    with caplog.at_level(logging.WARNING, logger="taskq.cli"):
        async with asyncio.timeout(5):
            await service._work()

    told = re.findall(r"trying again in (\S+) s", caplog.text)
    assert told == [f"{pause:.1f}" for pause in pauses]
    assert len(told) == 5

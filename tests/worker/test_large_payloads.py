"""Many large payloads at once: no reply and no request grows with their number."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq import TaskQ, at
from taskq.redis.client import Client
from tests.support.waiting import eventually

MIB = 1 << 20


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Name and bytes of each script call, of its reply too where that is waited for."""
    made: list[tuple[str, int]] = []
    script, send_nowait = Client.script, Client.send_nowait

    async def scripted(self: Client, what: Any, keys: tuple[str, ...], *args: Any) -> Any:
        made.append((what.name, _bytes_of(args)))
        reply = await script(self, what, keys, *args)
        made.append((f"reply of {what.name}", _bytes_of(reply)))
        return reply

    def posted(self: Client, on_reply: Any, what: Any, keys: tuple[str, ...], *args: Any) -> bool:
        made.append((what.name, _bytes_of(args)))
        return send_nowait(self, on_reply, what, keys, *args)

    monkeypatch.setattr(Client, "script", scripted)
    monkeypatch.setattr(Client, "send_nowait", posted)
    return made


def _bytes_of(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes_of, value))
    return len(value) if isinstance(value, (bytes, str)) else 0


async def test_results_that_end_together_are_stored_and_read_in_bounded_calls(
    q: TaskQ, calls: list[tuple[str, int]]
) -> None:
    together = asyncio.Barrier(20)

    @q.task(name="large")
    async def large(number: int) -> bytes:
        async with together:
            return bytes([number]) * 900_000

    jobs = await q.enqueue_many([large.s(number) for number in range(20)])
    async with q.worker():
        results = await asyncio.gather(*(job.result(timeout=30) for job in jobs))
    again = await asyncio.gather(*(job.result(timeout=30) for job in jobs))

    assert results == again == [bytes([number]) * 900_000 for number in range(20)]
    most = Counter({name: max(size for at, size in calls if at == name) for name, _ in calls})
    assert {name for name, size in most.items() if size > MIB} >= {"finish", "reply of wait"}
    assert max(most.values()) <= 4 * MIB


async def test_large_schedules_fire(q: TaskQ, calls: list[tuple[str, int]]) -> None:
    fired: set[int] = set()

    @q.task(name="note")
    async def note(number: int, text: str) -> None:
        fired.add(number)

    soon = datetime.now(UTC) + timedelta(seconds=3)
    await asyncio.gather(
        *(q.schedules.add(f"s{n}", at(soon), note.s(n, "x" * 400_000)) for n in range(100))
    )
    async with q.scheduler(), q.worker():
        await eventually(lambda: len(fired) == 100, within=40)

    assert max(size for name, size in calls if name.endswith(("tick", "schedule_read"))) <= 4 * MIB

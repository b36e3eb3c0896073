"""Random histories of a deferred runner: in each, every call runs once or is cancelled.

Few examples by default; for more: TASKQ_MODEL_EXAMPLES=2000.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import uuid
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taskq import BacklogFull, Deferred, DeferredSettings, JobState, TaskQ, current_job
from taskq.core.options import WhenFull
from tests.support.server import TestServer

EXAMPLES = int(os.environ.get("TASKQ_MODEL_EXAMPLES", "60"))

runners = st.builds(
    DeferredSettings,
    concurrency=st.integers(1, 2),
    backlog=st.sampled_from([0, 1, 2, 50]),
    when_full=st.sampled_from(["reject", "wait", "spill"]),
    grace=st.sampled_from([0.0, 0.005, 1.0]),
    slow=st.just(0),
)
debounced = st.sampled_from([0.002, 0.01]).map(lambda seconds: {"debounce": seconds})
keyed = st.one_of(
    debounced,
    debounced,
    st.sampled_from([{"order": "submitted"}, {"durable": True}, {"delay": 0.003}, {}]),
)
deferring = st.tuples(
    st.just("defer"),
    st.sampled_from([0.002, 0.008, 0.02]),
    st.one_of(
        st.sampled_from([{}, {}, {"delay": 0.003}, {"durable": True}]),
        keyed.map(lambda options: {"key": "a", **options}),
    ),
)
moves = st.lists(
    st.one_of(
        deferring,
        deferring,
        st.tuples(st.just("cancel"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.0, 0.003, 0.015])),
    ),
    min_size=6,
    max_size=30,
)

PLAIN: dict[str, Any] = {}
CANCELLED = [("defer", 0.02, PLAIN)] * 3 + [("cancel", 0)]
PUT_OFF = [
    ("defer", 0.02, PLAIN),
    ("defer", 0.02, PLAIN),
    ("defer", 0.03, {"key": "a", "debounce": 0.002}),
    ("wait", 0.01),
    ("defer", 0.03, {"key": "a", "debounce": 0.02}),
    ("wait", 0.05),
]


class Life:
    """One runner, what was asked of it, and what its calls did."""

    def __init__(self, url: str, settings: DeferredSettings) -> None:
        self.q = TaskQ(url, namespace=f"t{uuid.uuid4().hex[:10]}", deferred=settings)

        @self.q.task(name="work")
        async def work(seconds: float, key: str) -> None:
            await self._work(seconds, key)

        self.work = work
        self.slots: float = settings.concurrency
        self.handles: list[Deferred[None]] = []
        self.cancelled: set[str] = set()
        self.interrupted: set[str] = set()
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.running: list[tuple[str, str]] = []
        self.wrong: list[Any] = []

    async def play(self, moves: list[tuple[Any, ...]]) -> None:
        """Do it all, drain, and let a worker run what is in the queue then."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.wrong.append(context))
        async with self.q:
            for kind, *details in moves:
                await getattr(self, kind)(*details)
        stats = self.q.deferred.stats()
        assert (stats.pending, stats.leaked) == (0, 0)

        # What one process promises of slots and keys, workers do not.
        self.slots = math.inf
        async with self.q, asyncio.timeout(20):
            for handle in self.handles:
                await self._until_over(handle)
        gc.collect()
        assert not self.wrong

    async def defer(self, seconds: float, options: Any) -> None:
        """Defer another call, for which there may be no room."""
        key = f"{options['key']} {options.get('order')}" if "key" in options else ""
        with contextlib.suppress(BacklogFull):
            self.handles.append(self.work.options(**options).defer(seconds, key))

    async def cancel(self, which: int) -> None:
        """Cancel one of those that were deferred last."""
        if self.handles:
            handle = self.handles[-1 - which % len(self.handles)]
            if handle.cancel():
                waits = not self.begun[handle.id]
                (self.cancelled if waits else self.interrupted).add(handle.id)

    async def wait(self, seconds: float) -> None:
        """Let the runner do something."""
        await asyncio.sleep(seconds)

    async def _work(self, seconds: float, key: str) -> None:
        job_id = current_job().id
        self.begun[job_id] += 1
        twice = any(job_id == other for other, _ in self.running)
        same = key and any(key == other for _, other in self.running)
        if twice or len(self.running) >= self.slots or (same and self.slots < math.inf):
            self.wrong.append((job_id, key, list(self.running)))
        self.running.append((job_id, key))
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running.remove((job_id, key))
        self.ended[job_id] += 1

    async def _until_over(self, handle: Deferred[None]) -> None:
        if handle.job is not None:
            while not (await handle.job.status()).finished:
                await self.q.run_until_empty()
        state = handle.status if handle.job is None else await handle.job.status()
        if handle.id in self.cancelled:
            assert (state, self.begun[handle.id]) == (JobState.CANCELLED, 0)
        elif handle.id not in self.interrupted:
            assert (state, self.ended[handle.id]) == (JobState.SUCCEEDED, 1)


def tight(when_full: WhenFull, grace: float = 1.0) -> DeferredSettings:
    return DeferredSettings(concurrency=1, backlog=1, when_full=when_full, grace=grace)


@pytest.mark.timeout(120 + EXAMPLES)
@pytest.mark.slow
def test_each_call_runs_once_or_is_cancelled(server: TestServer) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        # The same lives each time, unless more are asked for.
        derandomize="TASKQ_MODEL_EXAMPLES" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(runners, moves)
    # Cancelled outside of a full backlog, and on the way to the queue; put off in wait for a slot.
    @example(tight("wait", grace=0.0), CANCELLED)
    @example(tight("spill"), CANCELLED)
    @example(DeferredSettings(concurrency=2), PUT_OFF)
    def live(settings: DeferredSettings, moves: list[tuple[Any, ...]]) -> None:
        asyncio.run(Life(server.url, settings).play(moves))

    live()

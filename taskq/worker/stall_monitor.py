"""Stall monitor: notices from the heartbeat's thread that a job blocks the event loop.

It logs the job and the line that block the loop, and hands back jobs that have not started.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence

from taskq.broker.broker import Broker
from taskq.broker.consumer import Consumer, Frame
from taskq.core.errors import ServerError
from taskq.core.job import Delivery
from taskq.core.liveness import (
    HEARTBEAT_SECONDS,
    LOOP_CHECK_SECONDS,
    LOOP_HAND_BACK_SECONDS,
    LOOP_STALL_SECONDS,
)
from taskq.execution.job_log import culprit, job_fields
from taskq.redis.connection import ConnectionLost
from taskq.worker.session import Session
from taskq.worker.slots import StartClaims

__all__ = ["StallMonitor"]

_log = logging.getLogger("taskq.worker")


class StallMonitor:
    """Checks four times a second whether the event loop it was created in responds.

    While the loop is blocked, the worker of `session` is not idle for `queues`, and deliveries that
    `claims` grants are handed back. `on_resumed` is called in the loop when it responds again.
    """

    def __init__(
        self,
        session: Session,
        queues: Sequence[str],
        claims: StartClaims,
        on_resumed: Callable[[], None],
    ) -> None:
        self._session = session
        self._queues = queues
        self._claims = claims
        self._on_resumed = on_resumed
        self._loop = asyncio.get_running_loop()
        self._main_thread = threading.get_ident()
        self._ticked = time.monotonic()
        self.stalled = False
        """Whether the loop is blocked."""
        self.abandoned = False
        """Whether the loop is closed and there is nothing left to watch."""

    async def run(self, broker: Broker, on_stall: Callable[[], None]) -> None:
        """Watch until cancelled, in another thread; `on_stall` is called in that thread."""
        warned = False
        while not self.abandoned:
            self.call(self._tick)
            await asyncio.sleep(LOOP_CHECK_SECONDS)
            silent = time.monotonic() - self._ticked
            if silent < LOOP_HAND_BACK_SECONDS:
                warned = False
                self._resume()
                continue
            if not self.stalled:
                self.stalled = True
                on_stall()
            if silent >= LOOP_STALL_SECONDS and not warned:
                warned = True
                self._warn(silent)
            await self._hand_back(broker)

    def call(self, function: Callable[..., None], *args: object) -> None:
        """Call a function in the loop."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self.abandoned = True

    def _tick(self) -> None:
        self._ticked = time.monotonic()

    def _resume(self) -> None:
        if self.stalled:
            self.stalled = False
            self.call(self._on_resumed)

    async def _hand_back(self, broker: Broker) -> None:
        """Hand back the jobs that the loop has not started, including those it has not read yet."""
        name = self._session.name
        consumer = broker.consumer(name)
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                # First, so that no more jobs are pushed.
                await consumer.leave_idle(self._queues)
                held = await broker.leases.held(name)
                unstarted = [
                    Delivery(job.job_id, job.lane, job.entry, job.fence, b"", 0, 0, 0, 0)
                    for job in held
                    if job.job_id and self._claims.hand_back(job.entry, job.fence)
                ]
                await _release(consumer, unstarted)
        except (ServerError, ConnectionLost, TimeoutError):
            # The next check tries again.
            return
        if unstarted:
            _log.info("handing back %d jobs that wait behind it", len(unstarted))

    def _warn(self, stalled: float) -> None:
        frame = sys._current_frames().get(self._main_thread)  # pyright: ignore[reportPrivateUsage]
        attempt, where = culprit(frame)
        who = "Something" if attempt is None else f"task {attempt.task.name} (job {attempt.id})"
        _log.warning(
            "%s has blocked the event loop for %.1f s at %s; every other job of this worker waits. "
            "Make it a plain def to run it in a thread, or executor='process' for computing",
            who,
            stalled,
            where,
            extra=None if attempt is None else job_fields(attempt),
        )


async def _release(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    for first in range(0, len(deliveries), 500):
        frames: list[Frame] = [
            (delivery, "B", b"", 0, 0, 0) for delivery in deliveries[first : first + 500]
        ]
        await consumer.finish(frames)

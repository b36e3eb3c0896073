"""Settler: sends outcomes to the server, those of one turn of the loop in one batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from taskq.broker.consumer import Frame
from taskq.codec.envelope import pack_failure
from taskq.core.job import Delivery
from taskq.core.outcome import Cancelled, Failed, Outcome, Released, RetryAsked, Succeeded
from taskq.core.text import fitting
from taskq.execution.job_log import delivery_fields
from taskq.redis.connection import MESSAGE_BYTES
from taskq.worker.session import Session
from taskq.worker.settings import Tally

__all__ = ["Settler"]

_log = logging.getLogger("taskq.worker")

_REFUSED, _UNKNOWN = 0, 3

REFUSED_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts to store an outcome that the server refuses."""


class Settler:
    """Sends outcomes until the server has confirmed each.

    `on_settled` is called with a delivery that the server no longer counts as this worker's.
    """

    def __init__(
        self, session: Session, tally: Tally, on_settled: Callable[[Delivery], None]
    ) -> None:
        self._session = session
        self._tally = tally
        self._on_settled = on_settled
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Frame] = []
        self._waiting_bytes = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._given_up = False

    @property
    def idle(self) -> bool:
        """Whether the server has confirmed every outcome."""
        return not self._waiting and not self._unanswered

    def settle(self, delivery: Delivery, outcome: Outcome, result_ttl_ms: int) -> None:
        """Store an outcome, together with all others of this turn of the loop."""
        frame = self._frame(delivery, outcome, result_ttl_ms)
        size = len(frame[2])
        if self._waiting_bytes + size > MESSAGE_BYTES:
            self.flush()
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(frame)
        self._waiting_bytes += size

    def hand_back(self, delivery: Delivery) -> None:
        """Hand back a job that never started; its attempt is not counted."""
        self.settle(delivery, Released(started=False), 0)

    async def drain(self) -> None:
        """Wait until the server has confirmed every outcome."""
        self.flush()
        while self._unanswered:
            self._answered.clear()
            await self._answered.wait()

    async def close(self, within: float) -> None:
        """As `drain`, for at most `within` seconds; unconfirmed outcomes are lost then."""
        try:
            async with asyncio.timeout(within):
                await self.drain()
        except TimeoutError:
            _log.error(
                "the server did not confirm every outcome within %.0f s; those jobs will run again",
                within,
            )
            self._given_up = True
            for sending in self._sending:
                sending.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    def flush(self) -> None:
        """Send the batch now, where no other job can end in this turn of the loop."""
        if not self._waiting:
            return
        batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._unanswered += 1
        on_reply = partial(self._on_reply, batch)
        if not self._session.consumer.finish_nowait(on_reply, batch):
            self._resend(batch)

    def _on_reply(self, batch: list[Frame], reply: Any) -> None:
        if isinstance(reply, list):
            self._settle(batch, cast("list[int]", reply))
        elif not self._given_up:
            self._resend(batch)

    def _resend(self, batch: list[Frame]) -> None:
        task = self._loop.create_task(self._send(batch))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, batch: list[Frame]) -> None:
        self._settle(batch, await self._finish(batch))

    def _settle(self, batch: list[Frame], answers: list[int]) -> None:
        for (delivery, *_), answer in zip(batch, answers, strict=True):
            if answer == _REFUSED:
                self._tally.fenced += 1
                _log.warning(
                    "job %s: the outcome of attempt %d was refused: the job was given to another "
                    "worker",
                    delivery.id,
                    delivery.attempt,
                    extra=delivery_fields(delivery),
                )
            elif answer == _UNKNOWN:
                self._tally.lost += 1
                _log.warning(
                    "job %s is no longer known to the server",
                    delivery.id,
                    extra=delivery_fields(delivery),
                )
            self._on_settled(delivery)
        self._unanswered -= 1
        self._answered.set()

    async def _finish(self, frames: list[Frame]) -> list[int]:
        """The server's answers; retried when refused, as the cause may pass."""
        for pause in (*REFUSED_PAUSES, None):
            try:
                return await self._session.consumer.finish(frames)
            except Exception as error:
                if pause is None:
                    _log.exception(
                        "giving up on %d outcomes; their jobs will run again", len(frames)
                    )
                    break
                _log.error(
                    "cannot store %d outcomes: %s; trying again in %g s", len(frames), error, pause
                )
                await asyncio.sleep(pause)
        return [1] * len(frames)

    def _frame(self, delivery: Delivery, outcome: Outcome, result_ttl_ms: int) -> Frame:
        tally = self._tally
        ttl = self._session.consumer.failure_ttl_ms
        match outcome:
            case Succeeded(result):
                tally.succeeded += 1
                return _framed("S", delivery, result, ttl=result_ttl_ms)
            case Failed(retry_in=None):
                tally.failed += 1
                error = pack_failure(outcome)
                return _framed("F", delivery, error, ttl=ttl, count=delivery.failures + 1)
            case Failed():
                tally.retried += 1
                return _failed_and_retried(delivery, outcome, ttl)
            case RetryAsked(delay, reason):
                tally.retried += 1
                text = _record("retry asked", reason)
                return _framed("R", delivery, text, ttl=ttl, delay=delay, count=delivery.failures)
            case Cancelled():
                tally.cancelled += 1
                return _framed("C", delivery, b"", ttl=ttl)
            case Released():
                tally.released += 1
                return _released(delivery, outcome, ttl)


def _failed_and_retried(delivery: Delivery, failure: Failed, ttl: int) -> Frame:
    text = _record(failure.kind, f"{failure.error_type}: {failure.error_text}")
    delay = failure.retry_in or 0.0
    return _framed("R", delivery, text, ttl=ttl, delay=delay, count=delivery.failures + 1)


def _released(delivery: Delivery, outcome: Released, ttl: int) -> Frame:
    text = b""
    if outcome.started:
        text = _record("released", "unknown task" if outcome.unknown else "")
    count = outcome.unknown or delivery.unknown
    return _framed("B", delivery, text, ttl=ttl, delay=outcome.delay, count=count)


def _record(outcome: str, text: str) -> bytes:
    return fitting(f"{outcome}\n{text}", 1000).encode()


def _framed(
    kind: str, delivery: Delivery, payload: bytes, *, ttl: int, delay: float = 0.0, count: int = 0
) -> Frame:
    return (delivery, kind, payload, ttl, int(delay * 1000), count)

"""Sends jobs: what is enqueued in one iteration of the event loop travels in one script call.

Batches of one producer are numbered and applied in order, so the server only remembers one number
per producer to recognise a repetition: a batch whose reply was lost is sent again with the same
number. Two batches are in flight at once, so that the server works while the next one is prepared.
The second names the first: when the first was refused or lost, the server skips the second, which
is sent again once the outcome of the first is known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset, group_consecutive, in_pieces, script
from taskq.codec.signing import Signing
from taskq.core.clock import monotonic
from taskq.core.errors import ServerRefused, ServerUnavailable
from taskq.core.ids import new_id
from taskq.core.job import NewJob
from taskq.core.liveness import (
    ENQUEUE_SECONDS,
    LOOP_STALL_SECONDS,
    REMEMBERED_SECONDS,
    RESEND_SECONDS,
)
from taskq.redis.client import Client, retrying
from taskq.redis.connection import ConnectionLost

__all__ = ["Producer"]

BATCH_JOBS = 500
BATCH_BYTES = 1_048_576
"""The limits of a call, unless its only job is larger: one or two milliseconds on the server."""

IN_FLIGHT = 2

_NEW = ord("1")
_FOREIGN = ord("!")

_Group = tuple[Sequence[NewJob], asyncio.Future[list[bool]], int, float]
"""Jobs submitted together, the future of their answer, their bytes, and when."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Jobs in one call. `ahead`: the batch before it, if that was in flight as well.

    `sent`: the server may have applied it. `reason`: why there is no answer yet.
    """

    number: int
    groups: list[_Group]
    frames: list[Any]
    ahead: _Batch | None
    began: float
    sent: bool = False
    reason: Exception | None = None
    sending: asyncio.Task[None] | None = None
    answered: asyncio.Event | None = None


class _Deadline:
    """The deadline of all groups, with one timer.

    `refuse_late` fails the groups that are late and yields those that still wait.
    """

    def __init__(
        self,
        seconds: float,
        loop: asyncio.AbstractEventLoop,
        refuse_late: Callable[[], Iterable[_Group]],
    ) -> None:
        self.seconds = seconds
        self._loop = loop
        self._refuse_late = refuse_late
        self._timer: asyncio.TimerHandle | None = None
        self._excused = 0.0

    def left(self, group: _Group) -> float:
        """Seconds until this group is late, without time in which the process was stopped."""
        return max(group[3], self._excused) + self.seconds - self._loop.time()

    def watch(self, within: float | None = None) -> None:
        """Start the timer that fails late groups, unless it runs."""
        if self._timer is None:
            within = self.seconds if within is None else within
            self._timer = self._loop.call_later(within, self._look, self._loop.time() + within)

    def _look(self, due: float) -> None:
        self._timer = None
        if self._loop.time() - due > LOOP_STALL_SECONDS:
            self._excused = self._loop.time()
        left = [self.left(group) for group in self._refuse_late()]
        if left:
            self.watch(max(0.0, min(left)))


class Producer:
    """Enqueues jobs for one event loop.

    `deadline` is how long, in seconds, an enqueue waits for an unreachable or silent server before
    it raises `ServerUnavailable`. `failure_ttl` (seconds) is how long the record of an expired job
    is kept. `signing` signs every envelope.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        offset: ClockOffset,
        *,
        deadline: float = ENQUEUE_SECONDS,
        failure_ttl: float = 604_800.0,
        signing: Signing | None = None,
    ) -> None:
        self._client = client
        self._offset = offset
        self._record_ttl_ms = int(failure_ttl * 1000)
        self._remembered_ms = int((deadline + REMEMBERED_SECONDS) * 1000)
        self._signing = signing if signing is not None and signing.enabled else None
        self._name = new_id()
        self._script = script("enqueue")
        self._keys = (
            keys.jobs,
            keys.lane_prefix,
            keys.lanes,
            keys.due,
            keys.expiry,
            keys.idle,
            keys.wake_channel,
            keys.next_channel,
            keys.sent + self._name,
            keys.slots,
            keys.held,
            keys.done_channel,
            keys.malformed,
        )
        self._not_jobs = partial(_refusal, client, keys.jobs)
        self._pending: deque[_Group] = deque()
        self._pending_jobs = 0
        self._in_flight: list[_Batch] = []
        self._flush_soon = False
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self._deadline = _Deadline(deadline, self._loop, self._refuse_late)

    async def add(self, job: NewJob) -> bool:
        """Enqueue one job; returns whether it is new. Raises as `add_many`."""
        return (await self.add_many((job,)))[0]

    def add_many(self, jobs: Sequence[NewJob]) -> Awaitable[list[bool]]:
        """Enqueue jobs in as few script calls as possible, whether or not the result is awaited.

        The result says for each whether it is new: false when another request has its id.

        Raises `ServerUnavailable`, `ServerRefused` and `QueueFull`.
        """
        if self._signing is not None:
            jobs = [_sealed(job, self._signing) for job in jobs]
        size = 0
        for job in jobs:
            size += len(job.envelope)
        if 0 < len(jobs) <= BATCH_JOBS and size <= BATCH_BYTES:
            return self._submit(jobs, size)
        pieces = in_pieces(jobs, _size_of, BATCH_JOBS, BATCH_BYTES)
        return _joined(asyncio.gather(*(self._submit(piece, size) for piece, size in pieces)))

    def _submit(self, jobs: Sequence[NewJob], size: int) -> asyncio.Future[list[bool]]:
        future: asyncio.Future[list[bool]] = self._loop.create_future()
        self._pending.append((jobs, future, size, self._loop.time()))
        self._pending_jobs += len(jobs)
        if self._pending_jobs >= BATCH_JOBS:
            # The batch is full, and the server can start on it.
            self._flush()
        elif not self._flush_soon:
            # Flush in the next iteration of the loop, with everything this one enqueues.
            self._flush_soon = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._flush_soon = False
        while self._pending and len(self._in_flight) < IN_FLIGHT:
            self._number += 1
            groups = self._next_groups()
            ahead = self._in_flight[-1] if self._in_flight else None
            jobs = (job for group in groups for job in group[0])
            frames = group_consecutive((job[2:], job[:2]) for job in jobs)
            batch = _Batch(self._number, groups, frames, ahead, monotonic())
            self._in_flight.append(batch)
            on_reply = partial(self._on_reply, batch)
            batch.sent = self._client.send_nowait(
                on_reply, self._script, self._keys, *self._script_args(batch)
            )
            if not batch.sent:
                self._resend(batch)
        self._deadline.watch()

    def _script_args(self, batch: _Batch) -> tuple[Any, ...]:
        waits = batch.ahead in self._in_flight
        before = batch.number - 1 if waits else 0
        own = (batch.number, self._record_ttl_ms, before, self._remembered_ms)
        return (self._offset.ms, *own, *batch.frames)

    def _on_reply(self, batch: _Batch, reply: Any) -> None:
        if isinstance(reply, bytes):
            self._end_batch(batch)
            _answer(batch.groups, reply, self._not_jobs)
        elif self._deadline.left(batch.groups[-1]) > 0:
            self._resend(batch)
        else:
            self._end_batch(batch)
            _refuse(batch.groups, self._unconfirmed(batch))

    def _resend(self, batch: _Batch) -> None:
        batch.sending = self._loop.create_task(self._send(batch))

    def _end_batch(self, batch: _Batch) -> None:
        self._in_flight.remove(batch)
        batch.ahead = None
        if batch.answered is not None:
            batch.answered.set()
        if self._pending:
            self._flush()

    def _next_groups(self) -> list[_Group]:
        groups: list[_Group] = []
        count = size = 0
        while self._pending:
            jobs, _, bytes_more, _ = self._pending[0]
            if groups and (count + len(jobs) > BATCH_JOBS or size + bytes_more > BATCH_BYTES):
                break
            groups.append(self._pending.popleft())
            count += len(jobs)
            size += bytes_more
        self._pending_jobs -= count
        return groups

    async def _send(self, batch: _Batch) -> None:
        """Send a batch until it is answered, for a limited time.

        A process that was stopped may come back to a server that has forgotten the batch number.
        """
        left = self._deadline.left(batch.groups[-1])
        try:
            answer = await retrying(
                partial(self._send_once, batch), seconds=left, what="nothing could be enqueued"
            )
        except ServerUnavailable as error:
            self._end_batch(batch)
            _refuse(batch.groups, error if self._client.closed else self._unconfirmed(batch))
        except BaseException as error:
            self._end_batch(batch)
            _refuse(batch.groups, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._end_batch(batch)
            _answer(batch.groups, answer, self._not_jobs)

    async def _send_once(self, batch: _Batch, _: bool) -> bytes:
        while True:
            if monotonic() - batch.began > self._deadline.seconds + RESEND_SECONDS:
                raise ServerUnavailable("it was first sent too long ago")
            try:
                answer = await self._client.script(
                    self._script, self._keys, *self._script_args(batch)
                )
            except (ServerUnavailable, ConnectionLost) as error:
                batch.reason = error
                batch.sent |= isinstance(error, ConnectionLost)
                raise
            if answer is not None:
                return answer
            await self._until_answered(batch.ahead)

    async def _until_answered(self, batch: _Batch | None) -> None:
        if batch is not None and batch in self._in_flight:
            batch.answered = batch.answered or asyncio.Event()
            await batch.answered.wait()

    def _refuse_late(self) -> Iterator[_Group]:
        """Fail the groups that were not answered in time; yields those that still wait."""
        for batch in self._in_flight:
            late: list[_Group] = []
            for group in batch.groups:
                if self._deadline.left(group) > 0:
                    yield group
                else:
                    late.append(group)
            if late:
                _refuse(late, self._unconfirmed(batch))
        while self._pending and self._deadline.left(self._pending[0]) <= 0:
            late = [self._pending.popleft()]
            self._pending_jobs -= len(late[0][0])
            _refuse(late, self._unconfirmed(None))
        yield from self._pending

    def _unconfirmed(self, batch: _Batch | None) -> ServerUnavailable:
        reason = batch.reason if batch is not None else None
        where = self._client.where
        why = f"within {self._deadline.seconds:g} s: {reason or f'{where} does not answer'}"
        if batch is None or not batch.sent:
            return ServerUnavailable(f"nothing could be enqueued {why}")
        return ServerUnavailable(
            f"the enqueue was not confirmed {why}; it may or may not have been done. With an id of "
            "your own (options(id=...)) it is safe to enqueue it again"
        )


def _answer(
    batch: list[_Group], reply: bytes, not_jobs: Callable[[list[str]], ServerRefused]
) -> None:
    at, clean = 0, _FOREIGN not in reply
    for jobs, future, _, _ in batch:
        end = at + len(jobs)
        if not future.done():
            if clean or _FOREIGN not in reply[at:end]:
                # Most groups have one job, and a comprehension costs a call.
                alone = end - at == 1
                new = [reply[at] == _NEW] if alone else [f == _NEW for f in reply[at:end]]
                future.set_result(new)
            else:
                flags = zip(jobs, reply[at:end], strict=True)
                future.set_exception(not_jobs([job[0] for job, flag in flags if flag == _FOREIGN]))
        at = end


def _refusal(client: Client, prefix: str, ids: Sequence[str]) -> ServerRefused:
    names, keys = ", ".join(map(repr, ids)), ", ".join(prefix + job_id for job_id in ids)
    return ServerRefused(
        f"{names} could not be enqueued: {keys} on {client.where} is not a job; remove that key, "
        "or use another id. Jobs enqueued in the same call were enqueued"
    )


def _refuse(batch: list[_Group], error: BaseException) -> None:
    for _, future, _, _ in batch:
        if not future.done():
            future.set_exception(error)


def _size_of(job: NewJob) -> int:
    return len(job.envelope)


def _sealed(job: NewJob, signing: Signing) -> NewJob:
    return job._replace(envelope=signing.seal_job(job.id, job.lane, job.envelope))


async def _joined(answers: Awaitable[list[list[bool]]]) -> list[bool]:
    return [new for answer in await answers for new in answer]

"""Sending jobs: what is enqueued in one turn of the loop travels as one script call.

Batches of one producer are numbered and done in order, so the server needs to remember one number
per producer to know what it has already done: a batch whose reply was lost is sent again under its
number. Two batches travel at once, so that the server works while the next one is made. The second
one names the first: where that one was refused or lost, the server does not do the second either,
and it is sent again when the first one's fate is known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from taskq.broker.client import Client, retrying
from taskq.broker.clock import ClockOffset
from taskq.broker.keys import Keys
from taskq.broker.runs import in_runs
from taskq.broker.scripts import script
from taskq.core.errors import ServerUnavailable
from taskq.core.ids import new_id
from taskq.core.job import NewJob
from taskq.core.liveness import ENQUEUE_SECONDS, REMEMBERED_SECONDS, RESEND_SECONDS
from taskq.core.passing import seconds_passed
from taskq.core.signing import Signing

__all__ = ["Producer"]

BATCH_JOBS = 500
BATCH_BYTES = 1_048_576
IN_FLIGHT = 2

_NEW = ord("1")

_Group = tuple[Sequence[NewJob], asyncio.Future[list[bool]]]


@dataclass(slots=True, eq=False)
class _Batch:
    """Jobs that travel together. `ahead`: the batch before it, if that was on its way as well."""

    number: int
    groups: list[_Group]
    frames: list[Any]
    ahead: _Batch | None
    began: float
    sending: asyncio.Task[None] | None = None
    landed: asyncio.Event | None = None


class Producer:
    """Enqueues jobs for one event loop.

    `deadline` is how long, in seconds, an enqueue tries to reach the server before it raises
    `ServerUnavailable`. `failure_ttl` (seconds) is how long the record of an expired job is kept.
    `signing` seals every envelope that leaves here.
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
        self._deadline = deadline
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
        self._pending: deque[_Group] = deque()
        self._pending_jobs = 0
        self._flying: list[_Batch] = []
        self._flush_soon = False
        self._number = 0
        self._loop = asyncio.get_running_loop()

    async def add(self, job: NewJob) -> bool:
        """Enqueue one job: whether it is new. Raises as `add_many`."""
        return (await self.add_many((job,)))[0]

    def add_many(self, jobs: Sequence[NewJob]) -> Awaitable[list[bool]]:
        """Enqueue jobs in as few script calls as fit; they are on their way when this returns.

        Awaited, it gives for each whether it is new: false when its id is another request's.

        Raises `ServerUnavailable`, `ServerRefused` and `QueueFull`.
        """
        if 0 < len(jobs) <= BATCH_JOBS:
            return self._submit(jobs)
        groups = [jobs[i : i + BATCH_JOBS] for i in range(0, len(jobs), BATCH_JOBS)]
        return _joined(asyncio.gather(*map(self._submit, groups)))

    def _submit(self, jobs: Sequence[NewJob]) -> asyncio.Future[list[bool]]:
        if self._signing is not None:
            jobs = [_sealed(job, self._signing) for job in jobs]
        future: asyncio.Future[list[bool]] = self._loop.create_future()
        self._pending.append((jobs, future))
        self._pending_jobs += len(jobs)
        if self._pending_jobs >= BATCH_JOBS:
            # A whole batch: nothing more could go with it, and the server does it meanwhile.
            self._flush()
        elif not self._flush_soon:
            # In the next turn of the loop: what this turn enqueues goes with it.
            self._flush_soon = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._flush_soon = False
        while self._pending and len(self._flying) < IN_FLIGHT:
            self._number += 1
            groups = self._next_groups()
            ahead = self._flying[-1] if self._flying else None
            jobs = (job for group, _ in groups for job in group)
            frames = in_runs((job[2:], job[:2]) for job in jobs)
            batch = _Batch(self._number, groups, frames, ahead, seconds_passed())
            self._flying.append(batch)
            told = partial(self._heard, batch)
            if not self._client.post(told, self._script, self._keys, *self._said(batch)):
                self._say_again(batch)

    def _said(self, batch: _Batch) -> tuple[Any, ...]:
        waits = batch.ahead in self._flying
        before = batch.number - 1 if waits else 0
        own = (batch.number, self._record_ttl_ms, before, self._remembered_ms)
        return (self._offset.ms, *own, *batch.frames)

    def _heard(self, batch: _Batch, reply: Any) -> None:
        if isinstance(reply, bytes):
            self._land(batch)
            _answer(batch.groups, reply)
        else:
            self._say_again(batch)

    def _say_again(self, batch: _Batch) -> None:
        batch.sending = self._loop.create_task(self._send(batch))

    def _land(self, batch: _Batch) -> None:
        self._flying.remove(batch)
        batch.ahead = None
        if batch.landed is not None:
            batch.landed.set()
        if self._pending:
            self._flush()

    def _next_groups(self) -> list[_Group]:
        groups: list[_Group] = []
        count = size = 0
        while self._pending and size < BATCH_BYTES:
            jobs = self._pending[0][0]
            if groups and count + len(jobs) > BATCH_JOBS:
                break
            groups.append(self._pending.popleft())
            count += len(jobs)
            for job in jobs:
                size += len(job.envelope)
        self._pending_jobs -= count
        return groups

    async def _send(self, batch: _Batch) -> None:
        """Send it until it is answered; its fate is known when this returns.

        Not for ever: a process that stood still may come back to a server that has forgotten it.
        """

        async def once(_: bool) -> bytes:
            while True:
                if seconds_passed() - batch.began > self._deadline + RESEND_SECONDS:
                    raise ServerUnavailable("it was sent long ago; it may have been done or not")
                answer = await self._client.script(self._script, self._keys, *self._said(batch))
                if answer is not None:
                    return answer
                await self._until_landed(batch.ahead)

        try:
            answer = await retrying(once, seconds=self._deadline, what="nothing could be enqueued")
        except BaseException as error:
            self._land(batch)
            _refuse(batch.groups, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._land(batch)
            _answer(batch.groups, answer)

    async def _until_landed(self, batch: _Batch | None) -> None:
        if batch is not None and batch in self._flying:
            batch.landed = batch.landed or asyncio.Event()
            await batch.landed.wait()


def _answer(batch: list[_Group], reply: bytes) -> None:
    at = 0
    for jobs, future in batch:
        end = at + len(jobs)
        if not future.done():
            # Most are alone, and a comprehension is a call.
            alone = end - at == 1
            future.set_result([reply[at] == _NEW] if alone else [f == _NEW for f in reply[at:end]])
        at = end


def _refuse(batch: list[_Group], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _sealed(job: NewJob, signing: Signing) -> NewJob:
    return job._replace(envelope=signing.seal_job(job.id, job.lane, job.envelope))


async def _joined(answers: Awaitable[list[list[bool]]]) -> list[bool]:
    return [new for answer in await answers for new in answer]

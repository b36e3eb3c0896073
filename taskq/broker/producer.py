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
from typing import Any

from taskq.broker.client import Client, retrying
from taskq.broker.clock import ClockOffset
from taskq.broker.keys import Keys
from taskq.broker.scripts import script
from taskq.core.ids import new_id
from taskq.core.job import NewJob
from taskq.core.signing import Signing

__all__ = ["Producer"]

BATCH_JOBS = 500
BATCH_BYTES = 1_048_576
IN_FLIGHT = 2

_NEW = ord("1")

_Group = tuple[Sequence[NewJob], asyncio.Future[list[bool]]]


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
        deadline: float = 10.0,
        failure_ttl: float = 604_800.0,
        signing: Signing | None = None,
    ) -> None:
        self._client = client
        self._offset = offset
        self._deadline = deadline
        self._record_ttl_ms = int(failure_ttl * 1000)
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
            keys.workers,
            keys.held,
            keys.done_channel,
            keys.malformed,
        )
        self._pending: deque[_Group] = deque()
        self._flying: list[asyncio.Task[None]] = []
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
        if len(jobs) == BATCH_JOBS:
            # A whole batch: nothing could go with it.
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
            ahead = self._flying[-1] if self._flying else None
            sending = self._loop.create_task(self._send(self._next_batch(), self._number, ahead))
            self._flying.append(sending)
            sending.add_done_callback(self._landed)

    def _landed(self, sending: asyncio.Task[None]) -> None:
        self._flying.remove(sending)
        self._flush()

    def _next_batch(self) -> list[_Group]:
        batch = [self._pending.popleft()]
        count = len(batch[0][0])
        size = sum(len(job.envelope) for job in batch[0][0])
        while self._pending and size < BATCH_BYTES:
            count += len(self._pending[0][0])
            if count > BATCH_JOBS:
                break
            group = self._pending.popleft()
            size += sum(len(job.envelope) for job in group[0])
            batch.append(group)
        return batch

    async def _send(
        self, batch: list[_Group], number: int, ahead: asyncio.Task[None] | None
    ) -> None:
        frames = _runs(batch)

        async def once(_: bool) -> bytes:
            while True:
                waits = ahead is not None and not ahead.done()
                answer = await self._client.script(
                    self._script,
                    self._keys,
                    self._offset.ms,
                    number,
                    self._record_ttl_ms,
                    number - 1 if waits else 0,
                    *frames,
                )
                if answer is not None:
                    return answer
                if ahead is not None:
                    await asyncio.wait({ahead})

        try:
            answer = await retrying(once, seconds=self._deadline, what="nothing could be enqueued")
        except BaseException as error:
            _refuse(batch, error)
            if not isinstance(error, Exception):
                raise
        else:
            _answer(batch, [flag == _NEW for flag in answer])


def _answer(batch: list[_Group], created: list[bool]) -> None:
    at = 0
    for jobs, future in batch:
        if not future.done():
            future.set_result(created[at : at + len(jobs)])
        at += len(jobs)


def _refuse(batch: list[_Group], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _sealed(job: NewJob, signing: Signing) -> NewJob:
    return job._replace(envelope=signing.seal_job(job.id, job.lane, job.envelope))


async def _joined(answers: Awaitable[list[list[bool]]]) -> list[bool]:
    return [new for answer in await answers for new in answer]


def _runs(batch: list[_Group]) -> list[Any]:
    """The jobs as `enqueue.lua` reads them: what neighbours have in common is said once."""
    frames: list[Any] = []
    alike: tuple[str, ...] | None = None
    count_at = 0
    for jobs, _ in batch:
        for job in jobs:
            common = job[2:]
            if common != alike:
                alike, count_at = common, len(frames)
                frames += (0, *common)
            frames[count_at] += 1
            frames += job[:2]
    return frames

"""Sending jobs: what is enqueued in one turn of the loop travels as one script call.

Batches of one producer are numbered and sent in order, one at a time, and a batch whose reply was
lost is sent again under its number before the next one. So the server needs to remember one number
per producer to know what it has already done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

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
        self._pending: deque[tuple[Sequence[NewJob], asyncio.Future[str]]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._number = 0
        self._loop = asyncio.get_running_loop()

    async def add(self, job: NewJob) -> bool:
        """Enqueue one job; true when it is new, false when its id was taken by another request.

        Raises `ServerUnavailable`, `ServerRefused` and `QueueFull`.
        """
        return await self._submit((job,)) == "1"

    async def add_many(self, jobs: Sequence[NewJob]) -> list[bool]:
        """Enqueue jobs in as few script calls as fit; an answer for each, as `add` gives."""
        groups = [jobs[i : i + BATCH_JOBS] for i in range(0, len(jobs), BATCH_JOBS)]
        answers = await asyncio.gather(*map(self._submit, groups))
        return [flag == "1" for answer in answers for flag in answer]

    def _submit(self, jobs: Sequence[NewJob]) -> asyncio.Future[str]:
        if self._signing is not None:
            jobs = [_sealed(job, self._signing) for job in jobs]
        future: asyncio.Future[str] = self._loop.create_future()
        self._pending.append((jobs, future))
        if self._sender is None:
            # The task starts in the next turn of the loop: what this turn enqueues goes with it.
            self._sender = self._loop.create_task(self._send_all())
        return future

    async def _send_all(self) -> None:
        try:
            while self._pending:
                await self._send(self._next_batch())
        finally:
            self._sender = None

    def _next_batch(self) -> list[tuple[Sequence[NewJob], asyncio.Future[str]]]:
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

    async def _send(self, batch: list[tuple[Sequence[NewJob], asyncio.Future[str]]]) -> None:
        self._number += 1
        number = self._number
        frames = [part for jobs, _ in batch for job in jobs for part in job]

        async def once(_: bool) -> bytes:
            return await self._client.script(
                self._script,
                self._keys,
                self._offset.ms,
                number,
                self._record_ttl_ms,
                *frames,
            )

        try:
            answer = (
                await retrying(once, seconds=self._deadline, what="nothing could be enqueued")
            ).decode()
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        at = 0
        for jobs, future in batch:
            if not future.done():
                future.set_result(answer[at : at + len(jobs)])
            at += len(jobs)


def _sealed(job: NewJob, signing: Signing) -> NewJob:
    return job._replace(envelope=signing.seal_job(job.id, job.lane, job.envelope))

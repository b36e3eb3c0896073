"""Durable calls on the server, and what processes report about their deferred calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset, script
from taskq.broker.waiting import STATES
from taskq.codec.signing import Signing
from taskq.core.job import JobState, NewJob
from taskq.core.liveness import CALL_SECONDS
from taskq.core.options import Retention
from taskq.redis.client import Client, retrying

__all__ = ["DurableCalls"]

_LETTERS = {state: letter for letter, state in STATES.items()}


class DurableCalls:
    """Holds, releases or settles durable calls for the process that runs them."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        offset: ClockOffset,
        *,
        retention: Retention,
        signing: Signing,
    ) -> None:
        self._client = client
        self._offset = offset
        self._retention = retention
        self._signing = signing
        self._durable, self._show = script("durable"), script("show")
        self._keys = (
            *(keys.jobs, keys.due, keys.expiry, keys.failed, keys.stats),
            *(keys.done_channel, keys.next_channel),
        )
        self._show_keys = (keys.deferring,)

    async def hold(self, leases: Sequence[tuple[str, str, int]]) -> list[bool]:
        """Postpone the time at which the queue takes jobs over: (id, owner, ms from now).

        Returns for each whether its owner still holds it.
        """
        parts = [part for lease in leases for part in lease]
        answer = await self._run("hold", *parts)
        return [flag == ord("1") for flag in answer]

    async def settle(
        self, job_id: str, owner: str, state: JobState, payload: bytes, ttl: float
    ) -> bool:
        """End a job that ran in this process; `ttl` (seconds) is how long a result is kept.

        Returns False when its owner no longer holds it.
        """
        if state is JobState.SUCCEEDED and self._signing.enabled:
            payload = self._signing.seal(payload, "result", job_id)
        seconds = ttl if state is JobState.SUCCEEDED else self._retention.failure_seconds

        async def once(repeated: bool) -> bool:
            done = await self._run(
                "settle",
                *(job_id, owner, _LETTERS[state], str(state), payload),
                *(int(seconds * 1000), self._retention.keep_failed),
            )
            # After a lost reply it is unknown whether this call or the queue got the job.
            return done == 1 or repeated

        what = "the end of a durable call could not be stored"
        return await retrying(once, seconds=CALL_SECONDS, what=what)

    async def release(self, job: NewJob) -> bool:
        """Release a job to the queue, with this envelope and due time.

        Returns False when its owner no longer holds it.
        """
        envelope = job.envelope
        if self._signing.enabled:
            envelope = self._signing.seal_job(job.id, job.lane, envelope)

        async def once(_: bool) -> bool:
            delay_ms = int(job.when[1:] or 0)
            return await self._run("release", job.id, job.owner, envelope, delay_ms) == 1

        return await retrying(
            once, seconds=CALL_SECONDS, what="a durable call could not be released"
        )

    async def show(self, process: str, record: bytes | None) -> None:
        """Store what a process reports about itself, for a minute; None removes it."""
        await self._client.script(
            self._show, self._show_keys, self._offset.ms, process, record or b""
        )

    async def _run(self, what: str, *arguments: Any) -> Any:
        return await self._client.script(
            self._durable, self._keys, self._offset.ms, what, *arguments
        )

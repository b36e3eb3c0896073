"""Durable calls on the server, and what processes report about their deferred calls."""

from __future__ import annotations

from collections.abc import Sequence

from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset, script
from taskq.codec.signing import Signing
from taskq.core.job import JobState, NewJob
from taskq.core.liveness import CALL_SECONDS
from taskq.core.options import Retention
from taskq.redis.client import Client, retrying

__all__ = ["Deferrals"]

_STATES = {
    JobState.SUCCEEDED: "s",
    JobState.FAILED: "f",
    JobState.CANCELLED: "c",
    JobState.EXPIRED: "x",
}


class Deferrals:
    """Holds durable calls for the process that runs them, ends them, or releases them."""

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
        self._keys = keys
        self._offset = offset
        self._retention = retention
        self._signing = signing
        self._scripts = {name: script(name) for name in ("hold", "settle", "let_go", "show")}

    async def hold(self, leases: Sequence[tuple[str, str, int]]) -> list[bool]:
        """Postpone the time at which the queue takes jobs over: (id, owner, ms from now).

        Returns for each whether its owner still holds it.
        """
        parts = [part for lease in leases for part in lease]
        keys = (self._keys.jobs, self._keys.due)
        answer = await self._client.script(self._scripts["hold"], keys, self._offset.ms, *parts)
        return [flag == 49 for flag in answer]

    async def settle(
        self, job_id: str, owner: str, state: JobState, payload: bytes, ttl: float
    ) -> bool:
        """End a job that ran in this process; `ttl` (seconds) is how long a result is kept.

        Returns False when its owner no longer holds it.
        """
        keys, kept = self._keys, self._retention
        if state is JobState.SUCCEEDED and self._signing.enabled:
            payload = self._signing.seal(payload, "result", job_id)
        seconds = ttl if state is JobState.SUCCEEDED else kept.failure_seconds

        async def once(repeated: bool) -> bool:
            done = await self._client.script(
                self._scripts["settle"],
                (
                    *(keys.jobs, keys.due, keys.expiry),
                    *(keys.failed, keys.stats, keys.done_channel),
                ),
                self._offset.ms,
                job_id,
                owner,
                _STATES[state],
                str(state),
                payload,
                int(seconds * 1000),
                kept.keep_failed,
            )
            # After a lost reply it is unknown whether this call or the queue got the job.
            return done == 1 or repeated

        what = "the end of a durable call could not be stored"
        return await retrying(once, seconds=CALL_SECONDS, what=what)

    async def let_go(self, job: NewJob) -> bool:
        """Release a job to the queue, with this envelope and due time.

        Returns False when its owner no longer holds it.
        """
        keys, envelope = self._keys, job.envelope
        if self._signing.enabled:
            envelope = self._signing.seal_job(job.id, job.lane, envelope)

        async def once(_: bool) -> bool:
            done = await self._client.script(
                self._scripts["let_go"],
                (keys.jobs, keys.due, keys.next_channel),
                self._offset.ms,
                job.id,
                job.owner,
                envelope,
                int(job.when[1:] or 0),
            )
            return done == 1

        return await retrying(
            once, seconds=CALL_SECONDS, what="a durable call could not be released"
        )

    async def show(self, process: str, record: bytes | None) -> None:
        """Store what a process reports about itself, for a minute; None removes it."""
        await self._client.script(
            self._scripts["show"], (self._keys.deferring,), self._offset.ms, process, record or b""
        )

"""Reading and cancelling single jobs."""

from __future__ import annotations

from typing import Any

from taskq.broker.client import Client, retrying
from taskq.broker.clock import ClockOffset
from taskq.broker.job_record import read_job
from taskq.broker.keys import Keys
from taskq.broker.scripts import script
from taskq.core.job import JobInfo
from taskq.core.liveness import CALL_SECONDS
from taskq.core.signing import Signing

__all__ = ["Jobs"]

_ATTEMPTS = 100


class Jobs:
    """What can be asked and said about one job by its id."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        offset: ClockOffset,
        *,
        failure_ttl: float,
        signing: Signing | None = None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._offset = offset
        self._ttl_ms = int(failure_ttl * 1000)
        self._signing = signing if signing is not None else Signing(keys.namespace)
        self._cancel, self._info = script("cancel"), script("info")

    async def cancel(self, job_id: str) -> int:
        """Cancel a job: 1 done, 2 its worker was asked, 0 it was over, -1 there is none."""
        keys = self._keys

        async def once(repeated: bool) -> int:
            return await self._client.script(
                self._cancel,
                (
                    keys.jobs,
                    keys.due,
                    keys.expiry,
                    keys.cancels,
                    keys.wake_channel,
                    keys.done_channel,
                ),
                self._offset.ms,
                job_id,
                self._ttl_ms,
                int(repeated),
            )

        return await retrying(once, seconds=CALL_SECONDS, what="the job could not be cancelled")

    async def info(self, job_id: str) -> JobInfo | None:
        """What the server knows about a job, of its attempts the last hundred; None if nothing."""

        async def once(_: bool) -> list[Any]:
            return await self._client.script(
                self._info, (self._keys.jobs,), self._offset.ms, job_id, _ATTEMPTS
            )

        now, *pairs = await retrying(once, seconds=CALL_SECONDS, what="the job could not be read")
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return read_job(job_id, fields, self._signing, now) if fields else None

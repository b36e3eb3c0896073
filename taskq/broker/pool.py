"""One broker for each event loop that uses a TaskQ: the backend of tasks, jobs and schedules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence

from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.durable_calls import DurableCalls
from taskq.core.job import Ending, JobInfo, JobState, NewJob

__all__ = ["BrokerPool"]


class BrokerPool:
    """Brokers by event loop, each created on first use: a socket belongs to one loop."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self._brokers: dict[asyncio.AbstractEventLoop, Broker] = {}

    def current(self) -> Broker:
        """The broker of the running loop."""
        loop = asyncio.get_running_loop()
        broker = self._brokers.get(loop)
        if broker is None:
            # Threads with loops of their own may change the dict at the same time.
            for known in tuple(self._brokers):
                if known.is_closed():
                    self._brokers.pop(known, None)
            broker = self._brokers[loop] = Broker(self.settings)
        return broker

    @property
    def connected(self) -> bool:
        """Whether the running loop is connected now."""
        broker = self._brokers.get(asyncio.get_running_loop())
        return broker is not None and broker.client.connected

    @property
    def configured(self) -> bool:
        """Whether the server's address was configured, or the running loop is connected."""
        return self.settings.configured() or self.connected

    def durable_calls(self) -> DurableCalls:
        """The running loop's access to durable calls."""
        return self.current().durable_calls

    async def aclose(self) -> None:
        """Close the running loop's broker; the next use makes a new one."""
        broker = self._brokers.pop(asyncio.get_running_loop(), None)
        if broker is not None:
            await broker.aclose()

    def submit(self, jobs: Sequence[NewJob], *, awaited: bool = False) -> Awaitable[list[bool]]:
        """Enqueue jobs together. The result says for each whether it is new or its id was taken.

        `awaited`: this loop will wait for their results, and their ids were made by taskq.
        """
        broker = self.current()
        if awaited:
            jobs = [job._replace(channel=broker.waiting.listen(job.id)) for job in jobs]
        return broker.producer.add_many(jobs)

    async def until_over(self, job_id: str, within: float | None = None) -> Ending:
        """Wait until a job has ended or is known to be unknown.

        Raises `TimeoutError` when that takes longer than `within` seconds, and `UntrustedMessage`
        for a result without a valid signature, where there are signing keys.
        """
        ending = await self.current().waiting.until_over(job_id, within)
        if ending.state is not JobState.SUCCEEDED:
            return ending
        value = self.settings.signing.open(ending.payload, "result", job_id)
        return Ending(ending.state, value)

    async def look(self, job_id: str) -> Ending:
        """The state of a job now, without waiting."""
        return (await self.current().waiting.look([job_id]))[0]

    async def job_info(self, job_id: str) -> JobInfo | None:
        """Everything that is stored about a job; None when there is no such job."""
        return await self.current().jobs.info(job_id)

    def watch(self, job_id: str) -> AsyncGenerator[JobInfo, None]:
        """A job now and whenever it has changed, until it has ended or is gone."""
        return self.current().watching.watch(job_id)

    async def cancel_job(self, job_id: str) -> int:
        """Cancel a job: 1 done, 2 its worker was asked to, 0 it had ended, -1 no such job."""
        return await self.current().jobs.cancel(job_id)

"""A worker's session: its name at the server, and when the server last confirmed it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from taskq.broker.broker import Broker
from taskq.broker.leases import BeatReply
from taskq.core.clock import monotonic
from taskq.core.errors import ConfigError
from taskq.core.ids import process_name
from taskq.core.liveness import FRESH_SECONDS, LEASE_SECONDS, NAME_CHECK_SECONDS
from taskq.worker.settings import WorkerSettings

__all__ = ["Session"]


class Session:
    """A worker's name, and the consumer that fetches and finishes under it.

    A worker that was declared dead continues under a new name; everything it still tries under the
    old one is fenced.

    A worker that was suspended cannot know what became of the jobs it holds, so it starts none
    until the server has answered it. Jobs that others have run in the meantime are not run again.
    """

    def __init__(self, broker: Broker, name: str | None) -> None:
        self._broker = broker
        self.signing = broker.settings.signing
        self.name = name or process_name()
        self.consumer = broker.consumer(self.name)
        self._renewed = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the server has confirmed this worker within the last lease."""
        return monotonic() - self._renewed < LEASE_SECONDS

    def renew(self, sent: float) -> None:
        """Note that the server confirmed this worker in its answer to a call sent at `sent`."""
        self._renewed = max(self._renewed, sent)

    async def register(
        self, describe: Callable[[], bytes], settings: WorkerSettings, *, promotes: bool
    ) -> BeatReply:
        """Register this worker, what it serves, and whether it may promote due jobs.

        The name of a dead worker becomes free when its lease runs out. Raises `ConfigError` when a
        living worker has the name.
        """
        leases, seen, since, looked = self._broker.leases, None, 0.0, 0.0
        while True:
            sent = monotonic()
            reply = await leases.register(
                self.name,
                describe(),
                settings.concurrency,
                settings.queues,
                promotes=promotes,
            )
            if reply is not None:
                self.renew(sent)
                return reply
            heartbeat = await leases.last_heartbeat(self.name)
            now = monotonic()
            if now - looked > FRESH_SECONDS:
                # The server or this process was suspended; the other worker's heartbeats may have
                # stopped with it.
                since = now
            looked = now
            if heartbeat != seen:
                if seen is not None and heartbeat is not None:
                    raise ConfigError(
                        f"a worker with the name {self.name!r} is running: use another name, or "
                        "leave it out to get a unique one"
                    )
                seen, since = heartbeat, now
            elif now - since >= LEASE_SECONDS:
                await leases.reap(self.name, self._broker.reap_policy, heartbeat=heartbeat)
            await asyncio.sleep(NAME_CHECK_SECONDS)

    def rename(self) -> None:
        """Start over under a new name."""
        self.name = process_name()
        self.consumer = self._broker.consumer(self.name)

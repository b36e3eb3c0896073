"""Under which name a worker is known to the server, and when the server last said so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from taskq.broker.broker import Broker
from taskq.core.errors import ConfigError
from taskq.core.ids import process_name
from taskq.core.liveness import LEASE_SECONDS, NAME_CHECK_SECONDS
from taskq.core.passing import seconds_passed
from taskq.worker.observer import Observer

__all__ = ["Session"]


class Session:
    """A worker's name and the traffic under it.

    A worker that was declared dead goes on under a new name: what it did under the old one is
    fenced, whatever it still tries.

    A worker that stood still does not know what became of the jobs it holds: it starts none before
    the server has answered it. So what it was handed before, and others have run since, is not run
    again.
    """

    def __init__(self, broker: Broker, name: str | None) -> None:
        self._broker = broker
        self.signing = broker.settings.signing
        self.name = name or process_name()
        self.consumer = broker.consumer(self.name)
        self._renewed = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the server said within a lease that it knows this worker."""
        return seconds_passed() - self._renewed < LEASE_SECONDS

    def renew(self, sent: float) -> None:
        """The server knew this worker when it answered what was sent at `sent`."""
        self._renewed = max(self._renewed, sent)

    async def register(self, describe: Callable[[], bytes], slots: int) -> None:
        """Have the server know this worker, as one that runs `slots` jobs at once.

        A name that a dead worker left behind is free once that one's lease is over. Raises
        `ConfigError` when a living worker has it.
        """
        observer, leases, seen = Observer(), self._broker.leases, ""
        while True:
            sent = seconds_passed()
            if await leases.beat(self.name, describe(), register=slots) is not None:
                return self.renew(sent)
            counter = (await leases.counters()).get(self.name, "")
            if seen and counter not in (seen, ""):
                raise ConfigError(
                    f"a worker with the name {self.name!r} is running: type another name, or leave "
                    "it out for one that is never used twice"
                )
            seen = counter
            # Each answer is as a beat of our own that landed.
            counters = {"": str(sent), self.name: counter}
            if observer.judge(counters, "", seconds_passed()):
                await leases.reap(self.name, self._broker.reap_policy, counter=counter)
            await asyncio.sleep(NAME_CHECK_SECONDS)

    def rename(self) -> None:
        """Start over under a new name."""
        self.name = process_name()
        self.consumer = self._broker.consumer(self.name)

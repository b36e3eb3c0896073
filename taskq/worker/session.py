"""Under which name a worker is known to the server, and when the server last said so."""

from __future__ import annotations

from taskq.broker.broker import Broker
from taskq.core.ids import process_name
from taskq.core.passing import seconds_passed
from taskq.worker.observer import DEAD_SECONDS

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
        return seconds_passed() - self._renewed < DEAD_SECONDS

    def renew(self, sent: float) -> None:
        """The server knew this worker when it answered what was sent at `sent`."""
        self._renewed = max(self._renewed, sent)

    def rename(self) -> None:
        """Start over under a new name."""
        self.name = process_name()
        self.consumer = self._broker.consumer(self.name)

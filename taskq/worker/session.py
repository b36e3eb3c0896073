"""Under which name a worker is known to the server now, and until when it surely is."""

from __future__ import annotations

import time

from taskq.broker.broker import Broker
from taskq.core.ids import process_name
from taskq.worker.observer import DEAD_SECONDS

__all__ = ["Session"]


class Session:
    """A worker's name and the traffic under it.

    A worker that was declared dead goes on under a new name: what it did under the old one is
    fenced, whatever it still tries.

    Whoever stood still does not know how long, or what became of its jobs: it starts none before
    the server has answered a beat. So what it was handed before, and others have run since, is not
    run again.
    """

    def __init__(self, broker: Broker, name: str | None) -> None:
        self._broker = broker
        self.signing = broker.settings.signing
        self.name = name or process_name()
        self.consumer = broker.consumer(self.name)
        self._renewed = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the last beat is so recent that nobody can have counted this worker as dead."""
        return time.monotonic() - self._renewed < DEAD_SECONDS

    def renew(self, sent: float) -> None:
        """The beat that was sent at `sent` (monotonic seconds) was answered."""
        self._renewed = sent

    def rename(self) -> None:
        """Start over under a new name."""
        self.name = process_name()
        self.consumer = self._broker.consumer(self.name)

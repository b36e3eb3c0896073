"""Under which name a worker is known to the server now."""

from __future__ import annotations

from taskq.broker.broker import Broker
from taskq.core.ids import process_name

__all__ = ["Session"]


class Session:
    """A worker's name and the traffic under it.

    A worker that was declared dead goes on under a new name: what it did under the old one is
    fenced, whatever it still tries.
    """

    def __init__(self, broker: Broker, name: str | None) -> None:
        self._broker = broker
        self.signing = broker.settings.signing
        self.name = name or process_name()
        self.consumer = broker.consumer(self.name)

    def rename(self) -> None:
        """Start over under a new name."""
        self.name = process_name()
        self.consumer = self._broker.consumer(self.name)

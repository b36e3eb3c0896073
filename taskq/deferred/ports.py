"""What the deferred runner asks of the outside, so that it need not know who answers."""

from __future__ import annotations

from typing import Protocol

from taskq.execution.ports import Desk

__all__ = ["Backing"]


class Backing(Desk, Protocol):
    """The queue behind the deferred runner, for the running event loop."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the server now."""
        ...

    @property
    def configured(self) -> bool:
        """Whether somebody said where the server is, or uses it."""
        ...

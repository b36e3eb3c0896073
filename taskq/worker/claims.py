"""Who has a delivery: the event loop, or the thread that hands back what the loop cannot start."""

from __future__ import annotations

from typing import Final

from taskq.core.job import Delivery

__all__ = ["StartClaims"]

_STARTED: Final = "started"
_HANDED_BACK: Final = "handed back"


class StartClaims:
    """Decides between two threads, once for each delivery: who claims it first has it.

    A job that blocks the event loop must not keep those that have not started. The heartbeat's
    thread claims them, also such as the loop has not even read yet, and the loop leaves them alone
    when it comes to them. `dict.setdefault` is one step for both threads.
    """

    def __init__(self) -> None:
        self._claims: dict[tuple[bytes, int], str] = {}

    def start(self, delivery: Delivery) -> bool:
        """Whether the event loop may start this delivery, or hand it back itself."""
        key = delivery.entry, delivery.fence
        if self._claims.setdefault(key, _STARTED) is _STARTED:
            return True
        del self._claims[key]
        return False

    def hand_back(self, entry: bytes, fence: int) -> bool:
        """Whether the heartbeat's thread may hand it back."""
        return self._claims.setdefault((entry, fence), _HANDED_BACK) is _HANDED_BACK

    def end(self, delivery: Delivery) -> None:
        """The server no longer counts it as this worker's."""
        self._claims.pop((delivery.entry, delivery.fence), None)

    def clear(self) -> None:
        """Nothing of what is held is this worker's any more."""
        self._claims.clear()

"""Who has a delivery: the event loop, or the thread that hands back what the loop cannot start."""

from __future__ import annotations

import threading

from taskq.core.job import Delivery

__all__ = ["StartClaims"]


class StartClaims:
    """Decides between two threads, once for each delivery: who claims it first has it.

    A job that blocks the event loop must not keep those that have not started. The heartbeat's
    thread claims them, also such as the loop has not even read yet, and the loop leaves them alone
    when it comes to them. `dict.setdefault` is one step for both threads. An entry has one claim:
    its fence where the loop started it, and less than zero where it was handed back.

    A claim of an earlier delivery of the same entry is there only when that one was handed back and
    never arrived; then both threads go through a lock.
    """

    def __init__(self) -> None:
        self._claims: dict[bytes, int] = {}
        self._renewing = threading.Lock()

    def start(self, delivery: Delivery) -> bool:
        """Whether the event loop may start this delivery, or hand it back itself."""
        fence = delivery.fence
        return self._claims.setdefault(delivery.entry, fence) == fence or self._again(delivery)

    def hand_back(self, entry: bytes, fence: int) -> bool:
        """Whether the heartbeat's thread may hand it back."""
        claim = self._claims.setdefault(entry, -fence)
        return claim == -fence or (-fence < claim < 0 and self._renew(entry, -fence))

    def end(self, delivery: Delivery) -> None:
        """The server no longer counts it as this worker's."""
        self._claims.pop(delivery.entry, None)

    def clear(self) -> None:
        """Nothing of what is held is this worker's any more."""
        self._claims.clear()

    def _again(self, delivery: Delivery) -> bool:
        if self._renew(delivery.entry, delivery.fence):
            return True
        if self._claims.get(delivery.entry) == -delivery.fence:
            # It was handed back, and nobody asks again.
            self.end(delivery)
        return False

    def _renew(self, entry: bytes, claim: int) -> bool:
        with self._renewing:
            found = self._claims.get(entry, 0)
            if abs(found) >= abs(claim):
                return found == claim
            self._claims[entry] = claim
            return True

"""Backlog: jobs a worker has fetched and not started."""

from __future__ import annotations

from collections import deque

from taskq.core.job import Delivery

__all__ = ["Backlog"]


class Backlog:
    """Jobs in the order of their start, suspects apart.

    `suspect_from`: a job whose workers died so many times is a suspect. It runs alone, after all
    others, so that its next crash proves it guilty and hurts nobody else.
    """

    def __init__(self, suspect_from: int) -> None:
        self._suspect_from = suspect_from
        self._waiting: deque[Delivery] = deque()
        self._suspects: deque[Delivery] = deque()
        self._alone = False
        self.wary = False
        """Whether the job that came last is a suspect: more may follow, so take one by one."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._suspects)

    @property
    def blocked(self) -> bool:
        """Whether a suspect runs or wants to, and nothing else may be fetched."""
        return self._alone or bool(self._suspects)

    def add(self, delivery: Delivery) -> None:
        """Put a job at the end."""
        self.wary = delivery.crashes >= self._suspect_from
        (self._suspects if self.wary else self._waiting).append(delivery)

    def next(self, running: int, held: int) -> Delivery | None:
        """The next job to start while `running` others run; None when none may start now.

        `held` is how many jobs the server counts as this worker's. A suspect starts only when it is
        the only one: all of them would be counted as crashed with it.
        """
        if self._alone and running:
            return None
        self._alone = False
        if self._waiting:
            return self._waiting.popleft()
        if self._suspects and not running and held == 1:
            self._alone = True
            return self._suspects.popleft()
        return None

    def surplus(self, running: int) -> list[Delivery]:
        """Take out the suspects that are in the way of the first one, which is to start next."""
        if running or self._waiting:
            return []
        suspects = [*self._suspects]
        self._suspects = deque(suspects[:1])
        return suspects[1:]

    def remove(self, job_id: str) -> Delivery | None:
        """Take out the job of this id, if it is here."""
        for queue in (self._waiting, self._suspects):
            for delivery in queue:
                if delivery.id == job_id:
                    queue.remove(delivery)
                    return delivery
        return None

    def clear(self, *, suspects: bool = True) -> list[Delivery]:
        """Take out everything, or everything but the suspects."""
        taken = [*self._waiting]
        self._waiting.clear()
        if suspects:
            taken += self._suspects
            self._suspects.clear()
        return taken

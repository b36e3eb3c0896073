"""A case: a situation, what FastAPI's background tasks make of it, and what taskq's do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["SAME", "Case", "Cases"]

SAME: Any = object()
"""taskq's tasks do what FastAPI's do."""

Play = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """`play` gives an outcome. FastAPI's tasks and taskq's strict ones give `outcome`.

    `better` is the outcome of taskq's own. The texts are for the table of the documentation.
    """

    id: str
    situation: str
    fastapi: str
    taskq: str
    outcome: Any
    better: Any
    play: Play

    def expected(self, kind: str) -> Any:
        """The outcome with one kind of background tasks."""
        return self.better if kind == "taskq" and self.better is not SAME else self.outcome


class Cases(list[Case]):
    """The cases of one module, in the order they stand there."""

    def case(
        self,
        id: str,
        situation: str,
        *,
        fastapi: str,
        taskq: str = "the same",
        outcome: Any,
        better: Any = SAME,
    ) -> Callable[[Play], Play]:
        """Register the function below as a case."""

        def register(play: Play) -> Play:
            self.append(Case(id, situation, fastapi, taskq, outcome, better, play))
            return play

        return register

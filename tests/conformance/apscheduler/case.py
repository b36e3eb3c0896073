"""A case: a situation, what APScheduler 3 makes of it, and what taskq does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args

__all__ = ["KINDS", "Case", "Kind", "case", "cases_of"]

Kind = Literal["same", "better", "different"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Case:
    """What one test shows. `different` says why in `taskq`. The texts are for the table."""

    number: str
    kind: Kind
    situation: str
    apscheduler: str
    taskq: str


def case(
    number: str, kind: Kind, situation: str, *, apscheduler: str, taskq: str = "the same"
) -> Callable[[Test], Test]:
    """Say which case the test below shows; a test may show several."""

    def mark(test: Test) -> Test:
        shown: list[Case] = test.__dict__.setdefault("cases", [])
        shown.insert(0, Case(number, kind, situation, apscheduler, taskq))
        return test

    return mark


def cases_of(module: ModuleType) -> Iterator[Case]:
    """All cases that tests of a module show."""
    for name, member in vars(module).items():
        if name.startswith("test_"):
            yield from getattr(member, "cases", ())

"""Made-up expressions of each dialect, by whose rules they are read."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from taskq.triggers.cron_dialects import DialectName
from tests.conformance.expressions import MONTHS, WEEKDAYS, Expression, Part, expressions, part

__all__ = ["DIALECT"]

_MONDAY_FIRST = (*WEEKDAYS[1:], WEEKDAYS[0])


def _croniter(days_matter: bool) -> st.SearchStrategy[Expression]:
    return expressions(
        part(0, 59, equal_ranges=False),
        part(0, 23, equal_ranges=False),
        part(1, 31, equal_ranges=False),
        part(1, 12, names=MONTHS, equal_ranges=False),
        part(0, 6, names=WEEKDAYS, equal_ranges=False),
        days_matter=days_matter,
    )


def _cronsim(days_matter: bool) -> st.SearchStrategy[Expression]:
    # cronsim takes 5-5/20 for 5/20.
    return expressions(
        part(0, 59, equal_ranges=False),
        part(0, 23, equal_ranges=False),
        part(1, 31, equal_ranges=False),
        part(1, 12, names=MONTHS, equal_ranges=False),
        part(0, 7, equal_ranges=False, modulo=7)
        | part(0, 6, names=WEEKDAYS, equal_ranges=False, open_steps=False),
        days_matter=days_matter,
    )


def _apscheduler(days_matter: bool) -> st.SearchStrategy[Expression]:
    def from_monday(weekday: Part) -> Part:
        return Part(weekday.text, frozenset((day + 1) % 7 for day in weekday.values))

    return expressions(
        part(0, 59, steps_fit=True),
        part(0, 23, steps_fit=True),
        part(1, 31, steps_fit=True),
        part(1, 12, names=MONTHS, steps_fit=True, name_steps=False),
        part(0, 6, names=_MONDAY_FIRST, steps_fit=True, name_steps=False).map(from_monday),
        days_matter=days_matter,
    )


def _celery(days_matter: bool) -> st.SearchStrategy[Expression]:
    return expressions(
        part(0, 59, wraps=True, open_steps=False),
        part(0, 23, wraps=True, open_steps=False),
        part(1, 31, wraps=True, open_steps=False),
        part(1, 12, names=MONTHS, wraps=True, open_steps=False),
        part(0, 6, names=WEEKDAYS, wraps=True, open_steps=False),
        days_matter=days_matter,
    )


DIALECT: dict[str, tuple[Callable[[bool], st.SearchStrategy[Expression]], DialectName]] = {
    "croniter": (_croniter, "croniter"),
    "cronsim": (_cronsim, "standard"),
    "apscheduler3": (_apscheduler, "apscheduler3"),
    "celery": (_celery, "celery"),
}
"""For each library: expressions that it reads, with days that matter or not, and the dialect."""

"""The table of the documentation: `python -m tests.conformance.apscheduler.table` writes it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.apscheduler import (
    test_changes,
    test_running,
    test_stopping,
    test_stores,
    test_triggers,
)
from tests.conformance.apscheduler.case import Case, cases_of
from tests.conformance.pages import Page, rows

__all__ = ["CASES", "PAGE"]

_MODULES = (test_changes, test_running, test_stopping, test_stores, test_triggers)


def _all() -> Iterator[Case]:
    for module in _MODULES:
        yield from cases_of(module)


CASES = sorted(_all(), key=lambda case: (not case.number, case.number))
"""All cases by number, those without one last."""


def _table() -> str:
    head = ["", "", "situation", "APScheduler 3", "taskq"]
    lines = (
        [case.number, case.kind, case.situation, case.apscheduler, case.taskq] for case in CASES
    )
    return rows(head, lines)


PAGE = Page("from-apscheduler.md", "tests.conformance.apscheduler.table", _table)

if __name__ == "__main__":
    PAGE.write()

"""The table of the documentation: `python -m tests.conformance.background.table` writes it."""

from __future__ import annotations

from tests.conformance.background import requests, running, stopping
from tests.conformance.pages import Page, rows

__all__ = ["PAGE"]

_HEAD = ["", "situation", "FastAPI's, and `StrictBackgroundTasks`", "taskq's"]


def _table() -> str:
    """All cases by number."""
    cases = sorted([*running.CASES, *requests.CASES, *stopping.CASES], key=lambda case: case.id)
    return rows(_HEAD, ([case.id, case.situation, case.fastapi, case.taskq] for case in cases))


PAGE = Page("coming-from-background-tasks.md", "tests.conformance.background.table", _table)

if __name__ == "__main__":
    PAGE.write()

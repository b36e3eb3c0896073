"""The table of the documentation: `python -m tests.conformance.background.table` writes it."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.background import requests, running, stopping
from tests.conformance.background.case import Case

__all__ = ["PAGE", "with_table"]

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "coming-from-background-tasks.md"
BEGIN, END = "<!-- cases: begin -->\n", "<!-- cases: end -->\n"


def with_table(page: str) -> str:
    """The page, with the table of today's cases."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


def table() -> str:
    """All cases by number."""
    cases = sorted([*running.CASES, *requests.CASES, *stopping.CASES], key=lambda case: case.id)
    head = "| | situation | FastAPI's, and `StrictBackgroundTasks` | taskq's |\n|---|---|---|---|\n"
    return head + "".join(_row(case) for case in cases)


def _row(case: Case) -> str:
    return f"| {case.id} | {case.situation} | {case.fastapi} | {case.taskq} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")

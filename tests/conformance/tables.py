"""The table of differences, as the documentation shows it: `python -m tests.conformance.tables`."""

from __future__ import annotations

from tests.conformance.differences import DIFFERENCES
from tests.conformance.pages import Page, rows

__all__ = ["PAGE"]

_WHERE = {True: "spring", False: "autumn", None: "-"}
_HEAD = ["library", "change", "what it does", "why taskq does not", "seen with"]


def _table() -> str:
    """The differences, in Markdown."""
    lines: list[list[str]] = []
    for each in DIFFERENCES:
        expr, zone, _ = each.example
        seen = f"`{expr}` in {zone}"
        lines.append([each.library, _WHERE[each.gap], each.theirs, each.reason, seen])
    return rows(_HEAD, lines)


PAGE = Page("triggers.md", "tests.conformance.tables", _table)

if __name__ == "__main__":
    PAGE.write()

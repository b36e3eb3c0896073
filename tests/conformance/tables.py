"""The table of differences, as the documentation shows it: `python -m tests.conformance.tables`."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.differences import DIFFERENCES

__all__ = ["PAGE", "with_table"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "triggers.md"
_BEGIN = "<!-- made by tests/conformance/tables.py -->\n"
_END = "<!-- end -->\n"
_WHERE = {True: "forward", False: "back", None: "-"}


def table() -> str:
    """The differences, in Markdown."""
    lines = [
        "| library | clocks go | what it does | why taskq does not | seen with |",
        "|---|---|---|---|---|",
    ]
    for each in DIFFERENCES:
        expr, zone, _ = each.example
        lines.append(
            f"| {each.library} | {_WHERE[each.gap]} | {each.theirs} | {each.reason} | "
            f"`{expr}` in {zone} |"
        )
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The page with the table as it has to be."""
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))

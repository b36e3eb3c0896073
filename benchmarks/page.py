"""The page of the documentation that shows the figures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import figures_table, header, markdown, scenario_table
from benchmarks.results import Results

__all__ = ["PAGE", "tables", "update"]

PAGE = Path("docs/benchmarks.md")
_ROOT = Path(__file__).resolve().parent.parent
_BEGIN, _END = (
    "<!-- figures: python -m benchmarks --last --update-docs -->",
    "<!-- end of figures -->",
)


def tables(results: Results) -> str:
    """All tables as markdown: the figures first, then each scenario."""
    parts = [header(results.machine), markdown(figures_table(results.figures()))]
    for name, findings in results.findings.items():
        parts += [f"### {name}", findings.note + ".", markdown(scenario_table(findings))]
    return "\n\n".join(parts)


def update(results: Results) -> None:
    """Put the tables between the page's two marks.

    Raises ValueError when the page has lost its marks.
    """
    path = _ROOT / PAGE
    text = path.read_text("utf-8")
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"{PAGE} needs the lines {_BEGIN!r} and {_END!r}: the tables go between")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    path.write_text(f"{before}{_BEGIN}\n\n{tables(results)}\n\n{_END}{after}", "utf-8")

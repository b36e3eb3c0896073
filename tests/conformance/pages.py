"""Tables of the documentation that tests make: written by one, compared by another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Page", "rows"]

_GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


@dataclass(frozen=True)
class Page:
    """A guide, and the table in it that `python -m <module>` writes."""

    guide: str
    module: str
    table: Callable[[], str]

    def write(self) -> None:
        """Write the table of today into the guide."""
        self._path.write_text(self._made(), "utf-8")

    def check(self) -> None:
        """Fail when the guide has another table."""
        assert self._path.read_text("utf-8") == self._made(), f"run: python -m {self.module}"

    def mentions(self, name: str) -> bool:
        """Whether the guide has this name, set as code."""
        codes = re.findall(r"`([^`\n]+)`", self._path.read_text("utf-8"))
        return any(re.search(rf"\b{re.escape(name)}\b", code) for code in codes)

    @property
    def _path(self) -> Path:
        return _GUIDES / self.guide

    def _made(self) -> str:
        text = self._path.read_text("utf-8")
        begin, end = f"<!-- made by python -m {self.module} -->\n", "<!-- end -->\n"
        assert text.count(begin) == 1, f"{self.guide} has no place for the table: {begin}"
        before, _, rest = text.partition(begin)
        return f"{before}{begin}\n{self.table()}\n{end}{rest.partition(end)[2]}"


def rows(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    made = [f"| {' | '.join(cells)} |\n" for cells in lines]
    return "".join([f"| {' | '.join(head)} |\n", "|---" * len(head), "|\n", *made])

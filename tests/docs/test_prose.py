"""The pages that users read are plain English: no riddles, and the words of the field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROOMS = ("guides", "reference", "tutorial", "internals", "decisions")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "examples" / "README.md",
    *(DOCS / f"{name}.md" for name in ("index", "quickstart", "why", "glossary", "benchmarks")),
    *(page for room in ROOMS for page in sorted(DOCS.glob(f"{room}/*.md"))),
]

INSTEAD = {
    r"nobody|no one": "name what does not act: no worker, no process",
    r"whoever|whatever becomes": "name who acts",
    r"\b(?:is|are|was|were) told\b": "say what is set, logged or shown",
    r"looked at\b": "checked",
    r"changes? of clocks|clocks change": "daylight saving time",
    r"you type\b|\btype `": "use `...`",
    r"(?<!there )\b(?:is|are) no (?!longer\b|more\b)[a-z]+\b": "is not a ...",
    r"(?<![-/])(?-i:\bbeats?\b)": "heartbeat",
    r"any more\b": "no longer",
    r"\bhand(?:ed|ing)? in\b": "submit",
    r"\bmend(?:ed|s)?\b": "correct, fix",
    r"\bsomebody\b": "name who acts: a person, a program",
    r"\bis well\b|\bnot well\b": "healthy, unhealthy",
    r"as (?:you|they) say\b": "with the policies you choose",
    r"what becomes of": "what happens to",
    r"\bgive (?:it|them) a home\b": "attach",
    r"(?:takes|take|took) no part\b": "is not involved",
    r"[.;:] Who (?!is\b|are\b|did\b|does\b)[^?]*[.;]": "a worker that ..., a program that ...",
}


def prose_of(page: Path) -> list[tuple[int, str]]:
    """The lines outside of code blocks and generated tables, without the code and links in them."""
    lines: list[tuple[int, str]] = []
    inside = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```") or line.startswith("<!-- "):
            inside = not inside
        elif not inside:
            lines.append((number, re.sub(r"`[^`]*`|\]\([^)]*\)", "`...`", line)))
    return lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_has_no_riddles(page: Path) -> None:
    found = [
        f"{page.name}:{number}: {hit[0]!r} in {line.strip()[:60]!r}; {advice}"
        for number, line in prose_of(page)
        for wrong, advice in INSTEAD.items()
        for hit in re.finditer(wrong, line, re.IGNORECASE)
    ]

    assert found == []

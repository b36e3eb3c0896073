"""taskq is not published yet: what a page or a message tells people to install is a checkout."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# What people are shown: pages, docstrings, messages, commands. Tests are not.
SHOWN = ("*.md", "docs", "examples", "taskq", "benchmarks", "scripts", "Makefile")
INSTALLERS = re.compile(
    r"\b(?:pip3?|pipx|uv|uv pip|poetry|pdm)\s+(?:install|add|sync)\b(?P<rest>.*)"
)
# `taskq` or `taskq-asyncio` as a requirement: with extras or a version.
PUBLISHED = re.compile(r"(?<![\w./*-])taskq(?:[-_]asyncio)?(?:\[[a-z]|\s*(?:[<>=~!]=|@ ))")
# A folder, and its extras.
CHECKOUT = re.compile(r"(?:\.\.?|/[\w/]+)\[(?P<extras>[\w,]+)\]$")


def shown_lines() -> list[tuple[str, str]]:
    """Where each line stands, and what it says."""
    paths = [path for pattern in SHOWN for path in ROOT.glob(pattern)]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return [
        (f"{file.relative_to(ROOT)}:{number}", line)
        for file in files
        if file.suffix in (".md", ".py", "") and file.is_file() and "results" not in file.parts
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
    ]


def refusals(line: str) -> list[str]:
    """What is wrong with a line that people may follow."""
    installed = [
        word
        for command in INSTALLERS.finditer(line)
        for word in re.findall(r"[\w./-]+", re.split(r"[#(,]", command["rest"])[0])
    ]
    found = [published[0] for published in PUBLISHED.finditer(line)]
    return found + [word for word in installed if word in ("taskq", "taskq-asyncio")]


def test_every_page_and_message_installs_from_a_checkout() -> None:
    lines = shown_lines()

    assert [(where, line) for where, line in lines if refusals(line)] == []
    # And the rule has something to look at
    assert len([line for _, line in lines if INSTALLERS.search(line)]) >= 6


def test_the_extras_of_every_page_exist() -> None:
    named = [
        (where, extra)
        for where, line in shown_lines()
        for command in INSTALLERS.finditer(line)
        for word in re.findall(r'"([^"]+)"', command["rest"])
        if (found := CHECKOUT.fullmatch(word))
        for extra in found["extras"].split(",")
    ]

    assert named
    assert [at for at in named if at[1] not in PROJECT["optional-dependencies"]] == []


@pytest.mark.parametrize(
    "line",
    [
        'pip install "taskq[embedded,fast]"',
        "pip install taskq",
        "uv add taskq-asyncio",
        "Type pip install taskq, or set TASKQ_URL",
        "needs `taskq[embedded]`",
        "taskq>=0.2",
    ],
)
def test_a_name_of_the_package_index_is_found(line: str) -> None:
    assert refusals(line)


def test_the_distribution_has_a_name_that_is_not_taken_and_its_extras_are_its_own() -> None:
    assert PROJECT["name"] == "taskq-asyncio"
    assert list(PROJECT["scripts"]) == ["taskq"]
    own = [
        requirement
        for extra in PROJECT["optional-dependencies"].values()
        for requirement in extra
        if requirement.startswith("taskq")
    ]
    assert own
    assert [name for name in own if not name.startswith("taskq-asyncio[")] == []

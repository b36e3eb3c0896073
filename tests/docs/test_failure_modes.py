"""The page of failure modes: a line for each fault, and tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "internals" / "failure-modes.md").read_text("utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
NOT_YET = {"19", "20", "22", "52"}


def test_every_fault_of_the_matrix_has_its_line() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, len(ROWS) + 1))


def test_every_fault_names_a_test_that_is_there() -> None:
    for number, row in ROWS:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert bool(named) != (number in NOT_YET), f"row {number} names no test"
        for path, test in named:
            source = (ROOT / "tests" / path).read_text("utf-8")
            assert f"def {test}(" in source, f"row {number}: {path} has no {test}"


def test_every_message_that_is_quoted_is_one_of_the_code() -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "taskq").rglob("*.py")]
    texts = [
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    messages = re.findall(r"(?:log|error after the deadline): `([^`]+)`", PAGE)
    # An ellipsis stands for what differs: names, numbers.
    parts = [part.strip() for message in messages for part in message.split("…") if part.strip()]

    assert len(parts) > 10
    assert [part for part in parts if not any(part in text for text in texts)] == []

"""The page about the command line names every flag and variable there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from taskq.cli.main import build

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")

COMMAND_LINE: Any = typer.main.get_command(build())
COMMANDS: dict[str, Any] = COMMAND_LINE.commands


def options_of(command: str) -> list[Any]:
    """The options of a command, or of all those below it."""
    below: dict[str, Any] = getattr(COMMANDS[command], "commands", {})
    inner = below.values() or [COMMANDS[command]]
    return [option for each in inner for option in each.params]


def rows_about(command: str) -> str:
    """The first two columns of the table of options of a command."""
    section = re.search(rf"^## taskq {command}$(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert section, f"there is no section: ## taskq {command}"
    rows = [line.split("|")[1:3] for line in section[1].splitlines() if line.startswith("| `")]
    return "\n".join(" ".join(row) for row in rows)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_is_explained_and_no_other(command: str) -> None:
    flags = {
        flag
        for option in options_of(command)
        for flag in (*option.opts, *option.secondary_opts)
        if flag.startswith("-")
    }

    assert set(re.findall(r"`(--?[\w-]+)`", rows_about(command))) == flags


@pytest.mark.parametrize("command", COMMANDS)
def test_every_variable_of_a_command_is_named_and_no_other(command: str) -> None:
    told = [f"{option.envvar or ''} {option.help or ''}" for option in options_of(command)]
    variables = {
        # Names in the text of a help: "[env var: TASKQ_URL]".
        variable
        for text in told
        for variable in re.findall(r"^TASKQ_\w+|(?<=env var: )TASKQ_\w+", text)
    }

    assert set(re.findall(r"`(TASKQ_\w+)`", rows_about(command))) == variables


@pytest.mark.parametrize("command", COMMANDS)
def test_the_default_of_a_flag_is_the_one_on_the_page(command: str) -> None:
    for option in options_of(command):
        if isinstance(option.default, bool) or not isinstance(option.default, (int, float)):
            continue
        row = next(line for line in PAGE.splitlines() if f"`{option.opts[-1]}`" in line)
        told = row.split("|")[3].strip().removesuffix("s")

        assert float(told) == option.default, f"{option.opts[-1]}: the page says {told}"


def test_the_overview_lists_the_commands() -> None:
    assert re.findall(r"^\| \[`(\w+)`\]\(#taskq-", PAGE, re.M) == list(COMMANDS)


def test_nobody_reads_a_variable_the_page_does_not_know() -> None:
    # TASKQ_SUPERVISED is between a supervisor and its workers; TASKQ_FAILPOINTS is for tests, and
    # stands with the failure modes.
    package = ROOT / "taskq"
    found = {
        variable
        for path in package.rglob("*.py")
        for variable in re.findall(r"\bTASKQ_[A-Z_]+\b", path.read_text("utf-8"))
    }

    assert found - {"TASKQ_SUPERVISED", "TASKQ_FAILPOINTS"} == set(
        re.findall(r"\bTASKQ_[A-Z_]+\b", PAGE)
    )

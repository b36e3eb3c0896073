"""The internals pages name files that exist, and the reading path stays one evening long."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "taskq"
INTERNALS = sorted((ROOT / "docs" / "internals").glob("*.md"))
ARCHITECTURE = (ROOT / "docs" / "internals" / "architecture.md").read_text("utf-8")

PATH = re.findall(r"^\| (\d+) \| `([^`]+)` \| (.+) \|$", ARCHITECTURE, re.M)
MOST_FILES = 50
MOST_LINES = 7_500


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", ARCHITECTURE, re.M | re.S)
    assert found, f"architecture.md has no section {heading!r}"
    return found[1]


def test_the_reading_path_is_numbered_in_order_and_names_no_file_twice() -> None:
    files = [file for _, file, _ in PATH]

    assert [int(number) for number, _, _ in PATH] == list(range(1, len(PATH) + 1))
    assert sorted(set(files)) == sorted(files)


@pytest.mark.parametrize(("file", "sentence"), [(file, sentence) for _, file, sentence in PATH])
def test_a_file_of_the_reading_path_exists_and_has_one_sentence(file: str, sentence: str) -> None:
    assert (PACKAGE / file).is_file()
    assert re.fullmatch(r"[A-Z].*[^.]\.", sentence)


def test_the_reading_path_can_be_read_in_one_evening() -> None:
    lines = sum(len((PACKAGE / file).read_text("utf-8").splitlines()) for _, file, _ in PATH)

    assert 0 < len(PATH) <= MOST_FILES
    assert lines <= MOST_LINES


def test_the_rooms_are_those_of_the_layers_in_their_order() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [layers] = [
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["id"] == "layers"
    ]
    rooms = re.findall(r"^\| `(\w+)` \|", section("The rooms"), re.M)

    there = [
        [
            name
            for name in re.findall(r"\w+", layer)
            if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
        ]
        for layer in layers
        if layer != "(__main__)"
    ]
    assert sorted(rooms) == sorted(name for names in there for name in names)
    for names in there:
        assert sorted(rooms[: len(names)]) == sorted(names)
        del rooms[: len(names)]


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_room_says_what_it_may_import(room: str) -> None:
    source = (PACKAGE / room / "__init__.py").read_text("utf-8")
    docstring = source.split('"""')[1]

    assert re.search(r"\bimports?\b", docstring), f"taskq/{room}/__init__.py"


@pytest.mark.parametrize("page", INTERNALS, ids=lambda page: page.name)
def test_every_file_that_an_internals_page_names_exists(page: Path) -> None:
    named = re.findall(r"`([\w./-]+\.(?:py|lua|toml|md))(?::[^`]*)?`", page.read_text("utf-8"))
    lua = PACKAGE / "broker" / "lua"
    places = (ROOT, PACKAGE, lua, lua / "include", ROOT / "tests")
    made_up = {"socket.py", "logging.py"}  # a file of an application, in an example

    missing = {name for name in named if not any((place / name).exists() for place in places)}
    assert missing - made_up == set()

"""The site: four groups of pages with links to the next one, and docstrings in Markdown."""

from __future__ import annotations

import tomllib
from pathlib import Path

from scripts.griffe_docstrings import shown

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]


def test_the_navigation_has_four_groups_as_tabs() -> None:
    groups = [name for entry in PROJECT["nav"] for name in entry if isinstance(entry[name], list)]

    assert groups == ["Tutorial", "Guides", "Reference", "Internals"]
    assert "navigation.tabs" in PROJECT["theme"]["features"]


def test_every_page_links_the_one_before_and_the_one_after() -> None:
    assert "navigation.footer" in PROJECT["theme"]["features"]


def test_the_reference_shows_an_example_as_code() -> None:
    text = shown("Add.\n\n>>> add(1, 2)\n3")

    assert text == "Add.\n\n```pycon\n>>> add(1, 2)\n3\n```"


def test_the_reference_is_built_with_the_extension_that_does_so() -> None:
    options = PROJECT["plugins"]["mkdocstrings"]["handlers"]["python"]["options"]

    assert options["extensions"] == ["scripts/griffe_docstrings.py"]

"""The site: four groups of pages with links to the next one, and docstrings without test flags."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import pytest

import taskq
from scripts.griffe_docstrings import shown

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]


def test_the_navigation_has_four_groups_as_tabs() -> None:
    groups = [name for entry in PROJECT["nav"] for name in entry if isinstance(entry[name], list)]

    assert groups == ["Tutorial", "Guides", "Reference", "Internals"]
    assert "navigation.tabs" in PROJECT["theme"]["features"]


def test_every_page_links_the_one_before_and_the_one_after() -> None:
    assert "navigation.footer" in PROJECT["theme"]["features"]


@pytest.mark.parametrize("name", sorted(taskq.__all__))
def test_the_reference_shows_no_flag_of_a_doctest(name: str) -> None:
    public = getattr(taskq, name)
    members = vars(public).values() if inspect.isclass(public) else ()
    texts = [inspect.getdoc(thing) or "" for thing in (public, *members)]

    assert [text for text in texts if "doctest:" in shown(text)] == []


def test_the_reference_is_built_with_the_extension_that_removes_them() -> None:
    options = PROJECT["plugins"]["mkdocstrings"]["handlers"]["python"]["options"]

    assert options["extensions"] == ["scripts/griffe_docstrings.py"]

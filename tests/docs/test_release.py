"""The documentation of a release: built beside earlier versions, with a link to the repository."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_released_site_links_to_the_repository_and_to_other_versions(release: ModuleType) -> None:
    settings = (ROOT / "zensical.toml").read_text("utf-8")

    text = release.released(settings, Path("public/0.2"), "https://git.example.org/taskq")

    changed = tomllib.loads(text)["project"]
    assert changed["site_dir"] == "public/0.2"
    assert changed["repo_url"] == "https://git.example.org/taskq"
    assert changed["extra"]["version"] == {"provider": "mike", "default": "latest"}
    assert changed["nav"] == tomllib.loads(settings)["project"]["nav"]


def test_a_version_is_listed_once_and_the_newest_is_the_one_to_begin_with(
    release: ModuleType, tmp_path: Path
) -> None:
    for version in ("0.9", "0.10", "0.9"):
        release.publish(tmp_path, version)

    listed = json.loads((tmp_path / "versions.json").read_text("utf-8"))
    assert [(each["version"], each["aliases"]) for each in listed] == [
        ("0.10", ["latest"]),
        ("0.9", []),
    ]
    assert "url=0.10/" in (tmp_path / "index.html").read_text("utf-8")

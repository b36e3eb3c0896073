"""Build the site of this version beside those of earlier ones: `make docs-release`.

`python scripts/release_docs.py FOLDER --repository URL` builds into FOLDER/VERSION, lists the
version in FOLDER/versions.json, which the version selector of the site reads, and lets
FOLDER/index.html lead to the newest. FOLDER is what a web server serves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import taskq

ROOT = Path(__file__).resolve().parents[1]
LATEST = "latest"
REDIRECT = '<!doctype html><meta http-equiv="refresh" content="0; url={version}/">\n'


def main() -> int:
    """Build, and list what was built."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repository", required=True, help="the URL that the site links to")
    given = parser.parse_args()
    version = ".".join(taskq.__version__.split(".")[:2])
    # zensical takes paths as relative to the configuration, so both stand in the checkout
    config = ROOT / ".zensical-release.toml"
    settings = (ROOT / "zensical.toml").read_text("utf-8")
    config.write_text(released(settings, given.folder / version, given.repository), "utf-8")
    try:
        build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", config]
        done = subprocess.run(build, cwd=ROOT, check=False)
    finally:
        config.unlink()
    if done.returncode == 0:
        publish(ROOT / given.folder, version)
    return done.returncode


def released(settings: str, site: Path, repository: str) -> str:
    """The settings of the site, with its place, the link to the repository and the versions."""
    place = f'site_dir = "{site.as_posix()}"\nrepo_url = "{repository}"'
    selector = f'\n[project.extra.version]\nprovider = "mike"\ndefault = "{LATEST}"\n'
    return settings.replace('site_dir = "site"', place) + selector


def publish(folder: Path, version: str) -> None:
    """List a version that was built, and lead to the newest."""
    known = folder / "versions.json"
    listed = json.loads(known.read_text("utf-8")) if known.exists() else []
    entries = with_version(listed, version)
    known.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")
    newest = entries[0]["version"]
    (folder / "index.html").write_text(REDIRECT.format(version=newest), "utf-8")


def with_version(listed: list[dict[str, Any]], version: str) -> list[dict[str, Any]]:
    """The versions with this one, the newest first; it is the one that `latest` names.

    >>> [each["version"] for each in with_version([{"version": "0.9"}], "0.10")]
    ['0.10', '0.9']
    """
    names = {each["version"] for each in listed} | {version}
    ordered = sorted(names, key=lambda name: [int(part) for part in name.split(".")], reverse=True)
    return [
        {"version": name, "title": name, "aliases": [LATEST] if name == ordered[0] else []}
        for name in ordered
    ]


if __name__ == "__main__":
    sys.exit(main())

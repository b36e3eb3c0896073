"""The gates hold on any machine: nothing passes because of what one environment sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_MAKE = """\
#!/bin/sh
env > "{folder}/$1.env"
case $1 in test) {python} -c "print('3 passed in 1.00s')" ;; esac
"""


def test_ci_runs_what_the_readme_says_in_an_environment_without_settings(tmp_path: Path) -> None:
    # Given an environment full of settings, and a `make` that notes what it gets
    make = tmp_path / "make"
    make.write_text(_MAKE.format(folder=tmp_path, python=sys.executable))
    make.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "PIP_INDEX_URL": "https://example.invalid",
        "TASKQ_URL": "redis://example.invalid",
    }

    done = subprocess.run(
        [ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=30
    )

    assert done.stdout.splitlines()[-1] == "3 passed, 0 failed", done.stdout + done.stderr
    targets = {path.stem for path in tmp_path.glob("*.env")}
    assert targets == {"test", "test-versions", "test-fastapi", "test-servers", "test-acl"}
    # A shell adds the last three by itself
    for target in targets:
        lines = (tmp_path / f"{target}.env").read_text().splitlines()
        names = {line.partition("=")[0] for line in lines}
        assert names <= {"HOME", "PATH", "LANG"} | {"PWD", "SHLVL", "_"}


def test_the_tests_see_no_setting_of_the_interpreter_that_users_do_not_have() -> None:
    settings = {name for name in os.environ if name.startswith("PYTHON")}

    assert settings <= {"PYTHONPATH", "PYTHONHOME"}

"""Type checkers know of taskq what the files beside this one say.

Each checker, at its strictest, must report exactly the lines that end in `# refused`. Where one of
them cannot see what is wrong, the comment names it: `# refused, but not by ty`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
FILES = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("test_"))

CHECKERS = {
    "mypy": ["--strict", f"--python-executable={sys.executable}", "--cache-dir=.cache/mypy"],
    # The files themselves ask for their strict mode.
    "pyright": [f"--pythonpath={sys.executable}"],
    "basedpyright": [f"--pythonpath={sys.executable}"],
    "ty": ["check", f"--python={sys.executable}", "--output-format=concise"],
    "pyrefly": [
        "check",
        f"--python-interpreter-path={sys.executable}",
        "--output-format=min-text",
    ],
}

REPORT = re.compile(r"(?:^|\W)(\w+\.py):(\d+)\b")


def reported(checker: str) -> set[str]:
    """The lines that `checker` calls errors, as `api.py:71`."""
    command = [str(BIN / checker), *CHECKERS[checker], *map(str, FILES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {
        ":".join(match.groups())
        for line in done.stdout.splitlines()
        if re.search(r"\berror\b", line, re.IGNORECASE) and (match := REPORT.search(line))
    }
    assert found, f"{checker} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return found


def refused(checker: str) -> set[str]:
    """The lines that it must report."""
    return {
        f"{path.name}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for _, mark, blind in [line.partition("  # refused")]
        if mark and checker not in re.findall(r"\w+", blind)
    }


@pytest.mark.parametrize("checker", CHECKERS)
def test_it_refuses_what_is_wrong_and_nothing_else(checker: str) -> None:
    if not (BIN / checker).exists():
        pytest.skip(f"{checker} is not installed: it comes with the extra `dev`")

    found, wanted = reported(checker), refused(checker)

    assert (sorted(found - wanted), sorted(wanted - found)) == ([], [])

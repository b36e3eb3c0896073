"""Which server a command works with: never another one than the code says that is here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.typed import typed
from tests.support.server import TestServer

COMMANDS = [("status",), ("doctor",), ("enqueue", "shop.add"), ("schedule", "ls")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, in which an embedded server was started before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    (tmp_path / ".taskq").mkdir()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


BROKEN = {
    "an import that fails": (
        "app.py",
        "from taskq import TaskQ\nq = TaskQ('redis://x', namespace='prod')\nimport nothing1\n",
        "No module named 'nothing1'",
    ),
    "a pyproject.toml that cannot be read": (
        "pyproject.toml",
        "[tool.taskq\n",
        "pyproject.toml cannot be read",
    ),
    "a target that is not there": (
        "pyproject.toml",
        '[tool.taskq]\napp = "nowhere1:q"\n',
        "there is no module 'nowhere1'",
    ),
    "several TaskQs": (
        "app.py",
        "from taskq import TaskQ\na, b = TaskQ(), TaskQ()\n",
        "there are several TaskQs here: app:a, app:b",
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_code_that_cannot_be_loaded_is_an_error_and_no_reason_to_look_elsewhere(
    server: TestServer, folder: Path, words: tuple[str, ...], broken: tuple[str, str, str]
) -> None:
    name, text, said = broken
    (folder / name).write_text(text)

    # Also where the environment names a server: the code may say another.
    for environment in ({}, {"TASKQ_URL": server.url}):
        done = await typed(*words, **environment)

        assert done.exit_code == 2, done.output
        assert said in done.stderr
        assert done.stdout == ""
        assert "--url redis://host:6379/0" in done.stderr


async def test_where_no_code_is_found_the_server_of_the_environment_is_looked_at(
    server: TestServer, folder: Path, namespace: str
) -> None:
    (folder / "app.py").write_text("# Nothing of taskq.\n")

    done = await typed("status", TASKQ_URL=server.url, TASKQ_NAMESPACE=namespace)

    assert done.exit_code == 0, done.output
    assert f"{server.url}, namespace {namespace}" in done.stdout

"""A terminal for each test that types commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import TaskQ
from tests.cli.terminal import Terminal
from tests.support.server import TestServer


@pytest.fixture
def terminal(q: TaskQ, server: TestServer, namespace: str, tmp_path: Path) -> Iterator[Terminal]:
    """Ended before `q` looks at what is left on the server."""
    del q
    terminal = Terminal(tmp_path, server.url, namespace)
    yield terminal
    terminal.close()

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.room import Room


@pytest.fixture
def room() -> Iterator[Room]:
    """A room with a short path: a socket's path has a limit."""
    if sys.platform != "linux":
        pytest.skip("looks at processes through /proc")
    base = Path(tempfile.mkdtemp(prefix="tq"))
    room = Room(base)
    try:
        yield room
    finally:
        room.clear()
        shutil.rmtree(base, ignore_errors=True)

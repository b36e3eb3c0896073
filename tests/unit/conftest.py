"""Unit tests do no I/O: nothing can be left running, and looking for it costs more than they do."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Nothing to check."""

"""Counts in sentences."""

from __future__ import annotations

import pytest

from taskq.core.text import counted


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 jobs wait"), (1, "1 job waits"), (1_200, "1,200 jobs wait")]
)
def test_one_is_told_from_many(count: int, said: str) -> None:
    assert counted(count, "job waits", "jobs wait") == said

"""Durations and sizes as they are typed."""

from __future__ import annotations

import pytest
import typer

from taskq.cli.options import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1000", 1000),
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("1.5G", 1_500_000_000),
        ("512MiB", 512 << 20),
        ("7b", 7),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "soon", "-1", "5 minutes", "1e99", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        duration(text)


@pytest.mark.parametrize("text", ["", "much", "-1MB", "5XB", "MB", "1.MB", "0", "0GB", "0.4"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="500MB"):
        size(text)

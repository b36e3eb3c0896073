"""Settings of a worker are checked before it does anything."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from taskq import ConfigError
from taskq.worker.settings import WorkerSettings


def test_there_are_defaults_for_everything() -> None:
    settings = WorkerSettings()

    assert (tuple(settings.queues), settings.concurrency, settings.grace) == (("default",), 100, 30)
    assert settings.low_share == 0
    assert not settings.burst
    assert settings.processes >= 1


def test_they_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WorkerSettings().concurrency = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"queues": "images"}, "list of names"),
        ({"queues": ()}, "list of names"),
        ({"queues": ("two words",)}, "A-Z a-z 0-9"),
        ({"queues": ("a", "")}, "A-Z a-z 0-9"),
        ({"concurrency": 0}, "concurrency=0: type 1 or more"),
        ({"threads": 0}, "threads=0"),
        ({"processes": -1}, "processes=-1"),
        ({"leak_limit": 0}, "leak_limit=0"),
        ({"unknown_limit": 0}, "unknown_limit=0"),
        ({"max_jobs": 0}, "max_jobs=0: type 1 or more"),
        ({"max_memory": 0}, "max_memory=0: type 1 or more"),
        ({"low_share": 1.5}, "from 0 to 1"),
        ({"low_share": -0.1}, "from 0 to 1"),
        ({"grace": -1}, "0 or more seconds"),
    ],
)
def test_what_makes_no_sense_says_what_would(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        WorkerSettings(**given)

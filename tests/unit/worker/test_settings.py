"""Settings of a worker are checked before it does anything."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from taskq import ConfigError
from taskq.worker.settings import WorkerSettings, WorkerSettingValues


def test_there_are_defaults_for_everything() -> None:
    settings = WorkerSettings()

    assert (tuple(settings.queues), settings.concurrency, settings.grace) == (("default",), 100, 30)
    assert settings.low_share == 0
    assert not settings.burst
    assert settings.processes >= 1


def test_type_checkers_know_every_setting() -> None:
    known = {field.name for field in dataclasses.fields(WorkerSettings)}

    assert WorkerSettingValues.__annotations__.keys() | {"queues"} == known


def test_queues_may_come_from_anything_that_lists_them_once() -> None:
    assert WorkerSettings(queues=(name for name in "abab")).queues == ("a", "b")  # type: ignore[arg-type]


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
        ({"concurrency": 0}, "concurrency=0: use 1 or more"),
        ({"threads": 0}, "threads=0"),
        ({"processes": -1}, "processes=-1"),
        ({"leak_limit": 0}, "leak_limit=0"),
        ({"unknown_limit": 0}, "unknown_limit=0"),
        ({"max_jobs": 0}, "max_jobs=0: use 1 or more"),
        ({"max_memory": 0}, "max_memory=0: use 1 or more"),
        ({"low_share": 1.5}, "from 0 to 1"),
        ({"low_share": -0.1}, "from 0 to 1"),
        ({"grace": -1}, "at least 0 seconds"),
        ({"grace": math.nan}, "grace=nan is out of range"),
        ({"grace": math.inf}, "grace=inf is out of range"),
        ({"grace": "30s"}, "grace='30s' is not a duration"),
        ({"queues": None}, "list of names"),
        ({"queues": 5}, "list of names"),
        ({"queues": (name for name in ())}, "list of names"),
        ({"queues": {"a": 1}}, "list of names"),
        ({"queues": [1]}, "queue 1 cannot be part of a key"),
        ({"concurrency": 1.5}, "concurrency=1.5: use a whole number"),
        ({"concurrency": "5"}, "concurrency='5': use a whole number"),
        ({"concurrency": True}, "concurrency=True: use a whole number"),
        ({"concurrency": None}, "concurrency=None: use a whole number"),
        ({"concurrency": 10**30}, "use at most 1,000,000"),
        ({"processes": 1.0}, "processes=1.0"),
        ({"max_jobs": -1}, "max_jobs=-1"),
        ({"max_memory": "500MB"}, "max_memory='500MB': use a whole number"),
        ({"low_share": "x"}, "from 0 to 1"),
        ({"low_share": math.nan}, "from 0 to 1"),
        ({"burst": 1}, "burst=1: use True or False"),
        ({"scheduler": None}, "scheduler=None: use True or False"),
        ({"name": ""}, "worker name '' cannot be part of a key"),
        ({"name": "a b\n"}, "worker name"),
        ({"name": 5}, "worker name 5"),
    ],
)
def test_what_makes_no_sense_says_what_would(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        WorkerSettings(**given)

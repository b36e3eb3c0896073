"""Every case three times under a real server: FastAPI's tasks, taskq's strict ones, taskq's own."""

from __future__ import annotations

import warnings

import pytest

from taskq import TaskQ
from tests.conformance.background import requests, running
from tests.conformance.background.case import Case
from tests.conformance.background.world import KINDS, World

CASES = [*running.CASES, *requests.CASES]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_case(case: Case, kind: str, q: TaskQ) -> None:
    with warnings.catch_warnings():
        # FastAPI's own tasks lose coroutines, which Python warns of.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        outcome = await case.play(World(kind, q))

    assert outcome == case.expected(kind)


def test_every_case_is_there() -> None:
    numbers = sorted(case.id for case in CASES)

    assert len(set(numbers)) == len(numbers)

"""Every case three times under a real server: FastAPI's tasks, taskq's strict ones, taskq's own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from taskq import TaskQ
from tests.conformance.background import requests, running, stopping, table
from tests.conformance.background.case import Case
from tests.conformance.background.world import KINDS, World
from tests.support.server import TestServer

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


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", stopping.CASES, ids=lambda case: case.id)
async def test_case_of_a_process(
    case: Case, kind: str, q: TaskQ, server: TestServer, tmp_path: Path
) -> None:
    outcome = await case.play(stopping.Site(kind, q, server.url, tmp_path))

    assert outcome == case.expected(kind)


def test_every_case_is_there() -> None:
    played = [case.id for case in [*CASES, *stopping.CASES]]
    # B15: FastAPI before 0.118, see `make test-fastapi`. B34: FastAPI's telemetry, none of ours.
    expected = {f"B{number:02}" for number in range(1, 36)} - {"B15", "B34"}

    assert sorted(played) == sorted(expected)


def test_the_table_of_the_documentation_is_that_of_the_cases() -> None:
    table.PAGE.check()

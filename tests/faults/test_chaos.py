"""A short form of `make chaos`: everything at once, judged by the ledger."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.chaos.driver import Plan, run

pytestmark = pytest.mark.faults


@pytest.mark.timeout(400)
@pytest.mark.slow
async def test_a_short_storm_loses_nothing(soak: int) -> None:
    # Another storm each time; a failed one is seen again with its seed
    seed = int(os.environ.get("TASKQ_CHAOS_SEED", "0")) or random.randrange(1_000_000)
    seconds = 12.0 if soak == 1 else 200.0
    plan = Plan(seed=seed, seconds=seconds, pause=0.7, rate=40.0, longest=4.0, longest_stop=4.0)

    report = await run(plan)

    print(report)
    assert not report.verdict.wrong, str(report)
    assert report.verdict.acknowledged > 20
    assert report.happened.total() > 3

"""The model and the server agree after every step of random lives of a queue.

Short here; `make soak` runs more, and TASKQ_MODEL_EXAMPLES=2000 helps to find a bug.
"""

from __future__ import annotations

import os

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import LANES, QueueMachine
from tests.support.server import TestServer

EXAMPLES = int(os.environ.get("TASKQ_MODEL_EXAMPLES", "25"))


# Long enough to make a failure short: a run that passes takes half a second for each example.
@pytest.mark.timeout(600 + EXAMPLES * 5)
@pytest.mark.slow
def test_the_model_and_the_server_agree(server: TestServer, look: redis.Redis) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(look, server.address),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=100,
            deadline=None,
            # The same lives each time, unless more are asked for.
            derandomize="TASKQ_MODEL_EXAMPLES" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_of_two_jobs_that_saw_three_workers_die_none_is_poison(
    server: TestServer, look: redis.Redis
) -> None:
    life = QueueMachine(look, server.address)
    life.open()
    for _ in range(3):
        life.fetch(pick=0, want=2, both=False, lose=False)
        life.reap(pick=0, died=True, lose=False)
        life.jobs_agree()
        life.streams_agree()
        life.register(False)
    life.teardown()


def test_what_is_said_late_of_a_job_does_not_end_the_next_of_its_id(
    server: TestServer, look: redis.Redis
) -> None:
    life = QueueMachine(look, server.address)
    life.open()
    life.fetch(pick=0, want=1, both=False, lose=False)
    life.finish(pick=0, kind="S", started=True, delay=0, keep=False, lose=False)
    life.enqueue("a", LANES[0], 0, 0, False)
    life.fetch(pick=0, want=2, both=False, lose=False)
    life.finish_late(pick=0, kind="S", started=True)
    life.jobs_agree()
    life.streams_agree()
    life.teardown()

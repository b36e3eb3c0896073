"""Failpoints: read from one line, passed in order, and nothing at all when not armed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from taskq import ConfigError
from taskq.broker.broker import Broker
from taskq.core.errors import Injected
from taskq.redis import failpoints
from taskq.redis.failpoints import FailpointClient, Failpoints
from tests.support.server import TestServer


def test_a_point_acts_at_the_time_it_was_told_and_at_no_other() -> None:
    points = Failpoints("finish.sent=raise@2; drain=raise")

    points.reach("finish.sent")
    with pytest.raises(Injected, match=r"finish\.sent"):
        points.reach("finish.sent")
    points.reach("finish.sent")
    points.reach("finish.send")
    with pytest.raises(Injected):
        points.reach("drain")


def test_a_point_may_act_more_than_once() -> None:
    points = Failpoints("reap.sent=raise@1;reap.sent=raise@2")

    for _ in range(2):
        with pytest.raises(Injected):
            points.reach("reap.sent")
    points.reach("reap.sent")


@pytest.mark.parametrize(
    "plan", ["finish.sent", "=kill", "finish.sent=explode", "finish=kill", "drain=kill@x", "x"]
)
def test_what_is_no_failpoint_says_how_one_is_written(plan: str) -> None:
    with pytest.raises(ConfigError, match=r"use drain=kill or finish\.sent=kill@3"):
        Failpoints(plan)


@pytest.mark.parametrize(("action", "sign"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_a_process_is_killed_or_stopped_where_its_environment_says(
    action: str, sign: signal.Signals
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "from taskq.redis.failpoints import ARMED; ARMED.reach('drain')"],
        env=os.environ | {failpoints.VARIABLE: f"drain={action}"},
    )
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if action == "stop":
            assert os.WIFSTOPPED(status)
            assert os.WSTOPSIG(status) == sign
        else:
            assert os.WTERMSIG(status) == sign
    finally:
        child.kill()
        child.wait()


async def test_unarmed_the_client_knows_no_failpoints(server: TestServer, q) -> None:
    assert failpoints.ARMED is None
    broker = Broker(q._settings)

    assert not isinstance(broker.client, FailpointClient)
    await broker.aclose()

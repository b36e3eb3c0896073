"""Leaders that are killed, stopped and woken between any two words: each fire makes one job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from taskq.broker.keys import Keys
from tests.faults.conftest import ROOT
from tests.faults.schedule_app import LANE, PERIOD_MS
from tests.support.leaks import remove_keys
from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

pytestmark = pytest.mark.faults

StartScheduler = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_scheduler(
    server: TestServer, namespace: str, tmp_path: Path, look: redis.Redis
) -> Iterator[StartScheduler]:
    """Starts a scheduler process; in the end all are killed, and what they stored is removed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(failpoints: str = "", lease: float | None = 1.5) -> subprocess.Popen[bytes]:
        variables = os.environ | {
            "SCHEDULE_URL": server.url,
            "SCHEDULE_NAMESPACE": namespace,
            "SCHEDULE_LEASE": str(lease or ""),
            "TASKQ_FAILPOINTS": failpoints,
        }
        with (tmp_path / f"scheduler-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.schedule_app"],
                cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip(), (tmp_path / "scheduler-0.log").read_text()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
    remove_keys(look, namespace)


@pytest.fixture
def lane(namespace: str) -> str:
    return Keys(namespace).lane_prefix + LANE


def fires(look: redis.Redis, lane: str) -> list[int]:
    """The fire times of all jobs there are, in milliseconds, as they were enqueued."""
    entries: Any = look.xrange(lane)
    stamps = [fields[b"i"].decode().partition("@")[2] for _, fields in entries]
    return [round(datetime.fromisoformat(stamp).timestamp() * 1000) for stamp in stamps]


def owner(look: redis.Redis, namespace: str) -> bytes | None:
    found: Any = look.hget(Keys(namespace).leader, "o")
    return found


def more(look: redis.Redis, lane: str, count: int = 5) -> None:
    """Wait until so many more fires were made."""
    before = len(fires(look, lane))
    eventually_sync(lambda: len(fires(look, lane)) >= before + count, within=20)


def each_once(made: list[int]) -> None:
    """No fire is missing, and none was made twice."""
    assert len(made) == len(set(made))
    assert {later - earlier for earlier, later in pairwise(sorted(made))} == {PERIOD_MS}


@pytest.mark.parametrize("point", ["tick.send", "tick.sent", "tick.answered", "fires.sent"])
def test_a_leader_killed_between_any_two_words(
    point: str, start_scheduler: StartScheduler, look: redis.Redis, namespace: str, lane: str
) -> None:
    # Given a leader that is killed at its fifth tick, and two that stand by
    leader = start_scheduler(f"{point}=kill@5")
    eventually_sync(lambda: owner(look, namespace))
    start_scheduler()
    start_scheduler()
    assert leader.wait(20) == -signal.SIGKILL

    # When another one leads
    more(look, lane)

    each_once(fires(look, lane))


@pytest.mark.parametrize("point", ["tick.send", "tick.sent", "lead.sent"])
def test_a_leader_that_stands_still_in_the_middle_of_a_tick_and_wakes_up_deposed(
    point: str, start_scheduler: StartScheduler, look: redis.Redis, namespace: str, lane: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    # Given a leader that is stopped with a tick in its hands
    sleeper = start_scheduler(f"{point}=stop@6")
    eventually_sync(lambda: owner(look, namespace))
    first = owner(look, namespace)
    start_scheduler()
    eventually_sync(lambda: is_stopped(sleeper.pid), within=20)

    # When another one has led for a while, and it wakes up
    eventually_sync(lambda: owner(look, namespace) not in (first, None), within=20)
    more(look, lane)
    sleeper.send_signal(signal.SIGCONT)
    log = tmp_path / "scheduler-0.log"
    eventually_sync(lambda: "no longer leads the schedulers" in log.read_text(), within=20)
    more(look, lane)

    # Then what it sent was refused, and the other one leads on
    assert owner(look, namespace) != first
    assert sleeper.poll() is None
    each_once(fires(look, lane))


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_crash_is_noticed_within_eight_seconds_and_nothing_is_lost_or_doubled(
    start_scheduler: StartScheduler, look: redis.Redis, namespace: str, lane: str
) -> None:
    # Given four processes as users run them, and the one that leads
    processes = [start_scheduler(lease=None)]
    eventually_sync(lambda: owner(look, namespace))
    processes += [start_scheduler(lease=None) for _ in range(3)]
    more(look, lane)
    first = owner(look, namespace)

    # When it is killed
    processes[0].kill()
    processes[0].wait(10)
    began = time.monotonic()
    eventually_sync(lambda: owner(look, namespace) not in (first, None), within=30)
    took = time.monotonic() - began

    print(f"another one leads {took:.1f} s after kill -9")
    assert 5.0 < took < 12.0
    more(look, lane)
    each_once(fires(look, lane))


def test_terminated_leaders_hand_over_and_nothing_is_lost_or_doubled(
    start_scheduler: StartScheduler, look: redis.Redis, namespace: str, lane: str
) -> None:
    processes = {start_scheduler() for _ in range(3)}
    more(look, lane)

    while len(processes) > 1:
        name = eventually_sync(lambda: owner(look, namespace)).decode()
        leader = next(process for process in processes if f"-{process.pid}-" in name)
        processes.discard(leader)
        leader.send_signal(signal.SIGINT)
        leader.wait(10)
        more(look, lane)

    each_once(fires(look, lane))

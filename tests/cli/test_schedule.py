"""`taskq schedule` and `taskq scheduler`: what they say, to people and to scripts."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from taskq import Secret, TaskQ, all_of, cron, every
from taskq.broker.keys import Keys
from tests.cli.terminal import Terminal
from tests.cli.typed import typed
from tests.support.leaks import remove_keys
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.leaves_jobs


@pytest.fixture
def where(server: TestServer, namespace: str) -> tuple[str, ...]:
    return "--url", server.url, "--namespace", namespace


@pytest.fixture
async def task(q: TaskQ, look: redis.Redis, namespace: str) -> AsyncIterator[Any]:
    @q.task(name="shop.clean", queue="night")
    async def clean(days: int = 30) -> None: ...

    yield clean
    remove_keys(look, namespace)


async def test_no_schedules_say_how_to_make_one(task: Any, where: tuple[str, ...]) -> None:
    done = await typed("schedule", "ls", *where)

    assert done.exit_code == 0
    assert "@q.schedule" in done.stdout


async def test_schedules_that_only_the_code_knows_are_stored_by_whom_it_says(
    task: Any, terminal: Terminal, namespace: str
) -> None:
    (terminal.folder / "ticking.py").write_text(APP.format(namespace=namespace))

    done = terminal.output("schedule", "ls", "ticking:q")
    unknown = terminal.output("schedule", "show", "ticking:q", "nobody")
    alone = terminal.output("schedule", "pause", "ticking:q")
    assert alone.returncode == 2
    assert "ID is missing: use taskq schedule pause ticking:q ID" in alone.stderr
    assert terminal.output("schedule", "next", "ticking:q").returncode == 0
    assert "'nobody'" in terminal.output("schedule", "next", "ticking:q", "nobody").stderr

    assert done.returncode == 0
    assert done.stdout == (
        "nothing is stored yet: the code declares 1 schedule, which is stored when a worker or a "
        "scheduler starts: taskq worker ticking:q, or taskq scheduler ticking:q\n"
    )
    assert "no schedule 'nobody': taskq schedule ls ticking:q" in unknown.stderr


async def test_no_schedule_of_a_tag_is_said_so(q: TaskQ, task: Any, where: tuple[str, ...]) -> None:
    await q.schedules.add("clean", every(hours=1), task.s())

    done = await typed("schedule", "ls", "--tag", "slow", *where)

    assert "no schedule has the tag 'slow'" in done.stdout


async def test_schedules_are_listed_with_their_next_fire_in_words(
    q: TaskQ, task: Any, where: tuple[str, ...]
) -> None:
    await q.schedules.add("sync", every(hours=3), task.s(), tags=["slow"])
    await q.schedules.add("clean", cron("0 8 * * *", tz="Asia/Shanghai"), task.s())
    await q.schedules.pause("clean", "the warehouse moves")

    done = await typed("schedule", "ls", *where)

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "2 schedules, 1 paused"
    assert lines[3].split()[:5] == ["sync", "active", "in", "3", "h"]
    assert lines[4].split()[:3] == ["clean", "paused", "shop.clean"]
    assert "Asia/Shanghai" in lines[4]
    assert lines[-1] == "paused  clean: the warehouse moves"
    tagged = await typed("schedule", "ls", "--tag", "slow", *where, "--json")
    assert [info["id"] for info in json.loads(tagged.stdout)] == ["sync"]


async def test_the_next_fires_of_all_and_of_one(
    q: TaskQ, task: Any, where: tuple[str, ...]
) -> None:
    await q.schedules.add("often", every(minutes=10), task.s())
    await q.schedules.add("seldom", every(minutes=25), task.s())

    everything = await typed("schedule", "next", "-n", "4", *where, "--json")
    one = await typed("schedule", "next", "seldom", "-n", "2", *where)

    fires = [fire["schedule"] for fire in json.loads(everything.stdout)]
    assert fires == ["often", "often", "seldom", "often"]
    assert [line.split()[0] for line in one.stdout.splitlines()[3:]] == ["seldom", "seldom"]
    assert "in 25 min" in one.stdout


async def test_everything_about_one(q: TaskQ, task: Any, where: tuple[str, ...]) -> None:
    await q.schedules.add(
        "clean", every(hours=1), task.s(7), overlap=2, tags=["a"], metadata={"owner": "me"}
    )

    done = await typed("schedule", "show", "clean", *where)

    told = dict(line.split(None, 1) for line in done.stdout.splitlines() if line[:1].strip())
    assert told["task"] == "shop.clean(7)"
    assert told["options"] == "overlap 2"
    assert told["queue"] == "night, priority 5"
    assert told["metadata"] == "owner=me"
    assert done.stdout.count("in ") >= 5
    plain = json.loads((await typed("schedule", "show", "clean", *where, "--json")).stdout)
    assert (plain["args"], plain["policy"]["overlap"], len(plain["next_fires"])) == ([7], 2, 5)
    assert datetime.fromisoformat(plain["next_fire"]).tzinfo == UTC


async def test_jobs_that_have_ended_are_not_shown_as_running(
    q: TaskQ, task: Any, where: tuple[str, ...]
) -> None:
    await q.schedules.add("clean", every(hours=1), task.s(7))
    job = await q.schedules.run_now("clean")

    before = await typed("schedule", "show", "clean", *where)
    await q.run_until_empty()
    after = await typed("schedule", "show", "clean", *where)
    plain = json.loads((await typed("schedule", "show", "clean", *where, "--json")).stdout)

    assert f"running         {job.id}" in before.stdout
    assert "running" not in after.stdout
    assert plain["running"] == []


async def test_arguments_json_does_not_know_are_told_in_it(
    q: TaskQ, task: Any, where: tuple[str, ...]
) -> None:
    keyed: Any = {("a", 1): float("nan"), b"ab": Secret("hunter2")}
    await q.schedules.add("clean", every(hours=1), task.s(keyed))

    listed = await typed("schedule", "ls", *where, "--json")
    shown = await typed("schedule", "show", "clean", *where, "--json")

    assert listed.exit_code == shown.exit_code == 0, listed.output + shown.output
    told = [{'["a", 1]': "NaN", "YWI=": "********"}]
    assert [info["args"] for info in json.loads(listed.stdout)] == [told]
    assert json.loads(shown.stdout)["args"] == told


async def test_one_that_cannot_be_computed_is_shown_all_the_same(
    q: TaskQ, task: Any, where: tuple[str, ...]
) -> None:
    # Given two that fire together once, and then not for so long that nobody searches for it
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    once = (every(seconds=s, anchor=soon, immediate=True) for s in (1.0007, 1.0001))
    await q.schedules.add("clean", all_of(*once), task.s())
    async with q.scheduler() as scheduler:
        await eventually(lambda: scheduler.tally.paused == 1)

    done = await typed("schedule", "show", "clean", *where)

    assert done.exit_code == 0, done.output
    assert "paused: ConfigError: the triggers of all_of do not fire together" in done.stdout


async def test_pausing_resuming_running_and_removing(
    q: TaskQ, task: Any, where: tuple[str, ...]
) -> None:
    await q.schedules.add("clean", every(hours=1), task.s(7))

    paused = await typed("schedule", "pause", "clean", "--reason", "why", *where)
    assert "resume clean" in paused.stdout
    info = await q.schedules.get("clean")
    assert info is not None
    assert info.pause_reason == "why"

    resumed = await typed("schedule", "resume", "clean", *where)
    assert "clean fires next" in resumed.stdout

    ran = await typed("schedule", "run", "clean", *where)
    assert (await q.job(ran.stdout.strip()).info()).args == (7,)

    assert (await typed("schedule", "rm", "clean", *where)).exit_code == 0
    assert await q.schedules.get("clean") is None


@pytest.mark.parametrize("command", ["show", "pause", "resume", "run", "rm", "next"])
async def test_an_unknown_schedule_is_an_error_that_says_where_to_look(
    task: Any, where: tuple[str, ...], command: str
) -> None:
    done = await typed("schedule", command, "nobody", *where)

    assert done.exit_code == 1
    assert "no schedule 'nobody'" in done.stderr
    assert "taskq schedule ls" in done.stderr


async def test_status_says_who_leads_and_when_nobody_does(
    q: TaskQ, task: Any, where: tuple[str, ...]
) -> None:
    await q.schedules.add("clean", every(hours=1), task.s())

    alone = await typed("status", *where)
    async with q.scheduler() as scheduler:
        await eventually(lambda: scheduler.term is not None)
        led = await typed("status", *where)
        told = json.loads((await typed("status", *where, "--json")).stdout)["scheduling"]

    assert alone.exit_code == 3
    assert "1 schedule waits for the next fire, and no scheduler is running" in alone.stdout
    assert led.exit_code == 0, led.output
    assert f"1 schedule; {scheduler.name} leads for" in led.stdout
    assert (told["leader"], told["term"], told["active"]) == (scheduler.name, 1, 1)


async def test_a_leader_that_was_not_heard_of_late_leads_no_more(
    q: TaskQ, task: Any, where: tuple[str, ...], namespace: str, look: redis.Redis
) -> None:
    await q.schedules.add("clean", every(hours=1), task.s())
    async with q.scheduler() as scheduler:
        await eventually(lambda: scheduler.term is not None)
        fit = await typed("doctor", *where)
        record = look.hgetall(Keys(namespace).leader)
    # As it is 68 s after a kill -9.
    record[b"h"] = str(int(record[b"h"]) - 68_000).encode()
    look.hset(Keys(namespace).leader, mapping=record)

    looked = await typed("status", *where)
    examined = await typed("doctor", *where)

    assert fit.exit_code == 0, fit.output
    assert f"schedules    1 active, {scheduler.name} leads" in fit.stdout
    assert looked.exit_code == 3
    assert f"1 schedule; no leader: {scheduler.name} was last, silent" in looked.stdout
    assert examined.exit_code == 3
    assert "1 schedule waits for the next fire, and no scheduler is running" in examined.stdout
    assert "fix: taskq worker, or taskq scheduler" in examined.stdout


# ------------------------------------------------------------------------------ the processes

APP = """
from taskq import TaskQ, every

q = TaskQ(namespace={namespace!r})

@q.schedule(every(seconds=0.3))
@q.task
async def tick() -> None: ...
"""


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
async def test_a_scheduler_alone_fires_and_ends_cleanly(
    q: TaskQ, task: Any, terminal: Terminal, namespace: str, look: redis.Redis,
    which: signal.Signals,
) -> None:  # fmt: skip
    (terminal.folder / "ticking.py").write_text(APP.format(namespace=namespace))

    command = terminal.type("scheduler", "ticking.py")
    keys = Keys(namespace)
    await eventually(lambda: look.exists(keys.lane("default", 5)))

    assert "1 schedule in the code" in command.errors
    assert "leads the schedulers now, term 1" in command.errors
    command.signal(which)
    assert command.ended() == 0
    assert look.hget(keys.leader, "o") is None


async def test_a_worker_fires_unless_it_is_told_not_to(
    q: TaskQ, task: Any, terminal: Terminal, namespace: str, look: redis.Redis
) -> None:
    (terminal.folder / "ticking.py").write_text(APP.format(namespace=namespace))
    keys = Keys(namespace)

    quiet = terminal.type("worker", "ticking.py", "--no-scheduler").until_ready()
    assert not look.exists(keys.schedules)
    quiet.signal(signal.SIGTERM)
    assert quiet.ended() == 0

    worker = terminal.type("worker", "ticking.py").until_ready()
    await eventually(lambda: _fired(q))
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0


async def _fired(q: TaskQ) -> bool:
    info = await q.schedules.get("ticking.tick")
    return info is not None and info.fired >= 2

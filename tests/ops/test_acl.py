"""The least a user must be allowed: what the code uses, and that it is enough."""

from __future__ import annotations

import asyncio
import re
import shlex
from importlib import resources
from pathlib import Path

import pytest
import redis

from taskq import JobCancelled, JobFailed, Retry, TaskQ
from taskq.core.errors import ServerRefused
from taskq.ops.acl import COMMANDS, acl_rule
from taskq.ops.overview import read_overview
from tests.support.server import TestServer

PACKAGE = Path(str(resources.files("taskq")))
ROOMS = ("broker", "redis", "ops")
SUBCOMMANDS = {"pubsub", "xgroup", "xinfo"}
# What the doctor asks besides, and does without when it is refused.
OPTIONAL = {"acl", "config"}
SECTIONS = ("server", "memory", "persistence", "replication")
# Every user may: they come before it is known who it is.
ALWAYS = {"hello"}


def used_by_scripts() -> set[str]:
    used: set[str] = set()
    for path in PACKAGE.rglob("*.lua"):
        text = re.sub(r"--.*", "", path.read_text("utf-8"))
        asked = r"(?:call\(|healing\(|ask\([^,]+, |\{ ?)'([A-Z]+)'(?:, '([A-Z]+)')?"
        for name, word in re.findall(asked, text):
            command = name.lower()
            used.add(f"{command}|{word.lower()}" if command in SUBCOMMANDS else command)
    return used


def used_by_the_client() -> set[str]:
    used: set[str] = set()
    for path in (path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")):
        if path.name != "acl.py":
            text = path.read_text("utf-8")
            pattern = r'(?:call|command|ask)\(\s*"([A-Z]+)"(?:, "([A-Z]+)")?'
            for name, word in re.findall(pattern, text):
                command = name.lower()
                used.add(f"{command}|{word.lower()}" if command in SUBCOMMANDS else command)
            used.update(verb.lower() for verb in re.findall(r'"((?:UN)?SUBSCRIBE)"', text))
    return used


def test_the_rule_holds_every_command_the_code_uses_and_no_other() -> None:
    scripts, client = used_by_scripts(), used_by_the_client()
    assert {"xreadgroup", "xadd", "time"} <= scripts
    assert {"evalsha", "subscribe", "info", "select"} <= client

    # INFO is allowed for the sections that are read, SELECT for one database
    sections = {f"info|{section}" for section in SECTIONS}
    used = scripts | (client - OPTIONAL - ALWAYS - {"info", "select"}) | sections
    assert used == set(COMMANDS)


def test_only_the_database_in_use_may_be_selected() -> None:
    assert "select" not in acl_rule("shop")
    words = shlex.split(acl_rule("shop", database=3))
    assert [word for word in words if "select" in word] == ["+select|3"]


@pytest.mark.own_user
async def test_a_user_of_another_database_can_do_everything_there_and_selects_no_other() -> None:
    server = TestServer()
    try:
        admin = redis.Redis(unix_socket_path=str(server.socket), decode_responses=True)
        rule = acl_rule("shop", database=3).replace("PASSWORD", "secret")
        admin.execute_command(*shlex.split(rule))
        url = f"{server.url}?username=taskq&password=secret&db=3"
        await everything(TaskQ(url, namespace="shop"))
        assert admin.execute_command("ACL", "LOG") == []

        taskq = redis.Redis(
            unix_socket_path=str(server.socket), username="taskq", password="secret"
        )
        assert "used_memory" in taskq.info("memory")
        commands = (("SELECT", "1"), ("INFO",), ("INFO", "everything"), ("INFO", "clients"))
        for command in commands:
            with pytest.raises(redis.exceptions.NoPermissionError):
                taskq.execute_command(*command)
        taskq.close()
        admin.close()
    finally:
        server.close()


def test_the_rule_is_for_one_namespace() -> None:
    words = shlex.split(acl_rule("shop"))

    assert words[:4] == ["ACL", "SETUSER", "taskq", "reset"]
    assert [word for word in words if word[0] in "~&"] == ["~{shop}:*", "&{shop}:*"]
    assert not [word for word in words if "@" in word or ("*" in word and word[0] == "+")]


@pytest.mark.own_user
async def test_a_user_of_the_rule_can_do_everything_and_nothing_else() -> None:
    server = TestServer()
    try:
        admin = redis.Redis(unix_socket_path=str(server.socket), decode_responses=True)
        admin.execute_command(*shlex.split(acl_rule("shop").replace("PASSWORD", "secret")))
        url = f"{server.url}?username=taskq&password=secret&db=0"
        await everything(TaskQ(url, namespace="shop"))
        # Not one refusal on the way, also none that was passed over in silence.
        assert admin.execute_command("ACL", "LOG") == []

        stranger = TaskQ(url, namespace="other")
        with pytest.raises(ServerRefused, match=r"NOPERM|can't access"):
            await stranger.send("t")
        await stranger.aclose()
        taskq = redis.Redis(
            unix_socket_path=str(server.socket), username="taskq", password="secret"
        )
        for command in (("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("GET", "x")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                taskq.execute_command(*command)
        taskq.close()
        admin.close()
    finally:
        server.close()


async def everything(q: TaskQ) -> None:
    """Results, failures, retries, delays, priorities, expiry, progress, cancels, deaths, looks."""
    started = asyncio.Event()

    @q.task(name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    @q.task(name="fails", retry=Retry(max_attempts=2, backoff=0.01, jitter=False))
    async def fails() -> None:
        raise ValueError("no")

    @q.task(name="hangs")
    async def hangs() -> None:
        started.set()
        await asyncio.sleep(60)

    async with q.worker(concurrency=4):
        assert await (await add.enqueue(1, 2)).result(timeout=5) == 3
        later = await add.options(delay=0.05, id="own", expires=60, priority=9).enqueue(2, 2)
        assert await later.result(timeout=5) == 4
        with pytest.raises(JobFailed):
            await (await fails.enqueue()).result(timeout=5)
        hung = await hangs.enqueue()
        await asyncio.wait_for(started.wait(), 5)
        assert await hung.cancel()
        with pytest.raises(JobCancelled):
            await hung.result(timeout=5)
        assert (await hung.info()).state == "cancelled"
        broker = q._backend.current()
        overview = await read_overview(broker.client, broker.keys, q._settings.offset)
        assert overview.workers[0].alive
        # A worker that dies holding a job is reaped, and its job runs here.
        await dies_with_a_job(q)
    await q.aclose()


async def dies_with_a_job(q: TaskQ) -> None:
    broker = q._backend.current()
    await broker.leases.register("doomed", b"", 1, ["default", "second"])
    job = await q.remote("add").options(queue="second").enqueue(1, 1)
    (delivery,) = await broker.consumer("doomed").fetch(1, ["second"])
    assert delivery.id == job.id
    reaped = await broker.leases.reap("doomed", broker.reap_policy)
    assert reaped is not None
    assert reaped.moved == 1
    async with q.worker(["second"]):
        assert await job.result(timeout=5) == 2

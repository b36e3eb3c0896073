"""`taskq doctor`: the verdicts as people and scripts get them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from taskq import TaskQ
from tests.cli.typed import typed
from tests.support.server import TestServer


@pytest.fixture(scope="module")
def own_server() -> Iterator[TestServer]:
    server = TestServer()
    yield server
    server.close()


@pytest.fixture
def admin(own_server: TestServer) -> Iterator[redis.Redis]:
    client = redis.Redis(unix_socket_path=str(own_server.socket))
    yield client
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("appendonly", "yes")
    client.close()


async def test_a_fit_server_ends_it_with_0(q: TaskQ, server: TestServer, namespace: str) -> None:
    del q
    done = await typed("doctor", "--url", server.url, "--namespace", namespace)

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"{server.url}, namespace {namespace}"
    assert {line.split()[0] for line in lines[2:]} <= {"ok", "warn", "fix:"}
    names = [line.split()[1] for line in lines[2:] if not line.startswith(" ")]
    assert {"version", "eviction", "persistence", "latency", "clock", "leases"} <= set(names)


async def test_what_is_bad_ends_it_with_3_and_the_fix(
    own_server: TestServer, admin: redis.Redis
) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")

    done = await typed("doctor", "--url", own_server.url)

    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("bad"))
    assert lines[at].split()[:2] == ["bad", "eviction"]
    assert "fix: " in lines[at + 1]
    assert "CONFIG SET maxmemory-policy noeviction" in lines[at + 1]
    # The fix stands below what it mends.
    assert lines[at + 1].index("fix:") == lines[at].index("maxmemory-policy")


async def test_a_warning_alone_ends_it_with_0(own_server: TestServer, admin: redis.Redis) -> None:
    admin.config_set("appendonly", "no")

    done = await typed("doctor", "--url", own_server.url, "--json")

    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["healthy"] is True
    persistence = next(one for one in told["verdicts"] if one["name"] == "persistence")
    assert persistence["level"] == "warn"
    shell = f"-cli -s {own_server.socket} CONFIG"
    assert f"{shell} SET appendonly yes, then " in persistence["fix"]
    assert f"{shell} REWRITE" in persistence["fix"]


async def test_an_unreachable_server_ends_it_with_1(tmp_path: Path) -> None:
    done = await typed("doctor", "--url", f"unix://{tmp_path}/none")

    assert done.exit_code == 1
    assert "cannot reach" in done.stderr
    assert done.stdout == ""


async def test_the_rule_it_prints_makes_a_user_it_finds_well(
    own_server: TestServer, admin: redis.Redis
) -> None:
    printed = await typed("doctor", "--url", own_server.url, "--namespace", "shop", "--acl")
    admin.execute_command(*shlex.split(printed.stdout.replace("PASSWORD", "secret")))

    url = f"{own_server.url}?username=taskq&password=secret"
    done = await typed("doctor", "--url", url, "--namespace", "shop", "--json")
    admin.execute_command("ACL", "DELUSER", "taskq")

    assert printed.exit_code == 0
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert "secret" not in done.output
    levels = {one["name"]: one["level"] for one in told["verdicts"]}
    assert levels["version"] == "ok"
    assert levels["permissions"] == "ok"

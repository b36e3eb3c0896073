"""Is the server fit: the judgements, the look at the first connection, and the examination."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from taskq import ConfigError, ServerRefused, TaskQ
from taskq.ops import doctor as diagnosis
from taskq.ops.doctor import examine, judge_clock, judge_latency
from taskq.redis.client import Client
from taskq.redis.server_check import (
    Facts,
    Level,
    Verdict,
    judge_buffers,
    judge_eviction,
    judge_memory,
    judge_persistence,
    judge_replication,
    judge_version,
)
from tests.support.server import TestServer
from tests.support.waiting import eventually, eventually_sync

#: Commands and users of the tests' own, which the least rights do not have.
pytestmark = pytest.mark.own_user


def facts(settings: dict[str, str] | None = None, **info: str) -> Facts:
    return Facts(info, settings or {})


# ------------------------------------------------------------------------------- judgements


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "5.0.14"}, "bad"),
        ({"redis_version": "6.0.20"}, "bad"),
        ({"redis_version": "6.2.0"}, "ok"),
        ({"redis_version": "8.6.5"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "ok"),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.30.0"}, "warn"),
        ({}, "warn"),
    ],
)
def test_versions_before_redis_6_2_are_bad(info: dict[str, str], level: Level) -> None:
    assert judge_version(facts(**info)).level == level


def test_valkey_is_known_by_its_own_version() -> None:
    server = facts(redis_version="7.2.4", valkey_version="9.1.2", server_name="valkey")

    assert judge_version(server) == Verdict("version", "ok", "Valkey 9.1.2")


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        ("noeviction", "ok"),
        ("allkeys-lru", "bad"),
        ("allkeys-random", "bad"),
        ("volatile-ttl", "warn"),
        ("", "warn"),
    ],
)
def test_policies_that_throw_jobs_away_are_bad(policy: str, level: Level) -> None:
    verdict = judge_eviction(facts(redis_version="7.0.0", maxmemory_policy=policy))

    assert verdict.level == level
    assert ("redis-cli CONFIG SET maxmemory-policy noeviction" in verdict.fix) == (level != "ok")


@pytest.mark.parametrize(
    ("info", "settings", "level", "words"),
    [
        ({"aof_enabled": "1"}, {}, "ok", "append-only file"),
        ({"aof_enabled": "1"}, {"appendfsync": "no"}, "warn", "half a minute"),
        ({"aof_enabled": "1", "aof_last_write_status": "err"}, {}, "bad", "refuses writes"),
        ({"aof_enabled": "0"}, {"save": ""}, "warn", "nothing on disk"),
        ({"aof_enabled": "0"}, {"save": "3600 1"}, "warn", "save 3600 1"),
        ({"aof_enabled": "0"}, {}, "warn", "does not report"),
        ({"aof_enabled": "0", "rdb_last_bgsave_status": "err"}, {}, "bad", "snapshot failed"),
    ],
)
def test_what_a_crash_would_lose_is_said(
    info: dict[str, str], settings: dict[str, str], level: Level, words: str
) -> None:
    verdict = judge_persistence(facts(settings, **info))

    assert verdict.level == level
    assert words in verdict.what
    assert bool(verdict.fix) == (level != "ok")


@pytest.mark.parametrize(
    ("used", "limit", "level"),
    [(99, 0, "ok"), (79, 100, "ok"), (81, 100, "warn"), (96, 100, "bad")],
)
def test_a_server_near_its_limit_is_told_before_it_is_full(
    used: int, limit: int, level: Level
) -> None:
    server = facts(used_memory=str(used << 20), maxmemory=str(limit << 20))

    assert judge_memory(server).level == level


@pytest.mark.parametrize(
    ("round_trips", "level"),
    [([0.001] * 50, "ok"), ([0.02] * 50, "warn"), ([0.001] * 49 + [0.8], "bad")],
)
def test_slow_and_stalling_servers_are_told_apart(round_trips: list[float], level: Level) -> None:
    assert judge_latency(round_trips).level == level


@pytest.mark.parametrize(
    ("skew", "level", "way"), [(0.5, "ok", ""), (-90, "warn", "ahead of"), (90, "warn", "behind")]
)
def test_a_clock_that_is_off_is_told_with_its_direction(
    skew: float, level: Level, way: str
) -> None:
    verdict = judge_clock(skew, 0.001)

    assert verdict.level == level
    assert way in verdict.what


# ------------------------------------------------------------------- at the first connection


@pytest.fixture(scope="module")
def own_server() -> Iterator[TestServer]:
    """A server whose settings these tests change."""
    server = TestServer()
    yield server
    server.close()


@pytest.fixture
def admin(own_server: TestServer) -> Iterator[redis.Redis]:
    client = redis.Redis(unix_socket_path=str(own_server.socket), decode_responses=True)
    yield client
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "0")
    client.config_set("appendonly", "yes")
    client.flushall()
    client.close()


@pytest.fixture
async def own_q(own_server: TestServer, admin: redis.Redis) -> AsyncIterator[TaskQ]:
    del admin
    app = TaskQ(own_server.url, namespace="shop")
    yield app
    await app.aclose()


async def test_a_server_that_would_throw_jobs_away_is_refused_with_what_to_type(
    own_q: TaskQ, admin: redis.Redis
) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")

    async with asyncio.timeout(5):
        for use in (own_q.send("t"), own_q.__aenter__(), own_q.worker().__aenter__()):
            with pytest.raises(ServerRefused, match="CONFIG SET maxmemory-policy noeviction"):
                await use
    assert admin.dbsize() == 0

    # And let in as soon as it was typed, without a new TaskQ.
    admin.config_set("maxmemory-policy", "noeviction")
    job = await own_q.send("t")
    assert job.created


async def test_a_server_that_keeps_nothing_is_warned_of_once(
    own_q: TaskQ, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    admin.config_set("appendonly", "no")

    with caplog.at_level(logging.INFO, logger="taskq.broker"):
        async with own_q, own_q.worker():
            pass
        async with own_q:
            pass

    (record,) = [record for record in caplog.records if record.name == "taskq.broker"]
    assert record.levelno == logging.WARNING
    assert "keeps nothing on disk" in record.getMessage()
    assert "CONFIG SET appendonly yes" in record.getMessage()


async def test_a_server_that_throws_results_away_is_warned_of(
    own_q: TaskQ, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    admin.config_set("maxmemory-policy", "volatile-lru")

    async with own_q:
        pass

    assert [record.getMessage() for record in caplog.records if "volatile-lru" in record.message]


async def test_a_fit_server_is_passed_without_a_word(
    own_q: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_q:
        pass

    assert [record for record in caplog.records if record.name == "taskq.broker"] == []


async def test_reconnecting_asks_the_server_nothing_about_itself(
    own_q: TaskQ, admin: redis.Redis
) -> None:
    await own_q.send("t")
    asked = info_calls(admin)

    admin.client_kill_filter(_type="normal", skipme=True)
    await eventually(lambda: own_q._backend.current().client._connection.lost)
    await own_q.send("t")

    # One more: this test's own.
    assert info_calls(admin) == asked + 1


def info_calls(admin: redis.Redis) -> int:
    return admin.info("commandstats")["cmdstat_info"]["calls"]


async def test_a_user_who_may_not_look_is_let_pass(
    own_server: TestServer, admin: redis.Redis
) -> None:
    admin.execute_command("ACL", "SETUSER", "blind", "on", ">pw", "~*", "&*", "+@all", "-info")
    app = TaskQ(f"{own_server.url}?username=blind&password=pw", namespace="shop")

    job = await app.send("t")
    verdicts = await examined(app)
    await app.aclose()
    admin.execute_command("ACL", "DELUSER", "blind")

    assert job.created
    assert "+info" in verdicts["version"].fix


# ----------------------------------------------------------------------------- examination


async def examined(app: TaskQ) -> dict[str, Verdict]:
    settings = app._settings
    client = Client(settings.locate)
    try:
        verdicts = await examine(client, settings.keys, settings.offset, signing=settings.signing)
    finally:
        await client.aclose()
    return {verdict.name: verdict for verdict in verdicts}


async def test_a_fit_server_and_a_quiet_namespace_are_found_well(q: TaskQ) -> None:
    verdicts = await examined(q)

    assert set(verdicts) == {
        *("version", "eviction", "persistence", "memory", "replication"),
        *(
            "buffers",
            "latency",
            "clock",
            "queues",
            "leases",
            "schedules",
            "entries",
            "streams",
            "permissions",
        ),
        "signing",
    }
    assert [name for name, verdict in verdicts.items() if verdict.level != "ok"] == []


async def test_the_doctor_says_whether_jobs_are_signed(
    q: TaskQ, server: TestServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = TaskQ(server.url, namespace=namespace, signing_keys=["x" * 32])

    assert (await examined(q))["signing"].what.startswith("off")
    assert (await examined(signed))["signing"].what.startswith("signed")
    # An empty variable is an error here too
    monkeypatch.setenv("TASKQ_SIGNING_KEYS", "")
    with pytest.raises(ConfigError, match="is set but empty"):
        await examined(TaskQ(server.url, namespace=namespace))


async def test_settings_that_cannot_be_read_are_not_guessed(
    own_server: TestServer, admin: redis.Redis
) -> None:
    admin.config_set("appendonly", "no")
    admin.execute_command("ACL", "SETUSER", "tenant", "on", ">pw", "~*", "&*", "+@all", "-config")
    app = TaskQ(f"{own_server.url}?username=tenant&password=pw", namespace="shop")

    verdicts = await examined(app)
    admin.execute_command("ACL", "DELUSER", "tenant")

    assert "does not report" in verdicts["persistence"].what
    assert verdicts["eviction"].level == "ok"


async def test_a_refused_server_can_be_examined(own_q: TaskQ, admin: redis.Redis) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lfu")
    admin.config_set("maxmemory", int(admin.info("memory")["used_memory"] / 0.97))

    verdicts = await examined(own_q)

    assert verdicts["eviction"].level == "bad"
    assert verdicts["memory"].level == "bad"


async def test_a_permission_that_is_missing_is_named(
    own_server: TestServer, admin: redis.Redis
) -> None:
    admin.execute_command(
        *("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-publish", "-xdel")
    )
    app = TaskQ(f"{own_server.url}?username=mute&password=pw", namespace="shop")

    verdict = (await examined(app))["permissions"]
    admin.execute_command("ACL", "DELUSER", "mute")

    # ACL DRYRUN came with Redis 7.0. Before it nothing can be found out, and just that is said.
    if str(admin.info("server")["redis_version"]).startswith("6."):
        assert verdict.level == "ok"
        assert (
            "not checked: the server cannot test the rights of user mute (ACL DRYRUN)"
            in verdict.what
        )
        return
    assert verdict.level == "bad"
    assert "user mute may not run publish, xdel" in verdict.what


@pytest.mark.leaves_jobs
async def test_troubles_of_queues_and_leases_are_judged(q: TaskQ, look: redis.Redis) -> None:
    await q.remote("t").options(queue="images").enqueue()
    look.zadd(q._settings.keys.workers, {"gone-worker": -1})

    verdicts = await examined(q)

    assert verdicts["queues"].level == "bad"
    assert verdicts["queues"].fix == "taskq worker -q images"
    assert verdicts["leases"].level == "bad"
    assert "gone-worker" in verdicts["leases"].what


@pytest.mark.leaves_jobs
async def test_a_stream_full_of_cancelled_jobs_is_seen(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_LONG", 100)
    jobs = await q.enqueue_many([q.remote("t").s(number) for number in range(120)])
    assert (await examined(q))["streams"].level == "ok"

    await asyncio.gather(*(job.cancel() for job in jobs[:100]))
    verdict = (await examined(q))["streams"]

    assert verdict.level == "warn"
    assert "queue default, priority 5: about 83% of the first of 120 entries" in verdict.what
    assert verdict.fix.startswith("taskq worker -q default")


@pytest.mark.leaves_jobs
async def test_consumers_without_workers_are_seen(q: TaskQ, look: redis.Redis) -> None:
    await q.send("t")
    lane = q._settings.keys.lane("default", 5)
    pipeline = look.pipeline()
    for number in range(150):
        pipeline.xgroup_createconsumer(lane, "g", f"gone-{number}")
    pipeline.execute()

    verdict = (await examined(q))["streams"]

    assert verdict.level == "warn"
    assert "remembers 150 consumers" in verdict.what
    assert f"XINFO CONSUMERS '{lane}' g" in verdict.fix


async def test_entries_that_are_no_jobs_are_told_with_their_key(
    q: TaskQ, look: redis.Redis
) -> None:
    key = q._settings.keys.malformed
    look.rpush(key, "garbage")
    look.expire(key, 60)

    verdict = (await examined(q))["entries"]

    assert verdict.level == "warn"
    assert f"LRANGE '{key}' 0 9" in verdict.fix


def test_replicas_and_primaries_without_a_needed_replica_are_told(tmp_path: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    primary = TestServer("--port", port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    replica = TestServer("--replicaof", "127.0.0.1", port)
    try:
        asyncio.run(replication_is_judged(primary, replica, port))
    finally:
        replica.close()
        primary.close()


async def replication_is_judged(primary: TestServer, replica: TestServer, port: str) -> None:
    client = redis.Redis(unix_socket_path=str(primary.socket), decode_responses=True)
    eventually_sync(lambda: client.info("replication").get("connected_slaves") == 1)
    eventually_sync(
        lambda: (
            "state=online" in str(client.execute_command("INFO", "replication"))
            or client.info("replication")["slave0"]["state"] == "online"
        )
    )

    alone = (await examined(TaskQ(primary.url)))["replication"]
    client.config_set("min-replicas-to-write", "1")
    needed = (await examined(TaskQ(primary.url)))["replication"]
    client.close()
    second = (await examined(TaskQ(replica.url)))["replication"]

    assert (alone.level, needed.level, second.level) == ("warn", "warn", "bad")
    assert alone.fix.startswith("add a second replica, and only then")
    assert "add a second replica, or" in needed.fix
    assert "min-replicas-to-write 0" in needed.fix
    assert f"TASKQ_URL=redis://127.0.0.1:{port}/0" in second.fix


def test_a_replica_is_required_for_writes_only_where_a_failover_leaves_another() -> None:
    one = judge_replication(facts(role="master", connected_slaves="1"))
    two = judge_replication(facts(role="master", connected_slaves="2"))
    both = judge_replication(facts(role="master", connected_slaves="2", min_slaves_good_slaves="2"))

    assert (one.level, two.level, both.level) == ("warn", "warn", "ok")
    assert two.fix.startswith("redis-cli CONFIG SET min-replicas-to-write 1")
    assert one.fix.startswith("add a second replica")


@pytest.mark.parametrize(
    ("setting", "level"),
    [
        ("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", "ok"),
        ("normal 0 0 0 slave 268435456 67108864 60 pubsub 0 0 0", "ok"),
        ("pubsub 1048576 0 0", "bad"),
        ("pubsub 33554432 1048576 60", "bad"),
        (None, "ok"),
    ],
)
def test_what_a_listener_may_be_owed_is_judged(setting: str | None, level: Level) -> None:
    settings = {} if setting is None else {"client-output-buffer-limit": setting}

    verdict = judge_buffers(facts(settings))

    assert verdict.level == level
    command = "CONFIG SET client-output-buffer-limit 'pubsub 33554432 8388608 60'"
    assert (command in verdict.fix) == (level == "bad")


def test_a_primary_and_its_replicas_are_read_from_info_alone() -> None:
    assert judge_replication(facts(role="master", connected_slaves="0")).level == "ok"
    assert judge_replication(facts()).level == "ok"

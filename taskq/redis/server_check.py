"""Checks whether a server is fit for a queue, from its configuration and state.

`ServerGate` makes the checks that matter before the first job; `taskq doctor` makes them all.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import hiredis

from taskq.core.errors import ServerRefused
from taskq.core.text import counted
from taskq.redis.connection import MESSAGE_BYTES

__all__ = [
    "BUFFERS",
    "Ask",
    "Facts",
    "Level",
    "ServerGate",
    "Verdict",
    "judge_buffers",
    "judge_eviction",
    "judge_memory",
    "judge_persistence",
    "judge_replication",
    "judge_version",
    "lenient",
    "read_facts",
    "read_settings",
]

_log = logging.getLogger("taskq.broker")

Level = Literal["ok", "warn", "bad"]

Ask = Callable[..., Awaitable[Any]]
"""Sends one command; returns its reply, or None when the server refuses it."""

_SECTIONS = ("server", "memory", "persistence", "replication")
_NEAR_FULL, _FULL = 0.8, 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one check, and how to fix what it found."""

    name: str
    level: Level
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server reports: the lines of INFO, and the settings that can be read.

    Managed servers forbid CONFIG, so a missing setting is unknown. `flags` are the options with
    which a command-line client reaches the server.
    """

    info: Mapping[str, str]
    settings: Mapping[str, str]
    flags: str = ""

    @property
    def product(self) -> str:
        """`Valkey`, `Redis`, or a compatible product."""
        for name in ("Dragonfly", "KeyDB"):
            if f"{name.lower()}_version" in self.info:
                return name
        return "Valkey" if "valkey_version" in self.info else "Redis"

    @property
    def version(self) -> str:
        """The product's own version; Valkey also reports that of a compatible Redis."""
        own = self.info.get(f"{self.product.lower()}_version")
        return own or self.info.get("redis_version", "")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers."""
        return tuple(map(int, re.findall(r"\d+", self.version)[:3]))

    @property
    def series(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor, *_ = (*self.numbers, 0, 0)
        return major, minor

    @property
    def shell(self) -> str:
        """The command-line client for the fixes, with its connection options."""
        program = "valkey-cli" if self.product == "Valkey" else "redis-cli"
        return f"{program} {self.flags}".rstrip()

    def number(self, name: str) -> int:
        """A number from INFO; 0 when it is missing."""
        text = self.info.get(name, "0")
        return int(text) if text.isdigit() else 0


def lenient(call: Ask) -> Ask:
    """The same, with None for error replies; the command is sent when this returns."""

    def ask(*command: Any) -> Awaitable[Any]:
        return _answer(call(*command))

    return ask


async def _answer(reply: Awaitable[Any]) -> Any:
    answered = await reply
    return None if isinstance(answered, hiredis.ReplyError) else answered


async def read_facts(ask: Ask, *settings: str) -> Facts | None:
    """Read INFO and `settings` from the server; None when this user may not run INFO."""
    # 6.2 takes one section per INFO; all are sent at once, in one round trip.
    sections, known = await asyncio.gather(
        asyncio.gather(*(ask("INFO", section) for section in _SECTIONS)),
        read_settings(ask, *settings),
    )
    if None in sections:
        return None
    info: dict[str, str] = {}
    for section in sections:
        for line in _text(section).splitlines():
            name, colon, value = line.partition(":")
            if colon:
                info[name] = value.strip()
    return Facts(info, known)


async def read_settings(ask: Ask, *names: str) -> dict[str, str]:
    """The settings of these names, without those that this user may not read."""
    replies = await asyncio.gather(*(ask("CONFIG", "GET", name) for name in names))
    return {
        _text(name): _text(value) for reply in replies for name, value in dict(reply or {}).items()
    }


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


# ----------------------------------------------------------------------------------- checks


OLDEST: Final = {"Redis": (6, 2), "Valkey": (7, 2)}


def judge_version(facts: Facts) -> Verdict:
    """Check that the server is a supported product, and new enough for the scripts."""
    oldest = OLDEST.get(facts.product)
    shown = f"{facts.product} {facts.version or 'of an unknown version'}"
    if oldest is None or not facts.numbers:
        return Verdict(
            "version", "warn", f"{shown} is not tested with taskq", "use Redis or Valkey"
        )
    if facts.series < oldest:
        return Verdict(
            "version",
            "bad",
            f"{shown} is too old for taskq",
            "upgrade to Redis 6.2 or newer, or to Valkey 7.2 or newer",
        )
    return Verdict("version", "ok", shown)


def judge_eviction(facts: Facts) -> Verdict:
    """Check that the server does not evict jobs when its memory is full."""
    policy = facts.info.get("maxmemory_policy", "")
    fix = (
        f"{facts.shell} CONFIG SET maxmemory-policy noeviction (and in its configuration file; "
        "for a managed server, in its parameters)"
    )
    if policy.startswith("allkeys"):
        return Verdict(
            "eviction",
            "bad",
            f"maxmemory-policy is {policy}: a full server would evict jobs",
            fix,
        )
    if policy.startswith("volatile"):
        return Verdict(
            "eviction",
            "warn",
            f"maxmemory-policy is {policy}: a full server would evict results, and the keys that "
            "make a repeated enqueue harmless",
            fix,
        )
    if not policy:
        return Verdict("eviction", "warn", "the server does not report its maxmemory-policy", fix)
    return Verdict("eviction", "ok", f"maxmemory-policy is {policy}")


def judge_persistence(facts: Facts) -> Verdict:
    """Check what a crash of the server would lose, and whether it can write to its disk."""
    append = facts.info.get("aof_enabled") == "1"
    broken = _broken_disk(facts, append)
    if broken is not None:
        return broken
    on = f"{facts.shell} CONFIG SET appendonly yes, then {facts.shell} CONFIG REWRITE"
    if append:
        if facts.settings.get("appendfsync") == "no":
            return Verdict(
                "persistence",
                "warn",
                "append-only file, written when the operating system decides (appendfsync no): a "
                "power failure loses up to half a minute",
                f"{facts.shell} CONFIG SET appendfsync everysec",
            )
        return Verdict("persistence", "ok", "append-only file")
    save = facts.settings.get("save")
    if save == "":
        what = "the server keeps nothing on disk: a restart loses every job"
    elif save is None:
        what = "no append-only file; the server does not report whether there are snapshots"
    else:
        what = f"snapshots only (save {save}): a crash loses all jobs since the last one"
    return Verdict("persistence", "warn", what, on)


def _keeps_nothing(facts: Facts) -> bool:
    """Whether a restart of the server certainly loses all jobs."""
    return facts.info.get("aof_enabled") == "0" and facts.settings.get("save") == ""


def _broken_disk(facts: Facts, append: bool) -> Verdict | None:
    fix = "free space on the server's disk, and read the server's log"
    if append and facts.info.get("aof_last_write_status", "ok") != "ok":
        what = "the server cannot write its append-only file and refuses writes"
        return Verdict("persistence", "bad", what, fix)
    if facts.info.get("rdb_last_bgsave_status", "ok") != "ok":
        what = "the last snapshot failed: the server may refuse writes until one succeeds"
        return Verdict("persistence", "bad", what, fix)
    return None


def judge_memory(facts: Facts) -> Verdict:
    """Check how close the server is to its memory limit."""
    limit, used = facts.number("maxmemory"), facts.number("used_memory")
    if not limit:
        return Verdict("memory", "ok", f"{_mib(used)} used, no maxmemory set")
    share = used / limit
    what = f"{_mib(used)} used of {_mib(limit)} ({share:.0%})"
    if share < _NEAR_FULL:
        return Verdict("memory", "ok", what)
    fix = (
        f"add workers, shorten result_ttl, or {facts.shell} CONFIG SET maxmemory "
        f"{2 * limit >> 20}mb; at 100% no job can be enqueued, while workers still drain it"
    )
    return Verdict("memory", "bad" if share >= _FULL else "warn", what, fix)


def judge_replication(facts: Facts) -> Verdict:
    """Check that the server takes writes, and what a failover would lose."""
    if facts.info.get("role", "master") != "master":
        primary = f"{facts.info.get('master_host', '')}:{facts.info.get('master_port', '')}"
        return Verdict(
            "replication",
            "bad",
            f"this server is a replica of {primary} and takes no writes",
            f"connect to the primary: TASKQ_URL=redis://{primary}/0",
        )
    replicas = facts.number("connected_slaves")
    if not replicas:
        return Verdict("replication", "ok", "a primary without replicas")
    shown = counted(replicas, "replica", "replicas")
    # INFO reports good replicas only when a number of them is required for writes.
    required = "min_slaves_good_slaves" in facts.info
    if required and replicas > 1:
        return Verdict("replication", "ok", f"a primary with {shown}, required for writes")
    if required:
        return Verdict(
            "replication",
            "warn",
            "the only replica is required for writes: after a failover, or while the replica is "
            "down, every write is refused",
            f"add a second replica, or {facts.shell} CONFIG SET min-replicas-to-write 0",
        )
    fix = f"{facts.shell} CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 10"
    if replicas == 1:
        fix = f"add a second replica, and only then {fix}: with one, a failover leaves none"
    return Verdict(
        "replication",
        "warn",
        f"{shown}, none of them required for a write: a primary that is cut off still takes jobs "
        "and loses them when it comes back",
        fix,
    )


BUFFERS: Final = "client-output-buffer-limit"
"""The setting that closes connections with too much unread data."""

_PUBSUB: Final = re.compile(r"\bpubsub (\d+) (\d+) (\d+)")


def judge_buffers(facts: Facts) -> Verdict:
    """Check that the output buffer of a subscribed connection holds the replies taskq needs."""
    setting = _PUBSUB.search(facts.settings.get(BUFFERS, ""))
    fix = f"{facts.shell} CONFIG SET {BUFFERS} 'pubsub 33554432 8388608 60', or more"
    if setting is None:
        return Verdict("buffers", "ok", f"the server does not report its {BUFFERS}")
    limits = [limit for limit in map(int, setting.groups()[:2]) if limit]
    least = _mib(min(limits)) if limits else "any number of bytes"
    what = f"{BUFFERS} allows pubsub clients {least} of unread data"
    if limits and min(limits) < 2 * MESSAGE_BYTES:
        return Verdict(
            "buffers",
            "bad",
            f"{what}: larger replies close the connection, and fetched jobs never run",
            fix,
        )
    return Verdict("buffers", "ok", what)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


class ServerGate:
    """Checks each server once, at the first connection to it; later connections cost nothing.

    All connections of one TaskQ share one gate.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    async def check(self, call: Ask, where: str) -> None:
        """Check the server at `where` through `call`, which returns error replies as values.

        Costs one round trip, or two when there is no append-only file. Passes a server on which
        this user may not run INFO. Logs a warning for settings that may lose jobs.

        Raises `ServerRefused`, with the fix, for a server that would evict jobs or is too old for
        the scripts.
        """
        if where in self._known:
            return
        ask = lenient(call)
        facts = await read_facts(ask)
        if facts is not None:
            for verdict in (judge_version(facts), judge_eviction(facts)):
                if verdict.level == "bad":
                    raise ServerRefused(f"{where}: {verdict.what}. {verdict.fix}")
            if facts.info.get("aof_enabled") == "0":
                facts = Facts(facts.info, await read_settings(ask, "save"))
            _warn(where, facts)
        self._known.add(where)


def _warn(where: str, facts: Facts) -> None:
    eviction, replication = judge_eviction(facts), judge_replication(facts)
    persistence = judge_persistence(facts)
    for verdict, worth in (
        (eviction, eviction.level == "warn"),
        (replication, replication.level == "bad"),
        (persistence, persistence.level == "bad" or _keeps_nothing(facts)),
    ):
        if worth:
            _log.warning("%s: %s. What to do: %s", where, verdict.what, verdict.fix)

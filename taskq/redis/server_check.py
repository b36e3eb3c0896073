"""Whether this server is fit for a queue, judged by its own configuration and state."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import hiredis

from taskq.core.text import counted
from taskq.redis.connection import MESSAGE_BYTES

__all__ = [
    "BUFFERS",
    "Ask",
    "Facts",
    "Level",
    "Verdict",
    "judge_buffers",
    "judge_eviction",
    "judge_memory",
    "judge_persistence",
    "judge_replication",
    "judge_version",
    "keeps_nothing",
    "lenient",
    "read_facts",
    "read_settings",
]

Level = Literal["ok", "warn", "bad"]

Ask = Callable[..., Awaitable[Any]]
"""Send one command; its reply, or None when the server refuses it."""

_SECTIONS = ("server", "memory", "persistence", "replication")
_NEAR_FULL, _FULL = 0.8, 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement of one thing, and what to type when it is not well."""

    name: str
    level: Level
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself: the lines of INFO, and settings it let us read.

    Managed servers forbid CONFIG: a setting that is missing is not known. `flags` are those with
    which a shell reaches it.
    """

    info: Mapping[str, str]
    settings: Mapping[str, str]
    flags: str = ""

    @property
    def product(self) -> str:
        """`Valkey`, `Redis`, or another that speaks like them."""
        for name in ("Dragonfly", "KeyDB"):
            if f"{name.lower()}_version" in self.info:
                return name
        return "Valkey" if "valkey_version" in self.info else "Redis"

    @property
    def version(self) -> str:
        """The version of the product itself: Valkey also tells the Redis it is compatible with."""
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
        """The program in which the fixes are typed, with what it needs to reach the server."""
        program = "valkey-cli" if self.product == "Valkey" else "redis-cli"
        return f"{program} {self.flags}".rstrip()

    def number(self, name: str) -> int:
        """A number of INFO; 0 when it is missing."""
        text = self.info.get(name, "0")
        return int(text) if text.isdigit() else 0


def lenient(call: Ask) -> Ask:
    """The same, with None for error replies; what is asked is on its way when this returns."""

    def ask(*command: Any) -> Awaitable[Any]:
        return _answer(call(*command))

    return ask


async def _answer(reply: Awaitable[Any]) -> Any:
    answered = await reply
    return None if isinstance(answered, hiredis.ReplyError) else answered


async def read_facts(ask: Ask, *settings: str) -> Facts | None:
    """Ask the server about itself, and for `settings`; None when this user may not run INFO."""
    # One section at a time, for 6.2 knows no more; all at once, so that it is one round trip.
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
    """The settings the server lets us read, of those asked for."""
    replies = await asyncio.gather(*(ask("CONFIG", "GET", name) for name in names))
    return {
        _text(name): _text(value) for reply in replies for name, value in dict(reply or {}).items()
    }


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


# ------------------------------------------------------------------------------- judgements


OLDEST: Final = {"Redis": (6, 2), "Valkey": (7, 2)}


def judge_version(facts: Facts) -> Verdict:
    """Whether the server is one taskq knows, and new enough for its scripts."""
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
            "upgrade the server: Redis from 6.2 on, or Valkey from 7.2 on",
        )
    return Verdict("version", "ok", shown)


def judge_eviction(facts: Facts) -> Verdict:
    """Whether the server would throw jobs away when its memory is full."""
    policy = facts.info.get("maxmemory_policy", "")
    fix = (
        f"{facts.shell} CONFIG SET maxmemory-policy noeviction (and in its configuration; of a "
        "managed server, in its parameters)"
    )
    if policy.startswith("allkeys"):
        return Verdict(
            "eviction",
            "bad",
            f"maxmemory-policy is {policy}: a full server would throw jobs away",
            fix,
        )
    if policy.startswith("volatile"):
        return Verdict(
            "eviction",
            "warn",
            f"maxmemory-policy is {policy}: a full server would throw results away, and what makes "
            "a repeated enqueue harmless",
            fix,
        )
    if not policy:
        return Verdict("eviction", "warn", "the server does not tell its maxmemory-policy", fix)
    return Verdict("eviction", "ok", f"maxmemory-policy is {policy}")


def judge_persistence(facts: Facts) -> Verdict:
    """What a crash of the server would lose, and whether it can write to its disk."""
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
                "append-only file, written when the system likes (appendfsync no): the end of a "
                "machine loses up to half a minute",
                f"{facts.shell} CONFIG SET appendfsync everysec",
            )
        return Verdict("persistence", "ok", "append-only file")
    save = facts.settings.get("save")
    if save == "":
        what = "the server keeps nothing on disk: a restart of it loses every job"
    elif save is None:
        what = "no append-only file; whether there are snapshots, the server does not tell"
    else:
        what = f"snapshots only (save {save}): a crash loses all jobs since the last one"
    return Verdict("persistence", "warn", what, on)


def keeps_nothing(facts: Facts) -> bool:
    """Whether it is certain that no job would outlive the server."""
    return facts.info.get("aof_enabled") == "0" and facts.settings.get("save") == ""


def _broken_disk(facts: Facts, append: bool) -> Verdict | None:
    fix = "make room on the server's disk, and look into the server's log"
    if append and facts.info.get("aof_last_write_status", "ok") != "ok":
        what = "the server cannot write its append-only file and refuses writes"
        return Verdict("persistence", "bad", what, fix)
    if facts.info.get("rdb_last_bgsave_status", "ok") != "ok":
        what = "the last snapshot failed: the server may refuse writes until one succeeds"
        return Verdict("persistence", "bad", what, fix)
    return None


def judge_memory(facts: Facts) -> Verdict:
    """How near the server is to its limit of memory."""
    limit, used = facts.number("maxmemory"), facts.number("used_memory")
    if not limit:
        return Verdict("memory", "ok", f"{_mib(used)} used, no maxmemory set")
    share = used / limit
    what = f"{_mib(used)} used of {_mib(limit)} ({share:.0%})"
    if share < _NEAR_FULL:
        return Verdict("memory", "ok", what)
    fix = (
        f"add workers, shorten result_ttl, or {facts.shell} CONFIG SET maxmemory "
        f"{2 * limit >> 20}mb; at 100% no job can be enqueued, and workers go on draining"
    )
    return Verdict("memory", "bad" if share >= _FULL else "warn", what, fix)


def judge_replication(facts: Facts) -> Verdict:
    """Whether the server takes writes, and what a failover would lose."""
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
    # INFO tells of good replicas exactly when a number of them is required for writes.
    required = "min_slaves_good_slaves" in facts.info
    if required and replicas > 1:
        return Verdict("replication", "ok", f"a primary with {shown}, needed for writes")
    if required:
        return Verdict(
            "replication",
            "warn",
            "the only replica is needed for writes: after a failover, or while the replica is "
            "away, every write is refused",
            f"add a second replica, or {facts.shell} CONFIG SET min-replicas-to-write 0",
        )
    fix = f"{facts.shell} CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 10"
    if replicas == 1:
        fix = f"add a second replica, and only then {fix}: with one, a failover leaves none"
    return Verdict(
        "replication",
        "warn",
        f"{shown}, and none is needed for a write: a primary that is cut off goes on taking "
        "jobs, and loses them when it comes back",
        fix,
    )


BUFFERS: Final = "client-output-buffer-limit"
"""The setting that ends the connection of who reads slowly, or is owed too much at once."""

_PUBSUB: Final = re.compile(r"\bpubsub (\d+) (\d+) (\d+)")


def judge_buffers(facts: Facts) -> Verdict:
    """Whether the server lets a connection that listens be owed the replies taskq asks for."""
    setting = _PUBSUB.search(facts.settings.get(BUFFERS, ""))
    fix = f"{facts.shell} CONFIG SET {BUFFERS} 'pubsub 33554432 8388608 60', or more"
    if setting is None:
        return Verdict("buffers", "ok", f"the server does not tell its {BUFFERS}")
    limits = [limit for limit in map(int, setting.groups()[:2]) if limit]
    least = _mib(min(limits)) if limits else "any number of bytes"
    what = f"{BUFFERS} lets a pubsub client be owed {least}"
    if limits and min(limits) < 2 * MESSAGE_BYTES:
        return Verdict(
            "buffers",
            "bad",
            f"{what}: larger replies close the connection, and jobs that were fetched never run",
            fix,
        )
    return Verdict("buffers", "ok", what)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"

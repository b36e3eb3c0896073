"""One namespace on a real server: seeded and read by an independent client, changed by scripts.

`Scene.state()` is the content of the namespace as comparable values, so that a test checks what a
script changed and what it did not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import redis

from taskq.broker.broker import Upkeep
from taskq.broker.consumer import Consumer, Frame
from taskq.broker.jobs import Jobs
from taskq.broker.keys import Keys
from taskq.broker.leadership import Leadership
from taskq.broker.leases import Leases, ReapPolicy
from taskq.broker.producer import Producer
from taskq.broker.schedules import ScheduleStore
from taskq.broker.scripts import ClockOffset
from taskq.broker.waiting import Waiting
from taskq.core.job import Delivery, NewJob
from taskq.core.liveness import REMEMBERED_SECONDS
from taskq.redis.client import Client, Locate, Script
from taskq.redis.url import Address

__all__ = [
    "FAILURE_TTL",
    "GRACE",
    "LANE",
    "REMEMBERED",
    "About",
    "Kept",
    "Lane",
    "Listener",
    "Scene",
    "at",
    "entry_name",
    "frame",
    "job",
    "lanes_of",
    "last_heartbeat",
    "without",
]

LANE = "default/5"
QUEUES = ("default", "a", "b", "other", "email", "bulk")
"""The queues that a worker of these tests serves by default."""
FAILURE_TTL = 86_400_000
"""How long the workers of a scene keep records of failed jobs, in milliseconds."""
GRACE = 600_000
"""How much longer than a long ttl a record lives, in milliseconds."""

_DEADLINE = 5.0

_NUMBERS = frozenset("tbfxdlackuzgmy")


class About:
    """Equal to any instant or duration within two seconds of it, in milliseconds.

    The server's clock cannot be stopped; times that a test must distinguish are minutes apart.
    """

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def __eq__(self, other: object) -> bool:
        if isinstance(other, About):
            other = other.ms
        return isinstance(other, (int, float)) and abs(other - self.ms) <= 2_000

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"About({self.ms:.0f})"


REMEMBERED = About(int((_DEADLINE + REMEMBERED_SECONDS) * 1000))
"""How long the server remembers the last batch of a producer, in milliseconds."""


class Kept(NamedTuple):
    """A value that expires after `ms` milliseconds."""

    value: Any
    ms: About


@dataclass
class Lane:
    """A stream: ids of jobs that wait, that workers hold, that were returned, and of suspects."""

    waiting: list[str] = field(default_factory=list[str])
    held: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    returned: list[str] = field(default_factory=list[str])
    suspects: list[str] = field(default_factory=list[str])


class Listener:
    """Receives messages on some channels, or on every channel of a namespace.

    Only a listener to a channel by name counts as a subscriber there, as a worker does.
    """

    def __init__(self, look: Any, prefix: str, *channels: str) -> None:
        self._prefix = prefix
        self._subscription: Any = look.pubsub()
        if channels:
            self._subscription.subscribe(*(prefix + channel for channel in channels))
        else:
            self._subscription.psubscribe(prefix + "*")
        self.messages()

    def messages(self) -> list[tuple[str, bytes]]:
        """The messages since the last call: channel (without the namespace) and message."""
        # The reply to the ping comes after everything that was published before it.
        self._subscription.ping()
        messages: list[tuple[str, bytes]] = []
        while True:
            message = self._subscription.get_message(timeout=5)
            assert message is not None, "no answer to a ping within 5 s"
            if message["type"] == "pong":
                return messages
            if message["type"] in ("message", "pmessage"):
                channel = message["channel"].decode().removeprefix(self._prefix)
                messages.append((channel, message["data"]))

    def close(self) -> None:
        self._subscription.close()


class Scene:
    """A namespace, with every service that acts in it."""

    def __init__(self, look: redis.Redis, address: Address, namespace: str) -> None:
        # Untyped: what its methods return depends on their options.
        self.look: Any = look
        self.keys = Keys(namespace)
        self.offset = ClockOffset()
        self.client = Client(at(address))
        shared = (self.client, self.keys, self.offset)
        self.producer = Producer(*shared, deadline=_DEADLINE)
        self.leases = Leases(*shared)
        self.upkeep = Upkeep(*shared)
        self.jobs = Jobs(*shared, failure_ttl=FAILURE_TTL / 1000)
        self.waiting = Waiting(*shared)
        self.leadership = Leadership(*shared)
        self.schedules = ScheduleStore(*shared)
        self.policy = ReapPolicy(max_crashes=3, failure_ttl=FAILURE_TTL / 1000, keep_failed=100)
        # Half past a minute, so that the minute of the counters does not change within a test.
        self.offset.ms = 30_000 - self.now() % 60_000
        self._prefix = f"{{{namespace}}}:"
        self._listeners: list[Listener] = []

    def now(self) -> int:
        """The server's clock as scripts see it, in milliseconds."""
        seconds, microseconds = self.look.time()
        return seconds * 1000 + microseconds // 1000 + self.offset.ms

    def later(self, seconds: float) -> None:
        """Move the scripts' clock."""
        self.offset.ms += int(seconds * 1000)

    def about_now(self, seconds: float = 0.0) -> About:
        """Now, or so many seconds from now."""
        return About(self.now() + seconds * 1000)

    def listen(self, *channels: str) -> Listener:
        """Listen to these channels, or to all, from now on."""
        listener = Listener(self.look, self._prefix, *channels)
        self._listeners.append(listener)
        return listener

    @contextmanager
    def measured(self) -> Iterator[list[int]]:
        """Record the number of data bytes in the reply of each script."""
        sizes: list[int] = []
        send = self.client.script

        async def measuring(script: Script, keys: tuple[str, ...], *args: Any) -> Any:
            reply = await send(script, keys, *args)
            sizes.append(_bytes_of(reply))
            return reply

        self.client.script = measuring
        try:
            yield sizes
        finally:
            self.client.script = send

    async def consumer(
        self, worker: str = "w1", *, keep_failed: int = 100, register: bool = True
    ) -> Consumer:
        """The consumer of a worker, which is registered first."""
        if register:
            self.put_worker(worker)
        return Consumer(
            self.client,
            self.keys,
            self.offset,
            worker,
            failure_ttl=FAILURE_TTL / 1000,
            keep_failed=keep_failed,
        )

    # ------------------------------------------------------------------------------- seeding

    def put_worker(self, worker: str, *queues: str, slots: int = 0) -> None:
        """Register a worker that serves these queues, or all queues of these tests."""
        self.look.zadd(self.keys.workers, {worker: 7}, nx=True)
        served = " ".join(queues or QUEUES)
        self.look.hsetnx(self.keys.serves, worker, served)
        if slots:
            self.look.hset(self.keys.slots, worker, slots)

    def put_job(self, job_id: str, state: str = "q", **fields: Any) -> None:
        """Write only the hash of a job."""
        given = {"e": b"envelope", "s": state, "q": LANE, "t": 1000} | fields
        self.look.hset(self.keys.job(job_id), mapping=given)

    def put_entry(self, job_id: str, lane: str = LANE, **fields: Any) -> bytes:
        """Add a stream entry for a job (or with these fields), in a lane that is listed."""
        stream = self.keys.lane_prefix + lane
        queue, priority = lane.split("/")
        signs = (self.look.hget(self.keys.lanes, queue) or b"").decode()
        if priority not in signs:
            self.look.hset(self.keys.lanes, queue, signs + priority)
            self.look.xgroup_create(stream, "g", "0", mkstream=True)
        return self.look.xadd(stream, fields or {"i": job_id})

    def put_queued(self, job_id: str, lane: str = LANE, **fields: Any) -> bytes:
        """A queued job with its stream entry."""
        self.put_job(job_id, "q", q=lane, **fields)
        return self.put_entry(job_id, lane)

    def put_due(self, job_id: str, due_at: int, lane: str = LANE, **fields: Any) -> None:
        """A scheduled job."""
        self.put_job(job_id, "d", q=lane, d=due_at, **fields)
        self.look.zadd(self.keys.due, {job_id: due_at})

    def put_expiry(self, job_id: str, expires_at: int) -> None:
        """Let an existing job expire."""
        self.look.hset(self.keys.job(job_id), "x", expires_at)
        self.look.zadd(self.keys.expiry, {job_id: expires_at})

    def put_running(
        self, job_id: str, worker: str = "w1", lane: str = LANE, **fields: Any
    ) -> Delivery:
        """A job that a worker runs: marked, delivered to its consumer, counted as held."""
        given = {"w": worker, "a": 1, "b": 2000} | fields
        self.put_job(job_id, "r", q=lane, **given)
        entry = self.put_entry(job_id, lane)
        stream = self.keys.lane_prefix + lane
        # By XCLAIM, because a read would take the entries before it.
        self.look.xclaim(stream, "g", worker, 0, [entry], force=True, justid=True)
        last = self.look.xinfo_groups(stream)[0]["last-delivered-id"]
        if _order(last) < _order(entry):
            self.look.xgroup_setid(stream, "g", entry)
        self.look.hincrby(self.keys.held, worker, 1)
        self.put_worker(worker)
        return Delivery(
            job_id, lane, entry_name(lane, entry), int(given["a"]), b"envelope", 0, 0, 0, 1000
        )

    # ------------------------------------------------------------------------------- looking

    async def held(self, worker: str = "w1") -> list[bytes]:
        """The entries that are pending for a worker."""
        return [held.entry for held in await self.leases.held(worker)]

    def being_reaped(self) -> list[str]:
        """Dead workers that are partly reaped."""
        found = self.look.zrange(self.keys.workers, "-inf", "(0", byscore=True)
        return [name.decode() for name in found]

    def job(self, job_id: str) -> dict[str, Any]:
        """The fields of a job."""
        return self._hash(self.keys.job(job_id), is_job=True)

    def lane(self, lane: str = LANE) -> Lane:
        """The content of a lane, by holder."""
        return self._lane((self.keys.lane_prefix + lane).encode())

    def state(self) -> dict[str, Any]:
        """Everything in the namespace, by key without the namespace."""
        found: dict[str, Any] = {}
        for key in self.look.scan_iter(match=self._prefix + "*", count=1000):
            name = key.decode().removeprefix(self._prefix)
            if name == "serves":
                # Written once, when a worker registers.
                continue
            if name.startswith("sent:"):
                name = "sent"
            value, ttl = self._value(name, key), self.look.pttl(key)
            found[name] = value if ttl == -1 else Kept(value, About(ttl))
        return found

    def clear(self) -> None:
        """Remove everything, so that the server stays small for the tests that follow."""
        keys = list(self.look.scan_iter(match=self._prefix + "*", count=1000))
        for i in range(0, len(keys), 1000):
            self.look.unlink(*keys[i : i + 1000])

    async def aclose(self) -> None:
        for listener in self._listeners:
            listener.close()
        self.waiting.close()
        await self.client.aclose()
        self.clear()

    def _value(self, name: str, key: bytes) -> Any:
        kind = self.look.type(key).decode()
        if kind == "hash":
            if name == "leader" or name.startswith("schedule:"):
                return {field.decode(): text for field, text in self.look.hgetall(key).items()}
            if name == "lanes":
                return {
                    field.decode(): text.decode() for field, text in self.look.hgetall(key).items()
                }
            return self._hash(key, is_job=name.startswith("j:"))
        if kind == "stream":
            return self._lane(key)
        if kind == "zset":
            ranked = self.look.zrange(key, 0, -1, withscores=True)
            return {
                member.decode(): score if math.isinf(score) else int(score)
                for member, score in ranked
            }
        if kind == "set":
            return {member.decode() for member in self.look.smembers(key)}
        if kind == "list":
            return self.look.lrange(key, 0, -1)
        value = self.look.get(key)
        return int(value) if value is not None and value.isdigit() else value

    def _hash(self, key: str | bytes, *, is_job: bool) -> dict[str, Any]:
        fields = {name.decode(): value for name, value in self.look.hgetall(key).items()}
        if is_job:
            return {name: _job_field(name, value) for name, value in fields.items()}
        return {name: int(value) for name, value in fields.items()}

    def _lane(self, key: bytes) -> Lane:
        ids = {entry: fields.get(b"i", b"?").decode() for entry, fields in self.look.xrange(key)}
        groups = self.look.xinfo_groups(key)
        if not groups:
            return Lane(list(ids.values()))
        last = _order(groups[0]["last-delivered-id"])
        held: dict[str, list[str]] = {}
        for row in self.look.xpending_range(key, "g", "-", "+", 100_000):
            owner = row["consumer"].decode()
            held.setdefault(owner, []).append(ids.get(row["message_id"], "(deleted)"))
        waiting = [job_id for entry, job_id in ids.items() if _order(entry) > last]
        returned, suspects = held.pop("(returned)", []), held.pop("(suspects)", [])
        return Lane(waiting, held, returned, suspects)


def lanes_of(look: Any, keys: Keys) -> list[str]:
    """Every listed lane of the event loop."""
    return [
        f"{queue.decode()}/{priority}"
        for queue, signs in look.hgetall(keys.lanes).items()
        for priority in signs.decode()
        if priority.isdigit()
    ]


def last_heartbeat(look: Any, keys: Keys) -> int:
    """The highest heartbeat number of all workers."""
    last = look.zrange(keys.workers, -1, -1, withscores=True)
    return int(last[0][1]) if last else 0


def at(address: Address) -> Locate:
    """The `locate` function of a client, for a fixed address."""

    async def locate() -> Address:
        return address

    return locate


def _bytes_of(reply: Any) -> int:
    if isinstance(reply, list):
        return sum(map(_bytes_of, reply))
    return len(reply) if isinstance(reply, bytes) else 0


def job(job_id: str, **fields: Any) -> NewJob:
    """A new job, due now, in the default lane."""
    given: dict[str, Any] = {"envelope": b"envelope", "lane": LANE} | fields
    return NewJob(job_id, **given)


def frame(
    kind: str,
    delivery: Delivery,
    payload: bytes = b"",
    *,
    ttl: int = 3_600_000,
    delay: int = 0,
    count: int = 0,
) -> Frame:
    """The end of an attempt as the finish script takes it; times in milliseconds."""
    return (delivery, kind, payload, ttl, delay, count)


def entry_name(lane: str, stream_id: bytes) -> bytes:
    """The name of an entry, as workers use it."""
    return lane.encode() + b" " + stream_id


def without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    """A state with some keys left out."""
    return {name: value for name, value in state.items() if name not in names}


def _job_field(name: str, value: bytes) -> Any:
    if name[0] == "h":
        return msgpack.unpackb(value)
    if name in _NUMBERS:
        return int(value)
    return value if name in "erEp" else value.decode()


def _order(entry: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split(b"-"))

"""The broker: all conversations of one event loop with the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from taskq.broker.consumer import Consumer
from taskq.broker.durable_calls import DurableCalls
from taskq.broker.jobs import Jobs
from taskq.broker.keys import Keys
from taskq.broker.leadership import Leadership
from taskq.broker.leases import Leases, ReapPolicy
from taskq.broker.producer import Producer
from taskq.broker.schedules import ScheduleStore
from taskq.broker.scripts import ClockOffset, script
from taskq.broker.waiting import Waiting
from taskq.broker.watching import Watching
from taskq.codec.signing import Signing
from taskq.core.liveness import CONNECT_SECONDS, ENQUEUE_SECONDS, REPLY_SECONDS
from taskq.core.options import Retention
from taskq.execution.address import refuse_unguarded_main
from taskq.redis.client import Client, Locate
from taskq.redis.failpoints import ARMED, FailpointClient
from taskq.redis.server_check import ServerGate

__all__ = ["Broker", "BrokerSettings", "Upkeep"]

_QUEUES: Final = 50
_ENTRIES: Final = 100
_LOOKS: Final = 400
"""Limits of one sweep: looking at this much takes the server a few milliseconds."""

_KEEP_EMPTY_MS: Final = 60_000
"""How long an empty lane is kept: an occasionally used queue need not make it anew each time."""


class Upkeep:
    """Promotes due jobs, expires jobs that waited too long, and sweeps up what is left over."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._offset = offset
        self._promote, self._sweep = script("promote"), script("sweep")
        self._sweep_keys = (
            *(keys.jobs, keys.lane_prefix, keys.lanes, keys.swept),
            *(keys.workers, keys.serves),
        )
        self._keys = (
            keys.jobs,
            keys.lane_prefix,
            keys.lanes,
            keys.due,
            keys.expiry,
            keys.idle,
            keys.wake_channel,
            keys.done_channel,
        )

    async def promote(self, limit: int, record_ttl: float) -> tuple[int, float | None]:
        """Promote up to `limit` due jobs.

        Returns how many were moved, and the seconds until the next job is due or expires (None when
        none will). `record_ttl` (seconds) is how long an expired job's record is kept.
        """
        moved, wait_ms = await self._client.script(
            self._promote, self._keys, self._offset.ms, limit, int(record_ttl * 1000)
        )
        return moved, None if wait_ms < 0 else wait_ms / 1000

    async def sweep(self, cursor: str) -> str:
        """Remove lanes that stayed empty and entries of jobs that no longer wait, some at a time.

        Start with the cursor "0" and pass on the returned one; "0" means the sweep is complete.
        """
        reply: bytes = await self._client.script(
            self._sweep, self._sweep_keys, cursor, _QUEUES, _ENTRIES, _KEEP_EMPTY_MS, _LOOKS
        )
        return reply.decode()


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """What all connections of one TaskQ share.

    `locate` finds the server. `enqueue_deadline` (seconds) bounds how long an enqueue tries to
    reach it. `retention` says how long failed, cancelled and expired jobs are kept. A job whose
    worker died `max_crashes` times is not tried again. `server_gate` checks each server once for
    all connections. `configured` returns whether the server's address was configured. `signing`
    signs and verifies every envelope and result.
    """

    locate: Locate
    keys: Keys
    offset: ClockOffset
    enqueue_deadline: float = ENQUEUE_SECONDS
    retention: Retention = Retention()
    max_crashes: int = 3
    server_gate: ServerGate = field(default_factory=ServerGate)
    configured: Callable[[], bool] = lambda: True
    signing_keys: Sequence[str | bytes] | None = field(default=None, repr=False)
    signing: Signing = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signing", Signing(self.keys.namespace, self.signing_keys))


class Broker:
    """One connection and the services that share it.

    Raises `ConfigError` in a child process that imports the main module only to run one of its
    functions: such a process must not repeat what the program does.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str = "taskq",
        connect_timeout: float = CONNECT_SECONDS,
        reply_timeout: float = REPLY_SECONDS,
    ) -> None:
        refuse_unguarded_main()
        self.settings = settings
        kind = Client if ARMED is None else FailpointClient
        self.client = kind(
            settings.locate,
            name=name,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            check=settings.server_gate.check,
        )
        shared = (self.client, settings.keys, settings.offset)
        failure_ttl = settings.retention.failure_seconds
        self.producer = Producer(
            *shared,
            deadline=settings.enqueue_deadline,
            failure_ttl=failure_ttl,
            signing=settings.signing,
        )
        self.waiting = Waiting(*shared)
        self.jobs = Jobs(*shared, failure_ttl=failure_ttl, signing=settings.signing)
        self.watching = Watching(
            *shared, jobs=self.jobs, waiting=self.waiting, signing=settings.signing
        )
        self.leases = Leases(*shared)
        self.durable_calls = DurableCalls(
            *shared, retention=settings.retention, signing=settings.signing
        )
        self.upkeep = Upkeep(*shared)
        self.leadership = Leadership(*shared)
        self.schedules = ScheduleStore(*shared, signing=settings.signing)

    @property
    def keys(self) -> Keys:
        return self.settings.keys

    @property
    def reap_policy(self) -> ReapPolicy:
        """What happens to the jobs of dead workers."""
        settings, kept = self.settings, self.settings.retention
        return ReapPolicy(settings.max_crashes, kept.failure_seconds, kept.keep_failed)

    def consumer(self, worker: str) -> Consumer:
        """The consumer for the worker of this name."""
        settings = self.settings
        return Consumer(
            self.client,
            settings.keys,
            settings.offset,
            worker,
            failure_ttl=settings.retention.failure_seconds,
            keep_failed=settings.retention.keep_failed,
            signing=settings.signing,
        )

    async def aclose(self) -> None:
        """Close the connection; pending waits fail."""
        self.waiting.close()
        await self.client.aclose()

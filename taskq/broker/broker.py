"""The broker: every conversation with the server, for one event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from taskq.broker.consumer import Consumer
from taskq.broker.durable_calls import Deferrals
from taskq.broker.jobs import Jobs
from taskq.broker.keys import Keys
from taskq.broker.leadership import Leadership
from taskq.broker.leases import Leases, ReapPolicy
from taskq.broker.producer import Producer
from taskq.broker.schedules import ScheduleStore
from taskq.broker.scripts import ClockOffset, script
from taskq.broker.server_gate import ServerGate
from taskq.broker.waiting import Waiting
from taskq.broker.watching import Watching
from taskq.codec.signing import Signing
from taskq.core.liveness import CONNECT_SECONDS, ENQUEUE_SECONDS, REPLY_SECONDS
from taskq.core.options import Retention
from taskq.execution.executors.address import refuse_unguarded_main
from taskq.redis.client import Client, Locate
from taskq.redis.failpoints import ARMED, FailpointClient

__all__ = ["Broker", "BrokerSettings", "Upkeep"]

_QUEUES: Final = 50
_ENTRIES: Final = 100
_LOOKS: Final = 400
"""So many lanes and entries take the server some milliseconds."""

_KEEP_EMPTY_MS: Final = 60_000
"""How long an empty lane is kept, so that a queue used now and then costs nothing."""


class Upkeep:
    """Promotes due jobs, expires waiting ones, and sweeps."""

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
        """Move up to `limit` due jobs; how many, and seconds until the next is due (None: none is).

        `record_ttl` (seconds) is how long an expired job's record is kept.
        """
        moved, wait_ms = await self._client.script(
            self._promote, self._keys, self._offset.ms, limit, int(record_ttl * 1000)
        )
        return moved, None if wait_ms < 0 else wait_ms / 1000

    async def sweep(self, cursor: str) -> str:
        """Remove lanes that stayed empty and entries of jobs that wait no more, some at a time.

        `cursor` is "0" at first and what the last call gave then; "0" again is the end.
        """
        reply: bytes = await self._client.script(
            self._sweep, self._sweep_keys, cursor, _QUEUES, _ENTRIES, _KEEP_EMPTY_MS, _LOOKS
        )
        return reply.decode()


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """What every connection of one TaskQ shares.

    `locate` tells where the server is. `enqueue_deadline` (seconds) bounds how long an enqueue
    tries to reach it. `retention` is how long failed, cancelled and expired jobs are kept. A job
    whose worker died `max_crashes` times is not tried again. `server_gate` looks at the server once
    for all of them. `configured` tells whether somebody said where the server is. `signing` seals
    and opens what travels; whoever makes an envelope or reads one asks it.
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

    Raises `ConfigError` in a process that only imports the main module, to run a function of it: it
    must not do what the program does.
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
        self.deferrals = Deferrals(*shared, retention=settings.retention, signing=settings.signing)
        self.upkeep = Upkeep(*shared)
        self.leadership = Leadership(*shared)
        self.schedules = ScheduleStore(*shared, signing=settings.signing)

    @property
    def keys(self) -> Keys:
        return self.settings.keys

    @property
    def reap_policy(self) -> ReapPolicy:
        """How dead workers' jobs are judged."""
        settings, kept = self.settings, self.settings.retention
        return ReapPolicy(settings.max_crashes, kept.failure_seconds, kept.keep_failed)

    def consumer(self, worker: str) -> Consumer:
        """The traffic of a worker of this name."""
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
        """Close the connection and end what waits on it."""
        self.waiting.close()
        await self.client.aclose()

"""The broker: everything that talks to the server, for one event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taskq.broker.armed import ArmedClient
from taskq.broker.client import Client, Locate
from taskq.broker.clock import ClockOffset
from taskq.broker.consumer import Consumer
from taskq.broker.deferrals import Deferrals
from taskq.broker.entrance import Entrance
from taskq.broker.jobs import Jobs
from taskq.broker.keys import Keys
from taskq.broker.leadership import Leadership
from taskq.broker.leases import Leases, ReapPolicy
from taskq.broker.producer import Producer
from taskq.broker.schedules import ScheduleStore
from taskq.broker.upkeep import Upkeep
from taskq.broker.waiting import Waiting
from taskq.broker.watching import Watching
from taskq.core.failpoints import ARMED
from taskq.core.liveness import CONNECT_SECONDS, ENQUEUE_SECONDS, REPLY_SECONDS
from taskq.core.retention import Retention
from taskq.core.signing import Signing
from taskq.execution.executors.address import refuse_unguarded_main

__all__ = ["Broker", "BrokerSettings"]


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """What every connection of one TaskQ shares.

    `locate` tells where the server is. `enqueue_deadline` (seconds) bounds how long an enqueue
    tries to reach it. `retention` is how long failed, cancelled and expired jobs are kept. A job
    whose worker died `max_crashes` times is not tried again. `entrance` looks at the server once
    for all of them. `configured` tells whether somebody said where the server is. `signing` seals
    and opens what travels; whoever makes an envelope or reads one asks it.
    """

    locate: Locate
    keys: Keys
    offset: ClockOffset
    enqueue_deadline: float = ENQUEUE_SECONDS
    retention: Retention = Retention()
    max_crashes: int = 3
    entrance: Entrance = field(default_factory=Entrance)
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
        kind = Client if ARMED is None else ArmedClient
        self.client = kind(
            settings.locate,
            name=name,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            admit=settings.entrance.admit,
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

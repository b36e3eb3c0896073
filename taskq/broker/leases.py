"""Who lives: beats, dead workers, and jobs stranded by a lost reply."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from taskq.broker.client import Client
from taskq.broker.clock import ClockOffset
from taskq.broker.consumer import delivery_of
from taskq.broker.keys import Keys
from taskq.broker.scripts import script
from taskq.core.envelope import pack_failure
from taskq.core.job import Delivery
from taskq.core.outcome import Failed

__all__ = ["BeatReply", "Leases", "ReapPolicy", "Reaped"]


@dataclass(frozen=True, slots=True)
class BeatReply:
    """What the server tells a living worker: how many jobs it holds, which are to be cancelled."""

    held: int
    cancels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReapPolicy:
    """`max_crashes` deaths of its worker make a job poison; failed records live `failure_ttl` s."""

    max_crashes: int = 3
    failure_ttl: float = 604_800.0
    keep_failed: int = 10_000


@dataclass(frozen=True, slots=True)
class Reaped:
    """What became of a dead worker's jobs."""

    moved: int
    poisoned: int


class Leases:
    """Reads and writes the records by which workers are judged."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._keys = keys
        self._offset = offset
        self._scripts = {name: script(name) for name in ("beat", "reap", "strays")}

    async def beat(self, worker: str, description: bytes, *, register: int = 0) -> BeatReply | None:
        """Say that `worker` lives; None when the server has declared it dead.

        `register`: it is new here, and runs so many jobs at once; None when its name is taken.
        """
        keys = self._keys
        reply = await self._client.script(
            self._scripts["beat"],
            (keys.workers, keys.held, keys.cancels + worker, keys.worker_info + worker, keys.slots),
            worker,
            int(register),
            description,
        )
        if reply is None:
            return None
        return BeatReply(reply[0], tuple(job_id.decode() for job_id in reply[1]))

    async def counters(self) -> dict[str, str]:
        """The beat counter of every registered worker."""
        reply = await self._client.command("HGETALL", self._keys.workers)
        return {worker.decode(): counter.decode() for worker, counter in reply.items()}

    async def holders(self) -> dict[str, str]:
        """The beat counter of every registered worker that holds jobs."""
        held = await self._client.command("HGETALL", self._keys.held)
        holding = {worker.decode() for worker, count in held.items() if int(count) > 0}
        return {name: beat for name, beat in (await self.counters()).items() if name in holding}

    async def half_reaped(self) -> list[str]:
        """Workers whose jobs somebody began to take back, and did not end."""
        reply = await self._client.command("SMEMBERS", self._keys.dead)
        return [worker.decode() for worker in reply]

    async def reap(
        self, worker: str, policy: ReapPolicy, *, counter: str = "", died: bool = True
    ) -> Reaped | None:
        """Give a worker's jobs to the others; None when its beat moved on from `counter`.

        `died=False` is a worker that leaves: its jobs count no crash.
        """
        moved = poisoned = 0
        while True:
            reply = await self._reap_some(worker, policy, counter, died)
            if reply is None:
                return None
            moved, poisoned = moved + reply[0], poisoned + reply[1]
            if reply[2] != b"1":
                return Reaped(moved, poisoned)

    async def _reap_some(
        self, worker: str, policy: ReapPolicy, counter: str, died: bool
    ) -> tuple[int, int, bytes] | None:
        keys = self._keys
        return await self._client.script(
            self._scripts["reap"],
            (
                keys.jobs,
                keys.lane_prefix,
                keys.lanes,
                keys.idle,
                keys.workers,
                keys.held,
                keys.dead,
                keys.failed,
                keys.done_channel,
                keys.wake_channel,
                keys.cancels + worker,
                keys.worker_info + worker,
                keys.expiry,
                keys.slots,
            ),
            self._offset.ms,
            worker,
            counter,
            int(died),
            1000,
            policy.max_crashes,
            int(policy.failure_ttl * 1000),
            policy.keep_failed,
            _poison(policy.max_crashes),
        )

    async def held(self, worker: str) -> set[bytes]:
        """The entries of all jobs the server says `worker` holds."""
        return set(await self._strays(worker, ""))

    async def hand_again(self, worker: str, entries: Iterable[bytes]) -> list[Delivery]:
        """The jobs behind `entries` that are still this worker's, as a fetch gives them."""
        return [delivery_of(row) for row in await self._strays(worker, *entries)]

    async def _strays(self, worker: str, *entries: bytes | str) -> list[Any]:
        keys = self._keys
        return await self._client.script(
            self._scripts["strays"],
            (keys.jobs, keys.lane_prefix, keys.lanes),
            worker,
            *entries,
        )


def _poison(crashes: int) -> bytes:
    return pack_failure(
        Failed(
            "Poison",
            f"{crashes} workers died while they ran this job; it is not tried again. Look into "
            "their logs, and try it with executor='process', where a crash hits only the job",
            "",
            "poison",
        )
    )

"""A producer of chaos: `python -m tests.faults.chaos.producer SEED RATE LONGEST`.

It asks for jobs of all kinds, notes what it asked for before and what was acknowledged after,
cancels some and waits for some. SIGTERM makes it ask for no more and wait for what it waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Sequence

from taskq import Job, JobFailed, Signature, TaskqError
from tests.faults.chaos import program
from tests.faults.ledger import Ledger

WAIT_SECONDS = 300.0

BALLAST = "x" * 300_000
MOST_HEAVY = 5
"""How often the jobs that are asked for together are heavy: the server keeps them for the end."""


class Producer:
    """Asks for `rate` jobs per second, none longer than `longest` seconds."""

    def __init__(self, seed: str, rate: float, longest: float) -> None:
        self._random = random.Random(seed)
        self._name, self._rate, self._longest = seed, rate, longest
        self._ledger = Ledger(os.environ["CHAOS_LEDGER"])
        self._asked = 0
        self._heavy = 0
        self._beside: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()

    async def run(self) -> None:
        began = time.monotonic()
        while not self.stopped.is_set():
            await self._ask(self._random.choice((1, 1, 5, 20, 50)))
            early = began + self._asked / self._rate - time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), max(0.0, min(5.0, early)))
        await asyncio.gather(*self._beside)
        await program.q.aclose()

    async def _ask(self, count: int) -> None:
        rows: list[tuple[str, str]] = []
        signatures: list[Signature[int]] = []
        ballast = BALLAST if self._heavy < MOST_HEAVY and self._random.random() < 0.05 else ""
        self._heavy += bool(ballast)
        for _ in range(count):
            self._asked += 1
            token, fate = f"{self._name}.{self._asked}", self._fate()
            note, signature = self._signature(token, fate, ballast)
            rows.append((token, note))
            signatures.append(signature)
        self._ledger.write_many("ask", [(token, "-", 0, note) for token, note in rows])
        try:
            jobs = await self._enqueue(signatures)
        except TaskqError as error:
            print(f"{self._name}: {count} not acknowledged: {error}", file=sys.stderr, flush=True)
            return
        self._ledger.write_many(
            "ack", [(token, job.id, 0, "-") for (token, _), job in zip(rows, jobs, strict=True)]
        )
        for (token, note), job in zip(rows, jobs, strict=True):
            self._follow(token, note, job)

    async def _enqueue(self, signatures: Sequence[Signature[int]]) -> list[Job[int]]:
        if self._random.random() < 0.5:
            return await program.q.enqueue_many(signatures)
        return list(await asyncio.gather(*(signature.enqueue() for signature in signatures)))

    def _fate(self) -> str:
        return self._random.choices(program.FATES, (90, 5, 3, 2))[0]

    def _signature(self, token: str, fate: str, ballast: str) -> tuple[str, Signature[int]]:
        draw, seconds = self._random, self._seconds()
        task = draw.choices((program.in_loop, program.in_thread, program.in_process), (80, 17, 3))[
            0
        ]
        options: dict[str, object] = {
            "queue": draw.choice(program.QUEUES), "priority": draw.randint(0, 9),
        }  # fmt: skip
        note = fate
        if draw.random() < 0.1:
            options["delay"] = draw.uniform(0.0, 5.0)
        elif draw.random() < 0.02:
            options["expires"] = draw.uniform(0.5, 5.0)
            note += "+expires"
        if draw.random() < 0.1:
            options["id"] = f"own:{token}"
        return note, task.options(**options).s(token, seconds, fate, ballast)

    def _seconds(self) -> float:
        """Most jobs are quick, some take a while, a few take very long."""
        kind = self._random.random()
        if kind < 0.9:
            return 0.0 if kind < 0.5 else self._random.uniform(0.0, 0.05)
        if kind < 0.99:
            return self._random.uniform(0.05, min(1.0, self._longest))
        return self._random.uniform(0.5, self._longest)

    def _follow(self, token: str, note: str, job: Job[int]) -> None:
        kind = self._random.random()
        if kind < 0.03:
            self._spawn(self._cancel(token, job))
        elif kind < 0.08 and note == "ok":
            self._spawn(self._wait(token, job))

    def _spawn(self, coroutine: object) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[arg-type]
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _cancel(self, token: str, job: Job[int]) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 2.0))
        self._ledger.write("cancel", token, job.id)
        with contextlib.suppress(TaskqError):
            await job.cancel()

    async def _wait(self, token: str, job: Job[int]) -> None:
        try:
            attempt = await job.result(timeout=WAIT_SECONDS)
        except JobFailed as error:
            # Given up as poison: the oracle judges whether that was right.
            print(f"{self._name}: {token} failed: {error}", file=sys.stderr, flush=True)
            return
        self._ledger.write("got", token, job.id, note=str(attempt))


async def main(seed: str, rate: str, longest: str) -> None:
    producer = Producer(seed, float(rate), float(longest))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.stopped.set)
    await producer.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

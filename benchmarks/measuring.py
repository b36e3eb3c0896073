"""What was measured: samples by row and round, and the figures drawn from them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.plan import Plan
from benchmarks.processor import seconds_waited
from benchmarks.server import Server
from benchmarks.worker_parent import WorkerProcess

__all__ = [
    "Figure",
    "Findings",
    "Goal",
    "Metrics",
    "at_least",
    "at_most",
    "drain_once",
    "enqueue_once",
    "interleaved",
]

Metrics = dict[str, float]
"""Values by name; the names and their units are in report.py."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is meant to reach: at least or at most `bound`."""

    kind: str
    bound: float

    def met_by(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value >= self.bound if self.kind == "at least" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"


def at_least(bound: float) -> Goal:
    return Goal("at least", bound)


def at_most(bound: float) -> Goal:
    return Goal("at most", bound)


@dataclass(slots=True)
class Figure:
    """One figure: its meaning, a sample per round, and its goal if it has one."""

    text: str
    samples: list[float]
    goal: Goal | None = None

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.samples)


@dataclass(slots=True)
class Findings:
    """What one scenario gave. `rows`: metrics by row, one for each round. `note`: what was run."""

    note: str
    rows: dict[str, list[Metrics]] = field(default_factory=dict[str, list[Metrics]])
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])

    def samples(self, row: str, metric: str) -> list[float]:
        """One metric of one row, by round."""
        return [metrics[metric] for metrics in self.rows[row]]

    def medians(self, row: str) -> Metrics:
        """The median of every metric of a row."""
        rounds = self.rows[row]
        return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}

    def take(self, name: str, text: str, row: str, metric: str, goal: Goal | None = None) -> None:
        """A figure that is one metric of one row."""
        self.figures[name] = Figure(text, self.samples(row, metric), goal)

    def compare(
        self,
        name: str,
        text: str,
        above: tuple[str, str],
        below: tuple[str, str],
        goal: Goal | None = None,
    ) -> None:
        """A figure that is a ratio. It is taken within each round, so that a slow minute of the
        machine slows both sides; `above` and `below` are (row, metric)."""
        pairs = zip(self.samples(*above), self.samples(*below), strict=True)
        self.figures[name] = Figure(text, [high / low for high, low in pairs], goal)


async def interleaved(
    plan: Plan, findings: Findings, sides: Mapping[str, Callable[[], Awaitable[Metrics]]]
) -> None:
    """Measure all sides in turn, round after round, after one round that does not count."""
    names = list(sides)
    for number in range(plan.runs + 1):
        # Reversed every time: the first side runs without the noise of another.
        for name in names if number % 2 else reversed(names):
            gc.collect()
            metrics = await sides[name]()
            if number:
                findings.rows.setdefault(name, []).append(metrics)
    findings.rows = {name: findings.rows[name] for name in names}


async def drain_once(server: Server, worker: WorkerProcess, jobs: int, **order: object) -> Metrics:
    """Have a worker process run `jobs` jobs that are queued already.

    Raises RuntimeError when there are not as many results afterwards: then nothing was measured.
    """
    await server.quiet()
    before, waited = server.cpu(), server.waited()
    measured = await worker.call({"do": "drain", "jobs": jobs, **order})
    cpu = server.cpu() - before
    if server.size() < jobs:
        raise RuntimeError(f"{server.size()} keys instead of {jobs} results")
    return {
        "jobs_per_s": jobs / measured["wall"],
        "worker_us": measured["cpu"] / jobs * 1e6,
        "server_us": cpu / jobs * 1e6,
        "rss_mb": measured["rss"] / 1e6,
        "waited": max(measured["waited"], server.waited() - waited) / measured["wall"],
    }


async def enqueue_once(server: Server, jobs: int, work: Callable[[], Awaitable[object]]) -> Metrics:
    """Have `work` enqueue `jobs` jobs from this process."""
    await server.quiet()
    before, waits = server.cpu(), (seconds_waited(), server.waited())
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    waited = max(seconds_waited() - waits[0], server.waited() - waits[1])
    return {
        "jobs_per_s": jobs / wall,
        "client_us": cpu / jobs * 1e6,
        "server_us": (server.cpu() - before) / jobs * 1e6,
        "waited": waited / wall,
    }
